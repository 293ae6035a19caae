"""The package's thread pool: compiled kernels release the GIL, so that plain threads share their work.

They sleep when there is nothing to do, which the pools of OpenMP and of BLAS do not: on few cores a spinning pool takes
the time of whoever works.
"""

import functools
import operator
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

VARIABLE = "MINIGRAD_NUM_THREADS"
MOST = 1024  # most threads; a larger number is refused
BLAS_SINGLE_THREAD = 64**3  # multiplications up to which BLAS does not wake its threads
WORTH_SHARING = 1 << 22  # multiplications from which sharing among our threads pays
TILE = 64  # rows of a product that stay together
_lock = threading.RLock()  # guards the following variables; not held while working
_threads = 0
_pool: ThreadPoolExecutor | None = None
_single: list[int] = []  # the threads that are inside `one_blas_thread`
_before: list[int] = []  # the numbers of threads of each BLAS library before


def get_num_threads() -> int:
    """Return how many threads share a kernel's work: what was set, else MINIGRAD_NUM_THREADS, else every core.

    The variable is read once, by the first call or by the first kernel that shares its work. Raises ValueError where
    it is not a whole number from 1 to 1024.
    """
    with _lock:
        if not _threads:
            set_num_threads(_threads_from_environment() or min(_cores(), MOST))
        return _threads


def set_num_threads(count: int) -> None:
    """Set the number of threads that share a kernel's work; with 1 the calling thread does all of it.

    A kernel that is running keeps the threads it began with. Raises TypeError for anything but an integer, and
    ValueError for one that is not from 1 to 1024.
    """
    global _threads, _pool
    try:
        if isinstance(count, bool):
            raise TypeError
        count = operator.index(count)
    except TypeError:
        expected = f"a whole number from 1 to {MOST}"
        raise TypeError(f"set_num_threads: count is {count!r}, expected {expected}") from None
    if not 1 <= count <= MOST:
        raise ValueError(f"set_num_threads: count is {count}, expected at least 1 and at most {MOST}")
    with _lock:
        if count != _threads:
            # The threads of the old pool end when the last kernel that uses it ends.
            _threads, _pool = count, None


def _threads_from_environment() -> int:
    """Return MINIGRAD_NUM_THREADS as an integer, or 0 where it is not set."""
    setting = os.environ.get(VARIABLE, "")
    if setting and not (setting.isdecimal() and len(setting) <= len(str(MOST)) and 1 <= int(setting) <= MOST):
        raise ValueError(f"{VARIABLE} is {setting!r}, expected a whole number from 1 to {MOST}")
    return int(setting or 0)


def _cores() -> int:
    """Return the number of cores this process may use; where the system does not say, that of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(work: Callable[[int, int, int], object], items: int, *, most: int = MOST) -> None:
    """Call work(part, first, last) for consecutive parts of range(items), at most as many as threads and as `most`.

    Parts are taken by whichever thread is free, the caller's included: it waits for none that has not begun, so a
    kernel within a kernel, or any number of callers at once, cannot block each other. When all parts are done, the
    exception of the first one that raised is raised.
    """
    global _pool
    with _lock:
        parts = min(get_num_threads(), items, most)
        if parts > 1 and _pool is None:
            _pool = ThreadPoolExecutor(_threads - 1, "minigrad")
        pool = _pool
    if parts < 2 or pool is None:
        if items:
            work(0, 0, items)
        return
    ends = [items * part // parts for part in range(parts + 1)]
    todo = deque(range(parts))
    outcomes: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()

    def take_parts() -> None:
        while todo:
            try:
                part = todo.popleft()
            except IndexError:  # another thread took the last part
                return
            try:
                work(part, ends[part], ends[part + 1])
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                outcomes.put((part, error))
            else:
                outcomes.put((part, None))

    try:
        for _ in range(parts - 1):
            pool.submit(take_parts)
    except RuntimeError:
        pass  # the system has no more threads, or Python is about to end: fewer threads take more parts each
    take_parts()
    errors = [(part, error) for part, error in (outcomes.get() for _ in range(parts)) if error is not None]
    if errors:
        raise min(errors, key=lambda each: each[0])[1]


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x @ y, computed by this module's threads: those of BLAS spin while they wait for work.

    Two processes whose BLAS spins on two cores take five times as long as one after the other.
    """
    multiplications = (
        x.shape[-2] * x.shape[-1] * y.shape[-1]
    )  # of each product of a batch: BLAS computes them one by one
    if multiplications <= BLAS_SINGLE_THREAD or x.dtype.kind not in "fc" or y.dtype.kind not in "fc":
        return x @ y
    with one_blas_thread():
        if multiplications < WORTH_SHARING or x.ndim != 2 or y.ndim != 2:
            return x @ y
        result, tiles = np.empty((len(x), y.shape[1]), np.result_type(x, y)), -(-len(x) // TILE)

        def work(part: int, first: int, last: int) -> None:
            rows = slice(first * TILE, last * TILE)
            np.matmul(x[rows], y, out=result[rows])

        share(work, tiles)
        return result


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Restrict BLAS to the calling thread within the block, since `share` has already divided the work."""
    global _before
    caller = threading.get_ident()
    with _lock:
        if not _single:
            _before = [library.get_num_threads() for library in _blas()]
            _set_blas([1] * len(_before))
        _single.append(caller)
    try:
        yield
    finally:
        with _lock:
            _single.remove(caller)
            if not _single:
                _set_blas(_before)


def _set_blas(counts: list[int]) -> None:
    """Set the number of threads of each BLAS library, from any thread.

    threadpoolctl lets only the thread that was first to set OpenBLAS's number set it again: here a lock does that.
    """
    for library, count in zip(_blas(), counts, strict=True):
        free = getattr(library, "clear_controlling_thread", lambda **_: None)
        free(force=True)
        library.set_num_threads(count)
        free(force=True)


@functools.cache
def _blas() -> list[Any]:
    """Return the loaded BLAS libraries, cached: `ThreadpoolController.limit` takes as long as a small product."""
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


def _before_fork() -> None:
    """Acquire the locks before a fork, so that the child inherits a consistent state."""
    _lock.acquire()


def _after_fork_in_child() -> None:
    """Reset the pool in a forked child, which has only the thread that forked."""
    global _pool
    _pool = None
    if _single:
        _single[:] = [thread for thread in _single if thread == threading.get_ident()]
        if not _single:
            _set_blas(_before)
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _lock.release(), after_in_child=_after_fork_in_child
    )
