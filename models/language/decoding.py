"""Decoding: the most likely target of a source, greedily or by beam search.

    greedy   the most likely token, then the next, up to the end token
    beam     the B texts with the highest Σ log p so far; one that ends leaves the beam, which is narrower from then on.
             Of those that ended the one with the highest Σ log p / lp(Y) is taken:

             lp(Y) = (5 + |Y|)^α / (5 + 1)^α                                     Wu et al. 2016, eq. 14

|Y| counts the tokens after the start, the end token among them; α = 0.6, B = 4 and no coverage penalty are those of
Vaswani et al. 2017, section 6.1, and so is the limit of the source's length and 50 tokens. A beam of 1 is the greedy
decoding.

Tokens that are `banned` have p = 0, and so has with `must_end` every token but the end at the last place that there is:
published models ask for both.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from minigrad.conversion import to_library_of
from minigrad.namespace import to_numpy
from minigrad.pytree import map_arrays
from models.language.transformer import State, Transformer

ALPHA = 0.6
FURTHER = 50  # tokens of a target beyond the source's number


def greedy(
    model: Transformer,
    source: np.ndarray,
    *,
    pad: int,
    start: int,
    end: int,
    tokens: int | None = None,
    banned: Collection[int] = (),
    must_end: bool = False,
) -> np.ndarray:
    """Return the most likely token after another, (n, ≤ tokens), for sources (n, S): `pad` after the end token.

    `tokens` is the most there may be, the source's number and 50 by default.
    """
    state = model.encode(source, pad=pad)
    feed, written, ended = np.full((len(source), 1), start), [], np.zeros(len(source), dtype=bool)
    limit = source.shape[-1] + FURTHER if tokens is None else tokens
    for step in range(limit):
        logits, state = model.decode(feed, state)
        allowed = _allowed(to_numpy(logits)[:, -1], banned, end if must_end and step + 1 == limit else None)
        best = np.where(ended, pad, np.argmax(allowed, axis=-1))
        written.append(best)
        ended = ended | (best == end)
        if ended.all():
            break
        feed = best[:, None]
    return np.stack(written, axis=1)


def beam_search(
    model: Transformer,
    source: np.ndarray,
    *,
    beam: int,
    pad: int,
    start: int,
    end: int,
    tokens: int | None = None,
    banned: Collection[int] = (),
    must_end: bool = False,
    penalty: Callable[[int], float] | None = None,
) -> tuple[list[int], float]:
    """Return the text of highest score and the score, for one source (S,); the end token is part of the text.

    A text that has not ended after `tokens` has no end token. The score is Σ log p / `penalty`(|Y|), lp by default.

    Raises: ValueError for a beam below 1.
    """
    if beam < 1:
        raise ValueError(f"beam: expected at least 1, got {beam}")
    limit = len(source) + FURTHER if tokens is None else tokens
    penalty = penalty or length_penalty
    texts: list[list[int]] = [[]]
    totals = np.zeros(1)  # Σ log p of each text
    finished: list[tuple[list[int], float]] = []
    state, feed = model.encode(source[None], pad=pad), np.array([[start]])
    for step in range(limit):
        logits, state = model.decode(feed, state)
        allowed = _allowed(to_numpy(logits)[:, -1], banned, end if must_end and step + 1 == limit else None)
        scores = (totals[:, None] + log_probabilities(allowed)).reshape(-1)
        best = np.argsort(-scores, kind="stable")[: beam - len(finished)]
        rows, words = np.divmod(best, logits.shape[-1])
        grown = [[*texts[row], int(word)] for row, word in zip(rows, words, strict=True)]
        alive = words != end
        finished += [
            (text, float(total) / penalty(len(text)))
            for text, total, goes_on in zip(grown, scores[best], alive, strict=True)
            if step + 1 == limit or not goes_on
        ]
        if not alive.any():
            break
        texts = [text for text, goes_on in zip(grown, alive, strict=True) if goes_on]
        totals, feed = scores[best][alive], words[alive][:, None]
        state = rows_of(state, rows[alive])
    return max(finished, key=lambda candidate: candidate[1])


def length_penalty(length: int, alpha: float = ALPHA) -> float:
    """Return lp = (5 + |Y|)^α / (5 + 1)^α, by which Σ log p of a text of |Y| tokens is divided."""
    return ((5 + length) / 6) ** alpha


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return log p in float64, (*batch, vocab)."""
    logits = np.asarray(logits, dtype=np.float64)
    below = logits - logits.max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True))


def _allowed(logits: np.ndarray, banned: Collection[int], only: int | None) -> np.ndarray:
    """Return logits (n, vocab) with −∞ at banned tokens, or with `only` at all but that one."""
    if only is None and not banned:
        return logits
    never = np.zeros(logits.shape[-1], dtype=bool)
    never[list(banned)] = True
    if only is not None:
        never = np.arange(logits.shape[-1]) != only
    return np.where(never, -np.inf, logits)


def rows_of(state: State, rows: Any) -> State:
    """Return the state of these rows of a batch, in this order."""
    return map_arrays(lambda x: x[to_library_of(x, np.asarray(rows))], state)
