"""What states, draws, computes, compares and reports. The statements themselves are in `proofs.identities`."""

from proofs.checker.run import PROFILES, Result, SystemResult, check, check_statement, check_system, replay, systems_of

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
