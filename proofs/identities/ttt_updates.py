"""Test-time training: what its task leaves to learn, the rank of its updates, and the memory of its two forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from minigrad import namespace
from models.memory import ttt
from models.sequences import unit_lower_inverse
from proofs.checker.forms import WITHOUT_JAX
from proofs.checker.ranks import rank
from proofs.checker.statements import EXACT, bounded, grows, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, Betas, ChunkSize, Keys, Queries, Strategy, Values
from proofs.identities.lazy_softmax import workspace
from proofs.identities.titans import negative_gradients
from proofs.identities.ttt import SUN, Square, State, matrix

CHAPTER = 7

WIDE = {"K": st.integers(2, 4), "T": st.integers(1, 3)}
FewTokens = Annotated[Any, Strategy("*batch T K", SMALL, sizes=WIDE)]
WideValues = Annotated[Any, Strategy("*batch T K", LARGE, sizes=WIDE)]
WideState = Annotated[Any, Strategy("*batch K K", LARGE, sizes=WIDE)]

# What is reconstructed


@identity(
    "A feature that reconstructs itself, k = v, has nothing to learn: at W = I no token has a gradient",
    source="talk-titans, 35:57: 'a trivial task'",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def reconstructing_itself(q: Queries, k: Keys, eta: Betas, chunk_size: ChunkSize):
    zero = 0 * (k.mT @ k)
    W = namespace(k).eye(k.shape[-1], dtype=k.dtype) + zero
    y, after = ttt.primal(q, k, k, eta, matrix(W), batch_size=chunk_size)
    return (y, after.start[0][0], after.total[0][0]), (q, W, zero)


@refuted(
    "So has a view that reconstructs another, k = xA and v = xB, at W = I",
    source=f"talk-titans, 35:57; {SUN}, section 2.3",
    exact=True,
    instead="ttt_updates.reconstructing_itself",
)
def reconstructing_another_view(q: Queries, x: Keys, A: Square, B: Square, eta: Betas):
    y, _ = ttt.primal(q, x @ A, x @ B, eta, matrix(namespace(x).eye(x.shape[-1], dtype=x.dtype)))
    return y, q


@identity(
    "It has at W = A⁻¹B where A is invertible, whatever the tokens: two views are not enough, one must lose features",
    source=f"talk-titans, 35:57, made precise; {SUN}, section 2.3: views of lower rank",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def reconstructing_from_all_features(q: Queries, x: Keys, A: Square, B: Square, eta: Betas, chunk_size: ChunkSize):
    xp = namespace(x, A, B)
    W = unit_lower_inverse(A) @ B + 0 * (x.mT @ x)
    A = xp.eye(x.shape[-1], dtype=x.dtype) + xp.tril(A, k=-1)
    y, after = ttt.primal(q, x @ A, x @ B, eta, matrix(W), batch_size=chunk_size)
    return (y, after.start[0][0]), (q @ W, W)


# What is learned of a sequence


@bounded(
    "Like LoRA's, the update Wₜ − W of a linear model has low rank: at most the number of tokens since W",
    source="talk-titans, 1:18:38",
    exact=True,
    only=EXACT,
)
def rank_of_the_update(q: FewTokens, k: FewTokens, v: WideValues, eta: Betas, state: WideState):
    _, after = ttt.primal(q, k, v, eta, matrix(state), batch_size=k.shape[-2] + 1)
    ranks = rank(after.total[0][0])
    return ranks, 0 * ranks + k.shape[-2]


@identity(
    "It is a product of two factors as LoRA's is, Wₜ = W − Kᵀ(ηE) with the errors E = KW − V, one row a token",
    source="talk-titans, 1:18:38, made precise",
    exact=True,
    only=WITHOUT_JAX,
)
def update_in_two_factors(q: Queries, k: Keys, v: Values, eta: Betas, state: State):
    y, after = ttt.dual(q, k, v, eta, matrix(state), batch_size=k.shape[-2] + 1)
    down, up = k.mT, eta[..., None] * (k @ state - v)
    return (y[..., -1:, :], after.total[0][0]), (q[..., -1:, :] @ state - (q[..., -1:, :] @ down) @ up, down @ up)


@refuted(
    "Unlike LoRA's, whose rank is chosen, it keeps the rank 1 of a token's gradient",
    source="talk-titans, 1:18:38, where the rank grows with the tokens",
    exact=True,
    relation="≤",
    instead="ttt_updates.rank_of_the_update",
)
def update_of_rank_one(q: FewTokens, k: FewTokens, v: WideValues, eta: Betas, state: WideState):
    ranks, tokens = rank_of_the_update(q, k, v, eta, state)
    return ranks, 0 * tokens + 1


# Where gradients are taken


@identity(
    "In batches of C tokens the gradient is taken at the memory before the batch: one to C tokens old",
    source="talk-titans, 1:12:22: 'up to C steps before'",
    exact=True,
    derivatives=False,
    only=WITHOUT_JAX,
)
def gradients_at_the_start_of_a_batch(q: Queries, k: Keys, v: Values, eta: Betas, state: State, chunk_size: ChunkSize):
    y, _ = ttt.dual(q, k, v, eta, matrix(state), batch_size=chunk_size)
    return y, outputs_with_gradients_at(q, k, v, eta, state, lambda t: t - t % chunk_size)


@refuted(
    "It is taken at the memory C tokens before, whichever the token",
    source="talk-titans, 1:12:22–1:14:45: 'the model at t − C'",
    exact=True,
    instead="ttt_updates.gradients_at_the_start_of_a_batch",
)
def gradients_at_a_fixed_lag(q: Queries, k: Keys, v: Values, eta: Betas, state: State, chunk_size: ChunkSize):
    y, _ = ttt.dual(q, k, v, eta, matrix(state), batch_size=chunk_size)
    return y, outputs_with_gradients_at(q, k, v, eta, state, lambda t: max(0, t + 1 - chunk_size))


def outputs_with_gradients_at(q: Any, k: Any, v: Any, eta: Any, state: Any, tokens_before: Callable[[int], int]) -> Any:
    """Return all outputs of Wₜ = Wₜ₋₁ − η ∇ℓₜ(W′), with W′ the memory after `tokens_before(t)` tokens, t from 0."""
    W, y = [state], []
    for t in range(q.shape[-2]):
        now = slice(t, t + 1)
        (step,) = negative_gradients(k[..., now, :], v[..., now, :], eta[..., now], W[tokens_before(t)])
        W.append(W[-1] + step)
        y.append(q[..., now, :] @ W[-1])
    return namespace(q).concat(y, axis=-2)


# Memory

LENGTHS = (32, 64, 128)


@grows(
    "In primal form the memory is that of b models: b K V, cubic for b = K = V",
    source="talk-titans, 48:07 and 1:15:30",
    order=3,
    lengths=LENGTHS,
)
def memory_of_primal_form(length: int):
    return memory_of_a_batch(ttt.primal, length)


@grows(
    "In dual form it is that of scores and of one model: b² + b (K + V) + K V, quadratic for b = K = V",
    source=f"{SUN}, section 2.5; talk-titans, 1:15:30–1:17:08",
    order=2,
    lengths=LENGTHS,
)
def memory_of_dual_form(length: int):
    return memory_of_a_batch(ttt.dual, length)


def memory_of_a_batch(form: Any, size: int) -> int:
    """Return the bytes that b tokens take in one batch beside their inputs and results, with b = K = V."""
    rng = np.random.default_rng(0)
    q, k, v, W = rng.uniform(-0.1, 0.1, (4, size, size))
    return workspace(lambda *x: form(*x, np.full(size, 0.1), matrix(W), batch_size=size), q, k, v)
