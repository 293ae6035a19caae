"""Generation as a user meets it: what is printed and when, how a text ends, and what is refused in one line."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.blocks.mamba import MambaConfig
from models.checkpoints import load_checkpoint, save_checkpoint
from models.cli import main
from models.errors import UserError
from models.language.config import Config
from models.language.lm import LanguageModel, generate
from models.language.mamba import MambaModel
from models.published import Detokenizer as PublishedDetokenizer
from models.published import encode_prompt, end_tokens, read_architecture
from models.tasks import text
from models.train import CHECKPOINT, Run, Training

ROOT = Path(__file__).parents[2]
ENDLESS = 10**9


@pytest.fixture
def cli(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["models", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Return the folder of a run on text that has taken no step: its samples are bytes of all kinds."""
    folder = tmp_path_factory.mktemp("run")
    run = Run(mixer="linear_attention", width=16, heads=2, layers=1, batch=2, length=12, steps=1)
    Training.start(run, folder).save()
    return folder


def scores(*rows):
    """Return a model whose logits at each step are the next of these rows."""
    left = iter(rows)
    return lambda tokens, state: (np.asarray([next(left)], dtype=np.float32), None)


def drawn(logits, temperature, seed=0):
    rng = np.random.default_rng(seed)
    return next(generate(scores(logits), np.array([0]), tokens=1, temperature=temperature, rng=rng))


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-310, 1e-300, 1e-45, 1e-38, 1e-12])
@pytest.mark.parametrize("logits", [[1.0, 2.0, 1.5], [-3e38, 3e38, 0.0], [0.0, 1e-6, -1e-6], [-1e30, -1e29, -1e30]])
def test_a_temperature_near_zero_takes_the_most_likely(logits, temperature):
    assert all(drawn(logits, temperature, seed) == 1 for seed in range(50))


@pytest.mark.parametrize("temperature", [1e12, 1e300, sys.float_info.max, np.inf])
def test_a_huge_temperature_is_uniform(temperature):
    """400 draws of 4: a count has a standard deviation of 8.7."""
    counts = np.bincount([drawn([5.0, -5.0, 0.0, 100.0], temperature, seed) for seed in range(400)], minlength=4)
    assert np.all(np.abs(counts - 100) < 44)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_draws_follow_the_softmax_below_and_above_one(temperature):
    """2000 draws: a share has a standard deviation of at most 1.1 %."""
    logits = np.array([0.0, 0.5, 1.0])
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    result = np.bincount([drawn(logits, temperature, seed) for seed in range(2000)], minlength=3) / 2000
    np.testing.assert_allclose(result, expected, atol=0.05)


def test_a_text_ends_at_a_stop_token():
    rng, rows = np.random.default_rng(0), np.eye(4)[[1, 3, 2, 1]]
    result = generate(scores(*rows), np.array([0]), tokens=4, temperature=0, rng=rng, stop={2, 0})
    assert list(result) == [1, 3]


MODELS = [
    LanguageModel(Config(vocab=11, width=16, layers=1, heads=2, mixer="linear_attention"), np.random.default_rng(0)),
    MambaModel(MambaConfig(width=8, inner=16, states=3), np.random.default_rng(0), vocab=11, layers=1),
]


@pytest.mark.parametrize("model", MODELS, ids=["ours", "mamba"])
@pytest.mark.parametrize("tokens, got", [([3, 11], 11), ([-1, 3], -1), ([[2**40]], 2**40), ([[0], [255]], 255)])
def test_tokens_outside_the_vocabulary(model, tokens, got):
    with pytest.raises(ValueError, match=f"^tokens: expected 0 to 10, got {got}$"):
        model(np.array(tokens))


def in_bytes(stream, pieces):
    return [*(stream.add(piece) for piece in pieces), stream.flush()]


@pytest.mark.parametrize("seed", range(20))
def test_bytes_streamed_are_bytes_decoded_at_once(seed):
    rng = np.random.default_rng(seed)
    before, after = (bytes(rng.integers(low, 256, 40, dtype=np.uint8)) for low in (0, 190))
    full = before + "é€𝄞 ÿ".encode() + after
    assert "".join(in_bytes(text.Detokenizer(), [[byte] for byte in full])) == full.decode(errors="replace")


def test_a_character_waits_until_it_is_whole():
    assert in_bytes(text.Detokenizer(), [[byte] for byte in "a€b".encode()]) == ["a", "", "", "€", "b", ""]
    assert in_bytes(text.Detokenizer(), [[0x61], [0xE2], [0x82]]) == ["a", "", "", "\ufffd"]


class Pieces:
    """A tokenizer of byte pieces, special where they are None."""

    pieces = [b"a", b" b", b"\xe2\x82", b"\xac", b"\xe2", None, b" ", b"\xf0\x9d\x84\x9e"]

    def decode(self, ids):
        return b"".join(self.pieces[i] or b"" for i in ids).decode(errors="replace")


