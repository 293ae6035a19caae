"""What people use instead, on the same numbers in the layout and the width that they would give it.

PyTorch's attention, flash-linear-attention's Triton kernels and mamba_ssm's CUDA ones. Arrays are laid out and
rounded once, before any clock starts.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from gpu.device import MissingError

Tensors = tuple[Any, ...]

HEADS = 8  # of as many sequences of one case, where there are so many
WIDTHS = {"float": "float32", "bfloat16": "bf16"}  # by PyTorch's method


class Peer(NamedTuple):
    """A function that does what a kernel does."""

    name: str
    module: str
    how: str  # to install it
    arrange: Callable[..., tuple[Tensors, Tensors]]  # a case's arrays: its inputs, and cotangents of what it returns
    call: Callable[..., Tensors]  # of the module and its inputs
    back: Callable[[Any], Any]  # its first result in the layout of ours


class Ready(NamedTuple):
    """A peer with its tensors, as calls without arguments."""

    forward: Callable[[], Tensors]  # and what its way back needs is kept, as ours keeps it
    both: Callable[[], Tensors]  # what comes out, and gradients of all inputs
    first: Callable[[], Any]  # its first result, float32, in the layout of ours


def ready(peer: Peer, arrays: Tensors) -> Ready:
    """The peer on these arrays, which it shares or has copied. Raises MissingError where it cannot be imported."""
    try:
        torch, module = importlib.import_module("torch"), importlib.import_module(peer.module)
    except Exception as error:  # whatever keeps a package of compiled code from loading
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingError(f"{peer.name} cannot be imported ({reason}): {peer.how}") from None
    arranged, cotangents = peer.arrange(*map(torch.from_dlpack, arrays))
    inputs = [x.detach().requires_grad_() for x in arranged]

    def forward() -> Tensors:
        return peer.call(module, *inputs)

    def both() -> Tensors:
        made = forward()
        return *made, *torch.autograd.grad(made, inputs, cotangents, allow_unused=True)

    return Ready(forward, both, lambda: peer.back(forward()[0]).detach().float())


def _heads(x: Any) -> Any:
    """(sequences, …) → (batch, heads, …)."""
    return x.unflatten(0, (-1, min(HEADS, len(x))))


def _sdpa(width: str) -> Peer:
    """PyTorch's attention, whose kernels want (batch, heads, T, K)."""

    def arrange(*arrays: Any) -> tuple[Tensors, Tensors]:
        *inputs, gy = (getattr(_heads(x), width)() for x in arrays)
        return tuple(inputs), (gy,)

    def call(functional: Any, q: Any, k: Any, v: Any) -> Tensors:
        return (functional.scaled_dot_product_attention(q, k, v, is_causal=True),)

    name, how = f"PyTorch SDPA, {WIDTHS[width]}", "pip install torch"
    return Peer(name, "torch.nn.functional", how, arrange, call, lambda y: y.flatten(0, 1))


def _fla(path: str, gates: str, width: str, **options: Any) -> Peer:
    """A chunkwise function of fla's, which wants (batch, T, heads, K); decays `g` and states stay float32."""
    package, function = path.split(".")
    names = ["q", "k", "v", *gates.split()]

    def tokens(x: Any, name: str = "") -> Any:
        laid = _heads(x).transpose(1, 2).contiguous()
        return laid if name == "g" else getattr(laid, width)()

    def arrange(*arrays: Any) -> tuple[Tensors, Tensors]:
        *sequences, S, gy, gS = arrays
        return (*map(tokens, sequences, names), _heads(S)), (tokens(gy), _heads(gS))

    def call(module: Any, *inputs: Any) -> Tensors:
        *sequences, S = inputs
        named = dict(zip(names, sequences, strict=True))
        return getattr(module, function)(**named, scale=1.0, initial_state=S, output_final_state=True, **options)

    name = f"fla, {WIDTHS[width]}" + " (tf32 in Triton)" * (width == "float")
    how = "pip install flash-linear-attention"
    return Peer(name, f"fla.ops.{package}", how, arrange, call, lambda y: y.transpose(1, 2).flatten(0, 1))


def _mamba() -> Peer:
    """mamba_ssm's scan: channels before time, from h = 0, and without a cotangent of the last state."""

    def arrange(*arrays: Any) -> tuple[Tensors, Tensors]:
        u, delta, A, B, C, D, _, gy, _ = arrays
        u, delta, B, C, gy = (x.mT.contiguous() for x in (u, delta, B, C, gy))
        return (u, delta, A, B, C, D), (gy,)

    def call(module: Any, *inputs: Any) -> Tensors:
        return (module.selective_scan_fn(*inputs),)

    module = "mamba_ssm.ops.selective_scan_interface"
    return Peer("mamba_ssm", module, "pip install mamba-ssm", arrange, call, lambda y: y.mT)


PEERS = {"selective_scan": _mamba(), "softmax": _sdpa("float"), "softmax, bfloat16": _sdpa("bfloat16")}
for kernel, widest, peer in (
    ("delta_rule", "bfloat16", functools.partial(_fla, "delta_rule.chunk_delta_rule", "beta")),  # it refuses float32
    ("gated_delta_rule", "bfloat16", functools.partial(_fla, "gated_delta_rule.chunk_gated_delta_rule", "beta g")),
    ("gated_linear_attention", "float", functools.partial(_fla, "gla.chunk_gla", "g")),
    ("linear_attention", "float", functools.partial(_fla, "linear_attn.chunk_linear_attn", "", normalize=False)),
):
    PEERS |= {kernel: peer(widest), f"{kernel}, tensorfloat32": peer(widest), f"{kernel}, bfloat16": peer("bfloat16")}
