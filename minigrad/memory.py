"""Tuning of the C library's allocator for training loops."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
_NEVER, _LARGEST = 2**31 - 1, 32 * 2**20


def keep_freed_memory() -> bool:
    """Let the process keep the memory of freed arrays for the next ones; return whether the C library supports it.

    By default glibc returns the memory of large arrays to the system, which maps and clears every page again: about a
    third of the time of a training step. The setting holds until the process ends, so programs call this, such as
    `models.train`, and no import does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # another C library than glibc
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST))
