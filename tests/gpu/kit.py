"""What the tests of every kernel need: drawn schedules, and how far from float64 a result may be."""

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
    """The arrays of the call, which are finite and the same whichever schedule it runs under."""
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


def both_ways(kernel, inputs, cotangents):
    """The results of a kernel that a state goes through, and the cotangents of its inputs."""
    results, saved = kernel.forward(*inputs)
    return *results, *kernel.backward(saved, cotangents)


def close(results, form, inputs, cotangents, precision="float32"):
    """Fail unless the numbers are those of the form, which has the last input for a state, and its gradients.

    At a precision that rounds what is multiplied they may be off by a few units of a factor's last place.
    """
    *inputs, S = (x.astype("d") for x in inputs)
    outputs, vjp = mg.vjp(lambda *x: form(*x[:-1], state=x[-1]), *inputs, S)
    for actual, expected in zip(results, (*outputs, *vjp(tuple(g.astype("d") for g in cotangents))), strict=True):
        assert actual.dtype == cotangents[0].dtype
        allowed = bound(actual.dtype, expected)
        if precision != "float32":
            allowed = 4 * 2.0 ** (1 - BITS[precision]) * max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed)


def bound(dtype, expected, factor=64):
    """So many units in the last place of the largest number."""
    return factor * np.finfo(dtype).eps * max(1, np.abs(expected).max())
