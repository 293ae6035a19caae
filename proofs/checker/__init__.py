"""The property checker: it draws examples, evaluates both sides of a statement, compares them, and reports."""

from proofs.checker.profiles import PROFILES
from proofs.checker.run import Result, SystemResult, check, check_statement, check_system, replay, systems_of

__all__ = [
    "PROFILES",
    "Result",
    "SystemResult",
    "check",
    "check_statement",
    "check_system",
    "replay",
    "systems_of",
]
