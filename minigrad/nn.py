"""Layers as containers of arrays.

A Module holds plain arrays, so calling it is plain NumPy; `value_and_grad(loss)(module)` calls the loss with a copy
of the module that holds Tensors, and returns the gradients in a module of the same structure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from minigrad.bounds import check_indices
from minigrad.convolution import causal_conv1d
from minigrad.namespace import namespace, to_numpy
from minigrad.primitives.elementwise import where
from minigrad.primitives.indexing import take
from minigrad.primitives.linalg import matmul
from minigrad.primitives.normalisers import rms_norm
from minigrad.primitives.reductions import mean
from minigrad.primitives.shapes import matrix_transpose
from minigrad.pytree import Container, is_array


def _walk(prefix: str, x: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield every array in x: its dotted name, itself, and the dict or list and the key that hold it."""
    holder = vars(x) if isinstance(x, Container) else x
    for key, item in holder.items() if isinstance(holder, dict) else enumerate(holder):
        name = f"{prefix}{key}"
        if is_array(item):
            yield name, item, holder, key
        elif isinstance(item, (Container, dict, list)):
            yield from _walk(f"{name}.", item)


class Module(Container):
    """A layer: its attributes are arrays (the parameters), Modules, lists and dicts of these, and configuration."""

    def named_parameters(self) -> dict[str, Any]:
        """Return the arrays by dotted name, such as `layers.0.norm.weight`."""
        return {name: array for name, array, _, _ in _walk("", self)}

    def load_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Replace every array by the one of its name, converted to its dtype and device; all or none.

        Raises ValueError when a name is missing or unknown, a shape differs, or a value is NaN or infinite.
        """
        slots = {name: (array, holder, key) for name, array, holder, key in _walk("", self)}
        for name in slots.keys() - parameters.keys():
            raise ValueError(f"load_parameters: {name} is missing, expected the names of {type(self).__name__}")
        for name in parameters.keys() - slots.keys():
            raise ValueError(f"load_parameters: {name} is unknown, expected the names of {type(self).__name__}")
        for name, (array, _, _) in slots.items():
            new = parameters[name]
            if tuple(new.shape) != tuple(array.shape):
                raise ValueError(f"load_parameters: {name} has shape {tuple(new.shape)}, expected {tuple(array.shape)}")
            if not bool(namespace(new).all(namespace(new).isfinite(new))):
                raise ValueError(f"load_parameters: {name} holds NaN or infinity, expected finite numbers")
        for name, (array, holder, key) in slots.items():
            holder[key] = namespace(array).asarray(to_numpy(parameters[name]), dtype=array.dtype, copy=True)

    def remove_parameters(self, names: Collection[str]) -> None:
        """Set the arrays of these names to None. Raises ValueError when there is none of a name."""
        slots = {name: (holder, key) for name, _, holder, key in _walk("", self)}
        for name in names:
            if name not in slots:
                raise ValueError(f"remove_parameters: {name} is unknown, expected the names of {type(self).__name__}")
            holder, key = slots[name]
            holder[key] = None


class Linear(Module):
    """y = x Wᵀ + b, (…, inputs) → (…, outputs); W and b are initialised uniformly in ±1/√inputs."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, rng: np.random.Generator, dtype: Any = np.float32
    ):
        bound = 1 / np.sqrt(inputs)
        self.weight = rng.uniform(-bound, bound, (outputs, inputs)).astype(dtype)
        self.bias = rng.uniform(-bound, bound, outputs).astype(dtype) if bias else None

    def __call__(self, x: Any) -> Any:
        y = matmul(x, matrix_transpose(self.weight))
        return y if self.bias is None else y + self.bias


class Embedding(Module):
    """The row of W for each token, (…) → (…, width); W is initialised from a normal distribution of deviation 0.02.

    Raises IndexError for a token that is not in the vocabulary.
    """

    def __init__(self, count: int, width: int, *, rng: np.random.Generator, dtype: Any = np.float32):
        self.weight = (0.02 * rng.standard_normal((count, width))).astype(dtype)

    def __call__(self, tokens: Any) -> Any:
        count = self.weight.shape[0]
        return take(self.weight, check_indices("Embedding", "tokens", tokens, count, "a token"), axis=0)


class LayerNorm(Module):
    """y = w (x − mean x)/√(var x + ε) + b over the last axis of x (…, width) (Ba et al. 2016, eq. 3–4; no ε there)."""

    def __init__(self, width: int, *, eps: float = 1e-5, dtype: Any = np.float32):
        self.weight, self.bias, self.eps = np.ones(width, dtype), np.zeros(width, dtype), eps

    def __call__(self, x: Any) -> Any:
        return rms_norm(x - mean(x, axis=-1, keepdims=True), eps=self.eps) * self.weight + self.bias


class RMSNorm(Module):
    """y = w x/√(mean x² + ε) over the last axis of x (…, width) (Zhang and Sennrich 2019, eq. 4)."""

    def __init__(self, width: int, *, eps: float = 1e-6, dtype: Any = np.float32):
        self.weight, self.eps = np.ones(width, dtype), eps

    def __call__(self, x: Any) -> Any:
        return rms_norm(x, axis=-1, eps=self.eps) * self.weight


class Conv1d(Module):
    """A causal depthwise convolution of x (*batch, T, channels); its state is the last W − 1 inputs."""

    def __init__(
        self, channels: int, width: int, *, bias: bool = True, rng: np.random.Generator, dtype: Any = np.float32
    ):
        bound = 1 / np.sqrt(width)
        self.weight = rng.uniform(-bound, bound, (channels, width)).astype(dtype)
        self.bias = rng.uniform(-bound, bound, channels).astype(dtype) if bias else None

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Return y, of x's shape, and the new state `(*batch, W − 1, channels)`; an initial state of None is zero."""
        xp, before = namespace(x, self.weight), self.weight.shape[-1] - 1
        if state is None:
            state = xp.zeros((*x.shape[:-2], before, x.shape[-1]), dtype=x.dtype)
        y = causal_conv1d(x, self.weight, before=state)
        recent = xp.concat([state, x[..., -before:, :]], axis=-2) if before else state
        state = recent[..., recent.shape[-2] - before :, :]
        return (y if self.bias is None else y + self.bias), state


class Dropout(Module):
    """x with elements set to 0 with probability p, the rest divided by 1 − p (Srivastava et al. 2014); x if no rng.

    Raises ValueError for a p outside 0 ≤ p < 1.
    """

    def __init__(self, p: float):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: got p = {p}, expected 0 ≤ p < 1")
        self.p = p

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Any:
        if rng is None or self.p == 0:
            return x
        keep = rng.random(x.shape) >= self.p
        return where(keep, x / (1 - self.p), 0)
