"""Each slip of the catalogue, planted in a port in plain NumPy, is named; a right port is right."""

import re

import pytest

from proofs.port import CASES, check, slips
from proofs.port.cases import Example
from proofs.port.checking import Checker, find_form
from proofs.port.frameworks import Framework
from proofs.port.running import Port
from proofs.port.signature import declare
from proofs.port.slips import ARGUMENTS
from proofs.port.variants import VARIANTS
from tests.port import test_slips_of_layer_norm
from tests.port.numpy_ports import PORTS, make

LINEAR, CHUNKS = "memory.linear_attention.recurrent", "memory.linear_attention.chunkwise"
DELTA_CHUNKS = "memory.delta_rule.chunkwise"
GLA, DELTA = "memory.gated_linear_attention.recurrent", "memory.delta_rule.recurrent"
GDR, SOFTMAX = "memory.gated_delta_rule.recurrent", "attention.softmax.quadratic"
SCAN, SSD = "ssm.selective_scan.recurrent", "ssm.ssd.recurrent"
S4, S4D = "ssm.s4.recurrent", "ssm.s4d.recurrent"
RWKV7, RWKV4 = "recurrent.rwkv7.recurrent", "recurrent.rwkv4.recurrent"
LSTM, RNN, LTI = "recurrent.lstm.recurrent", "recurrent.rnn.recurrent", "ssm.lti.recurrent"
TITANS, TTT = "memory.titans.recurrent", "memory.ttt.primal"

DECAY = "S = np.exp(log_decay[..., t, None, None]) * S\n"
WRITE = "S = S + k_t.mT @ v_t\n"
READ = "out.append(q_t @ S)\n"

