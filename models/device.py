"""Where a model's arrays are: at the host as NumPy's, or on a GPU as CuPy's. Everything else follows its arrays."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpu import device
from minigrad import namespace
from minigrad.engine import unwrap
from minigrad.pytree import map_arrays
from models.errors import UserError, known_name

Arrays = TypeVar("Arrays")


def move(arrays: Arrays, place: str) -> Arrays:
    """Return the containers with their NumPy arrays on `place`: "cpu" or "cuda".

    Raises: UserError for another place, and where there is no GPU: what is missing and how to come by it.
    """
    return map_arrays(PLACES[known_name(place, "device", PLACES)](), arrays)


def beside(x: Any, array: np.ndarray) -> Any:
    """Return a NumPy array as an array of the library that x is of, be x a Tensor or not, so that the two combine."""
    raw = unwrap(x)
    return array if isinstance(raw, np.ndarray) else namespace(raw).asarray(array)


def _cuda() -> Callable[[np.ndarray], Any]:
    try:
        return device.ready().asarray
    except device.MissingError as error:
        raise UserError(f"device cuda: {error}") from None


PLACES: dict[str, Callable[[], Callable[[np.ndarray], Any]]] = {"cpu": lambda: np.asarray, "cuda": _cuda}
