"""What people use instead, on the same arrays: PyTorch's attention, fla's Triton kernels, mamba_ssm's CUDA ones."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from gpu.device import MissingError

Arrays = tuple[Any, ...]


class Peer(NamedTuple):
    """A function that does what a kernel does."""

    name: str
    module: str
    how: str  # to install it
    call: Callable[..., Arrays]  # of the module and the case's inputs, of which there are
    inputs: int  # and whose others are cotangents


def ready(peer: Peer, arrays: Arrays) -> Callable[[], Arrays]:
    """The peer, forward and backward, as a call without arguments. Raises MissingError where it cannot be imported."""
    try:
        torch, module = importlib.import_module("torch"), importlib.import_module(peer.module)
    except Exception as error:  # whatever keeps a package of compiled code from loading
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingError(f"{peer.name} cannot be imported ({reason}): {peer.how}") from None
    inputs = [torch.from_dlpack(x).requires_grad_() for x in arrays[: peer.inputs]]
    cotangents = [torch.from_dlpack(x) for x in arrays[peer.inputs :]]

    def run() -> Arrays:
        made = peer.call(module, *inputs)
        return *made, *torch.autograd.grad(made, inputs, cotangents, allow_unused=True)

    return run


def _sdpa(functional: Any, q: Any, k: Any, v: Any) -> Arrays:
    return (functional.scaled_dot_product_attention(q, k, v, is_causal=True),)


def _sdpa_in_bf16(functional: Any, q: Any, k: Any, v: Any) -> Arrays:
    (y,) = _sdpa(functional, q.bfloat16(), k.bfloat16(), v.bfloat16())
    return (y.float(),)


def _fla(name: str, order: str = "", **options: Any) -> Callable[..., Arrays]:
    """A chunkwise function of fla's, whose sequences have heads: one here. Gates go by name."""

    def call(module: Any, q: Any, k: Any, v: Any, *others: Any) -> Arrays:
        *gates, S = others
        named = {key: gate[:, :, None] for key, gate in zip(order.split(), gates, strict=True)}
        q, k, v = (x[:, :, None] for x in (q, k, v))
        y, last = getattr(module, name)(
            q, k, v, **named, scale=1.0, initial_state=S[:, None], output_final_state=True, **options
        )
        return y[:, :, 0], last[:, 0]

    return call


def _mamba(module: Any, u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, h: Any) -> Arrays:
    """With channels before time, and from h = 0."""
    u, delta, B, C = (x.mT.contiguous() for x in (u, delta, B, C))
    y, last = module.selective_scan_fn(u, delta, A, B, C, D, return_last_state=True)
    return y.mT, last


_FLA, _MAMBA = "pip install flash-linear-attention", "pip install mamba-ssm"

PEERS = {
    "delta_rule": Peer("fla", "fla.ops.delta_rule", _FLA, _fla("chunk_delta_rule", "beta"), 5),
    "gated_delta_rule": Peer("fla", "fla.ops.gated_delta_rule", _FLA, _fla("chunk_gated_delta_rule", "beta g"), 6),
    "gated_linear_attention": Peer("fla", "fla.ops.gla", _FLA, _fla("chunk_gla", "g"), 5),
    "linear_attention": Peer("fla", "fla.ops.linear_attn", _FLA, _fla("chunk_linear_attn", normalize=False), 4),
    "selective_scan": Peer("mamba_ssm", "mamba_ssm.ops.selective_scan_interface", _MAMBA, _mamba, 7),
    "softmax": Peer("PyTorch SDPA", "torch.nn.functional", "pip install torch", _sdpa, 3),
    "softmax, bfloat16": Peer("PyTorch SDPA in bf16", "torch.nn.functional", "pip install torch", _sdpa_in_bf16, 3),
}
