"""The long jobs: planned only when asked for, recorded, and shown from the record where they were not run."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from models.errors import UserError
from models.study import job_handlers, jobs, plans, recorded, report, scheduler
from models.study.experiment_plans import EXPERIMENTS
from models.study.jobs import Job
from models.study.reading import side_by_side
from models.study.state_spaces import how_far
from models.tasks import induction
from models.train import Run
from models.vision import rotation_ttt
from models.vision.clip_scenes import SHOWN
from tests.models.test_sam_study import segmented
from tests.models.test_study import TINY

WHERE = {"processor": "a slow one", "cores": "2", "commit": "abc1234567", "date": "2026-01-02 03:04 UTC"}


@pytest.fixture
def records(monkeypatch, tmp_path):
    """Return a temporary folder of recorded results."""
    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "recorded")
    return tmp_path / "recorded"


def finished(job: Job, study, accuracy: float) -> None:
    """Write what the job would, without its hours."""
    result, log = {"machine": WHERE, "seconds": 1.0}, []
    if job.kind == "memory":
        sizes = {str(T): {"bytes": 2**20, "seconds": 1.0} for T in job.settings["lengths"]}
        implementations = {"lazy": {"measured": sizes, "missing": {}}}
        result |= {
            "title": "Attention",
            "result_bytes": dict.fromkeys(sizes, 2**20),
            "implementations": implementations,
        }
    elif job.kind == "rotation":
        shares = [accuracy] * 5
        result |= {"steps": [0, 1, 2, 4, 8], "rows": [{"shift": "blur", "reset": shares, "online": shares}]}
    elif job.kind == "controls":
        shares = dict.fromkeys(rotation_ttt.SHIFTS, accuracy)
        gains = dict.fromkeys(("cosine", "positive", "gain", "with", "against"), accuracy)
        result |= {"without steps": {"joint": shares, "alone": shares}, "online": shares}
        result |= {"tuned": dict.fromkeys(shares, shares), "alignment": dict.fromkeys(shares, gains)}
        result["probes"] = dict.fromkeys(("untrained", "rotations", "digits", "both"), accuracy)
    elif job.kind == "pictures":
        of = {"parameters": 1000, "accuracy": accuracy}
        networks, shares = job.settings["networks"], job.settings["shares"]
        rows = [{"network": n, "share": s, "images": round(s * 1437), **of} for s in shares for n in networks]
        result |= {"rows": rows, "maps": []}
    elif job.kind == "transfer":
        rows = [{"seed": 0, "shots": n, "pretrained": accuracy, "scratch": 0.5} for n in job.settings["shots"]]
        result |= {"rows": rows}
    elif job.kind == "clip":
        shares, each = [accuracy] * 2, dict.fromkeys(("shape", "colour"), accuracy)
        result |= {"parameters": 7, "scale": 30.0, "zero_shot": {"seen": 1.0, "unseen": accuracy}, "attributes": each}
        result |= {"phrasings": [0.5, 0.75], "retrieval": {"texts": shares, "images": shares}}
        result["similarities"] = np.eye(SHOWN).tolist()
        log = [{"step": 2, "loss": 1.0, "held_out_accuracy": result["zero_shot"]}]
    elif job.kind == "sam":
        result |= segmented(accuracy)
        log = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0, "held_out_iou": result["iou"]["all"]}]
    else:
        run = Run(**job.settings.get("run", job.settings))
        result["run"] = asdict(run)
        names = {
            "selective_copying": ["copying"],
            "induction": ["12"],
            "text": ["text"],
            "recall": ["2", "3"],
            "needle": ["24", "48", "96"],
            "dates": ["dates"],
            "numbers": ["to words", "to digits"],
            "listops": ["listops"],
            "pathfinder": ["pathfinder"],
            "tones": ["64"],
        }
        loss, wrong, right = (dict.fromkeys(names.get(run.task, ["digits"]), x) for x in (0.123456789, 0.0, accuracy))
        log = [{"step": step, "loss": 1.23456789, "norm": 1.0} for step in range(1, run.steps)]
        log += [
            {"step": step, "held_out_loss": loss, "held_out_accuracy": accuracies}
            for step, accuracies in ((0, wrong), (run.steps, right))
        ]
    if "lengths" in job.settings:
        result["lengths"] = {str(n): accuracy if n < 100 else 0.25 for n in job.settings["lengths"]}
    job.folder(study).mkdir(parents=True)
    (job.folder(study) / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    (job.folder(study) / "done.json").write_text(json.dumps(result))


def page(out, sizes=TINY, *, full=False) -> str:
    result = scheduler.collect(plans.plan(sizes, full=full), plans.long_jobs(sizes), out)
    return " ".join(report.render({**result, "quick": False, "errors": {}}, out / "report.html").split())


def test_long_jobs_are_planned_only_when_asked_for():
    short, full = (plans.plan(TINY, full=full) for full in (False, True))
    long = plans.long_jobs(TINY)
    assert [job.name for job in long] == [
        "copying-s4d",
        "copying-mamba",
        "induction-mamba",
        *(f"digits-{mixer}-{start}" for start in ("hippo", "random") for mixer in ("s4", "s4d", "lssl", "rnn")),
        *(f"{kind}-{mixer}" for kind in ("text", "recall-overwritten", "recall-plain") for mixer in plans.DEEP),
        *(f"needle-{mixer}" for mixer in plans.SEEKERS),
        *(f"lra-{task}-{mixer}-0" for task in plans.ARENA for mixer in plans.CONTENDERS),
        "translation-dates-0",
        "translation-numbers-0",
        "rotation",
        "controls-0",
        "vit-digits-0",
        "transfer-0",
        "clip-0",
        "clip-10-pairs",
        "clip-shuffled",
        "sam-0",
        "attention-memory-long",
        *(f"{name}-{variant}-0" for name, of in EXPERIMENTS.items() for variant in of["variants"]),
    ]
    assert {job.name for job in full} - {job.name for job in short} == {job.name for job in long}
    timed = [job for job in short if job.kind in scheduler.TIMED]
    assert full[-len(timed) :] == timed and timed  # last, when nothing else runs


def test_the_whole_study_has_the_papers_sizes():
    jobs = {job.name: job.settings for job in plans.long_jobs(plans.DEFAULT)}
    assert (jobs["copying-s4d"]["length"], jobs["copying-s4d"]["width"], jobs["copying-s4d"]["layers"]) == (256, 64, 2)
    assert jobs["induction-mamba"]["run"]["length"] == 256
    assert jobs["induction-mamba"]["lengths"] == [2**n for n in range(6, 21)]
    assert jobs["digits-lssl-random"]["start"] == "random"
    differ = [{k for k in a if a[k] != b[k]} for a, b in [(jobs["copying-s4d"], jobs["copying-mamba"])]]
    assert differ == [{"mixer"}]


def test_how_far_recall_reaches_in_words():
    begin = "Trained at 12, Mamba has an accuracy of at least 99% at "
    assert how_far({8: 1.0, 1024: 0.99}, 12) == f"{begin}every length up to 1,024."
    assert how_far({8: 0.875, 16: 1.0, 1024: 0.5}, 12) == (
        f"{begin}1 of 3 lengths up to 1,024; at 8 it is 87.5%, at 1,024 it is 50.0%."
    )


def test_quick_and_default_studies_show_the_same_records():
    assert plans.long_jobs(plans.QUICK) == plans.long_jobs(plans.DEFAULT)


def test_what_is_recorded_is_shown_with_its_day_commit_seed_and_machine(records, tmp_path):
    for job in plans.long_jobs(TINY):
        finished(job, tmp_path / "there", 0.875)
        assert recorded.record(job, tmp_path / "there") == records / f"{job.name}.json"
    text = page(tmp_path / "here")
    assert "No finished result" not in text
    begin, end = "recorded 2026-01-02 03:04 UTC at commit abc1234567, ", "a slow one, 2 cores"
    where = f"{begin}seed 0, {end}"
    assert f"T = 64 to 64: {begin}{end}" in text  # nothing is drawn at random
    assert text.count(where) == 2 + 1 + 4 + 3 * len(plans.DEEP) + len(plans.SEEKERS) + 20 + 2 * 3 + 3 + 3 + 1 + 5
    assert "87.5%" in text and "recorded where it says so" in text
    assert "Trained at 12, Mamba has an accuracy of at least 99% at 0 of " in text
    assert "S4 +0.0, S4D +0.0, LSSL +0.0, RNN +0.0" in text
    assert "after training at 96: linear attention none, delta rule none, gated delta rule none, TTT-Linear" in text
    assert "At 300: linear attention 25%, delta rule 25%, gated delta rule 25%, TTT-Linear 25%, Titans 25%." in text
    assert "Of 3 held-out sets 0 have an exact match of at least 99%; dates has 87.5% (recorded 2026-01-02" in text
    assert "with 359 digits ViT has 87.5% and the CNN 87.5% and with 1,437 digits ViT has 87.5%" in text
    assert "With 1 of each digit the pre-trained network recognises 87.5% of the held-out ones, the other 50" in text
    assert "It is ahead in 2 of 2 comparisons of the same seed and examples." in text
    assert "Of pictures of unseen combinations 87.5% get their own caption of 300, of seen ones 100.0%" in text
    assert "That it is at least 90% of the unseen does not hold with seed 0, of 1 finished." in text
    assert "A single phrasing classifies 50.0% to 75.0% of them, the ensemble of all 2 87.5%." in text
    assert "over fewer pairs, of unseen combinations are classified 87.5% after 10. The talk on six papers" in text
    assert "With captions dealt to other pictures 100.0% of seen and 87.5% of unseen" in text
    assert "12 of 12 pictures have their own caption, on the diagonal" in text
    assert "mean IoU of 0.875 with the object, over 1,200 of them in held-out scenes" in text
    assert "Online, blur gains most: from 88% to 88% after 0 steps an image." in text
    assert "the held-out bits per byte are, from the lowest: TTT-MLP 0.178, Titans 0.178" in text  # 0.123… nats
    assert "copying-s4d" not in text  # which is no part of this study, so it is not unfinished


def test_what_was_run_here_is_not_called_recorded(records, tmp_path):
    job = plans.long_jobs(TINY)[1]
    finished(job, tmp_path, 1.0)
    recorded.record(job, tmp_path)
    text = page(tmp_path, full=True)
    assert "recorded 2026" not in text and '100.0%</td> <td class="n">4 of 4</td><td class="soft">here' in text


def test_other_settings_are_not_shown_as_the_recorded_ones(records, tmp_path):
    for job in plans.long_jobs(TINY):
        finished(job, tmp_path, 1.0)
        recorded.record(job, tmp_path)
    others = {
        **TINY,
        "copying": {**TINY["copying"], "rate": 1e-3},
        "digits": {**TINY["digits"], "steps": 5},
        "induction": {**TINY["induction"], "sequences": 5},
        "needle": {**TINY["needle"], "lengths": [96]},
        "deep": {name: {**sizes, "rate": 1e-3} for name, sizes in TINY["deep"].items()},
        "arena": {**TINY["arena"], "seeds": [1]},
        "translation": {**TINY["translation"], "seeds": [1]},
        "rotation": {**TINY["rotation"], "images": 5},
        "shares of digits": {**TINY["shares of digits"], "seeds": [1]},
        "transfer": {**TINY["transfer"], "steps": 3},
        "clip": {**TINY["clip"], "training": {**TINY["clip"]["training"], "steps": 3}},
        "sam": {**TINY["sam"], "training": {**TINY["sam"]["training"], "steps": 4}},
        "long memory": {**TINY["long memory"], "lengths": [65]},
        "controls": {**TINY["controls"], "seeds": [1]},
        "experiments": {name: {**of, "seeds": [1]} for name, of in TINY["experiments"].items()},
    }
    assert all(recorded.load(job) for job in plans.long_jobs(TINY))
    assert not any(recorded.load(job) for job in plans.long_jobs(others))
    text = page(tmp_path / "elsewhere", others)
    assert "No finished result with these settings: S4D, Mamba." in text
    assert "recorded 2026" not in text


@pytest.mark.parametrize(
    "settings, corpus, left",
    [
        ({"mixer": "titans", "steps": 5}, "here", ["softmax", "titans"]),
        ({"mixer": "titans", "steps": 6}, "here", ["softmax"]),
        ({"mixer": "titans", "steps": 5}, "another Python's", ["softmax"]),
    ],
)
def test_a_recorded_mixer_stands_beside_those_with_its_settings_and_its_text(settings, corpus, left):
    results = {
        "jobs": {
            "text-softmax": {
                "settings": {"mixer": "softmax", "steps": 5},
                "planned": True,
                "recorded": False,
                "result": {"corpus": "here"},
            },
            "text-titans": {"settings": settings, "planned": False, "recorded": True, "result": {"corpus": corpus}},
        }
    }
    assert list(side_by_side(results, "text-", ("softmax", "titans"))) == left


def test_a_record_outlives_a_setting_that_runs_did_not_have_then(records, tmp_path):
    job = plans.long_jobs(TINY)[0]
    finished(job, tmp_path, 1.0)
    path = recorded.record(job, tmp_path)
    entry = json.loads(path.read_text())
    del entry["settings"]["start"]
    path.write_text(json.dumps(entry))
    assert recorded.load(job)
    started = replace(Run(**job.settings), start="random")
    assert not recorded.load(Job(job.name, job.kind, asdict(started), job.steps))
    entry["settings"]["flavour"] = "sour"
    path.write_text(json.dumps(entry))
    assert not recorded.load(job)


def test_a_record_is_small_and_holds_what_the_page_needs(records, tmp_path):
    job = plans.long_jobs(TINY)[0]
    assert recorded.record(job, tmp_path) is None
    finished(job, tmp_path, 1.0)
    entry = json.loads(recorded.record(job, tmp_path).read_text())
    assert [record["step"] for record in entry["records"]] == [0, 4]
    assert entry["records"][0]["held_out_loss"] == {"copying": 0.123457}
    assert entry["machine"] == WHERE and entry["settings"]["seed"] == 0 and entry["kind"] == "train"


def test_what_is_recorded_in_the_package_is_of_jobs_there_are():
    named = {job.name: job for job in plans.long_jobs(plans.DEFAULT)}
    for path in recorded.FOLDER.glob("*.json"):
        job = named[path.stem]
        assert recorded.load(job), f"{path.name}: expected the settings of the job, got others"
        assert set(recorded.load(job)["machine"]) >= {"processor", "cores", "commit", "date"}


def test_the_inner_loss_of_a_trained_ttt_falls_along_held_out_text():
    texts = [recorded.load(job) for job in plans.long_jobs(plans.DEFAULT) if job.name.startswith("text-ttt")]
    learners = [entry["result"]["inner_losses"] for entry in texts if entry]
    assert learners
    for losses in learners:
        quarter = len(losses["positions"]) // 4
        for learned, first in zip(losses["learned"], losses["first"], strict=True):
            assert sum(learned[-quarter:]) < 0.8 * learned[0] * quarter
            assert sum(learned[-quarter:]) < 0.8 * sum(first[-quarter:])


def test_induction_goes_on_at_the_length_it_was_stopped_at(tmp_path, monkeypatch):
    job = plans.long_jobs(TINY)[2]
    folder = job.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"kind": job.kind, "settings": job.settings}))
    recalled, lengths = induction.recalled, []

    def stopping(model, rng, *, batch, length):
        lengths.append(length)
        if lengths == [8, 16, 600]:
            raise job_handlers.Stopped
        return recalled(model, rng, batch=batch, length=length)

    monkeypatch.setattr(induction, "recalled", stopping)
    assert not jobs.work(folder) and job.result(tmp_path) is None
    assert [record["step"] for record in job.records(tmp_path)][-2:] == [5, 6]
    assert jobs.work(folder)
    assert lengths == [8, 16, 600, 600]
    result = job.result(tmp_path)
    assert list(result["lengths"]) == ["8", "16", "600"]
    assert set(result["machine"]) >= {"processor", "commit", "date"}
    assert job.records(tmp_path)[-1]["step"] == job.steps


def test_what_hippo_remembers():
    from models.study.remembering import remembering

    rows = remembering([4, 32], 800, 4, 0.5, 1)["rows"]
    errors = {(row["measure"], row["N"]): row["error"] for row in rows}
    assert errors["legs", 4] > 0.3 > 0.03 > errors["legs", 32]
    assert errors["legt", 32] < 0.01
    for row in rows:
        assert row["error"] >= row["least"] - 1e-12
        assert len(row["times"]) == len(row["made"]) <= 300
        assert min(row["times"]) >= (0.5 if row["measure"] == "legt" else 0)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--full", "--quick"], "--full: expected without --quick, which has no time for long jobs"),
        (["--record"], "--record: expected with --full, whose long jobs it keeps"),
    ],
)
def test_options_that_do_not_go_together(words, message, tmp_path):
    from models.cli import app

    with pytest.raises(UserError) as excinfo:
        app(["study", *words, "--out", str(tmp_path)], standalone_mode=False)
    assert str(excinfo.value) == message
    assert list(tmp_path.iterdir()) == []


def test_a_translation_is_trained_and_shown_with_its_attention(records, tmp_path):
    job = next(job for job in plans.long_jobs(TINY) if job.name == "translation-dates-0")
    folder = job.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"kind": job.kind, "settings": job.settings}))
    assert jobs.work(folder)
    result = job.result(tmp_path)
    assert list(result["source"]) == list("3 May 1987") and len(result["mistakes"]) == 4
    assert np.shape(result["weights"]) == (1, 2, len(result["target"]), 10)
    np.testing.assert_allclose(np.sum(result["weights"], axis=-1), 1, atol=0.01)
    recorded.record(job, tmp_path)
    text = page(tmp_path / "here")
    assert "Where the decoder looks in “3 May 1987”" in text and "layer 1, head 2" in text
    assert "No finished result with these settings: translation-numbers-0" in text
    assert "Mistakes on held-out dates: “" in text
