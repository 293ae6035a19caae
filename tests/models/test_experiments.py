"""Experiments: trained in miniature, and reported with their spread, also where nothing is recorded yet."""

import json

import numpy as np
import pytest

from models.language.config import Config
from models.language.lm import LanguageModel
from models.memory import delta_rule
from models.run import Run
from models.study import experiments, jobs, plans, recorded, scheduler
from models.study.experiment_plans import EXPERIMENTS, experiment
from models.study.reading import UNSETTLED
from models.study.retrieval import read_errors
from models.study.sections import SECTIONS
from tests.models.test_study import TINY

RECORDABLE = {job.name: job for job in plans.long_jobs(plans.DEFAULT)}


def finish(job, study, measured: dict[str, float]) -> None:
    """Write what the job would: these accuracies, or losses of text in nats."""
    run = job.settings.get("run", job.settings)
    lengths = {str(n): measured[str(n)] for n in job.settings.get("lengths", ()) if str(n) in measured}
    held_out = {key: value for key, value in measured.items() if key not in lengths}
    log = [{"step": run["steps"], "held_out_loss": held_out, "held_out_accuracy": held_out}]
    folder = job.folder(study)
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    result = {"lengths": lengths} if lengths else {}
    (folder / "done.json").write_text(json.dumps({**result, "parameters": 7, "machine": {}}))


def sections(study, sizes) -> dict:
    planned = plans.long_jobs({**TINY, "experiments": {**TINY["experiments"], **sizes}})
    return {s["name"]: s for s in experiments.experiments(scheduler.collect(planned, [], study))}


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "recorded")


def test_every_experiment_has_sizes_text_and_a_section():
    assert list(EXPERIMENTS) == list(experiments.QUESTIONS)
    for name, question in experiments.QUESTIONS.items():
        assert SECTIONS[name].jobs == (f"{name}-",)
        variants = EXPERIMENTS[name]["variants"]
        assert {variant for pair in question.orders for variant in pair} <= set(variants)
        assert {f"{name}-{variant}-{seed}" for variant in variants for seed in (0, 1, 2)} <= RECORDABLE.keys()


def test_without_results_no_ordering_is_claimed(tmp_path):
    for section in sections(tmp_path, TINY["experiments"]).values():
        (sentence,) = section["sentences"]
        assert sentence.startswith("Of the orderings in question: ") and sentence.endswith(" is not recorded yet.")
        assert section["missing"] and not section["figure"] and not section["source"]


@pytest.mark.parametrize("name", ["audio"])
def test_models_that_are_compared_have_as_many_parameters(name):
    sizes = []
    for job in experiment(name, EXPERIMENTS[name]):
        run = Run(**job.settings["run"])
        model = LanguageModel(run.config(run.make_task().vocabulary), np.random.default_rng(0))
        sizes.append(sum(array.size for array in model.named_parameters().values()))
    assert max(sizes) <= 1.05 * min(sizes)


@pytest.mark.parametrize(
    ("same", "apart"), [((0.1, 0.2), "shows."), ((0.8, 0.95), f"{UNSETTLED}."), ((0.95, 0.97), "is reversed.")]
)
def test_what_half_the_rate_costs_is_said_with_its_spread(same, apart, tmp_path):
    sizes = {"audio": {**TINY["experiments"]["audio"], "seeds": [0, 1]}}
    for job in experiment("audio", sizes["audio"]):
        variant, _, seed = job.name.removeprefix("audio-").rpartition("-")
        doubled = (0.8, 0.9)[int(seed)]
        found = {"as it is": same[int(seed)], **({"steps doubled": doubled} if variant.startswith("s4") else {})}
        finish(job, tmp_path, {"64": doubled, "32": list(found.values())[-1]})
        path = job.folder(tmp_path) / "done.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "half the rate": found}))
    section = sections(tmp_path, sizes)["audio"]
    said = [sentence for sentence in section["sentences"] if sentence.startswith("Not trained further, ")]
    assert len(said) == 2  # of S4 and S4D, which have time steps
    assert "S4D at half the rate: 85.0% (80.0–90.0) with its time steps doubled" in said[1]
    assert all(sentence.endswith(f"That doubling them is better {apart}") for sentence in said)
    assert section["columns"] == ["64 samples", "32 samples"]


