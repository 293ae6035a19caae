"""Promotion of the NumPy arrays of a call to one precision, which y and the returned state have as well.

    mixed precisions      are promoted to the widest, as NumPy does; a `fused` form refuses them
    floats of two bytes   are computed in float32, where long sums keep their digits; results are rounded once
    foreign byte order    becomes the machine's

Arrays of other libraries, integers, booleans and exact numbers stay as they are.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from minigrad.compiled import WIDTHS
from minigrad.engine import unwrap
from minigrad.pytree import map_arrays

Kinds = frozenset  # the dtypes of NumPy's arrays, and the types of other libraries' arrays


class Precision(NamedTuple):
    """The dtype that a call computes in, and the dtype that its results are rounded to, if it differs."""

    computed: np.dtype  # of real numbers and of the parts of complex ones
    result: np.dtype | None  # the two-byte dtype that results are rounded to, or None


def array_kinds(values: Iterable[Any]) -> Kinds:
    """Return the dtypes of NumPy arrays, and the types of others, among values and in tuples and lists of them."""
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
            kinds.add(type(x))


@functools.cache
def precision(kinds: Kinds) -> Precision | None:
    """Return the precision of a call with arrays of these kinds; None where they have one already."""
    floats = [kind for kind in kinds if isinstance(kind, np.dtype) and is_float(kind)]
    if not floats:
        return None
    computed = _real(np.result_type(*(np.result_type(kind, np.float32) for kind in floats)))
    if all(kind.isnative and _real(kind) == computed for kind in floats):
        return None
    dtypes = {kind.newbyteorder("=") for kind in floats}
    short = dtypes.pop() if len(dtypes) == 1 else computed
    return Precision(computed, short if short.itemsize == 2 else None)


@functools.cache
def suits_kernels(kinds: Kinds) -> bool:
    """Return whether kernels take arrays of these kinds: NumPy's float32 or float64, all of one precision."""
    native = {kind for kind in kinds if isinstance(kind, np.dtype) and is_float(kind) and kind.isnative}
    widths = {_real(kind).name for kind in native}
    return native == kinds - {np.dtype(bool)} and len(widths) == 1 and widths.issubset(WIDTHS)


def cast_all(tree: Any, to: Precision | None) -> Any:
    """Cast the arrays of a pytree to a precision, or, for None, to the machine's byte order."""

    def cast_array(x: Any) -> Any:
        dtype = unwrap(x).dtype
        if not isinstance(unwrap(x), np.ndarray | np.generic) or not is_float(dtype):
            return x
        if to is None:
            return cast(x, dtype.newbyteorder("="))
        return cast(x, np.result_type(to.computed, np.complex64) if dtype.kind == "c" else to.computed)

    return map_arrays(cast_array, tree)


def round_all(results: Any, to: np.dtype) -> Any:
    """Round the real arrays of a pytree to a dtype."""
    return map_arrays(lambda x: cast(x, to) if unwrap(x).dtype.kind == "f" else x, results)


def cast(x: Any, dtype: np.dtype) -> Any:
    """Return a NumPy array, or a Tensor of one, in another dtype."""
    if x.dtype == dtype:
        return x
    return mg.astype(x, dtype) if isinstance(x, mg.Tensor) else x.astype(dtype)


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
