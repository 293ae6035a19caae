"""Two-dimensional convolution, by a product with the patches that each output sees.

    y[h, w, o] = b[o] + Σ_{i, j, c} x[s h + i − p, s w + j − p, c] W[o, c, i, j]                  LeCun et al. 1998
    z[s h + i, s w + j, o] = b[o] + Σ_c x[h, w, c] W[c, o, i, j],  0 ≤ i, j < s                   transposed

    x    a picture or a map of features, (*batch, H, W, C): channels last, everywhere in `models.vision`. The models
         alone take pixels as processors return them, (*batch, C, H, W).
    W    (out, in, kH, kW), and of the transposed convolution (in, out, s, s): the layouts of PyTorch and of files
    s    stride;  p  zeros beyond each edge

It is a cross-correlation, as in all libraries: W is not flipped. Rows and columns at the end that no patch reaches are
left out. The transposed convolution has its kernel as wide as its stride: nothing overlaps, and nothing is summed.
"""

from typing import Any

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from models.forms import Array, checked

Maps = Float[Array, "*batch H W C"]


@checked
def conv2d(
    x: Maps,
    w: Float[Array, "O C kH kW"],
    b: Float[Array, "O"] | None = None,
    *,
    stride: int = 1,
    padding: Any = 0,
) -> Float[Array, "*batch H2 W2 O"]:
    """Convolve x with w; H2 = ⌊(H + 2 padding − kH)/stride⌋ + 1, and W2 likewise.

    Raises ValueError for shapes that do not fit, among them a kernel that is larger than the padded x, and for a
    padding that is no count.
    """
    if not hasattr(padding, "__index__") or padding < 0:
        raise ValueError(f"convolution.conv2d: padding is {padding!r}, expected an integer of at least 0")
    xp, (O, C, *kernel) = namespace(x, w), w.shape
    if padding:
        x = mg.pad(x, ((0, 0),) * (x.ndim - 3) + ((padding, padding),) * 2 + ((0, 0),))
    for axis, size, taps in zip("HW", x.shape[-3:-1], kernel, strict=True):
        if size < taps:
            message = f"x has {size} on axis {axis} with its padding, expected at least the kernel's {taps}"
            raise ValueError(f"convolution.conv2d: {message}")
    W = xp.reshape(xp.permute_dims(w, (2, 3, 1, 0)), (kernel[0] * kernel[1] * C, O))
    y = mg.matmul(_patches(x, kernel[0], kernel[1], stride), W)  # one product; `@` of NumPy makes one for each row
    return y if b is None else y + b


@checked
def conv_transpose2d(
    x: Maps, w: Float[Array, "C O s s"], b: Float[Array, "O"] | None = None
) -> Float[Array, "*batch s*H s*W O"]:
    """Replace each place of x by s × s places: the adjoint of `conv2d` with the same w, and the stride s."""
    xp, (C, O, s, _) = namespace(x, w), w.shape
    *batch, H, width, _ = x.shape
    y = mg.matmul(x, xp.reshape(xp.permute_dims(w, (0, 2, 3, 1)), (C, s * s * O)))
    y = xp.reshape(y, (*batch, H, width, s, s, O))
    y = xp.reshape(xp.moveaxis(y, -3, -4), (*batch, s * H, s * width, O))  # rows beside their offsets, then columns
    return y if b is None else y + b


def _patches(x: Maps, kH: int, kW: int, stride: int) -> Float[Array, "*batch H2 W2 kH*kW*C"]:
    """Return what each output sees, in the order (i, j, c): slices of x side by side, one for each tap (i, j)."""
    H2, W2 = ((size - taps) // stride + 1 for size, taps in zip(x.shape[-3:-1], (kH, kW), strict=True))
    rows, columns = stride * (H2 - 1) + 1, stride * (W2 - 1) + 1
    taps = [x[..., i : i + rows : stride, j : j + columns : stride, :] for i in range(kH) for j in range(kW)]
    return namespace(x).concat(taps, axis=-1)
