"""Run one implementation of a workload in a process of its own, driven over a pipe.

`python -m benchmarks.worker MODULE WORKLOAD IMPLEMENTATION` reads requests, one JSON object a line, and answers each
with one line. A process lives for the whole run, so that imports, compilation and warm caches are not timed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import floors
from benchmarks.workload import Run, Workload, declared

FRAMEWORKS = ("numpy", "scipy", "numba", "torch", "jax", "autograd", "cupy")


def peak_bytes() -> int:
    """Return the largest resident memory since `forget_peak`, or since the start where that does nothing.

    0 on Windows, where that needs another package.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Return freed memory to the system (glibc), and reset the high-water mark of resident memory (Linux)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # another C library: what was freed before counts as resident, and as none when it is used again
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # elsewhere the growth is counted from the peak of the imports: too small, never too large


def versions() -> dict[str, str]:
    """Return the versions of the frameworks that this process has loaded."""
    numbers = {}
    for name in FRAMEWORKS:
        if name in sys.modules:
            try:
                numbers[name] = version(name)
            except PackageNotFoundError:
                numbers[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    return numbers


def threads() -> dict[str, int]:
    """Return how many threads each pool of this process would use."""
    from threadpoolctl import threadpool_info

    pools = {str(pool["internal_api"]): int(pool["num_threads"]) for pool in threadpool_info()}
    if "numba" in sys.modules:
        pools["numba"] = sys.modules["numba"].get_num_threads()
    if "torch" in sys.modules:
        pools["torch"] = sys.modules["torch"].get_num_threads()
    return pools


def keep_to(cores: int) -> None:
    """Restrict this process to so many cores, whatever the size of its libraries' thread pools (Linux).

    XLA, for one, reads no environment variable.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


class Server:
    """Answers requests about one implementation; each public method is a request."""

    def __init__(self, workload: Workload, implementation: str) -> None:
        self.workload = workload
        self.implementation = workload.implementation(implementation)
        self.run: Run | None = None

    def setup(self, **sizes: Any) -> dict[str, Any]:
        """Import the framework and build the work, at the workload's sizes but for those given."""
        self.run = None  # free its memory first
        self.run = self.implementation.setup(**{**self.workload.sizes, **sizes})
        return {}

    def memory(self, count: int, patience: float) -> dict[str, Any]:
        """Run first steps, for at most `patience` seconds; return the time, and resident memory before and at peak."""
        forget_peak()
        before, seconds = peak_bytes(), 0.0
        for _ in range(count):
            seconds += self._steps(1)
            if seconds > patience:
                break
        return {"before": before, "peak": peak_bytes(), "seconds": seconds}

    def results(self, path: str) -> dict[str, Any]:
        """Write what must agree with the other implementations to an `.npz` file."""
        assert self.run is not None
        arrays = {name: np.asarray(value) for name, value in self.run.results().items()}
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return {}

    def steps(self, count: int) -> dict[str, Any]:
        """Time `count` steps."""
        return {"seconds": self._steps(count)}

    def floors(self) -> dict[str, float]:
        """Measure the rates of this machine."""
        return floors.rates()

    def about(self) -> dict[str, Any]:
        """Return versions and sizes of thread pools."""
        return {"versions": versions(), "threads": threads()}

    def _steps(self, count: int) -> float:
        assert self.run is not None
        step, start = self.run.step, perf_counter()
        for _ in range(count):
            step()
        return perf_counter() - start


def main(module: str, name: str, implementation: str) -> None:
    """Answer requests until the pipe closes."""
    keep_to(int(os.environ["MINIGRAD_NUM_THREADS"]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the answers
    workload = next(candidate for candidate in declared(importlib.import_module(module)) if candidate.name == name)
    server = Server(workload, implementation)
    for line in sys.stdin:
        request = json.loads(line)
        method: Callable[..., dict[str, Any]] = getattr(server, request.pop("do"))
        try:
            answer = method(**request)
        except Exception as error:  # noqa: BLE001 - told to the runner, which stops the run and names the implementation
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
