"""Sections of the report on memories trained at test time: claims of the talk and the papers, and the results."""

from typing import Any

from models.memory.online_learner import POINTS
from models.references import cited
from models.study.figures import Panel, draw, draw_choices
from models.study.job_handlers import LONGER
from models.study.plans import DEEP, LEARNER, SEEKERS
from models.study.reading import Results, curve, settings, source, words

FOUND = 0.9  # the share of needles that counts as finding them
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
    found = {
        mixer: {int(n): share for n, share in job["result"]["lengths"].items()}
        for mixer, job in jobs.items()
        if job["result"] and "lengths" in job["result"]
    }
    given = settings(results, "needle-")
    section = {
        "settings": given,
        "sequences": jobs[SEEKERS[0]]["settings"]["sequences"],
        "lengths": jobs[SEEKERS[0]]["settings"]["lengths"],
        "rows": [],
        "missing": [words(mixer) for mixer in SEEKERS if mixer not in found],
    }
    if not found:
        return section
    paper = {
        f"{name} (paper)": curve((n, p / 100) for n, p in zip(PAPER_LENGTHS, number, strict=True))
        for name, (_, number) in NIAH_TABLE.items()
    }
    here = {mixer: curve(shares.items()) for mixer, shares in found.items()}
    panels = [
        Panel(f"Here: trained at up to {given['length']}", "length", "accuracy", here, log_x=True, y_limits=SHARES),
        Panel("The paper: S-NIAH-N", "length", "accuracy", paper, log_x=True, y_limits=SHARES),
    ]
    return {
        **section,
        "sentences": how_far(found, given["length"]),
        "rows": _rows(found, section["lengths"], {mixer: source(jobs[mixer]) for mixer in found}),
        "figure": draw(panels, "Needles in a haystack: accuracy against length, here and in the paper"),
    }


def _rows(found: dict[str, dict[int, float]], lengths: list[int], sources: dict[str, str]) -> list[dict[str, Any]]:
    """Return a row for each mixer and one for each task of the paper's table."""
    rows = [
        {"mixer": words(mixer), "shares": [shares.get(n) for n in lengths], "source": sources[mixer], "here": True}
        for mixer, shares in found.items()
    ]
    for i, task in enumerate(("S-NIAH-PK", "S-NIAH-N")):
        for name, percents in NIAH_TABLE.items():
            at = dict(zip(PAPER_LENGTHS, percents[i], strict=True))
            shares = [at[n] / 100 if n in at else None for n in lengths]
            rows.append({"mixer": name, "shares": shares, "source": f"paper, table 2, {task}", "here": False})
    return rows


def how_far(found: dict[str, dict[int, float]], trained: int) -> list[str]:
    """Say up to which length each mixer finds the needles, and who finds most at the longest."""
    reach = {
        m: max((n for n in shares if min(shares[k] for k in shares if k <= n) >= FOUND), default=0)
        for m, shares in found.items()
    }
    ranked = sorted(reach, key=lambda mixer: -reach[mixer])
    listed = ", ".join(f"{words(m)} {f'{reach[m]:,}' if reach[m] else 'none'}" for m in ranked)
    begin = f"The longest sequence up to which {FOUND:.0%} of the needles are found, after training at {trained}"
    last = max(next(iter(found.values())))
    shares = sorted(found, key=lambda mixer: -found[mixer][last])
    most = ", ".join(f"{words(m)} {found[m][last]:.0%}" for m in shares)
    return [f"{begin}: {listed}.", f"At {last:,}: {most}."]


def inner_loss(results: Results) -> dict[str, Any] | None:
    """Return the section on the inner loss of held-out text by position, with and without learning."""
    jobs = {mixer: results["jobs"][f"text-{mixer}"] for mixer in (LEARNER, *DEEP)}
    found = {m: job["result"]["inner_losses"] for m, job in jobs.items() if "inner_losses" in (job["result"] or {})}
    if not found:
        return None
    panels = []
    for mixer, losses in found.items():
        curves = {}
        for i, (learned, first) in enumerate(zip(losses["learned"], losses["first"], strict=True), start=1):
            usual = sum(first) / len(first)
            curves[f"layer {i}"] = losses["positions"], [x / usual for x in learned]
            curves[f"layer {i}, first memory"] = losses["positions"], [x / usual for x in first]
        panels.append(Panel(words(mixer), "position in the text", "inner loss, relative", curves, y_limits=(0, 1.5)))
    return {
        "figure": draw(panels, "Inner loss against the position in held-out text, with and without what was learned"),
        "sentences": [(fall(words(mixer), losses), source(jobs[mixer])) for mixer, losses in found.items()],
        "settings": jobs[next(iter(found))]["settings"],
        "longer": LONGER,
    }


