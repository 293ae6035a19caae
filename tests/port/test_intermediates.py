"""Intermediates of a chunk: the equations agree with the forms, and a wrong line of a port is the one that is named."""

import numpy as np
import pytest

from models.errors import UserError
from proofs.port import check
from proofs.port.cases import CASES, Example
from proofs.port.checking import Checker, find_form
from proofs.port.frameworks import Framework
from proofs.port.intermediates import FORMS, LINES, SSD_LINES, TWO_CHUNKS, chunk_equations, reference
from proofs.port.running import Port
from proofs.port.signature import declare

GDR = "memory.gated_delta_rule.chunkwise"
GATED = ("memory.gated_linear_attention", "memory.gated_delta_rule")


def checker(mechanism, variant):
    form = find_form(f"{mechanism}.chunkwise", variant)
    signature = declare(form, form.function, arguments=[*form.axes, "state=state", "chunk_size=chunk_size"])
    return Checker(Port(form.function, signature, Framework()), Example(form, (2, 3), 4))


@pytest.mark.parametrize("case", [TWO_CHUNKS, CASES["T not a multiple"]], ids=["two chunks", "a rest"])
@pytest.mark.parametrize(
    ("mechanism", "variant"),
    [
        *((name, None) for name in FORMS if name not in GATED),
        *((name, f"log_decay {axes}") for name in GATED for axes in ("T", "T K")),
    ],
)
def test_the_equations_give_what_the_form_gives(mechanism, variant, case):
    chosen = checker(mechanism, variant)
    inputs = chosen.inputs(case)
    chunks = reference(chosen, inputs)
    y, S = chosen.reference.results(inputs.arrays, inputs.state, inputs.chunk)
    np.testing.assert_allclose(np.concatenate([one["O"] for one in chunks], axis=-2), y, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(chunks[-1]["S"], S, rtol=1e-12, atol=1e-13)
    assert set(FORMS[mechanism]) <= set(chunks[0])


def test_the_equations_are_those_of_the_recurrence():
    """Every line of the gated delta rule, token by token: the update vectors, and what W and U are made of."""
    rng = np.random.default_rng(0)
    Q, K, V, S = (rng.normal(size=shape) for shape in ((5, 3), (5, 3), (5, 2), (3, 2)))
    beta, g = rng.uniform(size=5), -rng.uniform(size=(5, 3))
    found, state = chunk_equations(Q, K, V, S, beta, g), S
    for t in range(5):
        state = np.exp(g[t])[:, None] * state
        u = beta[t] * (V[t] - K[t] @ state)
        state = state + np.outer(K[t], u)
        np.testing.assert_allclose(found["U"][t], u)
        np.testing.assert_allclose(found["gamma"][t], np.exp(g[: t + 1].sum(axis=0)))
        for s in range(t + 1):
            decayed = K[s] * np.exp(g[s + 1 : t + 1].sum(axis=0))
            np.testing.assert_allclose(found["Gamma"][t, s] * K[s], decayed)
            np.testing.assert_allclose(found["P"][t, s], Q[t] @ decayed)
            np.testing.assert_allclose(found["A"][t, s], beta[t] * (K[t] @ decayed) if s < t else 0)
    I_A = np.eye(5) + found["A"]
    np.testing.assert_allclose(I_A @ found["inverse"], np.eye(5), atol=1e-13)
    np.testing.assert_allclose(I_A @ found["W"], beta[:, None] * found["gamma"] * K)
    np.testing.assert_allclose(found["S"], state)


def test_the_products_of_ssd_are_those_of_its_listing():
    inputs = checker("ssm.ssd", None).inputs(TWO_CHUNKS)
    chunks = reference(checker("ssm.ssd", None), inputs)
    for one in chunks:
        np.testing.assert_allclose(one["Y_diag"] + one["Y_off"], one["O"])
        np.testing.assert_allclose(np.exp(one["A_cumsum"]), one["gamma"][..., 0])
        np.testing.assert_allclose(np.exp(one["A_cumsum"][..., -1, None] - one["A_cumsum"]), one["L"][..., -1, :])
    before = inputs.state
    for one in chunks:
        decay = np.exp(one["A_cumsum"][..., -1, None, None])
        np.testing.assert_allclose(decay * before + one["states"], one["S"])
        before = one["S"]


PORT = """
def port(q, k, v, beta, log_decay, state=None, chunk_size=64):
    S = np.zeros((*q.shape[:-2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    out, found = [], {name: [] for name in ("gamma", "Gamma", "A", "inverse", "W", "U", "P", "O", "S")}
    for t in range(0, q.shape[-2], chunk_size):
        Q, K, V = (x[..., t : t + chunk_size, :] for x in (q, k, v))
        b, g = (x[..., t : t + chunk_size, None] for x in (beta, log_decay))
        g = np.cumsum(g, axis=-2)
        gamma = np.exp(g)
        Gamma = np.tril(np.exp(np.minimum(g - g.mT, 0)))
        A = np.tril(b * (K @ K.mT) * Gamma, -1)
        inverse = np.linalg.inv(np.eye(A.shape[-1], dtype=A.dtype) + A)
        W = inverse @ (b * gamma * K)
        U = inverse @ (b * V) - W @ S
        P = np.tril(Q @ K.mT * Gamma)
        O = gamma * Q @ S + P @ U
        out.append(O)
        S = gamma[..., -1:, :] * S + (K * Gamma[..., -1, :, None]).mT @ U
        for name, x in zip(found, (gamma, Gamma, A, inverse, W, U, P, O, S)):
            found[name].append(x)
    return np.concatenate(out, axis=-2), S, found
"""
WRONG = {
    "gamma": ("gamma = np.exp(g)", "gamma = np.exp(g - g[..., :1, :])"),
    "Gamma": ("np.minimum(g - g.mT, 0)", "0 * g.mT + g"),
    "A": ("b * (K @ K.mT) * Gamma", "(K @ K.mT) * Gamma"),
    "inverse": ("dtype=A.dtype) + A", "dtype=A.dtype) - A"),
    "W": ("b * gamma * K", "b * K"),
    "U": ("(b * V) - W @ S", "V - W @ S"),
    "P": ("np.tril(Q @ K.mT * Gamma)", "np.tril(Q @ K.mT)"),
    "O": ("gamma * Q @ S", "Q @ S"),
    "S": ("S = gamma[..., -1:, :] * S", "S = S"),
}


def run(text=PORT, intermediates=None, **options):
    scope = {"np": np}
    exec(text, scope)
    return check(
        scope["port"],
        GDR,
        intermediates=scope[intermediates] if intermediates else None,
        **{"cases": ["T > chunk"], "precisions": ["float64"], **options},
    )


def test_right_intermediates_are_said_to_be_right():
    report = run()
    assert report.right
    assert f"intermediates of two chunks are right: {', '.join(LINES)}" in str(report)


@pytest.mark.parametrize("name", WRONG)
def test_the_first_wrong_line_is_named(name):
    assert WRONG[name][0] in PORT
    report = run(PORT.replace(*WRONG[name]))
    assert not report.right
    assert str(report.intermediates.divergence).startswith(f"{name} of chunk 0 at batch 0, head ")
    assert f"  its line: {LINES[name][0]}" in str(report)


def test_a_sign_is_named():
    report = run(PORT.replace("gamma, Gamma, A, inv", "gamma, Gamma, -A, inv"))
    assert report.right  # only the name means something else
    assert "first intermediate that differs: A of chunk 0: has the other sign" in str(report)


TAIL = "    return np.concatenate(out, axis=-2), S, found"


@pytest.mark.parametrize(
    "found",
    [
        "{'γ': found['gamma'], 'U': found['U'][0]}",
        "{'gamma': np.stack(found['gamma']), 'U': np.stack(found['U'])}",
        "{'gamma': np.stack(found['gamma'], axis=-3)[..., 0], 'U': np.stack(found['U'], axis=-3)}",
    ],
    ids=["the first chunk", "chunks first", "chunks after the batch"],
)
@pytest.mark.parametrize("right", [True, False])
def test_arrays_of_chunks_may_be_stacked(found, right):
    assert TAIL in PORT
    text = PORT.replace(TAIL, TAIL.replace("found", found))
    report = run(text if right else text.replace(*WRONG["U"]))
    assert report.intermediates.compared == ["gamma", "U"]
    assert (report.intermediates.divergence is None) == right, str(report)


def test_a_function_of_its_own_returns_them_in_the_port_s_layout():
    function = (
        PORT.replace("def port", "def whole")
        + """
def turned(x, *axes):
    return np.swapaxes(x, 1, 2)

def port(q, k, v, beta, log_decay, state=None, chunk_size=64):
    y, S, _ = whole(*map(turned, (q, k, v, beta, log_decay)), state, chunk_size)
    return turned(y), S

def inside(q, k, v, beta, log_decay, state=None, chunk_size=64):
    *_, found = whole(*map(turned, (q, k, v, beta, log_decay)), state, chunk_size)
    return {name: [x if name == "S" else turned(x) for x in found[name]] for name in ("A", "U", "S")}
"""
    )
    report = run(function, intermediates="inside", layout="b t h k")
    assert report.right
    assert report.intermediates.compared == ["A", "U", "S"]
    assert report.intermediates.divergence is None, str(report)


def test_what_is_no_intermediate_is_said():
    report = run(PORT.replace(TAIL, TAIL.replace("found", "{'T': out, 'A': out[0][..., 0]}")))
    assert "note: no intermediate of this form is called T" in str(report)
    assert "A of chunk 0: has shape (2, 3, 4), expected (2, 3, 4, 4)" in str(report)
    raising = PORT + "\ndef inside(*x, **y):\n    raise RuntimeError('no')\n"
    assert "first intermediate that differs: intermediates: RuntimeError: no" in str(run(raising, "inside"))
    listed = PORT + "\ndef inside(*x, **y):\n    return [1]\n"
    assert "expected a dict of arrays by name, got list" in str(run(listed, "inside"))
    with pytest.raises(UserError, match=r"intermediates: mechanism: expected one of .*, got 'recurrent.rnn'"):
        check(lambda x, W: x, "recurrent.rnn.recurrent", intermediates=lambda x, W: {}, cases=["T = 1"])


def test_every_line_is_written_in_the_form_s_file():
    from models.memory import gated_delta_rule

    for name in ("A", "U", "P", "O", "S"):
        equation = LINES[name][0].split(" for ")[0]
        assert "".join(equation.split()) in "".join((gated_delta_rule.__doc__ or "").split()), name
    assert set(SSD_LINES) - {"A_cumsum", "L", "Y_diag", "states", "Y_off"} == {"O", "S"}