@pytest.mark.parametrize("seed", range(30))
def test_tokens_streamed_are_tokens_decoded_at_once(seed):
    ids, tokenizer = np.random.default_rng(seed).integers(0, 8, 30).tolist(), Pieces()
    stream = PublishedDetokenizer(tokenizer, [0, 1])
    result = "".join(in_bytes(stream, [[i] for i in ids]))
    assert result == tokenizer.decode([0, 1, *ids])[len(tokenizer.decode([0, 1])) :]


def test_a_token_of_half_a_character_waits():
    assert in_bytes(PublishedDetokenizer(Pieces(), [0]), [[2], [3], [5], [1], [4]]) == ["", "€", "", " b", "", "\ufffd"]


def test_only_the_last_tokens_are_decoded_again():
    longest = 0

    class Counting(Pieces):
        def decode(self, ids):
            nonlocal longest
            longest = max(longest, len(ids))
            return super().decode(ids)

    stream = PublishedDetokenizer(Counting(), [0, 1, 0])
    for i in range(1000):
        stream.add([i % 2])
    assert longest <= 5


class Ids:
    """A tokenizer of words."""

    words = {"a": 0, "b": 1, "<end>": 2}

    def encode(self, prompt):
        return type("Encoding", (), {"ids": [self.words[word] for word in prompt.split()]})

    def token_to_id(self, word):
        return self.words.get(word)

    def id_to_token(self, result):
        return list(self.words)[result]


END_TOKENS = [
    ({"generation_config": {"eos_token_id": 1}, "config": {"eos_token_id": 0}}, {1}),
    ({"generation_config": {"eos_token_id": [1, 2]}, "config": {"eos_token_id": 0}}, {1, 2}),
    ({"generation_config": {}, "config": {"eos_token_id": [0, 1]}}, {0, 1}),
    ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": 0}}, {0}),
    ({"config": {"eos_token_id": 0}, "tokenizer_config": {"eos_token": "<end>"}}, {0}),
    ({"config": {}, "tokenizer_config": {"eos_token": "<end>"}}, {2}),
    ({"config": {}, "tokenizer_config": {"eos_token": {"content": "<end>", "lstrip": False}}}, {2}),
    ({"config": {}, "tokenizer_config": {"eos_token": "<other>"}}, set()),
    ({"config": {}, "tokenizer_config": {"eos_token": None}}, set()),
    ({"config": {}}, set()),
]


@pytest.mark.parametrize("files, expected", END_TOKENS)
def test_which_tokens_end_a_text(files, expected, tmp_path):
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert end_tokens(tmp_path, Ids()) == expected


@pytest.mark.parametrize("value", ["</s>", 1.0, [1, None], True, -1, {"a": 1}])
def test_an_end_that_is_no_token(value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(UserError, match=r"config\.json: eos_token_id: expected a token or a list of them, got "):
        end_tokens(tmp_path, Ids())


@pytest.mark.parametrize(
    "prompt, message",
    [
        (" ", "--prompt: expected text that becomes at least one token, got ' ', which becomes none"),
        ("a <end>", "--prompt: expected tokens below vocab_size 2, got 2 ('<end>')"),
    ],
)
def test_prompts_that_are_no_tokens_of_the_model(prompt, message):
    with pytest.raises(UserError) as excinfo:
        encode_prompt(Ids(), prompt, 2)
    assert str(excinfo.value) == message
    assert encode_prompt(Ids(), "b a", 2) == [1, 0]


def test_a_run_s_folder_is_its_checkpoint(cli, run_folder):
    words = ["--tokens", 20, "--seed", 1]
    code, out, err = cli("generate", "--checkpoint", run_folder, *words)
    assert (code, err) == (0, "") and out.startswith("The ") and out.endswith("\n")
    assert cli("generate", "--checkpoint", run_folder / CHECKPOINT, *words) == (code, out, err)


def test_places_where_nothing_is(cli, tmp_path):
    expected = f"checkpoint {tmp_path}: expected {CHECKPOINT}, config.json or a .pth in the folder, got none"
    assert cli("generate", "--checkpoint", tmp_path) == (2, "", f"python -m models: {expected}\n")
    expected = f"checkpoint {tmp_path}/no: expected a readable file, got: No such file or directory"
    assert cli("generate", "--checkpoint", tmp_path / "no") == (2, "", f"python -m models: {expected}\n")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"width": 10**12}, "embedding.weight: expected shape (256, 1000000000000), got (256, 16)"),
        ({"vocab": 10**12}, "embedding.weight: expected shape (1000000000000, 16), got (256, 16)"),
        ({"layers": 10**12}, "layers: expected 1, as many as there are arrays of, got 1000000000000"),
        ({"conv": 10**12}, "conv: expected at most the "),
        ({"layers": 1.0}, "layers: expected a whole number, got 1.0"),
        ({"width": "16"}, "width: expected a whole number, got '16'"),
        ({"chunk_size": None}, "chunk_size: expected a whole number, got None"),
        ({"states": -1}, "states: expected at least 0, got -1"),
    ],
)
def test_a_checkpoint_that_describes_another_model(change, message, cli, run_folder, tmp_path):
    """It is refused before a model of its sizes is made."""
    arrays, about = load_checkpoint(run_folder / CHECKPOINT)
    about["model"] |= change
    save_checkpoint(tmp_path / CHECKPOINT, arrays, about)
    code, out, err = cli("generate", "--checkpoint", tmp_path)
    begin = f"python -m models: checkpoint {tmp_path / CHECKPOINT}: expected the description of a model, got: {message}"
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(begin)


