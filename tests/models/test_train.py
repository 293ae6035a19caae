"""Training goes on after a stop as if there had been none, and says in one line what it cannot do."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.blocks import MIXERS
from models.checkpoints import load_checkpoint, save_checkpoint
from models.errors import UserError
from models.interrupt import stop_on_interrupt
from models.log import read as read_log
from models.objectives import mean_loss
from models.tasks import TASKS
from models.train import Run, Training, load_model

TINY = Run(width=16, heads=2, layers=1, batch=2, length=12, steps=20, evaluate_every=5, warmup=3, seed=5)


def finish(training: Training, until: int | None = None) -> Training:
    for _ in training.steps(until):
        pass
    training.save()
    return training


def without_time(path) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in read_log(path)]


@pytest.mark.parametrize(
    "run",
    [
        *(replace(TINY, mixer=mixer) for mixer in MIXERS),
        replace(TINY, task="recall", pairs=(2, 3), overwritten=True),
        replace(TINY, task="selective_copying", length=20),
        replace(TINY, task="induction"),
        replace(TINY, task="digits"),
    ],
    ids=[*MIXERS, "recall", "selective_copying", "induction", "digits"],
)
def test_ten_steps_and_ten_more_are_twenty(tmp_path, run):
    straight = finish(Training.start(run, tmp_path / "straight"))
    finish(Training.start(run, tmp_path / "stopped"), until=10)
    resumed = finish(Training.resume(tmp_path / "stopped"))
    assert resumed.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert without_time(resumed.log) == without_time(straight.log)


def test_what_was_logged_after_the_checkpoint_is_taken_back(tmp_path):
    straight = finish(Training.start(TINY, tmp_path / "straight"))
    training = finish(Training.start(TINY, tmp_path / "killed"), until=7)
    for _ in training.steps(until=12):  # these steps are never saved
        pass
    with training.log.open("a") as log:
        log.write('{"step": 13, "lo')  # and here the process was killed
    resumed = finish(Training.resume(tmp_path / "killed"))
    assert without_time(resumed.log) == without_time(straight.log)
    assert resumed.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_a_stop_is_saved_and_steps_are_whole(tmp_path):
    training = Training.start(TINY, tmp_path)
    with stop_on_interrupt() as stop:
        for record in training.run_until(stop):
            if record["step"] == 6:
                stop.set()
    assert Training.resume(tmp_path).step == 6


def test_mixers_see_the_same_batches(tmp_path):
    one, two = (Training(replace(TINY, mixer=mixer), tmp_path) for mixer in ("softmax", "delta_rule"))
    np.testing.assert_array_equal(one.task.batch(one.rng, 3)[0], two.task.batch(two.rng, 3)[0])


def test_the_loss_falls(tmp_path):
    training = finish(Training.start(replace(TINY, steps=60, rate=1e-2), tmp_path))
    held_out = [record["held_out_loss"]["text"] for record in read_log(training.log) if "held_out_loss" in record]
    assert held_out[-1] < held_out[0] - 1


def test_the_loss_counts_queries_only():
    logits = np.log(np.array([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]], dtype=np.float32))
    assert mean_loss(logits, np.array([[-1, 0, -1]])) == pytest.approx(np.log(4))


def test_a_loaded_model_is_the_trained_one(tmp_path):
    training = finish(Training.start(TINY, tmp_path), until=3)
    model, run = load_model(training.checkpoint)
    assert run == TINY
    tokens = np.arange(9)
    np.testing.assert_array_equal(model(tokens)[0], training.model(tokens)[0])


def test_a_checkpoint_from_before_an_option_is_read(tmp_path):
    """A description that does not know of an option means the default."""
    later = {
        "positions",
        "max_positions",
        "kv_heads",
        "head_size",
        "frequencies",
        "norm",
        "eps",
        "mlp",
        "hidden",
        "tied",
    }
    training = finish(Training.start(replace(TINY, mixer="softmax"), tmp_path), until=1)
    edited(
        training,
        about=lambda a: a | {part: {n: v for n, v in a[part].items() if n not in later} for part in ("run", "model")},
    )
    model, run = load_model(training.checkpoint)
    assert run == training.run
    np.testing.assert_array_equal(model(np.arange(9))[0], training.model(np.arange(9))[0])


def message(call, *args) -> str:
    with pytest.raises(UserError) as excinfo:
        call(*args)
    assert "\n" not in str(excinfo.value)
    return str(excinfo.value)


def test_runs_that_cannot_be(tmp_path):
    assert message(lambda: Run(task="txt")) == f"task: expected one of {', '.join(TASKS)}, got 'txt' (nearest: text)"
    assert message(lambda: Run(steps=0)) == "steps: expected at least 1, got 0"
    assert message(lambda: Run(rate=-1.0)) == "rate: expected a positive finite number, got -1.0"
    assert message(lambda: Run(rate=np.inf)) == "rate: expected a positive finite number, got inf"
    assert message(lambda: Run(seed=-1)) == "seed: expected at least 0, got -1"


def test_a_folder_that_has_a_run_is_not_overwritten(tmp_path):
    training = finish(Training.start(TINY, tmp_path), until=1)
    before = training.log.read_bytes()
    expected = f"{training.checkpoint}: expected no run here yet, got one (--resume continues it)"
    assert message(Training.start, TINY, tmp_path) == expected
    assert training.log.read_bytes() == before


def edited(training: Training, arrays=lambda a: a, about=lambda a: a):
    old_arrays, old_about = load_checkpoint(training.checkpoint)
    save_checkpoint(training.checkpoint, arrays(old_arrays), about(old_about))


def test_checkpoints_that_do_not_fit(tmp_path):
    training = finish(Training.start(TINY, tmp_path), until=1)
    path, weight = training.checkpoint, "layers.0.block.beta.weight"

    edited(training, arrays=lambda a: {n: x for n, x in a.items() if n != weight})
    expected = f"checkpoint {path}: {weight}: expected an array of shape (2, 16), got none"
    assert message(Training.resume, tmp_path) == expected
    edited(training, arrays=lambda a: {**a, weight: np.zeros((2, 15), np.float32)})
    expected = f"checkpoint {path}: {weight}: expected float32 (2, 16), got float32 (2, 15)"
    assert message(Training.resume, tmp_path) == expected
    assert message(load_model, path) == expected


def test_an_optimiser_that_does_not_fit(tmp_path):
    training = finish(Training.start(TINY, tmp_path), until=1)
    name = "optimizer.m.norm.weight"
    edited(training, arrays=lambda a: {**a, name: np.zeros(3, np.float32)})
    expected = f"checkpoint {training.checkpoint}: {name}: expected float32 (16,), got float32 (3,)"
    assert message(Training.resume, tmp_path) == expected
    load_model(training.checkpoint)  # which needs no optimiser


def test_a_text_that_has_changed(tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("abcdefgh" * 100)
    training = finish(Training.start(replace(TINY, text=str(text)), tmp_path / "run"), until=1)
    was = training.task.digest
    text.write_text("abcdefgi" * 100)
    error = message(Training.resume, tmp_path / "run")
    assert error.startswith(f"checkpoint {training.checkpoint}: expected the text it was trained on, hash {was}, got ")


def test_a_description_of_something_else(tmp_path):
    training = finish(Training.start(TINY, tmp_path), until=1)
    edited(training, about=lambda a: {"step": 1})
    error = f"checkpoint {training.checkpoint}: expected the description of a run, got 'run'"
    assert message(Training.resume, tmp_path) == error


def test_a_diverging_run_says_so(tmp_path):
    training = Training(TINY, tmp_path)
    training.model.norm.weight[:] = np.inf
    with np.errstate(all="ignore"):
        error = message(training._train_step)
    assert error == "diverged at step 1: the loss is NaN; try a smaller --rate (there is no checkpoint)"


def test_every_line_of_the_log_is_json(tmp_path):
    training = finish(Training.start(TINY, tmp_path))
    records = [json.loads(line) for line in training.log.read_text().splitlines()]
    assert [r["step"] for r in records] == list(range(21))
    assert [r["step"] for r in records if "held_out_loss" in r] == [0, 5, 10, 15, 20]
