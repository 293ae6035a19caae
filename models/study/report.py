"""The study's report as one HTML page, whose sentences about results are generated from the numbers."""

import math
from pathlib import Path
from typing import Any

from models.study import (
    arena,
    claimed,
    contrasting,
    controls,
    experiments,
    growth,
    memory,
    segmenting,
    state_spaces,
    timing,
    translating,
    vision_transformer,
)
from models.study.figures import Panel, draw
from models.study.plans import COMPARED, DEEP, LEARNER
from models.study.reading import Results, curve, evaluations, settings, side_by_side, source, words
from models.study.sections import SECTIONS
from models.study.stated import statements

MIXERS = (*COMPARED, LEARNER, *DEEP)
Section = dict[str, Any]
ENOUGH = 0.9  # the accuracy that counts as having learned recall


def render(results: Results, page: Path) -> str:
    """Return `report.html`, to be written to `page`, from the results that exist."""
    import jinja2  # with matplotlib, from the extra `study`

    templates = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    proofs, text, recall, cost = statements(results, page), _text(results), _recall(results), _cost(results)
    growing, said = growth.growth(results), claimed.claims(results, page)
    return environment.get_template("report.html.j2").render(
        results=results,
        sections=SECTIONS,
        jobs=results["jobs"],
        mixers={mixer: words(mixer) for mixer in MIXERS},
        unfinished=[
            name for name, job in results["jobs"].items() if job["planned"] and (job["recorded"] or not job["result"])
        ],
        proofs=proofs,
        claimed=said,
        text=text,
        recall=recall,
        cost=cost,
        brief=_brief(proofs, text, recall, cost, growing, said),
        through_time=growth.through_time(results),
        growth=growing,
        attention_memory=growth.attention_memory(results),
        hippo=state_spaces.remembered(results),
        copying=state_spaces.copying(results),
        induction=state_spaces.induction(results),
        digits=state_spaces.digits(results),
        needles=memory.needles(results),
        inner=memory.inner_loss(results),
        surprise=memory.surprise(results),
        rotation=memory.rotation(results),
        controls=controls.controls(results),
        learners=memory.learners(),
        arena=arena.arena(results),
        translation=translating.translation(results),
        vit=vision_transformer.digits(results),
        clip=contrasting.clip(results),
        sam=segmenting.segmentation(results),
        step_times=timing.step_times(results),
        scan=timing.scan(results),
        throughput=timing.throughput(results),
        experiments=experiments.experiments(results),
    )


def _brief(
    proofs: Section | None,
    text: Section | None,
    recall: list[Section],
    cost: Section | None,
    growing: Section | None,
    said: Section | None,
) -> list[tuple[str, str]]:
    """Return the conclusions, each with the section it comes from."""
    sections: list[tuple[str, Section | None]] = [("recall", kind) for kind in recall]
    sections += [("text", text), ("cost", cost), ("growth", growing), ("talks", said), ("statements", proofs)]
    return [(name, section["conclusion"]) for name, section in sections if section]


