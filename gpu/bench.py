"""Time every kernel beside its peer and beside its lower bound on this device, all in one run."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu import peers
from gpu.cases import CASES, Case
from gpu.device import MissingError

TOLERANCE = 3e-2  # relative to the largest output: a peer whose first output differs by more computes something else
SHORT = 0.05  # milliseconds: below it, several calls are timed between two events

Call = Callable[[], object]

# Wanted at least: peer time / our time, or lower bound / our time.
GOALS = {
    "delta_rule, bfloat16": ("peer", 1.0),
    "linear_attention, bfloat16": ("peer", 1.0),
    "linear_attention, tensorfloat32": ("peer", 1.0),
    "scan": ("floor", 0.8),
    "selective_scan": ("peer", 1.0),
    "softmax, bfloat16": ("peer", 0.5),
}


class Rates(NamedTuple):
    """Throughput of the device, per millisecond."""

    bytes: float  # read plus written
    flops: float  # float32
    tensor_core_flops: float  # float16 or bfloat16

    def flops_at(self, precision: str) -> float:
        """Return the FLOPs of matrix products at a precision; tensor cores run tf32 at half the rate of bf16."""
        tensor_cores = self.tensor_core_flops
        return {"float32": self.flops, "tensorfloat32": tensor_cores / 2, "bfloat16": tensor_cores}[precision]


class Times(NamedTuple):
    """Milliseconds of a call: first quartile, median, third quartile."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


class Row(NamedTuple):
    """The timings of one kernel, forward alone or forward and backward, in milliseconds."""

    kernel: str
    width: int  # features of keys and values; 0 where a kernel has none
    direction: str  # "forward" or "forward + backward"
    ours: Times | None = None  # None where the device cannot run it
    floor: float | None = None  # lower bound: the longer of memory time and arithmetic time at the device's rates
    bound_by: str = ""  # "bytes" or "operations"
    peer: str = ""  # its name, or why there is no timing of it or of ours
    theirs: Times | None = None

    def goal(self) -> str:
        """Return the goal of the kernel, and whether it was met, missed or not measured."""
        if self.kernel not in GOALS:
            return ""
        against, target = GOALS[self.kernel]
        ratio = _ratio(self.floor if against == "floor" else self.theirs, self.ours)
        outcome = "not measured" if ratio is None else "met" if ratio >= target else "missed"
        return f"{against} / ours ≥ {target:g}: {outcome}"

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row in the table."""
        efficiency, speedup = (f"{x:.2f}" if (x := _ratio(y, self.ours)) else "" for y in (self.floor, self.theirs))
        ours, theirs = (str(x or "") for x in (self.ours, self.theirs))
        return (
            self.kernel,
            str(self.width or ""),
            self.direction,
            ours,
            efficiency,
            self.bound_by,
            self.peer,
            theirs,
            speedup,
            self.goal(),
        )


DIRECTIONS = "forward", "forward + backward"
HEADER = "kernel", "d", "direction", "ms", "floor / ours", "bound by", "peer", "ms", "peer / ours", "goal"


def _ratio(other: Times | float | None, ours: Times | None) -> float | None:
    """Return other / ours, None where one of them is missing."""
    if other is None or ours is None:
        return None
    return (other.median if isinstance(other, Times) else other) / ours.median


def rates(xp: Any, repeats: int, *, size: int = 8192) -> Rates:
    """Measure the device's rates: a copy, and products of square random matrices in float32 and float16."""
    x = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    single, half = xp.asarray(x), xp.asarray(x.astype("float16"))
    products = [functools.partial(xp.matmul, y, y) for y in (single, half)]
    copy_ms, *product_ms = (times.median for times in timed(xp, [single.copy, *products], repeats))
    return Rates(2 * single.nbytes / copy_ms, *(2 * size**3 / ms for ms in product_ms))


def rows(xp: Any, device: Rates, repeats: int, *, kernels: Sequence[str] = (), small: bool = False) -> Iterator[Row]:
    """Measure these kernels, or all, in all their versions, and yield each row as it is done."""
    for name, case in CASES.items():
        if not kernels or name.partition(",")[0] in kernels:
            for width in case.widths or (0,):
                xp.get_default_memory_pool().free_all_blocks()  # PyTorch has an allocator of its own
                yield from _measure(xp, name, case, width, device, repeats, small)


