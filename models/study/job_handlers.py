"""Handlers of the study's jobs, one for each kind: (folder, settings, stop event) → result.

A job that was asked to stop returns None and leaves in its folder what it needs to resume (`models.study.jobs`).
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models import log
from models.blocks.learner import LearnerBlock
from models.errors import UserError
from models.language.config import Config
from models.language.lm import generate, state_numbers
from models.study.cost import cost_of_scan, cost_of_training, cost_per_token
from models.study.learning import inner_losses, surprises
from models.study.remembering import remembering
from models.study.resampling import at_half_the_rate
from models.study.retrieval import read_errors
from models.study.through_time import gradients
from models.study.translated import translated
from models.tasks import induction, needle, recall, text
from models.train import CHECKPOINT, LOG, Run, Training, load_model
from models.vision import clip_scenes, digit_classifiers, digit_transfer, rotation_controls, rotation_ttt
from models.vision.sam import held_out
from models.vision.sam import training as sam_training
from models.vision.sam.config import SAMConfig

ROOT = Path(__file__).parent.parent.parent
AFTER = "after.jsonl"
LONGER = 8  # times the training length: the text over which the inner loss is measured
PROMPT = "The "
SAMPLE_BYTES = 400
SAVE_EVERY = 50  # steps of Segment Anything


def _train(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    training = _trained(folder, Run(**settings), stop)
    if training is None:
        return None
    return {
        **_summary(training),
        "state_numbers": _state_numbers(training),
        **(_sample(training) | _inner_losses(training) if training.run.task == "text" else {}),
    }


def _trained(folder: Path, run: Run, stop: threading.Event) -> Training | None:
    """Return the finished training, or None where it was stopped before its last step."""
    training = Training.resume(folder) if (folder / CHECKPOINT).exists() else Training.start(run, folder)
    for _ in training.run_until(stop):
        pass
    return None if training.step < run.steps else training


def _summary(training: Training) -> dict[str, Any]:
    weights = training.model.named_parameters().values()
    return {"run": asdict(training.run), "parameters": sum(array.size for array in weights), **training.evaluate()}


def _translate(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Train on a task of translation, then translate an example."""
    training = _trained(folder, Run(**settings["run"]), stop)
    return None if training is None else {**_summary(training), **translated(training, settings["example"])}


