"""Inner models: the small networks that test-time training and Titans keep as memory and train token by token.

    x₁ = x,   zₗ = xₗ Wₗ + bₗ,   xₗ₊₁ = gelu(zₗ)          a model is its layers; f(x) is the last z
    ∂ℓ/∂zₗ = (∂ℓ/∂zₗ₊₁ Wₗ₊₁ᵀ) ∘ gelu′(zₗ)                 its gradient by hand, layer by layer from the last
    ∂ℓ/∂Wₗ = xₗᵀ ∂ℓ/∂zₗ                                   for one token: an outer product, of which only the factors
                                                          are kept

    layer     (W,) or (W, b): W (…, I, O), b (…, 1, O), read as x W + b. A bias is the weight of a feature that is 1.
    layers    a tuple of them: one is a matrix memory, more are an MLP.
    slope     ∂ℓ/∂z of a layer, one row a token.
    mix       P, (…, C, C): what of the write at token s is in the weights at token t.

The weights of token t of a batch of C tokens are a sum of weights that all tokens share and of Σₛ P[t, s] xₛᵀ slopeₛ.
Read by a row y of token t the sum gives Σₛ P[t, s] (y xₛᵀ) slopeₛ, in which no weights of one token stand: the dual
form of Sun et al. 2024, section 2.5, and of the talk's 1:17:08 to 1:20:37.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, TypeAlias

from minigrad import namespace
from minigrad.engine import unwrap
from minigrad.pytree import arrays_of
from models.forms import Array

Layer: TypeAlias = tuple[Array, ...]
Layers: TypeAlias = tuple[Layer, ...]
Norm: TypeAlias = tuple[Array, Array]  # γ and β of a layer norm, each (…, 1, V)

ROOT, CUBIC = math.sqrt(2 / math.pi), 0.044715
EPSILON = 1e-6  # in the layer norm, as in the code of Sun et al.


def each(function: Callable[..., Array], *models: Layers) -> Layers:
    """A model whose arrays are the function's of the arrays that stand at the same place."""
    return tuple(tuple(map(function, *layers)) for layers in zip(*models, strict=True))


def apply(layer: Layer, x: Array) -> Array:
    """z = x W + b."""
    z = x @ layer[0]
    return z + layer[1] if len(layer) == 2 else z


def forward(layers: Layers, x: Array) -> tuple[list[Array], list[Array]]:
    """What enters each layer, and what it gives: ([x₁, x₂, …], [z₁, z₂, …])."""
    inputs: list[Array] = []
    outputs: list[Array] = []
    for layer in layers:
        inputs.append(gelu(outputs[-1]) if outputs else x)
        outputs.append(apply(layer, inputs[-1]))
    return inputs, outputs


def backward(layers: Layers, outputs: list[Array], slope: Array) -> list[Array]:
    """The slope of every layer, given that of the last."""
    slopes = [slope]
    for layer, z in zip(layers[:0:-1], outputs[-2::-1], strict=True):
        slopes.insert(0, (slopes[0] @ layer[0].mT) * gelu_slope(z))
    return slopes


def moved(layer: Layer, y: Array, x: Array, slope: Array, mix: Array) -> Array:
    """Σₛ P[t, s] (yₜ xₛᵀ) slopeₛ: what the writes of a batch give to the row that reads the layer at token t."""
    return (mix * (y @ x.mT + (len(layer) - 1))) @ slope


def model(layers: Layers, norm: Norm | None, x: Array) -> Array:
    """f(x), (…, V), for rows x (…, K)."""
    return answer(norm, x, forward(layers, x)[1][-1])


def answer(norm: Norm | None, x: Array, z: Array) -> Array:
    """f(x) where the last layer gives z: z itself, or with a norm x + LN(z)."""
    return z if norm is None else x + layer_norm(z, *norm)


def missed(norm: Norm | None, k: Array, v: Array, z: Array) -> tuple[Array, Array]:
    """f(k) − v where the last layer gives z, and the slope of ½ ‖f(k) − v‖² there."""
    if norm is None:
        return z - v, z - v
    gamma, beta = norm
    unit, deviation = standardised(z)
    error = k + gamma * unit + beta - v
    return error, layer_norm_slope(unit, deviation, gamma, error)


