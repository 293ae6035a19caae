"""Inner models: the matrix or MLP that test-time training and Titans use as memory and train token by token.

    x₁ = x,   zₗ = xₗ Wₗ + bₗ,   xₗ₊₁ = gelu(zₗ)          a model is its layers; f(x) is the last z
    ∂ℓ/∂zₗ = (∂ℓ/∂zₗ₊₁ Wₗ₊₁ᵀ) ∘ gelu′(zₗ)                 its gradient by hand, layer by layer from the last
    ∂ℓ/∂Wₗ = xₗᵀ ∂ℓ/∂zₗ                                   for one token: an outer product, of which only the factors
                                                          are kept

    layer     (W,) or (W, b): W (…, I, O), b (…, 1, O), read as x W + b. A bias is the weight of a feature that is 1.
    layers    a tuple of them: one is a matrix memory, more are an MLP.
    slope     ∂ℓ/∂z of a layer, the cotangent of its output, one row per token.
    mix       P, (…, C, C): P[t, s] is the coefficient in Wₜ of the gradient of token s.

The weights of token t of a batch of C tokens are a sum of weights that all tokens share and of Σₛ P[t, s] xₛᵀ slopeₛ.
Read by a row y of token t the sum gives Σₛ P[t, s] (y xₛᵀ) slopeₛ, in which no weights of one token stand: the dual
form of Sun et al. 2024, section 2.5, and of the talk's 1:17:08 to 1:20:37.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from gpu.inner_model import WeightLayout
from minigrad import namespace
from minigrad.engine import unwrap
from minigrad.pytree import arrays_of
from minigrad.values import holds
from models.forms import Array

Layer: TypeAlias = tuple[Array, ...]
Layers: TypeAlias = tuple[Layer, ...]
Norm: TypeAlias = tuple[Array, Array]  # γ and β of a layer norm, each (…, 1, V)

ROOT, CUBIC = math.sqrt(2 / math.pi), 0.044715
EPSILON = 1e-6  # in the layer norm, as in the code of Sun et al.


def map_layers(function: Callable[..., Array], *models: Layers) -> Layers:
    """Apply a function to corresponding arrays of several models, as `jax.tree.map` does."""
    return tuple(tuple(map(function, *layers)) for layers in zip(*models, strict=True))


def apply_layer(layer: Layer, x: Array) -> Array:
    """Return z = x W + b."""
    z = x @ layer[0]
    return z + layer[1] if len(layer) == 2 else z


def forward(layers: Layers, x: Array) -> tuple[list[Array], list[Array]]:
    """Return the input and the pre-activation of every layer, ([x₁, x₂, …], [z₁, z₂, …])."""
    inputs: list[Array] = []
    outputs: list[Array] = []
    for layer in layers:
        inputs.append(gelu(outputs[-1]) if outputs else x)
        outputs.append(apply_layer(layer, inputs[-1]))
    return inputs, outputs


def backward(layers: Layers, outputs: list[Array], slope: Array) -> list[Array]:
    """Backpropagate ∂ℓ/∂z of the last layer to every layer: [∂ℓ/∂z₁, ∂ℓ/∂z₂, …]."""
    slopes = [slope]
    for layer, z in zip(layers[:0:-1], outputs[-2::-1], strict=True):
        slopes.insert(0, (slopes[0] @ layer[0].mT) * gelu_grad(z))
    return slopes


def dual_update(layer: Layer, y: Array, x: Array, slope: Array, mix: Array) -> Array:
    """Return Σₛ P[t, s] (yₜ xₛᵀ) slopeₛ, the dual form of yₜ Σₛ P[t, s] xₛᵀ slopeₛ: no (K, V) matrix for each token.

    A bias is the weight of a feature that is 1, so that it adds 1 to every yₜ xₛᵀ.
    """
    Attn = y @ x.mT + (len(layer) - 1)  # (C, C)
    return (mix * Attn) @ slope


def apply_model(layers: Layers, norm: Norm | None, x: Array) -> Array:
    """Return f(x), (…, V), for rows x (…, K)."""
    return add_residual(norm, x, forward(layers, x)[1][-1])


def add_residual(norm: Norm | None, x: Array, z: Array) -> Array:
    """Return f(x) from the output z of the last layer: z, or with a norm x + LN(z)."""
    return z if norm is None else x + layer_norm(z, *norm)


def inner_loss_grad(norm: Norm | None, k: Array, v: Array, z: Array) -> tuple[Array, Array]:
    """Return the error f(k) − v for the output z of the last layer, and ∂ℓ/∂z of ℓ = ½ ‖f(k) − v‖²."""
    if norm is None:
        return z - v, z - v
    gamma, beta = norm
    unit, deviation = standardise(z)
    error = k + gamma * unit + beta - v
    return error, layer_norm_vjp(unit, deviation, gamma, error)


def zeros_like(layers: Layers) -> Layers:
    """Return a model of the same shapes whose arrays are 0."""
    return map_layers(lambda x: namespace(x).zeros_like(x), layers)


def common_namespace(*arguments: object) -> Any:
    """Return the array namespace of all arguments of a form: arrays, and pytrees of them such as weights and states."""
    return namespace(*arrays_of(arguments))


def broadcast_per_token(layers: Layers, n: int) -> Layers:
    """Broadcast every array to (*batch, n, I, O), one model per token, whose gradient is then the token's own."""

    def broadcast(W: Array) -> Array:
        return namespace(W).broadcast_to(W[..., None, :, :], (*W.shape[:-2], n, *W.shape[-2:]))

    return map_layers(broadcast, layers)


