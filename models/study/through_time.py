"""Gradients of recurrent networks through T steps, beside their bound.

    ∂h_T/∂h₀ = Π diag(tanh′ₜ) W                   over t = T … 1    Pascanu et al. 2013, eq. 5
    ‖∂h_T/∂h₀‖ ≤ Π ‖W‖ ‖diag tanh′ₜ‖              eq. 6 and 7, where tanh′ is measured, not replaced by γ = 1
    Π fₜ, the gradient ∂c_T/∂c₀ along the cell    of an LSTM        Gers et al. 2000, section 3

Norms are spectral, as in the paper. The linear network has no tanh. W is a random rotation, scaled, whose norm is its
spectral radius too, or a Gaussian matrix of a given radius, whose norm is larger. An LSTM has PyTorch's initial weights
and a bias on its forget gates; its whole gradient also runs through h and the gates.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minigrad as mg
from models.recurrent import lstm, rnn
from models.ssm import lti


def gradients(
    width: int, lengths: list[int], norms: list[float], radius: float, biases: list[float], inputs: float, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield a row a network and weights: {"network", "weights", "norm", "radius", "T", "measured", "bound"}.

    `inputs` is the standard deviation of the inputs; of an LSTM "bound" is the greatest Π fₜ of a unit, which is no
    bound of the whole.
    """
    rng = np.random.default_rng(seed)
    rotation, gaussian = np.linalg.qr(rng.standard_normal((width, width)))[0], rng.standard_normal((width, width))
    x = inputs * rng.standard_normal((max(lengths), width))
    scaled = {f"rotation × {norm:g}": norm * rotation for norm in norms}
    scaled[f"Gaussian, radius {radius:g}"] = gaussian * (radius / spectral_radius(gaussian))
    for network in (linear, tanh):
        for weights, W in scaled.items():
            measured, bound = network(x, W, lengths)
            about = {"weights": weights, "norm": norm(W), "radius": spectral_radius(W)}
            yield {"network": network.__name__, **about, "T": lengths, "measured": measured, "bound": bound}
    limit = width**-0.5
    W, U = rng.uniform(-limit, limit, size=(2, 4 * width, width))
    for bias in biases:
        b = np.repeat([0.0, bias, 0.0, 0.0], width)
        measured, kept = through_the_cell(x, W, U, b, lengths)
        about = {"weights": f"forget bias {bias:g}", "norm": norm(U), "radius": None}
        yield {"network": "LSTM", **about, "T": lengths, "measured": measured, "bound": kept}


def linear(u: np.ndarray, W: np.ndarray, lengths: list[int]) -> tuple[list[float], list[float]]:
    """Return the measured norms and the bounds ‖W‖ᵀ of hₜ = W hₜ₋₁ + uₜ, whose gradient no input changes."""
    ones = np.ones(len(W))

    def last_state(length: int, h: Any) -> Any:
        u_of_each = np.broadcast_to(u[:length, :1], (len(W), length, 1))
        return lti.recurrent(u_of_each, W, ones, ones, state=h[:, None, :])[1][:, 0, :]

    return [jacobian_norm(last_state, T, ones * 0) for T in lengths], [norm(W) ** T for T in lengths]


def tanh(x: np.ndarray, W: np.ndarray, lengths: list[int]) -> tuple[list[float], list[float]]:
    """Return the measured norms of the simple recurrent network and their bounds Π ‖W‖ ‖diag tanh′ₜ‖."""
    h = np.zeros(len(W))
    y, _ = rnn.recurrent(x, W, state=h)
    bounds = np.cumprod(norm(W) * np.max(1 - y**2, axis=-1))

    def last_state(length: int, h: Any) -> Any:
        return rnn.recurrent(np.broadcast_to(x[:length], (len(W), length, len(W))), W, state=h)[1]

    return [jacobian_norm(last_state, T, h) for T in lengths], [float(bounds[T - 1]) for T in lengths]


def through_the_cell(
    x: np.ndarray, W: np.ndarray, U: np.ndarray, b: np.ndarray, lengths: list[int]
) -> tuple[list[float], list[float]]:
    """Return the measured ‖∂c_T/∂c₀‖ of an LSTM, and the greatest Π fₜ of a unit: the part along the cell."""
    zeros = np.zeros(U.shape[1])
    h, _ = lstm.recurrent(x, W, U, b, state=(zeros, zeros))
    before = np.concatenate([zeros[None], h[:-1]])
    f = mg.sigmoid(x @ W.T + before @ U.T + b)[:, len(zeros) : 2 * len(zeros)]
    kept = np.max(np.cumprod(f, axis=0), axis=-1)

    def last_cell(length: int, c: Any) -> Any:
        x_of_each = np.broadcast_to(x[:length], (len(zeros), length, x.shape[1]))
        return lstm.recurrent(x_of_each, W, U, b, state=(0 * c, c))[1][1]

    return [jacobian_norm(last_cell, T, zeros) for T in lengths], [float(kept[T - 1]) for T in lengths]


def jacobian_norm(last_state: Callable[[int, Any], Any], length: int, start: np.ndarray) -> float:
    """Return ‖∂s_T/∂s₀‖: a batch of copies of the start, of which each gives the gradient of one component."""
    components = np.eye(len(start))
    rows = mg.grad(lambda s: mg.sum(components * last_state(length, s)))(np.tile(start, (len(start), 1)))
    return norm(rows)


def norm(W: np.ndarray) -> float:
    """Return the spectral norm."""
    return float(np.linalg.norm(W, 2))


def spectral_radius(W: np.ndarray) -> float:
    """Return the largest absolute value of an eigenvalue."""
    return float(np.max(np.abs(np.linalg.eigvals(W))))
