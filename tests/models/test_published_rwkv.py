"""RWKV-4 and RWKV-7 as published: arrays under their names, the value residual, where they lie, and their tokenizer."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.blocks.rwkv4 import RWKV4Config
from models.blocks.rwkv7 import RWKV7Config
from models.cli import main
from models.errors import UserError
from models.published import Detokenizer, end_tokens, find, load_model, load_tokenizer
from models.published.rwkv4 import RWKV4
from models.published.rwkv7 import RWKV7
from models.published.world_tokenizer import VOCABULARY

FOUR = RWKV4(vocab=24, tied=False, block=RWKV4Config(8, 6, 20), layers=3, eps=0.1)
SEVEN_BLOCK = RWKV7Config(8, 2, 20, 3, 4, 5, value_rank=6)
SEVEN = RWKV7(vocab=24, tied=False, block=SEVEN_BLOCK, layers=3, vector=(1, 1, 8))
TOKENS = np.random.default_rng(1).integers(0, 24, (2, 9))


def drawn(of):
    """Return random arrays as a file of this architecture has them."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in of.shapes()}


def loaded(of, arrays):
    model = of.build(np.random.default_rng(0))
    model.load_parameters(dict(of.parameters(arrays)))
    return model


@pytest.mark.parametrize("of", [FOUR, SEVEN], ids=["4", "7"])
def test_prefill_and_steps_are_one_pass(of):
    model = loaded(of, drawn(of))
    parts, state = model(TOKENS[:, :4])
    parts = [parts]
    for t in range(4, 9):
        logits, state = model(TOKENS[:, t : t + 1], state)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), model(TOKENS)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gate, moves", [(60, False), (-60, True)])
def test_values_move_to_those_of_the_first_layer(gate, moves):
    """With the value gate σ = 1 a layer uses the first layer's values, and its own value weights change nothing."""
    arrays = drawn(SEVEN)
    for layer in (1, 2):
        arrays[f"blocks.{layer}.att.v0"][:], arrays[f"blocks.{layer}.att.v1"][:] = gate, 0
    before = loaded(SEVEN, arrays)(TOKENS)[0]
    for layer in (1, 2):
        arrays[f"blocks.{layer}.att.value.weight"] *= -1
    assert (np.abs(loaded(SEVEN, arrays)(TOKENS)[0] - before).max() > 1e-2) == moves


def folder_of_four(folder, **config):
    """Write a folder as transformers does, and return its arrays."""
    sizes = {"hidden_size": 8, "attention_hidden_size": 6, "intermediate_size": 20, "num_hidden_layers": 3}
    sizes |= {"model_type": "rwkv", "vocab_size": 24, "layer_norm_epsilon": 0.1}
    (folder / "config.json").write_text(json.dumps(sizes | config))
    arrays = drawn(FOUR)
    save_file({n if n == "head.weight" else f"rwkv.{n}": x for n, x in arrays.items()}, folder / "model.safetensors")
    return arrays


def test_a_folder_of_rwkv_4(tmp_path):
    expected = loaded(FOUR, folder_of_four(tmp_path, rescale_every=2))(TOKENS)[0]
    np.testing.assert_array_equal(load_model(tmp_path)(TOKENS)[0], expected)


def test_the_published_configs_have_as_many_numbers_as_their_models(tmp_path):
    """Count the parameters of RWKV-4 and of RWKV-7 World, each with 12 layers of width 768."""
    block = RWKV4Config(768, 768, 3072)
    pile = RWKV4(vocab=50277, tied=False, block=block, layers=12, eps=1e-5)
    assert sum(int(np.prod(shape)) for _, shape in pile.shapes()) == 169_342_464
    block = RWKV7Config(768, 12, 3072, decay_rank=64, rate_rank=64, gate_rank=128, value_rank=32)
    world = RWKV7(vocab=65536, tied=False, block=block, layers=12, vector=(1, 1, 768))
    first = 768 + 2 * 32 * 768  # the first layer's v0, v1 and v2
    assert sum(int(np.prod(shape)) for _, shape in world.shapes()) + first == 191_084_544


