"""Sections of the report on memories trained at test time: claims of the talk and the papers, and the results."""

from dataclasses import asdict
from typing import Any

from models.memory.online_learner import NO_POINTS, POINTS
from models.references import cited
from models.study.figures import Panel, draw, draw_choices
from models.study.job_handlers import LONGER
from models.study.plans import DEEP, LEARNER, SEEKERS
from models.study.reading import Results, curve, settings, source, words

ENOUGH = 0.9  # the accuracy that counts as finding the needles
SHARES = (-0.03, 1.03)
PAPER_LENGTHS = (2048, 4096, 8192, 16384)
NIAH_TABLE = {  # Behrouz et al. 2025, table 2: percent at 2K, 4K, 8K, 16K of S-NIAH-PK and of S-NIAH-N
    "TTT": ((98.4, 98.8, 98.0, 88.4), (60.2, 36.6, 10.2, 4.4)),
    "Mamba2": ((98.6, 61.4, 31.0, 5.4), (98.4, 55.8, 14.2, 0.0)),
    "DeltaNet": ((96.8, 98.8, 98.6, 71.4), (47.2, 15.4, 12.8, 5.4)),
    "Titans (LMM)": ((99.8, 98.4, 98.2, 96.2), (100.0, 99.8, 93.4, 80.2)),
}


def needles(results: Results) -> dict[str, Any]:
    """Return the section on needles in a haystack: accuracy against length, and the paper's."""
    jobs = {mixer: results["jobs"][f"needle-{mixer}"] for mixer in SEEKERS}
    accuracies = {
        mixer: {int(n): share for n, share in job["result"]["lengths"].items()}
        for mixer, job in jobs.items()
        if job["result"] and "lengths" in job["result"]
    }
    job_settings = settings(results, "needle-")
    section = {
        "settings": job_settings,
        "sequences": jobs[SEEKERS[0]]["settings"]["sequences"],
        "lengths": jobs[SEEKERS[0]]["settings"]["lengths"],
        "rows": [],
        "missing": [words(mixer) for mixer in SEEKERS if mixer not in accuracies],
    }
    if not accuracies:
        return section
    paper = {
        f"{name} (paper)": curve((n, p / 100) for n, p in zip(PAPER_LENGTHS, number, strict=True))
        for name, (_, number) in NIAH_TABLE.items()
    }
    measured = {mixer: curve(shares.items()) for mixer, shares in accuracies.items()}
    panels = [
        Panel(
            f"Here: trained at up to {job_settings['length']}",
            "length",
            "accuracy",
            measured,
            log_x=True,
            y_limits=SHARES,
        ),
        Panel("The paper: S-NIAH-N", "length", "accuracy", paper, log_x=True, y_limits=SHARES),
    ]
    return {
        **section,
        "sentences": how_far(accuracies, job_settings["length"]),
        "rows": _rows(accuracies, section["lengths"], {mixer: source(jobs[mixer]) for mixer in accuracies}),
        "figure": draw(panels, "Needles in a haystack: accuracy against length, here and in the paper"),
    }


def _rows(accuracies: dict[str, dict[int, float]], lengths: list[int], sources: dict[str, str]) -> list[dict[str, Any]]:
    """Return a row for each mixer and one for each task of the paper's table."""
    rows = [
        {"mixer": words(mixer), "shares": [shares.get(n) for n in lengths], "source": sources[mixer], "here": True}
        for mixer, shares in accuracies.items()
    ]
    for i, task in enumerate(("S-NIAH-PK", "S-NIAH-N")):
        for name, percents in NIAH_TABLE.items():
            at = dict(zip(PAPER_LENGTHS, percents[i], strict=True))
            shares = [at[n] / 100 if n in at else None for n in lengths]
            rows.append({"mixer": name, "shares": shares, "source": f"paper, table 2, {task}", "here": False})
    return rows


def how_far(accuracies: dict[str, dict[int, float]], trained: int) -> list[str]:
    """Describe up to which length each mixer finds the needles, and rank the mixers at the longest."""
    reach = {
        m: max((n for n in shares if min(shares[k] for k in shares if k <= n) >= ENOUGH), default=0)
        for m, shares in accuracies.items()
    }
    ranked = sorted(reach, key=lambda mixer: -reach[mixer])
    listing = ", ".join(f"{words(m)} {f'{reach[m]:,}' if reach[m] else 'none'}" for m in ranked)
    begin = f"The longest sequence up to which {ENOUGH:.0%} of the needles are found, after training at {trained}"
    last = max(next(iter(accuracies.values())))
    shares = sorted(accuracies, key=lambda mixer: -accuracies[mixer][last])
    most = ", ".join(f"{words(m)} {accuracies[m][last]:.0%}" for m in shares)
    return [f"{begin}: {listing}.", f"At {last:,}: {most}."]


