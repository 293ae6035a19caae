"""The identities, stated once each, and the checker that tries to refute them in every number system."""

import importlib
from typing import Any

_PLACES = dict.fromkeys(("CHAPTERS", "STATEMENTS"), "proofs.identities")
_PLACES |= dict.fromkeys(("check", "check_statement", "replay"), "proofs.checker")
_PLACES |= dict.fromkeys(("bounded", "converges", "grows", "identity", "refuted"), "proofs.checker.statements")
__all__ = list(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Return what is offered here, and import the chapters when it is first asked for: that takes a second.

    `python -m proofs` imports this before anything of its own, and Ctrl-C meanwhile would end in a traceback.
    """
    if name not in _PLACES:
        raise AttributeError(f"module 'proofs' has no attribute {name!r}")
    importlib.import_module("proofs.identities")
    return getattr(importlib.import_module(_PLACES[name]), name)
