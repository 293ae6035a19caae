"""Checkpoints: arrays in safetensors and a description in JSON, in one file that is written atomically.

No pickle: loading a file runs no code. What is loaded is compared with what is expected before anything is used.
"""

import json
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minigrad.namespace import to_numpy
from minigrad.nn import Module
from minigrad.optim import AdamW
from models.errors import UserError

FORMAT = "minigrad-1"
MOMENTS = "optimizer."  # prefix of the optimiser's arrays in a checkpoint; weights have none


def save_checkpoint(path: str | Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays and `about` (anything JSON can say) atomically: readers see the old file or the new one.

    Raises: UserError when the folder cannot be written.
    """
    # safetensors writes wrong bytes, silently, for arrays that are not C-contiguous
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # one entry, because safetensors writes several in an order that differs from one process to the next
    write_atomically(path, save(contiguous, metadata={FORMAT: json.dumps(about)}))


def load_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (arrays, about) as `save_checkpoint` wrote them.

    Raises: UserError when the file cannot be read, is truncated or foreign, or holds a number that is not finite.
    """
    try:
        size = os.stat(path).st_size
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise UserError(f"checkpoint {path}: expected a readable file, got: {error.strerror or error}") from None
    except (SafetensorError, TypeError, KeyError) as error:  # TypeError, KeyError: an element type NumPy has not
        raise UserError(f"checkpoint {path}: expected a whole safetensors file, got {size} bytes: {error}") from None
    if FORMAT not in metadata:
        raise UserError(f"checkpoint {path}: expected metadata {FORMAT}, got {', '.join(sorted(metadata)) or 'none'}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            not_finite = array[~np.isfinite(array)]
            raise UserError(
                f"checkpoint {path}: {name}: expected finite numbers, got {not_finite[0]} ({not_finite.size} such)"
            )
    try:
        about = json.loads(metadata[FORMAT])
    except (ValueError, RecursionError) as error:
        raise UserError(f"checkpoint {path}: metadata {FORMAT}: expected JSON, got: {error}") from None
    if not isinstance(about, dict):
        raise UserError(f"checkpoint {path}: metadata {FORMAT}: expected a JSON object, got {type(about).__name__}")
    return arrays, about


def match(path: str | Path, arrays: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Raise a UserError at the first array that is missing, unknown, or of another shape or element type."""
    for name, reference in expected.items():
        if name not in arrays:
            raise UserError(f"checkpoint {path}: {name}: expected an array of shape {reference.shape}, got none")
        array = arrays[name]
        if array.shape != reference.shape or array.dtype != reference.dtype:
            expected_type, actual_type = f"{reference.dtype} {reference.shape}", f"{array.dtype} {array.shape}"
            raise UserError(f"checkpoint {path}: {name}: expected {expected_type}, got {actual_type}")
    for name in arrays:
        if name not in expected:
            raise UserError(f"checkpoint {path}: {name}: expected no such array, got one of shape {arrays[name].shape}")


def training_arrays(model: Module, optimizer: AdamW) -> dict[str, np.ndarray]:
    """Return the arrays of a model and of its optimiser, which `load_weights` and `load_moments` restore."""
    moments = {MOMENTS + name: array for name, array in optimizer.state_dict().items()}
    return {name: to_numpy(array) for name, array in {**model.named_parameters(), **moments}.items()}


def load_weights(model: Module, path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a model the weights among the arrays of a checkpoint. Raises UserError where they do not fit."""
    weights = {name: array for name, array in arrays.items() if not name.startswith(MOMENTS)}
    match(path, weights, model.named_parameters())
    model.load_parameters(weights)


def load_moments(
    optimizer: AdamW, model: Module, path: str | Path, arrays: Mapping[str, np.ndarray], *, fixed: Collection[str] = ()
) -> None:
    """Give the optimiser of a model, of which parameters are `fixed`, its state among the arrays of a checkpoint.

    Raises: UserError where it does not fit.
    """
    moments = {name: array for name, array in arrays.items() if name.startswith(MOMENTS)}
    expected = {f"{MOMENTS}step": np.array(0)}
    if len(moments) > 1:  # before the first step there are none
        weights = {name: array for name, array in model.named_parameters().items() if name not in fixed}
        expected |= {f"{MOMENTS}{slot}.{name}": weights[name] for slot in optimizer.slots for name in weights}
    match(path, moments, expected)
    optimizer.load_state_dict({name.removeprefix(MOMENTS): array for name, array in moments.items()})


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a file atomically: a temporary file in the same folder, flushed to disk, then renamed over it.

    Raises: UserError when the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # temporary files are private; the result is an ordinary file
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"{path}: expected a place to write, got: {error.strerror}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
