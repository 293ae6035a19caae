"""What can be called in CuPy, and with what, asked of CuPy itself: it can be imported without a GPU.

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
    try:
        _signature(theirs).bind(*args, **options)
    except TypeError as error:
        raise TypeError(f"{theirs.__name__} of CuPy: {error}") from None
    if isinstance(theirs, cupy.ufunc) and not any(_fits(args, types) for types in theirs.types):
        raise TypeError(f"{theirs.__name__} of CuPy: got {[getattr(x, 'dtype', x) for x in args]}, has {theirs.types}")


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


def _fits(args: Sequence[Any], types: str) -> bool:
    """Return whether arrays can be cast to these types without loss; Python numbers fit any."""
    expected = types.partition("->")[0]
    if "E" in expected:  # bfloat16, for which NumPy has no letter
        return False
    return all(np.can_cast(x.dtype, c) for x, c in zip(args, expected, strict=False) if hasattr(x, "dtype"))
