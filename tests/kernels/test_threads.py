"""Sharing work between threads."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad.compiled import threads
from tests.kernels.kit import num_threads

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture(autouse=True)
def same_number_of_threads_afterwards():
    with num_threads(mg.get_num_threads()):
        yield


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [1, 2, 5, 20])
def test_every_item_is_worked_on_once(count, items):
    mg.set_num_threads(count)
    parts = {}
    threads.share(lambda part, first, last: parts.__setitem__(part, range(first, last)), items)
    assert sorted(parts) == list(range(min(count, items)))
    assert [i for part in sorted(parts) for i in parts[part]] == list(range(items))


def test_exceptions_of_threads_reach_the_caller():
    mg.set_num_threads(2)

    def work(part, first, last):
        if part == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.share(work, 2)


@pytest.mark.parametrize("count", [0, -1, 1025, 10**9, np.int64(0)])
def test_too_few_or_too_many_threads(count):
    with pytest.raises(ValueError, match=f"^set_num_threads: count is {count}, expected at least 1 and at most 1024$"):
        mg.set_num_threads(count)


@pytest.mark.parametrize("count", [2.0, True, "2", None, np.float64(2), np.True_, [2]])
def test_a_number_of_threads_is_an_integer(count):
    expected = f"set_num_threads: count is {count!r}, expected a whole number from 1 to 1024"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        mg.set_num_threads(count)


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.array])
def test_numpy_integers_are_numbers_of_threads(kind):
    mg.set_num_threads(kind(3))
    assert type(mg.get_num_threads()) is int and mg.get_num_threads() == 3


@pytest.mark.parametrize(("value", "printed"), [("3", "3"), ("", str(CORES))])
def test_the_environment_sets_the_number_of_threads(value, printed):
    command = [sys.executable, "-c", "import minigrad; print(minigrad.get_num_threads())"]
    environment = {**os.environ, threads.VARIABLE: value}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1e9", "1025", "1000000000", "9" * 5000, " 2", "²"])
def test_invalid_numbers_of_threads_in_the_environment(value, monkeypatch):
    monkeypatch.setenv(threads.VARIABLE, value)
    monkeypatch.setattr(threads, "_threads", 0)
    expected = f"MINIGRAD_NUM_THREADS is {value!r}, expected a whole number from 1 to 1024"
    for ask in (mg.get_num_threads, lambda: threads.share(lambda *_: None, 2)):
        with pytest.raises(ValueError, match=f"^{expected}$"):
            ask()
    mg.set_num_threads(2)  # whoever says it in the program does not ask the environment
    assert mg.get_num_threads() == 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int64"])
@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 5), (5, 2)),
        ((100, 90), (90, 80)),
        ((300, 129), (129, 257)),
        ((4, 70, 90), (4, 90, 80)),
        ((700, 400), (400, 40)),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_product_in_threads_of_our_own(shapes, dtype, count):
    mg.set_num_threads(count)
    rng = np.random.default_rng(0)
    x, y = ((9 * rng.standard_normal(shape)).astype(dtype) for shape in shapes)
    transposed = np.swapaxes(np.swapaxes(x, -1, -2).copy(), -1, -2)  # the same numbers, columns first
    for left in (x, transposed):
        product = threads.product(left, y)
        assert product.dtype == dtype
        np.testing.assert_allclose(product, left.astype("D") @ y, rtol=0, atol=2e-5 * abs(product).max())


@pytest.mark.parametrize("rows", [200, 2000])
def test_blas_does_not_wake_its_own_threads(rows, monkeypatch):
    """Check a product of one thread and a larger one; afterwards BLAS has as many threads as before."""
    counts, matmul = [], np.matmul

    def pools():
        return [library.get_num_threads() for library in threads._blas()]

    class Watched(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
            counts.append(pools())
            arrays = [np.asarray(x) for x in (*inputs, *out)]
            return matmul(*arrays[:2], *arrays[2:])

    before = pools()
    threads.product(np.ones((rows, 200)).view(Watched), np.ones((200, 100)))
    assert counts and all(set(each) == {1} for each in counts)
    assert pools() == before
