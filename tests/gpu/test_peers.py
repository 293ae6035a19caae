"""Peers of the kernels in `bench`: called as their users call them, on the same inputs; reported where missing."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gpu import bench, check, peers
from gpu.cases import CASES
from tests.gpu.fake_device import FAKE, RATES, few_tokens, install


@pytest.fixture
def few(monkeypatch):
    """Install a fake device for a few of the kernels."""
    install(monkeypatch)


@pytest.mark.parity
def test_bench_puts_kernels_beside_their_peers(few):
    *_, softmax = bench.rows(FAKE, RATES, 1, kernels=["softmax"])
    assert (softmax.peer, softmax.theirs.median > 0) == ("PyTorch SDPA, bf16", True)
    assert softmax.goal().startswith("peer / ours ≥ 0.5: m")


@pytest.mark.parity
def test_a_missing_or_failing_peer_is_reported(few, monkeypatch):
    monkeypatch.setattr(bench, "CASES", {x: few_tokens(CASES[x]) for x in ("linear_attention", "softmax")})
    monkeypatch.setitem(peers.PEERS, "softmax", peers.PEERS["softmax"]._replace(call=lambda *_: 1 / 0))
    missing, *_, fails = bench.rows(FAKE, RATES, 1)
    assert missing.peer.startswith("fla, float32 (tf32 in Triton) cannot be imported (")
    assert missing.peer.endswith(": pip install flash-linear-attention")  # for want of Triton, or of a device
    assert fails.peer == "PyTorch SDPA, float32 fails: ZeroDivisionError: division by zero"
    assert (fails.theirs, fails.ours.median > 0) == (None, True)


@pytest.fixture
def torch():
    """Return PyTorch, which the extra `parity` installs."""
    return importlib.import_module("torch")


def draw(name):
    return CASES[name].draw("float32", small=True)


@pytest.mark.parity
def test_a_peer_with_other_outputs_is_reported(few, monkeypatch):
    other = peers.PEERS["softmax"]._replace(call=lambda _, q, k, v: (2 * q @ k.mT @ v,))
    monkeypatch.setitem(peers.PEERS, "softmax", other)
    row, *_ = bench.rows(FAKE, RATES, 1, kernels=["softmax"])
    assert row.peer == "PyTorch SDPA, float32 (its output differs from ours)"


@pytest.mark.parity
@pytest.mark.parametrize("name", ["softmax", "softmax, bfloat16"])
def test_the_gradients_of_a_peer_are_those_of_the_kernel(name):
    arrays = draw(name)
    theirs = peers.ready(peers.PEERS[name], arrays)
    for ours, tensor in zip(CASES[name].run(*arrays), theirs.forward_backward(), strict=True):
        allowed = check.margin(CASES[name], "float32") * max(1, abs(ours).max())
        np.testing.assert_allclose(ours, tensor.detach().float().flatten(0, 1), rtol=0, atol=allowed)


@pytest.mark.parity
def test_attention_peers_get_an_axis_of_heads(torch):
    inputs, cotangents = peers.PEERS["softmax, bfloat16"].arrange(*map(torch.from_dlpack, draw("softmax")))
    assert {(x.ndim, x.dtype) for x in (*inputs, *cotangents)} == {(4, torch.bfloat16)}


@pytest.mark.parity
@pytest.mark.parametrize("name", [name for name in peers.PEERS if peers.PEERS[name].name.startswith("fla")])
def test_fla_is_called_with_heads_third(torch, name):
    """Record the call of a stand-in: heads third, gates by name, bf16 where it is compared in bf16."""
    received = {}

    def function(q, k, v, **options):
        received.update(options, q=q, k=k, v=v)
        return v, options["initial_state"]

    peer, arrays = peers.PEERS[name], draw(name)
    functions = "chunk_delta_rule", "chunk_gated_delta_rule", "chunk_gla", "chunk_linear_attn"
    inputs, cotangents = peer.arrange(*map(torch.from_dlpack, arrays))
    results = peer.call(SimpleNamespace(**dict.fromkeys(functions, function)), *inputs)
    assert [(x.shape, x.dtype) for x in results] == [(x.shape, x.dtype) for x in cotangents]
    assert received["q"].shape == (1, 70, 2, 40)
    assert all(x.is_contiguous() for x in inputs)
    rounded = torch.bfloat16 if name.endswith("bfloat16") or "delta_rule" in name else torch.float32
    for key, array in zip(["q", "k", "v", *(key for key in ("beta", "g") if key in received)], arrays, strict=False):
        expected = torch.from_numpy(array).to(torch.float32 if key == "g" else rounded)
        assert torch.equal(received[key].transpose(1, 2).flatten(0, 1), expected), key
    assert torch.equal(peer.to_our_layout(results[0]), torch.from_numpy(arrays[2]).to(rounded))


@pytest.mark.parity
def test_mamba_is_called_with_channels_before_time(torch, monkeypatch):
    def function(u, delta, A, B, C, D):
        assert all(x.is_contiguous() for x in (u, delta, A, B, C, D))
        h, y = torch.zeros(len(u), *A.shape), []
        for t in range(u.shape[-1]):
            h = torch.exp(delta[..., t, None] * A) * h + (delta * u)[..., t, None] * B[:, None, :, t]
            y.append((h * C[:, None, :, t]).sum(-1) + D * u[..., t])
        return torch.stack(y, -1)

    peer, arrays = peers.PEERS["selective_scan"], list(map(np.ascontiguousarray, draw("selective_scan")))
    arrays[6][:] = 0  # where mamba_ssm starts
    arrays[8][:] = 0  # what it does not take
    monkeypatch.setitem(sys.modules, peer.module, SimpleNamespace(selective_scan_fn=function))
    theirs = peers.ready(peer, tuple(arrays))
    y, _, *ours = CASES["selective_scan"].run(*arrays)
    np.testing.assert_allclose(y, theirs.first(), rtol=0, atol=1e-4)
    for a, b in zip(ours, theirs.forward_backward()[1:], strict=False):
        b = b if b.shape == a.shape else b.mT
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * max(1, abs(a).max()))
