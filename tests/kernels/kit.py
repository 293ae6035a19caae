"""Shared by the tests of the Numba kernels: a number of threads for a block of code."""

import contextlib

import minigrad as mg


@contextlib.contextmanager
def num_threads(count):
    """Set the number of threads inside the block, and restore it after."""
    before = mg.get_num_threads()
    mg.set_num_threads(count)
    try:
        yield
    finally:
        mg.set_num_threads(before)
