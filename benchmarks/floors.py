"""Lower bounds of run time on this machine: exponentials, memory and multiplications at their full rate.

    floor = max(bytes / triad, exponentials / exp2 + operations / GEMM)

Exponentials and multiplications share the processor's arithmetic, so their times add up; memory is moved meanwhile. The
three rates are measured between the rounds of a benchmark, in the process of our own implementation and on its threads:

    exp2     the exponential of `minigrad.compiled.simd`, in the first-level cache         a second
    triad    a ← b + s c over arrays that no cache holds (McCalpin 1995)           bytes a second, three arrays counted
    GEMM     a product of two matrices of 1024 × 1024 in float32, by BLAS          operations a second, two a product
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np

EXPONENTS, WIDE, SIDE = 4096, 2**23, 1024  # numbers in the first-level cache, numbers in none, rows of a matrix


def rates() -> dict[str, float]:
    """Return each rate, from the best of a few tries, which other load disturbs least."""
    from benchmarks.floor_kernels import exponentials, triad
    from minigrad.compiled.threads import get_num_threads, share

    threads = get_num_threads()
    x = np.linspace(-20, 0, EXPONENTS * threads, dtype=np.float32)
    a, b, c = (np.ones(WIDE, np.float32) for _ in range(3))
    A, B = np.ones((2, SIDE, SIDE), np.float32)
    repeats = 200
    return {
        "exp2": repeats * x.size / _best(lambda: share(lambda i, *_: exponentials(x, EXPONENTS, i, repeats), threads)),
        "triad": 3 * a.nbytes / _best(lambda: share(lambda _, first, last: triad(a, b, c, first, last), a.size)),
        "GEMM": 2 * SIDE**3 / _best(lambda: A @ B),
    }


def seconds(work: Mapping[str, float], rates: Mapping[str, float]) -> float:
    """Return the lower bound in seconds for these numbers of exponentials, bytes and operations."""
    arithmetic = work.get("exponentials", 0) / rates["exp2"] + work.get("operations", 0) / rates["GEMM"]
    return max(arithmetic, work.get("bytes", 0) / rates["triad"])


def _best(do: Callable[[], Any], tries: int = 4) -> float:
    seconds = []
    for _ in range(tries):
        start = perf_counter()
        do()
        seconds.append(perf_counter() - start)
    return min(seconds[1:])  # the first one compiles
