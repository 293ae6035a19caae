"""Functions and signatures of CuPy, taken from CuPy itself, which can be imported without a GPU.

Not seen so: what its functions compute, and what else they refuse once they run.
"""

import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import cupy
import numpy as np


def allow(theirs: Any, args: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Raise TypeError where a function, ufunc or method of CuPy's would not take these arguments.

    For a ufunc that is also their numbers. A method is given without its array.
    """
    _check_names(theirs, len(args), tuple(options))
    if isinstance(theirs, cupy.ufunc) and not _takes(theirs, tuple(getattr(x, "dtype", None) for x in args)):
        raise TypeError(f"{theirs.__name__} of CuPy: got {[getattr(x, 'dtype', x) for x in args]}, has {theirs.types}")


@functools.cache
def _check_names(theirs: Any, positional: int, names: tuple[str, ...]) -> None:
    """Raise TypeError where CuPy's function has no place for so many arguments and options of these names."""
    try:
        _signature(theirs).bind(*range(positional), **dict.fromkeys(names))
    except TypeError as error:
        raise TypeError(f"{theirs.__name__} of CuPy: {error}") from None


@functools.cache
def _signature(theirs: Any) -> inspect.Signature:
    """Return the signature of a CuPy function: of a compiled one from its docstring, of a ufunc from its counts."""
    if isinstance(theirs, cupy.ufunc):
        names = ", ".join(f"x{i}" for i in range(theirs.nin))
        line = f"{names}, out=None, *, casting=None, dtype=None"
    else:
        try:
            signature = inspect.signature(theirs)
            return signature.replace(parameters=[p for name, p in signature.parameters.items() if name != "self"])
        except ValueError:
            line = theirs.__doc__.partition("(self")[2].partition(")")[0].removeprefix(", ")
            line = re.sub(r"\w+ (\w+)", r"\1", line)
    return inspect.signature(eval(f"lambda {line}: None"))


@functools.cache
def _takes(theirs: cupy.ufunc, dtypes: tuple[np.dtype | None, ...]) -> bool:
    """Return whether arrays can be cast to types of a ufunc without loss; Python's numbers, None, go with any."""
    return any(_fits(dtypes, types) for types in theirs.types)


def _fits(dtypes: tuple[np.dtype | None, ...], types: str) -> bool:
    expected = types.partition("->")[0]
    if "E" in expected:  # bfloat16, for which NumPy has no letter
        return False
    return all(np.can_cast(dtype, c) for dtype, c in zip(dtypes, expected, strict=False) if dtype is not None)
