"""Controls of test-time training: gradients an image as autodiff has them, and sentences that follow the numbers."""

import copy

import numpy as np
import pytest

import minigrad as mg
from models.study import controls
from models.study.reading import UNSETTLED
from models.vision import rotation_controls
from models.vision.rotation_controls import alignment, probe
from models.vision.rotation_ttt import SHIFTS, dataset, digit_loss, train, turn_loss


@pytest.fixture(scope="module")
def weights():
    return train(np.random.default_rng(0), steps=60)


@pytest.fixture(scope="module")
def measured():
    return dict(rotation_controls.measure(0, 0.01, 8, 5, 2))


def test_alignment_and_gain_are_those_of_single_images(weights):
    images, labels = (part[:3] for part in dataset("held_out"))
    found = alignment(weights, images, labels, 0.01)
    cosines, gains = [], []
    for x, y in zip(images, labels, strict=True):
        main = mg.grad(lambda W, b, x=x, y=y: mg.sum(digit_loss(W, b, x[None], np.array([y]))), (0, 1))
        turn = mg.grad(lambda W, b, x=x: turn_loss(W, b, x), (0, 1))
        g, h = (
            np.concatenate([part[k].ravel() for part in slope(weights.W, weights.b) for k in "12"])
            for slope in (main, turn)
        )
        cosines.append(g @ h / np.linalg.norm(g) / np.linalg.norm(h))
        W, b = (
            {k: part[k] - 0.01 * slope[k] if k in "12" else part[k] for k in part}
            for part, slope in zip((weights.W, weights.b), turn(weights.W, weights.b), strict=True)
        )
        gains.append(
            float(
                digit_loss(weights.W, weights.b, x[None], np.array([y]))[0]
                - digit_loss(W, b, x[None], np.array([y]))[0]
            )
        )
    assert found["cosine"] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert found["positive"] == np.mean(np.array(cosines) > 0)
    assert found["gain"] == pytest.approx(np.mean(gains), abs=1e-4)


def test_one_task_alone_leaves_the_other_head_and_a_probe_reads_digits(weights):
    start, turning = (train(np.random.default_rng(0), steps=n, tasks=("turn",)) for n in (0, 5))
    gained = np.abs(turning.W["t"] - start.W["t"]).max(), np.abs(turning.W["d"] - start.W["d"]).max()
    assert gained[0] > 10 * gained[1]  # but for the decay of weights
    assert probe(weights, 360) > 0.8


def test_fine_tuning_does_not_change_the_network_it_starts_from(measured):
    assert set(measured) == {"without steps", "probes", "alignment", "online", "tuned"}
    assert set(measured["tuned"]) == set(SHIFTS)
    again = dict(rotation_controls.measure(0, 0.01, 8, 5, 0))
    assert all(of == again["without steps"]["joint"] for of in again["tuned"].values())


def results(*measured) -> dict:
    job = {"kind": "controls", "settings": {}, "recorded": False}
    return {"jobs": {f"controls-{i}": {**job, "result": m} for i, m in enumerate(measured)}}


def test_what_is_said_follows_the_numbers(measured):
    high, low = copy.deepcopy(measured), copy.deepcopy(measured)
    for of, joint in ((high, 0.8), (low, 0.7)):
        of["without steps"] = {"joint": dict.fromkeys(SHIFTS, joint), "alone": dict.fromkeys(SHIFTS, 0.6)}
        of["without steps"]["alone"]["blur"] = 0.75
        of["probes"] |= {"rotations": joint, "untrained": 0.9}
        of["online"] = dict.fromkeys(SHIFTS, 0.5)
        of["tuned"] = {on: {s: 0.9 if on == s else 0.4 for s in SHIFTS} for on in SHIFTS}
    section = controls.controls(results(high, low))
    first, second, _, last = section["sentences"]
    assert f"shows with noise, contrast, occlusion; {UNSETTLED} with blur" in first
    assert "70.0–80.0) learned from rotations alone" in second and second.endswith("than no training is reversed.")
    assert last.count("shows with noise, blur, contrast, occlusion") == 2
    assert section["rows"][2] == {
        "shift": "blur",
        "cells": [
            "75.0% (75.0–75.0)",
            "75.0% (70.0–80.0)",
            "50.0% (50.0–50.0)",
            "90.0% (90.0–90.0)",
            "40.0% (40.0–40.0)",
        ],
    }


@pytest.mark.parametrize("finished", [0, 1])
def test_before_all_seeds_have_finished_no_ordering_shows(finished, measured):
    section = controls.controls(results(*[measured] * finished, *[None] * (2 - finished)))
    assert len(section["missing"]) == 2 - finished
    for sentence in section["sentences"]:
        assert "not recorded yet" in sentence and "shows" not in sentence
