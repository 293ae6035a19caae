"""Freed memory stays with the process: the same arrays a second time cost no new pages."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
import minigrad as mg

told = {told} and mg.keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(2**20) for _ in range(8)]  # 8 MiB each
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(told, *(faults() for _ in range(3)))
"""


def run(keeps):
    process = subprocess.run(
        [sys.executable, "-c", FAULTS.format(told=keeps)], capture_output=True, text=True, check=True
    )
    supported, first, _, third = process.stdout.split()
    return supported == "True", int(first), int(third)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say how many pages a process was given")
def test_memory_is_kept_where_the_c_library_can_be_told():
    _, first, third = run(False)
    assert third > first / 4  # what happens by default
    keeps, first, third = run(True)
    assert not keeps or third < first / 20  # glibc; another C library says False and goes on as before
