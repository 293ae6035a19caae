"""Promotion of the arrays of a call to one precision, which y and the returned state have as well.

    mixed precisions      are promoted to the widest, as NumPy does; a `fused` form refuses them
    floats of two bytes   are computed in float32, where long sums keep their digits; results are rounded once
    foreign byte order    becomes the machine's

The rule is the same for the arrays of every library. Integers, booleans and exact numbers stay as they are.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from minigrad import namespace
from minigrad.compiled import WIDTHS
from minigrad.engine import unwrap
from minigrad.pytree import map_arrays

Kinds = frozenset  # the dtypes of NumPy's arrays, and the names of the dtypes of other libraries' arrays

# Bytes of a real number, or of the parts of a complex one, by the names that all other libraries use
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "complex64": 4, "float64": 8, "complex128": 8}
COMPLEX = {"float32": "complex64", "float64": "complex128"}
_NUMPY = (np.ndarray, np.generic)  # a tuple, for torch.compile does not trace a union of them


class Precision(NamedTuple):
    """The dtype that a call computes in, and the dtype that its results are rounded to, if it differs.

    They are dtypes of NumPy, or names of other libraries' dtypes.
    """

    computed: np.dtype | str  # of real numbers and of the parts of complex ones
    result: np.dtype | str | None  # the two-byte dtype that results are rounded to, or None


def array_kinds(values: Iterable[Any]) -> Kinds:
    """Return the dtypes of NumPy arrays, and the names of others', among values and in tuples and lists of them."""
    present: set = set()
    _collect(values, present)
    return frozenset(present)


def _collect(values: Iterable[Any], kinds: set) -> None:
    for x in map(unwrap, values):
        if isinstance(x, np.ndarray):
            kinds.add(x.dtype)
        elif isinstance(x, (tuple, list)):
            _collect(x, kinds)
        elif isinstance(x, np.generic):
            if x.dtype.kind not in "iub":  # a count, not a number to compute with
                kinds.add(x.dtype)
        elif hasattr(x, "dtype"):
            kinds.add(dtype_name(x.dtype))


@functools.cache
def precision(kinds: Kinds) -> Precision | None:
    """Return the precision of a call with arrays of these kinds; None where they have one already."""
    if names := [kind for kind in kinds if isinstance(kind, str) and kind in BYTES]:
        return _precision_elsewhere(names)
    floats = [kind for kind in kinds if isinstance(kind, np.dtype) and is_float(kind)]
    if not floats:
        return None
    computed = _real(np.result_type(*(np.result_type(kind, np.float32) for kind in floats)))
    if all(kind.isnative and _real(kind) == computed for kind in floats):
        return None
    dtypes = {kind.newbyteorder("=") for kind in floats}
    short = dtypes.pop() if len(dtypes) == 1 else computed
    return Precision(computed, short if short.itemsize == 2 else None)


def _precision_elsewhere(names: list[str]) -> Precision | None:
    """Return the precision of a call with arrays of another library, by the names of their dtypes."""
    widest = max(4, *(BYTES[name] for name in names))
    if all(BYTES[name] == widest for name in names):
        return None
    short = names[0] if len(names) == 1 else None
    return Precision("float32" if widest == 4 else "float64", short)


@functools.cache
def suits_kernels(kinds: Kinds) -> bool:
    """Return whether kernels take arrays of these kinds: NumPy's float32 or float64, all of one precision."""
    native = {kind for kind in kinds if isinstance(kind, np.dtype) and is_float(kind) and kind.isnative}
    widths = {_real(kind).name for kind in native}
    return native == kinds - {np.dtype(bool)} and len(widths) == 1 and widths.issubset(WIDTHS)


def cast_all(tree: Any, to: Precision | None) -> Any:
    """Cast the arrays of a pytree to a precision, or, for None, to the machine's byte order."""

    def cast_array(x: Any) -> Any:
        raw = unwrap(x)
        if isinstance(raw, _NUMPY):
            if not is_float(raw.dtype):
                return x
            if to is None:
                return cast(x, raw.dtype.newbyteorder("="))
            return cast(x, np.result_type(to.computed, np.complex64) if raw.dtype.kind == "c" else to.computed)
        if to is None or (name := dtype_name(raw.dtype)) not in BYTES:
            return x
        return cast(x, COMPLEX[str(to.computed)] if name in COMPLEX.values() else to.computed)

    return map_arrays(cast_array, tree)


def round_all(results: Any, to: np.dtype | str) -> Any:
    """Round the arrays of float32 in a pytree to a dtype of two bytes."""
    return map_arrays(lambda x: cast(x, to) if dtype_name(unwrap(x).dtype) == "float32" else x, results)


def cast(x: Any, dtype: np.dtype | str) -> Any:
    """Return an array, or a Tensor of one, in another dtype, which may be named."""
    raw = unwrap(x)
    if isinstance(x, _NUMPY):
        return x if x.dtype == dtype else x.astype(dtype)
    if not isinstance(raw, _NUMPY):
        dtype = getattr(namespace(raw), str(dtype), dtype)  # CuPy takes the name of a dtype that it has not
    return x if raw.dtype == dtype else namespace(x).astype(x, dtype)


@functools.cache
def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype of any library, such as float32."""
    return dtype.name if isinstance(dtype, np.dtype) else str(dtype).rpartition(".")[2]  # torch says torch.float32


def is_float(dtype: np.dtype) -> bool:
    """Return whether a dtype of NumPy or ml_dtypes is floating point, real or complex."""
    return dtype.kind in "fc" or dtype.name == "bfloat16"


def _real(dtype: np.dtype) -> np.dtype:
    """Return the real dtype of a real or complex one, in native byte order."""
    return np.zeros(0, dtype.newbyteorder("=")).real.dtype


def number(name: str, x: Any) -> Any:
    """Convert a NumPy scalar to a Python number, which promotes no array; other numbers and arrays pass through.

    Raises TypeError for anything else.
    """
    if not hasattr(x, "__truediv__"):  # an attribute of numbers and of arrays of every kind
        raise TypeError(f"{name} is {x!r}, expected a number")
    return x.item() if isinstance(x, np.generic) else x
