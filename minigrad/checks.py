"""Are the gradients right? Rules against differences, along random directions, to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.containers import arrays_of, is_array, map_arrays
from minigrad.engine import as_raw, is_complex, unwrap
from minigrad.transforms import vjp


def _dot(x: Any, y: Any) -> float:
    """Re⟨x, y⟩ over all arrays."""
    pairs = zip(arrays_of(x), arrays_of(y), strict=True)
    return float(sum(np.real(np.vdot(unwrap(a), unwrap(b))) for a, b in pairs))


def _random_like(x: Any, rng: np.random.Generator) -> Any:
    def one(a: Any) -> Any:
        real = rng.standard_normal(a.shape)
        return real + 1j * rng.standard_normal(a.shape) if is_complex(a.dtype) else real

    return map_arrays(one, x)


def _moved(x: Any, v: Any, step: float) -> Any:
    queue = iter(arrays_of(v))
    return map_arrays(lambda a: a + step * next(queue), x)


def check_grads(f: Callable, args: Sequence[Any], *, order: int = 2, seed: int = 0, tolerance: float = 1e-6) -> None:
    """Raise AssertionError unless Re⟨g, J v⟩ = Re⟨Jᴴ g, v⟩ for random g and v, and so for the gradients of gradients.

    J v is a central difference of step 1e-5, with Richardson's extrapolation; `args` are float64 or complex128 arrays
    or containers of them, and `f` returns an array or containers. Both sides may differ by `tolerance` of their scale.
    """
    rng = np.random.default_rng(seed)
    args = tuple(a if not is_array(a) and arrays_of(a) else as_raw(a, "check_grads") for a in args)
    out, pull = vjp(f, *args)
    g, v = _random_like(out, rng), _random_like(args, rng)

    def slope(h: float) -> float:
        ahead, behind = f(*_moved(args, v, h)), f(*_moved(args, v, -h))
        return (_dot(g, ahead) - _dot(g, behind)) / (2 * h)

    h = 1e-4
    numeric = (4 * slope(h / 2) - slope(h)) / 3
    exact = _dot(pull(g), v)
    scale = max(1.0, abs(numeric), abs(exact))
    if not abs(numeric - exact) <= tolerance * scale:
        raise AssertionError(f"check_grads: Re⟨Jᴴg, v⟩ = {exact:.9g}, expected {numeric:.9g} from differences")
    if order > 1:

        def pulled(*xs: Any) -> Any:
            return vjp(f, *xs)[1](g)

        check_grads(pulled, args, order=order - 1, seed=seed + 1, tolerance=10 * tolerance)
