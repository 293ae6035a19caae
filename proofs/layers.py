"""Layers written out from their definitions, and blocks with drawn weights: both sides of the statements of blocks.

    sigmoid  1/(1 + e⁻ˣ)      silu  x σ(x)      softplus  log(1 + eˣ)      gelu  x Φ(x), Φ(x) = (1 + erf(x/√2))/2
    linear   x Wᵀ + b         convolve  yₜ = b + Σⱼ wⱼ xₜ₋ⱼ, channel by channel; inputs before the first are 0
    rms_norm x/√(mean x² + ε)        layer_norm  (x − mean x)/√(var x + ε)        unit  x/√(Σ x² + ε)

Arrays are (*batch, T, channels), and everything runs on the numbers of every number system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad.engine import unwrap
from minigrad.nn import Module
from minigrad.pytree import arrays_of, replace_arrays
from proofs.checker.statements import Instance
from proofs.checker.strategies import SMALL, Strategy

Weights = Mapping[str, Any]  # the arrays of a block by dotted name


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mg.exp(-x))


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def softplus(x: Any) -> Any:
    return mg.log(1 + mg.exp(x))


def gelu(x: Any) -> Any:
    return x * (1 + mg.erf(x / 2**0.5)) / 2


def softmax(scores: Any) -> Any:
    weights = mg.exp(scores)
    return weights / mg.sum(weights, axis=-1, keepdims=True)


def linear(w: Weights, name: str, x: Any) -> Any:
    """Return x Wᵀ + b, with the weights and, where there is one, the bias of this name."""
    y = x @ w[f"{name}.weight"].mT
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def convolve(w: Weights, name: str, x: Any) -> Any:
    """Return the causal convolution of each channel alone; w[:, 0] weighs the current token."""
    filters, y = w[f"{name}.weight"], []
    for t in range(x.shape[-2]):
        y.append(sum(filters[:, j] * x[..., t - j, :] for j in range(min(filters.shape[-1], t + 1))))
    stacked = mg.stack(y, axis=-2)
    return stacked + w[f"{name}.bias"] if f"{name}.bias" in w else stacked


def rms_norm(x: Any, eps: float) -> Any:
    return x / mg.sqrt(mean(x * x) + eps)


def layer_norm(x: Any, eps: float) -> Any:
    centred = x - mean(x)
    return centred / mg.sqrt(mean(centred * centred) + eps)


def unit(x: Any, eps: float) -> Any:
    return x / mg.sqrt(mg.sum(x * x, axis=-1, keepdims=True) + eps)


def mean(x: Any) -> Any:
    return mg.sum(x, axis=-1, keepdims=True) / x.shape[-1]


def parts(x: Any, *sizes: int) -> list[Any]:
    """Return the channels of x in consecutive parts of these sizes."""
    return [x[..., sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]


def heads(x: Any, count: int) -> list[Any]:
    """Return the channels of x in `count` equal parts."""
    return parts(x, *[x.shape[-1] // count] * count)


def mixed_channels(w: Weights, y: Any) -> Any:
    """Return a ⊙ σ(b), a and b the halves of GELU(y) W + c, with the weights named "output"."""
    a, b = heads(linear(w, "output", gelu(y)), 2)
    return a * sigmoid(b)


def outer(k: Any, v: Any) -> Any:
    """Return k vᵀ (*batch, K, V)."""
    return k[..., :, None] * v[..., None, :]


def times(q: Any, S: Any) -> Any:
    """Return qᵀ S (*batch, V)."""
    return mg.sum(q[..., :, None] * S, axis=-2)


# Blocks with drawn weights


def drawn_weights(make: Callable[[], Module]) -> list[Instance]:
    """Return the one instance of a statement about a block, whose argument `w` has numbers for all its parameters."""
    shapes = {name: array.shape for name, array in make().named_parameters().items()}
    w = {name: Strategy(" ".join(map(str, shape)), SMALL) for name, shape in shapes.items()}
    return [Instance("", {}, {"w": w})]


def with_weights(block: Module, w: Weights) -> Any:
    """Return the block with these arrays for its parameters. Raises ValueError where names or shapes differ."""
    parameters = block.named_parameters()
    ours, theirs = ({name: tuple(x.shape) for name, x in arrays.items()} for arrays in (parameters, w))
    if ours != theirs:
        raise ValueError(f"the block has parameters {ours}, expected {theirs}")
    return replace_arrays(block, [w[name] for name in parameters])


def rng() -> np.random.Generator:
    """Return the generator of initial weights, which drawn ones replace."""
    return np.random.default_rng(0)


# Blocks beside what is written out, where roundings cannot be bounded: norms within norms, and transitions that reflect

Seed = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 2**32 - 1)))]
TO_HALF_THE_DIGITS = "; outputs and all gradients, to half the digits"
PRECISIONS = [Instance(name, {"precision": name}, {}) for name in ("float64", "float32")]


def numbers(block: Module, seed: int, precision: str, width: int) -> tuple[Weights, Any, Any]:
    """Return weights of deviation ½ for a block, inputs (*batch, T, width) and cotangents of 1, all normal."""
    rng = np.random.default_rng(seed)
    shapes = {name: array.shape for name, array in block.named_parameters().items()}
    w = {name: (rng.standard_normal(shape) / 2).astype(precision) for name, shape in shapes.items()}
    batch: tuple[int, ...] = ((), (2,))[rng.integers(2)]
    x, c = rng.standard_normal((2, *batch, int(rng.integers(1, 5)), width)).astype(precision)
    return w, x, c


def compare(
    block: Module, written_out: Callable[[Weights, Any], Any], seed: int, precision: str, width: int
) -> tuple[Any, Any]:
    """Return how far a block is from what is written out, in outputs and gradients, and half the digits of these."""
    w, x, c = numbers(block, seed, precision, width)

    def outputs_and_gradients(layer: Callable[[Weights, Any], Any]) -> list[Any]:
        def loss(w: Weights, x: Any) -> Any:
            y = layer(w, x)
            return mg.sum(c * y), y

        (_, y), gradients = mg.value_and_grad(loss, argnums=(0, 1), has_aux=True)(w, x)
        return [unwrap(y), *arrays_of(gradients)]

    ours = outputs_and_gradients(lambda w, x: with_weights(block, w)(x)[0])
    theirs = outputs_and_gradients(written_out)
    half = float(np.finfo(precision).eps) ** 0.5
    errors = [abs(a.astype(float) - b) for a, b in zip(ours, theirs, strict=True)]
    return errors, [np.full(b.shape, half * (1 + float(abs(b).max()))) for b in theirs]
