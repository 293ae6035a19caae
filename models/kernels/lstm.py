"""The LSTM after its input projection in one pass, and its adjoint.

    zₜ = aₜ + U hₜ₋₁,  i, f, o = σ(zⁱ, zᶠ, zᵒ),  g = tanh zᵍ          cₜ = f cₜ₋₁ + i g          hₜ = o tanh cₜ

backward, with dhₜ and dcₜ the cotangents of hₜ and cₜ, from the last token to the first:

    dcₜ ← dcₜ + dhₜ o / cosh² cₜ
    dzⁱ = dcₜ g i (1 − i)          dzᶠ = dcₜ cₜ₋₁ f (1 − f)
    dzᵍ = dcₜ i / cosh² zᵍ         dzᵒ = dhₜ tanh cₜ o (1 − o)
    dcₜ₋₁ = dcₜ f                  dhₜ₋₁ = dyₜ₋₁ + Uᵀ dzₜ          daₜ = dzₜ          dU = Σₜ dzₜ hₜ₋₁ᵀ

Work    a thread takes some of the sequences through all of time; a step is one product with U, four sequences and two
        vectors of units at a time. dU is one product, of all tokens, after the loop.
Memory  z, c and h, six times the size of y. Pre-activations are saved rather than gates: 1 − i would lose the digits of
        a gate that is nearly 1.
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import flat_count
from minigrad.compiled.simd import fma, kernel, lanes, load, splat, store
from minigrad.compiled.threads import product, share
from models.kernels.recurrent_core import (
    add_product,
    panels,
    recurrent_weights,
    sequence_first,
    sigmoid_grad,
    tanh_grad,
    time_first,
    without_padding,
)

GATES = 4


class Saved(NamedTuple):
    """Residuals of the backward pass, and the shapes of a, U and h."""

    U: np.ndarray  # (4 H', H')
    z: np.ndarray  # (T, B, 4 H')
    h: np.ndarray  # (T + 1, B, H')
    c: np.ndarray
    shapes: tuple[tuple[int, ...], ...]


def forward(a: Any, U: Any, h: Any, c: Any) -> tuple[tuple[Any, Any, Any], Saved]:
    """Return ((y, h, c), saved) for a (*batch, T, 4H), U (4H, H), and h and c (*batch, 1, H)."""
    shapes, count, length = (a.shape, U.shape, h.shape), flat_count(a.shape), a.shape[-2]
    z, U = time_first(a, count, length, GATES), recurrent_weights(U, GATES)
    hs, cs = (np.empty((length + 1, count, U.shape[1]), z.dtype) for _ in range(2))
    hs[0], cs[0] = (time_first(x, count, 1, 1)[0] for x in (h, c))
    weights = panels(U.T)
    share(lambda part, first, last: _forward(weights, z, hs, cs, first, last), count)
    y = sequence_first(hs[1:], (*shapes[0][:-1], shapes[1][1]), 1)
    last_h, last_c = (sequence_first(x[-1:], shapes[2], 1).copy() for x in (hs, cs))  # a view would keep all states
    return (y, last_h, last_c), Saved(U, z, hs, cs, shapes)


def backward(saved: Saved, cotangents: tuple[Any, Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of a, U, h and c from those of y and of the last h and c."""
    U, z, h, c, shapes = saved
    length, count, columns = z.shape
    dy = time_first(cotangents[0], count, length, 1)
    dh, dc = (time_first(x, count, 1, 1) for x in cotangents[1:])
    dz = np.empty_like(z)
    weights = panels(U)
    share(lambda part, first, last: _backward(weights, z, c, dy, dh[0], dc[0], dz, first, last), count)
    dU = product(dz.reshape(-1, columns).T, h[:-1].reshape(-1, U.shape[1]))
    return (
        sequence_first(dz, shapes[0], GATES),
        without_padding(dU, shapes[1], GATES),
        sequence_first(dh, shapes[2], 1),
        sequence_first(dc, shapes[2], 1),
    )


@kernel
def _forward(U, z, h, c, first, last):
    """Add U hₜ₋₁ to z and write hₜ and cₜ; U is transposed, in panels."""
    length, count, size = z.shape[0], z.shape[1], h.shape[2]
    for t in range(length):
        add_product(h[t, first:last], U, z[t, first:last])
        for row in range(t * count + first, t * count + last):
            for n in range(0, size, lanes(z)):
                gate, before, after = row * GATES * size + n, row * size + n, (row + count) * size + n
                i, _ = sigmoid_grad(z, load(z, gate))
                f, _ = sigmoid_grad(z, load(z, gate + size))
                g, _ = tanh_grad(z, load(z, gate + 2 * size))
                o, _ = sigmoid_grad(z, load(z, gate + 3 * size))
                cell = fma(f, load(c, before), i * g)
                squashed, _ = tanh_grad(z, cell)
                store(c, after, cell)
                store(h, after, o * squashed)


@kernel
def _backward(U, z, c, dy, dh, dc, dz, first, last):
    """Write dz, and the cotangents of the first state over dh and dc; U is in panels."""
    length, count, size = dy.shape
    for t in range(length - 1, -1, -1):
        for b in range(first, last):
            for n in range(0, size, lanes(z)):
                row, place = t * count + b, b * size + n
                gate, before, after = row * GATES * size + n, row * size + n, (row + count) * size + n
                i, i_slope = sigmoid_grad(z, load(z, gate))
                f, f_slope = sigmoid_grad(z, load(z, gate + size))
                g, g_slope = tanh_grad(z, load(z, gate + 2 * size))
                o, o_slope = sigmoid_grad(z, load(z, gate + 3 * size))
                squashed, slope = tanh_grad(z, load(c, after))
                d_output = load(dy, before) + load(dh, place)
                d_cell = fma(d_output * o, slope, load(dc, place))
                store(dz, gate, d_cell * g * i_slope)
                store(dz, gate + size, d_cell * load(c, before) * f_slope)
                store(dz, gate + 2 * size, d_cell * i * g_slope)
                store(dz, gate + 3 * size, d_output * squashed * o_slope)
                store(dc, place, d_cell * f)
                store(dh, place, splat(z, 0))
        add_product(dz[t, first:last], U, dh[first:last])
