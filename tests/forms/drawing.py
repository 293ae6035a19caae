"""Tokens for every form, as `proofs.checker.forms` lists them, and ways to lay an array out.

A new form is taken up by being there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.pytree import arrays_of
from proofs.checker.forms import Form, forms

FORMS = {form.name: form for form in forms()}
PLAIN = {name: form for name, form in FORMS.items() if not form.compiled}
COMPILED = {name: form for name, form in FORMS.items() if form.compiled}
CHUNK = 3  # of chunkwise forms, and the mini-batch of those that have one


def tokens(form: Form, length: int, batch: int = 2, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """Return different numbers for every token of `batch` sequences; what belongs to all of them is there once."""
    rng = np.random.default_rng(1)

    def several(name: str, x: np.ndarray) -> np.ndarray:
        if form.axes[name].startswith("*batch"):
            x = x * rng.uniform(0.5, 1.0, (batch, *x.shape))
        return np.asarray(x).astype(np.result_type(dtype, np.complex64) if np.iscomplexobj(x) else dtype)

    return {name: several(name, x) for name, x in form.sample(length).items()}


def changed(change: Callable[[np.ndarray], Any], arguments: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the same tokens, each array changed."""
    return {name: change(x) for name, x in arguments.items()}


def results(form: Form, arguments: dict[str, Any], state: Any = None) -> list[np.ndarray]:
    """Return y and the arrays of the state."""
    return [np.asarray(x) for x in arrays_of(form(arguments, state, CHUNK))]


def gradients(form: Form, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the gradient of the squares of all numbers that a form returns, for each argument."""

    def loss(*arrays: Any) -> Any:
        out = arrays_of(form(dict(zip(arguments, arrays, strict=True)), None, CHUNK))
        return sum(mg.sum(mg.real(x) ** 2 + mg.imag(x) ** 2) if x.dtype.kind == "c" else mg.sum(x * x) for x in out)

    return dict(zip(arguments, mg.grad(loss, argnums=tuple(range(len(arguments))))(*arguments.values()), strict=True))


def read_only(x: np.ndarray) -> np.ndarray:
    """Return a copy that cannot be written to."""
    x = x.copy()
    x.flags.writeable = False
    return x


def with_gaps(x: np.ndarray) -> np.ndarray:
    """Return the same numbers, each beside one that does not belong to them."""
    return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "Fortran": lambda x: x.copy(order="F"),
    "backwards": lambda x: np.flip(np.flip(x).copy()),
    "gaps": with_gaps,
    "read-only": read_only,
}