def fall(mixer: str, losses: dict[str, list]) -> str:
    """Describe the inner loss in the last quarter of the text, relative to the untrained one, layer by layer."""
    quarter = max(1, len(losses["positions"]) // 4)
    left = [
        sum(learned[-quarter:]) / sum(first[-quarter:])
        for learned, first in zip(losses["learned"], losses["first"], strict=True)
    ]
    listed = ", ".join(f"{share:.0%} in layer {i}" for i, share in enumerate(left, start=1))
    return f"{mixer}: in the last quarter the inner loss is, of what the first memory would have had, {listed}."


def surprise(results: Results) -> dict[str, Any] | None:
    """Return the section on momentary and past surprise of a memory that reads repeated and new pairs."""
    job = results["jobs"]["surprise"]
    done, given = job["result"], job["settings"]
    if done is None:
        return None
    planted, momentary, past = given["planted"], done["momentary"], done["past"]
    places = list(range(len(momentary)))
    panels = [
        Panel("Momentary surprise ‖∇ℓ‖", "token", "", {"momentary": (places, momentary)}, marks=planted),
        Panel("Past surprise ‖S‖", "token", "", {"past": (places, past)}, marks=planted),
    ]
    before = range(planted[0] - 2 * given["period"], planted[0])
    listed = ", ".join(f"{momentary[place]:.2f}" for place in planted)
    first = planted[0]
    half = next((n for n, x in enumerate(past[first:]) if x < past[first] / 2), len(past) - first)
    return {
        "figure": draw(panels, "Momentary and past surprise against the token, planted surprises marked"),
        "settings": given,
        "sentence": f"At the planted pairs the momentary surprise is {listed}; in the two rounds before the first of "
        f"them it is at most {max(momentary[place] for place in before):.2f}. Past surprise is less than half of what "
        f"it was {half} tokens after the first.",
    }


def rotation(results: Results) -> dict[str, Any]:
    """Return the section on test-time training by rotation: accuracy on shifted digits, with reset and online."""
    job = results["jobs"]["rotation"]
    done = job["result"]
    if not done:
        return {"missing": ["rotation"], "rows": []}
    steps, rows = done["steps"], done["rows"]
    panels = [
        Panel(
            {"reset": "From the trained network for every image", "online": "Online, image after image"}[way],
            "steps on an image",
            "accuracy",
            {row["shift"]: (steps, row[way]) for row in rows},
            y_limits=SHARES,
        )
        for way in ("reset", "online")
    ]
    most = max((row for row in rows if row["shift"] != "none"), key=lambda row: max(row["online"]) - row["online"][0])
    gained = [row["shift"] for row in rows if row["online"][-1] > row["online"][0]]
    lost = [row["shift"] for row in rows if row["online"][-1] < row["online"][0]]
    best = max(most["online"])
    return {
        "missing": [],
        "steps": steps,
        "rows": rows,
        "source": source(job),
        "settings": job["settings"],
        "figure": draw(panels, "Accuracy on shifted digits against the steps taken on each image"),
        "sentence": f"Online, {most['shift']} gains most: from {most['online'][0]:.0%} to {best:.0%} after "
        f"{steps[most['online'].index(best)]} steps an image. After {steps[-1]} steps online helped with "
        f"{', '.join(gained) or 'nothing'} and harmed {', '.join(lost) or 'nothing'}.",
    }


def learners() -> str:
    """Return the map of the online learner as a figure: the choices of `python -m models map`."""
    choices = ("memory", "loss", "optimiser", "batch", "gates")
    rows = {name: {choice: getattr(point, choice) for choice in choices} for name, point in POINTS.items()}
    notes = {name: cited(point.source) for name, point in POINTS.items()}
    return draw_choices(rows, notes, "Which memory, loss, optimiser, batch and gates make which mechanism")
