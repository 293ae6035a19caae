"""Is every kernel right on this device: against the same source on the host, and under NVIDIA's own checker."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpu.cases import CASES, Case
from gpu.precision import BITS

UNITS = 256  # of the last place of the largest number
ROUNDED = 4  # of these units, where what is multiplied has fewer bits than what is added
UNWRITTEN = 1 << 26  # numbers: more than any case needs
PARTS = "kernels", "sanitizer", "forms"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# CuPy asks for attributes that a driver may not know, and takes no for an answer: that is no error of a kernel.
SANITIZER = ["compute-sanitizer", "--error-exitcode=1", "--report-api-errors=no", "--launch-timeout=0", "--tool"]
ALONE = [sys.executable, "-m", "gpu", "check", "kernels", "--apart"]
FORMS = [sys.executable, "-m", "proofs", "check", "forms_agree", "--processes", "4"]  # each with a context of its own


class Found(NamedTuple):
    """How far a kernel's results are from float64 on the host, and how far they may be."""

    kernel: str
    width: int  # of keys and values; 0 for some that fill no tile, and for kernels without
    dtype: str
    error: float
    allowed: float
    refused: str = ""  # why this device has no room for it
    failed: str = ""  # what was raised instead of a result

    @property
    def right(self) -> bool:
        return bool(self.refused) or self.error <= self.allowed  # NaN is not

    def __str__(self) -> str:
        width = f"d = {self.width}" * bool(self.width)
        said = self.refused or self.failed or f"{self.error:.1e} of {self.allowed:.1e}"
        return f"{self.kernel:40} {width:8} {self.dtype:8}  {said}{'' if self.right else '  WRONG'}"


def kernels(xp: Any) -> Iterator[Found]:
    """Every kernel in both widths of numbers, and in all of keys and values.

    The host's results are those of the reference forms: the tests hold that.
    """
    for name, case in CASES.items():
        for width in (0, *case.widths):
            options = {"width": width} if width else {}
            right = case.run(*case.draw("float64", small=True, **options))
            for dtype in sorted({"float32", "float64" if case.precision == "float32" else case.dtype}):
                found = Found(name, width, dtype, np.nan, margin(case, dtype))
                try:
                    error = _error(xp, case, case.draw(dtype, small=True, **options), right)
                except MemoryError as none:
                    yield found._replace(refused=str(none))
                except Exception as other:  # whatever it is, it is wrong, and no reason to leave the rest unseen
                    yield found._replace(failed=f"{type(other).__name__}: {other}".splitlines()[0])
                else:
                    yield found._replace(error=error)


def _error(xp: Any, case: Case, drawn: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]) -> float:
    """The largest error of a case's results, of the largest number. Raises RuntimeError where two runs differ."""
    _leave_unwritten(xp)
    arrays = tuple(map(xp.asarray, drawn))
    made, again = (tuple(map(xp.asnumpy, case.run(*arrays))) for _ in range(2))
    if any(a.tobytes() != b.tobytes() for a, b in zip(made, again, strict=True)):
        raise RuntimeError("a second run gives other bits, where no result should depend on who comes first")
    errors = [np.abs(a - b).max() / max(1, np.abs(b).max()) for a, b in zip(made, right, strict=True)]
    return float(np.max(errors))


def _leave_unwritten(xp: Any) -> None:
    """NaN into the memory that CuPy keeps for new arrays: what no thread writes is no older result that was right."""
    xp.get_default_memory_pool().free_all_blocks()
    xp.full(UNWRITTEN, np.nan, "float32")


def margin(case: Case, dtype: str) -> float:
    """How far the results of a case may be from float64, of their largest number."""
    if case.precision == "float32" or dtype == "float64":
        return UNITS * float(np.finfo(dtype).eps)
    return ROUNDED * 2.0 ** (1 - BITS[case.precision])


def sanitized() -> Iterator[tuple[str, bool]]:
    """Whether each tool of compute-sanitizer finds the same run clean; nothing where there is no compute-sanitizer."""
    for tool in TOOLS if shutil.which(SANITIZER[0]) else ():
        yield tool, subprocess.run([*SANITIZER, tool, *ALONE], stdout=sys.stderr).returncode == 0


def forms() -> bool:
    """Whether all forms agree on this device's arrays, and their gradients: `proofs` draws and judges them.

    The `fused` ones are among them, whose raw kernels make both; what they agree with is the plainest form, and how far
    they may be from it is what float64 rounds.
    """
    apart = {**os.environ, "JAX_PLATFORMS": "cpu"}  # where it is judged too; it would take most of the device's memory
    return subprocess.run(FORMS, env=apart).returncode == 0