def inner_loss(results: Results) -> dict[str, Any] | None:
    """Return the section on the inner loss of held-out text by position, with and without learning."""
    jobs = {mixer: results["jobs"][f"text-{mixer}"] for mixer in (LEARNER, *DEEP)}
    losses_of = {m: job["result"]["inner_losses"] for m, job in jobs.items() if "inner_losses" in (job["result"] or {})}
    if not losses_of:
        return None
    panels = []
    for mixer, losses in losses_of.items():
        curves = {}
        for i, (learned, first) in enumerate(zip(losses["learned"], losses["first"], strict=True), start=1):
            usual = sum(first) / len(first)
            curves[f"layer {i}"] = losses["positions"], [x / usual for x in learned]
            curves[f"layer {i}, first memory"] = losses["positions"], [x / usual for x in first]
        panels.append(Panel(words(mixer), "position in the text", "inner loss, relative", curves, y_limits=(0, 1.5)))
    return {
        "figure": draw(panels, "Inner loss against the position in held-out text, with and without what was learned"),
        "sentences": [(fall(words(mixer), losses), source(jobs[mixer])) for mixer, losses in losses_of.items()],
        "settings": jobs[next(iter(losses_of))]["settings"],
        "longer": LONGER,
    }


def fall(mixer: str, losses: dict[str, list]) -> str:
    """Describe the inner loss in the last quarter of the text, relative to the untrained one, layer by layer."""
    quarter = max(1, len(losses["positions"]) // 4)
    ratios = [
        sum(learned[-quarter:]) / sum(first[-quarter:])
        for learned, first in zip(losses["learned"], losses["first"], strict=True)
    ]
    listing = ", ".join(f"{share:.0%} in layer {i}" for i, share in enumerate(ratios, start=1))
    return f"{mixer}: in the last quarter of the text the inner loss is, relative to the initial memory's, {listing}."


def surprise(results: Results) -> dict[str, Any] | None:
    """Return the section on momentary and past surprise of a memory that reads repeated and new pairs."""
    job = results["jobs"]["surprise"]
    result, job_settings = job["result"], job["settings"]
    if result is None:
        return None
    planted, momentary, past = job_settings["planted"], result["momentary"], result["past"]
    tokens = list(range(len(momentary)))
    panels = [
        Panel("Momentary surprise ‖∇ℓ‖", "token", "", {"momentary": (tokens, momentary)}, marks=planted),
        Panel("Past surprise ‖S‖", "token", "", {"past": (tokens, past)}, marks=planted),
    ]
    before = range(planted[0] - 2 * job_settings["period"], planted[0])
    listing = ", ".join(f"{momentary[token]:.2f}" for token in planted)
    first = planted[0]
    half = next((n for n, x in enumerate(past[first:]) if x < past[first] / 2), len(past) - first)
    return {
        "figure": draw(panels, "Momentary and past surprise against the token, planted surprises marked"),
        "settings": job_settings,
        "sentence": f"At the planted pairs the momentary surprise is {listing}; in the two rounds before the first of "
        f"them it is at most {max(momentary[token] for token in before):.2f}. Past surprise has "
        f"halved {half} tokens after the first.",
    }


def rotation(results: Results) -> dict[str, Any]:
    """Return the section on test-time training by rotation: accuracy on shifted digits, with reset and online."""
    job = results["jobs"]["rotation"]
    result = job["result"]
    if not result:
        return {"missing": ["rotation"], "rows": []}
    steps, rows = result["steps"], result["rows"]
    panels = [
        Panel(
            {"reset": "Reset to the trained network for every image", "online": "Online, image after image"}[mode],
            "steps on an image",
            "accuracy",
            {row["shift"]: (steps, row[mode]) for row in rows},
            y_limits=SHARES,
        )
        for mode in ("reset", "online")
    ]
    most = max((row for row in rows if row["shift"] != "none"), key=lambda row: max(row["online"]) - row["online"][0])
    helped = [row["shift"] for row in rows if row["online"][-1] > row["online"][0]]
    harmed = [row["shift"] for row in rows if row["online"][-1] < row["online"][0]]
    best = max(most["online"])
    return {
        "missing": [],
        "steps": steps,
        "rows": rows,
        "source": source(job),
        "settings": job["settings"],
        "figure": draw(panels, "Accuracy on shifted digits against the steps taken on each image"),
        "sentence": f"Online, {most['shift']} gains most: from {most['online'][0]:.0%} to {best:.0%} after "
        f"{steps[most['online'].index(best)]} steps an image. After {steps[-1]} steps accuracy has risen with "
        f"{', '.join(helped) or 'nothing'} and fallen with {', '.join(harmed) or 'nothing'}.",
    }


def learners() -> dict[str, Any]:
    """Return the map of the online learner, `python -m models map`: its choices as a figure, and what is no point."""
    choices = ("memory", "loss", "optimiser", "batch", "gates")
    rows = {name: {choice: getattr(point, choice) for choice in choices} for name, point in POINTS.items()}
    notes = {name: cited(point.source) for name, point in POINTS.items()}
    return {
        "figure": draw_choices(rows, notes, "Which memory, loss, optimiser, batch and gates make which mechanism"),
        "none": [{"name": name, **asdict(other)} for name, other in NO_POINTS.items()],
    }
