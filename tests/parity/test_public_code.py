"""Public code through the kit for ports: every row of `proofs/port/conventions.toml`, with the verdict it has there."""

import importlib
import importlib.metadata
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from models.memory import gated_delta_rule, linear_attention, titans
from proofs.port import check, compare
from proofs.port.conventions import libraries
from tests.parity import public_ports

ROOT = Path(__file__).parents[2]
CHECKED = [row for row in libraries() if not row.test]


@pytest.fixture(scope="module")
def load(fla, transformers, torch, titans_pytorch):
    return public_ports.Load(fla, transformers, importlib.import_module)


@pytest.mark.parametrize("row", CHECKED, ids=[row.port for row in CHECKED])
def test_the_verdict(row, load):
    assert importlib.metadata.version(row.package) == row.version
    report = check(getattr(public_ports, row.port)(load), row.form, framework="torch", **row.options)
    assert {finding.case.name for finding in report.findings} == set(row.wrong), str(report)
    if row.wrong:
        assert report.slips and report.slips[0].startswith(row.slip)
        assert "nan" in str(report.first.divergence) and report.snippet
    assert set(row.options.get("cases", ())) <= {*report.cases, *report.not_applied}


@pytest.mark.parametrize(
    ("port", "options"),
    [
        ("fla_gated_delta_rule_recurrent", {"arguments": "q,k,v,g,beta,initial_state=state"}),
        ("fla_delta_rule_recurrence", {"scale": None}),
        ("transformers_mamba2", {"sizes": {"N": 5}, "state": None}),
        ("transformers_kda_recurrent", {"decay": "factor"}),
        ("mambapy_parallel", {"arguments": "u,delta,A,C,B,D"}),
    ],
    ids=["argument order", "scale", "axes of the state", "factor for logarithm", "B and C"],
)
def test_a_wrong_declaration_is_found(port, options, load):
    (row,) = (row for row in CHECKED if row.port == port)
    declared = {**row.options, **options, "cases": ["T not a multiple"]}
    assert not check(getattr(public_ports, port)(load), row.form, framework="torch", **declared).right


