"""Elementwise primitives: one line of calculus for each argument."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.engine import constant, is_complex, primitive
from minigrad.kernels import chain
from minigrad.namespace import namespace

# ---- arithmetic


@primitive(x=lambda g: g, y=lambda g: g)
def add(_, x, y):
    return x + y


@primitive(x=lambda g: g, y=lambda g: -g)
def subtract(_, x, y):
    return x - y


@primitive(x=lambda g, y: g * conj(y), y=lambda g, x: g * conj(x))
def multiply(_, x, y):
    return x * y


@primitive(x=lambda g, y: g / conj(y), y=lambda g, y, out: -g * conj(out / y))
def divide(_, x, y):
    return x / y


@primitive(x=lambda g, x, y: g * conj(_power_slope(x, y)), y=lambda g, x, out: g * conj(out * _log_or_zero(x)))
def pow(_, x, y):
    return x**y


def _power_slope(x, y):
    """∂xʸ/∂x = y xʸ⁻¹, and 0 where y = 0, also at x = 0."""
    if isinstance(y, (int, float, complex)):
        return y * x ** (y - 1) if y else x * 0
    return y * x ** where(y == 0, y * 0 + 1, y - 1)


def _log_or_zero(x):
    """∂xʸ/∂y = xʸ log x, whose limit at x = 0 is 0."""
    return math.log(x) if isinstance(x, (int, float)) and x else log(where(x == 0, x * 0 + 1, x))


@primitive(x=lambda g: -g)
def negative(_, x):
    return -x


@primitive(x=lambda g, x: g * 2 * conj(x))
def square(_, x):
    return x * x


@primitive(x=lambda g, out: -g * conj(out * out))
def reciprocal(_, x):
    return 1 / x


# ---- exponentials, logarithms, roots


@primitive(x=lambda g, out: g * conj(out))
def exp(xp, x):
    return xp.exp(x)


@primitive(x=lambda g, out: g * conj(out + 1))
def expm1(xp, x):
    return xp.expm1(x)


@primitive(x=lambda g, x: g / conj(x))
def log(xp, x):
    return xp.log(x)


@primitive(x=lambda g, x: g / conj(1 + x))
def log1p(xp, x):
    return xp.log1p(x)


@primitive(x=lambda g, out: g / conj(2 * out))
def sqrt(xp, x):
    return xp.sqrt(x)


@primitive(x=lambda g, x, y, out: g * exp(x - out), y=lambda g, x, y, out: g * exp(y - out))
def logaddexp(xp, x, y):
    return xp.logaddexp(x, y)


# ---- circular and hyperbolic functions


@primitive(x=lambda g, x: g * conj(cos(x)))
def sin(xp, x):
    return xp.sin(x)


@primitive(x=lambda g, x: -g * conj(sin(x)))
def cos(xp, x):
    return xp.cos(x)


@primitive(x=lambda g, out: g * conj(1 + out * out))
def tan(xp, x):
    return xp.tan(x)


@primitive(x=lambda g, x: g / conj(sqrt(1 - x * x)))
def asin(xp, x):
    return xp.asin(x)


@primitive(x=lambda g, x: -g / conj(sqrt(1 - x * x)))
def acos(xp, x):
    return xp.acos(x)


@primitive(x=lambda g, x: g / conj(1 + x * x))
def atan(xp, x):
    return xp.atan(x)


@primitive(y=lambda g, y, x: g * x / (x * x + y * y), x=lambda g, y, x: -g * y / (x * x + y * y))
def atan2(xp, y, x):
    return xp.atan2(y, x)


@primitive(x=lambda g, x: g * conj(cosh(x)))
def sinh(xp, x):
    return xp.sinh(x)


@primitive(x=lambda g, x: g * conj(sinh(x)))
def cosh(xp, x):
    return xp.cosh(x)


@primitive(x=lambda g, out: g * conj(1 - out * out))
def tanh(xp, x):
    return xp.tanh(x)


# ---- complex numbers


@primitive(x=lambda g: conj(g))
def _conjugate(xp, x):
    return xp.conj(x)


def conj(x: Any) -> Any:
    """x̅; a real array is its own conjugate and is returned as it is."""
    if hasattr(x, "dtype"):
        return _conjugate(x) if is_complex(x.dtype) else x
    return x.conjugate() if isinstance(x, complex) else x


@primitive(x=lambda g: g)  # a real cotangent for a complex argument: the engine promotes it
def real(xp, x):
    return xp.real(x)


@primitive(x=lambda g: g * 1j)
def imag(xp, x):
    return xp.imag(x)


@primitive(x=lambda g, x, out: g * where(out == 0, x * 0, x / where(out == 0, out * 0 + 1, out)))
def abs(xp, x):
    return xp.abs(x)


# ---- choices


def _share(g, mine, tie):
    """The larger argument takes the cotangent; equal ones halve it."""
    return where(mine, g, where(tie, g / 2, 0))


@primitive(x=lambda g, x, y: _share(g, x > y, x == y), y=lambda g, x, y: _share(g, y > x, x == y))
def maximum(xp, x, y):
    return xp.maximum(x, y)


@primitive(x=lambda g, x, y: _share(g, x < y, x == y), y=lambda g, x, y: _share(g, y < x, x == y))
def minimum(xp, x, y):
    return xp.minimum(x, y)


@primitive(x=lambda g, condition: where(condition, g, 0), y=lambda g, condition: where(condition, 0, g))
def _choose(xp, x, y, condition):
    return xp.where(mask_beside(x if hasattr(x, "dtype") else y, condition), x, y)


def mask_beside(x: Any, mask: Any) -> Any:
    """A NumPy mask as an array of the library and the device of x."""
    if not isinstance(mask, np.ndarray) or isinstance(x, (np.ndarray, np.generic)) or not hasattr(x, "dtype"):
        return mask
    return namespace(x).asarray(mask, device=x.device)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds and y elsewhere; no gradient flows to the condition."""
    return _choose(x, y, condition)


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """x kept within [min, max]."""
    x = x if min is None else maximum(x, min)
    return x if max is None else minimum(x, max)


