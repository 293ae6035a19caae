"""Jobs of a study: each is a process with a folder of its own, which can be stopped and resumed by itself.

    job.json     what to do: kind and settings
    log.jsonl    what was measured so far, a line at a time; with it goes a training's checkpoint
    after.jsonl  what was measured on the trained model, likewise
    done.json    the result; written last, so that a folder that has it is finished

The folder's name holds a hash of the settings, of the source code that computes the result, and of the versions of
Python (whose documentation is the corpus) and NumPy. Change one and the job is another job, in another folder; change
none and nothing is computed twice.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models import log
from models.checkpoints import write_atomically
from models.interrupt import stop_on_interrupt
from models.lock import claim
from models.study.job_handlers import AFTER, HANDLERS
from models.study.machine import machine
from models.study.sources import sources
from models.train import LOG

ROOT = Path(__file__).parent.parent.parent
ORPHANED = 60.0  # seconds within which a job stops after its study was killed
STOPPED = 130  # the exit code of a stopped job that can be resumed


@dataclass(frozen=True)
class Job:
    """A unit of work of a study; `steps` is the number of its progress records."""

    name: str
    kind: str  # one of `HANDLERS`
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 1

    def folder(self, study: Path) -> Path:
        """Return the job's folder in a study's folder."""
        key = json.dumps([self.kind, self.settings, digest(self.kind), sys.version, np.__version__], sort_keys=True)
        return study / "jobs" / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"

    def result(self, study: Path) -> dict[str, Any] | None:
        """Return the result, or None while the job is not finished."""
        try:
            return json.loads((self.folder(study) / "done.json").read_text())
        except FileNotFoundError:
            return None

    def records(self, study: Path) -> list[dict[str, Any]]:
        """Return the records measured so far."""
        return [record for name in (LOG, AFTER) for record in log.read(self.folder(study) / name)]


@cache
def digest(kind: str, root: Path = ROOT) -> str:
    """Return the hash of the source code under a root that computes the result of a job of this kind."""
    hashed = hashlib.sha256()
    for file in sources(HANDLERS[kind].__name__, root):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


def start(job: Job, study: Path) -> subprocess.Popen:
    """Start a job's process, with one BLAS thread, in a session of its own: a Ctrl-C reaches it through us alone."""
    folder = job.folder(study)
    write_atomically(folder / "job.json", json.dumps({"kind": job.kind, "settings": job.settings}, indent=1))
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "MINIGRAD")}
    with (folder / "errors.txt").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "models", "job", str(folder.resolve())],
            env={**os.environ, **one_thread},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )


def work(folder: Path) -> bool:
    """Run or resume the job in `folder`; return whether it is finished.

    Raises: UserError when another process does this job.
    """
    job = json.loads((folder / "job.json").read_text())
    where, begin = machine(), time.perf_counter()
    with claim(folder, wait=ORPHANED), stop_on_interrupt() as stop:
        _stop_when_orphaned(stop)
        result = HANDLERS[job["kind"]](folder, job["settings"], stop)
        if result is not None:
            result |= {"machine": where, "seconds": time.perf_counter() - begin}
            write_atomically(folder / "done.json", log.dumps(result, indent=1))
    return result is not None


def _stop_when_orphaned(stop: threading.Event) -> None:
    parent = os.getppid()

    def watch() -> None:
        while not stop.wait(1.0):
            if os.getppid() != parent:
                stop.set()

    threading.Thread(target=watch, daemon=True).start()
