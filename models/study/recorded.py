"""Recorded results of the long jobs, which a report shows where those jobs were not run.

A file a job, `recorded/<job>.json`: its kind and settings (the seed among them), commit, date and
machine, the evaluations and the result. It is used only for a job with the same settings.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models import log
from models.checkpoints import write_atomically
from models.study.jobs import Job
from models.train import Run

FOLDER = Path(__file__).parent / "recorded"
EVALUATED = {"held_out_accuracy", "held_out_iou"}  # the records that are kept have one


def record(job: Job, study: Path) -> Path | None:
    """Write the result of a finished job into the package; return the path, or None while it is not finished."""
    result = job.result(study)
    if result is None:
        return None
    entry = {
        "kind": job.kind,
        "settings": job.settings,
        "machine": result.pop("machine"),
        "records": _rounded([record for record in job.records(study) if not EVALUATED.isdisjoint(record)]),
        "result": _rounded(result),
    }
    path = FOLDER / f"{job.name}.json"
    write_atomically(path, log.dumps(entry, indent=1) + "\n")
    return path


def load(job: Job) -> dict[str, Any] | None:
    """Return the records, result and machine recorded for a job with the same settings, or None."""
    try:
        entry = json.loads((FOLDER / f"{job.name}.json").read_text())
    except FileNotFoundError:
        return None
    expected = _with_defaults(job.settings)
    if entry["kind"] != job.kind or expected is None or _with_defaults(entry["settings"]) != expected:
        return None
    return {name: entry[name] for name in ("records", "result", "machine")}


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return settings with defaults for those added since they were written; None if one is unknown."""
    settings = json.loads(json.dumps(settings))  # in a file a tuple is a list
    try:
        if "run" in settings:
            return {**settings, "run": asdict(Run(**settings["run"]))}
        return asdict(Run(**settings)) if "task" in settings else settings
    except (TypeError, ValueError):
        return None


def _rounded(value: Any) -> Any:
    """Return the value with floats to six digits."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
