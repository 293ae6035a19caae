"""What surrounds Numba's compiler: compiled code that processes share on disk, and a word to who has to wait for it."""

import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from numba.core.event import Event, Listener, register

PATIENCE = 1.0  # seconds of compiling before it is worth a line


def share_on_disk(dispatcher: Any, *stamp: object) -> None:
    """Let processes read and write a function's code on disk one at a time, and compile it anew for another stamp.

    Numba writes an index and then the code that it names. Between the two another process may take the same name for
    the code of other types, and what is loaded afterwards is not what was asked for.
    """
    file = dispatcher._cache._cache_file
    file._source_stamp = (file._source_stamp, *stamp)
    save, load = file.save, file.load

    def locked_save(key: Any, data: Any) -> None:
        with _alone_in(file._cache_path):
            save(key, data)

    def locked_load(key: Any) -> Any:
        with _alone_in(file._cache_path):
            return load(key)

    file.save, file.load = locked_save, locked_load


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Hold the folder's lock; without one where nothing can be written there, since then nobody writes."""
    try:
        lock = os.open(os.path.join(folder, "minigrad.lock"), os.O_RDWR | os.O_CREAT)
    except OSError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)  # and so the lock is free again


def announce(dispatcher: Any) -> None:
    """Say on a terminal that this function is being compiled, once that takes longer than a second, and how long."""
    _lines.names[dispatcher] = f"{dispatcher.py_func.__module__.rpartition('.')[2]}.{dispatcher.py_func.__name__}"


class _Lines(Listener):
    """`compiling selective_scan._backward … 3.1 s`, on stderr: the end of the line follows when it is done."""

    def __init__(self) -> None:
        self.names: dict[Any, str] = {}
        self.began = 0.0
        self.said = False
        self.timer: threading.Timer | None = None

    def on_start(self, event: Event) -> None:
        name = self.names.get(event.data["dispatcher"])
        if name and sys.stderr.isatty():
            self.began, self.said = time.perf_counter(), False
            self.timer = threading.Timer(PATIENCE, self._say, [name])
            self.timer.daemon = True
            self.timer.start()

    def on_end(self, event: Event) -> None:
        if event.data["dispatcher"] not in self.names or self.timer is None:
            return
        self.timer.cancel()
        self.timer.join()  # what it began to say it has said
        self.timer = None
        if self.said:
            print(f"{time.perf_counter() - self.began:.1f} s", file=sys.stderr)

    def _say(self, name: str) -> None:
        print(f"compiling {name} …", end=" ", file=sys.stderr, flush=True)
        self.said = True


_lines = _Lines()
register("numba:compile", _lines)
