"""Description of the machine in a record: its processor, and the load of other programs."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

STAT = Path("/proc/stat")


class OtherLoad:
    """Measures, over a block, the cores that other programs kept busy: all work of the machine less our own (Linux).

    Our own is this process and its children that ended inside the block. What a hypervisor took counts as others'.
    """

    cores: float | None = None

    def __enter__(self) -> OtherLoad:
        busy = busy_seconds()
        self.start = perf_counter(), busy, 0.0 if busy is None else _own_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        start, busy, own_start = self.start
        if busy is not None and (now := busy_seconds()) is not None:
            other_seconds = (now - busy) - (_own_seconds() - own_start)
            self.cores = round(max(0.0, other_seconds) / (perf_counter() - start), 2)


def busy_seconds() -> float | None:
    """Return the seconds for which cores were busy since boot, or None where the system does not count them."""
    if not STAT.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, STAT.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    import resource  # not on Windows, where busy seconds are not measured either

    usages = (resource.getrusage(process) for process in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def circumstances(threads: int, other_load: OtherLoad) -> dict[str, Any]:
    """Return when this was measured, and on which machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(terse=True),
            "others": other_load.cores,
        },
        "python": platform.python_version(),
        "threads": threads,
    }


def cpu() -> str:
    """Return the processor's name."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
