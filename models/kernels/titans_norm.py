"""A norm and a residual around the last layer of a Titans memory, f(x) = x + LN(z), and the adjoint of both its uses.

    ẑ = (z − mean z) / s,  s = √(var z + ε)          LN(z) = γ ∘ ẑ + β
    read    y = q + LN(z)
    learn   e = k + LN(z) − v,  δ = P(γ ∘ e) / s      the slope of ½ ‖e‖²;  P(g) = g − mean g − ẑ mean(g ẑ)

P is its own adjoint. Where δ has the cotangent d, γ ∘ e has h = P(d) / s, ẑ has −(d mean(ẑ g) + g mean(ẑ d)) / s and s
has −Σ d δ / s; from ẑ and s they go on to z. Means are over the V features of a token.
"""

from typing import NamedTuple

import numpy as np

EPSILON = 1e-6

Norm = tuple[np.ndarray, np.ndarray]  # γ and β, (B, 1, V) each


class Residuals(NamedTuple):
    """Residuals of the inner loss for its backward pass: e, ẑ and s."""

    error: np.ndarray  # (B, C, V)
    unit: np.ndarray
    root: np.ndarray  # (B, C, 1)


def read(norm: Norm, q: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return y."""
    return q + norm[0] * _normalized(z)[0] + norm[1]


def read_backward(norm: Norm, z: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the cotangents of z and of the norm from that of y, which is that of q too."""
    unit, root = _normalized(z)
    return _projected(norm[0] * g, unit) / root, [_total(g * unit), _total(g)]


def inner_loss_grad(norm: Norm, k: np.ndarray, v: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, Residuals]:
    """Return δ, and the residuals of its backward pass."""
    unit, root = _normalized(z)
    error = k + norm[0] * unit + norm[1] - v
    return _projected(norm[0] * error, unit) / root, Residuals(error, unit, root)


def inner_loss_backward(
    norm: Norm, saved: Residuals, delta: np.ndarray, d: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return the cotangents of z, of k (v has that with its sign turned) and of the norm from that of δ."""
    error, unit, root = saved
    g, h = norm[0] * error, _projected(d, unit) / root
    to_error = norm[0] * h
    to_unit = norm[0] * to_error - (d * _mean(unit * g) + g * _mean(unit * d)) / root
    to_z = (_projected(to_unit, unit) - unit * _mean(d * delta)) / root
    return to_z, to_error, [_total(error * h + to_error * unit), _total(to_error)]


def _normalized(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centred = z - _mean(z)
    root = np.sqrt(_mean(centred * centred) + EPSILON)
    return centred / root, root


def _projected(g: np.ndarray, unit: np.ndarray) -> np.ndarray:
    return g - _mean(g) - unit * _mean(g * unit)


def _mean(x: np.ndarray) -> np.ndarray:
    return np.sum(x, axis=-1, keepdims=True) / x.shape[-1]


def _total(x: np.ndarray) -> np.ndarray:
    return np.sum(x, axis=-2, keepdims=True)
