"""Section of the report on Segment Anything: masks of what is clicked on, in scenes that training never showed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.study.figures import Panel, draw
from models.study.mask_figures import Masked, draw_masks
from models.study.reading import Results, curve, source
from models.tasks.overlapping_shapes import SHAPES
from models.vision.sam.held_out import LIKE, unpack

CLAIM = 0.85  # the mean IoU of one click that is claimed
SHORT = "sam-short"
CLICKS = ("1", "2", "3", "4", "5")
KINDS = {"all": "all objects", "wholes": "wholes", "parts": "parts"}
SHARES = (-0.03, 1.03)


def segmentation(results: Results) -> dict[str, Any]:
    """Return the section: IoUs by prompt, against steps and by score, and masks of clicks, boxes and a grid."""
    jobs = {name: job for name, job in results["jobs"].items() if job["kind"] == "sam"}
    short = jobs.pop(SHORT, None)
    finished = [job for job in jobs.values() if job["result"]]
    trained = [*finished, *([short] if short and short["result"] else [])]
    return {
        "claim": CLAIM,
        "shapes": SHAPES,
        "missing": [name for name, job in jobs.items() if not job["result"]],
        "sentences": sentences(finished) if finished else [],
        "short": briefly(short) if short in trained else None,
        "rows": [row for job in trained for row in _rows(job, short=job is short)],
        "shown": _shown(trained[0], short=trained[0] is short) if trained else None,
    }


def sentences(finished: Sequence[Results]) -> list[str]:
    """Describe what the finished trainings reach, and whether that is what is claimed."""
    of = [job["result"] for job in finished]
    below = [job["settings"]["training"]["seed"] for job in finished if job["result"]["iou"]["all"]["1"] < CLAIM]
    return [reached(of, below), rising(of), by_kind(of), ambiguous(of), ordered(of), found(of)]


def reached(of: Sequence[Results], below: Sequence[int]) -> str:
    """Describe whether a click reaches the IoU that is claimed, which it does not with the seeds `below`."""
    holds = f"does not hold with seed {', '.join(map(str, below))}" if below else "holds with every seed"
    objects = sum(result["objects"]["all"] for result in of)
    return (
        f"After one click at an object's centre, the mask of the highest score has a mean IoU of "
        f"{_mean(of, 'iou', 'all', '1'):.3f} with the object, over {objects:,} of them in held-out scenes. "
        f"That it is at least {CLAIM} {holds}, of {len(of)} finished."
    )


def rising(of: Sequence[Results]) -> str:
    """Describe whether more clicks and a box give better masks than one click."""
    iou = {name: _mean(of, "iou", "all", name) for name in (*CLICKS, "box")}

    def above(high: str, low: str) -> bool:
        return all(result["iou"]["all"][high] > result["iou"]["all"][low] for result in of)  # with every seed

    claims = [
        (above("3", "1"), "rises with three clicks", "does not rise with three clicks"),
        (above("5", "3"), "rises further with five", "does not rise further with five"),
        (above("box", "1"), "is higher from a box than from a click", "is not higher from a box than from a click"),
    ]
    first, second, third = (yes if holds else no for holds, yes, no in claims)
    verdict = "as claimed" if all(holds for holds, *_ in claims) else "which is not what is claimed"
    return (
        f"It is {iou['3']:.3f} after three clicks, {iou['5']:.3f} after five, and {iou['box']:.3f} from a box: "
        f"it {first}, {second}, and {third}, {verdict}."
    )


def by_kind(of: Sequence[Results]) -> str:
    """Describe how wholes and parts differ, and how much of a click's error is ambiguity."""
    wholes, parts, best, one = (
        _mean(of, "iou", kind, name)
        for kind, name in (("wholes", "1"), ("parts", "1"), ("all", "best of 3"), ("all", "1"))
    )
    return (
        f"One click gives {wholes:.3f} for shapes with their parts and {parts:.3f} for parts. "
        f"If somebody chose among the three masks the one that was meant, the mean would be {best:.3f}: "
        f"{best - one:.3f} is lost by the choice."
    )


