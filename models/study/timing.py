"""Sections of the report on time: of a training step, of the selective scan in each form, and of tokens by batch."""

from typing import Any

from models.study.figures import Panel, draw
from models.study.reading import Results, curve, words

Section = dict[str, Any]
BASE = "linear_attention"  # what the other mixers' steps are compared with
FLOAT = 4  # bytes of a number


def step_times(results: Results) -> Section | None:
    """Return the section on training steps: a row a mixer, and one for each size of TTT-Linear's mini-batch."""
    jobs = _finished(results, "step-")
    seconds = {name: job["result"]["training"][-1]["seconds"] for name, job in jobs.items()}
    if BASE not in seconds:
        return None
    rows = [{"name": _label(name), "ms": 1000 * time, "ratio": time / seconds[BASE]} for name, time in seconds.items()]
    listing = ", ".join(f"{row['name']} {row['ratio']:.1f}" for row in rows if row["name"] != words(BASE))
    return {
        "settings": jobs[BASE]["settings"],
        "rows": rows,
        "sentence": f"A training step takes, in times of {words(BASE)}'s {1000 * seconds[BASE]:.0f} ms: {listing}.",
    }


def scan(results: Results) -> Section | None:
    """Return the section on the forms of the selective scan: time, and memory for each state."""
    jobs = _finished(results, "scan-")
    if len(jobs) < 2:
        return None
    settings = next(iter(jobs.values()))["settings"]
    rows = {form: job["result"]["rows"] for form, job in jobs.items()}
    arrays = {form: _per_state(of) / (FLOAT * settings["length"] * settings["channels"]) for form, of in rows.items()}
    quickest = {form: of[-1]["seconds"] for form, of in rows.items()}
    sentences = [
        "Each state takes, in arrays of T × D numbers: "
        + ", ".join(f"the {form} form {count:.1f}" for form, count in arrays.items())
        + ".",
        f"With N = {settings['states'][-1]} states loss and gradients take: "
        + ", ".join(f"the {form} form {1000 * time:.1f} ms" for form, time in quickest.items())
        + ".",
    ]
    if {"fused", "associative"} <= set(rows):
        faster = ", ".join(
            f"{other['seconds'] / own['seconds']:.0f} with N = {own['N']}"
            for own, other in zip(rows["fused"], rows["associative"], strict=True)
        )
        sentences.append(
            f"The associative form, a scan without fusion, takes this many times as long as the fused: {faster}."
        )
    panels = [
        Panel("Loss and gradients", "states N", "ms", _against(rows, "seconds", 1000), log_x=True, log_y=True),
        Panel("Memory beside the inputs", "states N", "MiB", _against(rows, "bytes", 2**-20), log_x=True, log_y=True),
    ]
    return {
        "settings": settings,
        "figure": draw(panels, "Time and memory of the selective scan against the number of states, by form"),
        "sentences": sentences,
    }


def throughput(results: Results) -> Section | None:
    """Return the section on tokens a second: Mamba beside softmax attention, by batch and by the tokens before."""
    jobs = _finished(results, "throughput-")
    rates: dict[tuple[str, int], dict[int, float]] = {}
    for name, job in jobs.items():
        mixer, _, batch = name.rpartition("-")
        rates[mixer, int(batch)] = {row["T"]: int(batch) / row["seconds"] for row in job["result"]["generation"]}
    pairs = [
        (of, rates["mamba", batch], batch)
        for (mixer, batch), of in rates.items()
        if mixer == "softmax" and ("mamba", batch) in rates
    ]
    if not pairs:
        return None
    lengths = list(pairs[0][0])
    sentences = [
        f"In batches of {batch} Mamba generates, in times the tokens a second of softmax attention: "
        + ", ".join(f"{mamba[T] / softmax[T]:.1f} after {T:,} tokens" for T in lengths)
        + "."
        for softmax, mamba, batch in pairs
    ]
    return {
        "settings": next(iter(jobs.values()))["settings"],
        "lengths": lengths,
        "rows": [{"name": f"{words(m)}, batch {b}", "rates": [of[T] for T in lengths]} for (m, b), of in rates.items()],
        "sentences": sentences,
    }


def _finished(results: Results, prefix: str) -> dict[str, Results]:
    jobs = {name.removeprefix(prefix): job for name, job in results["jobs"].items() if name.startswith(prefix)}
    return {name: job for name, job in jobs.items() if job["result"]}


def _label(name: str) -> str:
    mixer, _, batch = name.partition("-b")
    return f"{words(mixer)}, b = {batch}" if batch else words(mixer)


def _per_state(rows: list[dict[str, Any]]) -> float:
    """Return the bytes that one more state takes, between the least and the most states."""
    first, last = rows[0], rows[-1]
    return (last["bytes"] - first["bytes"]) / (last["N"] - first["N"])


def _against(rows: dict[str, list[dict[str, Any]]], key: str, factor: float) -> dict[str, Any]:
    return {form: curve((row["N"], factor * row[key]) for row in of) for form, of in rows.items()}
