"""Weights of a published model: one file or shards, safetensors or PyTorch, of two to eight bytes a number.

Names, types and shapes come from a file's header and are compared with the expected ones before any array is read.
"""

import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from models.errors import UserError
from models.published.fields import read_json

FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}  # as stored in a file; NumPy has no bfloat16
TORCH = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not yet read: which file, its element type as safetensors names it, and its shape."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]  # in float32


def stored_arrays(path: Path) -> tuple[Path, dict[str, StoredArray]]:
    """Return the file that weights begin at and all their arrays, by the names that the files give them.

    The path is that of a folder, or of a single file of PyTorch's, .pth.

    Raises: UserError when there is no such file, one is missing, broken, or not where its index says.
    """
    if path.suffix == ".pth" and not path.is_dir():
        return path, _in_torch(path)
    for name, read in (("model.safetensors", _in_safetensors), ("pytorch_model.bin", _in_torch)):
        if (path / name).exists():
            return path / name, read(path / name)
        index = path / f"{name}.index.json"
        if index.exists():
            return index, _in_shards(index, read)
    names = "model.safetensors, model.safetensors.index.json or pytorch_model.bin"
    raise UserError(f"checkpoint {path}: expected weights in {names}, got none of them")


def _in_shards(index: Path, read: Callable[[Path], dict[str, StoredArray]]) -> dict[str, StoredArray]:
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise UserError(f"{index}: weight_map: expected a JSON object of file names, got {json.dumps(shard_of)[:60]}")
    shards: dict[str, dict[str, StoredArray]] = {}
    for name, file in shard_of.items():
        if not isinstance(file, str) or file in ("", "..") or any(mark in file for mark in "/\\:\0"):
            raise UserError(f"{index}: {name}: expected the name of a file beside it, got {json.dumps(file)}")
        if file not in shards:
            shards[file] = read(index.parent / file)
        if name not in shards[file]:
            raise UserError(f"{index}: {name}: expected in {file}, got no such array there")
    return {name: shards[file][name] for name, file in shard_of.items()}


def _in_safetensors(path: Path) -> dict[str, StoredArray]:
    try:
        # safetensors checks that the header is whole and that its arrays lie side by side and fill the file
        with path.open("rb") as file, safe_open(path, framework="numpy"):
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
    except OSError as error:
        raise UserError(f"checkpoint {path}: expected a readable file, got: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UserError(f"checkpoint {path}: expected a whole safetensors file, got: {error}") from None
    header.pop("__metadata__", None)
    return {
        name: StoredArray(
            path,
            of["dtype"],
            tuple(of["shape"]),
            partial(_slice, path, of["dtype"], of["shape"], 8 + length + of["data_offsets"][0]),
        )
        for name, of in header.items()
    }


def _slice(path: Path, dtype: str, shape: list[int], offset: int) -> np.ndarray:
    array = np.fromfile(path, FLOATS[dtype], count=int(np.prod(shape, dtype=int)), offset=offset).reshape(shape)
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)  # the upper half of a float32
    with np.errstate(over="ignore"):  # infinity, which is refused with its name
        return array.astype(np.float32)


def _in_torch(path: Path) -> dict[str, StoredArray]:
    try:
        import torch
    except ModuleNotFoundError:
        hint = "pip install torch, or convert the file to model.safetensors"
        raise UserError(f"checkpoint {path}: expected torch, which reads this format ({hint}), got none") from None
    try:  # nothing in the file is run
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise UserError(f"checkpoint {path}: expected a readable file, got: {error.strerror or error}") from None
    except Exception as error:  # the library raises whatever unpickling does
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"checkpoint {path}: expected a file of tensors and nothing else, got: {first}") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"checkpoint {path}: expected a file of tensors by name, got something else")
    return {name: _tensor(path, tensor) for name, tensor in tensors.items()}


def _tensor(path: Path, tensor: Any) -> StoredArray:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return StoredArray(path, TORCH.get(dtype, dtype), tuple(tensor.shape), lambda: tensor.float().numpy())


def compare(path: Path, arrays: dict[str, StoredArray], expected: Iterable[tuple[str, tuple[int, ...]]]) -> int:
    """Compare names and shapes with the expected ones, and return how many numbers the arrays hold.

    Raises: UserError at the first that is missing, unknown or of another shape.
    """
    names, numbers = set(), 0
    for name, shape in expected:
        if name not in arrays:
            raise UserError(f"checkpoint {path}: {name}: expected an array of shape {shape}, got none")
        array = arrays[name]
        if array.shape != shape:
            raise UserError(f"checkpoint {array.path}: {name}: expected shape {shape}, got {array.shape}")
        names.add(name)
        numbers += int(np.prod(shape, dtype=int))
    for name in arrays:
        if name not in names:
            raise UserError(f"checkpoint {path}: {name}: expected no such array, got one of shape {arrays[name].shape}")
    return numbers
