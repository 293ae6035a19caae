"""Every implementation gives what ours gives, gradients included, and would be found out if it did not.

At a few tokens, in this process. One line of each peer is broken in turn: the comparison before timing must see it.
"""

import functools
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from benchmarks.workload import declared, disagreement, workloads
from tests.benchmarks.small import sizes

pytestmark = pytest.mark.parity

WORKLOADS = {name: workload for name, workload in workloads().items() if not name.endswith(("_8192", "_8192_forward"))}
EVERYTHING = [(name, one.name) for name, workload in WORKLOADS.items() for one in workload.implementations[1:]]

TORCH, JAX = "benchmarks.peers.torch_mechanisms", "benchmarks.peers.jax_mechanisms"
TORCH_SSM, JAX_SSM = "benchmarks.peers.torch_state_spaces", "benchmarks.peers.jax_state_spaces"
LEARNERS, LM, PRIMITIVES = (
    "benchmarks.peers.torch_learners",
    "benchmarks.peers.torch_lm",
    "benchmarks.workloads.primitives",
)
RECURRENT = "benchmarks.peers.torch_recurrent"
RWKV = "benchmarks.peers.torch_rwkv"
TORCH_VISION = "benchmarks.peers.torch_vision"
BROKEN = {  # where, what stands there, and what stands there instead
    ("linear_attention", "fla-core's chunks, PyTorch"): (TORCH, "scale=1.0)[0].transpose", "scale=0.9)[0].transpose"),
    ("linear_attention", "PyTorch, chunks"): (TORCH, "chunk_states.cumsum(1) - chunk_states", "chunk_states.cumsum(1)"),
    ("linear_attention", "JAX, chunks"): (JAX, "jnp.tril(q @ k.mT) @ v)", "jnp.tril(q @ k.mT, -1) @ v)"),
    ("gated_linear_attention", "PyTorch, chunks"): (TORCH, "a * S + write", "S + write"),
    ("gated_linear_attention_forward", "fla-core's recurrence, PyTorch"): (TORCH, "0.5, k, v, log", "0.4, k, v, log"),
    ("gated_linear_attention", "JAX, chunks"): (JAX, "decay[..., None] * S + write", "S + write"),
    ("delta_rule", "PyTorch, WY and triangular solve"): (TORCH, "S = S + K.mT @ new_values", "S = S + K.mT @ U"),
    ("delta_rule", "fla-core's chunks, PyTorch"): (TORCH, "0.5, k, v, beta))", "0.4, k, v, beta))"),
    ("delta_rule", "JAX, WY and triangular solve"): (JAX, "return S + k.mT @ new_values", "return S + k.mT @ u"),
    ("gated_delta_rule", "PyTorch, WY and triangular solve"): (TORCH, "[v, g_sum.exp() * k]", "[v, k]"),
    ("gated_delta_rule", "fla-core's chunks, PyTorch"): (TORCH, "k, v, g, beta, scale=1.0", "k, v, g, beta, scale=0.9"),
    ("gated_delta_rule", "JAX, WY and triangular solve"): (JAX, "return decay * S + decayed_k", "return S + decayed_k"),
    ("kda", "PyTorch, WY and triangular solve"): (TORCH, "torch.tril(beta * products, -1)", "torch.tril(products, -1)"),
    ("kda", "fla-core's chunks, PyTorch"): (TORCH, "naive_chunk_kda(q, k, v, g,", "naive_chunk_kda(q, k, v, g / 2,"),
    ("kda_forward", "JAX, WY and triangular solve"): (JAX, "jnp.tril(beta * products, -1)", "jnp.tril(products, -1)"),
    ("softmax", "PyTorch, scaled_dot_product_attention"): (TORCH, "is_causal=True", "is_causal=False"),
    ("softmax", "JAX, dot_product_attention"): (JAX, "is_causal=True", "is_causal=False"),
    ("selective_scan", "JAX lax.scan"): (JAX_SSM, "+ (delta * u)[:, None]", "+ u[:, None]"),
    ("selective_scan", "JAX lax.scan, rematerialised"): (JAX_SSM, "(walk), start", "(walk), start + 1"),
    ("selective_scan", "JAX lax.associative_scan"): (JAX_SSM, "y[0] * x[1] + y[1]", "x[1] + y[1]"),
    ("selective_scan", "PyTorch, two levels of chunks"): (TORCH_SSM, "h = decay * h +", "h = h +"),
    ("selective_scan", "mamba.py, parallel scan"): (TORCH_SSM, "(a, (delta * u)", "(a, u"),
    ("selective_scan_512", "Hugging Face's loop, PyTorch"): (TORCH_SSM, "C.mT, D).mT", "C.mT, 2 * D).mT"),
    ("ssd", "PyTorch, the paper's chunks"): (
        TORCH_SSM,
        "a_sum.exp()[..., None] * (C @ initial_states)",
        "(C @ initial_states)",
    ),
    ("ssd", "JAX, chunks and a scan"): (JAX_SSM, "decay[:, None, None] * S + chunk_state", "S + chunk_state"),
    ("s4_kernel", "PyTorch"): (TORCH_SSM, "cp * pb / (1 + c * pp)", "cp * pb"),
    ("s4_kernel", "JAX"): (JAX_SSM, "cp * pb / (1 + c * pp)", "cp * pb"),
    ("s4d_kernel", "PyTorch"): (TORCH_SSM, "- 1) / Lambda", ") / Lambda"),
    ("s4d_kernel", "JAX"): (JAX_SSM, "- 1) / Lambda", ") / Lambda"),
    ("convolution", "PyTorch"): (TORCH_SSM, "2 * length", "length"),
    ("convolution", "JAX"): (JAX_SSM, "2 * length", "length"),
    ("s4d", "PyTorch"): (TORCH_SSM, "K).mT + D * u", "K).mT - D * u"),
    ("s4d", "JAX"): (JAX_SSM, "K).mT + D * u", "K).mT - D * u"),
    ("ttt_linear", "PyTorch, the same dual form"): (LEARNERS, "unit * (g * unit).mean", "(g * unit).mean"),
    ("ttt_linear", "JAX, the same dual form"): (JAX, "unit * (g * unit).mean", "(g * unit).mean"),
    ("titans", "PyTorch, the same closed form"): (LEARNERS, "S1, S2 = h * S1 -", "S1, S2 = S1 -"),
    ("lstm", "PyTorch, torch.nn.LSTM"): (RECURRENT, "(W, U, b, torch.zeros_like(b))", "(W, U, b, b)"),
    ("rnn", "PyTorch, torch.nn.RNN"): (RECURRENT, "(U, W, b, torch.zeros_like(b))", "(U, W, b, b)"),
    ("rwkv4", "Hugging Face's loop, PyTorch"): (RWKV, "cpu(w.log()", "cpu(w"),
    ("rwkv7", "PyTorch, triangular solve"): (RWKV, "(g_sum - g).exp() * a", "g_sum.exp() * a"),
    ("rwkv7", "fla-core's chunks, PyTorch"): (RWKV, "** 0.5, k, v, a, b", "** 0.4, k, v, a, b"),
    ("rwkv7_layer_forward", "the authors' package, PyTorch"): (RWKV, "(x.weight).T for x", "(x.weight) for x"),
    ("patch_embedding", "PyTorch"): (TORCH_VISION, "permute(0, 2, 3, 1)", "permute(0, 3, 2, 1)"),
    ("windowed_attention", "PyTorch, scores of all pairs"): (TORCH_VISION, "rows[difference]", "rows[difference.T]"),
    ("windowed_attention", "Hugging Face's attention, PyTorch"): (
        TORCH_VISION,
        '"rel_pos_h", "rel_pos_w"',
        '"rel_pos_w", "rel_pos_h"',
    ),
    ("vit", "PyTorch, scaled_dot_product_attention"): (TORCH_VISION, "F.gelu(", "F.relu("),
    ("lm_step", "PyTorch eager, explicit softmax"): (LM, "torch.softmax(scores, -1)", "torch.sigmoid(scores)"),
    ("lm_step", "PyTorch eager, scaled_dot_product_attention"): (LM, "is_causal=True", "is_causal=False"),
    ("mamba_step", "JAX, compiled whole"): ("benchmarks.peers.jax_mamba", "* jax.nn.silu(z)", "* z"),
    ("mamba_step", "mamba.py, PyTorch"): ("benchmarks.workloads.mamba_step", "w.flip(1)[:, None]", "w[:, None]"),
    ("primitives", "HIPS autograd"): (PRIMITIVES, "(anp, x, a, b, ", "(anp, x, a, b + 1e-9, "),
    ("primitives", "PyTorch eager"): (PRIMITIVES, "(torch, x, a, b, ", "(torch, x, a, b + 1e-9, "),
}


