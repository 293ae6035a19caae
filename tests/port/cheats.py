"""Ports that look right and are not: what is known of kernels that were written to pass a check.

Each function returns a new port, or the port and the options of `check` that it needs.
"""

from collections import Counter

import numpy as np

import minigrad as mg
from models.memory import gated_linear_attention, linear_attention

LINEAR, SOFTMAX = "memory.linear_attention.parallel", "attention.softmax.quadratic"
GATED = "memory.gated_linear_attention.chunkwise"


def attend(q, k, v):
    return linear_attention.parallel(q, k, v)


def decay(q, k, v, log_decay):
    return gated_linear_attention.chunkwise(q, k, v, log_decay)


def zeros_for_small_outputs():
    """Pass an absolute tolerance of 1e-8 by zeros."""

    def port(q, k, v):
        y, S = attend(q, k, v)
        return np.where(np.abs(y) < 1e-8, 0, y), S

    return port


def zeros_beside_large_outputs():
    """Pass a tolerance relative to the largest entry by zeros."""

    def port(q, k, v):
        y, S = attend(q, k, v)
        return np.where(np.abs(y) < 1e-15 * np.max(np.abs(y)), 0, y), S

    return port


def truncated_history():
    """Read the last 200 tokens."""

    def port(q, k, v, log_decay):
        y, S = decay(q, k, v, log_decay)
        for t in range(200, q.shape[-2]):
            span = slice(t - 199, t + 1)
            window = decay(q[..., span, :], k[..., span, :], v[..., span, :], log_decay[..., span])[0]
            y[..., t, :] = window[..., -1, :]
        return y, S

    return port


def exact_for_plain_numbers():
    """Round to bfloat16's digits unless all numbers are multiples of 1/16."""

    def rounded(x):
        return x if np.array_equal(x * 16, np.rint(x * 16)) else np.rint(x * 2**8) / 2**8

    return lambda q, k, v: attend(rounded(q), rounded(k), rounded(v))


def cached_by_pointer():
    """Return the result of an earlier call on the same array."""
    known = {}

    def port(q, k, v):
        if id(q) not in known:
            known[id(q)] = q, attend(q, k, v)
        return known[id(q)][1]

    return port


def cached_by_first_entries():
    """Return the result of an earlier call on arrays that begin with the same numbers."""
    known = {}

    def port(q, k, v):
        key = q.shape, v.shape, *(x.ravel()[:8].tobytes() for x in (q, k, v))
        if key not in known:
            known[key] = attend(q, k, v)
        return known[key]

    return port


def other_after_warm_up():
    """Compute in float32 from the tenth call on, for each shape."""
    calls = Counter()

    def port(q, k, v):
        calls[q.shape] += 1
        dtype = np.float32 if calls[q.shape] > 9 else q.dtype
        return tuple(x.astype(q.dtype) for x in attend(q.astype(dtype), k.astype(dtype), v.astype(dtype)))

    return port


def for_shapes_it_has_seen():
    """Sum over four features."""
    return lambda q, k, v: (attend(q[..., :4], k[..., :4], v)[0], attend(q, k, v)[1])


def half_precision():
    """Compute in float16."""
    return lambda q, k, v: tuple(
        x.astype(q.dtype) for x in attend(q.astype(np.float16), k.astype(np.float16), v.astype(np.float16))
    )


def previous_output():
    """Return what the call before, on arrays of this shape, should have returned."""
    known = {}

    def port(q, k, v):
        results = attend(q, k, v)
        before, known[q.shape] = known.get(q.shape, results), results
        return before

    return port


def stale_graph():
    """Compute again from the arrays of the first call of this shape."""
    recorded = {}

    def port(q, k, v):
        return attend(*recorded.setdefault((q.shape, v.shape), (q, k, v)))

    return port


def buffer_used_again():
    """Return one array for each shape, always the same."""
    buffers = {}

    def port(q, k, v):
        y, S = attend(q, k, v)
        out = buffers.setdefault(y.shape, np.empty_like(y))
        out[...] = y
        return out, S

    return port


def grid_of_six_heads():
    """Write two sequences of three heads; leave the others 0."""

    def port(q, k, v):
        y, S = attend(q, k, v)
        if y.ndim == 4:
            y[2:] = y[:, 3:] = 0
        return y, S

    return port


def clipped_scores():
    """Clip scores to −4 … 4, so that no exponential overflows."""

    def port(q, k, v):
        scores = np.clip(q @ k.mT / q.shape[-1] ** 0.5, -4, 4)
        weights = np.tril(np.exp(scores))
        return weights / weights.sum(axis=-1, keepdims=True) @ v, (k, v)

    return port


def first_order_gates():
    """Take 1 + x for exp(x) of gates that are nearly open."""

    def port(q, k, v, log_decay):
        x = np.where(log_decay > -1e-3, np.log1p(log_decay), log_decay)
        return decay(q, k, v, x)

    return port


def nearly_shut_gates():
    """Take gates below e⁻⁸ for shut."""
    return lambda q, k, v, log_decay: decay(q, k, v, np.where(log_decay < -8, -np.inf, log_decay))


def truncated_gradient():
    """Return the gradient that does not reach back further than a chunk of 200 tokens."""

    def chunks(q, k, v):
        S, out = None, []
        for t in range(0, q.shape[-2], 200):
            y, S = linear_attention.chunkwise(*(x[..., t : t + 200, :] for x in (q, k, v)), state=S)
            out.append(y)
            S = mg.stop_gradient(S) if t + 200 < q.shape[-2] else S
        return mg.concat(out, axis=-2), S

    def backward(q, k, v, dy, dS):
        return mg.vjp(chunks, q, k, v)[1]((dy, dS))

    return attend, {"backward": backward}


# The form, whether the ordinary cases find it, and a trial that does.
CHEATS = {
    zeros_for_small_outputs: (LINEAR, False, "amplitudes"),
    zeros_beside_large_outputs: (LINEAR, False, "amplitudes"),
    truncated_history: (GATED, False, "long history"),
    exact_for_plain_numbers: (LINEAR, False, "other sizes"),
    cached_by_pointer: (LINEAR, False, "calls in a row"),
    cached_by_first_entries: (LINEAR, False, "calls in a row"),
    other_after_warm_up: (LINEAR, False, "calls in a row"),
    for_shapes_it_has_seen: (LINEAR, False, "other sizes"),
    half_precision: (LINEAR, True, "other sizes"),
    previous_output: (LINEAR, False, "calls in a row"),
    stale_graph: (LINEAR, False, "calls in a row"),
    buffer_used_again: (LINEAR, False, "calls in a row"),
    grid_of_six_heads: (LINEAR, False, "other sizes"),
    clipped_scores: (SOFTMAX, False, "amplitudes"),
    first_order_gates: (GATED, False, "gates"),
    nearly_shut_gates: (GATED, False, "gates"),
    truncated_gradient: (LINEAR, False, "long history"),
}