def test_the_counterexample_of_the_documents(torch, qwen3_next, capsys):
    """The code block shows NaN from the chunks of transformers where a gate is 0, and finite numbers token by token."""
    text = (ROOT / "docs" / "CONVENTIONS.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
    chunked, recurrent = capsys.readouterr().out.splitlines()
    assert "nan" in chunked and "nan" not in recurrent


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_decays_after_strong_ones(name, qwen3_next):
    """Eight gates of e⁻⁴⁸⁰, then mild ones: a difference of sums near −4000 costs float32 two digits of y."""
    rng, T = np.random.default_rng(0), 24
    inputs = {key: rng.normal(size=(1, T, 1, n)) / 2 for key, n in (("q", 4), ("k", 4), ("v", 5))}
    inputs |= {"g": np.where(np.arange(T) < 8, -480.0, -0.1)[None, :, None], "beta": rng.uniform(size=(1, T, 1))}

    def ours(q, k, v, g, beta):
        q, k, v, g, beta = (mg.permute_dims(x, (0, 2, 1, *range(3, x.ndim))) for x in (q, k, v, g, beta))
        y, _ = gated_delta_rule.chunkwise(q / 2, k, v, beta, g)
        return mg.permute_dims(y, (0, 2, 1, 3))

    def theirs(q, k, v, g, beta):
        return getattr(qwen3_next, name)(q, k, v, g=g, beta=beta)[0]

    options = {"frameworks": (None, "torch"), "precision": "float32", "gradients": False}
    compare(ours, theirs, inputs, **options, tolerance=1e-4)
    if name == "chunk":
        with pytest.raises(AssertionError, match="result 0"):
            compare(ours, theirs, inputs, **options, tolerance=1e-5)
    else:
        compare(ours, theirs, inputs, **options, tolerance=1e-6)


def test_performer_divides_by_the_sum_of_the_weights(performer_pytorch):
    """Against linear attention over that of ones; positive numbers, which features of FAVOR+ are."""
    theirs = performer_pytorch.causal_linear_attention_noncuda
    rng = np.random.default_rng(0)
    inputs = {name: rng.uniform(0.1, 1, (2, 3, 9, n)) for name, n in (("q", 4), ("k", 4), ("v", 5))}

    def ours(q, k, v):
        ones = v[..., :1] * 0 + 1
        # theirs adds 10⁻⁶ to each entry of the sum of the keys
        denominator = linear_attention.chunkwise(q, k, ones)[0] + 1e-6 * mg.sum(q, axis=-1, keepdims=True)
        return linear_attention.chunkwise(q, k, v)[0] / denominator

    compare(ours, theirs, inputs, frameworks=(None, "torch"))
    with pytest.raises(AssertionError, match="result 0"):
        compare(lambda *x: linear_attention.chunkwise(*x)[0], theirs, inputs, frameworks=(None, "torch"))


def test_the_inner_gradient_of_fla_s_titans(fla, torch, monkeypatch):
    """Ours is what PyTorch makes of the inner loss, one token from a memory W; theirs is once a bracket is put in."""
    for name in ("fla", "fla.ops", "fla.ops.titans", "fla.ops.titans.log_impl"):  # which want Triton
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["fla.ops.titans.log_impl"].combine_params_log = None
    path = Path(importlib.metadata.distribution("fla-core").locate_file("fla/ops/titans/naive.py"))
    text = path.read_text(encoding="utf-8")
    slipped = "D * grad - grad.sum(-1, keepdim=True) / (rstd * D)"
    assert text.count(slipped) == 2  # in both of its forms
    mended = text.replace(slipped, "(D * grad - grad.sum(-1, keepdim=True)) / (rstd * D)")
    scopes = [{"__name__": "fla_naive_titans"}, {"__name__": "fla_naive_titans"}]
    for scope, source in zip(scopes, (text, mended), strict=True):
        exec(compile(source, str(path), "exec"), scope)

    rng, D = np.random.default_rng(0), 4
    inputs = {name: rng.normal(size=(1, 1, 1, D)) for name in ("q", "k", "v")}
    inputs |= {"W": rng.normal(size=(1, 1, D, D)), "gamma": rng.normal(size=(1, D)), "beta": rng.normal(size=(1, D))}
    theta, alpha, eta = 0.25, 0.5, 0.5

    def ours(q, k, v, W, gamma, beta):
        gates = [mg.asarray(np.full((1, 1, 1), x)) for x in (theta, np.log(eta), np.log(1 - alpha))]
        norm = (gamma[None, None, :, :], beta[None, None, :, :])
        _, state = titans.recurrent(q, k, v, *gates, ((W,),), batch_size=1, norm=norm)
        return (state.memory[0][0],)

    def by_autodiff(q, k, v, W, gamma, beta):
        def loss(W):
            z = k @ W
            unit = (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
            return ((k + gamma * unit + beta - v) ** 2).sum() / 2

        return ((1 - alpha) * W - theta * torch.func.grad(loss)(W),)

    def theirs(scope):
        def run(q, k, v, W, gamma, beta):
            gates = [torch.full((1, 1, 1, 1), x, dtype=q.dtype) for x in (theta / 2, alpha, eta)]
            return (scope["titans_linear"](q, k, v, gamma, beta, *gates, 1e-6, 1, W, True)[1],)

        return run

    compare(ours, by_autodiff, inputs, frameworks=(None, "torch"))
    compare(ours, theirs(scopes[1]), inputs, frameworks=(None, "torch"), tolerance=1e-5)  # some of it is in float32
    with pytest.raises(AssertionError, match="result 0"):
        compare(ours, theirs(scopes[0]), inputs, frameworks=(None, "torch"), tolerance=1e-5)


def test_fla_s_ttt_changes_q(fla, torch):
    """Scaled in place where q is float32 already and T fills the mini-batches."""
    reference = fla("ttt").chunk_ttt_linear_ref
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, 16, 2, 4), generator=generator) for _ in range(3))
    w, b, eta = torch.ones(2, 4), torch.zeros(2, 4), 0.1
    before = q.clone()
    reference(q, k, v, w, b, eta)
    assert torch.equal(q, before * 4**-0.5)
    with pytest.raises(RuntimeError, match="in-place"):
        reference(before.requires_grad_(), k, v, w, b, eta)
