"""How long every kernel takes, beside what people use instead and beside the floor, all measured in one run."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu import peers
from gpu.cases import CASES, Case
from gpu.device import MissingError

CLOSE = 3e-2  # of its largest number: a peer whose first output is farther from ours does something else
SHORT = 0.05  # milliseconds, below which events are put around several calls

Call = Callable[[], object]

# At least so many times as fast as the peer, or such a share of the floor.
GOALS = {
    "delta_rule, bfloat16": ("peer", 1.0),
    "linear_attention, bfloat16": ("peer", 1.0),
    "linear_attention, tensorfloat32": ("peer", 1.0),
    "scan": ("floor", 0.8),
    "selective_scan": ("peer", 1.0),
    "softmax, bfloat16": ("peer", 0.5),
}


class Rates(NamedTuple):
    """What the device does in a millisecond."""

    bytes: float  # read and written
    operations: float  # of float32
    rounded: float  # of bf16 or float16, on tensor cores

    def at(self, precision: str) -> float:
        """The operations of products at a precision; tensor cores take twice as long for tf32 as for bf16."""
        return {"float32": self.operations, "tensorfloat32": self.rounded / 2, "bfloat16": self.rounded}[precision]


class Times(NamedTuple):
    """Milliseconds that a call takes: the median, and the quartiles."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


class Row(NamedTuple):
    """One kernel, forward or both ways, in milliseconds."""

    kernel: str
    width: int  # of keys and values, or 0
    way: str
    ours: Times | None = None  # where the device can run it
    floor: float | None = None  # what its bytes or its operations take at the device's own rates, whichever is more
    by: str = ""  # which that is
    peer: str = ""  # its name, or what is missing here for it or for ours
    theirs: Times | None = None

    def goal(self) -> str:
        """What is wanted of the kernel, and whether it was seen."""
        if self.kernel not in GOALS:
            return ""
        against, wanted = GOALS[self.kernel]
        ratio = _ratio(self.floor if against == "floor" else self.theirs, self.ours)
        seen = "not seen" if ratio is None else "met" if ratio >= wanted else "missed"
        return f"{against} / ours ≥ {wanted:g}: {seen}"

    def cells(self) -> tuple[str, ...]:
        """The row in words."""
        by, gain = (f"{x:.2f}" if (x := _ratio(y, self.ours)) else "" for y in (self.floor, self.theirs))
        ours, theirs = (str(x or "") for x in (self.ours, self.theirs))
        return self.kernel, str(self.width or ""), self.way, ours, by, self.by, self.peer, theirs, gain, self.goal()


HEADER = "kernel", "d", "way", "ms", "floor / ours", "set by", "peer", "ms", "peer / ours", "goal"


def _ratio(other: Times | float | None, ours: Times | None) -> float | None:
    """How many times as long as ours another time is."""
    return (
        None if other is None or ours is None else (other.median if isinstance(other, Times) else other) / ours.median
    )


def rates(xp: Any, repeats: int, *, size: int = 8192) -> Rates:
    """The device's rates: of a copy, and of products of two square matrices of random numbers."""
    x = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    narrow, half = xp.asarray(x), xp.asarray(x.astype("float16"))
    calls = [functools.partial(xp.matmul, y, y) for y in (narrow, half)]
    copy, *took = (times.median for times in timed(xp, [narrow.copy, *calls], repeats))
    return Rates(2 * narrow.nbytes / copy, *(2 * size**3 / product for product in took))


def rows(xp: Any, device: Rates, repeats: int, *, kernels: Sequence[str] = (), small: bool = False) -> Iterator[Row]:
    """The rows of these kernels, or of all, in all their versions, once they are measured."""
    for name, case in CASES.items():
        if not kernels or name.partition(",")[0] in kernels:
            for width in case.widths or (0,):
                xp.get_default_memory_pool().free_all_blocks()  # what the last arrays leave, PyTorch may need
                yield from _pair(xp, name, case, width, device, repeats, small)


