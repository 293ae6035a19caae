"""Discrete Fourier transforms: linear maps, whose rules are their adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.engine import is_complex, primitive, unwrap
from minigrad.namespace import namespace
from minigrad.primitives.arguments import array, integer, integers, normalize_axes, normalize_axis, upcast_half
from minigrad.primitives.creation import arange
from minigrad.primitives.elementwise import conj, real_cotangent
from minigrad.primitives.shapes import pad, roll

_SCALES = {
    "backward": (0, 1),
    "ortho": (0.5, 0.5),
    "forward": (1, 0),
}  # exponents of 1/n: forward, inverse
_DUAL = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


def _scale_exponent(norm: str, inverse: bool, caller: str) -> float:
    """Return the exponent of 1/n in the scale of a transform."""
    if norm not in _SCALES:
        raise ValueError(f"{caller}: got norm {norm!r}, expected 'backward', 'ortho' or 'forward'")
    return _SCALES[norm][inverse]


def _scaled(y: Any, n: int, power: float) -> Any:
    return y if power == 0 else y / n if power == 1 else y * n**-power


def _pad_or_truncate(x: Any, n: int, axis: int) -> Any:
    """Return x truncated, or padded with zeros, to n along an axis."""
    size = x.shape[axis]
    if n <= size:
        return x if n == size else x[(slice(None),) * axis + (slice(0, n),)]
    return pad(x, tuple((0, n - size if i == axis else 0) for i in range(x.ndim)))


def _check_size(x: Any, n: int | None, axis: int, caller: str) -> tuple[Any, int, int]:
    """Return the array, the number of points and the non-negative axis. Raise ValueError for less than one point."""
    x = array(x, caller)
    axis = normalize_axis(axis, x.ndim, caller)
    n = x.shape[axis] if n is None else integer(n, caller, "n")
    if n < 1:
        raise ValueError(f"{caller}: got n = {n}, expected at least 1")
    return x, n, axis


@primitive(x=lambda g, axis: _ifft(g, axis=axis) * g.shape[axis])
def _fft(xp, x, *, axis):
    return xp.fft.fft(x, axis=axis)


@primitive(x=lambda g, axis: _fft(g, axis=axis) / g.shape[axis])
def _ifft(xp, x, *, axis):
    return xp.fft.ifft(x, axis=axis)


@upcast_half
def fft(x: Any, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """Return Xₖ = Σₜ xₜ e^(−2πi kt/n); its adjoint is n times the inverse transform."""
    power = _scale_exponent(norm, False, "fft")
    x, n, axis = _check_size(x, n, axis, "fft")
    return _scaled(_fft(_pad_or_truncate(x, n, axis), axis=axis), n, power)


@upcast_half
def ifft(x: Any, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """Return xₜ = (1/n) Σₖ Xₖ e^(2πi kt/n)."""
    power = _scale_exponent(norm, True, "ifft") - 1
    x, n, axis = _check_size(x, n, axis, "ifft")
    return _scaled(_ifft(_pad_or_truncate(x, n, axis), axis=axis), n, power)


# ---- real signals


def _weights(g: Any, n: int, axis: int) -> Any:
    """Return the multiplicity, 1 or 2, of each stored frequency of a real signal of length n in its full spectrum."""
    xp = namespace(unwrap(g))  # a constant of the library that holds g
    count = np.full(n // 2 + 1, 2.0)
    count[0] = 1
    if n % 2 == 0:
        count[-1] = 1
    shape = [1] * g.ndim
    shape[axis] = -1
    count = count.astype(np.float32 if str(g.dtype).endswith(("float32", "complex64")) else np.float64)
    return xp.asarray(count.reshape(shape))


@primitive(x=lambda g, shape, axis: _irfft(g / _weights(g, shape[axis], axis), n=shape[axis], axis=axis) * shape[axis])
def _rfft(xp, x, *, axis):
    return xp.fft.rfft(x, axis=axis)


@primitive(x=lambda g, n, axis: _rfft(real_cotangent(g), axis=axis) * _weights(g, n, axis) / n)
def _irfft(xp, x, *, n, axis):
    return xp.fft.irfft(x, n=n, axis=axis)


@upcast_half
def rfft(x: Any, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """Return the first ⌊n/2⌋ + 1 frequencies of a real signal; the others are complex conjugates of these."""
    power = _scale_exponent(norm, False, "rfft")
    x, n, axis = _check_size(x, n, axis, "rfft")
    if is_complex(x.dtype):
        raise TypeError(f"rfft: got {x.dtype}, expected real numbers")
    return _scaled(_rfft(_pad_or_truncate(x, n, axis), axis=axis), n, power)


@upcast_half
def irfft(x: Any, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """Return the real signal of length n (2(m − 1) by default) whose first frequencies are the m given ones."""
    power = _scale_exponent(norm, True, "irfft") - 1
    x = array(x, "irfft")
    n = 2 * (x.shape[normalize_axis(axis, x.ndim, "irfft")] - 1) if n is None else n
    x, n, axis = _check_size(x, n, axis, "irfft")
    return _scaled(_irfft(_pad_or_truncate(x, n // 2 + 1, axis), n=n, axis=axis), n, power)


def hfft(x: Any, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """Return the real spectrum of a Hermitian signal of which the first m of n = 2(m − 1) values are given."""
    _scale_exponent(norm, False, "hfft")
    return irfft(conj(array(x, "hfft")), n, axis, _DUAL[norm])


def ihfft(x: Any, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """Return the first ⌊n/2⌋ + 1 values of the Hermitian signal of a real spectrum: the inverse of hfft."""
    _scale_exponent(norm, True, "ihfft")
    return conj(rfft(x, n, axis, _DUAL[norm]))


# ---- several axes


def _check_sizes(x: Any, s: Sequence[int] | None, axes: Sequence[int] | None, caller: str) -> tuple[tuple, tuple]:
    """Return the numbers of points and the axes of a transform; by default all axes, or the last len(s)."""
    counts = None if s is None else integers(s, caller, "s")
    if axes is None:
        axes = tuple(range(x.ndim))[0 if counts is None else x.ndim - len(counts) :]
    else:
        axes = normalize_axes(axes, x.ndim, caller)
    if counts is None:
        counts = tuple(x.shape[a] for a in axes)
    if len(counts) != len(axes):
        raise ValueError(f"{caller}: got s = {counts} and axes {axes}, expected as many")
    return counts, axes


def fftn(x: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> Any:
    """Return the discrete Fourier transform over several axes."""
    x = array(x, "fftn")
    for n, axis in zip(*_check_sizes(x, s, axes, "fftn"), strict=True):
        x = fft(x, n, axis, norm)
    return x


def ifftn(x: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> Any:
    """Return the inverse of fftn."""
    x = array(x, "ifftn")
    for n, axis in zip(*_check_sizes(x, s, axes, "ifftn"), strict=True):
        x = ifft(x, n, axis, norm)
    return x


def rfftn(x: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> Any:
    """Return the transform of a real signal over several axes, with ⌊n/2⌋ + 1 frequencies on the last."""
    x = array(x, "rfftn")
    counts, axes = _check_sizes(x, s, axes, "rfftn")
    x = rfft(x, counts[-1], axes[-1], norm)
    return fftn(x, counts[:-1], axes[:-1], norm)


def irfftn(x: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> Any:
    """Return the inverse of rfftn: a real signal, by default of 2(m − 1) points on the last axis."""
    x = array(x, "irfftn")
    counts, axes = _check_sizes(x, s, axes, "irfftn")
    last = None if s is None else counts[-1]
    return irfft(ifftn(x, counts[:-1], axes[:-1], norm), last, axes[-1], norm)


# ---- frequencies and their order


def fftfreq(n: int, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    """Return the frequencies of fft for a sample spacing d, the non-negative ones first."""
    n = integer(n, "fftfreq", "n")
    k = arange(-(n // 2), n - n // 2, dtype=np.float64 if dtype is None else dtype, device=device)
    return ifftshift(k / (n * d))


def rfftfreq(n: int, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    """Return the frequencies of rfft for a sample spacing d."""
    n = integer(n, "rfftfreq", "n")
    return arange(0, n // 2 + 1, dtype=np.float64 if dtype is None else dtype, device=device) / (n * d)


def fftshift(x: Any, *, axes: int | Sequence[int] | None = None) -> Any:
    """Return x with the zero frequency moved to the middle."""
    x = array(x, "fftshift")
    axes = normalize_axes(axes, x.ndim, "fftshift")
    return roll(x, tuple(x.shape[a] // 2 for a in axes), axis=axes)


def ifftshift(x: Any, *, axes: int | Sequence[int] | None = None) -> Any:
    """Return the inverse of fftshift."""
    x = array(x, "ifftshift")
    axes = normalize_axes(axes, x.ndim, "ifftshift")
    return roll(x, tuple(-(x.shape[a] // 2) for a in axes), axis=axes)
