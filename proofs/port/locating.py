"""Find the line of a port in an exception, on a stack, or in what `faulthandler` wrote about a process that ended."""

from __future__ import annotations

import inspect
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
KIT = [str(ROOT / name) for name in ("minigrad", "models", "proofs")]
LIBRARIES = (*KIT, *filter(None, map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))))

Frames = Iterable[tuple[str, int]]  # a file's name and a line of it, the innermost frame last


def file_of(function: Callable[..., Any]) -> str:
    """Return the file that a function is written in, empty where that is not known."""
    function = inspect.unwrap(function)
    return getattr(getattr(function, "__code__", None), "co_filename", "")


def described(error: BaseException, file: str = "") -> str:
    """Return an exception in one line, with the line of the port's file, or else of the user's, that raised it."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno or 0))
    return f"{type(error).__name__}: {text[:300]}".removesuffix(": ") + line_of(frames, file)


def line_on_stack(frame: FrameType | None, file: str) -> str:
    """Return the line of the port's file that a frame is called from."""
    frames = [(summary.filename, summary.lineno or 0) for summary in traceback.extract_stack(frame)]
    return line_of(frames, file)


def line_in_dump(dump: str, file: str) -> str:
    """Return the line of the port's file in a dump of `faulthandler`, whose innermost frames come first."""
    found = re.findall(r'^  File "(.*)", line (\d+)', dump, re.MULTILINE)
    return line_of([(name, int(line)) for name, line in reversed(found)], file)


def line_of(frames: Frames, file: str) -> str:
    """Return " (my_port.py, line 12)" for the innermost frame in this file, or else in no library; else ""."""
    frames = list(frames)
    own = [frame for frame in frames if file and Path(frame[0]).resolve() == Path(file).resolve()]
    others = [] if own else [frame for frame in frames if not frame[0].startswith(("<", *LIBRARIES))]
    for name, line in reversed(own or others):
        return f" ({Path(name).name}, line {line})"
    return ""
