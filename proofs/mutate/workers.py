"""The worker processes of `python -m proofs mutate`, which import the project when the first mutant comes."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

from proofs.mutate.verdicts import Limits, Mutant, Verdict

ONE_THREAD = ("MINIGRAD_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Setting:
    """Options of a run: limits, the verdicts of an earlier run, and whether tests judge the survivors."""

    limits: Limits
    recorded: Sequence[Verdict] = ()
    with_tests: bool = False


_settings: list[Setting] = []


def initialize(parent: int, setting: Setting) -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _settings.append(setting)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def judge_one(mutant: Mutant, source: str) -> Verdict:
    """Judge a mutant by the statements, and by the tests of its module where these do not notice it."""
    verdict: Verdict = _judge().judge(mutant, source)
    if not verdict.by and _settings[0].with_tests:
        from proofs.mutate.testing import killed_by_tests

        return replace(verdict, by=killed_by_tests(mutant, source))
    return verdict


@functools.cache
def _judge() -> Any:
    """Import the project, watching which functions run meanwhile, and return the judge."""
    ran: set[CodeType] = set()
    sys.setprofile(lambda frame, event, _: ran.add(frame.f_code) if event == "call" else None)
    try:
        judging = importlib.import_module("proofs.mutate.judging")
    finally:
        sys.setprofile(None)
    setting = _settings[0]
    return judging.Judge(setting.limits, [verdict.kill for verdict in setting.recorded if verdict.by], ran)
