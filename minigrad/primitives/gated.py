"""Primitives on the two halves of the last axis, x = [a ‖ b]: the gated unit SwiGLU and rotary position embedding."""

from __future__ import annotations

from typing import Any

from minigrad.compiled import chain
from minigrad.engine import primitive
from minigrad.primitives.activations import silu, silu_adjoint
from minigrad.primitives.elementwise import conj
from minigrad.primitives.shapes import concat


@primitive(x=lambda g, x: _swiglu_adjoint(g, x))
def swiglu(_, x):
    """Return SiLU(a) b, the gate of SwiGLU without its matrices (Shazeer 2020, eq. 6)."""
    if compiled := _chain("swiglu", x):
        return compiled(x)
    a, b = _split_halves(x)
    return silu(a) * b


def _swiglu_adjoint(g, x):
    if compiled := _chain("swiglu_adjoint", x, g):
        return compiled(x, g)
    a, b = _split_halves(x)
    return concat([silu_adjoint(g * conj(b), a), g * conj(silu(a))], axis=-1)


@primitive(
    x=lambda g, cos, sin: rotary(g, conj(cos), -conj(sin)),
    cos=lambda g, x: _cos_vjp(g, conj(x)),
    sin=lambda g, x: _sin_vjp(g, conj(x)),
)
def rotary(xp, x, cos, sin):
    """Return [a cos − b sin ‖ a sin + b cos]: each pair of channels (c, c + K/2) rotated by an angle.

    This is rotary position embedding (Su et al. 2021, eq. 15). cos and sin have shape (T, K/2) for x (*batch, T, K).
    """
    if compiled := _chain("rotary", x, cos, sin):
        return compiled(x, cos, sin)
    a, b = _split_halves(x)
    return xp.concat([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _cos_vjp(g, x):
    """Return Σ g x over the two channels of each pair."""
    (ga, gb), (a, b) = _split_halves(g), _split_halves(x)
    return ga * a + gb * b


def _sin_vjp(g, x):
    (ga, gb), (a, b) = _split_halves(g), _split_halves(x)
    return gb * a - ga * b


def _split_halves(x: Any) -> tuple[Any, Any]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _chain(name: str, x: Any, *operands: Any) -> Any:
    """Return the fused kernel of that name, or None; a half must fill at least one vector of 512 bits."""
    return chain(name, x, *operands) if x.shape[-1] >= 32 else None
