"""Elementwise primitives, with one rule for each argument.

Derivatives are accurate over the whole range. Conventions where none exists are in docs/CONVENTIONS.md.
"""

from __future__ import annotations

import math
from typing import Any

from minigrad.conversion import to_library_of
from minigrad.engine import constant, is_complex, primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array
from minigrad.primitives.dtypes import finfo
from minigrad.primitives.nondifferentiable import floor_divide


def complex_valued(x: Any) -> bool:
    """Return whether an array or a number is complex; of objects, whether one of them says so."""
    if not hasattr(x, "dtype"):
        return isinstance(x, complex)
    return is_complex(x.dtype) or has_complex_objects(x)


def refuse_complex(caller: str, *values: Any) -> None:
    """Raise TypeError for complex numbers, for a function that orders its arguments."""
    for x in values:
        if complex_valued(x):
            raise TypeError(f"{caller}: got {getattr(x, 'dtype', 'complex')}, expected real numbers")


def zeros(x: Any) -> Any:
    """Return constant zeros like x."""
    return namespace(unwrap(x)).zeros_like(unwrap(x))


def ones(x: Any) -> Any:
    """Return constant ones like x."""
    return namespace(unwrap(x)).ones_like(unwrap(x))


# ---- arithmetic


@primitive(x=lambda g: g, y=lambda g: g)
def add(_, x, y):
    """Return x + y."""
    return x + y


@primitive(x=lambda g, y: g, y=lambda g: -g)
def subtract(_, x, y):
    """Return x − y."""
    return x - y


@primitive(x=lambda g, y: g * conj(y), y=lambda g, x: g * conj(x))
def multiply(_, x, y):
    """Return x y."""
    return x * y


@primitive(x=lambda g, y: g / conj(y), y=lambda g, y, out: -g * conj(out / y))
def divide(_, x, y):
    """Return x / y."""
    return x / y


@primitive(x=lambda g, x, y: g * conj(_pow_derivative(x, y)), y=lambda g, x, y, out: g * conj(out * _log_base(x, y)))
def pow(_, x, y):
    """Return xʸ."""
    return x**y


def _pow_derivative(x, y):
    """Return ∂xʸ/∂x = y xʸ⁻¹, and 0 where y = 0, for every x; its own derivative by y is x⁻¹ there."""
    if isinstance(y, (int, float, complex)):
        return y * x ** (y - 1) if y else zeros(x)
    is_exact = unwrap(x).dtype == object
    has_inverse = x != 0 if is_exact else (abs(x) >= finfo(x.dtype).smallest_normal) & (abs(x) < math.inf)
    is_finite = (y != 0) | has_inverse  # elsewhere y xʸ⁻¹ is 0 · ∞ or NaN
    return y * where(is_finite, where(is_finite, x, 1) ** (y + zeros(x) - 1), 0)  # y − 1 in the dtype of xʸ


def _log_base(x, y):
    """Return log x of ∂xʸ/∂y = xʸ log x; 0 at x = 0 for Re y ≥ 0, where the limit of xʸ log x is 0."""
    if isinstance(x, (int, float)) and x > 0:
        return math.log(x)
    is_zero = ((real(y) if complex_valued(y) else y) >= 0) & (x == 0)
    return log(where(is_zero, 1, x + zeros(y)))  # in the dtype of xʸ


@primitive(x=lambda g: g, y=lambda g, x, y: -g * floor_divide(x, y))
def remainder(_, x, y):
    """Return x − ⌊x/y⌋ y, which has the sign of y."""
    refuse_complex("remainder", x, y)
    return x % y


@primitive(x=lambda g: -g)
def negative(_, x):
    """Return −x."""
    return -x


@primitive(x=lambda g: g)
def positive(_, x):
    """Return +x."""
    return +x


@primitive(x=lambda g, x: g * 2 * conj(x))
def square(_, x):
    """Return x²."""
    return x * x


@primitive(x=lambda g, out: -g * conj(out * out))
def reciprocal(_, x):
    """Return 1/x."""
    return 1 / x


# ---- exponentials, logarithms, roots


@primitive(x=lambda g, out: g * conj(out))
def exp(xp, x):
    """Return eˣ."""
    return xp.exp(x)


@primitive(x=lambda g, x: g * conj(exp(x)))
def expm1(xp, x):
    """Return eˣ − 1, accurate near 0."""
    return xp.expm1(x)


@primitive(x=lambda g, x: g / conj(x))
def log(xp, x):
    """Return the natural logarithm of x."""
    return xp.log(x)


@primitive(x=lambda g, x: g / conj(1 + x))
def log1p(xp, x):
    """Return log(1 + x), accurate near 0."""
    return _complex_log1p(xp, x) if complex_valued(x) else xp.log1p(x)


def _complex_log1p(xp, z):
    """Return log(1 + z), accurate near 0, by |1 + z|² − 1 = a (2 + a) + b² for z = a + bi; libraries round 1 + z."""
    near = xp.abs(z) < 0.5
    small, large = xp.where(near, z, xp.zeros_like(z)), xp.where(near, xp.ones_like(z), 1 + z)
    a, b = xp.real(small), xp.imag(small)
    return xp.where(near, xp.log1p(a * (2 + a) + b * b) / 2 + 1j * xp.atan2(b, 1 + a), xp.log(large))


@primitive(x=lambda g, x: g * (1 / math.log(2)) / conj(x))
def log2(xp, x):
    """Return the logarithm of x to the base 2."""
    return xp.log2(x)


