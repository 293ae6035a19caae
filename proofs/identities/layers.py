"""Layers and their constants: activations, gated units, norms, convolutions and moments, from their definitions.

There is one form of each, so that no other could disagree: beside each stand a few lines that name nothing of its file.
The ε of a norm matters where the input is nearly constant, so that inputs are drawn with such rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import nn
from models.blocks import block, mlp, rwkv7
from models.memory import inner
from proofs import layers
from proofs.checker.statements import Instance, identity
from proofs.checker.strategies import LARGE, SMALL, Cut, Strategy, elements

CHAPTER = 18

HENDRYCKS, SHAZEER = "hendrycks2016", "shazeer2020"
FLOATS = ("float64", "float32", "gradient")
SIZES = {"T": st.integers(1, 3), "*batch": st.sampled_from([(), (2,)])}

Function = Callable[[Any], Any]
Numbers = Annotated[Any, Strategy("*batch T 6", LARGE, sizes=SIZES)]
# rows whose mean square and variance are of the size of ε, and others
NEARLY_CONSTANT = elements("1/1000", "-1/1000", 0, "1/700", 1, "-1/3")
Rows = Annotated[Any, Strategy("*batch T 4", NEARLY_CONSTANT, sizes=SIZES)]
Gain = Annotated[Any, Strategy("4", SMALL)]
Bias = Annotated[Any, Strategy("4", SMALL)]
Inputs = Annotated[Any, Strategy("*batch T 2", LARGE, sizes={"T": st.integers(2, 5), "*batch": SIZES["*batch"]})]
Weights = Annotated[Any, Strategy("3 2", SMALL)]
Filters = Annotated[Any, Strategy("2 3", SMALL)]
OutputBias = Annotated[Any, Strategy("3", SMALL)]
ChannelBias = Annotated[Any, Strategy("2", SMALL)]
Correction = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 2)))]


def over(pairs: dict[str, tuple[Function, Function]]) -> list[Instance]:
    """Return an instance for each function and what is written out for it."""
    return [Instance(name, {"ours": ours, "written": written}, {}) for name, (ours, written) in pairs.items()]


# Activations


def gelu_by_tanh(x: Any) -> Any:
    t = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x * layers.sigmoid(2 * t)


@identity(
    "σ(x) = 1/(1 + e⁻ˣ), softplus x = log(1 + eˣ), SiLU x = x σ(x), GELU x = x Φ(x), by tanh "
    "½x (1 + tanh √(2/π)(x + 0.044715 x³)) and by σ x σ(1.702 x)",
    source=f"{HENDRYCKS}, section 2, the GELU, its approximations and the SiLU; minigrad, their definitions",
    over=over(
        {
            "sigmoid": (mg.sigmoid, layers.sigmoid),
            "log_sigmoid": (mg.log_sigmoid, lambda x: mg.log(layers.sigmoid(x))),
            "softplus": (mg.softplus, layers.softplus),
            "silu": (mg.silu, layers.silu),
            "gelu": (mg.gelu, layers.gelu),
            "gelu_tanh": (inner.gelu, gelu_by_tanh),
            "gelu_tanh_grad": (inner.gelu_grad, lambda x: mg.grad(lambda x: mg.sum(gelu_by_tanh(x)))(x)),
            "quick_gelu": (mlp.quick_gelu, lambda x: x / (1 + mg.exp(-1.702 * x))),
        }
    ),
    only=FLOATS,
)
def activations(x: Numbers, ours: Function, written: Function):
    return ours(x), written(x)


def halves(x: Any) -> tuple[Any, Any]:
    return x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]


def gated(activation: Function) -> Function:
    return lambda x: activation(halves(x)[0]) * halves(x)[1]


@identity(
    "Gated linear units multiply the activation of the first half of the channels by the second half",
    source=f"{SHAZEER}, eq. 5 and 6",
    over=over(
        {
            "reglu": (mlp.MLPS["reglu"], gated(lambda x: x * mg.astype(x > 0, x.dtype))),
            "swiglu": (mlp.MLPS["swiglu"], gated(layers.silu)),
            "geglu": (mlp.MLPS["geglu"], gated(layers.gelu)),
            "geglu_tanh": (mlp.MLPS["geglu_tanh"], gated(gelu_by_tanh)),
        }
    ),
    only=("float64", "gradient"),
)
def gated_units(x: Numbers, ours: Function, written: Function):
    return ours(x), written(x)


# Norms


@identity(
    "LayerNorm is w (x − mean x)/√(var x + 10⁻⁵) + b, RMSNorm w x/√(mean x² + 10⁻⁶)",
    source="ba2016, eq. 3 and 4; zhang2019, eq. 4; minigrad, minigrad/nn.py: no paper gives ε",
    only=FLOATS,
)
def norms(x: Rows, w: Gain, b: Bias):
    layer, root = nn.LayerNorm(4), nn.RMSNorm(4)
    layer.weight, layer.bias, root.weight = w, b, w
    return (layer(x), root(x)), (layers.layer_norm(x, 1e-5) * w + b, layers.rms_norm(x, 1e-6) * w)


@identity(
    "The inner models' layer norm has ε = 10⁻⁶, and `layer_norm_vjp` is its vector-Jacobian product",
    source="ttt-code, ttt.py; ba2016, eq. 3 and 4",
    only=("float64", "gradient"),
)
def inner_norm(x: Rows, w: Gain, b: Bias):
    standard, deviation = inner.standardise(x)
    pulled_back = mg.grad(lambda x: mg.sum(layers.layer_norm(x, 1e-6) * w * b))(x)
    ours = inner.layer_norm(x, w, b), inner.layer_norm_vjp(standard, deviation, w, b)
    return ours, (layers.layer_norm(x, 1e-6) * w + b, pulled_back)


@identity(
    "Keys of length 1 are x/√(Σ x² + 10⁻⁶), in RWKV-7 x/√(Σ x² + 10⁻²⁴)",
    source="minigrad, models/blocks/block.py and models/blocks/rwkv7.py",
    over=over(
        {
            "block": (block.unit, lambda x: layers.unit(x, 1e-6)),
            # lengths of about 10⁻¹²
            "rwkv7": (lambda x: rwkv7.unit(1e-9 * x), lambda x: layers.unit(1e-9 * x, 1e-24)),
        }
    ),
    only=FLOATS,
)
def unit_norms(x: Rows, ours: Function, written: Function):
    return ours(x), written(x)


# Maps


@identity("A linear layer is x Wᵀ + b", source="minigrad, minigrad/nn.py, as PyTorch has it", exact=True)
def linear(x: Inputs, W: Weights, b: OutputBias):
    layer = nn.Linear(2, 3, rng=np.random.default_rng(0))
    layer.weight, layer.bias = W, b
    rows = [mg.sum(x * W[i], axis=-1) + b[i] for i in range(3)]
    return layer(x), mg.stack(rows, axis=-1)


@identity(
    "A short convolution is yₜ = b + Σⱼ wⱼ xₜ₋ⱼ channel by channel, and continues from its last W − 1 inputs",
    source="gu2023mamba, section 3.4; minigrad, minigrad/nn.py",
    exact=True,
)
def short_convolution(x: Inputs, w: Filters, b: ChannelBias, cut: Cut):
    layer = nn.Conv1d(2, 3, rng=np.random.default_rng(0))
    layer.weight, layer.bias = w, b
    before, state = layer(x[..., :cut, :])
    after, state = layer(x[..., cut:, :], state)
    padded = mg.concat([0 * x[..., :1, :], 0 * x[..., :1, :], x], axis=-2)
    y = sum(w[:, j] * padded[..., 2 - j : 2 - j + x.shape[-2], :] for j in range(3)) + b
    return (mg.concat([before, after], axis=-2), state), (y, padded[..., -2:, :])


# Moments and logarithms of sums


@identity(
    "The variance is Σ (x − mean x)²/(n − correction), the standard deviation its root",
    source="minigrad, minigrad/primitives/reductions.py, as the array API standard has them",
    only=("float64",),
)
def moments(x: Numbers, correction: Correction):
    x = x + 10 * np.arange(6)  # so that the root is not that of 0
    centred = x - layers.mean(x)
    variance = mg.sum(centred * centred, axis=-1) / (6 - correction)
    ours = mg.var(x, axis=-1, correction=correction), mg.std(x, axis=-1, correction=correction)
    return ours, (variance, mg.sqrt(variance))


@identity(
    "logsumexp x = log Σ eˣ, log softmax x = x − log Σ eˣ, and cross entropy is its mean at the targets, negated",
    source="minigrad, minigrad/primitives/normalisers.py",
    only=("float64", "gradient"),
)
def logarithms_of_sums(x: Numbers):
    total = mg.log(mg.sum(mg.exp(x), axis=-1, keepdims=True))
    targets = np.arange(math.prod(x.shape[:-1])).reshape(x.shape[:-1]) % 6
    chosen = mg.stack([row[targets[place]] for place, row in each_row(x - total)])
    ours = mg.logsumexp(x, axis=-1, keepdims=True), mg.log_softmax(x, axis=-1), mg.cross_entropy(x, targets)
    return ours, (total, x - total, -mg.sum(chosen) / targets.size)


def each_row(x: Any) -> list[tuple[tuple[int, ...], Any]]:
    """Return the rows of the last axis, each with its place."""
    return [(place, x[place]) for place in np.ndindex(x.shape[:-1])]
