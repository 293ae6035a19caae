"""Threads of the package's own: compiled kernels let go of Python's lock, so plain threads share their work.

They sleep when there is nothing to do, which the pools of OpenMP and of BLAS do not: on few cores a spinning pool takes
the time of whoever works.
"""

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

VARIABLE = "MINIGRAD_NUM_THREADS"
ALONE = 64**3  # multiplications up to which BLAS does not wake its threads
WORTH_SHARING = 1 << 22  # from which on it pays to wake ours
TILE = 64  # rows of a product that stay together
_threads = 0
_pool: ThreadPoolExecutor | None = None
_lock, _single = Lock(), 0  # how many callers want BLAS in one thread now
_before: list[int] = []  # and in how many it was before, library by library


def get_num_threads() -> int:
    """Return how many threads share a kernel's work: what was set, else MINIGRAD_NUM_THREADS, else every core.

    Raises ValueError where MINIGRAD_NUM_THREADS is not a whole number of at least 1.
    """
    if not _threads:
        wanted = os.environ.get(VARIABLE, "")
        if wanted and not (wanted.isdecimal() and int(wanted)):
            raise ValueError(f"{VARIABLE} is {wanted!r}, expected a whole number of at least 1")
        set_num_threads(int(wanted) if wanted else len(os.sched_getaffinity(0)))
    return _threads


def set_num_threads(count: int) -> None:
    """Let this many threads share a kernel's work from now on; 1 leaves it to the caller's own.

    Raises ValueError for fewer than 1.
    """
    global _threads, _pool
    if count < 1:
        raise ValueError(f"set_num_threads: count is {count}, expected at least 1")
    if count != _threads:
        _threads, _pool = count, None


def share(work: Callable[[int, int, int], object], items: int) -> None:
    """Call work(part, first, last) for consecutive parts of range(items), one a thread; return when all are done."""
    global _pool
    if not items:
        return
    parts = min(get_num_threads(), items)
    ends = [items * part // parts for part in range(parts + 1)]
    if parts > 1 and _pool is None:
        _pool = ThreadPoolExecutor(_threads - 1, "minigrad")
    others = [_pool.submit(work, part, ends[part], ends[part + 1]) for part in range(1, parts)] if _pool else []
    work(0, 0, ends[1])
    for other in others:
        other.result()


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x @ y, in these threads and not in BLAS's own, which spin while they wait for work.

    Two processes whose BLAS spins on two cores take five times as long as one after the other.
    """
    multiplications = x.shape[-2] * x.shape[-1] * y.shape[-1]  # of each product of a batch, which BLAS meets one by one
    if multiplications <= ALONE or x.dtype.kind not in "fc" or y.dtype.kind not in "fc":
        return x @ y
    with one_blas_thread():
        if multiplications < WORTH_SHARING or x.ndim != 2 or y.ndim != 2:
            return x @ y
        made, tiles = np.empty((len(x), y.shape[1]), np.result_type(x, y)), -(-len(x) // TILE)

        def work(part: int, first: int, last: int) -> None:
            rows = slice(first * TILE, last * TILE)
            np.matmul(x[rows], y, out=made[rows])

        share(work, tiles)
        return made


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS compute in the thread that calls it and in no other, then as before: `share` has shared the work out."""
    global _single, _before
    with _lock:
        if not _single:
            _before = [library.get_num_threads() for library in _blas()]
            for library in _blas():
                library.set_num_threads(1)
        _single += 1
    try:
        yield
    finally:
        with _lock:
            _single -= 1
            if not _single:
                for library, count in zip(_blas(), _before, strict=True):
                    library.set_num_threads(count)


@functools.cache
def _blas() -> list[Any]:
    """What is loaded of BLAS. Asked one by one: `ThreadpoolController.limit` takes as long as a small product."""
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a child of a fork has none of its parent's threads
