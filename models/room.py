"""Whether there is memory for what is about to be made: the system may kill a process that finds out by trying."""

import os

from models.errors import UserError


def check_room(what: str, needed: int) -> None:
    """Raise a UserError where `needed` bytes do not fit into the memory that is free now, if the system tells."""
    room = free_memory()
    if room is not None and needed > room:
        raise UserError(f"{what}: expected room for {in_units(needed)}, got {in_units(room)} of free memory")


def free_memory() -> int | None:
    """Return how many bytes a program can still take without swapping, or None where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # at most: macOS does not tell what is free
    except (AttributeError, ValueError, OSError):
        return None


def in_units(count: float) -> str:
    """Return a number of bytes in the unit that leaves few digits, such as 3.1 GB."""
    units = iter(("bytes", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 1000 and (larger := next(units, None)):
        count, unit = count / 1000, larger
    return f"{count:.1f} {unit}"
