"""A causal convolution as long as the sequence by Fourier transforms of H = 2^⌈log₂ T⌉ points, and its adjoint.

    yₜ = Σ_{s ≤ t} Kₜ₋ₛ uₛ

A circular convolution of H points adds yₜ₊ₕ, what goes over its end, to yₜ. Turned by a right angle it stays apart, so
that no zeros are needed between the end and the beginning:

    ω = exp(−iπ/2H)          Σ_{s + r ≡ t} ωˢuₛ ωʳKᵣ = ωᵗ (yₜ − i yₜ₊ₕ)          since ωᴴ = −i
    û = F(ωᵗ uₜ)             y = Re ω⁻ᵗ F⁻¹(û K̂)
backward, with g = dy:      du = Re ω⁻ᵗ F⁻¹(ĝ conj K̂)          dK = Re ω⁻ᵗ F⁻¹(Σ conj(û) ĝ)          over all sequences

Work    a vector is some neighbouring channels at one point; a thread's unit is all sequences of one such vector.
Memory  a thread needs room for H complex vectors of K, of u and, back, of g and dK: spectra are recomputed, not saved.
Cost    two transforms of H complex points for each sequence and channel forward, three back, and one or two for K.

Roots of unity are float64 before they are rounded. Where an input has T last in memory, so has its result.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minigrad.compiled.layout import flat_count, vector
from minigrad.compiled.threads import share
from models.kernels.spectra import convolve, correlate


class Rows(NamedTuple):
    """An array as its memory in one row, and its strides in elements along the axes (batch, T, D)."""

    numbers: np.ndarray
    steps: tuple[int, int, int]


class Saved(NamedTuple):
    """Residuals of the backward pass: the inputs with their strides, and their shapes."""

    u: Rows
    K: Rows
    shapes: tuple[tuple[int, ...], ...]


def forward(u: Any, K: Any) -> tuple[Any, Saved]:
    """Return (y, saved) for u (*batch, T, D) and K (D, L)."""
    saved = Saved(_rows(u), _rows(K.T), (u.shape, K.shape))
    y, sizes, tables = _empty(u), _sizes(saved), _tables(u.shape[-2], u.dtype)
    rows = _rows(y)

    def work(part: int, first: int, last: int) -> None:
        convolve(*saved.u, *saved.K, *rows, *tables, sizes, first, last)

    share(work, -(-u.shape[-1] // vector(u)))
    return y, saved


def backward(saved: Saved, dy: Any) -> tuple[Any, Any]:
    """Return the cotangents of u and K from that of y."""
    du, dK = _empty(dy), np.zeros(saved.shapes[1], dy.dtype)  # zeros where K goes on after the last token
    sizes, tables = _sizes(saved), _tables(dy.shape[-2], dy.dtype)
    g, cotangents = _rows(dy), (*_rows(du), *_rows(dK.T))

    def work(part: int, first: int, last: int) -> None:
        correlate(*saved.u, *saved.K, *g, *cotangents, *tables, sizes, first, last)

    share(work, -(-dy.shape[-1] // vector(dy)))
    return du, dK


def _sizes(saved: Saved) -> tuple[int, int, int, int]:
    """Return the numbers of sequences, of tokens, of taps of K that reach them, and of channels."""
    (*_, length, channels), (_, taps) = saved.shapes
    return flat_count(saved.shapes[0]), length, min(length, taps), channels


def _rows(x: np.ndarray) -> Rows:
    """Return x (*batch, T, D) as it lies in memory, gaps and all; a copy where an axis runs backwards or repeats."""
    x = x.reshape(-1, *x.shape[-2:])
    if any(step <= 0 or step % x.itemsize for step in x.strides):
        x = np.ascontiguousarray(x)
    batch, time, channels = (step // x.itemsize for step in x.strides)
    last = sum((size - 1) * step for size, step in zip(x.shape, (batch, time, channels), strict=True))
    return Rows(as_strided(x, (last + 1,), (x.itemsize,)), (batch, time, channels))


def _empty(x: np.ndarray) -> np.ndarray:
    """Return an array of x's shape that lies in memory as x does."""
    return np.empty(x.mT.shape, x.dtype).mT if x.mT.flags.c_contiguous else np.empty(x.shape, x.dtype)


@functools.lru_cache(maxsize=8)
def _tables(length: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return exp(−2πi j / H) and ωʲ for j < H, each (H, 2): real and imaginary parts."""
    points = 1 << (length - 1).bit_length()
    angles = np.arange(points) * (-2 * np.pi / points)
    return _parts(angles, dtype), _parts(angles / 4, dtype)


def _parts(angles: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(dtype)
