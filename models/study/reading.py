"""Helpers of the report's sections: values read from results, and their names."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

SHOWS, REVERSED, NOT_RECORDED = "shows", "is reversed", "is not recorded yet"  # verdicts on an ordering
UNSETTLED = "is within the spread over seeds, so that no order is shown"
Results = Mapping[str, Any]
Curve = tuple[list[float], list[float]]
NAMES = {
    "s4": "S4",
    "s4d": "S4D",
    "lssl": "LSSL",
    "rnn": "RNN",
    "lstm": "LSTM",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "ttt_linear": "TTT-Linear",
    "ttt_mlp": "TTT-MLP",
    "titans": "Titans",
}
COMMON = ("mixer", "text", "form", "config", "start")  # settings that differ between jobs of one kind, or say nothing


def evaluations(job: Results) -> list[dict[str, Any]]:
    """Return the records with a held-out loss; one that diverged was written as null."""
    evaluated = [record for record in job["records"] if "held_out_loss" in record]
    return [record for record in evaluated if None not in record["held_out_loss"].values()]


def curve(points: Iterable[tuple[float, float]]) -> Curve:
    """Return (x, y) of points."""
    points = list(points)
    return [x for x, _ in points], [y for _, y in points]


def settings(results: Results, prefix: str) -> dict[str, Any]:
    """Return the settings that the jobs of one kind share."""
    job = next(job for name, job in results["jobs"].items() if name.startswith(prefix))
    return _common(job)


def side_by_side(results: Results, prefix: str, mixers: Iterable[str]) -> dict[str, Results]:
    """Return the jobs of mixers that can be compared, by mixer.

    A recorded job is left out where those of this study have other settings, or read the text of another Python.
    """
    jobs = {mixer: job for mixer in mixers if (job := results["jobs"].get(f"{prefix}{mixer}"))}
    planned = [job for job in jobs.values() if job["planned"]]
    if not planned:  # the quick study leaves it out
        return {}
    common = _common(planned[0])
    corpora = {job["result"].get("corpus") for job in planned if job["result"] and not job["recorded"]}

    def fits(job: Results) -> bool:
        same_text = not (job["recorded"] and corpora) or job["result"].get("corpus") in corpora
        return _common(job) == common and same_text

    return {mixer: job for mixer, job in jobs.items() if fits(job)}


def _common(job: Results) -> dict[str, Any]:
    run_settings = job["settings"].get("run", job["settings"])
    return {name: value for name, value in run_settings.items() if name not in COMMON}


def ordering(above: Sequence[float], below: Sequence[float], seeds: int) -> str:
    """Return whether an ordering shows: each seed of one side is above each of the other, once all have finished."""
    if min(len(above), len(below)) < seeds:
        return NOT_RECORDED
    if min(above) > max(below):
        return SHOWS
    return REVERSED if max(above) < min(below) else UNSETTLED


def overlap(x: Sequence[float], y: Sequence[float]) -> bool:
    """Return whether two ranges over seeds overlap."""
    return min(x) <= max(y) and min(y) <= max(x)


def unordered(ranked: Mapping[str, Sequence[float]]) -> list[str]:
    """Return a sentence on the pairs whose ranges over seeds overlap; none where all are apart."""
    pairs = [f"{first} and {second}" for (first, x), (second, y) in combinations(ranked.items(), 2) if overlap(x, y)]
    return [f"No order is shown between {'; between '.join(pairs)}: ranges over seeds overlap."] if pairs else []


def percent(shares: Sequence[float]) -> str:
    """Return the mean of shares with the least and the most of them, in percent; of one alone, that one."""
    mean = f"{sum(shares) / len(shares):.1%}"
    return mean if len(shares) == 1 else f"{mean} ({100 * min(shares):.1f}–{100 * max(shares):.1f})"


def words(mixer: str) -> str:
    """Return a mixer's name as prose has it."""
    return NAMES.get(mixer, mixer.replace("_", " "))


def source(job: Results) -> str:
    """Return where a job's numbers come from: "here", or the day, commit, seed and machine of a recorded result."""
    if not job["recorded"]:
        return "here"
    machine, of = job["machine"], job["settings"]
    seed = of.get("run", of.get("training", of)).get("seed")
    where = f"{machine['processor']}, {machine['cores']} cores"
    seeded = "" if seed is None else f"seed {seed}, "
    return f"recorded {machine['date']} at commit {machine['commit']}, {seeded}{where}"


def sources(jobs: list[Results]) -> str:
    """Return the days, commits and machines of several jobs' recorded results; "here" for results that are not."""
    recorded = [job["machine"] for job in jobs if job["recorded"]]
    if not recorded:
        return "here" if jobs else ""
    days = sorted({machine["date"][:10] for machine in recorded})
    commits = ", ".join(sorted({machine["commit"] for machine in recorded}))
    machines = "; ".join(sorted({f"{machine['processor']}, {machine['cores']} cores" for machine in recorded}))
    return f"recorded {' to '.join(dict.fromkeys((days[0], days[-1])))} at commit {commits}, {machines}"
