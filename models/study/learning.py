"""Inner loss and surprise of a memory trained at test time, token by token.

    ℓ(W₀; kₜ, vₜ)     the loss at the initial memory                                       Sun et al. 2024, figure 4
    ℓ(W; kₜ, vₜ)      the loss at W, the memory before the token's mini-batch
    ‖∇ℓₜ‖ and ‖Sₜ‖    momentary and past surprise                                          Behrouz et al. 2025, eq. 10

ℓ is ½ ‖f(k; W) − v‖², and its gradient is that in the memory's weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from models.blocks.learner import LearnerBlock
from models.language.lm import LanguageModel
from models.memory import inner, titans, ttt
from models.memory.inner import Layers
from models.sequences import tokens as one_by_one

WIDTH, HIDDEN = 16, 32  # of the memory that is surprised


def inner_losses(model: LanguageModel, tokens: np.ndarray) -> dict[str, Any]:
    """Return the inner losses of tokens `(batch, T)` by position, each the mean of a mini-batch, a row a layer.

    {"positions": (T / b), "learned": (layers, T / b), "first": (layers, T / b)}, "first" without what was learned.
    """
    recorded: list[tuple[np.ndarray, np.ndarray]] = []
    blocks: list[Any] = [layer.block for layer in model.layers]
    for block in blocks:
        block.run = _record_losses(block, recorded)
    try:
        model(tokens)
    finally:
        for block in blocks:
            del block.run  # the class has its own
    size, length = blocks[0].chunk_size, tokens.shape[-1]
    starts = range(0, length, size)

    def by_batch(losses: np.ndarray) -> list[float]:
        return [float(losses[..., start : start + size].mean()) for start in starts]

    return {
        "positions": [(start + min(start + size, length)) / 2 for start in starts],
        "learned": [by_batch(learned) for learned, _ in recorded],
        "first": [by_batch(first) for _, first in recorded],
    }


def _record_losses(
    block: LearnerBlock, recorded: list[tuple[np.ndarray, np.ndarray]]
) -> Callable[..., tuple[Any, Any]]:
    """Wrap a block's `run` so that it also records the inner losses of its inputs."""
    run = block.run

    def run_and_record(*inputs: Any, state: Any, **options: Any) -> tuple[Any, Any]:
        recorded.append(losses(block, *inputs, **options))
        return run(*inputs, state=state, **options)

    return run_and_record


def losses(
    block: LearnerBlock, q: Any, k: Any, v: Any, *gates_and_weights: Any, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return ℓ at the memory before each token's mini-batch and at the first memory, (*batch, T) both.

    Inputs are those of the block's mechanism: q, k, v, gates, and last the initial memory; Titans' norm is an option.
    """
    *gates, weights = gates_and_weights
    layers, norm = weights if isinstance(weights, ttt.Weights) else (weights, options.get("norm"))
    form, size = getattr(block.mechanism, block.form), block.chunk_size
    rows, state = [], None
    for Q, K, V, *now in inner.mini_batches(size, size, q, k, v, *(gate[..., None] for gate in gates)):
        start = layers if state is None else state.start
        rows.append([np.sum((inner.apply_model(W, norm, K) - V) ** 2, axis=-1) / 2 for W in (start, layers)])
        _, state = form(Q, K, V, *(gate[..., 0] for gate in now), weights, state=state, batch_size=size, **options)
    learned, first = (np.concatenate(part, axis=-1) for part in zip(*rows, strict=True))
    return learned, first


def surprises(
    length: int, period: int, planted: list[int], rate: float, kept: float, forgotten: float, seed: int
) -> dict[str, list[float]]:
    """Let a Titans memory read `period` pairs over and over, with fresh ones `planted`; return its surprise by place.

    Keys and values are drawn, of length 1; the memory is an MLP that no outer loop has trained. θ = rate · (1 − η),
    η = `kept`, α = `forgotten`; a batch is a token, so that every gradient is taken at the memory of its moment.
    """
    rng = np.random.default_rng(seed)
    k, v = (_units(rng, period)[np.arange(length) % period] for _ in range(2))
    for rows in (k, v):
        rows[planted] = _units(rng, len(planted))
    memory: Layers = tuple(
        (rng.standard_normal(shape) / shape[0] ** 0.5,) for shape in ((WIDTH, HIDDEN), (HIDDEN, WIDTH))
    )
    theta, log_eta, log_decay = (np.full(1, gate) for gate in (rate * (1 - kept), np.log(kept), np.log1p(-forgotten)))
    momentary, past, state = [], [], None
    for k_t, v_t in one_by_one(k, v):
        M = memory if state is None else state.memory
        momentary.append(_norm(mg.grad(_loss)(M, k_t, v_t)))
        _, state = titans.recurrent(k_t, k_t, v_t, theta, log_eta, log_decay, memory, state=state, batch_size=1)
        past.append(_norm(state.surprise))
    return {"momentary": momentary, "past": past}


def _loss(M: Layers, k: Any, v: Any) -> Any:
    return mg.sum((inner.forward(M, k)[1][-1] - v) ** 2) / 2


def _norm(layers: Layers) -> float:
    return float(np.sqrt(sum(np.sum(W * W) for layer in layers for W in layer)))


def _units(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return n random directions, (n, WIDTH)."""
    rows = rng.standard_normal((n, WIDTH))
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
