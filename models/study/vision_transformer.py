"""Section of the report on ViT: accuracy against the number of digits, and where the class token looks."""

from typing import Any

import numpy as np

from models.study.figures import Panel, draw, draw_maps
from models.study.reading import Results, overlap, percent, source

NAMES = {"vit": "ViT", "cnn": "CNN"}
LARGE = "vit-large-digits"
INK = -0.5  # the mean pixel above which a patch has ink: a quarter of full ink
CLAIM = 0.97  # of held-out digits, after training on all others


def digits(results: Results) -> dict[str, Any]:
    """Return the section: mean accuracy over seeds by network and number of digits, and maps of attention rollout."""
    jobs = {name: job for name, job in results["jobs"].items() if name.startswith("vit-digits-")}
    finished = {name: job for name, job in jobs.items() if job["result"]}
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for job in finished.values():
        for row in job["result"]["rows"]:
            measured.setdefault((row["network"], row["images"]), []).append(row)
    rows = [_row(network, images, same) for (network, images), same in measured.items()]
    large = results["jobs"][LARGE]
    return {
        "claim": CLAIM,
        "rows": rows,
        "missing": [name for name, job in jobs.items() if not job["result"]],
        "sentence": rows and _sentence(rows),
        "figure": rows and _figure(rows),
        "sources": list(dict.fromkeys(map(source, finished.values()))),
        "settings": next(iter(jobs.values()))["settings"]["sizes"] if jobs else {},
        "large": large["result"] and _large(large),
        "transfer": _transfer(results),
    }


def _transfer(results: Results) -> dict[str, Any]:
    """Return accuracy on new digits by examples of each, with pre-training and without: means over seeds."""
    jobs = {name: job for name, job in results["jobs"].items() if name.startswith("transfer-")}
    finished = [job for job in jobs.values() if job["result"]]
    settings = next(iter(jobs.values()))["settings"] if jobs else {}
    rows = []
    for count in settings.get("shots", []) if finished else []:
        same = [row for job in finished for row in job["result"]["rows"] if row["shots"] == count]
        each = {name: [row[name] for row in same] for name in ("pretrained", "scratch")}
        rows.append({"shots": count, **each, **{f"mean_{k}": percent(v) for k, v in each.items()}})
    return {
        "rows": rows,
        "sentence": rows and _transferred(rows),
        "settings": settings,
        "missing": [name for name, job in jobs.items() if not job["result"]],
        "sources": list(dict.fromkeys(map(source, finished))),
    }


def _transferred(rows: list[dict[str, Any]]) -> str:
    """Say in how many cases pre-training helps, and how much at the fewest examples."""
    pairs = [pair for row in rows for pair in zip(row["pretrained"], row["scratch"], strict=True)]
    above, first = sum(a > b for a, b in pairs), rows[0]
    return (
        f"With {first['shots']} of each digit the pre-trained network recognises {first['mean_pretrained']} of the "
        f"held-out ones, the other {first['mean_scratch']}. It is ahead in {above} of {len(pairs)} comparisons of "
        f"the same seed and examples.{_overlapping(rows)}"
    )


def _overlapping(rows: list[dict[str, Any]]) -> str:
    """Say with how many examples the ranges of both over seeds overlap."""
    of = [str(row["shots"]) for row in rows if overlap(row["pretrained"], row["scratch"])]
    return f" With {', '.join(of)} ranges over seeds overlap, so that no order is shown." if of else ""


def _on_ink(maps: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the mean share of rollout on patches with ink, and these patches' share of the picture."""
    shares, areas = [], []
    for shown in maps:
        pixels, rollout = np.array(shown["pixels"]), np.array(shown["map"])
        rows, columns = rollout.shape
        patches = pixels.reshape(rows, len(pixels) // rows, columns, -1).mean(axis=(1, 3))  # −1 is paper, 1 ink
        ink = patches > INK
        shares.append(rollout[ink].sum())
        areas.append(ink.mean())
    return float(np.mean(shares)), float(np.mean(areas))


def _row(network: str, images: int, same: list[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [row["accuracy"] for row in same]
    return {
        "network": NAMES[network],
        "images": images,
        "parameters": same[0]["parameters"],
        "accuracies": accuracies,
        "mean": sum(accuracies) / len(accuracies),
        "spread": percent(accuracies),
    }


def _figure(rows: list[dict[str, Any]]) -> str:
    curves = {}
    for name in NAMES.values():
        points = sorted((row["images"], row["mean"]) for row in rows if row["network"] == name)
        curves[name] = ([images for images, _ in points], [mean for _, mean in points])
    panel = Panel("Held-out digits, mean over seeds", "digits trained on", "accuracy", curves, log_x=True)
    return draw([panel], "Accuracy on held-out digits against the number of digits trained on, ViT and CNN")


def _sentence(rows: list[dict[str, Any]]) -> str:
    """Say how far apart the networks are at the fewest and at the most digits, and whether an order is shown there."""
    of = {(row["network"], row["images"]): row["accuracies"] for row in rows}
    ends = [min(row["images"] for row in rows), max(row["images"] for row in rows)]
    gaps = [float(np.mean(of["CNN", images]) - np.mean(of["ViT", images])) for images in ends]
    listing = " and ".join(
        f"with {images:,} digits ViT has {percent(of['ViT', images])} and the CNN {percent(of['CNN', images])}"
        for images in ends
    )
    overlapping = [f"{n:,}" for n in ends if overlap(of["ViT", n], of["CNN", n])]
    if overlapping:
        lead = f"With {' and '.join(overlapping)} digits ranges over seeds overlap, so that no order is shown"
    elif gaps[1] < 0:
        lead = "With all of them ViT is ahead, as the paper finds of much data"
    elif gaps[1] < gaps[0]:
        lead = "The CNN's lead shrinks with the data, as in the paper; these are too few for ViT to overtake it"
    else:
        lead = "The CNN's lead does not shrink with the data, unlike in the paper"
    return f"Means over seeds, with their ranges: {listing}. {lead}."


def _large(job: Results) -> dict[str, Any]:
    result, sizes = job["result"], job["settings"]["sizes"]
    (row,), maps = result["rows"], result["maps"]
    titles = [_title(shown["digit"], shown["answer"]) for shown in maps]
    return {
        "accuracy": row["accuracy"],
        "parameters": row["parameters"],
        "settings": sizes,
        "source": source(job),
        "on_ink": _on_ink(maps),
        "figure": draw_maps(
            [shown["pixels"] for shown in maps],
            [shown["map"] for shown in maps],
            titles,
            "Ten digits, and below each how much of the class token comes from each of its patches",
        ),
    }


def _title(digit: int, answer: int) -> str:
    return str(digit) if answer == digit else f"{digit}, read as {answer}"
