"""A mechanism's file stands alone: what several share is in `models.sequences` and `models.linear_systems`."""

import ast
import importlib
from pathlib import Path

import pytest

from models.forms import mechanisms

MODULES = {f"models.{name}" for name in mechanisms()}


def imported(module):
    """Return every module, and every member of one, that a module's source imports."""
    source = Path(importlib.import_module(module).__file__).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_mechanism_imports_another(module):
    assert not MODULES & set(imported(module))