def accumulated_update(layers: Layers, inputs: list[Array], slopes: list[Array], share: Array) -> Layers:
    """Return the weighted sum of a batch's gradients, Σₛ pₛ xₛᵀ slopeₛ, and Σₛ pₛ slopeₛ for a bias; p (…, C, 1)."""
    return tuple(
        ((share * x).mT @ slope, share.mT @ slope)[: len(layer)]
        for layer, x, slope in zip(layers, inputs, slopes, strict=True)
    )


def pack_layer(layer: Layer) -> Array:
    """Return a layer as one matrix, (…, I + 1, O) with a bias: the last row is the weights of a feature that is 1."""
    return layer[0] if len(layer) == 1 else namespace(*layer).concat(list(layer), axis=-2)


def unpack_layer(matrix: Array, bias: bool) -> Layer:
    """Return the layer of one matrix, whose last row is a bias or not: the inverse of `pack_layer`."""
    return (matrix[..., :-1, :], matrix[..., -1:, :]) if bias else (matrix,)


def unpack_model(matrices: Sequence[Array], layout: WeightLayout) -> Layers:
    """Return the layers of a model from a matrix for each."""
    return tuple(map(unpack_layer, matrices, layout.bias))


def layout_of(layers: Layers, norm: Norm | None) -> WeightLayout:
    """Return the layout in which kernels take packed layers and the norm."""
    return WeightLayout(tuple(len(layer) == 2 for layer in layers), norm is not None)


# Functions with their gradients by hand


def gelu(x: Array) -> Array:
    """Return ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), the tanh GELU of Hendrycks and Gimpel 2016, as in TTT-MLP."""
    return x * (1 + namespace(x).tanh(ROOT * (x + CUBIC * x * x * x))) / 2


def gelu_grad(x: Array) -> Array:
    """Return gelu′(x)."""
    t = namespace(x).tanh(ROOT * (x + CUBIC * x * x * x))
    return (1 + t) / 2 + x * (1 - t * t) * ROOT * (1 + 3 * CUBIC * x * x) / 2


def layer_norm(z: Array, gamma: Array, beta: Array) -> Array:
    """Return γ ∘ (z − mean z) / √(var z + ε) + β over the last axis (Ba et al. 2016, eq. 3–4; no ε there)."""
    return gamma * standardise(z)[0] + beta


def layer_norm_vjp(unit: Array, deviation: Array, gamma: Array, slope: Array) -> Array:
    """Return Jᵀ slope of the layer norm at standardised z: (g − mean g − ẑ mean(g ẑ)) / √(var z + ε), g = γ ∘ slope."""
    g = gamma * slope
    return (g - _mean(g) - unit * _mean(g * unit)) / deviation


def standardise(z: Array) -> tuple[Array, Array]:
    """Return ẑ = (z − mean z) / √(var z + ε), and the denominator."""
    centred = z - _mean(z)
    deviation = namespace(z).sqrt(_mean(centred * centred) + EPSILON)
    return centred / deviation, deviation


def _mean(x: Array) -> Array:
    return namespace(x).sum(x, axis=-1, keepdims=True) / x.shape[-1]


# Mini-batches of tokens, and checks of arguments


def mini_batches(first: int, size: int, *sequences: Array) -> Iterator[tuple[Array, ...]]:
    """Split sequences (*batch, T, …) along T: `first` tokens to finish the current batch, then batches of `size`."""
    length = sequences[0].shape[-2]
    cuts = [0, *range(first, length, size), length]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        yield tuple(x[..., start:stop, :] for x in sequences)


