"""Draws of arguments: domains, dtypes, memory layouts, and special numbers such as zeros, NaN and infinities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

DTYPES = {"e": np.float16, "f": np.float32, "d": np.float64, "F": np.complex64, "D": np.complex128}
DTYPES |= {"i": np.int64, "u": np.uint8, "?": np.bool_}
MAGNITUDES = (
    1e-30,
    1e-8,
    1e-3,
    0.1,
    0.4,
    0.5,
    0.9999,
    1,
    1.5,
    2,
    3,
    5,
    8,
    10,
    13,
    20,
    30,
    50,
    88,
    100,
    500,
    700,
    1e4,
    1e10,
    1e30,
)


class Domain(NamedTuple):
    """Domain of an argument: regular points for finite differences, and special points with a finite derivative."""

    draw: Callable[[np.random.Generator, tuple], np.ndarray]
    contains: Callable[[float], bool] = lambda x: True
    matrices: bool = False  # a draw is a stack of square matrices: entries cannot be exchanged one by one


def _square(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    return rng.standard_normal(shape) + 3 * np.eye(shape[-1])


REAL = Domain(lambda rng, shape: 1.5 * rng.standard_normal(shape))
SMALL = Domain(lambda rng, shape: 0.3 * rng.standard_normal(shape))
POSITIVE = Domain(lambda rng, shape: rng.uniform(0.3, 2.5, shape), lambda x: x > 0)
NONNEGATIVE = POSITIVE._replace(contains=lambda x: x >= 0)
NONZERO = Domain(lambda rng, shape: rng.uniform(0.4, 2, shape) * rng.choice([-1, 1], shape), lambda x: x != 0)
UNIT = Domain(lambda rng, shape: rng.uniform(-0.9, 0.9, shape), lambda x: -1 < x < 1)
ABOVE_MINUS_ONE = Domain(lambda rng, shape: rng.uniform(-0.7, 2, shape), lambda x: x > -1)
ABOVE_ONE = Domain(lambda rng, shape: rng.uniform(1.2, 3, shape), lambda x: x > 1)
INVERTIBLE = Domain(_square, matrices=True)


def drawn(domain: Domain, shape: tuple, kind: str, seed: int) -> np.ndarray:
    """Draw regular points; a complex argument has both parts from the domain's own draw, a matrix off its diagonal."""
    rng = np.random.default_rng((seed, *shape))
    x = domain.draw(rng, shape)
    if kind in "FD":
        x = x + 1j * (REAL.draw(rng, shape) if domain.matrices else domain.draw(rng, shape))
    if kind in "iu?":
        x = np.abs(np.round(2 * x)) if kind == "u" else np.round(2 * x)
    return np.asarray(x).astype(DTYPES[kind])


def special(kind: str) -> np.ndarray:
    """Return the numbers of a real dtype at which faults are found, NaN and the infinities last."""
    info = np.finfo(DTYPES[kind])
    with np.errstate(over="ignore", under="ignore"):
        positive = np.array(
            [*MAGNITUDES, 1 - info.epsneg, 1 + info.eps, 0, info.smallest_subnormal, info.tiny, info.max]
        )
        positive = np.unique(positive.astype(DTYPES[kind]))
    positive = positive[np.isfinite(positive)]
    return np.concatenate([positive, -positive, np.array([np.inf, -np.inf, np.nan], positive.dtype)])


def layouts(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the same numbers as a library or a file may hand them over."""
    yield "Fortran order", np.array(x, order="F")
    yield "negative strides", np.flip(np.flip(x).copy())
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]) if x.ndim else (2,), x.dtype)
    strided = wide[..., ::2] if x.ndim else wide[:1].reshape(())
    strided[...] = x
    yield "strides", strided
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype) if x.size else x.copy()
    yield "unaligned and read-only", unaligned.reshape(x.shape)


def numpy_integers(options: Any) -> Any:
    """Return options with NumPy's integers in place of Python's."""
    if isinstance(options, dict):
        return {name: numpy_integers(value) for name, value in options.items()}
    if isinstance(options, (tuple, list)):
        return type(options)(numpy_integers(value) for value in options)
    return np.int64(options) if type(options) is int else options
