"""Statements about the mechanisms, and a checker that tests each of them in several number systems."""

import importlib
from typing import Any

_MODULES = dict.fromkeys(("CHAPTERS", "STATEMENTS"), "proofs.identities")
_MODULES |= dict.fromkeys(("check", "check_statement", "replay"), "proofs.checker")
_MODULES |= dict.fromkeys(("bounded", "converges", "grows", "identity", "refuted"), "proofs.checker.statements")
__all__ = list(_MODULES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import the chapters on first access to a public name, which takes a second.

    `python -m proofs` imports this package first; Ctrl-C during a slow import here would end in a traceback.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'proofs' has no attribute {name!r}")
    importlib.import_module("proofs.identities")
    return getattr(importlib.import_module(_MODULES[name]), name)
