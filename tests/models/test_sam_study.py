"""Segment Anything in the study: its job in miniature, what it measures, and its section of the report."""

import json
import threading

import numpy as np
import pytest

from models import log
from models.study import job_handlers, jobs, plans
from models.study.jobs import Job
from models.vision.sam import held_out
from models.vision.sam.training import Options
from tests.models.test_study import TINY


def segmentation() -> Job:
    return next(job for job in plans.long_jobs(TINY) if job.kind == "sam")


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
        picture = held_out.unpack(result["pictures"][example["scene"]], channels=3)
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
    assert result.items() <= job.result(study).items()


def test_the_whole_job_has_the_options_of_the_training():
    job = next(job for job in plans.long_jobs(plans.DEFAULT) if job.name == "sam-0")
    assert Options(**job.settings["training"]) == Options()


def test_pictures_and_masks_are_unpacked_as_they_were():
    rng = np.random.default_rng(0)
    picture, mask = rng.integers(0, 256, (8, 8, 3), np.uint8), rng.random((8, 8)) < 0.5
    np.testing.assert_array_equal(held_out.unpack(held_out.pack(picture), channels=3), picture)
    np.testing.assert_array_equal(held_out.unpack(held_out.pack(mask)), mask)