def test_a_temperature_that_is_no_number(cli, run_folder):
    code, out, err = cli("generate", "--checkpoint", run_folder, "--temperature", "nan")
    assert (code, out, err.count("\n")) == (2, "", 1) and "--temperature" in err


def test_a_byte_of_the_command_line_is_a_byte_of_the_prompt(cli, run_folder):
    """As Python decodes it, é in Latin-1 is half a surrogate pair."""
    code, out, err = cli("generate", "--checkpoint", run_folder, "--prompt", "caf\udce9!", "--tokens", 0)
    assert (code, out, err) == (0, "caf\ufffd!\n", "")
    np.testing.assert_array_equal(text.encode("\udcc3\udca9"), list("é".encode()))
    code, out, err = cli("generate", "--checkpoint", run_folder, "--prompt", "a\ud800", "--tokens", 0)
    assert (code, out) == (2, "")
    assert err == "python -m models: text: expected characters, got half of one, '\\ud800' at 1\n"


def test_the_prompt_of_a_published_model_is_utf_8(cli, tmp_path):
    """Also in a locale without UTF-8, where Python leaves the bytes of a character apart."""
    assert text.whole_characters("naïve 𝄞") == "naïve 𝄞"
    assert text.whole_characters("\udcc3\udca9t\udcc3\udca9") == "été"
    for prompt, message in (("é\udc80", "b'\\x80' at 2"), ("ab\udce9", "b'\\xe9' at 2"), ("a\ud800", "'\\ud800' at 1")):
        with pytest.raises(UserError) as excinfo:
            text.whole_characters(prompt)
        assert str(excinfo.value) == f"--prompt: expected UTF-8, got {message}"
    (tmp_path / "config.json").write_text("{}")
    expected = "python -m models: --prompt: expected UTF-8, got b'\\x80' at 1\n"
    assert cli("generate", "--checkpoint", tmp_path, "--prompt", "a\udc80") == (2, "", expected)


def test_a_run_comes_before_a_published_file_in_its_folder(cli, run_folder, tmp_path):
    shutil.copy(run_folder / CHECKPOINT, tmp_path)
    (tmp_path / "other.pth").touch()
    assert cli("generate", "--checkpoint", tmp_path, "--prompt", "a", "--tokens", 0) == (0, "a\n", "")


def test_control_characters_are_shown(cli, run_folder):
    code, out, _ = cli("generate", "--checkpoint", run_folder, "--prompt", "a\0\x1b[2J\tb\r\nc\x9b\x7f", "--tokens", 0)
    assert (code, out) == (0, "a\\x00\\x1b[2J\tb\r\nc\\x9b\\x7f\n")
    code, out, _ = cli("generate", "--checkpoint", run_folder, "--tokens", 400, "--temperature", 5)
    assert code == 0 and "\\x00" in out and not set(out) & {chr(c) for c in range(32)} - set("\t\r\n")


def started(*words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "models", "generate", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
    )


def test_a_terminal_that_cannot_show_a_character_gets_its_escape(run_folder):
    words = ["--checkpoint", run_folder, "--prompt", "naïve – 𝄞", "--tokens", 0]
    out, err = started(*words, PYTHONIOENCODING="ascii").communicate(timeout=120)
    assert (out, err) == (rb"na\xefve \u2013 \U0001d11e" + b"\n", b"")


def test_text_comes_as_it_is_made_and_ctrl_c_keeps_it(run_folder):
    process = started("--checkpoint", run_folder, "--prompt", "The end", "--tokens", ENDLESS)
    begun = process.stdout.read(40)  # comes although the text never ends
    process.send_signal(signal.SIGINT)
    flush, err = process.communicate(timeout=120)
    assert begun.startswith(b"The end") and process.returncode == 130 and err == b""
    assert flush.endswith(b"\n")


def test_a_published_folder_without_its_tokenizers_library(cli, tmp_path, monkeypatch):
    config = {"model_type": "mamba", "hidden_size": 8, "state_size": 3, "vocab_size": 12, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    arrays = read_architecture(tmp_path / "config.json").build(np.random.default_rng(0)).named_parameters()
    save_file(
        {n: x[:, None] if n.endswith("conv1d.weight") else x for n, x in arrays.items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    code, out, err = cli("generate", "--checkpoint", tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        "python -m models: tokenizer.json: expected tokenizers, which the extra 'published' installs: "
        "pip install -e '.[published]'\n"
    )


def test_every_command_line_escapes_what_its_output_cannot_show(monkeypatch, capsys):
    """Tables too: nothing a command prints may end in a UnicodeEncodeError."""
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["models", "map"])
    with pytest.raises(SystemExit) as stopped:
        main()
    sys.stdout.flush()
    assert stopped.value.code == 0 and data.getvalue().isascii()
