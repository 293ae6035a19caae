"""Gradients through time, costs against length and memory of attention: what is measured, and what the page says."""

import json
import threading

import numpy as np
import pytest

from models.errors import UserError
from models.language.lm import Config
from models.study import cost, growth, job_handlers, through_time
from models.study.plans import GROWERS

LENGTHS = [1, 2, 4, 8]


@pytest.fixture(scope="module")
def rows():
    """Return the rows of a small measurement by network and weights."""
    measured = through_time.gradients(4, LENGTHS, [0.5, 1.5], 0.5, [0.0, 40.0], 0.1, 1)
    return {(row["network"], row["weights"]): row for row in measured}


def test_no_gradient_exceeds_its_bound(rows):
    for (network, _), row in rows.items():
        if network != "LSTM":
            assert all(m <= b * (1 + 1e-12) for m, b in zip(row["measured"], row["bound"], strict=True))


@pytest.mark.parametrize("norm", [0.5, 1.5])
def test_a_linear_network_multiplies_by_its_rotation(rows, norm):
    row = rows["linear", f"rotation × {norm}"]
    np.testing.assert_allclose(row["measured"], [norm**T for T in LENGTHS], rtol=1e-12)
    assert row["norm"] == pytest.approx(norm) and row["radius"] == pytest.approx(norm)


def test_a_gaussian_matrix_has_a_norm_above_its_radius(rows):
    row = rows["tanh", "Gaussian, radius 0.5"]
    assert row["radius"] == pytest.approx(0.5) and row["norm"] > 0.55


def test_the_gradient_is_that_of_differences():
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((3, 2)), rng.standard_normal((2, 2))

    def last(h):
        for x_t in x:
            h = np.tanh(W @ h + x_t)
        return h

    differences = [(last(1e-6 * e) - last(-1e-6 * e)) / 2e-6 for e in np.eye(2)]
    (measured,), (bound,) = through_time.tanh(x, W, [3])
    assert measured == pytest.approx(np.linalg.norm(differences, 2), rel=1e-8) and bound > measured


def test_forget_gates_at_one_keep_the_cell(rows):
    open_, half = rows["LSTM", "forget bias 40"], rows["LSTM", "forget bias 0"]
    np.testing.assert_allclose(open_["bound"], 1, rtol=1e-12)
    assert half["bound"][-1] < 0.6 ** LENGTHS[-1]


def test_without_recurrent_weights_the_whole_gradient_is_along_the_cell():
    rng = np.random.default_rng(0)
    x, W, b = rng.standard_normal((4, 3)), rng.standard_normal((12, 3)), rng.standard_normal(12)
    measured, kept = through_time.through_the_cell(x, W, np.zeros((12, 3)), b, [1, 4])
    np.testing.assert_allclose(measured, kept, rtol=1e-12)


def test_what_grew_and_what_fell_is_said(rows):
    simple = [row for (network, _), row in rows.items() if network != "LSTM"]
    gated = [row for (network, _), row in rows.items() if network == "LSTM"]
    first, second, third = growth._gradient_sentences(simple, gated)
    assert first == "No measured norm exceeds its bound."
    assert "it has grown for rotation × 1.5 and fallen for none" in second
    assert third.startswith("Along the LSTM's cell 8 steps keep ") and " 1 with a forget bias 40" in third
    broken = [{**simple[0], "measured": [2 * b for b in simple[0]["bound"]]}, *simple[1:]]
    assert growth._gradient_sentences(broken, gated)[0] == "A measured norm exceeds its bound."


def test_an_exponent_is_that_of_the_upper_half():
    assert growth.exponent([1, 2, 4, 8, 16, 32], [7, 7, 7, 8, 16, 32]) == 1
    assert str(growth.exponent([1, 2, 4], [3.0, 3.0, 2.9999999])) == "0.0"


def test_every_mixer_has_a_claim():
    assert set(growth.CLAIMED) == set(GROWERS)


def test_training_is_timed_at_every_length():
    config = Config(mixer="lstm", width=8, heads=2, layers=1, vocab=8)
    measured = list(cost.cost_of_training(config, [2, 5], 2))
    assert [row["T"] for row in measured] == [2, 5] and all(row["seconds"] > 0 for row in measured)


class Program:
    """A program that has written its record, or died before."""

    def __init__(self, command, cwd):
        self.command, self.returncode = command, 1
        folder = command[command.index("--results") + 1]
        if "16" in command:
            with open(f"{folder}/softmax.json", "w") as file:
                json.dump({"title": "it"}, file)

    def poll(self):
        return self.returncode


def test_memory_is_measured_by_the_benchmarks(monkeypatch, tmp_path):
    monkeypatch.setattr(job_handlers.subprocess, "Popen", Program)
    never = threading.Event()
    assert job_handlers._measure_memory(tmp_path, {"lengths": [16, 32], "limit": 1.0}, never) == {"title": "it"}
    (tmp_path / "softmax.json").unlink()
    with pytest.raises(UserError, match=r"^memory: expected a record in .*softmax.json, got none \(exit code 1\)$"):
        job_handlers._measure_memory(tmp_path, {"lengths": [8], "limit": 1.0}, never)
