"""Memory that a training step gives back and takes again, step after step."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
_NEVER, _LARGEST = 2**31 - 1, 32 * 2**20


def keep_freed_memory() -> bool:
    """Let the process keep the memory of freed arrays for the next ones, and say whether the C library could be told.

    By default glibc returns large arrays to the system, which then clears and maps every page anew: without this, a
    training step spends about a third of its time there. It holds for the whole process until it ends, so it is for
    programs to call, such as `models.train`, and never called by importing something.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # another C library than glibc
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST))
