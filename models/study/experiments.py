"""Section of the report on experiments: one question of the talks each, asked of a few settings with several seeds.

An ordering shows where every seed of one setting is better than every seed of the other; where they overlap none does.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models.run import Run
from models.study.figures import Panel, draw
from models.study.reading import Results, curve, evaluations, ordering, percent, sources, unordered, words
from models.study.sections import SECTIONS

Scores = dict[str, list[dict[str, float]]]  # variant → for each finished seed what was measured, by evaluation


class Experiment(NamedTuple):
    """A question: what is trained and said, and pairs of variants of which the first is said to be the better one."""

    about: str
    orders: tuple[tuple[str, str], ...]


QUESTIONS = {
    "capacity": Experiment(
        "The talks say that recurrent networks are weaker because their state is limited (talk on Titans, 32:31; "
        "talk on Mamba, slide 13), and that their performance falls as sentences grow (book chapter on SSMs). "
        "Recall of key–value pairs, each written once, in one layer: memories of H heads hold H K² numbers, with K "
        "at one width, so that parameters are equal but for a gate a head. A network of 64 units holds 64 numbers, "
        "an LSTM twice as many, softmax attention all keys and values. It is trained on up to 32 pairs, and "
        "evaluated on more too.",
        (
            ("linear_attention-K64", "linear_attention-K4"),
            ("delta_rule-K64", "delta_rule-K4"),
            ("softmax", "rnn"),
            ("softmax", "lstm"),
            ("delta_rule-K64", "lstm"),
            ("softmax", "delta_rule-K64"),
        ),
    ),
    "lengths": Experiment(
        "The talk on Mamba says that the Transformer solved the long-memory problem of recurrent networks (slide "
        "13), the book chapter on SSMs that it keeps its performance as sequences grow, and that of recurrent "
        "networks falls. Eight needles in a haystack, found after training at up to 128 tokens: what has to be kept "
        "does not grow with the length, what has to be left out does.",
        (
            ("softmax-rotary", "rnn"),
            ("softmax-rotary", "lstm"),
            ("softmax-none", "lstm"),
            ("softmax-none", "softmax-rotary"),
        ),
    ),
    "selected": Experiment(
        "The talk on Mamba says that to make a state space model selective is, in the end, to add Δ (slide 22). S4 "
        "has a Δ too: what Mamba adds is that Δ, B and C depend on the input. Selective copying of 16 tokens by "
        "Mamba in which none of them, Δ, B and C, or all do (Gu and Dao 2023, section 4.6.2).",
        (
            ("mamba-all", "mamba-none"),
            ("mamba-delta", "mamba-none"),
            ("mamba-BC", "mamba-none"),
            ("mamba-all", "mamba-delta"),
            ("mamba-all", "mamba-BC"),
        ),
    ),
    "language": Experiment(
        "The book chapter on SSMs says that S4 is below the Transformer on language, and that Mamba introduced "
        "selection to raise it. Text, byte by byte, at equal parameters.",
        (("softmax", "s4d"), ("mamba", "s4d"), ("mamba2", "s4d"), ("mamba", "softmax")),
    ),
    "audio": Experiment(
        "The book chapter on SSMs says that S4 is excellent on audio and time series, whose inputs are longer than "
        "texts. Raw audio, synthesised: one of eight pitches, to be named at the last of 512 samples, 32 ms at 16 kHz, "
        "in noise of a quarter of its power; models of as many parameters. Then the same kind of sounds at 8 kHz, 256 "
        "samples with half of the noise, without training: a state space's time steps are doubled, others stay as they "
        "are.",
        (("s4", "lstm"), ("s4d", "lstm"), ("s4", "softmax"), ("s4d", "softmax"), ("s4", "s4d")),
    ),
    "targets": Experiment(
        "The talk on Titans conjectures that to reconstruct features which the main model makes helps next-token "
        "prediction more than a synthetic augmentation (33:43). The memory of TTT-Linear learns to return v: a "
        "learned view of the token, the layer's input itself, or a random projection of it.",
        (("ttt_linear-learned", "ttt_linear-input"), ("ttt_linear-learned", "ttt_linear-random")),
    ),
    "inner-batches": Experiment(
        "The talk on Titans says that the memory may as well be updated by gradient descent in batches (1:12:22). "
        "TTT-Linear with batches of b tokens, all of whose gradients are taken at the weights before the batch.",
        (
            ("ttt_linear-b1", "ttt_linear-b16"),
            ("ttt_linear-b16", "ttt_linear-b128"),
            ("ttt_linear-b1", "ttt_linear-b128"),
        ),
    ),
    "equal-state": Experiment(
        "The talk on Titans says that the most perfect state is a model: an MLP in place of a matrix makes a better "
        "memory (44:14). Recall with inner models of N weights, at one width: few heads with a matrix of K × K "
        "each, or eight times as many heads, of an eighth of the channels, with an MLP. Biases, and the gradients of "
        "an unfinished batch, are counted in the state.",
        (("ttt_mlp-N2048", "ttt_linear-N2048"), ("ttt_mlp-N4096", "ttt_linear-N4096")),
    ),
    "retrievals": Experiment(
        "The talk on Titans says that changes which follow from how associative memories work improve performance "
        "(1:22:42). One such: attention retrieves r times, as a Hopfield network does until it settles.",
        (("softmax-r2", "softmax-r1"), ("softmax-r4", "softmax-r1")),
    ),
}


def experiments(results: Results) -> list[dict[str, Any]]:
    """Return a section for each experiment: a row a variant, figures, and which orderings show."""
    return [{"name": name, **_section(name, about, results)} for name, about in QUESTIONS.items()]


def _section(name: str, experiment: Experiment, results: Results) -> dict[str, Any]:
    jobs = {job: entry for job, entry in results["jobs"].items() if job.startswith(f"{name}-")}
    by_variant: dict[str, list[Results]] = {}
    for job, entry in jobs.items():
        by_variant.setdefault(job.removeprefix(f"{name}-").rpartition("-")[0], []).append(entry)
    run = Run(**_run(next(iter(jobs.values()))))
    scores = {variant: [_measured(job) for job in of if job["result"]] for variant, of in by_variant.items()}
    seeds = max(map(len, by_variant.values()))
    columns = list(next((score for of in scores.values() for score in of), {}))
    asked = [key for key in (_trained(jobs), columns[-1] if columns else None) if key]
    return {
        "title": SECTIONS[name].title,
        "about": experiment.about,
        "run": run,
        "seeds": seeds,
        "columns": ["bits per byte" if run.task == "text" else f"{key} {_unit(run)}".rstrip() for key in columns],
        "rows": [_row(variant, by_variant[variant], scores[variant], columns, run) for variant in by_variant],
        "missing": [job for job, entry in jobs.items() if not entry["result"]],
        "sentences": [
            sentence
            for key in dict.fromkeys(asked) or [""]
            for sentence in (*_listing(scores, key, run), _orders(experiment, scores, key, run, seeds))
        ]
        + _read_errors(by_variant)
        + _half_the_rate(by_variant),
        "figure": _figure(by_variant, scores, columns, run),
        "source": sources([entry for entry in jobs.values() if entry["result"]]),
    }


def _measured(job: Results) -> dict[str, float]:
    """Return bits per byte of text, or accuracies: those at the end of training, then those at other lengths."""
    last = evaluations(job)[-1]
    if _run(job)["task"] == "text":
        return {name: loss / float(np.log(2)) for name, loss in last["held_out_loss"].items()}
    return {**last["held_out_accuracy"], **job["result"].get("lengths", {})}


def _trained(jobs: Mapping[str, Results]) -> str | None:
    """Return the last of the evaluations during training, which is the hardest."""
    records = next((evaluations(job) for job in jobs.values() if job["result"]), None)
    return list(records[-1]["held_out_accuracy"])[-1] if records else None


def _listing(scores: Scores, key: str, run: Run) -> list[str]:
    """Return the mean of each finished variant with its least and its most, from the best."""
    spread = {variant: [score[key] for score in of] for variant, of in scores.items() if of}
    best = sorted(spread, key=lambda variant: np.mean(spread[variant]), reverse=run.task != "text")
    if not best:
        return []
    listing = ", ".join(f"{label(variant)} {_cell(spread[variant], run)}" for variant in best)
    about = f"{_at(key, run)}, mean and range over seeds, from the best mean: {listing}."
    return [about, *unordered({label(variant): spread[variant] for variant in best})]


def _orders(experiment: Experiment, scores: Scores, key: str, run: Run, seeds: int) -> str:
    said: dict[str, list[str]] = {}
    for better, worse in experiment.orders:
        above, below = ([score[key] for score in scores.get(variant, ())] for variant in (better, worse))
        found = ordering(below, above, seeds) if run.task == "text" else ordering(above, below, seeds)
        said.setdefault(found, []).append(f"{label(better)} better than {label(worse)}")
    where = _at(key, run) if key else "Of the orderings in question"
    parts = [f"{', '.join(pairs)} {found}" for found, pairs in said.items()]
    return f"{where}: {'; '.join(parts)}."


def _read_errors(by_variant: Mapping[str, list[Results]]) -> list[str]:
    """Describe how far trained layers are from returning the values of their keys."""
    errors = {
        variant: [float(np.mean(job["result"]["read_errors"])) for job in jobs if job["result"]]
        for variant, jobs in by_variant.items()
        if any((job["result"] or {}).get("read_errors") for job in jobs)
    }
    if not errors:
        return []
    listing = ", ".join(f"{label(v)} {np.mean(e):.2f} ({min(e):.2f}–{max(e):.2f})" for v, e in errors.items())
    pairs = max(_run(next(iter(by_variant.values()))[0])["pairs"])
    return [f"After {pairs} pairs a read of a key is off by min ‖c read(k) − v‖/‖v‖ over c ≥ 0 = {listing}."]


def _half_the_rate(by_variant: Mapping[str, list[Results]]) -> list[str]:
    """Describe the accuracy at half the rate of models as they are, and with their time steps doubled."""
    sentences = []
    for variant, jobs in by_variant.items():
        found = [job["result"]["half the rate"] for job in jobs if (job["result"] or {}).get("half the rate")]
        if found and "steps doubled" in found[0]:
            doubled, same = ([of[name] for of in found] for name in ("steps doubled", "as it is"))
            apart = ordering(doubled, same, len(jobs))
            sentences.append(
                f"Not trained further, {label(variant)} at half the rate: {percent(doubled)} with its time steps "
                f"doubled, {percent(same)} as it is. That doubling them is better {apart}."
            )
    return sentences


def _row(variant: str, jobs: list[Results], of: list[dict[str, float]], columns: list[str], run: Run) -> dict[str, Any]:
    result: dict[str, Any] = next((job["result"] for job in jobs if job["result"]), {})
    return {
        "label": label(variant),
        "parameters": result.get("parameters"),
        "state": list(result.get("state_numbers", {}).values())[-1:],
        "finished": len(of),
        "cells": [_cell([score[key] for score in of], run) if of else "–" for key in columns],
    }


def _figure(by_variant: Mapping[str, list[Results]], scores: Scores, columns: list[str], run: Run) -> str:
    """Return the figure: against training steps, or the size in the variants' names; and against pairs or lengths."""
    if not columns:
        return ""
    quantity, limits = ("bits per byte", None) if run.task == "text" else ("accuracy", (-0.03, 1.03))
    panels = []
    sizes: dict[str, dict[int, float]] = {}
    axis, key = "", _trained({str(i): job for i, jobs in enumerate(by_variant.values()) for job in jobs}) or columns[-1]
    for variant, of in scores.items():
        if of and (match := re.fullmatch(r"(.*)-([A-Za-z]+)(\d+)", variant)):
            axis = match[2]
            sizes.setdefault(words(match[1]), {})[int(match[3])] = float(np.mean([score[key] for score in of]))
    if axis:
        by_size = {name: curve(sorted(points.items())) for name, points in sizes.items()}
        panels.append(Panel(_at(key, run), axis, quantity, by_size, log_x=True, y_limits=limits))
    else:
        panels.append(Panel(_at(key, run), "training step", quantity, _learning(by_variant, key, run), y_limits=limits))
    if len(columns) > 1:
        over = {
            label(v): curve((int(c), float(np.mean([score[c] for score in of]))) for c in columns)
            for v, of in scores.items()
            if of and not re.fullmatch(r".*-[A-Za-z]+\d+", v)
        }
        panels.append(Panel("At the end of training", _unit(run), quantity, over, log_x=True, y_limits=limits))
    return draw(panels, f"Means over seeds of {quantity}, by variant")