def ambiguous(of: Sequence[Results]) -> str:
    """Describe whether the masks of a click on a part have the part and its whole."""
    clicks = sum(result["ambiguity"]["clicks"] for result in of)
    if not clicks:
        return "No part was seen together with its whole."
    part, whole, both, first = (_mean(of, "ambiguity", name) for name in ("part", "whole", "both", "part first"))
    return (
        f"A click on a part is one on its whole too. Of {clicks:,} such clicks {both:.0%} have both among their three "
        f"masks, with IoUs of at least {LIKE}. The one nearest to the part has a mean IoU of {part:.3f} with it, "
        f"the one nearest to the whole {whole:.3f}. The mask of the highest score is nearer the part in {first:.0%}."
    )


def ordered(of: Sequence[Results]) -> str:
    """Describe how well scores order masks."""
    click, box = (_mean(of, "ranking", name, "spearman") for name in ("click", "box"))
    return (
        f"Predicted and true IoUs order masks alike with a rank correlation (Spearman) of {click:.2f} over the three "
        f"masks of every click, and {box:.2f} over the masks of boxes."
    )


def found(of: Sequence[Results]) -> str:
    """Describe how many objects a grid of points finds."""
    scenes, masks = (sum(result["everything"][name] for result in of) for name in ("scenes", "masks"))
    right, wholes, parts = (_mean(of, "everything", name) for name in ("like an object", "wholes", "parts"))
    return (
        f"Without a prompt, a grid of points finds {masks / scenes:.1f} masks a scene. Of these {right:.0%} have an "
        f"IoU of at least {LIKE} with an object; it finds {wholes:.0%} of the wholes and {parts:.0%} of the parts so."
    )


def briefly(short: Results) -> str:
    """Describe the short training."""
    training, result = short["settings"]["training"], short["result"]
    side = short["settings"]["model"]["image"]["image"]
    iou = result["iou"]["all"]
    return (
        f"The short training ({source(short)}) is of a model of {result['parameters']:,} parameters on pictures of "
        f"{side} × {side}, for {training['steps']:,} steps only. After one click its mean IoU is {iou['1']:.3f}, after "
        f"three {iou['3']:.3f}, and from a box {iou['box']:.3f}. So short a training decides no claim."
    )


def _mean(of: Sequence[Results], *names: str) -> float:
    """Return the mean over results of a number that lies below these names."""
    values = []
    for value in of:
        for name in names:
            value = value[name]
        values.append(value)
    return float(np.mean(np.array(values, float)))  # None, a mean of nothing, is NaN


def _rows(job: Results, *, short: bool) -> list[dict[str, Any]]:
    result, training = job["result"], job["settings"]["training"]
    return [
        {
            "run": f"{'short, ' if short else ''}seed {training['seed']}",
            "of": words,
            "objects": result["objects"][kind],
            "iou": [result["iou"][kind][name] for name in (*CLICKS, "best of 3", "box")],
            "source": source(job),
        }
        for kind, words in KINDS.items()
        if result["objects"][kind]
    ]


def _shown(job: Results, *, short: bool) -> dict[str, Any]:
    """Return the figures of a finished training."""
    result, settings = job["result"], job["settings"]
    pictures = {int(scene): unpack(picture, channels=3) for scene, picture in result["pictures"].items()}
    return {
        "name": "the short training" if short else f"the training with seed {settings['training']['seed']}",
        "source": source(job),
        "settings": settings,
        "parameters": result["parameters"],
        "curves": _curves(job),
        "prompted": _prompted(result["examples"], pictures),
        "ambiguous": _ambiguous(result["clicks on parts"], pictures),
        "found": _found(result["found"], pictures),
    }


