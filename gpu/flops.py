"""Count FLOPs of the kernels, forward and backward, as the headers of their sources state them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

Count = Callable[..., tuple[float, float]]  # a kernel's inputs → (FLOPs forward, FLOPs backward)

EXPONENTIAL, DIVISION = 16, 8  # FLOPs that a multiprocessor does in the time of one


def scan(a: Any, *others: Any) -> tuple[float, float]:
    """Count 3 fused multiply-adds per element forward, and 4 backward."""
    return 6 * a.size, 8 * a.size


def selective_scan(u: Any, delta: Any, A: Any, *others: Any) -> tuple[float, float]:
    """Count per token, channel and state an exponential and 6 FLOPs forward, two exponentials and 22 FLOPs backward."""
    steps = u.size * A.shape[-1]
    return steps * _overlapped(1, 6), steps * _overlapped(2, 22)


def linear_attention(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Count the read and update of the state and the scores within a chunk; backward is three times the same."""
    tokens, K, V = _tokens(q, v)
    forward = tokens * (4 * K * V + 64 * (K + V))
    return forward, 3 * forward


def linear_attention_tensor_cores(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Count one pass for boundary states and one for outputs; backward, one and three."""
    tokens, K, V = _tokens(q, v)
    states, outputs = 2 * K * V, 2 * K * V + 96 * (K + V)
    return tokens * (states + outputs), tokens * (states + 3 * outputs)


def gated_linear_attention(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Count the read and update of a state with a decay for each key channel."""
    tokens, K, V = _tokens(q, v)
    return tokens * 5 * K * V, tokens * (13 * K * V + 150 * K)


def delta_rule(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Count the delta rule, which costs the same with and without decays."""
    tokens, K, V = _tokens(q, v)
    forward = 10 * K * V + 64 * V
    return tokens * forward, tokens * (forward + 14 * K * V + 260 * K)


def titans(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Count the updates of S and M, the read of M, and the errors, for a matrix memory."""
    tokens, K, V = _tokens(q, v)
    return tokens * 9 * K * V, tokens * (21 * K * V + 230 * K)


def titans_layers(
    q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, W: Any, W_out: Any, *others: Any
) -> tuple[float, float]:
    """Count two layers in batches of 16: z, the updates of S and M, their read, and the pairs of tokens."""
    return _layers(q, (W, W_out), 16, 12, 40)


def ttt(q: Any, k: Any, v: Any, eta: Any, tau: Any, W: Any, *others: Any) -> tuple[float, float]:
    """Count one layer in mini-batches of 8: z, the update of W, its read, and the pairs of tokens."""
    return _layers(q, (W,), 8, 6, 20)


def softmax(q: Any, k: Any, v: Any, *others: Any) -> tuple[float, float]:
    """Count causal attention: half of all pairs of a query and a key."""
    tokens, K, V = _tokens(q, v)
    pairs = tokens * q.shape[-2] / 2
    return pairs * _overlapped(1, 2 * (K + V)), pairs * _overlapped(2, 2 * (3 * K + 2 * V))


def cauchy(w: Any, z: Any, *others: Any) -> tuple[float, float]:
    """Count per node and pole a division and 16 FLOPs forward, two divisions and 48 FLOPs backward."""
    pairs = w.shape[-1] * z.size
    return pairs * (16 + DIVISION), pairs * 2 * (24 + DIVISION)


def vandermonde(w: Any, A: Any, gK: Any) -> tuple[float, float]:
    """Count per element of K and state a complex multiply-add forward, and two backward."""
    pairs = w.shape[-1] * gK.size
    return pairs * 8, pairs * 16


def _overlapped(exponentials: int, flops: int) -> int:
    """Return the larger of FLOPs and those in the time of the exponentials, for which there is a unit of its own."""
    return max(EXPONENTIAL * exponentials, flops)


def _tokens(q: Any, v: Any) -> tuple[int, int, int]:
    """Return the number of tokens of all sequences, K and V."""
    return math.prod(q.shape[:-1]), q.shape[-1], v.shape[-1]


def _layers(q: Any, layers: Sequence[Any], size: int, forward: int, backward: int) -> tuple[float, float]:
    """Count so many FLOPs per token and weight of the layers, and those of the pairs of tokens in a batch."""
    weights = sum(math.prod(x.shape[-2:]) for x in layers)
    pairs = size * sum(sum(x.shape[-2:]) for x in layers)
    tokens = math.prod(q.shape[:-1])
    return tokens * (forward * weights + 2 * pairs), tokens * (backward * weights + 6 * pairs)
