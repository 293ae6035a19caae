"""The weights beside a published config: element types, shards, heads, and files that are not what they say."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import UserError
from models.published import load_model, read_architecture

CONFIG = {"model_type": "mamba", "hidden_size": 8, "state_size": 3, "vocab_size": 12, "num_hidden_layers": 2}
TOKENS = np.arange(12)[None]


def weights(folder, config=CONFIG, dtype=np.float32):
    """Return the arrays of a new model as its file has them, and write the config."""
    (folder / "config.json").write_text(json.dumps(config))
    arrays = read_architecture(folder / "config.json").build(np.random.default_rng(0)).named_parameters()
    return {
        name if name == "lm_head.weight" else f"backbone.{name}": np.ascontiguousarray(
            array[:, None, ::-1] if name.endswith("conv1d.weight") else array, dtype=dtype
        )
        for name, array in arrays.items()
    }


def refused(folder):
    with pytest.raises(UserError) as excinfo:
        load_model(folder)
    assert "\n" not in str(excinfo.value)
    return str(excinfo.value).replace(str(folder), "FOLDER")


def logits(folder):
    return load_model(folder)(TOKENS)[0]


def write_raw(path, arrays, kind):
    """Write a safetensors file by hand, with arrays given as bytes."""
    header, data = {}, b""
    for name, array in arrays.items():
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("kind, dtype", [("F16", np.float16), ("BF16", ml_dtypes.bfloat16), ("F64", np.float64)])
def test_weights_of_other_widths(kind, dtype, tmp_path):
    """They give what the same values give in float32."""
    arrays = weights(tmp_path, dtype=dtype)
    save_file({name: array.astype(np.float32) for name, array in arrays.items()}, tmp_path / "model.safetensors")
    expected = logits(tmp_path)
    write_raw(tmp_path / "model.safetensors", arrays, kind)
    np.testing.assert_array_equal(logits(tmp_path), expected)


def test_every_bfloat16_is_read_as_it_is(tmp_path):
    from models.published.weights import stored_arrays

    every = np.arange(2**16, dtype=np.uint16)
    write_raw(tmp_path / "model.safetensors", {"all": every.reshape(256, 256)}, "BF16")
    actual = stored_arrays(tmp_path)[1]["all"].read()
    with np.errstate(invalid="ignore"):  # signalling NaNs
        expected = every.view(ml_dtypes.bfloat16).astype(np.float32).reshape(256, 256)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("kind, dtype", [("I8", np.int8), ("I64", np.int64), ("BOOL", np.bool_), ("F8_E4M3", np.int8)])
@pytest.mark.parametrize("name", ["backbone.embeddings.weight", "backbone.layers.1.mixer.D", "lm_head.weight"])
def test_weights_that_are_no_floats(kind, dtype, name, tmp_path):
    arrays = weights(tmp_path, {**CONFIG, "tie_word_embeddings": False})
    path = tmp_path / "model.safetensors"
    write_raw(path, {name: arrays[name].astype(dtype)}, kind)
    assert refused(tmp_path) == (
        f"checkpoint FOLDER/model.safetensors: {name}: expected one of F16, BF16, F32, F64, got {kind}"
    )


def test_a_double_beyond_single_precision(tmp_path):
    arrays = weights(tmp_path, dtype=np.float64)
    arrays["backbone.norm_f.weight"][0] = 1e39
    write_raw(tmp_path / "model.safetensors", arrays, "F64")
    assert refused(tmp_path).endswith("norm_f.weight: expected finite numbers, got inf")


def shard(folder, arrays, *, change=None):
    """Write the arrays into three files with an index."""
    names = sorted(arrays)
    where = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: arrays[name] for name in names if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    if change:
        change(index["weight_map"])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_give_what_one_file_gives(tmp_path):
    arrays = weights(tmp_path)
    save_file(arrays, tmp_path / "model.safetensors")
    expected = logits(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    shard(tmp_path, arrays)
    np.testing.assert_array_equal(logits(tmp_path), expected)


FIRST = "backbone.embeddings.weight"


@pytest.mark.parametrize(
    "file, message",
    [
        ("../model.safetensors", 'expected the name of a file beside it, got "../model.safetensors"'),
        ("/etc/passwd", 'expected the name of a file beside it, got "/etc/passwd"'),
        ("..", 'expected the name of a file beside it, got ".."'),
        ("", 'expected the name of a file beside it, got ""'),
        (None, "expected the name of a file beside it, got null"),
        ("model-00002-of-00003.safetensors", "expected in model-00002-of-00003.safetensors, got no such array there"),
    ],
)
def test_an_index_that_leads_elsewhere(file, message, tmp_path):
    shard(tmp_path, weights(tmp_path), change=lambda where: where.update({FIRST: file}))
    assert refused(tmp_path) == f"FOLDER/model.safetensors.index.json: {FIRST}: {message}"


def test_a_missing_shard(tmp_path):
    shard(tmp_path, weights(tmp_path))
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    assert refused(tmp_path) == (
        "checkpoint FOLDER/model-00003-of-00003.safetensors: expected a readable file, got: No such file or directory"
    )


def test_an_index_that_leaves_one_out(tmp_path):
    shard(tmp_path, weights(tmp_path), change=lambda where: where.pop(FIRST))
    assert refused(tmp_path).endswith("embeddings.weight: expected an array of shape (12, 8), got none")


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(text, tmp_path):
    weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "weight_map: expected a JSON object of file names, got " in refused(tmp_path)


def test_no_weights_at_all(tmp_path):
    weights(tmp_path)
    assert refused(tmp_path) == (
        "checkpoint FOLDER: expected weights in model.safetensors, model.safetensors.index.json or pytorch_model.bin, "
        "got none of them"
    )


def test_one_name_twice(tmp_path):
    arrays = weights(tmp_path)
    save_file({**arrays, "backbone.embedding.weight": arrays[FIRST]}, tmp_path / "model.safetensors")
    assert "expected one array of that name, got two" in refused(tmp_path)


@pytest.mark.parametrize("data", [b"", b"1234", b"\xff" * 100, struct.pack("<Q", 2**62) + b"{}"])
def test_a_file_that_is_none(data, tmp_path):
    weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data)
    assert "expected a whole safetensors file, got: " in refused(tmp_path)


def test_the_head_of_the_file_is_used(tmp_path, capsys):
    """Also where the config, or its silence, says that it is the embedding; a line says so."""
    arrays = weights(tmp_path, {**CONFIG, "tie_word_embeddings": False})
    save_file(arrays, tmp_path / "model.safetensors")
    expected = logits(tmp_path)
    assert capsys.readouterr().err == ""
    for config in (CONFIG, {**CONFIG, "tie_word_embeddings": True}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        np.testing.assert_array_equal(logits(tmp_path), expected)
        assert capsys.readouterr() == (
            "",
            f"checkpoint {tmp_path}/model.safetensors: lm_head.weight: the config ties it to the embedding, the file "
            "holds another: the file's is used\n",
        )


def test_a_tied_matrix_under_either_name_or_both(tmp_path, capsys):
    arrays = weights(tmp_path)
    save_file(arrays, tmp_path / "model.safetensors")
    expected = logits(tmp_path)
    save_file({**arrays, "lm_head.weight": arrays[FIRST].copy()}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(logits(tmp_path), expected)
    arrays["lm_head.weight"] = arrays.pop(FIRST)
    save_file(arrays, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(logits(tmp_path), expected)
    assert capsys.readouterr().err == ""


def test_an_untied_head_that_is_missing(tmp_path):
    save_file(weights(tmp_path), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": False}))
    assert refused(tmp_path).endswith("lm_head.weight: expected an array of shape (12, 8), got none")


def test_pytorch_s_format_needs_torch(tmp_path, monkeypatch):
    weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert refused(tmp_path) == (
        "checkpoint FOLDER/pytorch_model.bin: expected torch, which reads this format (pip install torch, or convert "
        "the file to model.safetensors), got none"
    )


def test_numpy_alone_reads_bfloat16(tmp_path, monkeypatch):
    """The extra that brings ml_dtypes is for other things."""
    arrays = weights(tmp_path, dtype=ml_dtypes.bfloat16)
    write_raw(tmp_path / "model.safetensors", arrays, "BF16")
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    assert np.isfinite(logits(tmp_path)).all()
