"""The checker can fail: copies of the mechanisms, each with one thing wrong, and every one of them is caught.

A copy is the mechanism's own source with one piece of text replaced, put in the place of the form it came from in the
statements that hold for every mechanism. The copy with nothing replaced passes.
"""

import numpy as np
import pytest

import minigrad as mg
from minigrad import namespace
from models.memory import delta_rule, gated_linear_attention, linear_attention
from proofs.checker import check_statement
from proofs.checker.statements import identity, refuted
from proofs.checker.strategies import Betas, Keys, Queries, Values
from tests.copies import copy_of, has_code_of_original, verdicts

BROKEN = [
    # mechanism, form, text, what stands there instead, what is wrong
    ("linear_attention", "recurrent", "S = S + k_t.mT @ v_t", "S = S - k_t.mT @ v_t", "sign flipped"),
    ("linear_attention", "parallel", "xp.tril(q @ k.mT)", "xp.tril(q @ k.mT, k=-1)", "mask off by one: no present"),
    ("linear_attention", "parallel", "xp.tril(q @ k.mT)", "xp.tril(q @ k.mT, k=1)", "mask off by one: one future"),
    ("linear_attention", "parallel", "xp.tril(q @ k.mT)", "(q @ k.mT)", "mask missing"),
    ("linear_attention", "parallel", "return q @ S + ", "return ", "start state not read"),
    ("linear_attention", "parallel", ", S + k.mT @ v", ", k.mT @ v", "start state not kept"),
    ("linear_attention", "chunkwise", "v_c, state=state)", "v_c)", "memory lost between chunks"),
    (
        "gated_linear_attention",
        "recurrent",
        "xp.exp(g_t).mT * S + k_t.mT @ v_t",
        "xp.exp(g_t).mT * (S + k_t.mT @ v_t)",
        "written before fading",
    ),
    ("gated_linear_attention", "recurrent", "xp.exp(g_t).mT * S", "xp.exp(g_t) * xp.exp(g_t).mT * S", "faded twice"),
    ("gated_linear_attention", "parallel", "(q * decay_from_start) @ S", "q @ S", "start state not faded"),
    ("gated_linear_attention", "parallel", "(k * decay[..., -1, :, :]).mT", "k.mT", "keys not faded in the new state"),
    (
        "gated_linear_attention",
        "chunkwise",
        "chunks(chunk_size, q, k, v,",
        "chunks(chunk_size, q, q, v,",
        "query for key",
    ),
    ("delta_rule", "recurrent", "v_t - k_t @ S", "v_t + k_t @ S", "sign flipped"),
    (
        "delta_rule",
        "recurrent",
        "S = S + k_t.mT @ u_t\n        y.append(q_t @ S)",
        "y.append(q_t @ S)\n        S = S + k_t.mT @ u_t",
        "read before the write",
    ),
    ("delta_rule", "chunkwise", "B * (V - K @ S)", "B * V", "the memory's own answer not subtracted"),
    ("delta_rule", "chunkwise", "A = B * (K @ K.mT)", "A = K @ K.mT", "β missing in the system"),
    ("delta_rule", "chunkwise", "xp.tril(Q @ K.mT)", "xp.tril(Q @ K.mT, k=-1)", "mask off by one"),
    ("delta_rule", "chunkwise", "unit_lower_inverse(A) @ ", "", "corrections that do not see each other"),
    (
        "gated_delta_rule",
        "recurrent",
        "S = xp.exp(g_t).mT * S\n        u_t = beta_t * (v_t - k_t @ S)",
        "u_t = beta_t * (v_t - k_t @ S)\n        S = xp.exp(g_t).mT * S",
        "decay in the wrong order",
    ),
    ("gated_delta_rule", "recurrent", "xp.exp(g_t).mT", "xp.exp(g_t)[..., :1]", "the first channel's gate for all"),
    ("gated_delta_rule", "chunkwise", "V - (gamma * K) @ S", "V - K @ S", "decay missing in the correction"),
    ("gated_delta_rule", "chunkwise", "(gamma * K) @ S", "gamma[..., :1] * (K @ S)", "one gate in the correction"),
    ("gated_delta_rule", "chunkwise", "(gamma * Q) @ S", "Q @ S", "decay missing in what is read"),
    ("gated_delta_rule", "chunkwise", "gamma[..., -1:, :].mT * S", "gamma[..., :1, :].mT * S", "index of the decay"),
    ("gated_delta_rule", "chunkwise", "K, K, Gamma)", "K, K, Gamma[..., :1])", "one gate in the system"),
    ("gated_delta_rule", "chunkwise", "Q, K, Gamma)", "K, Q, Gamma)", "queries for keys"),
    ("gated_delta_rule", "chunkwise", "K * Gamma[..., -1, :, :]", "K", "keys not decayed in the new state"),
]


@pytest.mark.parametrize(("mechanism", "form", "text", "instead", "wrong"), BROKEN, ids=lambda x: x.replace("\n", " "))
def test_a_broken_copy_is_caught(mechanism, form, text, instead, wrong):
    assert "failed" in verdicts(mechanism, form, copy_of(f"memory.{mechanism}", text, instead)), wrong


@pytest.mark.parametrize(("mechanism", "form"), sorted({broken[:2] for broken in BROKEN}))
def test_a_faithful_copy_passes(mechanism, form):
    """Check the copy by two statements in float64; proofs/test_proofs.py checks the original by all in every system.

    Examples are the same on every run, so what has the bytecode of the original passes where the original passes.
    """
    copy = copy_of(f"memory.{mechanism}")
    assert has_code_of_original(copy, f"memory.{mechanism}")
    assert verdicts(mechanism, form, copy, ("float64",), most=2) == ["passed", "passed"]


