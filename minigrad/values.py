"""The decision whether the values of arrays may be read. Every check of values asks `holds`, and nothing else decides.

    on the host       they are read on every call
    on a device       once for each check, shape and dtype: reading waits for the device. Inside `checked_always()`,
                      on every call
    without values    never: a compiler traces the function (torch.compile, jax.jit), or vmap batches it

Numbers without an order, such as integers modulo a prime, pass every check.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minigrad.engine import unwrap
from minigrad.namespace import namespace

_always: ContextVar[bool] = ContextVar("always", default=False)
_passed: set[Hashable] = set()  # the checks that arrays on a device have passed, with their shapes and dtypes
_MOST = 1 << 14  # of them are kept


@contextmanager
def checked_always() -> Iterator[None]:
    """Check the values of arrays on a device on every call, inside `with checked_always():`."""
    token = _always.set(True)
    try:
        yield
    finally:
        _always.reset(token)


def holds(check: Hashable, condition: Callable[[Any], Any], x: Any) -> bool:
    """Return whether a condition holds for all elements of x, and True where its values are not to be read.

    `check` names the check. `condition` maps the raw array or number to booleans. Numbers without an order pass.
    """
    x = unwrap(x)
    if type(x) is np.ndarray or not hasattr(x, "dtype"):
        return _evaluate(condition, x) is not False
    if _compiling():
        return True
    key = (check, tuple(x.shape), x.dtype) if on_device(x) else None
    if key in _passed and not _always.get():
        return True
    passed = _evaluate(condition, x)
    if passed and key is not None:
        if len(_passed) >= _MOST:
            _passed.clear()
        _passed.add(key)
    return passed is not False


def on_device(x: Any) -> bool:
    """Return whether a raw array is in a device's memory, so that reading an element waits for the device."""
    library = type(x).__module__.partition(".")[0]
    if library == "torch":
        return x.device.type not in ("cpu", "meta")
    if library == "jaxlib":  # arrays that JAX traces are of jax
        return any(device.platform != "cpu" for device in x.devices())
    return library == "cupy"


def _evaluate(condition: Callable[[Any], Any], x: Any) -> bool | None:
    """Return whether a condition holds for all elements of x, None where its values cannot be read."""
    try:
        passed = condition(x)
        return bool(namespace(passed).all(passed)) if hasattr(passed, "shape") else bool(passed)
    except TypeError:  # JAX traces x; or its numbers have no order
        return None
    except RuntimeError:  # vmap of PyTorch batches x, or it is one of PyTorch's arrays without values
        if type(x).__module__.partition(".")[0] != "torch":
            raise
        return None


def _compiling() -> bool:
    """Return whether torch.compile or torch.export traces this call."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()
