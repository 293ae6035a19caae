"""Faults past a tile, a slab, a segment or a part for threads: the statements of `boundaries` see each of them.

Most faults spare the small sizes that the statements about every form draw.
"""

import functools

import numpy as np
import pytest

from minigrad.compiled import causal_conv1d, fused_elementwise, scan
from minigrad.compiled import threads as engine_threads
from minigrad.compiled.layout import vector
from minigrad.primitives import normalisers, products
from models.kernels import (
    cauchy_pairs,
    causal_convolution,
    gated_linear_attention,
    linear_attention_core,
    lstm,
    rnn,
    rwkv7,
    selective_scan,
    softmax,
    titans,
    ttt,
    vandermonde,
)
from tests.copies import statement_fails

KERNELS, CHUNKS = "boundaries.kernels", "boundaries.chunks"


def changed(function):
    """Make the replacement of a function of what wraps it: `function(original, *arguments)`."""
    return lambda original: functools.partial(function, original)


def without_start(original, self, b, queries, keys, count):
    limit, mask = original(self, b, queries, keys, count)
    return limit + keys.start, mask


def method(function):
    return lambda original: lambda self, *arguments: function(original, self, *arguments)


def last_left_out(original, work, items, **options):
    """Leave the last of at least five units of work undone."""
    return original(work, items - (items > 4), **options)


def last_slab_left_out(original, work, v):
    slabs = v.shape[2] // vector(v, 2)
    return engine_threads.share(work, v.shape[0] * slabs - (slabs > 1))


def shorter_steps(module):
    """Read half the steps between boundary states on the way back."""

    def backward(original, *arguments):
        before, module.STEPS = module.STEPS, 16
        try:
            return original(*arguments)
        finally:
            module.STEPS = before

    return changed(backward)


def first_state(original, saved, *cotangents):
    states = saved.boundary_states
    return original(saved._replace(boundary_states=states[:1] * len(states)), *cotangents)


def first_weights(original, saved, *cotangents):
    starts = saved.residuals.W_starts
    starts[:, 1:] = starts[:, :1]
    return original(saved, *cotangents)


def panels_of_rows(original, W):
    return np.ascontiguousarray(W.reshape(-1, len(W), vector(W, 2)))


def offset_of_the_second(size):
    """Write into the columns from `size` on what belongs into the first ones."""

    def function(original, *arguments, **options):
        result = original(*arguments, **options)
        y = result[0] if isinstance(result, tuple) else result
        rest = y.shape[-1] - size
        if rest > 0:
            y[..., size:] = y[..., :rest]
        return result

    return changed(function)


def parts_of_the_first(original, blocks, states, first, last):
    for i, (rows, coarse, fine) in enumerate(original(blocks, states, first, last)):
        yield (slice(rows.start - 1, rows.stop - 1) if i else rows), coarse, fine


def previous_matrix(original, x, where):
    y = original(x, where)
    y[1:] = y[:1]
    return y


def fewer_tiles(original, x, y):
    z = original(x, y)
    if x.shape[0] * x.shape[1] * y.shape[-1] >= engine_threads.WORTH_SHARING:
        z[128:] = 0
    return z


FAULTS = [
    # an object, its attribute, the replacement, the statement that fails, what is wrong
    (softmax.Visibility, "tile", method(without_start), f"{KERNELS}[softmax.fused.float64]", "the second tile"),
    (linear_attention_core, "share_columns", changed(last_slab_left_out), f"{KERNELS}[linear_attention.fused.float64]",
     "the last slab left out"),
    (gated_linear_attention, "backward", shorter_steps(gated_linear_attention),
     f"{KERNELS}[gated_linear_attention.fused.log_decay T K.float64]", "16 steps between states on the way back"),
    (rwkv7, "backward", shorter_steps(rwkv7), f"{KERNELS}[rwkv7.fused.float64]", "16 steps on the way back"),
    (titans, "backward", changed(first_state), f"{KERNELS}[titans.fused.matrix.float64]", "the first segment's state"),
    (ttt, "backward", changed(first_weights), f"{KERNELS}[ttt.fused.linear.float64]", "the first weights"),
    (lstm, "panels", changed(panels_of_rows), f"{KERNELS}[lstm.fused.float64]", "panels cut across rows"),
    (rnn, "panels", changed(panels_of_rows), f"{KERNELS}[rnn.fused.float64]", "panels cut across rows"),
    (selective_scan, "share", changed(last_left_out), f"{KERNELS}[selective_scan.fused.float64]", "the last slab"),
    (cauchy_pairs, "forward", offset_of_the_second(16), f"{KERNELS}[s4.fused.float64]", "the second vector's offset"),
    (vandermonde, "_parts", changed(parts_of_the_first), f"{KERNELS}[s4d.fused.float64]", "the second buffer"),
    (causal_convolution, "share", changed(lambda original, work, items: original(work, max(1, items - 1))),
     f"{CHUNKS}[lti.convolution.A N]", "the last vector of channels left out"),
    (scan, "scan", offset_of_the_second(1024), "boundaries.scan[float64.backwards]", "the second slab's offset"),
    (causal_conv1d, "forward", offset_of_the_second(64), "boundaries.short_convolution[float64]", "the next slab"),
    (fused_elementwise, "share", changed(last_left_out), "boundaries.large_arrays[gelu.float64]", "the last vector"),
    (fused_elementwise, "share", changed(last_left_out), "boundaries.large_arrays[swiglu.float32]", "the last row"),
    (normalisers, "_matrix_by_matrix", changed(previous_matrix), "boundaries.large_matrices[softmax.float64]",
     "the first matrix for all"),
    (normalisers, "_matrix_by_matrix", changed(lambda original, x, where: original(x[..., ::-1], where)),
     "boundaries.large_matrices[softmax.float32]", "columns in the reverse order"),
    (products, "product", changed(lambda original, x, y: original(x, y) / x.ndim * 2),
     "boundaries.large_matrices[matmul.float64]", "products of a batch that are too small"),
    (products, "product", changed(fewer_tiles), "boundaries.shared_product[float64]", "the last tiles left out"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "name", "fault", "statement", "wrong"), FAULTS, ids=[row[3] for row in FAULTS])
def test_a_fault_past_a_boundary_is_caught(place, name, fault, statement, wrong, monkeypatch):
    monkeypatch.setattr(place, name, fault(getattr(place, name)))
    assert statement_fails(statement), wrong
