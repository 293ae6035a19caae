"""Many threads at once: callers, a changing number of threads, forks, and exceptions."""

import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import minigrad as mg
from minigrad.compiled import threads
from models.memory import delta_rule
from models.ssm import selective_scan
from tests.kernels.kit import num_threads

LIMIT = 30  # seconds after which a test is taken to be blocked


@pytest.fixture(autouse=True)
def same_number_of_threads_afterwards():
    with num_threads(mg.get_num_threads()):
        yield


def at_once(*works):
    """Run functions in threads of their own; raise the exception of the first that fails."""
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result(LIMIT)


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minigrad")]


def scans():
    rng = np.random.default_rng(0)
    u, delta, B, C = (rng.uniform(0.1, 1, shape) for shape in ((2, 40, 32), (2, 40, 32), (2, 40, 4), (2, 40, 4)))
    A, D = -rng.uniform(1, 2, (32, 4)), rng.standard_normal(32)
    return lambda: mg.grad(lambda u, *rest: mg.sum(selective_scan.fused(u, *rest)[0]), argnums=(0, 2, 3))(
        u, delta, A, B, C, D
    )


def rules():
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((3, 8, 60, 16)) / 4
    beta = rng.uniform(size=(8, 60))
    return lambda: mg.grad(lambda k: mg.sum(delta_rule.fused(q, k, v, beta)[0]))(k)


def test_the_number_of_threads_changes_while_others_compute():
    """Compare the results of four callers with those of one thread, while another sets 1, 2, 3 and 5 in turn."""
    mg.set_num_threads(1)
    works = [scans(), rules()]
    expected = [work() for work in works]
    stop, rounds = time.monotonic() + 2, [0] * 4

    def compute(i):
        while time.monotonic() < stop:
            for actual, value in zip(
                mg.pytree.arrays_of(works[i % 2]()), mg.pytree.arrays_of(expected[i % 2]), strict=True
            ):
                np.testing.assert_allclose(actual, value, rtol=1e-10, atol=1e-12)
            rounds[i] += 1

    def change():
        count = 0
        while time.monotonic() < stop:
            mg.set_num_threads((1, 2, 3, 5)[count % 4])
            count += 1
            time.sleep(0.0005)
        assert count > 100

    at_once(change, *(lambda i=i: compute(i) for i in range(4)))
    assert min(rounds) > 3


def test_every_part_is_worked_on_once_however_the_number_changes():
    stop = time.monotonic() + 1

    def work():
        while time.monotonic() < stop:
            items = []
            threads.share(lambda part, first, last, items=items: items.extend(range(first, last)), 11)
            assert sorted(items) == list(range(11))

    def change():
        while time.monotonic() < stop:
            for count in (1, 4, 2, 7):
                mg.set_num_threads(count)

    at_once(work, work, work, change)


def test_no_pool_is_left_behind():
    def pause(*_):
        time.sleep(0.001)

    for count in [2, 3, 4, 5] * 5:
        mg.set_num_threads(count)
        threads.share(pause, count)
    mg.set_num_threads(1)
    gc.collect()
    deadline = time.monotonic() + LIMIT
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not ours()


def test_nested_sharing_does_not_deadlock():
    """Share work from every thread of the pool: none may wait for a thread that waits for it."""
    mg.set_num_threads(3)
    sizes = []

    def outer(part, first, last):
        threads.share(lambda part, first, last: sizes.append(last - first), 6)

    at_once(*[lambda: threads.share(outer, 3)] * 4)
    assert sum(sizes) == 4 * 3 * 6


def test_an_exception_is_raised_when_all_parts_are_done():
    mg.set_num_threads(4)
    finished = []

    def work(part, first, last):
        if part in (1, 3):
            raise ValueError(f"part {part}")
        time.sleep(0.1)
        finished.append(part)

    with pytest.raises(ValueError, match="^part 1$"):
        threads.share(work, 4)
    assert sorted(finished) == [0, 2]
    threads.share(lambda part, first, last: finished.append(part), 4)  # and the threads work on
    assert len(finished) == 6


def test_most_limits_the_number_of_parts():
    mg.set_num_threads(7)
    parts = []
    threads.share(lambda part, first, last: parts.append(part), 20, most=3)
    assert sorted(parts) == [0, 1, 2]


def test_without_items_nothing_is_called():
    threads.share(lambda *_: pytest.fail("was called"), 0)


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_no_thread_can_be_started_the_caller_does_the_work(monkeypatch, allowed):
    mg.set_num_threads(2)  # a pool without threads yet
    mg.set_num_threads(4)
    started, start = [], threading.Thread.start

    def refuse(thread):
        if len(started) >= allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    parts = []
    threads.share(lambda part, first, last: parts.append(part), 4)
    assert sorted(parts) == [0, 1, 2, 3]


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
warned = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@forks
@warned
def test_a_fork_while_others_compute():
    """Compute in the child, which has only its own thread: no lock is left held, and it starts its own pool."""
    mg.set_num_threads(3)
    compute, stop = scans(), threading.Event()
    expected = compute()[0].sum()

    def repeat():
        while not stop.is_set():
            compute()

    others = [threading.Thread(target=repeat) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(20):
            assert exit_code(lambda: abs(compute()[0].sum() - expected) < 1e-9) == 0
    finally:
        stop.set()
        for other in others:
            other.join()


@pytest.fixture
def blas_counts():
    """Return a function that returns the numbers of BLAS threads, 2 before the test."""

    def counts():
        return {library.get_num_threads() for library in threads._blas()}

    before = [library.get_num_threads() for library in threads._blas()]
    threads._set_blas([2] * len(before))
    assert counts() == {2}
    yield counts
    threads._set_blas(before)


def test_blas_threads_are_restored_by_the_last_to_leave(blas_counts):
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first():
        with threads.one_blas_thread():
            first_in.set()
            second_in.wait(LIMIT)
        first_out.set()

    def second():
        first_in.wait(LIMIT)
        with threads.one_blas_thread():
            second_in.set()
            first_out.wait(LIMIT)
            assert blas_counts() == {1}

    at_once(first, second)
    assert blas_counts() == {2}


@forks
@warned
def test_a_fork_while_another_thread_has_blas_in_one_thread(blas_counts):
    """The thread that limited BLAS is not in the child: there the number is restored, in the parent it stays."""
    entered, stop = threading.Event(), threading.Event()

    def enter():
        with threads.one_blas_thread():
            entered.set()
            stop.wait(LIMIT)

    other = threading.Thread(target=enter)
    other.start()
    entered.wait(LIMIT)
    assert exit_code(lambda: blas_counts() == {2} and threads._single == []) == 0
    with threads.one_blas_thread():
        assert exit_code(lambda: blas_counts() == {1} and len(threads._single) == 1) == 0
    assert blas_counts() == {1}
    stop.set()
    other.join()
    assert blas_counts() == {2}


def exit_code(check):
    """Return 0 where the check is true in a forked child, which is killed if it blocks."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return ended(child)


def ended(child):
    """Return the exit code of a child, which is killed if it blocks."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    return os.waitpid(child, 0)[1]
