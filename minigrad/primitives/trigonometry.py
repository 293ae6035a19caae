"""Circular and hyperbolic functions and their inverses.

Derivatives avoid cancellation and overflow: 1 − x² is (1 − x)(1 + x), 1 − tanh² x is 1/cosh² x, √(1 + x²) a hypot.
"""

from __future__ import annotations

from typing import Any

from minigrad.compiled import chain
from minigrad.engine import primitive
from minigrad.primitives.elementwise import complex_valued, conj, hypot, ones, refuse_complex, sqrt, where


@primitive(x=lambda g, x: g * conj(cos(x)))
def sin(xp, x):
    """Return sin x."""
    return xp.sin(x)


@primitive(x=lambda g, x: -g * conj(sin(x)))
def cos(xp, x):
    """Return cos x."""
    return xp.cos(x)


@primitive(x=lambda g, out: g * conj(1 + out * out))
def tan(xp, x):
    """Return tan x."""
    return xp.tan(x)


@primitive(x=lambda g, x: g / conj(sqrt((1 - x) * (1 + x))))
def asin(xp, x):
    """Return the angle within [−π/2, π/2] whose sine is x."""
    return xp.asin(x)


@primitive(x=lambda g, x: -g / conj(sqrt((1 - x) * (1 + x))))
def acos(xp, x):
    """Return the angle within [0, π] whose cosine is x."""
    return xp.acos(x)


@primitive(x=lambda g, x: g / conj((x - 1j) * (x + 1j)) if complex_valued(x) else _over_square(g, _length(x)))
def atan(xp, x):
    """Return the angle within [−π/2, π/2] whose tangent is x."""
    return xp.atan(x)


def _length(x):
    """Return √(1 + x²) for real x."""
    return hypot(x, ones(x))


def _over_square(x, length):
    """Return x / length², where length² might overflow."""
    return x / length / length


def _distance(x, y):
    """Return √(x² + y²), and 1 at the origin, so that the derivative of the angle is 0 there."""
    length = hypot(x, y)
    return where(length == 0, 1, length)


@primitive(
    y=lambda g, y, x: g * _over_square(x, _distance(x, y)),
    x=lambda g, y, x: -g * _over_square(y, _distance(x, y)),
)
def atan2(xp, y, x):
    """Return the angle within [−π, π] from the positive first axis to the point (x, y)."""
    refuse_complex("atan2", y, x)
    return xp.atan2(y, x)


@primitive(x=lambda g, x: g * conj(cosh(x)))
def sinh(xp, x):
    """Return (eˣ − e⁻ˣ)/2."""
    return xp.sinh(x)


@primitive(x=lambda g, x: g * conj(sinh(x)))
def cosh(xp, x):
    """Return (eˣ + e⁻ˣ)/2."""
    return xp.cosh(x)


@primitive(x=lambda g, x: g * conj(sech_squared(x)))
def tanh(xp, x):
    """Return sinh x / cosh x."""
    return xp.tanh(x)


@primitive(x=lambda g, x, out: g * conj(-2 * out * tanh(x)))
def sech_squared(xp, x):
    """Return 1/cosh² x = tanh′ x as (2k/(1 + k²))² with k = e^−|x|, without the cancellation of 1 − tanh² x."""
    if compiled := chain("sech_squared", x):
        return compiled(x)
    k = exp_neg_abs(xp, x)
    root = 2 * k / (1 + k * k)
    return root * root


def exp_neg_abs(xp: Any, x: Any) -> Any:
    """Return e^−|x| of a raw array; for complex numbers eˣ where Re x < 0, else e⁻ˣ."""
    return xp.exp(xp.where(xp.real(x) < 0, x, -x) if complex_valued(x) else -xp.abs(x))


@primitive(x=lambda g, x: g / conj(sqrt(1 - 1j * x) * sqrt(1 + 1j * x)) if complex_valued(x) else g / _length(x))
def asinh(xp, x):
    """Return the number whose hyperbolic sine is x."""
    return xp.asinh(x)


@primitive(x=lambda g, x: g / conj(sqrt(x - 1) * sqrt(x + 1)))
def acosh(xp, x):
    """Return the number with Re ≥ 0 whose hyperbolic cosine is x."""
    return xp.acosh(x)


@primitive(x=lambda g, x: g / conj((1 - x) * (1 + x)))
def atanh(xp, x):
    """Return the number whose hyperbolic tangent is x."""
    return xp.atanh(x)
