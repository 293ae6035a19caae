"""Files that commands write: whether a place can be written to, asked before the work, and atomic writes."""

import os
from pathlib import Path

from models.errors import UserError


def require_place(path: Path) -> None:
    """Raise UserError where a file cannot be written at this path, with the reason."""
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: Permission denied")


def write(path: Path, text: str) -> None:
    """Write a file atomically: to a temporary name, then rename it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
