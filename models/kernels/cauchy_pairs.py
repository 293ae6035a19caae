"""Sums over conjugate pairs of poles at the roots of unity, and their adjoint: no array of size L × N is ever formed.

    Sₖ(ω) = Σₙ vₖₙ / (is − c λₙ) + conj(vₖₙ) / (is − c conj(λₙ))         s = sin ω, c = cos ω, ω = πl/L
          = c Σₙ αₖₙ rₙ + is Σₙ βₖₙ rₙ                                   α = −2 Re(v conj λ), β = 2 Re v
    1/rₙ  = (is − cλₙ)(is − c conj λₙ) = (c Im λₙ − s)(c Im λₙ + s) + (c Re λₙ)² − 2isc Re λₙ

backward, with dSₖ the cotangent of Sₖ, a = c dS and b = −is dS:

    dαₖₙ = Re Σ conj(rₙ) aₖ          dβₖₙ = Re Σ conj(rₙ) bₖ          x = −conj(rₙ²) Σₖ (αₖₙ aₖ + βₖₙ bₖ)
    d|λₙ|² = Σ c² Re x              d Re λₙ = −Σ 2cs Im x              sums over all ω

Work    a vector is some neighbouring ω; a channel is a thread's unit. Both halves of a pair cost one division, whose
        result serves all the sums k. What belongs to a pole lies in the first-level cache.
Memory  rₙ of one vector forward; a and b of one channel back.
Cost    4 K + 9 multiplications and additions of real numbers and a division an ω and pole forward, 8 K + 20 back.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from minigrad.compiled.layout import laid_out, vector
from minigrad.compiled.simd import fma, kernel, lanes, load, one, splat, store, total
from minigrad.compiled.threads import share


class Saved(NamedTuple):
    """Residuals of the backward pass: the inputs, and s and c padded to whole vectors."""

    v: np.ndarray  # (D, K, N)
    poles: np.ndarray  # (D, N)
    s: np.ndarray  # (L',)
    c: np.ndarray


def forward(v: Any, poles: Any, *, length: int) -> tuple[Any, Saved]:
    """Return (S, saved) for complex v (D, K, N) and poles (D, N): S (D, K, ⌊L/2⌋ + 1), complex."""
    count = length // 2 + 1
    angles = np.full(count + -count % vector(poles.real), math.pi / 2)  # where whole vectors need more: 1/r is −1 there
    angles[:count] = [math.pi * l / length for l in range(count)]
    s, c = (f(angles).astype(poles.real.dtype) for f in (np.sin, np.cos))
    parts = np.empty((2, *v.shape[:2], len(s)), s.dtype)  # real parts, then imaginary ones
    weights = _weights(v, poles)
    share(lambda part, first, last: _forward(*weights, *_parts(poles), s, c, *parts, first, last), len(poles))
    return _complex(parts[..., :count]), Saved(v, poles, s, c)


def backward(saved: Saved, dS: Any) -> tuple[Any, Any]:
    """Return the cotangents of v and the poles from that of S."""
    v, poles, s, c = saved
    dS_re, dS_im = (laid_out(g, *dS.shape, to=(vector(s),)) for g in (dS.real, dS.imag))
    weights = _weights(v, poles)
    dweights = np.empty((2, *v.shape), s.dtype)
    dsquare, drate = np.empty((2, *poles.shape), s.dtype)

    def work(part: int, first: int, last: int) -> None:
        _backward(*weights, *_parts(poles), s, c, dS_re, dS_im, *dweights, dsquare, drate, first, last)

    share(work, len(poles))
    dalpha, dbeta = dweights
    dpoles = 2 * dsquare * poles + drate - 2 * (dalpha * v).sum(axis=1)
    return 2 * (dbeta - dalpha * poles[:, None]), dpoles


def _weights(v: np.ndarray, poles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return α and β, (D, K, N)."""
    return -2 * (v * poles[:, None].conj()).real, 2 * v.real


