"""Kernels on arrays of bfloat16, beside gates and states of float32, against the recurrence on the same numbers."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gpu.kernels.delta_rule
import gpu.kernels.gated_delta_rule
import gpu.kernels.gated_linear_attention
import gpu.kernels.linear_attention
import minigrad as mg
from gpu import check
from gpu.cases import CASES
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention, linear_attention
from tests.gpu.kit import SCHEDULES, forward_backward, same_bits_under_every_schedule

KERNELS = {
    "linear_attention": (gpu.kernels.linear_attention, linear_attention.recurrent, ()),
    "gated_linear_attention": (gpu.kernels.gated_linear_attention, gated_linear_attention.recurrent, ("log_decays",)),
    "delta_rule": (gpu.kernels.delta_rule, delta_rule.recurrent, ("beta",)),
    "gated_delta_rule": (gpu.kernels.gated_delta_rule, gated_delta_rule.recurrent, ("beta", "log_decay")),
}
UNIT = 2.0**-7  # of a factor's last place, of which so many may be lost:
UNITS = 4


def draw(gates, batch, T, K, V, seed):
    """Return the inputs, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    q, k, v, dy, S, dS = (
        rng.standard_normal((batch, *shape)) for shape in ((T, K), (T, K), (T, V), (T, V), (K, V), (K, V))
    )
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    gates_by_name = {
        "beta": rng.uniform(0, 1, (batch, T)),
        "log_decay": -rng.exponential(0.2, (batch, T)),
        "log_decays": -rng.exponential(0.2, (batch, T, K)),
    }
    q, k, v, dy = (x.astype(ml_dtypes.bfloat16) for x in (q, k, v, dy))
    S, dS, *gates = (x.astype(np.float32) for x in (S, dS, *(gates_by_name[gate] for gate in gates)))
    return (q, k, v, *gates, S), (dy, dS)


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=4, deadline=None)
@given(
    batch=st.integers(1, 2),
    T=st.integers(1, 70),
    K=st.integers(1, 40),
    V=st.integers(1, 40),
    seed=st.integers(0, 99),
    schedules=SCHEDULES,
)
@example(batch=2, T=70, K=40, V=33, seed=0, schedules=[0, 1])
def test_is_the_recurrence_and_its_adjoint(name, batch, T, K, V, seed, schedules):
    kernel, form, gates = KERNELS[name]
    inputs, cotangents = draw(gates, batch, T, K, V, seed)
    results = same_bits_under_every_schedule(schedules, lambda: forward_backward(kernel, inputs, cotangents))
    *sequences, S = (x.astype("d") for x in inputs)
    outputs, vjp = mg.vjp(lambda *x: form(*x[:-1], state=x[-1]), *sequences, S)
    expected = *outputs, *vjp(tuple(g.astype("d") for g in cotangents))
    types = [x.dtype for x in (inputs[2], inputs[-1], *inputs)]  # of y, the state, and the cotangents of the inputs
    for actual, exact, dtype in zip(results, expected, types, strict=True):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual.astype("d"), exact, rtol=0, atol=UNITS * UNIT * max(1, np.abs(exact).max()))


@pytest.mark.parametrize("name", KERNELS)
def test_wrong_dtypes_are_named(name):
    kernel, _, gates = KERNELS[name]
    (q, *others, S), _ = draw(gates, 1, 3, 2, 2, 0)
    message = f"^{name}: S is numpy bfloat16, expected numpy float32 as q is bfloat16$"
    with pytest.raises(TypeError, match=message):
        kernel.forward(q, *others, S.astype(q.dtype))
    with pytest.raises(TypeError, match=f"^{name}: k is numpy bfloat16, expected numpy float32 as q is$"):
        kernel.forward(q.astype("f"), *others, S)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.dtype == "bfloat16"])
def test_bfloat16_cases_are_within_the_margin_of_check(name):
    case = CASES[name]
    narrow, wide = (case.run(*case.draw(dtype, small=True)) for dtype in ("bfloat16", "float64"))
    assert ml_dtypes.bfloat16 in [x.dtype for x in narrow]
    for a, b in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(a.astype("d"), b, rtol=0, atol=check.margin(case, "bfloat16") * max(1, abs(b).max()))
