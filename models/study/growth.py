"""Sections of the report on length: gradients through time, costs against T, and the memory of attention."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.study.figures import Panel, draw
from models.study.plans import GROWERS
from models.study.reading import Results, curve, source, words

Row = dict[str, Any]

GRADIENTS = (1e-8, 1e8)  # the norms in the figure
CLAIMED = {  # mixer: growth of training time, of the time of a token, and of the state
    "softmax": ("T²", "T", "T"),
    "lstm": ("T", "1", "1"),
    "linear_attention": ("T", "1", "1"),
    "s4d": ("T log T", "1", "1"),
    "mamba": ("T", "1", "1"),
}
COLUMNS = ("training", "a token", "the state")
MEBIBYTE = 2**20


def through_time(results: Results) -> Row | None:
    """Return the section on the gradient T steps back: two figures, a row a network, and what is seen."""
    job = results["jobs"]["through-time"]
    if job["result"] is None:
        return None
    rows = job["result"]["rows"]
    simple, gated = ([row for row in rows if (row["network"] == "LSTM") == lstm] for lstm in (False, True))
    panels = [
        Panel(
            {"linear": "hₜ = W hₜ₋₁ + xₜ", "tanh": "hₜ = tanh(W hₜ₋₁ + xₜ)"}[network],
            "steps back, T",
            "‖∂h_T/∂h₀‖" if network == "linear" else "",
            {
                name: (row["T"], row[key])
                for row in simple
                if row["network"] == network
                for name, key in ((row["weights"], "measured"), (f"bound, {row['weights']}", "bound"))
            },
            log_x=True,
            log_y=True,
            y_limits=GRADIENTS,
        )
        for network in ("linear", "tanh")
    ]
    gates = [
        Panel(
            title, "steps back, T", "", {row["weights"]: (row["T"], row[key]) for row in gated}, True, True, GRADIENTS
        )
        for title, key in (("LSTM, along the cell: Π fₜ", "bound"), ("LSTM, the whole ‖∂c_T/∂c₀‖", "measured"))
    ]
    return {
        "figures": [
            draw(panels, "Norm of the gradient against the steps back, with its bound, for simple networks"),
            draw(gates, "Norm of the gradient against the steps back for LSTMs, along the cell and whole"),
        ],
        "rows": rows,
        "lengths": [T for T in rows[0]["T"] if T in (1, 8, 32, max(rows[0]["T"]))],
        "sentences": _gradient_sentences(simple, gated),
        "settings": job["settings"],
    }


def _gradient_sentences(simple: Sequence[Row], gated: Sequence[Row]) -> list[str]:
    T = simple[0]["T"][-1]
    within = all(m <= b * (1 + 1e-9) for row in simple for m, b in zip(row["measured"], row["bound"], strict=True))
    tanh = [row for row in simple if row["network"] == "tanh"]
    listing = ", ".join(f"{row['measured'][-1]:.2g} for {row['weights']} (‖W‖ = {row['norm']:.2f})" for row in tanh)
    large = [row for row in tanh if row["norm"] > 1.001]
    grown, fallen = (
        ", ".join(row["weights"] for row in large if (row["measured"][-1] > 1) == grows) or "none"
        for grows in (True, False)
    )
    cells = ", ".join(f"{row['bound'][-1]:.2g} with a {row['weights']}" for row in gated)
    whole = ", ".join(f"{row['measured'][-1]:.2g}" for row in gated)
    return [
        "No measured norm exceeds its bound." if within else "A measured norm exceeds its bound.",
        f"{T} steps back the gradient of the tanh network is {listing}. Of the weights with a norm above 1 it has "
        f"grown for {grown} and fallen for {fallen}: such a norm is necessary to explode, not sufficient.",
        f"Along the LSTM's cell {T} steps keep {cells}; the whole gradient, through the gates too, is {whole}.",
    ]


def growth(results: Results) -> Row | None:
    """Return the section on costs against T: a figure, and a row a mixer of fitted and claimed exponents."""
    jobs = {mixer: results["jobs"][f"growth-{mixer}"] for mixer in GROWERS}
    done = {mixer: job["result"] for mixer, job in jobs.items() if job["result"]}
    if not done:
        return None
    training, tokens, states = (
        {mixer: curve((row["T"], factor * row[key]) for row in result[part]) for mixer, result in done.items()}
        for part, key, factor in (
            ("training", "seconds", 1000),
            ("generation", "seconds", 1000),
            ("generation", "state_numbers", 1),
        )
    )
    panels = [
        Panel(title, "T", unit, curves, log_x=True, log_y=True)
        for title, unit, curves in (
            ("Loss and gradients", "ms", training),
            ("The next token", "ms", tokens),
            ("The state", "numbers", states),
        )
    ]
    rows = [
        {
            "mixer": words(mixer),
            "fitted": [exponent(*curves[mixer]) for curves in (training, tokens, states)],
            "claimed": CLAIMED[mixer],
        }
        for mixer in done
    ]
    sentences = [
        f"Fitted exponents of {column}: "
        + ", ".join(f"{row['mixer']} {row['fitted'][i]:.2f} (claimed {row['claimed'][i]})" for row in rows)
        + "."
        for i, column in enumerate(COLUMNS)
    ]
    return {
        "figure": draw(panels, "Time of training, time of a token and size of the state against the length"),
        "rows": rows,
        "columns": COLUMNS,
        "sentences": sentences,
        "conclusion": f"From T = {training[next(iter(done))][0][0]:,} on, exponents of training time: "
        + ", ".join(f"{row['mixer']} {row['fitted'][0]:.2f}" for row in rows)
        + "; of the time of a token: "
        + ", ".join(f"{row['mixer']} {row['fitted'][1]:.2f}" for row in rows)
        + ".",
        "settings": jobs[next(iter(done))]["settings"],
    }


def exponent(lengths: Sequence[float], costs: Sequence[float]) -> float:
    """Return α of costs c Tᵅ, by least squares through log cost against log T over the upper half of the lengths."""
    upper = slice(-max(2, (len(lengths) + 1) // 2), None)
    return round(float(np.polyfit(np.log(lengths[upper]), np.log(costs[upper]), 1)[0]), 2) + 0.0  # not −0


def attention_memory(results: Results) -> Row | None:
    """Return the section on the memory of attention: a figure and a table of what a step takes beside its inputs."""
    jobs = [results["jobs"][name] for name in ("attention-memory", "attention-memory-long")]
    done = [job for job in jobs if job["result"]]
    if not done:
        return None
    implementations: dict[str, dict[int, Row]] = {}
    missing: dict[str, dict[int, str]] = {}
    held: dict[int, int] = {}
    for job in done:
        held |= {int(T): size for T, size in job["result"]["result_bytes"].items()}
        for name, entry in job["result"]["implementations"].items():
            implementations.setdefault(name, {}).update({int(T): row for T, row in entry["measured"].items()})
            missing.setdefault(name, {}).update({int(T): reason for T, reason in entry["missing"].items()})
    lengths = sorted(held)
    curves = {
        name: curve((T, row["bytes"] / MEBIBYTE) for T, row in rows.items()) for name, rows in _sorted(implementations)
    }
    curves["y and gradients"] = curve((T, held[T] / MEBIBYTE) for T in lengths)
    fitted = {name: exponent(*points) for name, points in curves.items() if len(points[0]) > 2}
    return {
        "figure": draw(
            [Panel("Memory of a step beside its inputs", "T", "MiB", curves, log_x=True, log_y=True)],
            "Peak memory of softmax attention, forward and backward, against the length",
        ),
        "names": list(implementations),
        "rows": [
            {
                "T": T,
                "held": held[T] / MEBIBYTE,
                "cells": [
                    f"{rows[T]['bytes'] / MEBIBYTE:,.0f}" if T in rows else missing[name].get(T, "–")
                    for name, rows in implementations.items()
                ],
            }
            for T in lengths
        ],
        "title": done[0]["result"]["title"],
        "sentence": "Fitted exponents: " + ", ".join(f"{name} {alpha:.2f}" for name, alpha in fitted.items()) + ".",
        "sources": list(dict.fromkeys(_where(job) for job in done)),
        "missing": [] if jobs[1]["result"] else [_span(jobs[1])],
    }


def _sorted(implementations: Mapping[str, Mapping[int, Row]]) -> list[tuple[str, dict[int, Row]]]:
    return [(name, dict(sorted(rows.items()))) for name, rows in implementations.items() if rows]


def _where(job: Results) -> str:
    return f"{_span(job)}: {source(job)}"


def _span(job: Results) -> str:
    lengths = job["settings"]["lengths"]
    return f"T = {lengths[0]:,} to {lengths[-1]:,}"
