"""Section of the report on CLIP: pictures of combinations that training never showed, classified by their captions."""

from typing import Any

import numpy as np

from models.study.figures import Panel, draw, draw_similarities
from models.study.reading import Results, curve, percent, source
from models.tasks.scenes import PHRASINGS, SCENES
from models.vision.clip_scenes import UNSEEN, Settings, shown

CLAIM = 0.9  # the accuracy on unseen combinations that is claimed
SHARES = (-0.03, 1.03)
KINDS = {"unseen": "combinations never shown", "seen": "combinations of the training pictures"}


def clip(results: Results) -> dict[str, Any]:
    """Return the section: zero-shot accuracy and retrieval by run, against steps and pairs, and the similarities."""
    jobs = {name: job for name, job in results["jobs"].items() if job["kind"] == "clip"}
    rows = [_row(Settings(**job["settings"]), job) for job in jobs.values() if job["result"]]
    largest = max(Settings(**job["settings"]).pairs for job in jobs.values())
    whole = [row for row in rows if row["pairs"] == largest and not row["shuffled"]]
    first = next((job for job in jobs.values() if job["result"]), None)
    return {
        "claim": CLAIM,
        "classes": len(SCENES),
        "unseen": int(UNSEEN.sum()),
        "phrasings": PHRASINGS,
        "settings": Settings(**next(iter(jobs.values()))["settings"]),
        "rows": rows,
        "missing": [name for name, job in jobs.items() if not job["result"]],
        "sentences": [reached(whole), ensembles(whole), *controls(rows, largest)] if whole else [],
        "figure": _curves(jobs, rows),
        "matrix": first and _matrix(first),
    }


def reached(rows: list[dict[str, Any]]) -> str:
    """Describe whether unseen combinations are classified as well as claimed, and which attribute is missed most."""
    below = [row["seed"] for row in rows if row["unseen"] < CLAIM]
    found = f"does not hold with seed {', '.join(map(str, below))}" if below else "holds with every seed"
    attributes = {name: np.mean([row["attributes"][name] for row in rows]) for name in rows[0]["attributes"]}
    worst = min(attributes, key=lambda name: attributes[name])
    unseen, seen = (percent([row[name] for row in rows]) for name in ("unseen", "seen"))
    return (
        f"Of pictures of unseen combinations {unseen} get their own caption of {len(SCENES)}, of seen ones "
        f"{seen}. That it is at least {CLAIM:.0%} of the unseen {found}, of {len(rows)} finished. The attribute "
        f"that is missed most is the {worst}: it is right in {attributes[worst]:.1%}."
    )


def ensembles(rows: list[dict[str, Any]]) -> str:
    """Describe what the ensemble of phrasings gains over single ones, on unseen combinations."""
    single = np.mean([row["single"] for row in rows], axis=0)
    ensemble = float(np.mean([row["unseen"] for row in rows]))
    return (
        f"A single phrasing classifies {min(single):.1%} to {max(single):.1%} of them, the ensemble of all "
        f"{len(single)} {ensemble:.1%}."
    )


def controls(rows: list[dict[str, Any]], largest: int) -> list[str]:
    """Describe the accuracy with fewer pairs, and with captions that are dealt to other pictures."""
    fewer = sorted((row["pairs"], row["unseen"]) for row in rows if row["pairs"] < largest)
    sentences = []
    if fewer:
        listing = ", ".join(f"{unseen:.1%} after {pairs:,}" for pairs, unseen in fewer)
        sentences.append(
            f"With as many steps over fewer pairs, of unseen combinations are classified {listing}. The talk on six "
            f"papers says that CLIP works with limited data; the paper's model saw 400 million pairs (section 2.2)."
        )
    for row in rows:
        if row["shuffled"]:
            sentences.append(
                f"With captions dealt to other pictures {row['seen']:.1%} of seen and {row['unseen']:.1%} of unseen "
                f"combinations are classified, where chance is {1 / len(SCENES):.1%}."
            )
    return sentences


def _row(settings: Settings, job: Results) -> dict[str, Any]:
    result = job["result"]
    return {
        "seed": settings.seed,
        "pairs": settings.pairs,
        "shuffled": settings.shuffled,
        **result["zero_shot"],
        "single": result["phrasings"],
        "attributes": result["attributes"],
        "retrieval": result["retrieval"],
        "parameters": result["parameters"],
        "scale": result["scale"],
        "source": source(job),
    }


def _curves(jobs: dict[str, Results], rows: list[dict[str, Any]]) -> str:
    """Return accuracy against steps, of the run with most evaluations, and against the number of pairs."""
    steps = max(([r for r in job["records"] if "held_out_accuracy" in r] for job in jobs.values()), key=len, default=[])
    if not steps:
        return ""
    over_steps = {
        title: curve((r["step"], r["held_out_accuracy"][kind]) for r in steps) for kind, title in KINDS.items()
    }
    panels = [Panel("While training", "training step", "accuracy", over_steps, y_limits=SHARES)]
    by_pairs: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if not row["shuffled"]:
            by_pairs.setdefault(row["pairs"], []).append(row)
    if len(by_pairs) > 1:
        over_pairs = {
            title: curve((pairs, float(np.mean([row[kind] for row in of]))) for pairs, of in sorted(by_pairs.items()))
            for kind, title in KINDS.items()
        }
        panels.append(Panel("At the end", "training pairs", "accuracy", over_pairs, log_x=True, y_limits=SHARES))
    return draw(panels, "Zero-shot accuracy on held-out pictures against training steps and against training pairs")


def _matrix(job: Results) -> dict[str, Any]:
    """Return the pictures and captions of unseen scenes with their similarities, and how many captions are nearest."""
    cosines = np.array(job["result"]["similarities"])
    pictures, captions = shown(job["settings"]["seed"])
    description = "Cosines of the features of pictures and captions; those of pairs are on the diagonal"
    own = int(np.sum(np.argmax(cosines, axis=1) == np.arange(len(cosines))))
    return {
        "figure": draw_similarities(list(np.moveaxis(pictures, 1, -1)), captions, cosines.tolist(), description),
        "own": own,
        "of": len(cosines),
        "source": source(job),
    }
