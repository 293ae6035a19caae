"""Logs in JSON lines, appended as values are measured. NaN and infinity, which JSON lacks, are null."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.checkpoints import write_atomically
from models.errors import UserError

Record = dict[str, Any]


def dumps(value: Any, **options: Any) -> str:
    """Return `value` as strict JSON."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def append(path: Path, record: Record) -> None:
    """Add one record to a log. Raises: OSError when there is no room for it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(dumps(record) + "\n")


def rewrite(path: Path, records: Iterable[Record]) -> None:
    """Replace a log. Raises: UserError when it cannot be written."""
    write_atomically(path, "".join(dumps(record) + "\n" for record in records))


def read(path: str | Path) -> list[Record]:
    """Return a log's records; a last line that was cut short is left out, and NaN and Infinity are read as None.

    Raises: UserError at a line that is not a JSON object.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]


def _parsed(path: str | Path, number: int, line: str) -> Record:
    try:
        record = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path}: line {number}: expected a JSON object, got {line[:40]!r}")
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