def _parts(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(z.real), np.ascontiguousarray(z.imag)


def _complex(parts: np.ndarray) -> np.ndarray:
    z = np.empty(parts.shape[1:], np.result_type(parts, np.complex64))
    z.real, z.imag = parts
    return z


@njit(inline="always")
def _reciprocal(sine, cosine, rate, frequency):
    """Return the parts of 1 / ((c Im λ − s)(c Im λ + s) + (c Re λ)² − 2is c Re λ)."""
    c_re, c_im = cosine * rate, cosine * frequency
    x = fma(c_re, c_re, (c_im - sine) * (c_im + sine))
    y = c_re * (sine + sine)
    scale = one(x) / fma(x, x, y * y)
    return x * scale, y * scale


@kernel
def _forward(alpha, beta, rate, frequency, s, c, real, imag, first, last):
    _, sums, poles = alpha.shape
    step = lanes(s)
    r = np.empty((poles, 2 * step), s.dtype)
    for d in range(first, last):
        for l in range(0, s.size, step):
            sine, cosine = load(s, l), load(c, l)
            for n in range(poles):
                re, im = _reciprocal(sine, cosine, splat(s, rate[d, n]), splat(s, frequency[d, n]))
                store(r, 2 * n * step, re)
                store(r, 2 * n * step + step, im)
            for k in range(sums):
                ar = ai = br = bi = splat(s, 0)
                for n in range(poles):
                    re, im = load(r, 2 * n * step), load(r, 2 * n * step + step)
                    ar, ai = fma(splat(s, alpha[d, k, n]), re, ar), fma(splat(s, alpha[d, k, n]), im, ai)
                    br, bi = fma(splat(s, beta[d, k, n]), re, br), fma(splat(s, beta[d, k, n]), im, bi)
                place = (d * sums + k) * s.size + l
                store(real, place, cosine * ar - sine * bi)
                store(imag, place, cosine * ai + sine * br)


@kernel
def _backward(alpha, beta, rate, frequency, s, c, dS_re, dS_im, dalpha, dbeta, dsquare, drate, first, last):
    _, sums, poles = alpha.shape
    step, width = lanes(s), s.size
    a, b = np.empty((sums, 2 * width), s.dtype), np.empty((sums, 2 * width), s.dtype)
    to_alpha, to_beta = np.empty((sums, step), s.dtype), np.empty((sums, step), s.dtype)
    for d in range(first, last):
        for k in range(sums):
            for l in range(0, width, step):
                re, im = load(dS_re, (d * sums + k) * width + l), load(dS_im, (d * sums + k) * width + l)
                at = 2 * (k * width + l)
                store(a, at, load(c, l) * re)
                store(a, at + step, load(c, l) * im)
                store(b, at, load(s, l) * im)
                store(b, at + step, splat(s, 0) - load(s, l) * re)
        for n in range(poles):
            to_alpha[:], to_beta[:] = 0, 0
            to_square = to_rate = splat(s, 0)
            for l in range(0, width, step):
                sine, cosine = load(s, l), load(c, l)
                re, im = _reciprocal(sine, cosine, splat(s, rate[d, n]), splat(s, frequency[d, n]))
                dr = di = splat(s, 0)  # Σₖ αa + βb
                for k in range(sums):
                    at = 2 * (k * width + l)
                    x, y = load(a, at), load(a, at + step)
                    dr, di = fma(splat(s, alpha[d, k, n]), x, dr), fma(splat(s, alpha[d, k, n]), y, di)
                    store(to_alpha, k * step, fma(re, x, fma(im, y, load(to_alpha, k * step))))
                    x, y = load(b, at), load(b, at + step)
                    dr, di = fma(splat(s, beta[d, k, n]), x, dr), fma(splat(s, beta[d, k, n]), y, di)
                    store(to_beta, k * step, fma(re, x, fma(im, y, load(to_beta, k * step))))
                # −conj(r²) = qr + i qi
                qr, qi = im * im - re * re, splat(s, 2) * (re * im)
                to_square = fma(cosine * cosine, qr * dr - qi * di, to_square)
                to_rate = fma(cosine * sine, qr * di + qi * dr, to_rate)
            dsquare[d, n], drate[d, n] = total(to_square), -2 * total(to_rate)
            for k in range(sums):
                dalpha[d, k, n], dbeta[d, k, n] = total(load(to_alpha, k * step)), total(load(to_beta, k * step))
