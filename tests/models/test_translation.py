"""Translation: no item is on both sides of the split, a spelling says one thing, and runs train, resume, translate."""

import re
from datetime import datetime

import numpy as np
import pytest

from models import objectives
from models.errors import UserError
from models.objectives import Translation
from models.run import USUAL, Run
from models.tasks import dates
from models.tasks.dates import Dates, ordinal, spell
from models.tasks.numbers import TO_DIGITS, TO_WORDS, Numbers, words
from models.tasks.translation import END, PAD, START, Characters, held_out
from models.train import Training, load_model
from tests.models.test_cli import cli  # noqa: F401 - a fixture
from tests.models.test_train import finish, without_time

TINY = {"width": 16, "heads": 2, "layers": 1, "batch": 4, "steps": 8, "evaluate_every": 4, "warmup": 3}


def items_of(task, batch):
    """Return the items of a batch, read from whichever side has them in their plain form."""
    source, target = (["".join(task.characters.decode(row)) for row in part] for part in batch)
    if isinstance(task, Dates):
        return set(target)
    return {text.replace(",", "") for pair in zip(source, target, strict=True) for text in pair if text[0].isdigit()}


@pytest.mark.parametrize("task", [Dates(), Numbers()], ids=["dates", "numbers"])
def test_no_held_out_item_is_trained_on_in_any_spelling(task):
    rng = np.random.default_rng(0)
    trained = set().union(*(items_of(task, task.batch(rng, 200)) for _ in range(20)))
    tested = set().union(*(items_of(task, batch) for batch in task.eval_batches(rng).values()))
    assert len(trained) > 2000 and len(tested) > 150
    assert all(map(held_out, tested)) and not any(map(held_out, trained))


def test_the_split_is_a_tenth_and_the_same_for_every_seed():
    assert 0.09 < np.mean([held_out(n) for n in range(20_000)]) < 0.11
    assert not set(dates.items(True)) & set(dates.items(False))
    assert len(dates.items(True)) + len(dates.items(False)) == 73_049
    assert [n for n in range(100) if held_out(n)] == [18, 72, 74, 87, 96]


def test_a_spelling_says_one_date():
    rng, said = np.random.default_rng(1), {}
    for day in dates.items(True)[::7]:
        for _ in range(30):
            assert said.setdefault(spell(rng, day), day) == day
    numeric = [text for text in said if re.fullmatch(r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}", text)]
    assert len(numeric) > 500
    for text in numeric:
        first, second, year = (int(part) for part in re.split(r"[/.-]", text))
        day = said[text]
        assert {first, second} == {day.day, day.month} and (max(first, second) > 12 or first == second)
        if year < 100:
            assert datetime.strptime(f"{year:02}", "%y").year == day.year  # POSIX's century
    weekdays = [(text, day) for text, day in said.items() if re.match("(?i)(mon|tue|wed|thu|fri|sat|sun)", text)]
    assert len(weekdays) > 1000 and all(text[:3].lower() == f"{day:%a}".lower() for text, day in weekdays)
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31)] == (
        "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 30th 31st".split()
    )


def test_numbers_in_words():
    for n, text in {
        0: "zero",
        13: "thirteen",
        20: "twenty",
        45: "forty-five",
        100: "one hundred",
        101: "one hundred one",
        1000: "one thousand",
        12_045: "twelve thousand forty-five",
        100_000: "one hundred thousand",
        999_999: "nine hundred ninety-nine thousand nine hundred ninety-nine",
    }.items():
        assert words(n) == text
    assert words(12_045, conjunction="and") == "twelve thousand and forty-five"
    assert words(101_101, conjunction="and") == "one hundred and one thousand one hundred and one"
    assert len({words(n) for n in range(10_000)}) == 10_000


def test_a_batch_of_numbers_has_one_direction_and_all_lengths():
    task, rng = Numbers(), np.random.default_rng(0)
    batches = [task.batch(rng, 32) for _ in range(20)]
    assert {int(direction) for source, _ in batches for direction in source[:, 0]} == {TO_WORDS, TO_DIGITS}
    for source, target in batches:
        assert len(set(source[:, 0])) == 1
        assert (target[:, 0] == START).all() and ((target == END).sum(axis=1) == 1).all()
    lengths = [len(item) for batch in batches for item in items_of(task, batch)]
    assert set(lengths) == {1, 2, 3, 4, 5, 6}
    assert task.question("12")[0] == TO_WORDS and task.question("twelve")[0] == TO_DIGITS


def test_characters_and_marks_are_tokens():
    letters = Characters("abc", marks=("up",))
    assert letters.size == 7 and letters.encode("cab") == [6, 4, 5]
    assert letters.decode([START, 3, 6, 4, END, 5]) == "ca"
    assert [letters.name(token) for token in (PAD, 3, 6)] == ["<pad>", "<up>", "c"]
    with pytest.raises(UserError, match=r"^text 'adb': expected characters of 'abc', got 'd' at 1$"):
        letters.encode("adb")