def test_an_ordering_shows_only_where_seeds_do_not_overlap(tmp_path):
    sizes = {"capacity": {**TINY["experiments"]["capacity"], "seeds": [0, 1]}}
    accuracies = {
        "delta_rule-K64": (0.9, 0.8),
        "delta_rule-K4": (0.5, 0.7),
        "softmax": (0.85, 0.95),
        "lstm": (0.95, 0.9),
    }
    for job in experiment("capacity", sizes["capacity"]):
        variant, _, seed = job.name.removeprefix("capacity-").rpartition("-")
        if variant in accuracies:
            measured = accuracies[variant][int(seed)]
            finish(job, tmp_path, {"2": 1.0, "3": measured, "4": 0.5, "5": measured / 2})
    section = sections(tmp_path, sizes)["capacity"]
    at_3 = next(sentence for sentence in section["sentences"] if sentence.startswith("At 3 pairs: "))
    assert "delta rule (K = 64) better than delta rule (K = 4) shows" in at_3
    assert (
        "softmax better than LSTM, " in at_3
        and "delta rule (K = 64) is within the spread over seeds, so that no order is shown" in at_3
    )
    assert "softmax better than RNN is not recorded yet" in at_3
    assert "softmax 90.0% (85.0–95.0)" in section["sentences"][0]
    assert section["sentences"][1] == (
        "No order is shown between LSTM and softmax; between LSTM and delta rule (K = 64); between softmax and "
        "delta rule (K = 64): ranges over seeds overlap."
    )
    assert any(sentence.startswith("At 5 pairs: ") for sentence in section["sentences"])
    assert "<svg" in section["figure"] and len(section["missing"]) == 2 * (len(section["rows"]) - len(accuracies))


def test_recall_is_trained_evaluated_with_more_pairs_and_read_back(tmp_path):
    job = next(job for job in experiment("capacity", TINY["experiments"]["capacity"]) if "delta_rule" in job.name)
    folder = job.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"kind": job.kind, "settings": job.settings}))
    assert jobs.work(folder)
    result = job.result(tmp_path)
    assert list(result["lengths"]) == ["4", "5"] and len(result["read_errors"]) == 1
    assert 0 < result["read_errors"][0] <= 1 and job.records(tmp_path)[-1]["step"] == job.steps


def test_read_errors_are_those_of_the_state(monkeypatch):
    model = LanguageModel(Config(mixer="delta_rule", vocab=8, width=16, heads=2, layers=1), np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(0, 8, (3, 6))
    seen, fused = [], delta_rule.fused
    monkeypatch.setattr(
        delta_rule, "fused", lambda *inputs, **options: seen.append(inputs) or fused(*inputs, **options)
    )
    (error,) = read_errors(model, tokens, slice(1, None, 2))
    ((q, k, v, beta),) = seen
    _, S = delta_rule.recurrent(q, k, v, beta)
    read, value = (k @ S)[..., 1::2, :], v[..., 1::2, :]
    factor = np.maximum(np.sum(read * value, axis=-1, keepdims=True) / np.sum(read * read, axis=-1, keepdims=True), 0)
    expected = np.linalg.norm(factor * read - value, axis=-1) / np.linalg.norm(value, axis=-1)
    assert error == pytest.approx(float(expected.mean()), rel=1e-4)
    assert "run" not in vars(model.layers[0].block)


@pytest.mark.parametrize(
    ("mixer", "layers"), [("softmax", 2), ("linear_attention", 2), ("lstm", 0), ("mamba", 0), ("ttt_linear", 0)]
)
def test_layers_without_a_matrix_have_no_read_error(mixer, layers):
    model = LanguageModel(Config(mixer=mixer, vocab=8, width=16, heads=2, layers=2), np.random.default_rng(0))
    assert len(read_errors(model, np.zeros((2, 5), int), slice(None))) == layers