def nothing(layers: Layers) -> Layers:
    """A model of these sizes whose arrays are 0."""
    return each(lambda x: namespace(x).zeros_like(x), layers)


def library(*given: object) -> Any:
    """The namespace of everything that goes into a form: arrays, and tuples of them such as weights and states."""
    return namespace(*arrays_of(given))


def copies(layers: Layers, n: int) -> Layers:
    """The same model for each of n tokens, (*batch, n, I, O): its gradient is then every token's own."""
    return each(lambda W: namespace(W).broadcast_to(W[..., None, :, :], (*W.shape[:-2], n, *W.shape[-2:])), layers)


def written(layers: Layers, inputs: list[Array], slopes: list[Array], share: Array) -> Layers:
    """Σₛ pₛ xₛᵀ slopeₛ, and Σₛ pₛ slopeₛ for a bias: the writes of a batch, of shares p (…, C, 1)."""
    return tuple(
        ((share * x).mT @ slope, share.mT @ slope)[: len(layer)]
        for layer, x, slope in zip(layers, inputs, slopes, strict=True)
    )


def one_matrix(layer: Layer) -> Array:
    """A layer with its bias as the last row: the weights of a feature that is 1."""
    return layer[0] if len(layer) == 1 else namespace(*layer).concat(list(layer), axis=-2)


def one_layer(matrix: Array, features: int) -> Layer:
    """The layer of a matrix: one row more than there are features is a bias."""
    return (matrix,) if matrix.shape[-2] == features else (matrix[..., :features, :], matrix[..., features:, :])


# Functions with their gradients by hand


def gelu(x: Array) -> Array:
    """½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), the approximation of Hendrycks and Gimpel 2016 that TTT-MLP uses."""
    return x * (1 + namespace(x).tanh(ROOT * (x + CUBIC * x * x * x))) / 2


def gelu_slope(x: Array) -> Array:
    """gelu′(x)."""
    t = namespace(x).tanh(ROOT * (x + CUBIC * x * x * x))
    return (1 + t) / 2 + x * (1 - t * t) * ROOT * (1 + 3 * CUBIC * x * x) / 2


def layer_norm(z: Array, gamma: Array, beta: Array) -> Array:
    """γ ∘ (z − mean z) / √(var z + ε) + β over the last axis (Ba et al. 2016, eq. 3–4; no ε there)."""
    return gamma * standardised(z)[0] + beta


def layer_norm_slope(unit: Array, deviation: Array, gamma: Array, slope: Array) -> Array:
    """Jᵀ slope for the layer norm at a standardised z: (g − mean g − ẑ mean(g ẑ)) / √(var z + ε) with g = γ ∘ slope."""
    g = gamma * slope
    return (g - _mean(g) - unit * _mean(g * unit)) / deviation


def standardised(z: Array) -> tuple[Array, Array]:
    """ẑ = (z − mean z) / √(var z + ε), and that root."""
    centred = z - _mean(z)
    deviation = namespace(z).sqrt(_mean(centred * centred) + EPSILON)
    return centred / deviation, deviation


def _mean(x: Array) -> Array:
    return namespace(x).sum(x, axis=-1, keepdims=True) / x.shape[-1]


# Batches of tokens, and what may go wrong


def batches(first: int, size: int, *sequences: Array) -> Iterator[tuple[Array, ...]]:
    """Cut sequences (*batch, T, …) along T: what is left of a batch under way, then batches of `size` rows."""
    length = sequences[0].shape[-2]
    cuts = [0, *range(first, length, size), length]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        yield tuple(x[..., start:stop, :] for x in sequences)


