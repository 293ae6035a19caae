"""How long every kernel takes, beside what people use instead and beside the floor, all measured in one run."""

import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu import peers
from gpu.cases import CASES
from gpu.device import MissingError
from gpu.launch import RoomError

CLOSE = 1e-2  # of its largest number: a peer whose first output is farther from ours does something else


class Rates(NamedTuple):
    """What the device does in a millisecond."""

    bytes: float  # read and written
    operations: float  # of float32
    rounded: float  # of bf16 or float16, on tensor cores

    def at(self, precision: str) -> float:
        """The operations of products at a precision; tensor cores take twice as long for tf32 as for bf16."""
        return {"float32": self.operations, "tensorfloat32": self.rounded / 2, "bfloat16": self.rounded}[precision]


class Row(NamedTuple):
    """One kernel, forward and backward, in milliseconds."""

    kernel: str
    ours: float | None  # where the device can run it
    floor: float | None  # what its bytes or its operations take at the device's own rates, whichever is more
    by: str  # which that is
    peer: str  # its name, or what is missing here for it or for ours
    theirs: float | None


def rates(xp: Any, repeats: int, *, size: int = 4096) -> Rates:
    """The device's rates: of a copy, and of products of two square matrices."""
    x = xp.ones((16 * size, size), "float32")
    products = [functools.partial(xp.matmul, y, y) for y in (xp.ones((size, size), d) for d in ("float32", "float16"))]
    copy, *took = medians(xp, [x.copy, *products], repeats)
    return Rates(2 * x.nbytes / copy, *(2 * size**3 / product for product in took))


def rows(xp: Any, device: Rates, repeats: int, *, small: bool = False) -> Iterator[Row]:
    """Every kernel's row, once it is measured; it and its peer take turns."""
    for name, case in CASES.items():
        inputs = tuple(map(xp.asarray, case.draw("float32", small=small)))
        calls: list[Callable[[], object]] = [functools.partial(case.run, *inputs)]
        try:
            outputs, peer = case.run(*inputs), ""
        except RoomError as error:
            yield Row(name, None, None, "", str(error), None)
            continue
        if name in peers.PEERS:
            try:
                theirs = peers.ready(peers.PEERS[name], inputs)
                peer = peers.PEERS[name].name
                if not _alike(xp, outputs[0], theirs()[0]):
                    peer += ", which does something else"
                calls.append(theirs)
            except MissingError as error:
                peer = str(error)
        moved = sum(x.nbytes for x in (*inputs, *outputs))
        del outputs
        took = medians(xp, calls, repeats)
        floor, by = max((moved / device.bytes, "bytes"), (case.work(*inputs) / device.at(case.precision), "operations"))
        yield Row(name, took[0], floor, by, peer, took[1] if len(took) > 1 else None)


def medians(xp: Any, calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Milliseconds between two events around each call, which take turns; the first round is left out."""
    times: list[list[float]] = [[] for _ in calls]
    for i in range(repeats + 1):
        for call, own in zip(calls, times, strict=True):
            start, end = xp.cuda.Event(), xp.cuda.Event()
            start.record()
            call()
            end.record()
            end.synchronize()
            if i:
                own.append(xp.cuda.get_elapsed_time(start, end))
    return [statistics.median(own) for own in times]


def cells(row: Row) -> tuple[str, ...]:
    """A row in words."""
    ours, floor, theirs = ("" if x is None else f"{x:.3f}" for x in (row.ours, row.floor, row.theirs))
    return row.kernel, ours, floor, row.by, row.peer, theirs


HEADER = ("kernel, float32", "ms", "floor, ms", "set by", "peer", "ms")


def markdown(title: str, found: Sequence[Row]) -> str:
    """The table as it is kept."""
    lines = [f"# {title}", "", *("| " + " | ".join(x) + " |" for x in (HEADER, ["---"] * len(HEADER)))]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in found)]) + "\n"


def _alike(xp: Any, ours: Any, theirs: Any) -> bool:
    a, b = xp.asnumpy(ours), theirs.detach().cpu().numpy()
    return bool(np.abs(a - b).max() <= CLOSE * np.abs(a).max())
