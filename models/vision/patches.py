"""Patches: what a vision Transformer reads instead of words.

z₀ = [x_class; x¹_p E; x²_p E; …; xᴺ_p E] + E_pos                            Dosovitskiy et al. 2021, eq. 1

pixels  (*batch, C, H, W), as processors return them
x_p     patches of P × P pixels, (*batch, N, C P²): row by row, N = H W/P²; the numbers of one as (c, y, x)
E       the patch embedding, kept as the weights (D, C, P, P) of a convolution, which it is: kernel and stride P
x_class the class token (D,)
E_pos   learned positions (1 + N, D), the class token's first. For a picture of another size those of the patches
        are interpolated as a map (section 3.2, "higher resolution"); the class token's stays.
"""

import numpy as np
from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from minigrad.nn import Module
from models.forms import Array, checked
from models.vision import interpolation


@checked
def cut(pixels: Float[Array, "*batch C H W"], size: int) -> Float[Array, "*batch rows columns C*size*size"]:
    """Return the patches of `size` × `size` pixels. Raises ValueError where that does not divide a picture's sides."""
    xp, (*batch, C, H, W) = namespace(pixels), pixels.shape
    if H % size or W % size:
        message = f"pixels has a picture of {H} × {W}, expected multiples of the patch's {size} × {size}"
        raise ValueError(f"patches.cut: {message}")
    x = xp.reshape(pixels, (*batch, C, H // size, size, W // size, size))
    x = xp.moveaxis(x, (-4, -2), (-5, -4))  # (*batch, rows, columns, C, P, P)
    return xp.reshape(x, (*batch, H // size, W // size, C * size * size))


@checked
def embed(
    pixels: Float[Array, "*batch C H W"], w: Float[Array, "D C P P"], b: Float[Array, "D"] | None = None
) -> Float[Array, "*batch rows columns D"]:
    """Return x_p E + b, with E as the weights w of a convolution. Raises ValueError as `cut` does."""
    width, channels, size, _ = w.shape
    E = namespace(w).reshape(w, (width, channels * size * size)).mT
    x = mg.matmul(cut(pixels, size), E)  # one product; `@` of NumPy makes one for each row of patches
    return x if b is None else x + b


class PatchEmbedding(Module):
    """x_p E + b: a linear map of each patch, initialised as `nn.Linear` is."""

    def __init__(self, channels: int, size: int, width: int, rng: np.random.Generator, *, bias: bool = True) -> None:
        bound = 1 / np.sqrt(channels * size * size)
        self.weight = rng.uniform(-bound, bound, (width, channels, size, size)).astype(np.float32)
        self.bias = rng.uniform(-bound, bound, width).astype(np.float32) if bias else None

    def __call__(self, pixels):
        """Return the map (*batch, H/P, W/P, D) of the patches of pixels (*batch, C, H, W).

        Raises ValueError for another number of channels, and for sides that P does not divide.
        """
        channels = self.weight.shape[1]
        if pixels.ndim < 3 or pixels.shape[-3] != channels:
            message = f"pixels has shape {tuple(pixels.shape)}, expected (*batch, {channels}, H, W)"
            raise ValueError(f"PatchEmbedding: {message}")
        return embed(pixels, self.weight, self.bias)


class PatchTokens(Module):
    """z₀: the class token and the embedded patches with their positions, for pictures that have `grid` patches."""

    def __init__(self, patch: PatchEmbedding, grid: tuple[int, int], rng: np.random.Generator) -> None:
        width = patch.weight.shape[0]
        self.patch, self.grid = patch, grid
        self.class_token = (0.02 * rng.standard_normal((width,))).astype(np.float32)
        self.positions = (0.02 * rng.standard_normal((1 + grid[0] * grid[1], width))).astype(np.float32)

    def __call__(self, pixels):
        """Return z₀, (*batch, 1 + N, D), of pixels (*batch, C, H, W). Raises ValueError as `PatchEmbedding` does."""
        x = self.patch(pixels)
        xp, (*batch, rows, columns, width) = namespace(x), x.shape
        first = xp.broadcast_to(self.class_token, (*batch, 1, width))
        tokens = xp.concat([first, xp.reshape(x, (*batch, rows * columns, width))], axis=-2)
        return tokens + self.positions_for(rows, columns)

    def positions_for(self, rows: int, columns: int):
        """Return E_pos of rows × columns patches, (1 + rows · columns, D), interpolated where these are not the grid's.

        By cubic convolution, as the published implementations do; the paper only says that it is in two dimensions.
        """
        if (rows, columns) == self.grid:
            return self.positions
        xp, width = namespace(self.positions), self.positions.shape[-1]
        learned = xp.reshape(self.positions[1:], (*self.grid, width))
        resized = xp.reshape(interpolation.resize(learned, rows, columns), (rows * columns, width))
        return xp.concat([self.positions[:1], resized], axis=0)