def validate_layers(label: str, layers: Layers, key: Array, value: Array) -> Layers:
    """Check the widths of layers and broadcast them to the batch axes of key (*batch, T, K) and value (*batch, T, V).

    Raises TypeError for what is not a tuple of layers, ValueError for widths or batch axes that do not fit.
    """
    if not (isinstance(layers, tuple) and layers and all(isinstance(x, tuple) and len(x) in (1, 2) for x in layers)):
        raise TypeError(f"{label} is {_outline(layers)}, expected a tuple of layers, each a tuple (W,) or (W, b)")
    width, source = key.shape[-1], "k has features"
    name = label.rpartition(": ")[2]
    for i, layer in enumerate(layers):
        _fit(f"{label}[{i}][0]", layer[0], "rows", -2, width, source)
        width, source = layer[0].shape[-1], f"{name}[{i}][0] has columns"
        for bias in layer[1:]:
            _fit(f"{label}[{i}][1]", bias, "rows", -2, 1, "a bias has rows")
            _fit(f"{label}[{i}][1]", bias, "columns", -1, width, source)
    last = layers[-1][0]
    _fit(f"{label}[{len(layers) - 1}][0]", last, "columns", -1, value.shape[-1], "v has features")
    return map_layers(lambda x: _with_batch(label, x, key.shape[:-2]), layers)


def _fit(label: str, x: Array, axis_name: str, axis: int, expected: int, source: str) -> None:
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) < 2:
        raise ValueError(f"{label} is {_outline(x)}, expected an array of at least 2 axes")
    if shape[axis] != expected:
        raise ValueError(
            f"{label} has {shape[axis]} {axis_name}, expected {expected}, as many as {source} (shape {shape})"
        )


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


def validate_norm(form: str, name: str, norm: Norm | None, k: Array, v: Array) -> None:
    """Raise ValueError for a norm of another width than v, and for k and v of different widths: f(x) = x + LN(z)."""
    if norm is None:
        return
    if k.shape[-1] != v.shape[-1]:
        why = f"as k has (with a norm the model is k + LN(…), shape {tuple(v.shape)})"
        raise ValueError(f"{form}: v has {v.shape[-1]} features, expected {k.shape[-1]} {why}")
    for i, x in enumerate(norm):
        _fit(f"{form}: {name}[{i}]", x, "rows", -2, 1, "each of γ and β has")
        _fit(f"{form}: {name}[{i}]", x, "columns", -1, v.shape[-1], "v has features")


def check_gate_range(label: str, x: Array, lowest: float, highest: float, meaning: str) -> None:
    """Raise ValueError, naming the first token, where a gate (*batch, T) is outside its range or NaN."""
    if failure := _first_not(label, lambda x: (lowest <= x) & (x <= highest), x):
        bound = f"at most {highest:g}" if lowest == -math.inf else f"at least {lowest:g}"
        values = unwrap(x)
        factors = highest == 0 and bool(namespace(values).all((values > 0) & (values <= 1)))
        why = ": all are in (0, 1], they seem to be the factors, expected their logarithms" if factors else ""
        raise ValueError(f"{label} is {failure[1]:g} at token {failure[0]}, expected {bound} {meaning}".rstrip() + why)


def check_finite_loss(label: str, losses: Array, first: int) -> None:
    """Raise FloatingPointError where an inner loss (*batch, C), of the tokens from `first` on, is not finite.

    On a device the first losses of each shape are read, and a later divergence is found only inside
    `minigrad.values.checked_always()`.
    """
    if failure := _first_not(label, lambda x: namespace(x).isfinite(x), losses):
        token, why = first + failure[0], "a finite one: the inner rate is too large, or an input was not finite"
        raise FloatingPointError(f"{label}: the inner loss is {failure[1]:g} at token {token}, expected {why}")


def _first_not(check: str, condition: Callable[[Array], Array], x: Array) -> tuple[int, float] | None:
    """Return the first token at which x (*batch, T) fails a condition, and its value there; None if there is none.

    Exact numbers are not checked, nor is what `minigrad.values` does not read.
    """
    x = unwrap(x)
    if x.dtype == object or holds(check, condition, x):
        return None
    xp = namespace(x)
    indices = xp.nonzero(~condition(x))
    earliest = int(xp.argmin(indices[-1]))
    return int(indices[-1][earliest]), float(x[tuple(int(axis[earliest]) for axis in indices)])
