"""Section of the report on the Long Range Arena in small: mixers of as many parameters, by task, beside the papers."""

from itertools import combinations
from typing import Any

import numpy as np

from models.run import Run
from models.study.figures import Panel, draw
from models.study.plans import ARENA, CONTENDERS
from models.study.reading import (
    NOT_RECORDED,
    REVERSED,
    SHOWS,
    UNSETTLED,
    Curve,
    Results,
    curve,
    evaluations,
    ordering,
    percent,
    source,
    words,
)
from models.tasks.recall import IGNORE

Row = dict[str, Any]
Scores = dict[tuple[str, str], list[float]]  # task, mixer → accuracies, one a seed

TITLES = {
    "listops": "ListOps",
    "pathfinder": "Pathfinder 16 × 16",
    "long-pathfinder": "Pathfinder 32 × 32",
    "digits": "digits",
}
COLUMN = {"listops": 0, "pathfinder": 1, "long-pathfinder": 1, "digits": 2}  # of the papers' tables
ACCURACY = (-0.03, 1.03)
PAPER = {  # percent: ListOps, Pathfinder, and Image, which is CIFAR-10 in grey
    "softmax": ("Transformer: Tay et al. 2021, table 1", (36.37, 71.40, 42.44)),
    "s4": ("S4: Gu et al. 2022, table 4, as updated", (59.60, 94.20, 88.65)),
    "s4d": ("S4D-LegS: Gu et al. 2022 (S4D)", (60.47, 93.06, 88.19)),
}
PAPER_FIRST = ("S4: Gu et al. 2022, as first published", (58.35, 86.05, 87.26))


def arena(results: Results) -> dict[str, Any]:
    """Return the section: accuracy by task, mixer and seed, curves, and which of the papers' orderings show."""
    jobs = {name: job for name, job in results["jobs"].items() if name.startswith("lra-")}
    seeds = sorted({job["settings"]["seed"] for job in jobs.values()})
    rows = [_row(jobs, seeds, task, mixer) for task in ARENA for mixer in CONTENDERS]
    scores = {(row["task"], row["mixer"]): row["finished"] for row in rows}
    runs = {task: jobs[f"lra-{task}-{next(iter(CONTENDERS))}-{seeds[0]}"]["settings"] for task in ARENA}
    curves = {TITLES[task]: _curves(jobs, seeds, task) for task in ARENA}
    commonest = {task: _commonest(run) for task, run in runs.items()}
    drawn = [
        Panel(title, "training step", "accuracy", by_mixer, y_limits=ACCURACY)
        for title, by_mixer in curves.items()
        if by_mixer
    ]
    return {
        "seeds": seeds,
        "titles": TITLES,
        "rows": [{**row, "title": TITLES[row["task"]], "mixer": words(row["mixer"])} for row in rows],
        "missing": [name for name, job in jobs.items() if not job["result"]],
        "settings": runs,
        "commonest": {TITLES[task]: share for task, (share, _) in commonest.items()},
        "sentences": [*orderings(scores, len(seeds)), *_guessing(scores, runs, commonest)],
        "figure": drawn and draw(drawn, "Held-out accuracy against training steps, a curve a mixer, by task"),
        "paper": [*PAPER.values(), PAPER_FIRST],
    }


def orderings(scores: Scores, seeds: int) -> list[str]:
    """Describe, task by task, which of the papers' orderings show: where each seed of one mixer is above the other's.

    A pair is compared when all of its seeds have finished.
    """
    sentences = []
    for task in ARENA:
        said: dict[str, list[str]] = {found: [] for found in (SHOWS, REVERSED, UNSETTLED, NOT_RECORDED)}
        for pair in combinations(PAPER, 2):
            high, low = sorted(pair, key=lambda mixer: -PAPER[mixer][1][COLUMN[task]])
            above, below = scores[task, high], scores[task, low]
            said[ordering(above, below, seeds)].append(f"{words(high)} above {words(low)}")
        parts = [f"{', '.join(pairs)} {found}" for found, pairs in said.items() if pairs]
        sentences.append(f"Of the papers' orderings in {TITLES[task]}: {'; '.join(parts)}.")
    return sentences


def _guessing(scores: Scores, runs: dict[str, Any], commonest: dict[str, tuple[float, int]]) -> list[str]:
    """Name the tasks in which no mixer is above the commonest answer by more than three standard errors."""
    sentences = []
    for task, (share, count) in commonest.items():
        reached = [accuracy for mixer in CONTENDERS for accuracy in scores[task, mixer]]
        if reached and max(reached) <= share + 3 * (share * (1 - share) / count) ** 0.5:
            seen = runs[task]["steps"] * runs[task]["batch"]
            message = "no mixer is above the commonest answer, so no ordering means anything"
            sentences.append(f"In {TITLES[task]}, after {seen:,} training sequences, {message}.")
    return sentences


def _row(jobs: dict[str, Results], seeds: list[int], task: str, mixer: str) -> Row:
    by_seed = [jobs[f"lra-{task}-{mixer}-{seed}"] for seed in seeds]
    accuracies = [_accuracy(job) for job in by_seed]
    finished = [share for share, job in zip(accuracies, by_seed, strict=True) if share is not None and job["result"]]
    results = [job["result"] for job in by_seed if job["result"]]
    return {
        "task": task,
        "mixer": mixer,
        "accuracies": accuracies,
        "finished": finished,
        "mean": percent(finished) if finished else "–",
        "parameters": results[0].get("parameters") if results else None,
        "paper": PAPER[mixer][1][COLUMN[task]] if mixer in PAPER else None,
        "sources": list(dict.fromkeys(source(job) for job in by_seed if evaluations(job))),
    }


def _accuracy(job: Results) -> float | None:
    records = evaluations(job)
    return next(iter(records[-1]["held_out_accuracy"].values())) if records else None


def _curves(jobs: dict[str, Results], seeds: list[int], task: str) -> dict[str, Curve]:
    """Return for each mixer the accuracy against steps, the mean over the seeds that have got so far."""
    curves = {}
    for mixer in CONTENDERS:
        points: dict[int, list[float]] = {}
        for seed in seeds:
            for record in evaluations(jobs[f"lra-{task}-{mixer}-{seed}"]):
                points.setdefault(record["step"], []).extend(record["held_out_accuracy"].values())
        if points:
            curves[mixer] = curve((step, float(np.mean(shares))) for step, shares in sorted(points.items()))
    return curves


def _commonest(settings: dict[str, Any]) -> tuple[float, int]:
    """Return the share of the commonest answer among held-out sequences, and how many sequences these are."""
    ((_, targets),) = Run(**settings).make_task().eval_batches(np.random.default_rng(0)).values()
    return float(np.unique(targets[targets != IGNORE], return_counts=True)[1].max() / len(targets)), len(targets)
