"""A disk cache of compiled functions that processes share, and a progress line while one is compiled."""

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.event import Event, Listener, register
from numba.core.serialize import dumps

PATIENCE = 1.0  # seconds of compiling after which a line is printed
VERSIONS = sys.version, numba.__version__, llvmlite.__version__


def keep_on_disk(dispatcher: Any, *stamp: object) -> None:
    """Keep a function's compiled code on disk, and compile it anew for another stamp, source or version.

    Where Numba finds no folder that can be written (NUMBA_CACHE_DIR, beside the source, the user's cache), every
    process compiles for itself, after one warning.
    """
    try:
        dispatcher._cache = _Cache(dispatcher.py_func, stamp)
    except RuntimeError as error:
        _warn_once(f"compiled code is not kept, every process compiles again: {error} (see NUMBA_CACHE_DIR)")


class _Cache(NullCache):
    """One file for the code of each signature, written whole or not at all.

    Numba's own cache is an index and the files that it names: what is cut short, or written by two processes at once,
    there leads to errors or to the code of other types. Here a file begins with the digest of all that its code
    depends on and of the code itself. Another version's, a damaged or a foreign file has another digest: the function
    is compiled again, and the file replaced.
    """

    def __init__(self, function: Any, stamp: tuple[object, ...]) -> None:
        self._impl = CompileResultCacheImpl(function)  # raises RuntimeError where no folder can be written
        self._function, self._stamp = function, stamp

    @property
    def cache_path(self) -> str:
        """Return the folder."""
        return self._impl.locator.get_cache_path()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code compiled for a signature, or None."""
        target_context.refresh()
        key, path = self._key(sig, target_context.codegen())
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, code = content[:32], content[32:]
        if digest != self._digest(key, code):
            return None
        return self._impl.rebuild(target_context, pickle.loads(code))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the code compiled for a signature; where that fails, warn once and keep it in this process only."""
        if not self._impl.check_cachable(data):
            return
        key, path = self._key(sig, data.codegen)
        code = dumps(self._impl.reduce(data))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, self._digest(key, code) + code)
        except OSError as error:
            _warn_once(f"compiled code is not kept: {error}")

    def _key(self, sig: Any, codegen: Any) -> tuple[str, Path]:
        """Return the key of the code, its signature and processor, and the name of its file."""
        key = repr((sig, codegen.magic_tuple()))
        name = f"{self._impl.filename_base}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.nbc"
        return key, Path(self.cache_path, name)

    def _digest(self, key: str, code: bytes) -> bytes:
        return hashlib.sha256(repr((self._made_of, key)).encode() + code).digest()

    @functools.cached_property
    def _made_of(self) -> tuple[object, ...]:
        """Return all the code depends on but the signature; called once its module is fully imported."""
        return VERSIONS, self._stamp, self._impl.locator.get_source_stamp(), _inlined(self._function)


def _inlined(function: Any) -> list[bytes]:
    """Return the digests of the files of all compiled functions that a function calls, which become part of its code.

    Numba's own cache looks at the file of the function alone.
    """
    visited, todo = set(), [function]
    while todo:
        current = todo.pop()
        if current not in visited:
            visited.add(current)
            callees = (current.__globals__.get(name) for name in current.__code__.co_names)
            todo += [other.py_func for other in callees if hasattr(other, "py_func")]
    files = sorted({Path(inspect.getfile(each)) for each in visited})
    return [hashlib.sha256(file.read_bytes()).digest() for file in files if file.exists()]


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary name in the same folder, then rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if not (os.name == "nt" and path.exists()):  # Windows replaces no file that another process is reading
            raise


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    """Warn of the first of all functions that cannot be kept: the others cannot for the same reason."""
    if not _warned:
        _warned.add(message)
        warnings.warn(message, stacklevel=3)


def announce(dispatcher: Any) -> None:
    """Say on a terminal that this function is being compiled, once that takes longer than a second, and how long."""
    _lines.names[dispatcher] = f"{dispatcher.py_func.__module__.rpartition('.')[2]}.{dispatcher.py_func.__name__}"


class _Lines(Listener):
    """`compiling selective_scan._backward … 3.1 s`, on stderr: the end of the line follows when it is done.

    The line is that of the function that is called, not of those that it calls and that are compiled meanwhile.
    """

    def __init__(self) -> None:
        self.names: dict[Any, str] = {}
        self.waiting: Any = None  # the function that the line is about
        self.began = 0.0
        self.said = False
        self.timer: threading.Timer | None = None

    def on_start(self, event: Event) -> None:
        dispatcher = event.data["dispatcher"]
        if dispatcher in self.names and self.waiting is None and sys.stderr.isatty():
            self.waiting, self.began, self.said = dispatcher, time.perf_counter(), False
            self.timer = threading.Timer(PATIENCE, self._say, [self.names[dispatcher]])
            self.timer.daemon = True
            self.timer.start()

    def on_end(self, event: Event) -> None:
        if self.timer is None or event.data["dispatcher"] is not self.waiting:
            return
        self.waiting = None
        self.timer.cancel()
        self.timer.join()  # the line has been begun, so it is finished
        self.timer = None
        if self.said:
            print(f"{time.perf_counter() - self.began:.1f} s", file=sys.stderr)

    def _say(self, name: str) -> None:
        print(f"compiling {name} …", end=" ", file=sys.stderr, flush=True)
        self.said = True


_lines = _Lines()
register("numba:compile", _lines)
