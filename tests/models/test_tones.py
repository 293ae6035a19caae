"""Sounds: their pitch can be told at either rate, and a state space hears at half the rate by steps twice as long."""

import json

import numpy as np
import pytest

from models.errors import UserError
from models.language.config import Config
from models.language.lm import LanguageModel
from models.study import jobs
from models.study.experiment_plans import EXPERIMENTS, experiment
from models.study.resampling import double_steps
from models.tasks import Tones, tones
from models.tasks.recall import IGNORE
from tests.models.test_study import TINY


def heard(samples, rate):
    """Return the pitch whose fundamental and overtones, at some detuning, have the largest share of each sound."""
    step = np.linspace(1 - tones.DETUNING, 1 + tones.DETUNING, 9)
    hertz = tones.LOWEST * 4 ** (np.arange(tones.PITCHES) / (tones.PITCHES - 1))
    overtone = np.arange(1, tones.PARTIALS + 1)
    angle = 2 * np.pi * np.arange(samples.shape[-1]) / rate
    waves = np.exp(1j * angle * (hertz[:, None, None] * step[:, None] * overtone)[..., None])  # (8, 9, 3, T)
    power = np.sum(abs(np.einsum("nt,pdot->npdo", samples, waves)) ** 2, axis=-1)
    return np.argmax(np.max(power, axis=-1), axis=-1)


def test_the_pitch_can_be_told_at_either_rate():
    samples, pitches = tones.sounds(np.random.default_rng(0), 200, 512)
    assert samples.shape == (200, 512) and set(pitches) == set(range(8))
    assert np.mean(heard(samples, tones.RATE) == pitches) > 0.95
    half = tones.at_half_the_rate(samples)
    assert half.shape == (200, 256) and np.mean(heard(half, tones.RATE / 2) == pitches) > 0.95


def test_half_the_rate_keeps_what_is_below_a_quarter_of_it_and_nothing_else():
    t = np.arange(64)
    low, high = np.sin(2 * np.pi * 5 * t / 64), np.cos(2 * np.pi * 20 * t / 64)
    np.testing.assert_allclose(tones.at_half_the_rate((low + high)[None])[0], low[::2], atol=1e-12)


def test_samples_are_tokens_and_the_last_asks():
    tokens, targets = Tones(64).batch(np.random.default_rng(0), 50)
    assert tokens.shape == targets.shape == (50, 64) and 0 <= tokens.min() and tokens.max() <= 15
    assert (targets[:, :-1] == IGNORE).all() and set(targets[:, -1]) <= set(range(16, 24))
    np.testing.assert_array_equal(tones.quantised(np.array([-9.0, -3, -0.1, 0.1, 3])), [0, 0, 7, 8, 15])


@pytest.mark.parametrize("length", [62, 65])
def test_a_length_that_cannot_be_halved_or_is_too_short(length):
    with pytest.raises(UserError) as excinfo:
        Tones(length)
    assert str(excinfo.value) == f"length: expected an even number of at least 64 samples, got {length}"


def model(mixer, layers, **options):
    config = Config(mixer=mixer, vocab=24, width=8, heads=2, layers=layers, **options)
    return LanguageModel(config, np.random.default_rng(0))


def test_steps_twice_as_long_are_the_system_of_samples_that_are_held():
    states = model("s4d", layers=1, states=8)
    tokens = np.random.default_rng(1).integers(0, 16, (3, 20))
    held = states(np.repeat(tokens, 2, axis=-1))[0][:, 1::2]
    assert abs(states(tokens)[0] - held).max() > 0.01
    assert double_steps(states)
    np.testing.assert_allclose(states(tokens)[0], held, atol=1e-4)


def test_a_model_without_steps_stays_as_it_is():
    attention = model("softmax", layers=2)
    before = {name: array.copy() for name, array in attention.named_parameters().items()}
    assert not double_steps(attention)
    assert all((array == before[name]).all() for name, array in attention.named_parameters().items())
    attention.layers[0].block.log_delta = np.zeros(8)
    with pytest.raises(UserError, match="^model: expected time steps in all blocks or in none$"):
        double_steps(attention)


@pytest.mark.parametrize(("mixer", "measured"), [("s4d", {"as it is", "steps doubled"}), ("lstm", {"as it is"})])
def test_sounds_are_learned_and_then_heard_at_half_the_rate(mixer, measured, tmp_path):
    job = next(job for job in experiment("audio", TINY["experiments"]["audio"]) if f"audio-{mixer}-" in job.name)
    folder = job.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"kind": job.kind, "settings": job.settings}))
    assert jobs.work(folder)
    result = job.result(tmp_path)
    (length,) = EXPERIMENTS["audio"]["lengths"]
    assert set(result["half the rate"]) == measured and list(result["held_out_accuracy"]) == ["64"]
    (shown,) = result["lengths"].values()
    assert shown == list(result["half the rate"].values())[-1] and length == 256
