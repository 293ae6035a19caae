"""Section of the report on controls of test-time training: no auxiliary task, gradients of both, fine-tuning."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from models.study.reading import NOT_RECORDED, Results, ordering, percent, sources

Measure = Callable[[Results, str], float]  # (what one seed measured, shift) → a number

NETWORKS = {  # of the probes
    "untrained": "of an untrained network",
    "rotations": "learned from rotations alone",
    "digits": "learned from digits alone",
    "both": "learned from both",
}


def controls(results: Results) -> dict[str, Any]:
    """Return the section: accuracies by shift, with what training, and the alignment of the gradients."""
    jobs = {name: job for name, job in results["jobs"].items() if job["kind"] == "controls"}
    finished = [job for job in jobs.values() if job["result"]]
    measured = [job["result"] for job in finished]
    return {
        "missing": [name for name, job in jobs.items() if not job["result"]],
        "settings": next(iter(jobs.values()))["settings"],
        "seeds": len(jobs),
        "rows": _rows(measured) if measured else [],
        "sentences": [
            auxiliary_task(measured, len(jobs)),
            features(measured, len(jobs)),
            aligned(measured, len(jobs)),
            anticipated(measured, len(jobs)),
        ],
        "source": sources(finished),
    }


def auxiliary_task(measured: Sequence[Results], seeds: int) -> str:
    """Describe, by shift, whether the network with a head for rotations is above the one without, before any step."""
    found = _by_shift(measured, seeds, _without_steps("joint"), _without_steps("alone"))
    return f"Without steps at test time, that training with rotations is better than without: {found}."


def features(measured: Sequence[Results], seeds: int) -> str:
    """Describe what a linear probe reads from features learned without labels, beside those of no training."""
    turning, untrained = ([m["probes"][name] for m in measured] for name in ("rotations", "untrained"))
    begin = ""
    if measured:
        shares = {words: percent([m["probes"][name] for m in measured]) for name, words in NETWORKS.items()}
        listing = ", ".join(f"{share} {words}" for words, share in shares.items())
        begin = f"From features a linear probe reads the digit in {listing}. "
    return (
        f"{begin}That rotations alone teach more of the digit than no training {ordering(turning, untrained, seeds)}."
    )


def aligned(measured: Sequence[Results], seeds: int) -> str:
    """Describe, by shift, the alignment of both gradients, and the gain where it is positive and where not."""
    found = _by_shift(measured, seeds, _gain("with"), _gain("against"))
    listing = "; ".join(
        f"{shift} {_signed(measured, 'cosine', shift)}, positive in "
        f"{percent([m['alignment'][shift]['positive'] for m in measured])} of images, gain "
        f"{_signed(measured, 'gain', shift)}, {_signed(measured, 'with', shift)} where positive and "
        f"{_signed(measured, 'against', shift)} where not"
        for shift in _shifts(measured)
    )
    begin = f"The cosine of both gradients, and the fall of the main loss by one step: {listing}. " if listing else ""
    return f"{begin}That a step gains more where the inner product is positive: {found}."


def anticipated(measured: Sequence[Results], seeds: int) -> str:
    """Describe, by shift, test-time training beside fine-tuning on that shift, on the others, and beside no step."""
    right = _by_shift(measured, seeds, lambda m, s: m["tuned"][s][s], lambda m, s: m["online"][s])
    wrong = _by_shift(measured, seeds, lambda m, s: m["online"][s], _wrong)
    none = _by_shift(measured, seeds, lambda m, s: m["online"][s], _without_steps("joint"))
    return (
        f"That fine-tuning on the shift that comes is better than test-time training: {right}. That test-time training "
        f"is better than fine-tuning on another shift, in the mean over those: {wrong}. That test-time training is "
        f"better than no step: {none}."
    )


def _without_steps(network: str) -> Measure:
    return lambda measured, shift: measured["without steps"][network][shift]


def _gain(where: str) -> Measure:
    return lambda measured, shift: measured["alignment"][shift][where]


def _by_shift(measured: Sequence[Results], seeds: int, above: Measure, below: Measure) -> str:
    """Return with which shifts an ordering shows, is reversed or is within the spread."""
    said: dict[str, list[str]] = {}
    for shift in _shifts(measured):
        found = ordering([above(m, shift) for m in measured], [below(m, shift) for m in measured], seeds)
        said.setdefault(found, []).append(shift)
    return "; ".join(f"{found} with {', '.join(shifts)}" for found, shifts in said.items()) or f"it {NOT_RECORDED}"


def _shifts(measured: Sequence[Results]) -> list[str]:
    return [shift for shift in measured[0]["online"] if shift != "none"] if measured else []


def _wrong(measured: Mapping[str, Any], shift: str) -> float:
    """Return the accuracy under a shift after fine-tuning on another one, the mean over those."""
    tuned = measured["tuned"]
    return float(np.mean([tuned[on][shift] for on in tuned if on not in (shift, "none")]))


def _signed(measured: Sequence[Results], name: str, shift: str) -> str:
    """Return the mean of a measure of alignment, with the least and the most."""
    values = [m["alignment"][shift][name] for m in measured]
    return f"{np.mean(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})"


def _rows(measured: Sequence[Results]) -> list[dict[str, Any]]:
    """Return for each shift the accuracies, with their spread over seeds."""
    columns: tuple[Measure, ...] = (
        _without_steps("alone"),
        _without_steps("joint"),
        lambda m, s: m["online"][s],
        lambda m, s: m["tuned"][s][s],
        _wrong,
    )
    shifts = ["none", *_shifts(measured)]
    return [{"shift": s, "cells": [percent([column(m, s) for m in measured]) for column in columns]} for s in shifts]
