"""Bounds checks of indices given by the user."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.engine import as_array, unwrap
from minigrad.namespace import namespace, to_numpy
from minigrad.values import holds


def check_indices(caller: str, name: str, indices: Any, count: int, description: str) -> Any:
    """Return the indices as a raw array of integers from 0 to count − 1.

    Raises TypeError for other numbers, IndexError for an integer out of bounds, where `minigrad.values` reads them: on
    a device the first of each shape, all of them inside `checked_always()`.
    """
    raw = as_array(unwrap(indices), caller)
    xp = namespace(raw)
    if not xp.isdtype(raw.dtype, "integral"):
        raise TypeError(f"{caller}: {name} are {raw.dtype}, expected integers")
    if not holds((caller, name, count), lambda x: (x >= 0) & (x < count), raw):
        position = tuple(np.argwhere(to_numpy((raw < 0) | (raw >= count)))[0].tolist())
        location = f"{name}[{', '.join(map(str, position))}]" if position else name
        raise IndexError(f"{caller}: {location} is {int(raw[position])}, expected {description} from 0 to {count - 1}")
    return raw
