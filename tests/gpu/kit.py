"""Shared by the tests of the kernels: drawn schedules, forward and backward, and error bounds."""

import re

import numpy as np
import pytest
from hypothesis import strategies as st

import minigrad as mg
from gpu import emulator, launch
from gpu.precision import BITS


def header_of(source):
    """Return the comment at the top of a CUDA source, as one line."""
    code = (launch.KERNELS / f"{source}.cu").read_text(encoding="utf-8")
    return re.sub(r"\s*\n//\s*", " ", code.partition("#include")[0])


SCHEDULES = st.lists(st.integers(0, 2**32), min_size=2, max_size=2, unique=True)


def same_bits_under_every_schedule(seeds, call):
    """Return the arrays of the call; fail unless they are finite and the same under each schedule."""
    first = None
    for seed in seeds:
        with emulator.schedule(seed):
            results = call()
        first = first or results
        for a, b in zip(first, results, strict=True):
            assert np.isfinite(a).all()  # nothing is left that no thread has written
            assert a.tobytes() == b.tobytes(), f"schedule {seed} gives other bits than {seeds[0]}"
    return first


PRECISIONS = pytest.mark.parametrize("precision", ["tensorfloat32", "bfloat16"])


def forward_backward(kernel, inputs, cotangents, **options):
    """Return the outputs of a kernel and the cotangents of its inputs."""
    results, saved = kernel.forward(*inputs, **options)
    return *results, *kernel.backward(saved, cotangents)


def with_state(form):
    """Return a form as a function of arrays, the last of which is the state."""
    return lambda *inputs: form(*inputs[:-1], state=inputs[-1])


def assert_close(results, form, inputs, cotangents, precision="float32", conditioning=0):
    """Fail unless the results are the outputs of a function of the inputs, and its gradients, in float64.

    At a precision that rounds operands the error may be a few units in an operand's last place. A function that
    amplifies rounding errors may besides be off by `conditioning` times what one rounding of every input changes.
    """

    def compute(inputs):
        outputs, vjp = mg.vjp(form, *inputs)
        return *outputs, *vjp(tuple(g.astype("d") for g in cotangents))

    inputs, rng = [x.astype("d") for x in inputs], np.random.default_rng(0)
    eps = np.finfo(cotangents[0].dtype).eps
    moved = [
        compute([x * (1 + eps * rng.choice([-1, 1], x.shape)) for x in inputs]) for _ in range(2 * bool(conditioning))
    ]
    for i, (actual, expected) in enumerate(zip(results, compute(inputs), strict=True)):
        assert actual.dtype == cotangents[0].dtype
        allowed = bound(actual.dtype, expected)
        allowed += conditioning * max((np.abs(results[i] - expected).max() for results in moved), default=0)
        if precision != "float32":
            allowed = 4 * 2.0 ** (1 - BITS[precision]) * max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed)


def bound(dtype, expected, factor=64):
    """Return `factor` units in the last place of the largest number, or of 1."""
    return factor * np.finfo(dtype).eps * max(1, np.abs(expected).max())