def _learning(by_variant: Mapping[str, list[Results]], key: str, run: Run) -> dict[str, Any]:
    """Return the mean over seeds against training steps, a curve a variant."""
    curves = {}
    for variant, jobs in by_variant.items():
        points: dict[int, list[float]] = {}
        for job in jobs:
            for record in evaluations(job):
                measured = record["held_out_loss"] if run.task == "text" else record["held_out_accuracy"]
                points.setdefault(record["step"], []).append(measured[key] / (np.log(2) if run.task == "text" else 1))
        if points:
            curves[label(variant)] = curve((step, float(np.mean(of))) for step, of in sorted(points.items()))
    return curves


def label(variant: str) -> str:
    """Return a variant's name as prose has it: the mixer, then what distinguishes it."""
    mixer, _, rest = variant.partition("-")
    rest = re.sub(r"^([A-Za-z]+)(\d+)$", r"\1 = \2", rest)
    return f"{words(mixer)} ({rest})" if rest else words(mixer)


def _unit(run: Run) -> str:
    return {"recall": "pairs", "needle": "tokens", "tones": "samples"}.get(run.task, "")


def _at(key: str, run: Run) -> str:
    if key.isdecimal():
        return f"At {key} {_unit(run)}"
    return "In bits per byte" if run.task == "text" else f"In {run.task.replace('_', ' ')}"


def _cell(values: list[float], run: Run) -> str:
    if run.task != "text":
        return percent(values)
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def _run(job: Results) -> dict[str, Any]:
    return job["settings"].get("run", job["settings"])