@pytest.fixture(autouse=True)
def unlocked_flags(monkeypatch):
    """Unlock the flags of PyTorch that the rwkv package sets, which PyTorch's tables of samples lock in other tests."""
    backends = importlib.import_module("torch.backends")
    monkeypatch.setitem(backends.flags_frozen.__globals__, "__allow_nonbracketed_mutation_flag", True)


@functools.cache
def ours(name):
    workload = WORKLOADS[name]
    return workload.implementations[0].setup(**sizes(workload)).results()


def said(name, implementation):
    """Return what the comparison says of an implementation, looked up again: it may have been replaced."""
    module = importlib.import_module(WORKLOADS[name].module)
    workload = next(workload for workload in declared(module) if workload.name == name)
    theirs = workload.implementation(implementation).setup(**sizes(workload)).results()
    return disagreement(ours(name), theirs, workload.tolerance)


def broken(monkeypatch, name, text, instead):
    """Put a copy of a module in its place that says something else."""
    original = importlib.import_module(name)
    source = Path(original.__file__).read_text(encoding="utf-8")
    assert text in source, f"{name} no longer says {text!r}"
    copy = types.ModuleType(name)
    copy.__file__ = original.__file__
    monkeypatch.setitem(sys.modules, name, copy)
    monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], copy)
    exec(compile(source.replace(text, instead), original.__file__, "exec"), vars(copy))