def test_where_a_model_is_described(tmp_path):
    pth, config = tmp_path / "a.pth", tmp_path / "config.json"
    assert find(tmp_path) is None and find(tmp_path / "checkpoint.safetensors") is None
    pth.touch()
    assert find(tmp_path) == find(pth) == pth
    (tmp_path / "b.pth").touch()
    with pytest.raises(UserError, match=r"expected one \.pth in the folder or the path of one, got a\.pth, b\.pth$"):
        find(tmp_path)
    assert find(pth) == pth
    config.touch()
    assert find(tmp_path) == find(config) == config


# The World tokenizer


def vocabulary(folder, *lines):
    """Write a vocabulary of all bytes, "a" to "abc", "é", a part of "漢" with "a", and these lines."""
    singles = [chr(i) if i < 128 else bytes([i]) for i in range(256)]
    tokens = [*singles, "ab", "abc", "é", "漢".encode()[2:] + b"a", " \n'"]
    text = [f"{i} {t!r} {len(t.encode() if isinstance(t, str) else t)}" for i, t in enumerate(tokens, start=1)]
    (folder / VOCABULARY).write_text("\n".join([*text, *lines]) + "\n", encoding="utf-8")


def test_the_longest_token_comes_first(tmp_path):
    vocabulary(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    e6, bc, a2 = (byte + 1 for byte in "漢".encode())
    assert tokenizer.encode("ababcé").ids == [257, 258, 259]
    assert tokenizer.encode("漢a漢").ids == [e6, bc, 260, e6, bc, a2] and tokenizer.encode(" \n' ").ids == [261, 33]
    assert tokenizer.decode([e6, bc]) == "\ufffd" and tokenizer.decode([0, 257, 400]) == "ab"
    assert end_tokens(tmp_path, tokenizer) == {0}
    stream = Detokenizer(tokenizer, [98])
    assert [stream.add([token]) for token in (e6, bc, 260, 259)] == ["", "", "漢a", "é"]


@pytest.mark.parametrize(
    "line",
    [
        "262",
        "262 'x'",
        "x 'yz' 2",
        "0 'yz' 2",
        "262 'yz' 3",
        "262 yz 2",
        "262 '' 0",
        "262 5 1",
        "262 ('y',) 1",
        "",
        "2 '",
    ],
)
def test_a_line_that_is_no_token(line, tmp_path):
    vocabulary(tmp_path, line)
    with pytest.raises(UserError) as excinfo:
        load_tokenizer(tmp_path)
    expected = "an index of at least 1, a literal and its length in bytes"
    assert str(excinfo.value) == f"{tmp_path}/{VOCABULARY}: line 262: expected {expected}, got {line!r}"


@pytest.mark.parametrize("line", ["261 'yz' 2", "262 'ab' 2"])
def test_a_token_twice(line, tmp_path):
    vocabulary(tmp_path, line)
    with pytest.raises(UserError, match="line 262: expected an index and a token for the first time, got "):
        load_tokenizer(tmp_path)


def test_a_byte_that_is_no_token(tmp_path):
    (tmp_path / VOCABULARY).write_text("1 'a' 1\n")
    with pytest.raises(UserError, match=r"expected a token for every byte, got none for b'\\x00'$"):
        load_tokenizer(tmp_path)
    (tmp_path / VOCABULARY).write_bytes(b"\xff")
    with pytest.raises(UserError, match="expected a readable vocabulary in UTF-8, got: "):
        load_tokenizer(tmp_path)


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["models", "generate", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, *capsys.readouterr()


def test_the_command_line(monkeypatch, capsys, tmp_path):
    """A tokenizer that is missing, a model with fewer tokens than the vocabulary, and a text."""
    folder_of_four(tmp_path)
    code, out, err = run(monkeypatch, capsys, "--checkpoint", tmp_path)
    assert (code, out) == (2, "")
    expected = f"{tmp_path}/tokenizer.json: expected a tokenizer there or in {VOCABULARY}, got no such file"
    assert err == f"python -m models: {expected}\n"
    vocabulary(tmp_path)
    code, out, err = run(monkeypatch, capsys, "--checkpoint", tmp_path, "--prompt", "ab")
    assert (code, out) == (2, "")
    assert err == "python -m models: --prompt: expected tokens below vocab_size 24, got 257 ('ab')\n"
    code, out, err = run(monkeypatch, capsys, "--checkpoint", tmp_path, "--prompt", "\t", "--tokens", 5)
    assert (code, err) == (0, "") and out.startswith("\t") and len(out) > 2