# ---- dtypes and constants


@primitive(x=lambda g: g)  # the engine casts the cotangent back
def _astype(xp, x, dtype):
    return xp.astype(x, dtype)


def astype(x: Any, dtype: Any, *, copy: bool = True, device: Any = None) -> Any:
    """x in another dtype, on the device it is on; with copy=False an array that has the dtype is returned itself.

    Raises ValueError for a device other than the array's.
    """
    if device is not None and device != x.device:
        raise ValueError(f"astype: got device {device!r}, expected the array's own, {x.device!r}")
    return x if not copy and x.dtype == dtype else _astype(x, dtype)


def stop_gradient(x: Any) -> Any:
    """x as a constant: the value passes, gradients do not."""
    return constant(x) if hasattr(x, "_node") else x


# ---- activations


@primitive(x=lambda g, out: g * (out * (1 - out)))
def sigmoid(xp, x):
    """σ(x) = 1/(1 + e⁻ˣ) = (1 + tanh(x/2))/2, which does not overflow."""
    if compiled := chain("sigmoid", x):
        return compiled(x)
    return (xp.tanh(x / 2) + 1) / 2


@primitive(x=lambda g, x: g * sigmoid(x))
def softplus(xp, x):
    """log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|)."""
    return xp.maximum(x, x * 0) + xp.log1p(xp.exp(-xp.abs(x)))


def log_sigmoid(x: Any) -> Any:
    """log σ(x) = −softplus(−x)."""
    return -softplus(-x)


@primitive(x=lambda g, x: silu_adjoint(g, x))
def silu(xp, x):
    """x σ(x) (Elfwing et al. 2018)."""
    if compiled := chain("silu", x):
        return compiled(x)
    return x * sigmoid(x)


def silu_adjoint(g: Any, x: Any) -> Any:
    """g σ(x) (1 + x (1 − σ(x)))."""
    if compiled := chain("silu_adjoint", g, x):
        return compiled(g, x)
    s = sigmoid(x)
    return g * (s * (1 + x * (1 - s)))


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return maximum(x, x * 0)


@primitive(x=lambda g, x: g * (2 / math.sqrt(math.pi)) * exp(-x * x))
def erf(xp, x):
    """The error function, 2/√π ∫₀ˣ e^−t² dt."""
    return _special(xp).erf(x)


def _special(xp):
    """Where a library keeps its special functions."""
    name = xp.__name__
    if name.startswith("numpy"):
        import scipy.special as special
    elif "torch" in name:
        import torch.special as special
    elif "cupy" in name:
        import cupyx.scipy.special as special
    else:
        import jax.scipy.special as special
    return special


def gelu(x: Any) -> Any:
    """x Φ(x) with the normal distribution function Φ (Hendrycks and Gimpel 2016)."""
    return x * (erf(x / math.sqrt(2)) + 1) / 2