# form, the text of its port that is replaced, what it is replaced by, and what the slip is called
PLANTED = [
    (GLA, f"{DECAY}        {WRITE}", f"{WRITE}        {DECAY}", "decay after the write, before it is right"),
    (
        GLA,
        f"{DECAY}        {WRITE}        {READ}",
        f"{WRITE}        {READ}        {DECAY}",
        "decay after the read, at the end of a token",
    ),
    (GLA, f"        {WRITE}        {READ}", f"        {READ}        {WRITE}", "read before the write"),
    (LINEAR, f"{WRITE}        {READ}", f"{READ}        {WRITE}", "read before the write"),
    (
        GLA,
        f"{DECAY}        {WRITE}        {READ}",
        f"{READ}        {DECAY}        {WRITE}",
        "read before the decay and the write",
    ),
    (
        GDR,
        DECAY + "        u = beta[..., t, None, None] * (v_t - k_t @ S)\n",
        "u = beta[..., t, None, None] * (v_t - k_t @ S)\n        " + DECAY,
        "the prediction is that of the state before its decay",
    ),
    (
        GLA,
        "np.exp(log_decay[..., t, None, None])",
        "log_decay[..., t, None, None]",
        "the decay is not exponentiated: the logarithm for the factor",
    ),
    (
        GLA,
        "np.exp(log_decay[..., t, None, None])",
        "(1 - np.exp(log_decay[..., t, None, None]))",
        "the decay is 1 − exp(log_decay)",
    ),
    (
        GLA,
        "np.exp(log_decay[",
        "np.exp(np.exp(log_decay)[",
        "factor for logarithm: exp(log_decay) is taken as the logarithm",
    ),
    (GLA, "np.exp(log_decay[", "np.exp(0 * log_decay[", "log_decay is not applied: the gate is always open"),
    (GLA, "np.exp(log_decay[", "np.exp(2 * log_decay[", "log_decay is applied twice"),
    (GLA, "np.exp(log_decay[", "np.exp(-log_decay[", "log_decay has the other sign"),
    (
        GLA,
        "np.exp(log_decay[..., t, None, None])",
        "(1 / (1 + np.exp(-log_decay[..., t, None, None])))",
        "log_decay is taken as the input of a sigmoid: log σ(log_decay)",
    ),
    (DELTA, "(v_t - k_t @ S)", "v_t", "the prediction is missing: β v is written"),
    (DELTA, "* (v_t - k_t @ S)", "* v_t - k_t @ S", "β weights the value alone: β v − k S"),
    (
        DELTA,
        "beta[..., t, None, None] * (v_t - k_t @ S)",
        "v_t - beta[..., t, None, None] * (k_t @ S)",
        "β weights the prediction alone: v − β k S",
    ),
    (DELTA, "v_t - k_t @ S", "v_t + k_t @ S", "the prediction is added: v + k S"),
    (DELTA, "beta[..., t, None, None]", "beta[..., t, None, None] ** 2", "β is squared"),
    (
        DELTA,
        "beta[..., t, None, None]",
        "1 / (1 + np.exp(-beta[..., t, None, None]))",
        "the sigmoid is applied to beta once more",
    ),
    (
        DELTA,
        "beta[..., t, None, None]",
        "2 * beta[..., t, None, None]",
        "beta counts twice, as where ½ is missing in the inner loss",
    ),
    (DELTA, "beta[..., t, None, None]", "0.5 * beta[..., t, None, None]", "beta counts half"),
    (
        DELTA,
        "        u =",
        "        k_t = k_t / np.linalg.norm(k_t, axis=-1, keepdims=True)\n        u =",
        "k is divided by its L2 norm inside the port",
    ),
    (
        DELTA,
        "        u =",
        "        q_t, k_t = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q_t, k_t))\n        u =",
        "q and k are divided by their L2 norms inside the port",
    ),
    (
        LINEAR,
        "q_t @ S)",
        "q_t @ S / (q_t @ np.sum(k[..., : t + 1, :], axis=-2)[..., None]))",
        "the output is divided by q Σ k, which is not a part of the form",
    ),
    (LINEAR, "out.append(q_t @ S)", "out.append(q_t @ S / np.sqrt(q.shape[-1]))", "a scale of 1/√K too many"),
    (LINEAR, "k_t.mT @ v_t", "q_t.mT @ v_t; q_t = k_t", "q·kᵀ transposed: q and k are exchanged"),
    (LINEAR, "if state is None else state", "", "the initial state is ignored"),
    (
        LINEAR,
        "axis=-2), S",
        "axis=-2), S.mT",
        "state transposed: its last axes are V, K (declare them by state, 'v k')",
    ),
    (LINEAR, "out.append(q_t @ S)", "out.append(3 * q_t @ S)", "y is 3 times what it should be"),
    (
        CHUNKS,
        "        S = S + K.mT @ V\n    return np.concatenate(out, axis=-2), S",
        "        final = S + K.mT @ V\n        S = S * 0\n    return np.concatenate(out, axis=-2), final",
        "the state is reset at each chunk",
    ),
    (CHUNKS, "np.tril(Q @ K.mT)", "np.tril(Q @ K.mT, -1)", "read before the write"),
    (CHUNKS, "np.tril(Q @ K.mT)", "np.tril(Q @ K.mT, 1)", "mask off by one: in a chunk a query sees the next key"),
    (
        DELTA_CHUNKS,
        "np.tril(Q @ K.mT)",
        "np.tril(Q @ K.mT, 1)",
        "mask off by one: in a chunk a query sees the next key",
    ),
    (
        DELTA_CHUNKS,
        "(K @ K.mT), -1)",
        "(K @ K.mT))",
        "mask off by one: A has its diagonal, a token's prediction reads its own write",
    ),
    (SOFTMAX, " / q.shape[-1] ** 0.5", "", "scale missing: q is to be multiplied by 1/√K"),
    (SOFTMAX, "** 0.5", "** 1", "a scale of 1/√K too many"),
    (SOFTMAX, "q.shape[-2])\n", "q.shape[-2] - 1)\n", "mask off by one: a query does not see its own key"),
    (SOFTMAX, "q.shape[-2])\n", "q.shape[-2] + 1)\n", "mask off by one: a query sees the next key"),
    (SOFTMAX, "np.where(mask, ", "np.where(mask | True, ", "the causal mask is missing"),
    (
        SOFTMAX,
        "k=k.shape[-2] - q.shape[-2]",
        "k=0",
        "the mask takes the first query for that of the first key of the state",
    ),
    (
        SOFTMAX,
        "axis=-1, keepdims=True)), 0)\n    return weights / np.maximum(weights.sum(axis=-1",
        "axis=-2, keepdims=True)), 0)\n    return weights / np.maximum(weights.sum(axis=-2",
        "the softmax is over the queries",
    ),
    (
        SOFTMAX,
        "np.exp(scores - scores.max(axis=-1, keepdims=True)), 0)",
        "np.exp(scores), 0); return weights @ v, (k, v)",
        "the weights are not divided by their sum",
    ),
    (SCAN, "d_t * u[", "(np.exp(d_t * A) - 1) / A * u[", "zero-order hold for B̄ = ΔB"),
    (SCAN, "d_t * u[", "u[", "Δ is missing in B̄ = ΔB"),
    (SCAN, " + D * u", "", "the skip D u is missing"),
    (SCAN, "np.exp(d_t * A)", "np.exp(-d_t * np.exp(A))", "A is taken as its logarithm: −exp(A)"),
    (
        SCAN,
        "delta[..., t, :, None]",
        "np.log1p(np.exp(delta[..., t, :, None]))",
        "the softplus is applied to delta once more",
    ),
    (SSD, "d_t * B[", "(np.exp(d_t * A) - 1) / A * B[", "zero-order hold for B̄ = ΔB"),
    (SSD, "d_t * B[", "B[", "Δ is missing in B̄ = ΔB"),
    (SSD, "axis=-2), S", "axis=-2), S.mT", "state transposed: its last axes are P, N (declare them by state, 'p n')"),
    (
        SCAN,
        "        h = np.exp(d_t * A) * h + d_t * u[..., t, :, None] * B[..., t, None, :]\n"
        "        out.append(np.sum(C[..., t, None, :] * h, axis=-1))",
        "        out.append(np.sum(C[..., t, None, :] * h, axis=-1))\n"
        "        h = np.exp(d_t * A) * h + d_t * u[..., t, :, None] * B[..., t, None, :]",
        "read before the write (the state of the token before)",
    ),
    (S4D, "(A_bar - 1) / Lambda * B", "delta[:, None] * B", "B̄ = ΔB for zero-order hold"),
    (S4D, "2 * np.sum", "np.sum", "the conjugate of each pair is missing: y is 2 Re(C h)"),
    (S4D, "np.sum(C *", "np.sum(C.conj() *", "C is conjugated"),
    (S4D, "/ Lambda * B", "/ Lambda * B.conj()", "B is conjugated"),
    (
        S4D,
        "np.exp(delta[:, None] * Lambda)\n    B_bar = (A_bar - 1) / Lambda * B",
        "(1 + delta[:, None] * Lambda / 2) / (1 - delta[:, None] * Lambda / 2)\n"
        "    B_bar = delta[:, None] * B / (1 - delta[:, None] * Lambda / 2)",
        "the bilinear rule for zero-order hold",
    ),
    (S4D, "np.exp(delta[:, None] * Lambda)\n", "1 + delta[:, None] * Lambda\n", "Euler's rule for zero-order hold"),
    (
        RWKV7,
        "z = a_t @ S\n        S = np.exp(g_t).mT * S\n",
        "S = np.exp(g_t).mT * S\n        z = a_t @ S\n",
        "a reads the state after its decay",
    ),
    (RWKV7, "+ b_t.mT @ z", "- b_t.mT @ z", "the removed part has the other sign"),
    (RWKV7, "in (r, k, v, a, b, log", "in (r, k, v, b, a, log", "a and b are exchanged"),
    (RWKV4, "now = np.exp(u + k", "now = np.exp(k", "the bonus u is missing"),
    (RWKV4, "    out = []", "    w, out = np.exp(w), []", "w is taken as its logarithm: exp(w)"),
    (RWKV4, "    out = []", "    w, out = -w, []", "w has the other sign"),
    (LSTM, "i, f, g, o = np", "i, f, o, g = np", "gates in the order i, f, o, g"),
    (LSTM, "i, f, g, o = np", "f, i, g, o = np", "gates in the order f, i, g, o"),
    (LSTM, "i, f, g, o = np", "i, g, f, o = np", "gates in the order i, g, f, o"),
    (SCAN, "np.exp(d_t * A)", "np.exp(-d_t * A)", "A has the other sign: exp(−ΔA)"),
    (SCAN, "delta[..., t, :, None]", "np.exp(delta[..., t, :, None])", "delta is taken as a logarithm: exp(delta)"),
    (DELTA, "beta[..., t, None, None] *", "1 *", "beta is missing: taken as 1"),
    (
        RWKV7,
        "S = np.exp(g_t).mT * S\n        S = S + b_t.mT @ z + k_t.mT @ v_t\n        out.append(r_t @ S)",
        "out.append(r_t @ S)\n        S = np.exp(g_t).mT * S + b_t.mT @ z + k_t.mT @ v_t",
        "r reads before the write",
    ),
    (
        TITANS,
        "        M = keep * M\n        M = M + S\n        out.append(q_t @ M)",
        "        out.append(q_t @ M)\n        M = keep * M + S",
        "read before the write of the memory",
    ),
    (S4, "(Lambda, P, B", "(Lambda, P.conj(), B", "P is conjugated"),
    (RNN, "h @ W.T", "h @ W", "W is transposed"),
    (LTI, "h @ A.T", "h @ A", "A is transposed"),
    (
        TITANS,
        "if (t + 1) % batch_size == 0:",
        "if True:",
        "gradient at the wrong weights: at those before each token, not before each mini-batch",
    ),
    (TITANS, "if (t + 1) % batch_size == 0:", "if False:", "gradient at the wrong weights: always at the first ones"),
    (TITANS, "M = keep * M\n        M = M + S", "M = keep * (M + S)", "decay after the write: (1 − α)(M + S)"),
    (TITANS, "eta * S - rate", "-rate", "the momentum is missing"),
    (TITANS, "- rate *", "- rate / v.shape[-1] *", "mean for sum in the inner loss: ½ mean of the V squared errors"),
    (TITANS, "- rate *", "- 2 * rate / v.shape[-1] *", "mean for sum in the inner loss of the V squared errors"),
    (TITANS, "- rate *", "- 2 * rate *", "theta counts twice, as where ½ is missing in the inner loss"),
    (
        TITANS,
        "np.exp(log_eta), np.exp(log_decay)",
        "np.exp(log_decay), np.exp(log_eta)",
        "log_eta and log_decay are exchanged",
    ),
    (
        TTT,
        "if (t + 1) % batch_size == 0:",
        "if True:",
        "gradient at the wrong weights: at those before each token, not before each mini-batch",
    ),
    (TTT, "if (t + 1) % batch_size == 0:", "if False:", "gradient at the wrong weights: always at the first ones"),
    (
        TTT,
        "error = eta",
        "error = 1 / v.shape[-1] * eta",
        "mean for sum in the inner loss: ½ mean of the V squared errors",
    ),
]


