"""The simple recurrent network in one pass, and its adjoint.

    zₜ = W hₜ₋₁ + xₜ,  hₜ = tanh zₜ          Elman 1990

backward, with dhₜ the cotangent of hₜ, from the last token to the first:

    dxₜ = dzₜ = dhₜ / cosh² zₜ          dhₜ₋₁ = dyₜ₋₁ + Wᵀ dzₜ          dW = Σₜ dzₜ hₜ₋₁ᵀ

Work    a thread takes some of the sequences through all of time; a step is one product with W, four sequences and two
        vectors of units at a time. dW is one product, of all tokens, after the loop.
Memory  z and h, each of the size of y.
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import flat_count
from minigrad.compiled.simd import kernel, lanes, load, splat, store
from minigrad.compiled.threads import product, share
from models.kernels.recurrent_core import (
    add_product,
    panels,
    recurrent_weights,
    sequence_first,
    tanh_grad,
    time_first,
    without_padding,
)


class Saved(NamedTuple):
    """Residuals of the backward pass, and the shapes of x, W and h."""

    W: np.ndarray  # (N', N')
    z: np.ndarray  # (T, B, N')
    h: np.ndarray  # (T + 1, B, N')
    shapes: tuple[tuple[int, ...], ...]


def forward(x: Any, W: Any, h: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, h), saved) for x (*batch, T, N), W (N, N) and h (*batch, N)."""
    shapes, count, length = (x.shape, W.shape, h.shape), flat_count(x.shape), x.shape[-2]
    z, W = time_first(x, count, length, 1), recurrent_weights(W, 1)
    states = np.empty((length + 1, *z.shape[1:]), z.dtype)
    states[0] = time_first(h, count, 1, 1)[0]
    weights = panels(W.T)
    share(lambda part, first, last: _forward(weights, z, states, first, last), count)
    y = sequence_first(states[1:], shapes[0], 1)
    last = sequence_first(states[-1:], shapes[2], 1).copy()  # a view would keep all states
    return (y, last), Saved(W, z, states, shapes)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of x, W and h from those of y and of the last h."""
    W, z, h, shapes = saved
    length, count, _ = z.shape
    dy, dh = time_first(cotangents[0], count, length, 1), time_first(cotangents[1], count, 1, 1)
    weights = panels(W)
    share(lambda part, first, last: _backward(weights, z, dy, dh[0], first, last), count)  # which writes dz over dy
    dW = product(dy.reshape(-1, len(W)).T, h[:-1].reshape(-1, len(W)))
    return sequence_first(dy, shapes[0], 1), without_padding(dW, shapes[1], 1), sequence_first(dh, shapes[2], 1)


@kernel
def _forward(W, z, h, first, last):
    """Add W hₜ₋₁ to z and write hₜ; W is transposed, in panels."""
    length, count, size = z.shape
    for t in range(length):
        add_product(h[t, first:last], W, z[t, first:last])
        for at in range((t * count + first) * size, (t * count + last) * size, lanes(z)):
            value, _ = tanh_grad(z, load(z, at))
            store(h, count * size + at, value)


@kernel
def _backward(W, z, dy, dh, first, last):
    """Write dz over dy, and the cotangent of the first state over dh; W is in panels."""
    length, count, size = z.shape
    for t in range(length - 1, -1, -1):
        for place in range(first * size, last * size, lanes(z)):
            at = t * count * size + place
            _, slope = tanh_grad(z, load(z, at))
            store(dy, at, (load(dy, at) + load(dh, place)) * slope)
            store(dh, place, splat(z, 0))
        add_product(dy[t, first:last], W, dh[first:last])
