"""Segment Anything in the study: its job in miniature, what it measures, and its section of the report."""

import json
import threading

import numpy as np
import pytest

from models import log
from models.study import job_handlers, jobs, plans, segmenting
from models.study.jobs import Job
from models.study.mask_figures import edges
from models.vision.sam import held_out
from models.vision.sam.held_out import Prompted
from models.vision.sam.training import Options
from tests.models.test_study import TINY


def segmentation() -> Job:
    return next(job for job in plans.long_jobs(TINY) if job.kind == "sam")


def segmented(click: float, three: float = 0.9, five: float = 0.95, box: float = 0.97) -> dict:
    """Return a result whose mean IoUs are these."""
    iou = {"best of 3": 0.99, "1": click, "2": click, "3": three, "4": three, "5": five, "box": box}
    mask, picture = held_out.pack(np.eye(8, dtype=bool)), held_out.pack(np.zeros((8, 8, 3), np.uint8))
    prompted = {"mask": mask, "score": 0.5, "iou": 0.25}
    tenths = {"spearman": 0.75, "tenths": [[3, 0.15, 0.25], [4, 0.95, 0.75]]}
    return {
        "parameters": 7,
        "scenes": 2,
        "objects": {"all": 1200, "wholes": 700, "parts": 500},
        "iou": dict.fromkeys(("all", "wholes", "parts"), iou),
        "ranking": {"click": tenths, "box": tenths},
        "ambiguity": {"clicks": 8, "part": 0.8, "whole": 0.7, "both": 0.5, "part first": 0.625},
        "everything": {"scenes": 2, "masks": 7, "like an object": 0.75, "wholes": 0.5, "parts": 0.25},
        "pictures": {"0": picture},
        "examples": [
            {
                "scene": 0,
                "part": True,
                "object": mask,
                "click": {**prompted, "prompt": [1.0, 1.0]},
                "box": {**prompted, "prompt": [0.0, 0.0, 7.0, 7.0]},
            }
        ],
        "clicks on parts": [
            {
                "scene": 0,
                "point": [1.0, 1.0],
                "masks": [mask] * 3,
                "scores": [0.25, 0.75, 0.5],
                "part": [0.1, 0.2, 0.3],
                "whole": [0.4, 0.6, 0.8],
            }
        ],
        "found": [[mask, mask]],
    }