@pytest.mark.parametrize("task", ["dates", "numbers"])
def test_a_run_resumes_to_the_same_bytes_with_dropout_too(tmp_path, monkeypatch, task):
    monkeypatch.setattr(objectives, "SPACING", 2)  # so that weights are kept before and after the stop
    run = Run(task=task, dropout=0.1, **TINY)
    straight = finish(Training.start(run, tmp_path / "straight"))
    finish(Training.start(run, tmp_path / "stopped"), until=3)
    resumed = finish(Training.resume(tmp_path / "stopped"))
    assert resumed.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert without_time(resumed.log) == without_time(straight.log)
    model, loaded = load_model(straight.checkpoint)
    assert loaded == run
    source, target = straight.task.batch(np.random.default_rng(0), 2)
    used = straight.objective.evaluated(straight.model, straight.optimizer)
    np.testing.assert_array_equal(model(source, target, pad=PAD), used(source, target, pad=PAD))
    assert abs(used.embedding.weight - straight.model.embedding.weight).max() > 0


def test_what_is_used_is_the_mean_of_the_last_five_weights_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "SPACING", 2)
    training, seen = Training.start(Run(task="dates", **{**TINY, "steps": 15}), tmp_path), []
    name = "decoder.0.cross.query.weight"
    for record in training.steps():
        seen.append(training.model.named_parameters()[name].copy())
        kept = seen[2 : record["step"] + 1 : 2][-5:]
        used = training.objective.evaluated(training.model, training.optimizer).named_parameters()[name]
        np.testing.assert_allclose(used, np.mean(kept or seen[-1:], axis=0), rtol=1e-5, atol=1e-7)


def test_exact_match_counts_whole_texts():
    class Oracle:
        """Writes the source again, and END: right where the target is the source."""

        def encode(self, source, *, pad):
            return source, 0

        def decode(self, target, state):
            source, at = state
            places = np.minimum(at + np.arange(target.shape[1]), source.shape[1] - 1)
            return 9.0 * np.eye(9)[source[:, places]], (source, at + target.shape[1])

        def __call__(self, source, target, *, pad, rng=None):
            return self.decode(target, self.encode(source, pad=pad))[0]

    source = np.array([[3, 4, 2], [5, 6, 2], [7, 2, 2]])
    target = np.array([[START, 3, 4, END], [START, 5, 7, END], [START, 7, END, PAD]])
    objective = Translation(Run(task="dates", **TINY))
    loss, exact = objective.score(Oracle(), (source, target), 2)
    assert exact == pytest.approx(2 / 3) and 1 < loss < 2
    with pytest.raises(ValueError, match="^target: expected an end token in each row, got none in row 1$"):
        objective.loss(Oracle(), (source, np.array([[1, 3, 2], [1, 3, 4], [1, 3, 2]])))


def test_the_loss_falls_and_the_rate_is_the_paper_s(tmp_path):
    run = Run(task="dates", **{**TINY, "steps": 60, "evaluate_every": 30, "warmup": 20})
    records = list(Training.start(run, tmp_path).steps())
    losses = [record["held_out_loss"]["dates"] for record in records if "held_out_loss" in record]
    assert losses[-1] < losses[0] - 1
    rates = [record["rate"] for record in records if "rate" in record]
    assert rates[:21] == pytest.approx([16**-0.5 * min(s**-0.5, s * 20**-1.5) for s in range(1, 22)])


def test_the_command_line_trains_and_translates(cli, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    options = [word for name, value in TINY.items() if name != "evaluate_every" for word in (f"--{name}", value)]
    assert cli("train", "--task", "dates", *options, "--out", run)[0] == 0
    assert Training.resume(run).run == Run(task="dates", **{**USUAL["dates"], **TINY, "evaluate_every": 250})
    path = run / "checkpoint.safetensors"
    cut = "translate: expected an end within 61 tokens, got none: the text is cut off there\n"
    for beam in (1, 4):
        code, out, err = cli("translate", "--checkpoint", run, "--text", "3 Mar. 1987", "--beam", beam)
        assert code == 0 and out.count("\n") == 1 and err in ("", cut)
    code, _, err = cli("train", "--resume", "--steps", 9, "--out", run)
    assert code == 0 and err.startswith(f"{path}: planned for 8 steps, now 9\n")
    for words_, message in [
        (["--text", ""], "--text: expected at least one character, got none"),
        (["--text", "3 März"], "text '3 März': expected characters of '0123456789 ,./-ABC"),
        (["--text", "3", "--beam", 0], "Invalid value for '--beam'"),
    ]:
        code, out, err = cli("translate", "--checkpoint", path, *words_)
        assert (code, out) == (2, "") and err.startswith(f"python -m models: {message}") and err.count("\n") == 1
    assert "got one trained on dates" in cli("generate", "--checkpoint", run)[2]


@pytest.mark.parametrize(
    ("words_", "message"),
    [
        (["--mixer", "mamba"], "mixer: expected none for the task dates, which a Transformer learns without it"),
        (["--mixer", "delta_rule"], "mixer: expected none for the task dates, which a Transformer learns without it"),
        (["--rate", "0.1"], "rate: expected none for the task dates, which a Transformer learns without it"),
        (["--heads", "5"], "heads: expected width 64 to be a multiple of heads, got 5 heads"),
        (["--warmup", "0"], "warmup: expected at least 1, got 0"),
    ],
)
def test_settings_that_mean_nothing_here(cli, tmp_path, monkeypatch, words_, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    assert cli("train", "--task", "dates", *words_) == (2, "", f"python -m models: {message}\n")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="^mixer: expected none for the task numbers"):
        Run(task="numbers", mixer="mamba")
    with pytest.raises(
        UserError, match="^dropout: expected none for the task text, since only the Transformer has it$"
    ):
        Run(dropout=0.1)
