"""Activation functions: the logistic function, the error function, and those defined by them.

Derivatives are primitives with expressions of their own, so that gradients of any order keep their relative accuracy
where σ(x) is near 0 or 1 and Φ(x) near 0.
"""

from __future__ import annotations

import math
from typing import Any

from minigrad.compiled import chain
from minigrad.engine import primitive
from minigrad.primitives.arguments import array
from minigrad.primitives.elementwise import complex_valued, conj, refuse_complex, where
from minigrad.primitives.trigonometry import exp_neg_abs, sech_squared, tanh

_FAR = 80.0  # e^(−x²/4) is 0 here, and finite before
_PER_UNIT = 16  # multiples of 1/16, whose squares are exact

# ---- the logistic function


def _sigmoid_adjoint(g, x):
    if compiled := chain("sigmoid_adjoint", g, x):
        return compiled(g, x)
    return g * conj(sech_squared(x / 2) / 4)


@primitive(x=lambda g, x: _sigmoid_adjoint(g, x))
def sigmoid(xp, x):
    """Return σ(x) = 1/(1 + e⁻ˣ) = eˣ/(1 + eˣ), whichever exponential does not overflow."""
    if compiled := chain("sigmoid", x):
        return compiled(x)
    e = exp_neg_abs(xp, x)
    return xp.where(_below_zero(xp, x), e, 1) / (1 + e)


def _below_zero(xp, x):
    return (xp.real(x) if complex_valued(x) else x) < 0


@primitive(x=lambda g, x: g * sigmoid(x))
def softplus(xp, x):
    """Return log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|)."""
    refuse_complex("softplus", x)
    return xp.maximum(x, xp.zeros_like(x)) + xp.log1p(exp_neg_abs(xp, x))


def log_sigmoid(x: Any) -> Any:
    """Return log σ(x) = −softplus(−x)."""
    return -softplus(-array(x, "log_sigmoid"))


@primitive(x=lambda g, x, y: g * conj(sigmoid(x - y)), y=lambda g, x, y: g * conj(sigmoid(y - x)))
def logaddexp(xp, x, y):
    """Return log(eˣ + eʸ)."""
    if not (complex_valued(x) or complex_valued(y)):
        return xp.logaddexp(x, y)
    top = xp.maximum(xp.real(x), xp.real(y))
    return xp.log(xp.exp(x - top) + xp.exp(y - top)) + top


@primitive(x=lambda g, x: silu_adjoint(g, x))
def silu(xp, x):
    """Return x σ(x) (Elfwing et al. 2018)."""
    if compiled := chain("silu", x):
        return compiled(x)
    return _silu(xp, x, exp_neg_abs(xp, x / 2))


def _silu(xp, x, k):
    """Return x σ(x), given k = e^−|x|/2, whose factors do not underflow before the product does."""
    t = xp.where(_below_zero(xp, x), k, 1)
    return x * t * t / (1 + k * k)


def silu_adjoint(g: Any, x: Any) -> Any:
    """Return g times the conjugate of silu′(x)."""
    if compiled := chain("silu_adjoint", g, x):
        return compiled(g, x)
    return g * conj(_silu_derivative(x))


@primitive(x=lambda g, x: g * conj(sech_squared(x / 2) * (2 - x * tanh(x / 2)) / 4))
def _silu_derivative(xp, x):
    """Return silu′(x) = σ(x) + x σ(x) σ(−x)."""
    k = exp_neg_abs(xp, x / 2)
    e, below = k * k, _below_zero(xp, x)
    return (xp.where(below, e, 1) + _silu(xp, x, k) * xp.where(below, 1, e)) / (1 + e)


# ---- the rectifier


@primitive(x=lambda g, x: where(x <= 0, 0, g))
def relu(xp, x):
    """Return max(x, 0)."""
    refuse_complex("relu", x)
    return xp.maximum(x, xp.zeros_like(x))


# ---- the normal distribution


@primitive(x=lambda g, x: g * conj(2 / math.sqrt(math.pi) * _gaussian(x, rate=1)))
def erf(xp, x):
    """Return the error function, 2/√π ∫₀ˣ e^−t² dt."""
    return _special(xp, "erf", x)


def _special(xp, name, x):
    """Apply a function of the library's module of special functions; float16 is restored, which SciPy promotes."""
    library = xp.__name__
    if library == "minigrad.exact":
        special = xp
    elif library.startswith("numpy"):
        import scipy.special as special
    elif "torch" in library:
        import torch.special as special
    elif "cupy" in library:
        import cupyx.scipy.special as special
    else:
        import jax.scipy.special as special
    result = getattr(special, name)(x)
    return xp.astype(result, x.dtype) if str(getattr(x, "dtype", "")).endswith("float16") else result


@primitive(x=lambda g, x, out, rate: g * conj(-2 * rate * x * out))
def _gaussian(xp, x, *, rate):
    """Return e^(−rate x²) for a rate that is a power of 2."""
    if complex_valued(x):
        return xp.exp(-rate * x * x)
    half, small = _gaussian_factors(xp, x, rate)
    return half * small * half


def _gaussian_factors(xp, x, rate):
    """Return h and s with e^(−rate x²) = h² s, h = e^(−rate a²/2), a = x rounded to a multiple of 1/16, s near 1.

    a² is exact, whereas the rounding error of x² is magnified by the exponential, to about x² ulp. h does not
    underflow where h² does. |x| is clipped where h is 0 for rates ≥ ½.
    """
    x = xp.where(x > _FAR, _FAR, xp.where(x < -_FAR, -_FAR, x))
    a = xp.round(x * _PER_UNIT) / _PER_UNIT
    return xp.exp(-rate / 2 * (a * a)), xp.exp(-rate * ((x - a) * (x + a)))


@primitive(x=lambda g, x: _gelu_adjoint(g, x))
def gelu(xp, x):
    """Return x Φ(x), Φ the normal distribution function: the exact GELU (Hendrycks and Gimpel 2016)."""
    if compiled := chain("gelu", x):
        return compiled(x)
    if complex_valued(x):
        return x * _special(xp, "erfc", x * -math.sqrt(0.5)) / 2
    half, small = _gaussian_factors(xp, x, 0.5)
    below = xp.abs(xp.where(x > _FAR, _FAR, x)) * _upper_tail(xp, x, small) * half * half  # 0, and not NaN, for +∞
    return xp.where(x < 0, -below, x - below)


def _upper_tail(xp, x, small):
    """Return Φ(−|x|)/h², with h² s = e^−x²/2: the caller multiplies by h² last, since subnormals have few digits."""
    return _special(xp, "erfcx", xp.abs(x) * math.sqrt(0.5)) * small / 2


def _gelu_adjoint(g, x):
    if compiled := chain("gelu_adjoint", g, x):
        return compiled(g, x)
    return g * conj(_gelu_derivative(x))


@primitive(x=lambda g, x: g * conj(_gaussian(x, rate=0.5) * (2 - x * x) / math.sqrt(2 * math.pi)))
def _gelu_derivative(xp, x):
    """Return gelu′(x) = Φ(x) + x φ(x), φ = Φ′."""
    if complex_valued(x):
        density = xp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return _special(xp, "erfc", x * -math.sqrt(0.5)) / 2 + x * density
    half, small = _gaussian_factors(xp, x, 0.5)
    tail, rise = _upper_tail(xp, x, small), x * (small / math.sqrt(2 * math.pi))
    return xp.where(x < 0, (tail + rise) * half * half, 1 + (rise - tail) * half * half)
