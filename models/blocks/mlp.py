"""Activations of an MLP, between its two matrices: functions of each channel, and gated linear units.

plain   act(x)                       ReLU, SiLU, GELU exact, by tanh, and by x σ(1.702 x) (Hendrycks and Gimpel 2016)
gated   act(a) ⊙ b,  x = [a ‖ b]     Shazeer 2020, eq. 5 and 6
"""

from collections.abc import Callable
from typing import Any

import minigrad as mg
from models.memory.inner import gelu as gelu_tanh

Activation = Callable[[Any], Any]


def _gated(activation: Activation) -> Activation:
    def unit(x: Any) -> Any:
        half = x.shape[-1] // 2
        return activation(x[..., :half]) * x[..., half:]

    return unit


def quick_gelu(x: Any) -> Any:
    """Return x σ(1.702 x), the GELU of CLIP."""
    return x * mg.sigmoid(1.702 * x)


PLAIN: dict[str, Activation] = {
    "relu": mg.relu,
    "silu": mg.silu,
    "gelu": mg.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}
GATED: dict[str, Activation] = {
    "reglu": _gated(mg.relu),
    "swiglu": mg.swiglu,
    "geglu": _gated(mg.gelu),
    "geglu_tanh": _gated(gelu_tanh),
}
MLPS = {**GATED, **PLAIN}
