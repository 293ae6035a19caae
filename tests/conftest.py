"""What is not collected where the extra `test` does not install what it needs."""

import functools
import platform
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDS = re.compile(r"^(?:from|import) (?:cupy|tests\.(?:walled|surface|gpu))\b", re.MULTILINE)
REASON = "CuPy, NVRTC and the model of a GPU that g++ compiles are for Linux"


@functools.cache
def left_out(path: Path, system: str = platform.system()) -> bool:
    """Whether a file of tests needs what only Linux has: all of `tests/gpu`, and what imports CuPy."""
    if system == "Linux" or path.suffix != ".py":
        return False
    return path.is_relative_to(ROOT / "tests" / "gpu") or bool(NEEDS.search(path.read_text(encoding="utf-8")))


def pytest_ignore_collect(collection_path):
    """Leave out such files; True is an answer, None leaves it to pytest."""
    return left_out(collection_path) or None


def pytest_report_header():
    """Say so above the results."""
    files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py") if left_out(path))
    return [f"not collected on {platform.system()} ({REASON}): {', '.join(files)}"] if files else []
