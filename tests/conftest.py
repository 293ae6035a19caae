"""Leave out tests whose requirements the extra `test` does not install on this platform."""

import functools
import platform
import re
import signal
from pathlib import Path

ROOT = Path(__file__).parents[1]
REASON = "CuPy, NVRTC and the model of a GPU that g++ compiles are for Linux; ports in C want a compiler"
IN_C = ROOT / "tests" / "port" / "test_ports_in_c.py"


def left_out(path: Path, system: str = platform.system()) -> bool:
    """Return whether a file needs what only Linux has: all of `tests/gpu`, files that import CuPy, and ports in C."""
    if system == "Linux" or path.suffix != ".py":
        return False
    return path == IN_C or path.is_relative_to(ROOT / "tests" / "gpu") or _imports_cupy(path)


@functools.cache
def _imports_cupy(path: Path) -> bool:
    """Return whether a file imports CuPy at its top, or through other files of tests."""
    text = path.read_text(encoding="utf-8")
    if re.search(r"^(?:from|import) cupyx?\b", text, re.MULTILINE):
        return True
    names = re.findall(r"^from (tests\.[\w.]+) import", text, re.MULTILINE)
    helpers = [ROOT / f"{name.replace('.', '/')}.py" for name in names]
    return any(_imports_cupy(helper) for helper in helpers if helper.exists())


def pytest_configure():
    """Let Ctrl-C reach the processes that tests start also where the suite itself runs in a shell's background.

    A shell starts such jobs with SIGINT ignored, and children inherit that: tests that send it waited for two minutes.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path):
    """Leave out such files; True is an answer, None leaves it to pytest."""
    return left_out(collection_path) or None


def pytest_report_header():
    """Say so above the results."""
    files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py") if left_out(path))
    return [f"not collected on {platform.system()} ({REASON}): {', '.join(files)}"] if files else []
