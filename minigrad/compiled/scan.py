"""The linear recurrence hₜ = aₜ hₜ₋₁ + xₜ, real or complex, in one pass over its arrays.

Work    a thread's unit is a slab of neighbouring columns of one sequence: row t is made of row t − 1, just written, so
        rows are short enough for the first-level cache. Its adjoint is the same recurrence the other way.
Cost    reads 2 and writes 1 number for one multiplication and one addition: the speed is that of memory.
"""

import math

import numpy as np

from minigrad.compiled.simd import kernel
from minigrad.compiled.threads import share

COLUMNS = 1024  # in a slab


def scan(a: np.ndarray, x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    """Return all hₜ along an axis, from h = 0; backwards in time if so. Arrays of one shape and type."""
    before, length, after = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    shape = x.shape
    a, x = (np.ascontiguousarray(array).reshape(before, length, after) for array in (a, x))
    h = np.empty_like(x)
    units = before * -(-after // COLUMNS)
    share(lambda part, first, last: _scan(a, x, h, reverse, first, last), units)
    return h.reshape(shape)


@kernel
def _scan(a, x, h, reverse, first, last):
    _, length, after = x.shape
    slabs = -(-after // COLUMNS)
    for unit in range(first, last):
        b, start = unit // slabs, unit % slabs * COLUMNS
        stop = min(start + COLUMNS, after)
        for i in range(length):
            t, earlier = (length - 1 - i, length - i) if reverse else (i, i - 1)
            if i == 0:
                for c in range(start, stop):
                    h[b, t, c] = x[b, t, c]
            else:
                for c in range(start, stop):
                    h[b, t, c] = a[b, t, c] * h[b, earlier, c] + x[b, t, c]