def results(**finished: dict) -> dict:
    """Return what a study has of the jobs with these results."""
    planned = {job.name: job for job in [*plans.plan(TINY), *plans.long_jobs(TINY)] if job.kind == "sam"}
    return {
        "jobs": {
            name: {
                "kind": "sam",
                "settings": job.settings,
                "recorded": False,
                "records": [],
                "result": finished.get(name.replace("-", "_")),
            }
            for name, job in planned.items()
        }
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a folder in which the job has run."""
    out = tmp_path_factory.mktemp("study")
    begin(segmentation(), out)
    assert jobs.work(segmentation().folder(out))
    return out


def begin(job: Job, out) -> None:
    job.folder(out).mkdir(parents=True)
    (job.folder(out) / "job.json").write_text(json.dumps({"kind": job.kind, "settings": job.settings}))


def test_the_job_records_losses_and_ious_and_keeps_what_the_page_shows(study):
    records, result = segmentation().records(study), segmentation().result(study)
    assert [record["step"] for record in records] == [1, 2, 3]
    assert [record["step"] for record in records if "held_out_iou" in record] == [2, 3]
    assert list(records[-1]["held_out_iou"]) == list(result["iou"]["all"]) == ["best of 3", *"12345", "box"]
    assert result["objects"]["wholes"] + result["objects"]["parts"] == result["objects"]["all"]
    for name, mean in result["iou"]["all"].items():
        of = sum(result["objects"][kind] * result["iou"][kind][name] for kind in ("wholes", "parts"))
        assert of / result["objects"]["all"] == pytest.approx(mean)
    for clicked in result["clicks on parts"]:
        assert len(clicked["masks"]) == len(clicked["scores"]) == len(clicked["whole"]) == 3
    for example in result["examples"]:
        drawn = held_out.unpack(example["object"])
        x, y = map(int, example["click"]["prompt"])
        assert drawn[y, x]
        for name in ("click", "box"):
            mask = held_out.unpack(example[name]["mask"])
            assert (mask & drawn).sum() / (mask | drawn).sum() == pytest.approx(example[name]["iou"])
        picture = held_out.unpack(result["pictures"][str(example["scene"])], channels=3)
        assert picture.shape == (*drawn.shape, 3)


def test_a_stopped_job_goes_on_as_if_it_had_not_been(study, tmp_path, monkeypatch):
    job, stop, append = segmentation(), threading.Event(), log.append

    def stopping(path, record):
        append(path, record)
        if record["step"] == 2:
            stop.set()

    monkeypatch.setattr(log, "append", stopping)
    begin(job, tmp_path)
    assert job_handlers.HANDLERS["sam"](job.folder(tmp_path), job.settings, stop) is None
    stop.clear()
    result = job_handlers.HANDLERS["sam"](job.folder(tmp_path), job.settings, stop)
    assert job.records(tmp_path) == job.records(study)
    finished = job.result(study)
    assert json.loads(log.dumps(result)) == {name: finished[name] for name in result}


def test_the_whole_job_has_the_options_of_the_training():
    job = next(job for job in plans.long_jobs(plans.DEFAULT) if job.name == "sam-0")
    assert Options(**job.settings["training"]) == Options()


def test_pictures_and_masks_are_unpacked_as_they_were():
    rng = np.random.default_rng(0)
    picture, mask = rng.integers(0, 256, (8, 8, 3), np.uint8), rng.random((8, 8)) < 0.5
    np.testing.assert_array_equal(held_out.unpack(held_out.pack(picture), channels=3), picture)
    np.testing.assert_array_equal(held_out.unpack(held_out.pack(mask)), mask)


def test_the_page_says_that_the_claim_holds():
    section = segmenting.segmentation(results(sam_0=segmented(0.875)))
    assert section["missing"] == [] and section["short"] is None
    assert section["sentences"] == [
        "After one click at an object's centre, the mask of the highest score has a mean IoU of 0.875 with the object, "
        "over 1,200 of them in held-out scenes. That it is at least 0.85 holds with every seed, of 1 finished.",
        "It is 0.900 after three clicks, 0.950 after five, and 0.970 from a box: it rises with three clicks, rises "
        "further with five, and is higher from a box than from a click, as claimed.",
        "One click gives 0.875 for shapes with their parts and 0.875 for parts. If somebody chose among the three "
        "masks the one that was meant, the mean would be 0.990: 0.115 is lost by the choice.",
        "A click on a part is one on its whole too. Of 8 such clicks 50% have both among their three masks, with IoUs "
        "of at least 0.75. The one nearest to the part has a mean IoU of 0.800 with it, the one nearest to the whole "
        "0.700. The mask of the highest score is nearer the part in 62%.",
        "Predicted and true IoUs order masks alike with a rank correlation (Spearman) of 0.75 over the three masks of "
        "every click, and 0.75 over the masks of boxes.",
        "Without a prompt, a grid of points finds 3.5 masks a scene. Of these 75% have an IoU of at least 0.75 with an "
        "object; it finds 50% of the wholes and 25% of the parts so.",
    ]


def test_the_page_says_that_the_claim_does_not_hold():
    section = segmenting.segmentation(results(sam_0=segmented(0.8, three=0.7, five=0.75, box=0.5)))
    assert "That it is at least 0.85 does not hold with seed 0, of 1 finished." in section["sentences"][0]
    assert section["sentences"][1] == (
        "It is 0.700 after three clicks, 0.750 after five, and 0.500 from a box: it does not rise with three clicks, "
        "rises further with five, and is not higher from a box than from a click, which is not what is claimed."
    )


def test_a_short_training_decides_nothing_and_its_masks_are_shown_where_there_are_no_others():
    short, long = segmented(0.5), {**segmented(0.9), "examples": []}
    section = segmenting.segmentation(results(sam_short=short))
    assert section["missing"] == ["sam-0"] and section["sentences"] == []
    assert "for 3 steps only. After one click its mean IoU is 0.500" in section["short"]
    assert section["shown"]["name"] == "the short training" and section["shown"]["prompted"]
    section = segmenting.segmentation(results(sam_short=short, sam_0=long))
    assert section["shown"]["name"] == "the training with seed 0" and not section["shown"]["prompted"]
    assert [row["run"] for row in section["rows"]] == ["seed 0"] * 3 + ["short, seed 0"] * 3


def test_scores_that_order_masks_as_their_ious_do_correlate_by_one():
    scores, iou = np.array([[0.95, 0.1, 0.55], [1.2, -0.2, 0.05]]), np.array([[0.8, 0.2, 0.7], [0.9, 0.0, 0.1]])
    ranked = held_out.ranking([Prompted(np.empty(0), np.empty(0), scores, iou)])
    assert ranked["spearman"] == pytest.approx(1)
    counts, means, reached = zip(*ranked["tenths"], strict=True)
    assert counts == (2, 1, 1, 2)  # below 0.1, in 0.1 …, 0.5 … and 0.9 …, with what is beyond 0 and 1
    assert means == pytest.approx((-0.075, 0.1, 0.55, 1.075)) and reached == pytest.approx((0.05, 0.2, 0.7, 0.85))
    assert held_out.ranking([Prompted(np.empty(0), np.empty(0), scores, -iou)])["spearman"] == pytest.approx(-1)


def test_the_outline_of_a_mask_runs_along_its_pixels():
    mask = np.zeros((4, 5), bool)
    mask[0, 1:4] = mask[1, 1] = True
    lines = {tuple(map(tuple, line)) for line in edges(mask).tolist()}
    assert lines == {
        ((0.5, -0.5), (3.5, -0.5)),  # above all three
        ((1.5, 0.5), (3.5, 0.5)),  # below two of them
        ((0.5, 1.5), (1.5, 1.5)),
        ((0.5, -0.5), (0.5, 1.5)),
        ((1.5, 0.5), (1.5, 1.5)),
        ((3.5, -0.5), (3.5, 0.5)),
    }
    assert edges(np.zeros((3, 3), bool)).shape == (0, 2, 2)
