"""Growth of peak memory with sequence length: softmax attention, forward and backward, each length in a new process.

What is measured is resident memory: its peak over one step less what is resident before, when the inputs q, k, v and
the cotangent of y are there. So it counts y, the gradients of q, k and v, and the workspace besides; the record says
how much the first four are. A length is left out, and named with the reason, where memory would exceed the limit: that
is judged before, from the length below it, or from 512 tokens, and the growth that is claimed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.machine import OtherLoad, circumstances
from benchmarks.runner import POOLS, BenchmarkError, Worker
from benchmarks.workload import find

WORKLOAD = "softmax"
GROWTH = {  # implementation: the power of T that its memory is claimed to grow with
    "minigrad quadratic, NumPy": 2,
    "minigrad lazy, NumPy": 1,
    "minigrad fused": 1,
    "PyTorch, scaled_dot_product_attention": 1,
}
LENGTHS = (1024, 2048, 4096, 8192)
LIMIT = 2.0  # GiB that a step may take
SHORT, PROBE = 16, 512  # tokens of a first step, which loads and compiles, and of one from which memory is foretold
HOURS = 3 * 3600.0  # seconds after which a step is taken to hang


def measure(
    lengths: Sequence[int],
    *,
    threads: int,
    limit: float = LIMIT,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure every implementation at every length; return the record that `results/memory/` keeps."""
    workload = find(WORKLOAD)
    measured: dict[str, dict[int, dict[str, float]]] = {name: {} for name in GROWTH}
    missing: dict[str, dict[int, str]] = {name: {} for name in GROWTH}
    with OtherLoad() as other_load:
        for name, growth in GROWTH.items():
            absent, per_growth = workload.implementation(name).missing(), 0.0  # bytes / T^growth
            for length in lengths:
                if absent:
                    missing[name][length] = f"not installed: {', '.join(absent)}"
                    continue
                if missing[name]:
                    missing[name][length] = next(iter(missing[name].values()))
                    continue
                progress(f"{WORKLOAD}: {name}, {length} tokens")
                try:
                    if length > PROBE and not per_growth:
                        per_growth = step(name, PROBE, threads)["bytes"] / PROBE**growth
                    if per_growth * length**growth > limit * 2**30:
                        missing[name][length] = f"a step would take over {limit:g} GiB"
                        continue
                    measured[name][length] = step(name, length, threads)
                    per_growth = measured[name][length]["bytes"] / length**growth
                except BenchmarkError as error:
                    missing[name][length] = str(error)
    heads, width = workload.sizes["heads"], workload.sizes["width"]
    return {
        "workload": WORKLOAD,
        "title": f"Causal softmax attention, {heads} heads of {width}, forward and backward",
        "sizes": {**workload.sizes, "length": list(lengths)},
        "limit_gib": limit,
        "result_bytes": {str(T): 4 * 4 * heads * T * width for T in lengths},
        "implementations": {
            name: {
                "measured": {str(T): row for T, row in measured[name].items()},
                "missing": {str(T): reason for T, reason in missing[name].items()},
            }
            for name in GROWTH
        },
        "command": f"python -m benchmarks memory {' '.join(map(str, lengths))} --threads {threads} --limit {limit:g}",
        **circumstances(threads, other_load),
    }


def step(name: str, length: int, threads: int) -> dict[str, float]:
    """Return {"bytes", "seconds"} of one step of an implementation in a new process."""
    environment = {**os.environ, **dict.fromkeys(POOLS, str(threads))}
    worker = Worker(find(WORKLOAD), name, environment, HOURS)
    try:
        for tokens in (SHORT, length):
            worker.ask("setup", length=tokens)
            answer = worker.ask("memory", count=1, patience=HOURS)
    finally:
        worker.close()
    return {"bytes": answer["peak"] - answer["before"], "seconds": answer["seconds"]}