def _extrapolate(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Train on a task, then evaluate it at every length, in pieces between which only the state is passed on."""
    trained = _train(folder, settings["run"], stop)
    if trained is None:
        return None
    model, run = load_model(folder / CHECKPOINT)
    task = {"induction": induction, "needle": needle, "recall": recall}[run.task]

    def reading(tokens: np.ndarray, state: Any) -> tuple[Any, Any]:
        if stop.is_set():
            raise Stopped
        return model(tokens, state)

    before = log.read(folder / AFTER)
    log.rewrite(folder / AFTER, before)  # without an incomplete last line
    for i, length in list(enumerate(settings["lengths"]))[len(before) :]:
        rng = np.random.default_rng([run.seed, 3, length])
        try:
            right = task.recalled(reading, rng, batch=settings["sequences"], length=length)
        except Stopped:
            return None
        log.append(folder / AFTER, {"step": run.steps + i + 1, "held_out_accuracy": {str(length): right}})
    lengths = [record["held_out_accuracy"] for record in log.read(folder / AFTER)]
    return {**trained, "lengths": {length: right for row in lengths for length, right in row.items()}}


def _recall(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Train on recall, evaluate with other numbers of pairs, and measure what the layers return for their keys."""
    trained = _extrapolate(folder, settings, stop)
    if trained is None:
        return None
    model, run = load_model(folder / CHECKPOINT)
    pairs = max(run.pairs)
    rng = np.random.default_rng([run.seed, 4])
    tokens, _ = recall.Recall(run.pairs, run.overwritten).sequences(rng, settings["sequences"], pairs)
    return {**trained, "read_errors": read_errors(model, tokens[:, : 2 * pairs], slice(1, None, 2))}


def _resample(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Train on sounds, then classify others at half the rate."""
    trained = _train(folder, settings["run"], stop)
    if trained is None:
        return None
    model, run = load_model(folder / CHECKPOINT)
    (length,) = settings["lengths"]
    found = at_half_the_rate(model, np.random.default_rng([run.seed, 3]), settings["sequences"], length)
    return {**trained, "lengths": {str(length): list(found.values())[-1]}, "half the rate": found}


class Stopped(Exception):
    """A job was asked to stop in the middle of a long sequence."""


def _state_numbers(training: Training) -> dict[str, int]:
    """Return the size of the state after one token and after a sequence as long as the longest in training."""
    tokens, _ = max(training.task.eval_batches(np.random.default_rng(0)).values(), key=lambda batch: batch[0].shape[-1])
    return {str(t): state_numbers(training.model(tokens[0, :t])[1]) for t in (1, tokens.shape[-1])}


def _sample(training: Training) -> dict[str, Any]:
    rng = np.random.default_rng([training.run.seed, 3])
    tokens = generate(training.model, text.encode(PROMPT), tokens=SAMPLE_BYTES, temperature=0.8, rng=rng)
    sample = text.printable(text.decode(np.array(list(tokens))))
    return {"prompt": PROMPT, "sample": sample, "corpus": training.task.digest}


def _inner_losses(training: Training) -> dict[str, Any]:
    """Return the inner losses of held-out text, in every fourth window of `LONGER` training lengths."""
    if not isinstance(training.model.layers[0].block, LearnerBlock):
        return {}
    windows = text.load(training.run.text, length=LONGER * training.run.length).eval_batches(np.random.default_rng(0))
    return {"inner_losses": inner_losses(training.model, windows["text"][0][::4])}


def _cost(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    config = Config(**settings["config"])
    log.rewrite(folder / LOG, [])
    rows = []
    for row in cost_per_token(config, settings["lengths"], settings["repeats"]):
        rows.append(row)
        log.append(folder / LOG, {"step": len(rows), **row})
        if stop.is_set():
            return None
    return {"rows": rows}


def _grow(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Time training at one set of lengths, and generation after another."""
    config, repeats = Config(**settings["config"]), settings["repeats"]
    log.rewrite(folder / LOG, [])
    rows: dict[str, list[dict[str, Any]]] = {"training": [], "generation": []}
    measures: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
        "training": cost_of_training,
        "generation": partial(cost_per_token, batch=settings.get("batch", 1)),
    }
    for name, measure in measures.items():
        for row in measure(config, settings[name], repeats[name]):
            rows[name].append(row)
            log.append(folder / LOG, {"step": sum(map(len, rows.values())), "of": name, **row})
            if stop.is_set():
                return None
    return {**rows}


def _scan(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Measure time and memory of a form of the selective scan, one number of states after the other."""
    log.rewrite(folder / LOG, [])
    rows = []
    for row in cost_of_scan(**settings):
        rows.append(row)
        log.append(folder / LOG, {"step": len(rows), **row})
        if stop.is_set():
            return None
    return {"rows": rows}


def _through_time(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any]:
    return {"rows": list(gradients(**settings))}


def _remember(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any]:
    return remembering(**settings)


def _surprise(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any]:
    return {**surprises(**settings)}


def _rotate(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Run test-time training by rotation on digits, one kind of distribution shift after the other."""
    log.rewrite(folder / LOG, [])
    rows = []
    for row in rotation_ttt.measure(**settings):
        rows.append(asdict(row))
        log.append(folder / LOG, {"step": len(rows), **rows[-1]})
        if stop.is_set():
            return None
    return {"steps": rotation_ttt.STEPS, "rows": rows}


def _control(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Measure what test-time training by rotation is compared with: no auxiliary task, and fine-tuning."""
    log.rewrite(folder / LOG, [])
    result = {}
    for name, measured in rotation_controls.measure(**settings):
        result[name] = measured
        log.append(folder / LOG, {"step": len(result), "of": name})
        if stop.is_set():
            return None
    return result


def _classify(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Train ViT, and a convolutional network where it is asked for, on shares of the digits."""
    log.rewrite(folder / LOG, [])
    sizes, rows, maps = digit_classifiers.Sizes(**settings["sizes"]), [], []
    for share in settings["shares"]:
        for network in settings["networks"]:
            model = digit_classifiers.train(network, share, sizes, settings["seed"], stop.is_set)
            if model is None:
                return None
            rows.append(asdict(digit_classifiers.measured(model, network, share, sizes)))
            log.append(folder / LOG, {"step": len(rows), **rows[-1]})
            if network == "vit" and share == 1:
                maps = digit_classifiers.attention_maps(model, sizes)
    return {"rows": rows, "maps": maps}


def _transfer(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Fine-tune a ViT on few digits of kinds that it was not pre-trained on, beside one without pre-training."""
    log.rewrite(folder / LOG, [])
    sizes, rows = digit_classifiers.Sizes(**settings["sizes"]), []
    for row in digit_transfer.transfer(sizes, settings["shots"], settings["steps"], settings["seed"], stop.is_set):
        rows.append(asdict(row))
        log.append(folder / LOG, {"step": len(rows), **rows[-1]})
    return {"rows": rows} if len(rows) == len(settings["shots"]) else None


def _contrast(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Train CLIP on scenes, then measure it on those that were never shown."""
    log.rewrite(folder / LOG, [])
    training = clip_scenes.Training(clip_scenes.Settings(**settings))
    for record in training.run():
        log.append(folder / LOG, record)
        if stop.is_set():
            return None
    return training.result()


def _segment(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Train Segment Anything on scenes of shapes, measuring it on others; a checkpoint is kept as it goes."""
    options, sizes = sam_training.Options(**settings["training"]), settings["measured"]
    training = sam_training.Training(options, SAMConfig.of(settings["model"]))
    path, side = folder / CHECKPOINT, training.config.image.image
    if path.exists():
        training.load(path)
    log.rewrite(folder / LOG, [record for record in log.read(folder / LOG) if record["step"] <= training.step])
    few = held_out.scenes(options.seed, sizes["scenes while training"], side)
    for step, loss in training.run():
        record: dict[str, Any] = {"step": step, "loss": loss}
        if step % sizes["every"] == 0 or step == options.steps:
            record["held_out_iou"] = sam_training.evaluate(training.model, few)
        log.append(folder / LOG, record)
        if stop.is_set() or step % SAVE_EVERY == 0 or step == options.steps:
            training.save(path)
        if stop.is_set():
            return None
    scenes = held_out.scenes(options.seed, sizes["scenes"], side)
    return held_out.measured(training.model, scenes, searched=sizes["searched"], grid=sizes["grid"])


def _measure_memory(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """Measure peak memory of softmax attention, each implementation and length in a process of its own."""
    lengths, limit = [str(length) for length in settings["lengths"]], ["--limit", str(settings["limit"])]
    options = ["--threads", "1", "--results", str(folder)]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks", "memory", *lengths, *limit, *options], cwd=ROOT)
    while process.poll() is None:
        if stop.wait(0.2):
            process.send_signal(signal.SIGINT)
            process.wait()
            return None
    path = folder / "softmax.json"
    if not path.exists():
        raise UserError(f"memory: expected a record in {path}, got none (exit code {process.returncode})")
    return json.loads(path.read_text("utf-8"))


def _prove(folder: Path, settings: dict[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    report, stated, claimed = (folder / f"{name}.json" for name in ("proofs", "statements", "claims"))
    for listing, path in (("list", stated), ("talks", claimed)):
        subprocess.run([sys.executable, "-m", "proofs", listing, "--json", str(path)], cwd=ROOT, check=True)
    options = ["--profile", settings["profile"], "--json", str(report)]
    command = [sys.executable, "-m", "proofs", "check", *settings["names"], *options]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None:
        if stop.wait(0.2):
            process.send_signal(signal.SIGINT)  # results so far are still written
            process.wait()
            return None
    if not report.exists():
        raise UserError(f"proofs: expected results in {report}, got none (exit code {process.returncode})")
    paths = {"proofs": report, "statements": stated, "claims": claimed}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items()} | {
        "exit_code": process.returncode
    }


HANDLERS: dict[str, Callable[[Path, dict[str, Any], threading.Event], dict[str, Any] | None]] = {
    "proofs": _prove,
    "train": _train,
    "induction": _extrapolate,
    "needle": _extrapolate,
    "recall": _recall,
    "tones": _resample,
    "hippo": _remember,
    "surprise": _surprise,
    "translation": _translate,
    "rotation": _rotate,
    "controls": _control,
    "pictures": _classify,
    "transfer": _transfer,
    "clip": _contrast,
    "sam": _segment,
    "cost": _cost,
    "growth": _grow,
    "scan": _scan,
    "through time": _through_time,
    "memory": _measure_memory,
}