# Gradients: the values are right, so only the systems that differentiate can tell.

KERNELS = {
    "faithful": lambda q, k, v, g: (g @ (k.mT @ v).mT, v @ (q.mT @ g).mT, k @ (q.mT @ g)),
    "one input's gradient dropped": lambda q, k, v, g: (g @ (k.mT @ v).mT, 0 * k, k @ (q.mT @ g)),
    "one input's sign flipped": lambda q, k, v, g: (g @ (k.mT @ v).mT, v @ (q.mT @ g).mT, -k @ (q.mT @ g)),
}


def swapped(x):
    return namespace(x).matrix_transpose(x)


@pytest.mark.parametrize("kind", KERNELS)
def test_a_wrong_gradient_of_a_right_value_is_caught(kind):
    def forward(q, k, v):
        return q @ (swapped(k) @ v), (q, k, v)

    def backward(saved, g):
        q, k, v = (Transposable(x) for x in saved)
        return tuple(x.array for x in KERNELS[kind](q, k, v, Transposable(g)))

    kernel = mg.fused(forward, backward, lambda q, k, v: q @ (k.mT @ v))

    @identity("A kernel with a backward pass of its own", source="minigrad, this test", exact=True, register=False)
    def claim(q: Queries, k: Keys, v: Values):
        return kernel(q, k, v), q @ (k.mT @ v)

    result = check_statement(claim.statements[0])
    assert result.verdict == ("holds" if kind == "faithful" else "failed")
    if kind != "faithful":
        failed = [name for name, system in result.systems.items() if system.status == "failed"]
        assert "gradient" in failed[0] and result.systems["float64"].status == "passed"


class Transposable:
    """A raw array with operators and `mT`, whatever its library calls it."""

    def __init__(self, array):
        self.array = array

    mT = property(lambda self: Transposable(swapped(self.array)))

    def __matmul__(self, other):
        return Transposable(self.array @ other.array)

    def __rmul__(self, number):
        return Transposable(number * self.array)

    def __neg__(self):
        return Transposable(-self.array)


@mg.primitive(x=lambda g, y: g * mg.conj(y), y=lambda g, x: g * mg.conj(x))
def product(_, x, y):
    return x * y


@mg.primitive(x=lambda g, y: g * y, y=lambda g, x: g * x)
def product_without_conjugates(_, x, y):
    return x * y


@pytest.mark.parametrize(("multiply", "verdict"), [(product, "holds"), (product_without_conjugates, "failed")])
def test_a_missing_conjugate_is_caught(multiply, verdict):
    """The values of a complex product do not show it, and real numbers would not either."""

    @identity("Re(xy)² of complex numbers made from real ones", source="minigrad, this test", register=False)
    def claim(k: Keys):
        z = k + 1j * (k * k)
        return mg.real(multiply(z, z)) ** 2, mg.real(z * z) ** 2

    result = check_statement(claim.statements[0])
    assert result.verdict == verdict
    assert verdict == "holds" or result.systems["float64"].status == "passed"


def test_float32_inside_is_caught():
    """A cast to single precision in the middle is outside the bound of double precision."""

    @identity("Linear attention, with a cast", source="minigrad, this test", register=False)
    def claim(q: Queries, k: Keys, v: Values):
        cast = q.astype(np.float32).astype(np.float64) if q.dtype == np.float64 else q
        return linear_attention.parallel(cast, k, v), linear_attention.recurrent(q, k, v)

    assert check_statement(claim.statements[0]).systems["float64"].status == "failed"


@pytest.mark.parametrize("left", [lambda k: k[..., None, :], lambda k: k @ 0], ids=["shapes", "an exception"])
def test_an_error_is_no_counterexample(left):
    @refuted("Keys are other keys", source="minigrad, this test", exact=True, register=False)
    def claim(k: Keys):
        return left(k), k

    result = check_statement(claim.statements[0]).systems["fractions"]
    assert result.status == "failed" and result.failure.startswith("no counterexample: ")


def test_what_holds_cannot_be_refuted():
    """A refutation that finds no counterexample fails."""

    @refuted("Attention without softmax is no RNN", source="minigrad, this test", exact=True, register=False)
    def claim(q: Queries, k: Keys, v: Values):
        return linear_attention.parallel(q, k, v), linear_attention.recurrent(q, k, v)

    result = check_statement(claim.statements[0])
    assert result.verdict == "failed" and "no counterexample" in result.systems["fractions"].failure


def test_a_misshapen_result_is_a_failure():
    @identity("Shapes that differ", source="minigrad, this test", exact=True, register=False)
    def claim(q: Queries, k: Keys, v: Values, beta: Betas):
        return delta_rule.recurrent(q, k, v, beta)[0], delta_rule.recurrent(q, k, v, beta)[0][..., None, :]

    assert check_statement(claim.statements[0]).verdict == "failed"


def test_a_quotient_of_underflows_is_caught():
    """Decays as exp(a)/exp(b) are the same over fractions, but not after a gate of 0: a NaN is a failure."""

    @identity("Decays by division", source="minigrad, this test", register=False)
    def claim(q: Queries, k: Keys, v: Values):
        gates = mg.namespace(q).cumulative_sum(0 * q[..., 0] - 500, axis=-1)
        since = mg.exp(gates)[..., :, None] / mg.exp(gates)[..., None, :]
        y = mg.tril((q @ k.mT) * since) @ v
        return y, gated_linear_attention.recurrent(q, k, v, 0 * q[..., 0] - 500)[0]

    assert check_statement(claim.statements[0]).verdict == "failed"
