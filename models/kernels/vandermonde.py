"""A product with a Vandermonde matrix, Kₗ = 2 Re Σₙ wₙ Aₙˡ, and its adjoint, by powers in two levels and BLAS.

    K_{Si+j} = Σₙ 2 Re(wₙ Aₙ^(Si) · Aₙʲ)             S = √L: a product of L/S × 2N by 2N × S real numbers
    Pₙ = Σₗ gₗ Aₙˡ          Qₙ = Σₗ l gₗ Aₙˡ⁻¹          inside blocks of S by a product, then over the blocks
    dw = 2 conj(P)    dA = 2 conj(w Q)               for g = dK                   adjoint, Jᴴ

Work    a thread takes as many rows as have powers that fit the second-level cache. Compiled code computes the powers,
        BLAS the products, in the calling thread.
Memory  powers of √L exponents for the rows under way; no array has L × N numbers.
Cost    two multiplications and additions of real numbers for each l and n forward, twice that back.

Powers are float64 whatever the arrays are, each computed from the one before, and rounded once when stored.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad.compiled.layout import laid_out, plain
from minigrad.compiled.simd import kernel
from minigrad.compiled.threads import one_blas_thread, share

NUMBERS = 1 << 17  # of all powers of the rows under way


def forward(w: Any, A: Any, *, length: int) -> tuple[Any, Any]:
    """Return (K, saved) for complex w, A (M, N): K (M, L), real."""
    return responses(w, A, length), (w, A)


def backward(saved: tuple[Any, Any], dK: Any) -> tuple[Any, Any]:
    """Return the cotangents of w and A from that of K."""
    w, A = saved
    Q = np.empty(A.shape, A.dtype)
    P = sums(dK, A, Q)
    return 2 * P.conj(), 2 * (w * Q).conj()


def responses(w: Any, A: Any, length: int) -> np.ndarray:
    """Return 2 Re Σₙ wₙ Aₙˡ for l = 0 … L − 1, (M, L)."""
    w, A, size = plain(w), plain(A), math.isqrt(length - 1) + 1
    K = np.empty((len(A), -(-length // size), size), A.real.dtype)

    def work(part: int, first: int, last: int) -> None:
        for rows, coarse, fine in _parts(K, A.shape[1], first, last):
            _two_levels(w[rows], A[rows], coarse, fine)
            np.matmul(coarse, fine.mT, out=K[rows])

    with one_blas_thread():
        share(work, len(A))
    return K.reshape(len(A), K.shape[1] * size)[:, :length]


def sums(g: Any, A: Any, Q: np.ndarray | None = None) -> np.ndarray:
    """Return P = Σₗ gₗ Aₙˡ, complex (M, N), of real g (M, L), and write Σₗ l gₗ Aₙˡ⁻¹ into Q, if given."""
    A, (count, length) = plain(A), g.shape
    size = math.isqrt(length - 1) + 1
    blocks = -(-length // size)
    g = laid_out(g, count, length, to=(size * blocks,)).reshape(count, blocks, size)
    P = np.empty_like(A)

    def work(part: int, first: int, last: int) -> None:
        for rows, near, fine in _parts(g, A.shape[1] * (1 if Q is None else 2), first, last):
            _one_level(A[rows], fine, Q is not None)
            np.matmul(g[rows], fine, out=near)
            _over_blocks(A[rows], near, size, P[rows], None if Q is None else Q[rows])

    with one_blas_thread():
        share(work, count)
    return P


def _parts(blocks: np.ndarray, states: int, first: int, last: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield slices of rows of blocks (M, L/S, S), and buffers (rows, L/S, 2N) and (rows, S, 2N) of real numbers."""
    _, count, size = blocks.shape
    most = max(1, NUMBERS // (2 * states * (count + size)))
    coarse, fine = (np.empty((min(most, last - first), n, 2 * states), blocks.dtype) for n in (count, size))
    for start in range(first, last, most):
        rows = slice(start, min(start + most, last))
        height = rows.stop - rows.start
        yield rows, coarse[:height], fine[:height]


@kernel
def _two_levels(w, A, coarse, fine):
    """Write the parts of Aʲ into fine (rows, S, 2N), those of conj(2 w A^(Si)) into coarse (rows, L/S, 2N)."""
    rows, size, _ = fine.shape
    states = A.shape[1]
    power, term = np.empty((2, states), np.complex128)
    for m in range(rows):
        power[:] = 1
        for j in range(size):
            for n in range(states):
                fine[m, j, n], fine[m, j, states + n] = power[n].real, power[n].imag
                power[n] *= A[m, n]
        for n in range(states):
            term[n] = w[m, n]
        for i in range(coarse.shape[1]):
            for n in range(states):
                coarse[m, i, n], coarse[m, i, states + n] = 2 * term[n].real, -2 * term[n].imag
                term[n] *= power[n]


@kernel
def _one_level(A, fine, slopes):
    """Write the parts of Aʲ into fine (rows, S, 2N), or with `slopes` also those of j Aʲ⁻¹, (rows, S, 4N)."""
    rows, size, _ = fine.shape
    states = A.shape[1]
    power, slope = np.empty((2, states), np.complex128)
    for m in range(rows):
        power[:], slope[:] = 1, 0
        for j in range(size):
            for n in range(states):
                fine[m, j, n], fine[m, j, states + n] = power[n].real, power[n].imag
                if slopes:
                    fine[m, j, 2 * states + n], fine[m, j, 3 * states + n] = slope[n].real, slope[n].imag
                slope[n] = (j + 1) * power[n]
                power[n] *= A[m, n]


@kernel
def _over_blocks(A, near, size, P, Q):
    """Compute P and Q from those of each block, near (rows, L/S, 4N), by A^(Si) and its slope Si A^(Si−1)."""
    rows, count, _ = near.shape
    states = A.shape[1]
    jump, before, power, slope, p, q = np.empty((6, states), np.complex128)  # jump = A^S, before = A^(S−1)
    for m in range(rows):
        jump[:] = 1
        for _ in range(size):
            for n in range(states):
                before[n] = jump[n]
                jump[n] *= A[m, n]
        power[:], slope[:], p[:], q[:] = 1, 0, 0, 0
        for i in range(count):
            for n in range(states):
                own = complex(near[m, i, n], near[m, i, states + n])
                p[n] += power[n] * own
                if Q is not None:
                    own_slope = complex(near[m, i, 2 * states + n], near[m, i, 3 * states + n])
                    q[n] += power[n] * own_slope + slope[n] * own
                    slope[n] = (i + 1) * size * (before[n] * power[n])
                power[n] *= jump[n]
        for n in range(states):
            P[m, n] = p[n]
            if Q is not None:
                Q[m, n] = q[n]