def _curves(job: Results) -> str:
    """Return the IoU against clicks and against steps, and that of masks against their scores."""
    result, steps = job["result"], [record for record in job["records"] if "held_out_iou" in record]
    by_clicks = {
        words: curve((int(count), result["iou"][kind][count]) for count in CLICKS)
        for kind, words in KINDS.items()
        if result["objects"][kind]
    }
    ends = [float(CLICKS[0]), float(CLICKS[-1])]
    by_clicks["a box"] = (ends, [result["iou"]["all"]["box"]] * 2)
    by_clicks["claimed"] = (ends, [CLAIM] * 2)
    named = {"1 click": "1", "3 clicks": "3", "a box": "box"}
    by_steps = {
        words: curve((record["step"], record["held_out_iou"][name]) for record in steps)
        for words, name in named.items()
    }
    by_steps["claimed"] = ([record["step"] for record in steps], [CLAIM] * len(steps))
    names = {"click": "1 click", "box": "a box"}
    by_score = {
        words: curve((score, iou) for _, score, iou in result["ranking"][name]["tenths"])
        for name, words in names.items()
    }
    by_score["equal"] = ([0, 1], [0, 1])
    return draw(
        [
            Panel("At the end", "clicks", "mean IoU", by_clicks),
            Panel("While training", "training step", "mean IoU", by_steps, y_limits=SHARES),
            Panel("Every tenth of the scores", "mean predicted IoU", "mean IoU", by_score, y_limits=SHARES),
        ],
        "Mean IoU on held-out scenes against clicks, against training steps, and against the predicted IoU",
    )


def _prompted(examples: Sequence[Results], pictures: Mapping[int, np.ndarray]) -> str:
    """Return objects of scenes, and the masks from a click on each and from its box."""
    rows: dict[str, list[Masked]] = {"object": [], "a click": [], "a box": []}
    for example in examples:
        picture, drawn = pictures[example["scene"]], unpack(example["object"])
        rows["object"].append(Masked(picture, "a part" if example["part"] else "a whole", outline=drawn))
        for name, prompt in (("click", "point"), ("box", "box")):
            of = example[name]
            title = f"score {of['score']:.2f}\nIoU {of['iou']:.2f}"
            masked = Masked(picture, title, [unpack(of["mask"])], drawn, **{prompt: of["prompt"]})
            rows[f"a {name}"].append(masked)
    return (
        draw_masks(rows, "Objects of held-out scenes, and the masks that a click on each and its box give")
        if examples
        else ""
    )


def _ambiguous(clicks: Sequence[Results], pictures: Mapping[int, np.ndarray]) -> str:
    """Return the three masks of clicks on parts, that of the highest score first."""
    rows: dict[str, list[Masked]] = {"click": [], "first": [], "second": [], "third": []}
    for click in clicks:
        picture = pictures[click["scene"]]
        rows["click"].append(Masked(picture, point=click["point"]))
        order = np.argsort(click["scores"])[::-1]
        for name, i in zip(("first", "second", "third"), order, strict=True):
            score, part, whole = (click[of][i] for of in ("scores", "part", "whole"))
            title = f"score {score:.2f}\npart {part:.2f}, whole {whole:.2f}"
            rows[name].append(Masked(picture, title, [unpack(click["masks"][i])], point=click["point"]))
    return draw_masks(rows, "Clicks on parts, and the three masks of each with its score") if clicks else ""


def _found(found: Sequence[Sequence[str]], pictures: Mapping[int, np.ndarray]) -> str:
    """Return scenes, and everything that a grid of points finds in them, small masks over large ones."""
    rows: dict[str, list[Masked]] = {"scene": [], "everything": []}
    for scene, texts in enumerate(found):
        masks = sorted(map(unpack, texts), key=lambda mask: -mask.sum())
        rows["scene"].append(Masked(pictures[scene]))
        rows["everything"].append(Masked(pictures[scene], f"{len(masks)} masks", masks))
    return draw_masks(rows, "Held-out scenes, and all masks that a grid of points finds in them")
