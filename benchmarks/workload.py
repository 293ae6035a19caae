"""Workloads: one computation, done by several implementations whose results must agree."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

Results = Mapping[str, Any]  # names to arrays: values and gradients by which implementations are compared


@dataclass(frozen=True)
class Run:
    """One implementation, set up: `step` is what is timed, `results` is what must agree with the others."""

    step: Callable[[], object]
    results: Callable[[], Results]


@dataclass(frozen=True)
class Implementation:
    """One implementation of a workload. `setup` imports its framework, so that a process holds only one."""

    name: str
    setup: Callable[..., Run]
    needs: tuple[str, ...] = ()  # modules to import; one that is not installed makes the implementation missing
    peer: bool = True  # whether it is compared as a peer: no other form of ours, and all of the work

    def missing(self) -> list[str]:
        """Name the needed modules that are not installed."""
        return [module for module in self.needs if find_spec(module) is None]


@dataclass(frozen=True)
class Workload:
    """A benchmark. The first implementation is ours; each other one is compared with it."""

    name: str
    title: str
    sizes: Mapping[str, Any]
    implementations: tuple[Implementation, ...]
    tolerance: float
    unit: str = "ms"
    operations: int = 1  # a step's time is divided by this many, and reported per `per`
    per: str = "step"
    steps: int = 1  # steps in each timed round
    memory: bool = False  # whether the tables show memory
    floor: Mapping[str, float] = field(default_factory=dict)  # least exponentials, bytes and operations of a step
    module: str = field(default="", compare=False)  # the module that declares it; set by `declared`

    def implementation(self, name: str) -> Implementation:
        """Return the implementation of that name."""
        return next(implementation for implementation in self.implementations if implementation.name == name)


def declared(module: ModuleType) -> list[Workload]:
    """Return the workloads that a module lists in its `WORKLOADS`."""
    return [replace(workload, module=module.__name__) for workload in module.WORKLOADS]


def workloads() -> dict[str, Workload]:
    """Return every workload of `benchmarks/workloads/`, by name."""
    import benchmarks.workloads as package

    by_name: dict[str, Workload] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        for workload in declared(module) if hasattr(module, "WORKLOADS") else ():
            by_name[workload.name] = workload
    return by_name


def find(name: str) -> Workload:
    """Return the workload of that name.

    Raises
    ------
    LookupError
        There is none; the message names the nearest.
    """
    by_name = workloads()
    if name not in by_name:
        near = get_close_matches(name, by_name, n=1, cutoff=0)
        raise LookupError(f"workload: {name!r} is not known; the nearest is {near[0]!r}")
    return by_name[name]


def disagreement(ours: Results, theirs: Results, tolerance: float) -> str | None:
    """Return where two implementations differ by more than `tolerance` of the largest entry, in a line, or None.

    Only names that both give are compared: a forward pass alone is held to its value.
    """
    shared = [name for name in ours if name in theirs]
    if not shared:
        return f"nothing to compare: {sorted(ours)} against {sorted(theirs)}"
    for name in shared:
        x, y = np.asarray(ours[name]), np.asarray(theirs[name])
        if x.shape != y.shape:
            return f"{name} has shape {x.shape}, expected {y.shape}"
        scale = float(np.max(np.abs(y), initial=0.0)) or 1.0
        error = float(np.max(np.abs(x - y), initial=0.0)) / scale
        if not error <= tolerance:  # also when the error is not a number
            return f"{name} differs by {error:.1e} of its largest entry, expected at most {tolerance:.0e}"
    return None