def _text(results: Results) -> dict[str, Any] | None:
    """Return held-out bits per byte: a figure, a row for each mixer, and their ranking."""
    curves, rows = {}, []
    for mixer, job in side_by_side(results, "text-", MIXERS).items():
        points = [(r["step"], r["held_out_loss"]["text"] / math.log(2)) for r in evaluations(job)]
        if not points:
            continue
        curves[mixer] = curve(points)
        seconds = [r["seconds"] for r in job["records"] if "seconds" in r and not job["recorded"]]
        result = job["result"] or {}
        rows.append(
            {
                "mixer": mixer,
                "bits": points[-1][1],
                "step": points[-1][0],
                "of": job["steps"],
                "parameters": result.get("parameters"),
                "ms": 1000 * sorted(seconds)[len(seconds) // 2] if seconds else None,
                "prompt": result.get("prompt"),
                "sample": printable(result.get("sample") or ""),
                "source": source(job),
            }
        )
    if not rows:
        return None
    figure = draw(
        [Panel("Text: held-out bits per byte", "training step", "bits per byte", curves, log_y=True)],
        "Held-out bits per byte against training steps, a curve a mixer",
    )
    sentences = _text_sentences(rows)
    return {
        "figure": figure,
        "rows": rows,
        "sentences": sentences,
        "conclusion": sentences[0],
        "settings": settings(results, "text-"),
    }


def printable(text: str) -> str:
    """Return text with its control characters, but for line feeds and tabs, as escapes: HTML has no NUL."""
    escaped = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def _text_sentences(rows: list[dict[str, Any]]) -> list[str]:
    if len({row["step"] for row in rows}) > 1:
        return ["The runs are not at the same step, so their losses cannot be compared yet."]
    ranked = sorted(rows, key=lambda row: row["bits"])
    listing = ", ".join(f"{words(row['mixer'])} {row['bits']:.3f}" for row in ranked)
    if len(rows) == 1:
        return [f"After {rows[0]['step']} steps the held-out bits per byte are: {listing}."]
    first, last = ranked[0], ranked[-1]
    gap = last["bits"] - first["bits"]
    return [
        f"After {first['step']} steps the held-out bits per byte are, from the lowest: {listing}.",
        f"From first to last that is {gap:.3f} bits, or {gap / first['bits']:.1%} of the lowest.",
    ]


def _recall(results: Results) -> list[dict[str, Any]]:
    """Return for each kind of recall the accuracy against steps and pairs, and the steps to learn it."""
    kinds = []
    for kind, title in (("overwritten", "every key written twice, the last value counts"), ("plain", "every key once")):
        jobs = side_by_side(results, f"recall-{kind}-", MIXERS)
        evaluated = {mixer: evaluations(job) for mixer, job in jobs.items() if evaluations(job)}
        if not evaluated:
            continue
        all_pairs = [int(p) for p in next(iter(evaluated.values()))[0]["held_out_accuracy"]]
        fixed = _fixed(all_pairs)
        steps = {m: curve([(r["step"], r["held_out_accuracy"][str(fixed)]) for r in rs]) for m, rs in evaluated.items()}
        pairs = {m: curve([(p, rs[-1]["held_out_accuracy"][str(p)]) for p in all_pairs]) for m, rs in evaluated.items()}
        rows = [_recall_row(m, rs, jobs[m], all_pairs, fixed) for m, rs in evaluated.items()]
        last = max(row["step"] for row in rows)
        limits = (-0.03, 1.03)
        figure = draw(
            [
                Panel(f"{fixed} pairs, as training goes on", "training step", "accuracy", steps, y_limits=limits),
                Panel(f"after {last} steps", "number of pairs", "accuracy", pairs, y_limits=limits),
            ],
            f"Recall, {title}: accuracy against training steps and against the number of pairs",
        )
        kinds.append(
            {
                "kind": kind,
                "title": title,
                "figure": figure,
                "rows": rows,
                "fixed": fixed,
                "pairs": all_pairs,
                "sentences": _recall_sentences(rows, fixed),
                "conclusion": _recall_conclusion(title, rows, all_pairs[-1]),
                "settings": settings(results, f"recall-{kind}-"),
            }
        )
    return kinds


def _fixed(pairs: list[int]) -> int:
    """Return 12, the number the curves over training are drawn for, or the one nearest to it."""
    return min(pairs, key=lambda p: abs(p - 12))


def _recall_row(mixer: str, records: list, job: Results, pairs: list[int], fixed: int) -> dict[str, Any]:
    reached = [r["step"] for r in records if r["held_out_accuracy"][str(fixed)] >= ENOUGH]
    last = records[-1]["held_out_accuracy"]
    pairs_held = [p for p in pairs if all(last[str(q)] >= ENOUGH for q in pairs if q <= p)]
    return {
        "mixer": mixer,
        "step": records[-1]["step"],
        "reached": reached[0] if reached else None,
        "held": max(pairs_held, default=0),
        "accuracies": {p: last[str(p)] for p in pairs},
        "state": (job["result"] or {}).get("state_numbers"),
        "source": source(job),
    }


def _recall_sentences(rows: list[dict[str, Any]], fixed: int) -> list[str]:
    reached = sorted((row for row in rows if row["reached"]), key=lambda row: row["reached"])
    never = [row for row in rows if not row["reached"]]
    sentences = []
    if reached:
        listing = ", ".join(f"{words(row['mixer'])} at step {row['reached']}" for row in reached)
        sentences.append(f"Accuracy first reached {ENOUGH:.0%} with {fixed} pairs: {listing}.")
    if never:
        listing = ", ".join(f"{words(row['mixer'])} ({row['accuracies'][fixed]:.0%} at the end)" for row in never)
        steps = max(row["step"] for row in never)
        sentences.append(f"Accuracy with {fixed} pairs stayed below {ENOUGH:.0%} for {steps} steps: {listing}.")
    ranked = sorted(rows, key=lambda row: -row["held"])
    listing = ", ".join(f"{words(row['mixer'])} {row['held'] or 'none'}" for row in ranked)
    sentences.append(f"The most pairs with an accuracy of at least {ENOUGH:.0%} at the end of training: {listing}.")
    return sentences


def _recall_conclusion(title: str, rows: list[dict[str, Any]], pairs: int) -> str:
    ranked = sorted(rows, key=lambda row: -row["accuracies"][pairs])
    listing = ", ".join(f"{words(row['mixer'])} {row['accuracies'][pairs]:.0%}" for row in ranked)
    steps = max(row["step"] for row in rows)
    return f"Recall, {title}: accuracy with {pairs} pairs after {steps} steps, from the highest: {listing}."


def _cost(results: Results) -> dict[str, Any] | None:
    """Return state size and time per token against T: a figure, rows, and the growth of each."""
    measured = {}
    for mixer in COMPARED:
        rows = [{k: v for k, v in r.items() if k != "step"} for r in results["jobs"][f"cost-{mixer}"]["records"]]
        if rows:
            measured[mixer] = rows
    if not measured:
        return None
    size = {m: curve([(r["T"], r["state_numbers"]) for r in rows]) for m, rows in measured.items()}
    milliseconds = {m: curve([(r["T"], 1000 * r["seconds"]) for r in rows]) for m, rows in measured.items()}
    figure = draw(
        [
            Panel("Numbers in the state", "tokens so far, T", "numbers", size, log_x=True, log_y=True),
            Panel("Time for the next token", "tokens so far, T", "ms", milliseconds, log_x=True, log_y=True),
        ],
        "Numbers in the state, and milliseconds for the next token, against the tokens before it",
    )
    sentences = []
    for mixer, rows in measured.items():
        first, last = rows[0], rows[-1]
        state = last["state_numbers"] / first["state_numbers"]
        grew = "did not grow" if state == 1 else f"grew {state:.0f} ×"
        sentences.append(
            f"{words(mixer).capitalize()}: from T = {first['T']} to {last['T']} the state {grew} "
            f"({last['state_numbers']:,} numbers); a token took {last['seconds'] / first['seconds']:.2f} × as long "
            f"({1000 * last['seconds']:.2f} ms)."
        )
    growing = [words(m) for m, rows in measured.items() if rows[-1]["state_numbers"] > rows[0]["state_numbers"]]
    fixed = [words(m) for m, rows in measured.items() if rows[-1]["state_numbers"] == rows[0]["state_numbers"]]
    first, last = (next(iter(measured.values()))[i]["T"] for i in (0, -1))
    conclusion = (
        f"From T = {first} to {last} tokens the state of {', '.join(growing) or 'no mixer'} grows; that of "
        f"{', '.join(fixed) or 'no mixer'} has the same size."
    )
    return {"figure": figure, "sentences": sentences, "conclusion": conclusion, "settings": settings(results, "cost-")}
