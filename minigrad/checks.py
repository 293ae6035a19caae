"""Gradient checking: reverse-mode derivatives against finite differences along random directions, to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.conversion import as_array, is_complex, is_differentiable
from minigrad.engine import unwrap
from minigrad.pytree import is_container, leaves_of, map_leaves
from minigrad.transforms import vjp


def _numbers(x: Any) -> list:
    """Return a list of the differentiable leaves as raw arrays."""
    return [unwrap(leaf) for leaf in leaves_of(x) if is_differentiable(leaf)]


def _dot(x: Any, y: Any) -> float:
    """Return Re⟨x, y⟩, summed over all leaves."""
    return float(sum(np.real(np.vdot(a, b)) for a, b in zip(_numbers(x), _numbers(y), strict=True)))


def _random_like(x: Any, rng: np.random.Generator) -> Any:
    def random_leaf(a: Any) -> Any:
        if not is_differentiable(a):
            return a
        real = rng.standard_normal(np.shape(a))
        return real + 1j * rng.standard_normal(real.shape) if is_complex(as_array(a, "check_grads").dtype) else real

    return map_leaves(random_leaf, x)


def _perturbed(x: Any, v: Any, step: float) -> Any:
    queue = iter(_numbers(v))
    return map_leaves(lambda a: a + step * next(queue) if is_differentiable(a) else a, x)


def check_grads(f: Callable, args: Sequence[Any], *, order: int = 2, seed: int = 0, tolerance: float = 1e-6) -> None:
    """Raise AssertionError unless Re⟨g, J v⟩ = Re⟨Jᴴ g, v⟩ for random g and v; the same of gradients, up to `order`.

    J v is a central difference with Richardson extrapolation from steps 1e-4 and 5e-5; `args` are float64 or complex128
    arrays or containers of them, and `f` returns an array or containers. Both sides may differ by `tolerance` times
    the larger of them, or times 1.
    """
    rng = np.random.default_rng(seed)
    args = tuple(a if is_container(a) else as_array(a, "check_grads") for a in args)
    out, pullback = vjp(f, *args)
    g, v = _random_like(out, rng), _random_like(args, rng)

    def slope(h: float) -> float:
        plus, minus = f(*_perturbed(args, v, h)), f(*_perturbed(args, v, -h))
        return (_dot(g, plus) - _dot(g, minus)) / (2 * h)

    h = 1e-4
    numeric = (4 * slope(h / 2) - slope(h)) / 3
    exact = _dot(pullback(g), v)
    scale = max(1.0, abs(numeric), abs(exact))
    if not abs(numeric - exact) <= tolerance * scale:
        raise AssertionError(f"check_grads: Re⟨Jᴴg, v⟩ = {exact:.9g}, expected {numeric:.9g} from differences")
    if order > 1:

        def gradients(*xs: Any) -> Any:
            return vjp(f, *xs)[1](g)

        check_grads(gradients, args, order=order - 1, seed=seed + 1, tolerance=10 * tolerance)
