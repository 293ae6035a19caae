"""Count FLOPs of the kernels, forward and backward, as the headers of their sources state them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

Count = Callable[..., tuple[float, float]]  # a kernel's inputs → (FLOPs forward, FLOPs backward)

EXPONENTIAL, DIVISION = 16, 8  # operations that a multiprocessor does while it makes one


def scan(a: Any, *others: Any) -> tuple[float, float]:
    """A step: 3 fused multiply-adds, and 4."""
    return 6 * a.size, 8 * a.size


def selective_scan(u: Any, delta: Any, A: Any, *others: Any) -> tuple[float, float]:
    """A token, channel and state: an exponential beside 6, and two beside 22."""
    steps = u.size * A.shape[-1]
    return steps * _beside(1, 6), steps * _beside(2, 22)


def linear_attention(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """A token: read, write and scores; back it is three of the same."""
    tokens, K, V = _tokens(q, v)
    once = tokens * (4 * K * V + 64 * (K + V))
    return once, 3 * once


def linear_attention_tensor_cores(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """A token: a state and a result; back it is a state and three results."""
    tokens, K, V = _tokens(q, v)
    state, result = 2 * K * V, 2 * K * V + 96 * (K + V)
    return tokens * (state + result), tokens * (state + 3 * result)


def gated_linear_attention(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """A token: read and write, with a decay for each channel."""
    tokens, K, V = _tokens(q, v)
    return tokens * 5 * K * V, tokens * (13 * K * V + 150 * K)


def delta_rule(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Gates or not."""
    tokens, K, V = _tokens(q, v)
    once = 10 * K * V + 64 * V
    return tokens * once, tokens * (once + 14 * K * V + 260 * K)


def titans(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """A token: what S, M and their read take, and the errors."""
    tokens, K, V = _tokens(q, v)
    return tokens * 9 * K * V, tokens * (21 * K * V + 230 * K)


def titans_layers(
    q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, W: Any, after: Any, *others: Any
) -> tuple[float, float]:
    """A token: what z, S, M and their read take in two layers, and the pairs of a batch of 16."""
    return _layers(q, (W, after), 16, 12, 40)


def ttt(q: Any, k: Any, v: Any, eta: Any, tau: Any, W: Any, *others: Any) -> tuple[float, float]:
    """A token: what z, W and its read take in one layer, and the pairs of a batch of 8."""
    return _layers(q, (W,), 8, 6, 20)


def softmax(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Causal: half of all pairs."""
    tokens, K, V = _tokens(q, v)
    pairs = tokens * q.shape[-2] / 2
    return pairs * _beside(1, 2 * (K + V)), pairs * _beside(2, 2 * (3 * K + 2 * V))


def cauchy(w: Any, z: Any, *others: Any) -> tuple[float, float]:
    """A node and pole: a division and 16, and twice a division and 24."""
    pairs = w.shape[-1] * z.size
    return pairs * (16 + DIVISION), pairs * 2 * (24 + DIVISION)


def vandermonde(w: Any, A: Any, gK: Any) -> tuple[float, float]:
    """A number of K and n: a product of complex numbers and a sum, and two."""
    pairs = w.shape[-1] * gK.size
    return pairs * 8, pairs * 16


def _beside(exponentials: int, operations: int) -> int:
    """A multiprocessor has a unit for exponentials, which works while the others do: what takes longer counts."""
    return max(EXPONENTIAL * exponentials, operations)


def _tokens(q: Any, v: Any) -> tuple[int, int, int]:
    """How many tokens there are in all sequences, and the features of keys and values."""
    return math.prod(q.shape[:-1]), q.shape[-1], v.shape[-1]


def _layers(q: Any, layers: Sequence[Any], size: int, there: int, back: int) -> tuple[float, float]:
    """So many operations a number of the layers, and what the tokens of a batch do with each other."""
    numbers = sum(math.prod(x.shape[-2:]) for x in layers)
    pairs = size * sum(sum(x.shape[-2:]) for x in layers)
    tokens = math.prod(q.shape[:-1])
    return tokens * (there * numbers + 2 * pairs), tokens * (back * numbers + 6 * pairs)
