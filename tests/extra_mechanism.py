"""One more mechanism for the length of a test: `tests/gated_average.py`, in a folder on the path of its family."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import memory
from proofs.checker import statements
from proofs.checker.statements import Statement

SOURCE = Path(__file__).with_name("gated_average.py").read_text(encoding="utf-8")
NAME = "gated_average"


@contextlib.contextmanager
def added(folder: Path, text: str = "", instead: str = "") -> Iterator[None]:
    """Add the mechanism `memory.gated_average`, one piece of its text replaced, from a file in a folder."""
    assert text in SOURCE
    (folder / f"{NAME}.py").write_text(SOURCE.replace(text, instead), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "__path__", [*memory.__path__, str(folder)])
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.modules.pop(f"models.memory.{NAME}", None)
            vars(memory).pop(NAME, None)


def general_statements() -> list[Statement]:
    """Return the statements of `proofs.identities.every_mechanism` about the mechanism that was added."""
    spec = importlib.util.find_spec("proofs.identities.every_mechanism")
    assert spec and spec.loader
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "STATEMENTS", {})
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return [statement for statement in statements.STATEMENTS.values() if NAME in statement.names]