def placed(label: str, layers: Layers, key: Array, value: Array) -> Layers:
    """The layers with the batch axes of key (*batch, T, K) and value (*batch, T, V), once their widths are seen to fit.

    Raises TypeError for what are no layers, ValueError for widths or batch axes that do not fit; label names them.
    """
    if not (isinstance(layers, tuple) and layers and all(isinstance(x, tuple) and len(x) in (1, 2) for x in layers)):
        raise TypeError(f"{label} is {_outline(layers)}, expected a tuple of layers, each a tuple (W,) or (W, b)")
    given, source = key.shape[-1], "k has features"
    name = label.rpartition(": ")[2]
    for i, layer in enumerate(layers):
        _fit(f"{label}[{i}][0]", layer[0], "rows", -2, given, source)
        given, source = layer[0].shape[-1], f"{name}[{i}][0] has columns"
        for bias in layer[1:]:
            _fit(f"{label}[{i}][1]", bias, "rows", -2, 1, "a bias has rows")
            _fit(f"{label}[{i}][1]", bias, "columns", -1, given, source)
    last = layers[-1][0]
    _fit(f"{label}[{len(layers) - 1}][0]", last, "columns", -1, value.shape[-1], "v has features")
    return each(lambda x: _with_batch(label, x, key.shape[:-2]), layers)


def _fit(label: str, x: Array, what: str, axis: int, expected: int, source: str) -> None:
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) < 2:
        raise ValueError(f"{label} is {_outline(x)}, expected an array of at least 2 axes")
    if shape[axis] != expected:
        raise ValueError(f"{label} has {shape[axis]} {what}, expected {expected}, as many as {source} (shape {shape})")


def _outline(x: object) -> str:
    shape = getattr(x, "shape", None)
    return f"of type {type(x).__name__}" if shape is None else f"an array of shape {tuple(shape)}"


def _with_batch(label: str, x: Array, batch: Sequence[int]) -> Array:
    shape = (*batch, *x.shape[-2:])
    try:
        return namespace(x).broadcast_to(x, shape)
    except (RuntimeError, TypeError, ValueError):
        message = f"has an array of shape {tuple(x.shape)}, expected one that broadcasts to {shape}"
        raise ValueError(f"{label} {message}") from None


def normed(form: str, name: str, norm: Norm | None, k: Array, v: Array) -> None:
    """Raise ValueError for a norm of another width than values, or one around keys and values of different widths."""
    if norm is None:
        return
    if k.shape[-1] != v.shape[-1]:
        why = f"as k has (with a norm the model is k + LN(…), shape {tuple(v.shape)})"
        raise ValueError(f"{form}: v has {v.shape[-1]} features, expected {k.shape[-1]} {why}")
    for i, x in enumerate(norm):
        _fit(f"{form}: {name}[{i}]", x, "rows", -2, 1, "each of γ and β has")
        _fit(f"{form}: {name}[{i}]", x, "columns", -1, v.shape[-1], "v has features")


def counted(label: str, count: object) -> int:
    """Return a number of tokens, of a batch or left of one. Raises ValueError for what is none."""
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{label} is {count!r}, expected an integer of at least 1")
    return int(count)


def within(label: str, x: Array, lowest: float, highest: float, meaning: str) -> None:
    """Raise ValueError, with the first token, where a gate (*batch, T) is outside its range. NaN is."""
    if found := _first_not(lambda x: (lowest <= x) & (x <= highest), x):
        bound = f"at most {highest:g}" if lowest == -math.inf else f"at least {lowest:g}"
        raise ValueError(f"{label} is {found[1]:g} at token {found[0]}, expected {bound} {meaning}".rstrip())


def converging(label: str, losses: Array, first: int) -> None:
    """Raise FloatingPointError where an inner loss (*batch, C), of the tokens from `first` on, is not finite."""
    if found := _first_not(lambda x: namespace(x).isfinite(x), losses):
        token, why = first + found[0], "a finite one: the inner rate is too large, or an input was not finite"
        raise FloatingPointError(f"{label}: the inner loss is {found[1]:g} at token {token}, expected {why}")


def _first_not(right: Callable[[Array], Array], x: Array) -> tuple[int, float] | None:
    """The first token at which x (*batch, T) is not right, and what it is there; None where it is right everywhere.

    Exact numbers are not asked, and neither are those that a compiler traces: they have no values yet.
    """
    x = unwrap(x)
    if x.dtype == object:
        return None
    wrong, xp = ~right(x), namespace(x)
    try:
        if not bool(xp.any(wrong)):
            return None
    except TypeError:
        return None
    places = xp.nonzero(wrong)
    earliest = int(xp.argmin(places[-1]))
    return int(places[-1][earliest]), float(x[tuple(int(axis[earliest]) for axis in places)])
