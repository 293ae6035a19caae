"""Sections of the report on state space models: HiPPO's memory, results of the long jobs, and the papers' claims."""

from typing import Any

from models.study.figures import Panel, draw
from models.study.plans import COPIERS, READERS, STARTS
from models.study.reading import Curve, Results, curve, evaluations, settings, source, words

Row = dict[str, Any]

SOLVED = 0.99  # the accuracy that counts as having found the answer
ACCURACY = (-0.03, 1.03)
SIZES_SHOWN = 3  # sizes N in the figure
LEAST_ERROR_SHOWN = 1e-4  # the least error in the figure
COPYING_TABLE = (  # Gu and Dao 2023, table 1: architecture, layer, accuracy
    ("no gate", "S4", 0.183),
    ("no gate", "S6", 0.970),
    ("H3", "S4", 0.570),
    ("H3", "S6", 0.997),
    ("Mamba", "S4", 0.564),
    ("Mamba", "S6", 0.998),
)
ARCHITECTURE = {"s4d": ("S4, gated linear unit", "S4D"), "mamba": ("Mamba", "S6")}
INDUCTION_TABLE = {  # Gu and Dao 2023, table 11: percent at 2⁶, 2⁷, …; attention ran out of memory after 2¹⁴
    "attention, RoPE (paper)": (100, 100, 100, 83.6, 31.3, 18.4, 8.6, 9.0, 5.5),
    "attention, xPos (paper)": (100, 100, 100, 99.6, 67.6, 25.4, 7.0, 9.0, 7.8),
    "H3 (paper)": (100, 100, 100, 80.9, 39.5, 23.8, 14.8, 8.2, 5.9, 6.6, 8.2, 4.7, 8.2, 6.3, 7.4),
    "Hyena (paper)": (97.7, 100, 100, 100, 44.1, 12.5, 6.6, 5.1, 7.0, 5.9, 6.6, 6.6, 5.9, 6.3, 9.8),
    "Mamba (paper)": (100,) * 15,
}


