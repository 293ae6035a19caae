"""Bounds checks of indices given by the user."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.engine import as_array, unwrap
from minigrad.namespace import namespace, to_numpy


def check_indices(who: str, name: str, indices: Any, count: int, what: str) -> Any:
    """Return the indices as a raw array of integers from 0 to count − 1.

    Raises TypeError for other numbers, IndexError for an integer out of bounds; values traced by JAX are not checked.
    """
    raw = as_array(unwrap(indices), who)
    xp = namespace(raw)
    if not xp.isdtype(raw.dtype, "integral"):
        raise TypeError(f"{who}: {name} are {raw.dtype}, expected integers")
    outside = (raw < 0) | (raw >= count)
    try:
        any_outside = bool(xp.any(outside))
    except TypeError:
        return raw
    if any_outside:
        place = tuple(np.argwhere(to_numpy(outside))[0].tolist())
        where = f"{name}[{', '.join(map(str, place))}]" if place else name
        raise IndexError(f"{who}: {where} is {int(raw[place])}, expected {what} from 0 to {count - 1}")
    return raw
