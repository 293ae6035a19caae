"""Is every kernel right on this device: against the same source on the host, and under NVIDIA's own checker."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpu.cases import CASES, Case
from gpu.launch import RoomError
from gpu.precision import BITS

UNITS = 256  # of the last place of the largest number
ROUNDED = 4  # of these units, where what is multiplied has fewer bits than what is added
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZER = ["compute-sanitizer", "--error-exitcode", "1", "--tool"]
ALONE = [sys.executable, "-m", "gpu", "check", "--alone"]


class Found(NamedTuple):
    """How far a kernel's results are from float64 on the host, and how far they may be."""

    kernel: str
    dtype: str
    error: float
    allowed: float
    refused: str = ""  # why it cannot run on this device

    @property
    def right(self) -> bool:
        return bool(self.refused) or self.error <= self.allowed  # NaN is not


def kernels(xp: Any) -> Iterator[Found]:
    """Every kernel in both widths. The host's results are those of the reference forms: the tests hold that."""
    for name, case in CASES.items():
        right = case.run(*case.draw("float64", small=True))
        for dtype in ("float32", "float64"):
            allowed = margin(case, dtype)
            try:
                made = case.run(*map(xp.asarray, case.draw(dtype, small=True)))
            except RoomError as error:
                yield Found(name, dtype, np.nan, allowed, str(error))
                continue
            errors = [
                np.abs(xp.asnumpy(a) - b).max() / max(1, np.abs(b).max()) for a, b in zip(made, right, strict=True)
            ]
            yield Found(name, dtype, float(np.max(errors)), allowed)


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
    return subprocess.run([sys.executable, "-m", "proofs", "check", "forms_agree"]).returncode == 0
