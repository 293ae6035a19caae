"""Statements about the mechanisms, and a checker that proves or checks them in several number systems.

A statement is proven, at the sizes drawn and up to a chance that is printed, where it is exact: its two sides are
evaluated at values drawn uniformly from a prime field (Schwartz–Zippel). All others are checked on examples.
"""

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