@primitive(x=lambda g, x: g * (1 / math.log(10)) / conj(x))
def log10(xp, x):
    """Return the logarithm of x to the base 10."""
    return xp.log10(x)


@primitive(x=lambda g, out: g / conj(2 * out))
def sqrt(xp, x):
    """Return the square root of x with Re √x ≥ 0."""
    return xp.sqrt(x)


@primitive(x=lambda g, x, out: g * (x / out), y=lambda g, y, out: g * (y / out))
def hypot(xp, x, y):
    """Return √(x² + y²), without intermediate overflow or underflow."""
    refuse_complex("hypot", x, y)
    return xp.hypot(x, y)


# ---- complex numbers, signs


@primitive(x=lambda g: conj(g))
def _conjugate(xp, x):
    return xp.conj(x)


def conj(x: Any) -> Any:
    """Return the complex conjugate; a real array is returned itself."""
    if hasattr(x, "dtype"):
        return _conjugate(x) if complex_valued(x) else x
    if isinstance(x, (int, float, complex)):
        return x.conjugate()
    return conj(array(x, "conj"))


def has_complex_objects(x: Any) -> bool:
    """Return whether an array holds objects of which some say, by `is_complex`, that they are complex."""
    return x.dtype == object and any(getattr(e, "is_complex", False) for e in unwrap(x).flat)


def real_cotangent(g: Any) -> Any:
    """Return Re g for a cotangent of a real number: the engine projects arrays whose dtype is real, but not objects."""
    return real(g) if has_complex_objects(g) else g


@primitive(x=real_cotangent)  # a real cotangent for a complex argument: the engine promotes it
def real(xp, x):
    """Return Re x."""
    return xp.real(x)


@primitive(x=lambda g: real_cotangent(g) * 1j)
def imag(xp, x):
    """Return Im x."""
    return xp.imag(x)


@primitive(x=lambda g, x: real_cotangent(g) * sign(x))
def abs(xp, x):
    """Return |x|."""
    return xp.abs(x)


@primitive(x=lambda g, x, out: _sign_vjp(g, x, out) if complex_valued(x) else zeros(x))
def sign(xp, x):
    """Return x/|x|, and 0 at 0."""
    return xp.sign(x)


def _sign_vjp(g, x, out):
    """Return the component of g orthogonal to out = x/|x|, over |x|: only rotations of x change out."""
    size = abs(x)
    return where(size == 0, 0, (g - out * real(conj(out) * g)) / where(size == 0, 1, size))


@primitive(x=lambda g, x, y: g * (sign(x) * copysign(ones(x), y)))
def copysign(xp, x, y):
    """Return |x| with the sign of y, which may be that of −0."""
    return xp.copysign(x, y)


# ---- choices


def _tie_vjp(g, loses, ties):
    """Return the cotangent of one of two arguments: g where it is chosen, half of g for ties, else 0."""
    return where(loses, 0, where(ties, g / 2, g))


@primitive(x=lambda g, x, y: _tie_vjp(g, x < y, x == y), y=lambda g, x, y: _tie_vjp(g, y < x, x == y))
def maximum(xp, x, y):
    """Return the larger of x and y; NaN where either is."""
    refuse_complex("maximum", x, y)
    return xp.maximum(x, y)


@primitive(x=lambda g, x, y: _tie_vjp(g, x > y, x == y), y=lambda g, x, y: _tie_vjp(g, y > x, x == y))
def minimum(xp, x, y):
    """Return the smaller of x and y; NaN where either is."""
    refuse_complex("minimum", x, y)
    return xp.minimum(x, y)


@primitive(x=lambda g, condition: where(condition, g, 0), y=lambda g, condition: where(condition, 0, g))
def _choose(xp, x, y, condition):
    return xp.where(to_library_of(x if hasattr(x, "dtype") else y, condition), x, y)


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return x where the condition holds and y elsewhere; no gradient flows to the condition."""
    return _choose(x, y, array(condition, "where", "condition"))


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """Return x clipped to [min, max]; max where min > max."""
    x = array(x, "clip")
    return positive(x) if min is None and max is None else _clip(x, min, max)


def _inside(x, low, high):
    if low is None or high is None:
        return x >= low if high is None else x <= high
    return (x >= low) & (x <= high)


@primitive(
    x=lambda g, x, low, high: where(_inside(x, low, high), g, 0),
    low=lambda g, x, low, high: where(x < low if high is None else (x < low) & (low < high), g, 0),
    high=lambda g, x, low, high: where(x > high if low is None else (x > high) | (high < low), g, 0),
)
def _clip(xp, x, low, high):
    refuse_complex("clip", x, low, high)
    x = x if low is None else xp.where((x < low) | (low != low), low, x)  # a bound of NaN gives NaN
    return x if high is None else xp.where((x > high) | (high != high), high, x)


# ---- dtypes and constants


@primitive(x=lambda g: g)  # the engine casts the cotangent back
def _astype(xp, x, dtype):
    return xp.astype(x, dtype)


def astype(x: Any, dtype: Any, *, copy: bool = True, device: Any = None) -> Any:
    """Return x in another dtype, on its own device; x itself if it has the dtype already and copy=False.

    Raises ValueError for a device other than the array's.
    """
    x = array(x, "astype")
    if device is not None and device != x.device:
        raise ValueError(f"astype: got device {device!r}, expected the array's own, {x.device!r}")
    return x if not copy and x.dtype == dtype else _astype(x, dtype)


def stop_gradient(x: Any) -> Any:
    """Return x as a constant: no gradient flows through it."""
    return constant(x) if hasattr(x, "_node") else x
