"""Measure workloads: interleaved rounds over long-lived worker processes.

Another program on the machine slows every implementation of a round alike, so ratios are taken within a round and
their median is what counts; milliseconds belong to the machine and the hour.

In every process glibc keeps freed memory for the next arrays, as `minigrad.keep_freed_memory` has it for ours. By
default it gives large arrays back and maps their pages anew at each step, which took some frameworks here more time
than the work did: mamba.py's training step was 3 times as long, PyTorch's selective scan 4 times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.floors import seconds
from benchmarks.machine import OtherLoad, circumstances
from benchmarks.workload import Workload, disagreement

PATIENCE = 6.0  # seconds of timed steps, after which an implementation leaves out the remaining rounds
# Seconds without an answer, after which a process is taken to hang: JAX's stood still more than once.
ANSWER_TIMEOUT = 300.0
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MINIGRAD_NUM_THREADS")
# For glibc: no mmap, no trimming, a heap that grows in large steps, one arena for all threads.
MALLOC_SETTINGS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**36),
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_ARENA_MAX": "1",
}


class BenchmarkError(RuntimeError):
    """A benchmark that cannot be trusted: a process failed, or two implementations disagree."""


class Worker:
    """A process that holds one implementation (see `benchmarks.worker`)."""

    def __init__(
        self, workload: Workload, name: str, environment: Mapping[str, str], timeout: float | None = None
    ) -> None:
        self.name = f"{workload.name}: {name}"
        self.timeout = ANSWER_TIMEOUT if timeout is None else timeout
        command = [sys.executable, "-m", "benchmarks.worker", workload.module, workload.name, name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises
        ------
        BenchmarkError
            The implementation raised, the process died, or it gave no answer and was ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        limit = threading.Timer(self.timeout, self.process.kill)
        limit.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            limit.cancel()
        answer = json.loads(line) if line else {"error": f"the process ended with status {self.process.wait()}"}
        if "error" in answer:
            raise BenchmarkError(f"{self.name}: {do} failed: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def environment(threads: int) -> dict[str, str]:
    """Return this process's environment with every thread pool set to `threads`, and freed memory kept."""
    return {**os.environ, **dict.fromkeys(POOLS, str(threads)), **MALLOC_SETTINGS}


def measure(
    workload: Workload,
    *,
    rounds: int,
    threads: int,
    patience: float = PATIENCE,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Check, then time every installed implementation of a workload; return the record that `results/` keeps.

    An implementation that was timed for more seconds than `patience` sits out the other rounds.

    Raises
    ------
    BenchmarkError
        An implementation failed, ours is missing, or one disagrees with ours.
    """
    missing = {
        implementation.name: implementation.missing()
        for implementation in workload.implementations
        if implementation.missing()
    }
    ours = workload.implementations[0].name
    if ours in missing:
        raise BenchmarkError(f"{workload.name}: {ours} needs {', '.join(missing[ours])}")
    names = [implementation.name for implementation in workload.implementations if implementation.name not in missing]
    with OtherLoad() as other_load, ExitStack() as stack:
        workers = {name: Worker(workload, name, environment(threads)) for name in names}
        for worker in workers.values():
            stack.callback(worker.close)
        memory = {}
        for name, worker in workers.items():  # one at a time, so that memory and compilation are measured apart
            progress(f"{workload.name}: {name}: first steps")
            worker.ask("setup")
            memory[name] = worker.ask("memory", count=max(2, workload.steps), patience=patience)
        progress(f"{workload.name}: comparing results")
        check(workload, workers)
        times: dict[str, list[float]] = {name: [] for name in names}
        total_seconds = dict.fromkeys(names, 0.0)
        rates: list[dict[str, float]] = []
        for turn in range(rounds):
            progress(f"{workload.name}: round {turn + 1} of {rounds}")
            shift = turn % len(names)  # rotate the order
            for name in names[shift:] + names[:shift]:
                if name == ours or total_seconds[name] <= patience:
                    elapsed = workers[name].ask("steps", count=workload.steps)["seconds"]
                    times[name].append(elapsed / workload.steps / workload.operations)
                    total_seconds[name] += elapsed
            if workload.floor:
                rates.append(workers[ours].ask("floors"))
        about = {name: worker.ask("about") for name, worker in workers.items()}
    result = record(workload, threads, times, memory, about, missing)
    return {**result, **circumstances(threads, other_load), **floor(workload, times[ours], rates)}


def check(workload: Workload, workers: Mapping[str, Worker]) -> None:
    """Compare the results of every implementation with ours.

    Raises
    ------
    BenchmarkError
        One of them differs by more than the workload's tolerance.
    """
    ours = workload.implementations[0].name
    with tempfile.TemporaryDirectory() as folder:
        results: dict[str, dict[str, np.ndarray]] = {}
        for name, worker in workers.items():
            path = Path(folder) / f"{len(results)}.npz"
            worker.ask("results", path=str(path))
            results[name] = dict(np.load(path))
        for name in workers:
            if name != ours and (difference := disagreement(results[ours], results[name], workload.tolerance)):
                raise BenchmarkError(f"{workload.name}: {ours} and {name} disagree: {difference}")


def floor(
    workload: Workload, times: Sequence[float], rates: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """Return the lower bound in seconds, round by round, and the ratio of our time to it."""
    if not rates:
        return {}
    floors = [seconds(workload.floor, each) / workload.operations for each in rates]
    return {
        "floor": {
            "work": dict(workload.floor),
            "rates": {name: quartiles([each[name] for each in rates])["median"] for name in rates[0]},
            "seconds": quartiles(floors),
            "ours_over_this": quartiles([mine / least for mine, least in zip(times, floors, strict=True)]),
        }
    }


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles around it."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(middle), "lower": float(low), "upper": float(high)}


def record(
    workload: Workload,
    threads: int,
    times: Mapping[str, Sequence[float]],
    memory: Mapping[str, Mapping[str, int]],
    about: Mapping[str, Mapping[str, Any]],
    missing: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return all measurements, and the command that repeats them, as a JSON object."""
    ours = workload.implementations[0].name
    measured = {
        name: {
            "peer": name != ours and workload.implementation(name).peer,
            "seconds": {**quartiles(samples), "samples": list(samples)},
            # a slow implementation leaves out the last rounds
            "ours_over_this": quartiles([our / peer for our, peer in zip(times[ours], samples, strict=False)]),
            "memory_bytes": {**memory[name], "growth": memory[name]["peak"] - memory[name]["before"]},
            **about[name],
        }
        for name, samples in times.items()
    }
    return {
        "workload": workload.name,
        "title": workload.title,
        "sizes": dict(workload.sizes),
        "unit": workload.unit,
        "per": workload.per,
        "shows_memory": workload.memory,
        "rounds": len(times[ours]),
        "command": f"python -m benchmarks run {workload.name} --threads {threads} --rounds {len(times[ours])}",
        "ours": ours,
        "implementations": measured,
        "missing": {name: list(modules) for name, modules in missing.items()},
    }