def run(form, port, cases=("T > chunk", "T not a multiple", "start state", "shut gate"), **options):
    return check(port, form, cases=list(cases), precisions=["float64"], **options)


@pytest.mark.parametrize("form", PORTS)
def test_a_right_port_is_right(form):
    report = check(
        make(form),
        form,
        cases=[name for name in CASES if name != "long" or form in (CHUNKS, DELTA_CHUNKS)],
        statements=False,
    )
    assert report.right, str(report)
    assert report.slips == []


@pytest.mark.parametrize(("form", "old", "new", "slip"), PLANTED, ids=[f"{row[0]}-{row[3]}" for row in PLANTED])
def test_a_slip_is_named(form, old, new, slip):
    report = run(form, make(form, old, new))
    assert not report.right
    assert slip in report.slips


@pytest.mark.parametrize("form", PORTS)
def test_no_slip_gives_what_a_right_port_gives(form):
    """Every slip that the cases can tell differs from the right results in one of them."""
    port = make(form)
    report = run(form, port)
    chosen = find_form(form)
    signature = declare(chosen, port)
    size = 4 if signature.takes("chunk_size") else 16
    checker = Checker(Port(port, signature, Framework()), Example(chosen, (2, 3), size))
    runs = list(slips._runs(checker, report, "float64"))
    if not signature.takes("state"):  # the port is then given none
        runs = [run for run in runs if run[0].state is None]
    found = [slip.name for slip in slips.catalogue(checker.reference) if given(checker, slip, runs)]
    unseen = {"the initial state is ignored"} if not signature.takes("state") else set()
    assert set(found) <= unseen


def given(checker, slip, runs):
    return all(slips._gives(checker, slip, *run, "float64") for run in runs)


def test_a_mistake_that_is_no_slip_has_no_name():
    report = run(LINEAR, make(LINEAR, "S = S +", "S = 0.9 * S +"))
    assert not report.right
    assert report.slips == []


def test_every_slip_of_the_catalogue_is_planted():
    planted = [*(row[3] for row in PLANTED), *(slip for _, slip in test_slips_of_layer_norm.PLANTED)]
    words = [name for changes in ARGUMENTS.values() for name in changes]
    patterns = [re.escape(name).replace(r"\{0\}", r"\w+") for name in (*VARIANTS, *words)]
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in planted)] == []
