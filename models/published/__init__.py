"""Published checkpoints: config.json, weights and, of models of text, tokenizer.json in one folder.

`MODEL_TYPES` has the families that are read, each of which is a module beside this one: what its options mean, the
names and shapes of its arrays in a file, and the model they become. RWKV-7 has no config: it is one .pth file, whose
arrays say all.

What cannot be read raises UserError, with the path.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.nn import Module
from models import room
from models.errors import UserError, known_name
from models.published import clip, gpt2, kimi_linear, llama, mamba, marian, olmo_hybrid, rwkv4, rwkv7, sam, vit
from models.published.architecture import Architecture, EncoderDecoder, TextArchitecture
from models.published.fields import read_json
from models.published.tokenizer import Detokenizer, encode_prompt, end_tokens, load_tokenizer, require_one_vocabulary
from models.published.weights import FLOATS, StoredArray, compare, stored_arrays

__all__ = [
    "Detokenizer",
    "EncoderDecoder",
    "TextArchitecture",
    "encode_prompt",
    "end_tokens",
    "find",
    "load_model",
    "load_tokenizer",
    "read_architecture",
    "require_one_vocabulary",
]

MODEL_TYPES: dict[str, Callable[[Path, Mapping[str, Any]], Architecture]] = {
    "clip": clip.read,
    "gpt2": gpt2.read,
    "kimi_linear": kimi_linear.read,
    "llama": llama.read,
    "mamba": mamba.read,
    "mamba2": mamba.read,
    "falcon_mamba": mamba.read,
    "marian": marian.read,
    "olmo_hybrid": olmo_hybrid.read,
    "rwkv": rwkv4.read,
    "sam": sam.read,
    "vit": vit.read,
}
"""The function that reads a config, by its `model_type`."""


def find(path: Path) -> Path | None:
    """Return the file that describes a published model: config.json or a .pth, in a folder the only one.

    None where there is neither.

    Raises: UserError for a folder with more than one .pth and no config.json.
    """
    if not path.is_dir():
        return path if path.suffix == ".pth" or path.name == "config.json" else None
    if (path / "config.json").exists():
        return path / "config.json"
    files = sorted(path.glob("*.pth"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"checkpoint {path}: expected one .pth in the folder or the path of one, got {names}")
    return files[0] if files else None


def read_architecture(path: Path) -> Architecture:
    """Return the architecture in a config.json, or that of the arrays in a .pth.

    Raises: UserError for a file that cannot be read, another kind of model, an invalid value, or an option that there
    is no code for.
    """
    if path.suffix == ".pth":
        return rwkv7.read(*stored_arrays(path))
    config = read_json(path)
    if "model_type" not in config and "d_model" in config:
        return mamba.read_native(path, config)
    if "model_type" not in config:
        raise UserError(f"{path}: model_type: expected one of {', '.join(MODEL_TYPES)}, got none")
    return MODEL_TYPES[known_name(str(config["model_type"]), f"{path}: model_type", MODEL_TYPES)](path, config)


def load_model(path: str | Path) -> Module:
    """Return the model that a folder or a .pth holds, in float32.

    Raises: UserError when a file is missing or unreadable, the config is of another kind or does not fit the weights,
    or there is no room for them.
    """
    source = find(Path(path)) or Path(path) / "config.json"
    of = read_architecture(source)
    path, in_files = stored_arrays(source if source.suffix == ".pth" else source.parent)
    entries: dict[str, StoredArray] = {}
    for in_file, entry in in_files.items():
        name = of.name(in_file)
        if name is None:
            _check_constant(entry, in_file, of.constant(in_file))
            continue
        if name in entries:
            raise UserError(f"checkpoint {path}: {in_file}: expected one array of that name, got two")
        if entry.dtype not in FLOATS:
            expected = f"expected one of {', '.join(FLOATS)}, got {entry.dtype}"
            raise UserError(f"checkpoint {entry.path}: {in_file}: {expected}")
        entries[name] = entry
    of = _without_copies(path, of, entries).of_file({name: entry.shape for name, entry in entries.items()})
    numbers = compare(path, entries, of.shapes())
    # once as read, and once in the model
    room.require(2 * room.FLOAT * numbers, f"the weights of {path}, twice in float32,", "a smaller model")
    arrays = {name: np.asarray(array, np.float32, order="C") for name, array in of.parameters(_Arrays(path, entries))}
    model = of.build(Unset(np.random.PCG64()))
    model.load_parameters(arrays)
    return model


class _Arrays(Mapping[str, np.ndarray]):
    """Arrays by name, each read from its file when it is taken; raises UserError where one is not finite."""

    def __init__(self, path: Path, entries: Mapping[str, StoredArray]) -> None:
        self.path, self.entries = path, entries

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.entries[name].read()
        if not np.isfinite(array).all():
            other = array[~np.isfinite(array)][0]
            raise UserError(f"checkpoint {self.path}: {name}: expected finite numbers, got {other}")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Unset(np.random.Generator):
    """A generator for arrays that are replaced immediately: it draws one number only, at no cost of time or memory."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Return an array of the lowest number."""
        return np.broadcast_to(np.float64(low), size)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Return an array of zeros."""
        return np.broadcast_to(dtype(0), size)


def _check_constant(entry: StoredArray, in_file: str, expected: np.ndarray | None) -> None:
    """Raise a UserError for an array that is not the one that a model of this kind has, as exactly as two bytes are."""
    if expected is None:
        return
    if entry.dtype not in FLOATS or entry.shape != expected.shape:
        message = f"expected floats of shape {expected.shape}, got {entry.dtype} of shape {entry.shape}"
        raise UserError(f"checkpoint {entry.path}: {in_file}: {message}")
    array = entry.read()
    differs = ~(np.abs(array - expected) <= 2**-8 * max(1.0, float(np.abs(expected).max())))
    if differs.any():
        place = tuple(map(int, np.argwhere(differs)[0]))
        message = f"expected {expected[place]:.6g} at {place}, since it is no parameter, got {array[place]:.6g}"
        raise UserError(f"checkpoint {entry.path}: {in_file}: {message}")


def _without_copies(path: Path, of: Architecture, entries: dict[str, StoredArray]) -> Architecture:
    """Return the architecture with the head that the file has, as transformers decides it; drop what is held twice."""
    copies = dict(of.copies)
    if isinstance(of, TextArchitecture) and of.tied:
        copies[of.head] = of.embedding
    for name, original in copies.items():
        if name not in entries:
            continue
        if original not in entries:
            entries[original] = entries.pop(name)
        elif entries[name].shape == entries[original].shape and np.array_equal(
            entries[name].read(), entries[original].read()
        ):
            del entries[name]
        elif isinstance(of, TextArchitecture) and name == of.head:
            message = "the config ties it to the embedding, the file holds another: the file's is used"
            print(f"checkpoint {path}: {name}: {message}", file=sys.stderr)
            of = replace(of, tied=False)
        else:
            raise UserError(f"checkpoint {path}: {name}: expected the numbers of {original}, got others")
    return of
