"""Dispatch of `fused` forms: Numba kernels on NumPy arrays, CUDA kernels on CuPy arrays, else the reference form.

`KERNELS` is the one place to enter a kernel. Its import paths are whole, so that a search finds them, and a module is
imported when it is first called.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import minigrad as mg
from minigrad import compiled, namespace
from minigrad.engine import unwrap
from minigrad.pytree import arrays_of


class Kernel(NamedTuple):
    """The implementations of one function, which `models.kernels` and `gpu.kernels` describe."""

    numba: str  # import path of the module with `forward` and `backward` for NumPy arrays
    cuda: str | None  # the same for CuPy arrays
    reference: str  # the form with the same results, which is differentiated for gradients of gradients


KERNELS = {  # mechanism, or a part of it: its implementations
    "attention.softmax": Kernel("models.kernels.softmax", "gpu.kernels.softmax", "quadratic"),
    "memory.delta_rule": Kernel("models.kernels.delta_rule", "gpu.kernels.delta_rule", "chunkwise"),
    "memory.gated_delta_rule": Kernel("models.kernels.gated_delta_rule", "gpu.kernels.gated_delta_rule", "chunkwise"),
    "memory.gated_linear_attention": Kernel(
        "models.kernels.gated_linear_attention", "gpu.kernels.gated_linear_attention", "chunkwise"
    ),
    "memory.linear_attention": Kernel("models.kernels.linear_attention", "gpu.kernels.linear_attention", "chunkwise"),
    "memory.titans": Kernel("models.kernels.titans", "gpu.kernels.titans", "chunkwise"),
    "memory.ttt": Kernel("models.kernels.ttt", "gpu.kernels.ttt", "dual"),
    "recurrent.lstm": Kernel("models.kernels.lstm", None, "projected"),
    "recurrent.rnn": Kernel("models.kernels.rnn", None, "recurrent"),
    "recurrent.rwkv7": Kernel("models.kernels.rwkv7", None, "chunkwise"),
    "ssm.lti: convolution": Kernel("models.kernels.causal_convolution", None, "direct"),
    "ssm.s4: Cauchy sums": Kernel("models.kernels.cauchy_pairs", "gpu.kernels.cauchy_pairs", "convolution"),
    "ssm.s4d: kernel": Kernel("models.kernels.vandermonde", "gpu.kernels.vandermonde", "convolution"),
    "ssm.s4d: final state": Kernel("models.kernels.final_state", None, "convolution"),
    "ssm.selective_scan": Kernel("models.kernels.selective_scan", "gpu.kernels.selective_scan", "chunkwise"),
    "ssm.ssd": Kernel("models.kernels.gated_linear_attention", "gpu.kernels.gated_linear_attention", "chunkwise"),
}


def with_kernel(name: str, reference: Callable) -> Callable:
    """Return the function that an entry of `KERNELS` computes, for arrays and Tensors.

    `reference` computes the same from the same arguments, by the form that the entry names. It runs where there is no
    kernel for the arrays: without Numba, for CuPy arrays where the entry has no CUDA kernel or that one does not
    support them, and with a mask on CuPy arrays. Gradients of gradients are always its own.
    """
    on_host = compiled.with_kernel(KERNELS[name].numba, reference)

    def call(*inputs: Any, **options: Any) -> Any:
        if not any(map(on_device, inputs)):
            return on_host(*inputs, **options)
        path, plain = KERNELS[name].cuda, functools.partial(reference, **options)
        masked = options.pop("mask", None) is not None  # which no CUDA kernel knows
        if masked or path is None:
            return plain(*inputs)
        kernel = importlib.import_module(path)
        if hasattr(kernel, "supports") and not kernel.supports(*inputs, **options):
            return plain(*inputs)

        def forward(*arrays: Any) -> Any:
            return kernel.forward(*map(_contiguous, arrays), **options)

        def backward(saved: Any, cotangents: Any) -> Any:
            several = isinstance(cotangents, tuple)
            return kernel.backward(saved, tuple(map(_contiguous, cotangents)) if several else _contiguous(cotangents))

        return mg.fused(forward, backward, plain)(*inputs)

    return call


def check_alike(given: Mapping[str, Any]) -> None:
    """Raise TypeError for arguments that no kernel takes: arrays neither NumPy's nor CuPy's, or of two widths."""
    if not any(map(on_device, arrays_of(list(given.values())))):
        compiled.check_alike(given)


def on_device(x: Any) -> bool:
    """Return whether an array, or a Tensor's array, is CuPy's."""
    return type(unwrap(x)).__module__.partition(".")[0] == "cupy"


def _contiguous(x: Any) -> Any:
    return x if x.flags.c_contiguous else namespace(x).asarray(x, order="C", copy=True)