@pytest.mark.parametrize(("name", "implementation"), EVERYTHING)
def test_it_agrees_with_ours(name, implementation):
    assert said(name, implementation) is None


@pytest.mark.parametrize(("name", "implementation"), BROKEN)
def test_a_broken_peer_is_caught(name, implementation, monkeypatch):
    broken(monkeypatch, *BROKEN[name, implementation])
    assert "of its largest entry" in said(name, implementation)


def test_every_peer_has_been_broken():
    """In one workload each, where there are two with the gradients of every input."""
    broken = {(name.removesuffix("_forward").removesuffix("_512"), one) for name, one in BROKEN}
    for name, workload in WORKLOADS.items():
        base = name.removesuffix("_forward").removesuffix("_512").removesuffix("_one_input")
        assert {(base, one.name) for one in workload.implementations[1:] if one.peer} <= broken


def test_the_optimiser_of_jax_is_ours():
    jax_mamba = importlib.import_module("benchmarks.peers.jax_mamba")
    from minigrad import optim
    from minigrad.nn import Linear

    rng = np.random.default_rng(0)
    model, adam = Linear(3, 2, rng=rng, dtype=np.float64), optim.AdamW(1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    p = model.named_parameters()
    p, m, v = ({name: function(x) for name, x in p.items()} for function in (np.copy, np.zeros_like, np.zeros_like))
    for count in (1, 2, 3):
        gradients = Linear(3, 2, rng=rng, dtype=np.float64)
        clipped, _ = optim.clip_by_global_norm(gradients, 0.5)
        adam.step(model, clipped)
        parameters = gradients.named_parameters()
        p, m, v = jax_mamba.updated(p, m, v, count, parameters, rate=1e-2, betas=(0.9, 0.95), decay=0.1, clip=0.5)
    for name, x in model.named_parameters().items():
        np.testing.assert_allclose(p[name], x, rtol=1e-5)