def _measure(xp: Any, name: str, case: Case, width: int, device: Rates, repeats: int, small: bool) -> Iterator[Row]:
    """Yield a kernel's row for forward and that for forward and backward, interleaved with its peer."""
    options = {"width": width} if width else {}
    host_arrays = case.draw(case.dtype, small=small, **options)
    try:
        arrays = tuple(map(xp.asarray, host_arrays))
        results = case.run(*arrays)
    except Exception as error:  # out of memory, or a failure that `check` reports: continue with the other kernels
        yield from (Row(name, width, direction, peer=_first_line(error)) for direction in DIRECTIONS)
        return
    outputs, cotangents = results[: -case.inputs], results[-case.inputs :]
    moved = (
        sum(x.nbytes for x in (*arrays[: case.inputs], *outputs)),
        sum(x.nbytes for x in (*arrays, *cotangents)),
    )
    floors = [
        max((b / device.bytes, "bytes"), (f / device.flops_at(case.precision), "operations"))
        for b, f in zip(moved, case.flops(*arrays), strict=True)
    ]
    float32 = arrays
    if case.dtype != "float32":  # a peer rounds its inputs itself
        float32 = tuple(map(xp.asarray, case.draw("float32", small=small, **options)))
    peer, theirs = _peer(xp, name, float32, outputs[0])
    del results, outputs, cotangents, float32
    for direction, ours, other, parts in (
        ("forward", lambda: case.run_forward(*arrays), theirs and theirs.forward, floors[:1]),
        ("forward + backward", lambda: case.run(*arrays), theirs and theirs.forward_backward, floors),
    ):
        times: list[Times | None] = [*timed(xp, [ours, other] if other else [ours], repeats), None]
        yield Row(name, width, direction, times[0], sum(x for x, _ in parts), max(parts)[1], peer, times[1])


def _peer(xp: Any, name: str, arrays: tuple[Any, ...], y: Any) -> tuple[str, peers.Ready | None]:
    """Return the peer's name and the peer, ready to be called; or the reason why it is missing, and None."""
    if name not in peers.PEERS:
        return "", None
    peer = peers.PEERS[name]
    try:
        theirs = peers.ready(peer, arrays)
        ours, first = xp.asnumpy(y), theirs.first().cpu().numpy()
        theirs.forward_backward()
    except MissingError as error:
        return str(error), None
    except Exception as error:  # a peer's failure does not end the run
        return f"{peer.name} fails: {_first_line(error)}", None
    agrees = np.abs(ours - first).max() <= TOLERANCE * np.abs(ours).max()
    return peer.name + " (its output differs from ours)" * (not agrees), theirs


def _first_line(error: Exception) -> str:
    return str(error) if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}".splitlines()[0]


def timed(xp: Any, calls: Sequence[Call], repeats: int) -> list[Times]:
    """Measure the milliseconds on the device between two events around each call.

    The calls are interleaved, so that each starts with caches filled by another. All are enqueued without
    synchronisation, so that host time overlaps with device time. A first round compiles and tunes the kernels, a second
    one determines how many calls to time together.
    """
    for call in calls:
        call()
    single = [_between(xp, call, 1) for call in calls]
    single[-1][1].synchronize()
    counts = [max(1, math.ceil(SHORT / xp.cuda.get_elapsed_time(*events))) for events in single]
    marks = [[_between(xp, call, count) for call, count in zip(calls, counts, strict=True)] for _ in range(repeats)]
    marks[-1][-1][1].synchronize()
    return [
        Times(*np.quantile([xp.cuda.get_elapsed_time(*events) / count for events in own], (0.25, 0.5, 0.75)).tolist())
        for own, count in zip(zip(*marks, strict=True), counts, strict=True)
    ]


def _between(xp: Any, call: Call, count: int) -> tuple[Any, Any]:
    """Enqueue `count` calls between two events and return the events."""
    start, end = xp.cuda.Event(), xp.cuda.Event()
    start.record()
    for _ in range(count):
        call()
    end.record()
    return start, end


def markdown(title: str, rows: Sequence[Row], earlier: str = "") -> str:
    """Return the table as recorded: rows of an earlier table stay unless they were measured again."""
    by_row = {}
    for text in [*earlier.splitlines()[4:], *map(line, (row.cells() for row in rows))]:
        by_row[text.split(" | ")[0], *text.split(" | ")[1:3]] = text
    return "\n".join([f"# {title}", "", line(HEADER), line(["---"] * len(HEADER)), *by_row.values()]) + "\n"


def line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
