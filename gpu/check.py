"""Check every kernel on this device: against the emulator in float64, and under compute-sanitizer."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpu.cases import CASES, Case
from gpu.precision import BITS

ULPS = 256  # allowed error, in units of the last place of the largest result
ROUNDED_ULPS = 4  # the same in units of the operand type, where operands are rounded
POISONED = 1 << 26  # numbers set to NaN before a case: more than any case allocates
PARTS = "kernels", "sanitizer", "forms"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# CuPy queries attributes that a driver may not support; that API error is not one of a kernel.
SANITIZER = ["compute-sanitizer", "--error-exitcode=1", "--report-api-errors=no", "--launch-timeout=0", "--tool"]
ALONE = [sys.executable, "-m", "gpu", "check", "kernels", "--apart"]
FORMS = [sys.executable, "-m", "proofs", "check", "forms_agree", "--processes", "4"]  # each with a context of its own


class Result(NamedTuple):
    """The error of a kernel against float64 in the emulator, and the error allowed."""

    kernel: str
    width: int  # of keys and values; 0 for a width that fills no tile, and for kernels without widths
    dtype: str
    error: float
    allowed: float
    refused: str = ""  # why this device has too little memory for it
    failed: str = ""  # the exception raised instead of a result

    @property
    def passed(self) -> bool:
        return bool(self.refused) or self.error <= self.allowed  # False for NaN

    def __str__(self) -> str:
        width = f"d = {self.width}" * bool(self.width)
        outcome = self.refused or self.failed or f"{self.error:.1e} of {self.allowed:.1e}"
        return f"{self.kernel:40} {width:8} {self.dtype:8}  {outcome}{'' if self.passed else '  WRONG'}"


def kernels(xp: Any) -> Iterator[Result]:
    """Check every kernel at every dtype and every width of keys and values.

    The tests check the emulator's results against the reference forms.
    """
    for name, case in CASES.items():
        for width in (0, *case.widths):
            options = {"width": width} if width else {}
            expected = case.run(*case.draw("float64", small=True, **options))
            for dtype in sorted({"float32", "float64" if case.precision == "float32" else case.dtype}):
                result = Result(name, width, dtype, np.nan, margin(case, dtype))
                try:
                    error = _error(xp, case, case.draw(dtype, small=True, **options), expected)
                except MemoryError as exception:
                    yield result._replace(refused=str(exception))
                except Exception as exception:  # report it and continue with the other kernels
                    yield result._replace(failed=f"{type(exception).__name__}: {exception}".splitlines()[0])
                else:
                    yield result._replace(error=error)


def _error(xp: Any, case: Case, inputs: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> float:
    """Return the largest error relative to the largest result. Raises RuntimeError where two runs differ."""
    _poison(xp)
    arrays = tuple(map(xp.asarray, inputs))
    results, again = (tuple(map(xp.asnumpy, case.run(*arrays))) for _ in range(2))
    if any(a.tobytes() != b.tobytes() for a, b in zip(results, again, strict=True)):
        raise RuntimeError("two runs differ in bits: the result depends on the order in which blocks run")
    errors = [np.abs(a - b).max() / max(1, np.abs(b).max()) for a, b in zip(results, expected, strict=True)]
    return float(np.max(errors))


def _poison(xp: Any) -> None:
    """Fill the memory pool with NaN, so that an element which no thread writes cannot hold an earlier right result."""
    xp.get_default_memory_pool().free_all_blocks()
    xp.full(POISONED, np.nan, "float32")


def margin(case: Case, dtype: str) -> float:
    """Return the error allowed for a case, relative to its largest result."""
    if case.precision == "float32" or dtype == "float64":
        return ULPS * float(np.finfo(dtype).eps)
    return ROUNDED_ULPS * 2.0 ** (1 - BITS[case.precision])


def sanitized() -> Iterator[tuple[str, bool]]:
    """Run the kernels under each tool of compute-sanitizer, where installed; yield the tool and whether it passed."""
    for tool in TOOLS if shutil.which(SANITIZER[0]) else ():
        yield tool, subprocess.run([*SANITIZER, tool, *ALONE], stdout=sys.stderr).returncode == 0


def forms() -> bool:
    """Check with `proofs` that all forms and their gradients agree on this device's arrays, within float64 rounding.

    The `fused` forms, which launch the raw kernels, are among them; the reference is the plainest form.
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}  # JAX would reserve most of the device's memory
    return subprocess.run(FORMS, env=environment).returncode == 0
