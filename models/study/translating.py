"""Section of the report on translation by the Transformer: exact match on held-out items, and attention to a source."""

from typing import Any

from models.study.figures import Panel, draw, draw_attention
from models.study.reading import Results, curve, evaluations, source
from models.tasks import TRANSLATIONS

CLAIM = 0.99  # the share of held-out items to be translated without a fault
SHARES = (-0.03, 1.03)


def translation(results: Results) -> dict[str, Any]:
    """Return the section: exact match by task and seed beside the claim, while training, and the maps of attention."""
    jobs = {name: job for name, job in results["jobs"].items() if name.startswith("translation-")}
    runs = {name: job["settings"]["run"] for name, job in jobs.items()}
    rows, curves = [], {}
    for name, job in jobs.items():
        if not (records := evaluations(job)):
            continue
        curves[f"{runs[name]['task']}, seed {runs[name]['seed']}"] = curve(
            (r["step"], min(r["held_out_accuracy"].values())) for r in records
        )
        rows += [
            {
                "task": runs[name]["task"],
                "set": held_out,
                "accuracy": share,
                "step": records[-1]["step"],
                "of": runs[name]["steps"],
                "parameters": (job["result"] or {}).get("parameters"),
                "source": source(job),
            }
            for held_out, share in records[-1]["held_out_accuracy"].items()
        ]
    panel = Panel("Exact match, as training goes on", "training step", "exact match", curves, y_limits=SHARES)
    return {
        "claim": CLAIM,
        "rows": rows,
        "settings": {task: next(run for run in runs.values() if run["task"] == task) for task in TRANSLATIONS},
        "missing": [name for name, job in jobs.items() if not job["result"]],
        "sentence": rows and reached(rows),
        "figure": curves and draw([panel], "Exact match on held-out items against training steps, a curve a run"),
        "examples": [_example(runs[name]["task"], job["result"]) for name, job in _first_finished(jobs, runs).items()],
    }


def reached(rows: list[dict[str, Any]]) -> str:
    """Describe which held-out sets are translated as well as claimed."""
    below = [row for row in rows if row["accuracy"] < CLAIM]
    begin = f"Of {len(rows)} held-out sets {len(rows) - len(below)} have an exact match of at least {CLAIM:.0%}"
    return begin + "".join(f"; {row['set']} has {row['accuracy']:.1%} ({row['source']})" for row in below) + "."


def _first_finished(jobs: dict[str, Results], runs: dict[str, Any]) -> dict[str, Results]:
    finished: dict[str, str] = {}
    for name, job in jobs.items():
        if job["result"] and "weights" in job["result"]:
            finished.setdefault(runs[name]["task"], name)
    return {name: jobs[name] for name in finished.values()}


def _example(task: str, result: dict[str, Any]) -> dict[str, Any]:
    source_text, target_text = ("".join(result[name]) for name in ("source", "target"))
    description = f"Weights of the cross-attention heads from each character of the output to those of {source_text!r}"
    return {
        "task": task,
        "source": source_text,
        "target": target_text,
        "mistakes": result["mistakes"],
        "figure": draw_attention(result["weights"], result["source"], result["target"], description),
    }
