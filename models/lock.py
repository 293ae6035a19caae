"""Locks on folders: one process at a time writes. The system releases a lock when its process ends."""

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from models.errors import UserError

LOCK = ".lock"  # the file stays: deleting it would let two processes lock two files of one name


def claim(folder: str | Path, *, wait: float = 0.0) -> BaseFileLock:
    """Lock a folder, created if missing, for this process until the returned lock is freed.

    Raises: UserError when another process still has it after `wait` seconds, or it cannot be written.
    """
    path = Path(folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True, thread_local=False)
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(f"{folder}: expected a folder that no other process writes to, got one in use") from None
    except OSError as error:
        raise UserError(f"{path}: expected a place to write, got: {error.strerror or error}") from None
    return lock
