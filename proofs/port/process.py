"""Check a port in a process of its own, which may crash, hang or exit.

Where a run of the port ends the process, the check begins again in a new one, in which that run is a failure and is not
made: so it stands in the report beside all others. After a run that took too long, or that ended the eighth process,
only those runs are made that had returned.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from proofs.port.locating import ROOT, line_in_dump
from proofs.port.worker import UNDECIDED, Answer, Request

PROCESSES = 8  # that a port may end
GRACE = 15.0  # seconds after the time limit in which a process should have ended itself


def answer_of_process(request: Request) -> Answer:
    """Return the answer of a process that makes this check."""
    reason = ""
    for number in range(1, PROCESSES + 2):
        with tempfile.TemporaryDirectory(prefix="port-") as name:
            folder = Path(name)
            code = _run(folder, request)
            if (folder / "answer.json").is_file():
                return Answer(**json.loads((folder / "answer.json").read_text(encoding="utf-8")))
            calls = _lines(folder / "calls")
            reason, too_long = _reason(folder, code, request)
        if not calls:
            return Answer(UNDECIDED, f"port: {request.place.rpartition(':')[0]} cannot be imported: {reason}")
        runs = [line.split()[1:] for line in calls if line.startswith("run ")]
        if not _running(calls):
            return Answer(UNDECIDED, f"port: the check cannot be finished: {reason}{_after(runs)}")
        keys = [key for key, *_ in runs]
        request = replace(request, ended={**request.ended, keys[-1]: [reason, *runs[-1][1:]]})
        if too_long or number == PROCESSES:
            request = replace(request, only=keys[:-1], options={**request.options, "statements": False})
    return Answer(UNDECIDED, f"port: the check cannot be finished: {PROCESSES + 1} processes ended: {reason}")


def _run(folder: Path, request: Request) -> int | None:
    """Run a process on this request, and return its exit code; None where it had to be ended."""
    (folder / "request.json").write_text(json.dumps(asdict(request)), encoding="utf-8")
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    with open(folder / "stdout", "wb") as stdout, open(folder / "stderr", "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "proofs.port.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            return _wait(process, folder / "calls", request.time_limit)
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], calls: Path, limit: float) -> int | None:
    """Wait for the end, or until a run is well over the time limit and has not been ended in the process itself."""
    known, since = 0, time.monotonic()
    while True:
        try:
            return process.wait(0.2)
        except subprocess.TimeoutExpired:
            lines = _lines(calls)
        if len(lines) != known or not _running(lines):
            known, since = len(lines), time.monotonic()
        if limit and time.monotonic() - since > limit + GRACE:
            return None


def _lines(calls: Path) -> list[str]:
    return calls.read_text(encoding="utf-8").splitlines() if calls.is_file() else []


def _running(lines: list[str]) -> bool:
    """Return whether the port is being imported or run."""
    return not lines or lines[-1].startswith("run ")


def _after(runs: list[list[str]]) -> str:
    """Return which run was the last before a process ended outside of one, as by a write past the end of an array."""
    if not runs:
        return ""
    _, precision, length = runs[-1]
    return (
        f", after a run in {precision}, T = {length}: does the port write outside of its arrays? "
        f"One that takes float64 alone needs --precisions float64"
    )


def _reason(folder: Path, code: int | None, request: Request) -> tuple[str, bool]:
    """Return how a process ended, in one line, and whether by the time limit."""
    dump = (folder / "stack").read_text(encoding="utf-8", errors="replace") if (folder / "stack").is_file() else ""
    line = line_in_dump(dump, request.file)
    first = dump.partition("\n")[0]
    if code is None or first.startswith("Timeout"):
        return f"it does not return within the time limit of {request.time_limit:g} s{line}", True
    if first:
        fault = first.removeprefix("Fatal Python error: ").removeprefix("Windows fatal exception: ")
        said = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f", '{said[-1][:100]}'" if said and fault == "Aborted" else ""
        return f"its process crashes: {fault}{last}{line}", False
    if code < 0:
        return f"its process is ended by {signal.Signals(-code).name}", False
    return f"it ends its process with exit code {code}", False
