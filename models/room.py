"""Memory limits: the memory a run needs, compared with what is available before it starts."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from models.errors import UserError

FLOAT = 4  # bytes of a float32
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def require(needed: int, description: str, advice: str) -> None:
    """Raise a UserError if `needed` bytes exceed the available ones; where these are unknown, do nothing."""
    free = available()
    if free is not None and needed > free:
        raise UserError(
            f"memory: expected {description} to fit into {in_words(free)}, got {in_words(needed)} (try {advice})"
        )


def available() -> int | None:
    """Return the memory available to a process on the machine and in its container; None where both are unknown.

    On Linux that is free memory, on other systems with `os.sysconf` all of it.
    """
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        yield max(0, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    try:
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        yield 1024 * int(line.split()[1])
        return
    except (OSError, StopIteration):
        pass
    try:
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        pass


def peak(work: Callable[[], Any]) -> int:
    """Return the most bytes that `work` had allocated at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def in_words(size: float) -> str:
    """Return a number of bytes in the largest unit of which there is one."""
    unit = 0
    while size >= 1024 and unit + 1 < len(UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size:,.3g} {UNITS[unit]}" if size < 1000 else f"{size:,.0f} {UNITS[unit]}"
