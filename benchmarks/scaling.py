"""Growth of time with sequence length: ours beside one peer from 512 tokens on, doubling, and the fitted exponent.

    t(T) ≈ c Tᵅ        α by least squares through log t against log T, over the upper half of the lengths

A length is left out, and named with the reason, where a step would take longer than the limit: that is judged before,
from the length below it and the growth that is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.machine import OtherLoad, circumstances
from benchmarks.runner import BenchmarkError, Worker, environment, quartiles
from benchmarks.workload import Workload, find

SHORTEST, LONGEST = 512, 65_536
LIMIT, SAMPLE = 5.0, 0.1  # seconds that a step may take, and that a sample takes at least


@dataclass(frozen=True)
class Curve:
    """A workload at several lengths, with one peer and the theoretical growth."""

    workload: str
    peer: str
    growth: float
    claim: str  # the growth, in words
    sizes: Mapping[str, int] = field(default_factory=dict)  # in place of the workload's own, to leave room for length


CURVES = {
    curve.workload: curve
    for name, peer, growth, claim, sizes in (
        ("selective_scan", "JAX lax.scan, rematerialised", 1, "T", {}),
        ("linear_attention", "JAX, chunks", 1, "T", {}),
        ("delta_rule", "PyTorch, WY and triangular solve", 1, "T", {}),  # JAX's stood still here
        ("softmax", "PyTorch, scaled_dot_product_attention", 2, "T²", {}),
        ("s4d", "JAX", 1, "T log T", {"batch": 1, "channels": 64}),
    )
    for curve in (
        Curve(f"{name}_forward", peer, growth, claim, sizes),
        Curve(name, peer, growth, claim, sizes),
    )
}


def curves(names: Sequence[str]) -> list[Curve]:
    """Return the curves of these workloads, or all.

    Raises LookupError where a workload has none.
    """
    for name in names:
        if name not in CURVES:
            raise LookupError(f"scale: {find(name).name} has no curve, expected one of {', '.join(CURVES)}")
    return [CURVES[name] for name in names] or list(CURVES.values())


def lengths(longest: int = LONGEST) -> list[int]:
    """Return 512, 1024, … up to the longest."""
    return [SHORTEST << i for i in range((longest // SHORTEST).bit_length())]


class Walk:
    """One implementation, measured at growing lengths until one takes too long."""

    def __init__(self, workload: Workload, name: str, threads: int, limit: float) -> None:
        absent = workload.implementation(name).missing()
        self.stopped = f"not installed: {', '.join(absent)}" if absent else ""
        self.worker = None if absent else Worker(workload, name, environment(threads))
        self.limit, self.count, self.samples = limit, 1, list[float]()
        self.times: dict[int, dict[str, float]] = {}

    def begin(self, length: int, sizes: Mapping[str, int], growth: float) -> None:
        """Set up a length and warm up, unless the time at half of it predicts a step over the limit."""
        self.samples = []
        if (previous := self.times.get(length // 2)) and previous["median"] * 2**growth > self.limit:
            self.stop(f"a step would take over {self.limit:g} s")
        if self.stopped or not self.worker:
            return
        try:
            self.worker.ask("setup", **sizes, length=length)
            self.worker.ask("memory", count=1, patience=self.limit)  # which compiles
            seconds = self.worker.ask("steps", count=1)["seconds"]
        except BenchmarkError as error:
            self.stop(str(error))
        else:
            self.count = max(1, min(100, round(SAMPLE / seconds)))

    def sample(self) -> None:
        """Time some steps."""
        if self.worker and not self.stopped:
            self.samples.append(self.worker.ask("steps", count=self.count)["seconds"] / self.count)

    def finish(self, length: int) -> None:
        """Store the quartiles of the samples as the time of this length."""
        if self.samples:
            self.times[length] = quartiles(self.samples)

    def stop(self, reason: str) -> None:
        """End the course at this length, for a reason."""
        self.stopped = reason
        self.close()

    def close(self) -> None:
        """End the worker process."""
        if self.worker:
            self.worker.close()


def measure(
    curve: Curve,
    *,
    threads: int,
    rounds: int = 3,
    limit: float = LIMIT,
    longest: int = LONGEST,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time ours and the peer length by length, taking turns; return the record that `results/scaling/` keeps."""
    workload = along(curve)
    with OtherLoad() as other_load, ExitStack() as stack:
        walks = {
            implementation.name: Walk(workload, implementation.name, threads, limit)
            for implementation in workload.implementations
        }
        for walk in walks.values():
            stack.callback(walk.close)
        for length in lengths(longest):
            progress(f"{workload.name}: {length} tokens")
            for walk in walks.values():
                walk.begin(length, curve.sizes, curve.growth)
            for _ in range(rounds):
                for walk in walks.values():
                    walk.sample()
            for walk in walks.values():
                walk.finish(length)
    command = f"python -m benchmarks scale {curve.workload} --threads {threads} --rounds {rounds} --limit {limit:g}"
    result = record(curve, workload, walks, lengths(longest))
    return {**result, "command": command, **circumstances(threads, other_load)}


def along(curve: Curve) -> Workload:
    """Return the curve's workload with ours and the one peer."""
    workload = find(curve.workload)
    return replace(workload, implementations=(workload.implementations[0], workload.implementation(curve.peer)))


def exponent(times: Mapping[int, float]) -> float | None:
    """Return the α that fits the upper half of the lengths, at least three of them; None where there are fewer."""
    upper = sorted(times)[-max(3, (len(times) + 1) // 2) :]
    if len(upper) < 3:
        return None
    return float(np.polyfit(np.log(upper), np.log([times[T] for T in upper]), 1)[0])


def record(curve: Curve, workload: Workload, walks: Mapping[str, Walk], all_lengths: Sequence[int]) -> dict[str, Any]:
    """Return times, fits and missing lengths as a JSON object."""
    name, forward = curve.workload.removesuffix("_forward").replace("_", " "), curve.workload.endswith("_forward")
    return {
        "workload": curve.workload,
        "title": f"{name}, {'forward' if forward else 'forward and backward'}",
        "sizes": {**workload.sizes, **curve.sizes, "length": list(all_lengths)},
        "growth": curve.claim,
        "ours": workload.implementations[0].name,
        "implementations": {
            name: {
                "seconds": {str(T): times for T, times in walk.times.items()},
                "exponent": exponent({T: times["median"] for T, times in walk.times.items()}),
                "missing": {str(T): walk.stopped for T in all_lengths if T not in walk.times},
            }
            for name, walk in walks.items()
        },
    }
