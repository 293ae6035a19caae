"""HiPPO's matrices are normal plus low rank, and diagonalising them directly is ill-conditioned."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from models.ssm import hippo
from proofs.checker.statements import EXACT, Instance, bounded, grows, identity, refuted
from proofs.checker.strategies import SMALL, Strategy
from proofs.identities.hippo import UNIT, Order, scaled_to_integers, unnormalised

CHAPTER = 13

S4 = "gu2022s4"
Numbers = Annotated[Any, Strategy("D", SMALL)]


@identity(
    "LegS is −½I + a skew-symmetric matrix − P Pᵀ, with P = √(n + ½)",
    source=f"{S4}, theorem 1, appendix C.1",
    exact=True,
    only=EXACT,
)
def legs_is_normal_plus_rank_one(N: Order):
    odd = 2 * np.arange(N).astype(object) + 1
    twice = 2 * scaled_to_integers(hippo.legs(N)[0])  # 2 D A D; D(−½I)D = −½(2n+1), D P = n + ½
    skew = twice + np.diag(odd) + odd[:, None] * odd
    return skew, -skew.T


PARTED = [Instance(name, {"measure": name}, {}) for name in hippo.MEASURES]


@bounded(
    "All four measures: A + P Pᵀ is a multiple of I and a skew-symmetric matrix, to rounding",
    source=f"{S4}, theorem 1 and appendix C.1",
    over=PARTED,
    only=("float64",),
)
def normal_plus_low_rank(measure: str, N: Order):
    A, _ = hippo.MEASURES[measure](N)
    S, P = hippo.nplr(N, measure)
    mean = np.trace(S) / N * np.eye(N)
    limit = np.full((N, N), 16 * UNIT * abs(A).max())
    return (abs(S - mean + (S - mean).T), abs(S - P @ P.T - A)), (limit, limit)


@bounded(
    "In S's eigenvectors LegS is diag(Λ) − P Pᴴ, and V is unitary: to N√N roundings at N = 2 … 64",
    source=f"{S4}, theorem 1 (conjugate pairs, one of each); talk-mamba, slide 19; book-ssm, S4",
    only=("float64",),
)
def diagonal_plus_rank_one():
    errors, limits = [], []
    for N in (2, 4, 16, 64):
        A, B = hippo.legs(N)
        Lambda, P, B_half, V = (np.concatenate([half, half.conj()], axis=-1) for half in hippo.dplr(N))
        errors.append(abs(V.conj().T @ V - np.eye(N)).max())
        errors.append(abs(V.conj().T @ A @ V - (np.diag(Lambda) - np.outer(P, P.conj()))).max() / abs(A).max())
        errors.append(abs(V @ B_half - B).max() / abs(B).max())
        limits += [16 * UNIT * N**1.5] * 3
    return np.array(errors), np.array(limits)


@refuted(
    "Over the complex numbers every matrix is diagonal in some basis: one whose only eigenvalue is a, V (aI) V⁻¹",
    source="talk-mamba, slide 19 (a Jordan block)",
    exact=True,
    instead="nplr.eigenvectors",
)
def every_matrix_is_diagonalisable(x: Numbers):
    a, b = x[0], x[-1]
    block = np.array([[a, b], [0 * a, a]])
    return block, np.array([[a, 0 * a], [0 * a, a]])


@identity(
    "LegS is diagonalisable: its eigenvectors in D's coordinates are (−1)ⁱ⁻ʲ C(i + j, i − j), its eigenvalues −1 … −N",
    source=f"{S4}, lemma 3.2",
    exact=True,
    only=EXACT,
)
def eigenvectors(N: Order):
    V, eigenvalues = binomials(2 * N), -np.arange(1, 2 * N + 1).astype(object)
    A = unnormalised(2 * N, "legs")
    return A @ V, V * eigenvalues


def binomials(N: int) -> Any:
    """Return the lower triangular matrix of (−1)ⁱ⁻ʲ C(i + j, i − j)."""
    entries = [[(-1) ** (i - j) * math.comb(i + j, i - j) if j <= i else 0 for j in range(N)] for i in range(N)]
    return np.array(entries, dtype=object)


@grows(
    "Those eigenvectors grow exponentially: log of the largest over the smallest is of order 1 in N",
    source=f"{S4}, lemma 3.2: entries of 2^(4N/3)",
    order=1,
    lengths=(12, 24, 48),
)
def size_of_eigenvectors(length: int):
    return math.log(np.max(abs(binomials(length))))


@grows(
    "So does the condition number of LegS's normalised eigenvectors: 9e1, 8e4, 8e10 at N = 4, 8, 16",
    source=f"{S4}, section 3.1, measured",
    order=1,
    lengths=(4, 8, 16),
)
def condition_of_eigenvectors(length: int):
    return math.log(np.linalg.cond(np.linalg.eig(hippo.legs(length)[0])[1]))


@bounded(
    "The eigenvectors of its normal part, which S4 uses, have condition number 1",
    source=f"{S4}, theorem 1",
    only=("float64",),
)
def condition_of_normal_part(N: Order):
    V = np.concatenate([half := hippo.dplr(8 * N)[3], half.conj()], axis=-1)
    return np.array(np.linalg.cond(V)), np.array(1 + 1e-12)
