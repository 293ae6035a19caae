"""A checkpoint comes back as it went in, or says in one line why it does not; what is on disk is never half a file."""

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from models.checkpoints import FORMAT, load_checkpoint, match, save_checkpoint, write_atomically
from models.errors import UserError

DTYPES = st.sampled_from(["float32", "float64", "int64", "uint8", "bool"])
FINITE = {"allow_nan": False, "allow_infinity": False}


@st.composite
def views(draw):
    """Yield views of an array with another order, stride or repetition than it has in memory."""
    dtype = draw(DTYPES)
    elements = hnp.from_dtype(np.dtype(dtype), **(FINITE if "float" in dtype else {}))
    array = draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=elements))
    view = draw(st.sampled_from(["as it is", "transposed", "reversed", "every other", "broadcast"]))
    if view == "transposed" or array.ndim == 0:
        return array.T
    if view == "reversed":
        return array[::-1]
    if view == "every other":
        return array[..., ::2]
    return np.broadcast_to(array, (2, *array.shape)) if view == "broadcast" else array


@given(st.dictionaries(st.text("abc.0", min_size=1), views(), max_size=4))
@settings(max_examples=60, deadline=None)
def test_round_trip_whatever_the_memory_layout(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("round") / "a.safetensors"
    save_checkpoint(path, arrays, {"step": 3, "generator": 2**127})
    loaded, about = load_checkpoint(path)
    assert about == {"step": 3, "generator": 2**127}
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array, strict=True)


def saved(tmp_path, **arrays):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, arrays or {"w": np.ones((2, 3), np.float32)}, {})
    return path


def message(call, *args) -> str:
    with pytest.raises(UserError) as excinfo:
        call(*args)
    assert "\n" not in str(excinfo.value)
    return str(excinfo.value)


def test_missing_file(tmp_path):
    path = tmp_path / "no"
    error = message(load_checkpoint, path)
    assert error == f"checkpoint {path}: expected a readable file, got: No such file or directory"


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_file(tmp_path, keep):
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    size = len(content[:keep])
    error = message(load_checkpoint, path)
    assert error.startswith(f"checkpoint {path}: expected a whole safetensors file, got {size} bytes: ")


def test_foreign_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"PK\x03\x04" + bytes(200))
    error = message(load_checkpoint, path)
    assert error.startswith(f"checkpoint {path}: expected a whole safetensors file, got 204 bytes: ")


def test_safetensors_of_somebody_else(tmp_path):
    path = tmp_path / "a"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert message(load_checkpoint, path) == f"checkpoint {path}: expected metadata minigrad-1, got none"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(tmp_path, bad):
    path = saved(tmp_path, good=np.zeros(2), w=np.array([[1.0, bad]]))
    assert message(load_checkpoint, path) == f"checkpoint {path}: w: expected finite numbers, got {bad} (1 such)"


def test_shapes_types_and_names(tmp_path):
    w = {"w": np.ones((2, 3), np.float32)}
    assert message(match, "f", {}, w) == "checkpoint f: w: expected an array of shape (2, 3), got none"
    came = {"w": np.ones((3, 2), np.float32)}
    assert message(match, "f", came, w) == "checkpoint f: w: expected float32 (2, 3), got float32 (3, 2)"
    came = {"w": np.ones((2, 3))}
    assert message(match, "f", came, w) == "checkpoint f: w: expected float32 (2, 3), got float64 (2, 3)"
    came = {**w, "x": np.ones(1)}
    assert message(match, "f", came, w) == "checkpoint f: x: expected no such array, got one of shape (1,)"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()

    def content(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", content)
    assert message(write_atomically, path, b"new") == f"{path}: expected a place to write, got: No space left on device"
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("about, error", [("{", "expected JSON, got: "), ("[1]", "expected a JSON object, got list")])
def test_a_description_that_is_none(about, error, tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "a", metadata={FORMAT: about})
    with pytest.raises(UserError) as excinfo:
        load_checkpoint(tmp_path / "a")
    assert str(excinfo.value).startswith(f"checkpoint {tmp_path}/a: metadata {FORMAT}: {error}")