def _pair(xp: Any, name: str, case: Case, width: int, device: Rates, repeats: int, small: bool) -> Iterator[Row]:
    """A kernel's row for the way there, and that for both ways; it and its peer take turns."""
    options = {"width": width} if width else {}
    drawn = case.draw(case.dtype, small=small, **options)
    try:
        arrays = tuple(map(xp.asarray, drawn))
        made = case.run(*arrays)
    except Exception as error:  # no room, or what `check` would call wrong: the others go on
        yield from (Row(name, width, way, peer=_first_line(error)) for way in ("forward", "both ways"))
        return
    there, back = made[: -case.inputs], made[-case.inputs :]
    moved = (sum(x.nbytes for x in (*arrays[: case.inputs], *there)), sum(x.nbytes for x in (*arrays, *back)))
    work = case.flops(*arrays)
    floors = [max((b / device.bytes, "bytes"), (w / device.at(case.precision), "operations"))
              for b, w in zip(moved, work, strict=True)]  # fmt: skip
    wide = arrays
    if case.dtype != "float32":  # which the peer rounds as it would have them
        wide = tuple(map(xp.asarray, case.draw("float32", small=small, **options)))
    peer, theirs = _peer(xp, name, wide, there[0])
    del made, there, back, wide
    for way, ours, other, parts in (
        ("forward", lambda: case.run_forward(*arrays), theirs and theirs.forward, floors[:1]),
        ("both ways", lambda: case.run(*arrays), theirs and theirs.both, floors),
    ):
        took: list[Times | None] = [*timed(xp, [ours, other] if other else [ours], repeats), None]
        yield Row(name, width, way, took[0], sum(x for x, _ in parts), max(parts)[1], peer, took[1])


def _peer(xp: Any, name: str, arrays: tuple[Any, ...], y: Any) -> tuple[str, peers.Ready | None]:
    """What the peer is called, and it; or why there is none here."""
    if name not in peers.PEERS:
        return "", None
    peer = peers.PEERS[name]
    try:
        theirs = peers.ready(peer, arrays)
        ours, first = xp.asnumpy(y), theirs.first().cpu().numpy()
        theirs.both()
    except MissingError as error:
        return str(error), None
    except Exception as error:  # it is no fault of ours: the other rows go on
        return f"{peer.name} fails: {_first_line(error)}", None
    alike = np.abs(ours - first).max() <= CLOSE * np.abs(ours).max()
    return peer.name + ", which does something else" * (not alike), theirs


def _first_line(error: Exception) -> str:
    return str(error) if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}".splitlines()[0]


def timed(xp: Any, calls: Sequence[Call], repeats: int) -> list[Times]:
    """Milliseconds on the device between two events around each call.

    The calls take turns, so that each finds in the caches what another has left there. The host asks for all of it
    without waiting, so that its own work for a call is done while the device does the last one's. First comes a round
    in which kernels are compiled and tuned, and one that says how long a call takes.
    """
    for call in calls:
        call()
    alone = [_between(xp, call, 1) for call in calls]
    alone[-1][1].synchronize()
    counts = [max(1, math.ceil(SHORT / xp.cuda.get_elapsed_time(*events))) for events in alone]
    marks = [[_between(xp, call, count) for call, count in zip(calls, counts, strict=True)] for _ in range(repeats)]
    marks[-1][-1][1].synchronize()
    return [
        Times(*np.quantile([xp.cuda.get_elapsed_time(*events) / count for events in own], (0.25, 0.5, 0.75)).tolist())
        for own, count in zip(zip(*marks, strict=True), counts, strict=True)
    ]


def _between(xp: Any, call: Call, count: int) -> tuple[Any, Any]:
    """The events before and after so many calls."""
    start, end = xp.cuda.Event(), xp.cuda.Event()
    start.record()
    for _ in range(count):
        call()
    end.record()
    return start, end


def markdown(title: str, found: Sequence[Row], before: str = "") -> str:
    """The table as it is kept. The rows of an earlier one stay, unless they were measured again."""
    kept = {}
    for text in [*before.splitlines()[4:], *map(line, (row.cells() for row in found))]:
        kept[text.split(" | ")[0], *text.split(" | ")[1:3]] = text
    return "\n".join([f"# {title}", "", line(HEADER), line(["---"] * len(HEADER)), *kept.values()]) + "\n"


def line(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"