def remembered(results: Results) -> dict[str, Any] | None:
    """Return the section on HiPPO: a signal, its reconstruction by LegS and LegT, and their errors against N."""
    job = results["jobs"]["hippo"]
    result = job["result"]
    if result is None:
        return None
    legs, legt = ({r["N"]: r for r in result["rows"] if r["measure"] == measure} for measure in ("legs", "legt"))
    sizes = list(legs)
    middle, most, window = sizes[len(sizes) // 2], sizes[-1], job["settings"]["window"]
    sentences = [
        f"With N = {most} coefficients LegS reconstructs the whole past with an error of {legs[most]['error']:.2%}, "
        f"LegT the last {window:.0%} of it with an error of {legt[most]['error']:.2%}. With N = {middle} the errors "
        f"are {legs[middle]['error']:.2%} and {legt[middle]['error']:.2%}.",
        f"Where the best approximation by N polynomials has an error above 1%, that of LegS is at most "
        f"{_excess(legs):.2f} × as large and that of LegT, which has to estimate the values that leave its window, "
        f"{_excess(legt):.2f} ×.",
    ]
    return {
        "figures": _memories((result["times"], result["signal"]), legs, legt, middle),
        "sentences": sentences,
        "rows": [{"N": n, "legs": legs[n], "legt": legt[n]} for n in sizes],
        "settings": job["settings"],
    }


def _memories(signal: Curve, legs: dict[int, Row], legt: dict[int, Row], middle: int) -> list[str]:
    def reconstruction(row: Row) -> Curve:
        return row["times"], row["made"]

    def errors(rows: dict[int, Row], key: str) -> Curve:
        return curve((n, row[key]) for n, row in rows.items() if row[key] > LEAST_ERROR_SHOWN)

    by_size = {f"LegS, N = {n}": reconstruction(legs[n]) for n in list(legs)[-SIZES_SHOWN:]}
    both = {"LegS": reconstruction(legs[middle]), "LegT": reconstruction(legt[middle])}
    against = {
        "LegS": errors(legs, "error"),
        "LegS, best possible": errors(legs, "least"),
        "LegT": errors(legt, "error"),
        "LegT, best possible": errors(legt, "least"),
    }
    past = Panel("Reconstruction of the whole past from N coefficients", "time", "", {**by_size, "signal": signal})
    panels = [
        Panel(f"LegS and LegT with N = {middle}", "time", "", {**both, "signal": signal}),
        Panel("Error over the span remembered", "N", "relative error", against, log_x=True, log_y=True),
    ]
    return [
        draw([past], "A signal and its reconstruction by LegS at several N"),
        draw(panels, "A signal, its reconstructions by LegS and LegT, and the error of both against N"),
    ]


def _excess(rows: dict[int, Row]) -> float:
    return max((row["error"] / row["least"] for row in rows.values() if row["least"] > 0.01), default=1.0)


def copying(results: Results) -> dict[str, Any]:
    """Return the section on selective copying: accuracy during training and at its end, and the paper's."""
    jobs = {mixer: results["jobs"][f"copying-{mixer}"] for mixer in COPIERS}
    evaluated = {mixer: evaluations(job) for mixer, job in jobs.items() if evaluations(job)}
    rows = [
        {
            "architecture": ARCHITECTURE[mixer][0],
            "layer": ARCHITECTURE[mixer][1],
            "step": records[-1]["step"],
            "of": jobs[mixer]["settings"]["steps"],
            "accuracy": records[-1]["held_out_accuracy"]["copying"],
            "source": source(jobs[mixer]),
        }
        for mixer, records in evaluated.items()
    ]
    curves = {
        words(m): curve((r["step"], r["held_out_accuracy"]["copying"]) for r in rs) for m, rs in evaluated.items()
    }
    return {
        "rows": rows,
        "paper": COPYING_TABLE,
        "settings": settings(results, "copying-"),
        "missing": _missing(jobs),
        "figure": curves
        and draw(
            [Panel("Selective copying, as training goes on", "training step", "accuracy", curves, y_limits=ACCURACY)],
            "Selective copying: accuracy against training steps",
        ),
    }


def induction(results: Results) -> dict[str, Any]:
    """Return the section on induction heads: accuracy against length beyond that of training, and the paper's."""
    job = results["jobs"]["induction-mamba"]
    accuracies = {int(n): accuracy for n, accuracy in ((job["result"] or {}).get("lengths") or {}).items()}
    section = {
        "settings": settings(results, "induction-"),
        "sequences": job["settings"]["sequences"],
        "source": source(job),
        "missing": _missing({"mamba": job}),
        "rows": [],
    }
    if not accuracies:
        return section
    paper = {name: {2 ** (6 + i): p / 100 for i, p in enumerate(row)} for name, row in INDUCTION_TABLE.items()}
    curves = {"Mamba, here": curve(accuracies.items()), **{name: curve(row.items()) for name, row in paper.items()}}
    trained = section["settings"]["length"]
    return {
        **section,
        "names": list(paper),
        "sentence": how_far(accuracies, trained),
        "rows": [
            {"length": n, "here": y, "paper": [row.get(n) for row in paper.values()]} for n, y in accuracies.items()
        ],
        "figure": draw(
            [
                Panel(
                    f"Induction heads, trained at {trained}",
                    "length",
                    "accuracy",
                    curves,
                    log_x=True,
                    y_limits=ACCURACY,
                )
            ],
            "Induction heads: accuracy against the length of the sequence",
        ),
    }


def how_far(accuracies: dict[int, float], trained: int) -> str:
    """Describe up to which length the answers are right."""
    below = {length: accuracy for length, accuracy in accuracies.items() if accuracy < SOLVED}
    begin = f"Trained at {trained}, Mamba has an accuracy of at least {SOLVED:.0%} at"
    if not below:
        return f"{begin} every length up to {max(accuracies):,}."
    listing = ", ".join(f"at {length:,} it is {accuracy:.1%}" for length, accuracy in below.items())
    return f"{begin} {len(accuracies) - len(below)} of {len(accuracies)} lengths up to {max(accuracies):,}; {listing}."


def digits(results: Results) -> dict[str, Any]:
    """Return the section on digits: accuracy of every mixer from HiPPO's matrix and from a random one."""
    jobs = {(mixer, start): results["jobs"][f"digits-{mixer}-{start}"] for mixer in READERS for start in STARTS}
    evaluated = {key: evaluations(job) for key, job in jobs.items() if evaluations(job)}
    last = {key: records[-1]["held_out_accuracy"]["digits"] for key, records in evaluated.items()}
    rows = [
        {
            "mixer": words(mixer),
            "accuracies": [last.get((mixer, start)) for start in STARTS],
            "steps": [evaluated[mixer, start][-1]["step"] if (mixer, start) in evaluated else None for start in STARTS],
            "sources": list(dict.fromkeys(source(jobs[mixer, s]) for s in STARTS if (mixer, s) in evaluated)),
        }
        for mixer in READERS
        if any((mixer, start) in evaluated for start in STARTS)
    ]
    gains = [(words(m), last[m, "hippo"] - last[m, "random"]) for m in READERS if {(m, s) for s in STARTS} <= set(last)]
    panels = [
        Panel(
            f"{'HiPPO' if start == 'hippo' else start} start",
            "training step",
            "accuracy",
            {
                words(m): curve((r["step"], r["held_out_accuracy"]["digits"]) for r in records)
                for (m, s), records in evaluated.items()
                if s == start
            },
            y_limits=ACCURACY,
        )
        for start in STARTS
    ]
    return {
        "rows": rows,
        "starts": STARTS,
        "settings": settings(results, "digits-"),
        "missing": [name for name, job in results["jobs"].items() if name.startswith("digits-") and not job["result"]],
        "sentence": gains
        and "Gain from the HiPPO initialisation, in points: "
        + ", ".join(f"{name} {100 * gain:+.1f}" for name, gain in gains)
        + ".",
        "figure": evaluated and draw(panels, "Digits: held-out accuracy against training steps, by start"),
    }


def _missing(jobs: dict[str, Results]) -> list[str]:
    return [words(mixer) for mixer, job in jobs.items() if not job["result"]]
