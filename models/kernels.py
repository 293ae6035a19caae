"""The kernel of a `fused` form, by the kind of array: Numba's on NumPy arrays, raw CUDA on CuPy arrays."""

import functools
import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any

import minigrad as mg
from minigrad import kernels, namespace
from minigrad.containers import arrays_of
from minigrad.engine import unwrap


def compiled(name: str, reference: Callable) -> Callable:
    """The kernel `name` as a function of arrays and Tensors, whose gradients of gradients are those of `reference`.

    On CuPy arrays `reference` serves for all where `gpu` has no kernel that takes them, or there is a mask.
    """
    on_host = kernels.compiled(name, reference)

    def call(*inputs: Any, **options: Any) -> Any:
        if not any(map(on_device, inputs)):
            return on_host(*inputs, **options)
        plain = functools.partial(reference, **options)
        masked = options.pop("mask", None) is not None  # which no raw kernel knows
        if masked or importlib.util.find_spec(f"gpu.kernels.{name}") is None:
            return plain(*inputs)
        kernel = importlib.import_module(f"gpu.kernels.{name}")
        if hasattr(kernel, "supports") and not kernel.supports(*inputs, **options):
            return plain(*inputs)

        def forward(*arrays: Any) -> Any:
            return kernel.forward(*map(_contiguous, arrays), **options)

        def backward(saved: Any, cotangents: Any) -> Any:
            several = isinstance(cotangents, tuple)
            return kernel.backward(saved, tuple(map(_contiguous, cotangents)) if several else _contiguous(cotangents))

        return mg.fused(forward, backward, plain)(*inputs)

    return call


def scan(a: Any, x: Any, axis: int, reverse: bool) -> Any:
    """The linear recurrence of raw CuPy arrays along an axis, as `minigrad.scan` asks for it."""
    kernel, shape = importlib.import_module("gpu.kernels.scan"), x.shape
    lines = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    a, x = (_contiguous(array).reshape(lines) for array in (a, x))
    return kernel.forward(a, x, reverse=reverse).reshape(shape)


kernels.SCANS["cupy"] = scan


def check_alike(given: Mapping[str, Any]) -> None:
    """Raise TypeError for arguments that no `fused` form takes: arrays neither NumPy's nor CuPy's, or of two widths."""
    if not any(map(on_device, arrays_of(list(given.values())))):
        kernels.check_alike(given)


def on_device(x: Any) -> bool:
    """Whether an array, or a Tensor's array, is CuPy's."""
    return type(unwrap(x)).__module__.partition(".")[0] == "cupy"


def _contiguous(x: Any) -> Any:
    return x if x.flags.c_contiguous else namespace(x).asarray(x, order="C", copy=True)
