"""Vision Transformers: patches, positions, the class token, and what convolution and attention reach and cost.

Models have fixed weights; what is drawn are pictures and tokens. What is stated of whole encoders is of layers without
their norms, whose rounding has no useful bound in several layers, except where norms are the point.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from minigrad.pytree import map_arrays, unchanged
from models.attention import softmax
from models.vision import convolution, encoder, interpolation, patches, vit
from proofs.checker.counting import counted
from proofs.checker.statements import bounded, grows, identity, refuted
from proofs.checker.strategies import LARGE, POSITIVE, SMALL, Strategy

CHAPTER = 23

VIT = "dosovitskiy2021"
WIDTH, PATCH, ROWS, COLUMNS = 4, 2, 2, 3
NUMPY = ("float64", "float32", "gradient")  # the weights are NumPy arrays of float32
UNIT = 2.0**-53

SIDES = {"H": st.integers(3, 5), "W": st.integers(3, 5)}
Maps = Annotated[Any, Strategy("*batch H W D", LARGE, sizes=SIDES)]
Kernel = Annotated[Any, Strategy("P D 2 3", SMALL)]
PatchKernel = Annotated[Any, Strategy(f"P D {PATCH} {PATCH}", SMALL)]
Bias = Annotated[Any, Strategy("P", LARGE)]
Stride = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.sampled_from([1, 2, 3])))]
Padding = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.sampled_from([0, 1, 2])))]
Pixels = Annotated[Any, Strategy(f"*batch D {PATCH * ROWS} {PATCH * COLUMNS}", LARGE)]
Cells = Annotated[Any, Strategy("*batch H W P", LARGE, sizes=SIDES)]
Enlarged = Annotated[Any, Strategy(f"*batch {PATCH}*H {PATCH}*W D", LARGE, sizes=SIDES)]
Picture = Annotated[Any, Strategy(f"*batch 1 {PATCH * ROWS} {PATCH * COLUMNS}", SMALL)]
Sequence = Annotated[Any, Strategy(f"*batch {1 + ROWS * COLUMNS} {WIDTH}", SMALL)]
Order = Annotated[Any, Strategy(number=lambda draw, sizes: draw(st.permutations(range(ROWS * COLUMNS))))]
Tokens = Annotated[Any, Strategy(f"*batch T {WIDTH}", SMALL)]
Others = Annotated[Any, Strategy(f"*batch S {WIDTH}", SMALL)]
Weights = Annotated[Any, Strategy("*batch 3 H T T", POSITIVE)]
Size = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 9)))]
Depth = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 3)))]
Taps = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.sampled_from([3, 1, 5])))]


# Convolution and patches


@identity(
    "y[h, w, o] = b[o] + Σ x[s h + i − p, s w + j − p, c] W[o, c, i, j], with zeros beyond the edges",
    source="lecun1998, section II",
    exact=True,
)
def a_convolution_is_a_sum_over_taps(x: Maps, w: Kernel, b: Bias, stride: Stride, padding: Padding):
    xp, (H, W) = namespace(x, w), x.shape[-3:-1]
    zero, rows = 0 * x[..., 0, 0, :], []
    for h in range((H + 2 * padding - w.shape[-2]) // stride + 1):
        row = []
        for v in range((W + 2 * padding - w.shape[-1]) // stride + 1):
            y = b
            for i in range(w.shape[-2]):
                for j in range(w.shape[-1]):
                    at, beside = stride * h + i - padding, stride * v + j - padding
                    inside = 0 <= at < H and 0 <= beside < W
                    y = y + (x[..., at, beside, :] if inside else zero) @ w[:, :, i, j].T
            row.append(y)
        rows.append(xp.stack(row, axis=-2))
    return convolution.conv2d(x, w, b, stride=stride, padding=padding), xp.stack(rows, axis=-3)


@identity(
    "A transposed convolution of stride s by kernels of s × s is the adjoint of the convolution",
    source="minigrad, 〈convolved y, x〉 = 〈y, transposed x〉",
    exact=True,
)
def transposed_is_the_adjoint(x: Cells, y: Enlarged, w: PatchKernel):
    xp = namespace(x, y, w)
    left = xp.sum(convolution.conv2d(y, w, stride=PATCH) * x, axis=(-3, -2, -1))
    return left, xp.sum(y * convolution.conv_transpose2d(x, w), axis=(-3, -2, -1))


@identity(
    "The patch embedding, flattened patches times a matrix, is a convolution with kernel and stride P",
    source=f"{VIT}, eq. 1; talk-papers, ViT",
    exact=True,
)
def patches_are_a_strided_convolution(pixels: Pixels, w: PatchKernel, b: Bias):
    layer = patches.PatchEmbedding(1, PATCH, 1, np.random.default_rng(0))
    layer.weight, layer.bias = w, b
    channels_last = namespace(pixels).moveaxis(pixels, -3, -1)
    return layer(pixels), convolution.conv2d(channels_last, w, b, stride=PATCH)


@bounded(
    "Positions are interpolated by the kernel of cubic convolution, at places (u + ½) n/m − ½, clamped to the ends",
    source=f"keys1981, eq. 4, with a = −¾; {VIT}, section 3.2",
    only=("float64",),
)
def interpolation_is_cubic_convolution(n: Size, m: Size):
    def cubic(d: float) -> float:
        near, far = 1 - 2.25 * d**2 + 1.25 * d**3, -0.75 * (d - 1) * (d - 2) ** 2
        return near if d < 1 else far if d < 2 else 0.0

    def linear(d: float) -> float:
        return max(0.0, 1 - d)

    errors = []
    for matrix, kernel in ((interpolation.bicubic(n, m), cubic), (interpolation.linear(n, m), linear)):
        expected = np.zeros((m, n))
        for u in range(m):
            x = (u + 0.5) * n / m - 0.5
            for k in range(-3, n + 3):
                expected[u, min(max(k, 0), n - 1)] += kernel(abs(x - k))
        errors.append(abs(matrix - expected).max())
        errors.append(abs(matrix.sum(axis=1) - 1).max())
    return np.array(errors), np.full(len(errors), 64 * n * UNIT)


@identity(
    "A map with as many rows and columns as before stays as it is; its rows and columns are interpolated in turn",
    source=f"{VIT}, section 3.2",
    only=NUMPY,
)
def maps_are_interpolated_by_axes(x: Maps, n: Size, m: Size):
    xp, (H, W) = namespace(x), x.shape[-3:-1]
    R, C = (interpolation.bicubic(*sizes) for sizes in ((H, n), (W, m)))
    R, C = (xp.astype(to_library_of(x, matrix), x.dtype) for matrix in (R, C))
    y = xp.sum(R[:, :, None, None] * x[..., None, :, :, :], axis=-3)  # (*batch, n, W, D)
    expected = xp.sum(C[:, :, None] * y[..., None, :, :], axis=-2)  # (*batch, n, m, D)
    return (interpolation.resize(x, n, m), interpolation.resize(x, H, W)), (expected, x)


# The class token and positions


@identity(
    "Patches permuted with their positions change nothing for the class token, and permute the other tokens",
    source=f"{VIT}, section 3.1",
    only=NUMPY,
)
def patches_move_with_their_positions(pixels: Picture, z: Sequence, order: Order):
    model, place = small_model(), [0, *(1 + i for i in order)]
    tokens = model.tokens(pixels)
    model.tokens.positions = model.tokens.positions[place]
    moved = model.tokens(permuted(pixels, order)), model.encoder(reorder(z, place))
    return moved, (reorder(tokens, place), reorder(model.encoder(z), place))


@refuted(
    "So do patches without their positions (it is by them that a class token knows where a patch is)",
    source=f"{VIT}, section 3.1",
)
def patches_move_alone(z: Sequence, order: Order):
    model, place = small_model(), [0, *(1 + i for i in order)]
    return tuple(model.encoder(x + model.tokens.positions)[..., 0, :] for x in (z, reorder(z, place)))


@identity(
    "z₀ = [x_class; x¹_p E; …; xᴺ_p E] + E_pos: the first token is the same for every picture",
    source=f"{VIT}, eq. 1",
    only=("float64", "gradient"),
)
def the_tokens_are_the_paper_s(pixels: Picture):
    tokens = in_float64(small_model()).tokens
    xp, E = namespace(pixels), tokens.patch.weight.reshape(WIDTH, -1).T
    rows = [tokens.class_token + tokens.positions[0] + 0 * pixels[..., 0, 0, :1]]
    for r in range(ROWS):
        for c in range(COLUMNS):
            x_p = pixels[..., PATCH * r : PATCH * (r + 1), PATCH * c : PATCH * (c + 1)]
            x_p = xp.reshape(x_p, (*pixels.shape[:-3], PATCH * PATCH))
            rows.append(x_p @ E + tokens.patch.bias + tokens.positions[1 + r * COLUMNS + c])
    return tokens(pixels), xp.stack(rows, axis=-2)


# The encoder


@identity(
    "A layer adds to what it read: z′ = MSA(LN(z)) + z, z = MLP(LN(z′)) + z′; post-norm normalises the sums",
    source=f"{VIT}, eq. 2 and 3; talk-meeting, (2)",
    only=("float64", "gradient"),  # in float32 their rounding has no bound
)
def layers_are_pre_norm(z: Tokens):
    layer, xp = encoder.EncoderLayer(CONFIG, np.random.default_rng(0)), namespace(z)
    inside = z + layer.attention(layer_norm(xp, z))
    inner = layer_norm(xp, inside) @ layer.mlp_in.weight.T + layer.mlp_in.bias
    return layer(z), inside + (mg.relu(inner) @ layer.mlp_out.weight.T + layer.mlp_out.bias)


@identity(
    "A layer norm normalises each token by itself, whatever tokens and pictures are beside it",
    source="ba2016, eq. 3 and 4; talk-meeting, (2)",
    only=NUMPY,
)
def norms_are_per_token(z: Tokens, others: Others):
    norm = encoder.EncoderLayer(CONFIG, np.random.default_rng(0)).attention_norm
    beside = namespace(z).concat([z, others], axis=-2)
    return norm(beside)[..., : z.shape[-2], :], norm(z)


@identity(
    "Tokens that are not visible change nothing for those that are",
    source="vaswani2017, section 3.2.3",
    only=NUMPY,
)
def hidden_tokens_change_nothing(z: Tokens, others: Others):
    model = small_model().encoder
    beside = namespace(z).concat([z, others], axis=-2)
    visible = to_library_of(z, np.arange(beside.shape[-2]) < z.shape[-2])
    return model(beside, visible)[..., : z.shape[-2], :], model(z)


# Attention rollout


@identity(
    "Attention rollout sums over all paths through the layers, each step half attention and half residual",
    source="abnar2020, section 3, eq. 1",
    exact=True,
)
def rollout_is_the_sum_over_paths(weights: Weights):
    xp, size = namespace(weights), weights.shape[-1]
    A = xp.sum(weights, axis=-3) / weights.shape[-3]
    paths = [A[..., 2, :, :] @ A[..., 1, :, :] @ A[..., 0, :, :]]
    paths += [A[..., j, :, :] @ A[..., i, :, :] for i, j in ((0, 1), (0, 2), (1, 2))]
    paths += [A[..., i, :, :] for i in range(3)]
    total = paths[0]
    for path in paths[1:]:
        total = total + path
    return 8 * vit.rollout(weights) - xp.eye(size, dtype=weights.dtype), total


# What convolution and attention reach, and what they cost


@identity(
    "L layers of k × k convolutions reach L (k − 1)/2 pixels in each direction, and nothing beyond",
    source=f"{VIT}, section 3.1, inductive bias; talk-papers, ViT",
    derivatives=False,
    only=("float64",),
)
def convolutions_reach_so_far(layers: Depth, taps: Taps):
    reach, side = layers * (taps - 1) // 2, 15
    rng = np.random.default_rng(0)
    kernels = [rng.uniform(0.5, 1, (1, 1, taps, taps)) for _ in range(layers)]

    def centre(x: Any) -> Any:
        for w in kernels:
            x = convolution.conv2d(x, w, padding=taps // 2)
        return x[side // 2, side // 2, 0]

    distance = abs(np.arange(side) - side // 2)
    within = np.maximum(distance[:, None], distance[None, :]) <= reach
    return (mg.grad(centre)(np.ones((side, side, 1)))[..., 0] != 0) * 1.0, within * 1.0


@identity(
    "One layer of attention reaches every patch",
    source=f"{VIT}, section 3.1, inductive bias; talk-papers, ViT",
    derivatives=False,
    only=("float64",),
)
def attention_reaches_everywhere(count: Size):
    layer = in_float64(encoder.EncoderLayer(CONFIG, np.random.default_rng(0)))
    z = np.random.default_rng(count).standard_normal((count, WIDTH))
    gradient = mg.grad(lambda z: mg.sum(layer(z)[0]))(z)
    return (abs(gradient).max(axis=-1) > 0) * 1.0, np.ones(count)


@grows(
    "A picture of twice the side has four times the patches, and attention to all of them costs sixteen times as much",
    source="talk-papers, ViT, high resolution",
    order=4,
    lengths=(8, 16, 32),
)
def attention_s_cost_in_the_side(length: int):
    tokens, tally = (length // PATCH) ** 2, [0]
    q, k, v = (counted(np.ones((tokens, 1)), tally) for _ in range(3))
    softmax.quadratic(q, k, v, causal=False)
    return tally[0]


CONFIG = encoder.EncoderConfig(width=WIDTH, layers=2, heads=2, hidden=6, activation="relu", eps=1e-5)


def small_model() -> Any:
    """Return a model with fixed weights, whose layers have no norms, for pictures of ROWS × COLUMNS patches."""
    sizes = {"height": PATCH * ROWS, "width": PATCH * COLUMNS, "patch": PATCH, "classes": 2}
    model: Any = vit.ViT(vit.ViTConfig(**sizes, encoder=CONFIG), np.random.default_rng(0))
    for layer in model.encoder.layers:
        layer.attention_norm = layer.mlp_norm = unchanged
    return model


def in_float64(model: Any) -> Any:
    """Return the model with its weights in float64."""
    return map_arrays(lambda array: array.astype(np.float64), model)


def layer_norm(xp: Any, x: Any) -> Any:
    """Return (x − mean x)/√(var x + ε)."""
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    return centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + CONFIG.eps)


def permuted(pixels: Any, order: list[int]) -> Any:
    """Return pictures (*batch, 1, H, W) whose i-th patch is the one that was at order[i]."""
    xp, rows = namespace(pixels), []
    for r in range(ROWS):
        row = []
        for c in range(COLUMNS):
            at, beside = (PATCH * i for i in divmod(order[r * COLUMNS + c], COLUMNS))
            row.append(pixels[..., at : at + PATCH, beside : beside + PATCH])
        rows.append(xp.concat(row, axis=-1))
    return xp.concat(rows, axis=-2)


def reorder(x: Any, order: list[int]) -> Any:
    """Return the tokens of x (*batch, T, K) in another order."""
    return namespace(x).stack([x[..., i, :] for i in order], axis=-2)
