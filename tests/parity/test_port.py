"""The kit for ports, on ports in PyTorch and JAX and on published code: values, gradients, states, three precisions."""

import functools

import numpy as np
import pytest

from models.memory import delta_rule
from proofs.port import check, compare
from proofs.port.recognition import recognise


def torch_ports(torch):
    """Return a recurrent and a chunkwise port of the gated delta rule, as fla lays arrays out."""

    def recurrent(q, k, v, g, beta, initial_state=None, write_first=False, detach=False, tril=0):
        q, k, v, g, beta = (x.transpose(1, 2) for x in (q, k, v, g, beta))
        g = g.detach() if detach else g
        S = q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1]) if initial_state is None else initial_state
        out = []
        for t in range(q.shape[-2]):
            q_t, k_t, v_t, decay = q[..., t : t + 1, :], k[..., t : t + 1, :], v[..., t : t + 1, :], g[..., t].exp()
            decay = decay[..., None, None]
            S = S if write_first else decay * S
            S = S + k_t.mT @ (beta[..., t, None, None] * (v_t - k_t @ S))
            S = decay * S if write_first else S
            out.append(q_t @ S * q.shape[-1] ** -0.5)
        return torch.cat(out, dim=-2).transpose(1, 2), S

    return recurrent


def jax_port(jax):
    """Return a port of the delta rule by lax.scan, compiled."""
    jnp = jax.numpy

    @jax.jit
    def port(q, k, v, beta, state=None):
        S = jnp.zeros((*q.shape[:-2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state

        def step(S, x):
            q_t, k_t, v_t, beta_t = x
            u = beta_t[..., None] * (v_t - jnp.einsum("...k,...kv->...v", k_t, S))
            S = S + k_t[..., :, None] * u[..., None, :]
            return S, jnp.einsum("...k,...kv->...v", q_t, S)

        moved = [jnp.moveaxis(x, -2, 0) for x in (q, k, v)]
        S, y = jax.lax.scan(step, S, (*moved, jnp.moveaxis(beta, -1, 0)))
        return jnp.moveaxis(y, 0, -2), S

    return port


GDR = "memory.gated_delta_rule.chunkwise"
DECLARED = {"layout": "b t h k", "scale": "1/sqrt(K)"}


def test_a_port_in_torch_is_right_in_three_precisions(torch):
    report = check(torch_ports(torch), GDR, arguments="q,k,v,g,beta,initial_state=state", framework="torch", **DECLARED)
    assert report.right, str(report)
    assert report.precisions == ["float64", "float32", "bfloat16"]
    assert {result for _, _, result in report.cells} == {
        *("y", "state", "gradient of q", "gradient of k", "gradient of v"),
        *("gradient of beta", "gradient of log_decay", "gradient of state"),
    }


def holding(report):
    return {stated.name.partition("[")[0].partition(".")[2] for stated in report.statements if stated.status == "holds"}


GENERAL = {"streaming", "causality", "independence", "forms_agree"}


def test_statements_hold_with_a_port_in_torch_in_the_form_s_place(torch):
    options = {"arguments": "q,k,v,g,beta,initial_state=state", "framework": "torch", **DECLARED}
    report = check(torch_ports(torch), GDR, cases=["start state"], precisions=["float64"], statements=True, **options)
    assert report.right, str(report)
    assert holding(report) >= GENERAL
    (streaming,) = (s for s in report.statements if s.name.startswith("every_mechanism.streaming"))
    assert streaming.examples > 8  # gradients too, by torch.autograd through both calls
    port = functools.wraps(torch_ports(torch))(functools.partial(torch_ports(torch), detach=True))
    wrong = check(port, GDR, cases=["T = 1"], precisions=["float64"], statements=True, **options)
    assert wrong.failed_statement.system == "gradient"


def test_statements_compile_a_port_in_jax_for_few_shapes(jax):
    port = jax_port(jax)
    options = {"framework": "jax", "chunk": 4, "precisions": ["float64"]}
    report = check(port, "memory.delta_rule.chunkwise", cases=["T = 1"], statements=True, **options)
    assert report.right, str(report)
    assert holding(report) >= GENERAL
    shapes = port._cache_size()
    assert shapes <= 24  # 1 to 3 tokens, with and without a state, batch axes and gradients


@pytest.mark.parametrize(
    ("options", "result", "slip"),
    [
        ({"write_first": True}, "y", "decay after the write, before it is right"),
        ({"detach": True}, "gradient of log_decay", "no gradient flows to log_decay"),
    ],
)
def test_a_slip_in_torch_is_named(torch, options, result, slip):
    port = functools.wraps(torch_ports(torch))(functools.partial(torch_ports(torch), **options))
    report = check(
        port,
        GDR,
        arguments="q,k,v,g,beta,initial_state=state",
        framework="torch",
        cases=["T not a multiple", "start state", "open gate"],
        **DECLARED,
    )
    assert {x.divergence.result for x in report.findings if x.precision == "float64"} >= {result}
    assert report.slips == [slip]
    assert "torch.tensor(" in report.snippet


def test_a_snippet_in_torch_runs(torch, capsys):
    def port(q, k, v, beta):
        return delta_rule.recurrent(q, k, v, beta.detach())

    report = check(port, "memory.delta_rule.recurrent", framework="torch", cases=["T not a multiple"])
    code = report.snippet.replace(f"from {__name__} import port", "")
    exec(code, {"port": port})
    assert capsys.readouterr().out == "None\n"  # the gradient, to which no result leads
    assert report.slips == ["no gradient flows to beta"]


def test_a_port_in_jax_is_right_and_compiles_once_for_each_shape(jax):
    port = jax_port(jax)
    report = check(port, "memory.delta_rule.chunkwise", framework="jax", chunk=4, cases=["T = 1", "repeated keys"])
    assert report.right, str(report)
    assert report.precisions == ["float64", "float32", "bfloat16"]
    assert port._cache_size() <= 2 * 3 * 2  # shapes, precisions, with gradients and without


def test_the_framework_is_recognised(torch, jax):
    def function():
        return None

    for names, expected in {("torch",): "torch", ("jax",): "jax", (): "numpy"}.items():
        scope = {name: {"torch": torch, "jax": jax}[name] for name in names}
        exec("def port(q): return q", scope)
        assert recognise(scope["port"]) == expected


def test_complex_gradients_of_jax_are_conjugated(jax):
    """S4D written in JAX: what jax.vjp returns for a complex argument is the conjugate of Jᴴ g."""
    jnp = jax.numpy

    def port(u, Lambda, B, C, D, delta, state=None):
        A = jnp.exp(delta[:, None] * Lambda)
        drive = (A - 1) / Lambda * B
        h = jnp.zeros((*u.shape[:-2], *B.shape), B.dtype) if state is None else state

        def step(h, u_t):
            h = A * h + drive * u_t[..., None]
            return h, 2 * (C * h).sum(-1).real

        h, y = jax.lax.scan(step, h, jnp.moveaxis(u, -2, 0))
        return jnp.moveaxis(y, 0, -2) + D * u, h

    report = check(port, "ssm.s4d.convolution", framework="jax", cases=["start state"], precisions=["float64"])
    assert report.right, str(report)


def test_a_slip_in_jax_is_shown_in_jax(jax):
    port = jax_port(jax)

    def slipped(q, k, v, beta):
        return port(q, k, v, jax.nn.sigmoid(beta))

    report = check(slipped, "memory.delta_rule.chunkwise", framework="jax", cases=["T = 1"], precisions=["float32"])
    assert report.slips == ["the sigmoid is applied to beta once more"]
    assert "jax.numpy.array(" in report.snippet


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_the_gated_delta_rule_of_transformers(qwen3_next, name):
    """It computes in float32 whatever it is given. Its chunks take differences of sums of logarithms: NaN at log 0."""
    function = getattr(qwen3_next, name)

    def port(query, key, value, g, beta, initial_state=None):
        return function(query, key, value, g=g, beta=beta, initial_state=initial_state, output_final_state=True)

    options = {"arguments": "q,k,v,g,beta,initial_state=state", "framework": "torch", "chunk": 64, **DECLARED}
    report = check(port, GDR, precisions=["float32"], cases=["T > chunk", "start state", "shut gate"], **options)
    assert {finding.case.name for finding in report.findings} == ({"shut gate"} if name == "chunk" else set())
    if name == "chunk":
        assert "∞ − ∞" in report.slips[0]
        assert "got nan" in str(report.first.divergence)


def test_compare_across_frameworks(torch, jax):
    rng = np.random.default_rng(0)
    inputs = {"q": rng.normal(size=(5, 2)), "k": rng.normal(size=(5, 2)), "v": rng.normal(size=(5, 3))}
    inputs["beta"] = rng.uniform(size=5)
    compare(delta_rule.recurrent, jax_port(jax), inputs, frameworks=(None, "jax"))
    with pytest.raises(AssertionError, match="gradient of beta"):
        compare(
            lambda q, k, v, b: delta_rule.recurrent(q, k, v, b.detach()),
            delta_rule.recurrent,
            inputs,
            frameworks=("torch", None),
        )
