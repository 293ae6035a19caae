"""Placement of a model's arrays: in host memory (NumPy) or on a GPU (CuPy). Computation follows the arrays."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpu import device
from minigrad.pytree import map_arrays
from models.errors import UserError, known_name

Arrays = TypeVar("Arrays")


def move(arrays: Arrays, device: str) -> Arrays:
    """Move the NumPy arrays of a pytree to `device`, "cpu" or "cuda".

    Raises UserError for an unknown device, and for "cuda" without a GPU or CuPy: the message says what is missing and
    how to install it.
    """
    return map_arrays(DEVICES[known_name(device, "device", DEVICES)](), arrays)


def _cuda() -> Callable[[np.ndarray], Any]:
    try:
        return device.ready().asarray
    except device.MissingError as error:
        raise UserError(f"device cuda: {error}") from None


DEVICES: dict[str, Callable[[], Callable[[np.ndarray], Any]]] = {"cpu": lambda: np.asarray, "cuda": _cuda}
