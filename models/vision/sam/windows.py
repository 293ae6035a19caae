"""Attention among patches of a map: in windows, and with decomposed relative positions.

    windows     a map is cut into w × w patches, which attend to each other          Li et al. 2022 (ViTDet), section 3
    positions   A = softmax(Q Kᵀ/√d + E)                                             Li et al. 2022 (MViTv2), eq. 3–4
                E[(i, j), (k, l)] = q[i, j] · (R_h[i − k] + R_w[j − l])

    x      a map (*batch, H, W, C)
    q      queries before they are scaled; d channels a head
    R_h    a vector (d,) for each difference of rows, (2H − 1, d), of i − k = −(H − 1) first; R_w that for columns

A map that windows do not divide is padded with zeros below and to the right, after the layer norm. Those are
attended to: their keys and values are the biases. The published models were trained so.

E is a dot product itself, of queries and keys with H + W further channels:

    q′ = [q/√d ‖ q R_h[i − ·]ᵀ ‖ q R_w[j − ·]ᵀ],   k′ = [k ‖ e_k ‖ e_l],   q′ · k′ = q · k/√d + E

so any form of softmax attention adds these positions, among them the compiled one, and no HW × HW table is made.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from models.forms import Array

Maps = Float[Array, "*batch H W C"]


def split(x: Maps, size: int) -> Float[Array, "*batch rows columns size size C"]:
    """Return windows of size × size patches, of x padded with zeros below and to the right to a multiple of it."""
    xp, (*batch, H, W, C) = namespace(x), x.shape
    below, right = -H % size, -W % size
    if below or right:
        x = mg.pad(x, ((0, 0),) * len(batch) + ((0, below), (0, right), (0, 0)))
    x = xp.reshape(x, (*batch, (H + below) // size, size, (W + right) // size, size, C))
    return xp.moveaxis(x, -3, -4)


def join(windows: Float[Array, "*batch rows columns size size C"], height: int, width: int) -> Maps:
    """Return the map (*batch, height, width, C) of windows, without its padding: the inverse of `split`."""
    xp, (*batch, rows, columns, size, _, C) = namespace(windows), windows.shape
    x = xp.reshape(xp.moveaxis(windows, -4, -3), (*batch, rows * size, columns * size, C))
    return x[..., :height, :width, :]


def by_difference(table: Float[Array, "2S-1 d"]) -> Float[Array, "S S d"]:
    """Return R[i − k] at (i, k), from R (2S − 1, d) with R[−(S − 1)] first."""
    xp, size = namespace(table), (table.shape[0] + 1) // 2
    places = np.arange(size)
    difference = places[:, None] - places[None, :] + size - 1
    rows = xp.take(table, to_library_of(table, difference.reshape(-1)), axis=0)
    return xp.reshape(rows, (size, size, table.shape[1]))


def with_positions(
    q: Float[Array, "*batch HW d"],
    k: Float[Array, "*batch HW d"],
    rows: Float[Array, "2H-1 d"],
    columns: Float[Array, "2W-1 d"],
    *,
    scale: float,
) -> tuple[Any, Any]:
    """Return q′ and k′, (*batch, H·W, d + H + W), whose dot products are scale · q · k + E, scale being 1/√d.

    R_h is `rows`, R_w is `columns`.
    """
    xp, (*batch, _, d) = namespace(q, k), q.shape
    R_h, R_w = by_difference(rows), by_difference(columns)  # (H, H, d), (W, W, d)
    H, W = R_h.shape[0], R_w.shape[0]
    grid = xp.reshape(q, (*batch, H, W, d))
    E_h = grid @ R_h.mT  # (*batch, H, W, H): a matrix for each row i
    E_w = xp.moveaxis(xp.moveaxis(grid, -3, -2) @ R_w.mT, -3, -2)  # (*batch, H, W, W), likewise for columns
    biased = [xp.reshape(E, (*batch, H * W, E.shape[-1])) for E in (E_h, E_w)]
    units = np.concatenate([np.repeat(np.eye(H, dtype=int), W, axis=0), np.tile(np.eye(W, dtype=int), (H, 1))], axis=-1)
    units = xp.astype(to_library_of(k, units), k.dtype)
    units = xp.broadcast_to(units, (*batch, H * W, H + W))
    return xp.concat([q * scale, *biased], axis=-1), xp.concat([k, units], axis=-1)
