"""Peers of the kernels: PyTorch's attention, flash-linear-attention's Triton kernels, mamba_ssm's CUDA kernels.

All peers compute on the same inputs, converted to their own layout and dtype once, before anything is timed.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from gpu.device import MissingError

Tensors = tuple[Any, ...]

HEADS = 8  # sequences of a case that are passed as heads of one batch entry
DTYPE_NAMES = {"float": "float32", "bfloat16": "bf16"}  # by the name of torch.Tensor's conversion method


class Peer(NamedTuple):
    """Another library's implementation of a kernel."""

    name: str
    module: str
    install: str  # the command that installs it
    arrange: Callable[..., tuple[Tensors, Tensors]]  # a case's arrays → (inputs, cotangents) in the peer's layout
    call: Callable[..., Tensors]  # (module, *inputs) → outputs
    to_our_layout: Callable[[Any], Any]  # of the first output


class Ready(NamedTuple):
    """A peer bound to its tensors, as functions without arguments."""

    forward: Callable[[], Tensors]  # outputs; residuals are saved for the backward pass, as ours are
    forward_backward: Callable[[], Tensors]  # outputs and gradients of all inputs
    first: Callable[[], Any]  # the first output, float32, in our layout


def ready(peer: Peer, arrays: Tensors) -> Ready:
    """Return the peer bound to these arrays, shared or copied. Raises MissingError where it cannot be imported."""
    try:
        torch, module = importlib.import_module("torch"), importlib.import_module(peer.module)
    except Exception as error:  # a package of compiled code can fail to load in many ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingError(f"{peer.name} cannot be imported ({reason}): {peer.install}") from None
    arranged, cotangents = peer.arrange(*map(torch.from_dlpack, arrays))
    inputs = [x.detach().requires_grad_() for x in arranged]

    def forward() -> Tensors:
        return peer.call(module, *inputs)

    def forward_backward() -> Tensors:
        outputs = forward()
        return *outputs, *torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)

    return Ready(forward, forward_backward, lambda: peer.to_our_layout(forward()[0]).detach().float())


def _heads(x: Any) -> Any:
    """Reshape (sequences, …) to (batch, heads, …)."""
    return x.unflatten(0, (-1, min(HEADS, len(x))))


def _sdpa(dtype: str) -> Peer:
    """Return PyTorch's scaled_dot_product_attention, whose layout is (batch, heads, T, K)."""

    def arrange(*arrays: Any) -> tuple[Tensors, Tensors]:
        *inputs, gy = (getattr(_heads(x), dtype)() for x in arrays)
        return tuple(inputs), (gy,)

    def call(functional: Any, q: Any, k: Any, v: Any) -> Tensors:
        return (functional.scaled_dot_product_attention(q, k, v, is_causal=True),)

    name = f"PyTorch SDPA, {DTYPE_NAMES[dtype]}"
    return Peer(name, "torch.nn.functional", "pip install torch", arrange, call, lambda y: y.flatten(0, 1))


def _fla(path: str, gates: str, dtype: str, **options: Any) -> Peer:
    """Return a chunkwise function of fla, whose layout is (batch, T, heads, K); decays `g` and states stay float32."""
    package, function = path.split(".")
    names = ["q", "k", "v", *gates.split()]

    def tokens(x: Any, name: str = "") -> Any:
        transposed = _heads(x).transpose(1, 2).contiguous()
        return transposed if name == "g" else getattr(transposed, dtype)()

    def arrange(*arrays: Any) -> tuple[Tensors, Tensors]:
        *sequences, S, gy, gS = arrays
        return (*map(tokens, sequences, names), _heads(S)), (tokens(gy), _heads(gS))

    def call(module: Any, *inputs: Any) -> Tensors:
        *sequences, S = inputs
        named = dict(zip(names, sequences, strict=True))
        return getattr(module, function)(**named, scale=1.0, initial_state=S, output_final_state=True, **options)

    name = f"fla, {DTYPE_NAMES[dtype]}" + " (tf32 in Triton)" * (dtype == "float")
    install = "pip install flash-linear-attention"
    return Peer(name, f"fla.ops.{package}", install, arrange, call, lambda y: y.transpose(1, 2).flatten(0, 1))


def _mamba() -> Peer:
    """Return mamba_ssm's scan: layout (batch, D, T), initial state 0, no cotangent of the last state."""

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
