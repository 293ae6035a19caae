"""The short causal depthwise convolution that many sequence models apply before their mixer."""

from __future__ import annotations

from typing import Any

from minigrad.compiled import with_kernel, worthwhile
from minigrad.namespace import namespace


def causal_conv1d(x: Any, w: Any, *, before: Any = None) -> Any:
    """Return yₜ = Σⱼ wⱼ xₜ₋ⱼ, channel by channel; x (*batch, T, D), w (D, W), y (*batch, T, D).

    w[:, 0] is the weight of the current input. `before` (*batch, W − 1, D) are the inputs before x; zeros if None.
    Raises ValueError when the channels differ, w has no weights, or `before` has another shape.
    """
    if x.shape[-1] != w.shape[0]:
        raise ValueError(f"causal_conv1d: w has {w.shape[0]} channels, expected {x.shape[-1]} as in x")
    if w.shape[1] == 0:
        raise ValueError(f"causal_conv1d: w has shape {tuple(w.shape)}, expected at least one weight a channel")
    xp, shape = namespace(x, w), (*x.shape[:-2], w.shape[1] - 1, x.shape[-1])
    if before is None:
        before = xp.zeros(shape, dtype=x.dtype)
    if tuple(before.shape) != shape:
        raise ValueError(f"causal_conv1d: before has shape {tuple(before.shape)}, expected {shape}")
    return (_compiled if worthwhile(x, w, before) else _shifted)(x, w, before)


def _shifted(x: Any, w: Any, before: Any) -> Any:
    """Sum W shifted and weighted copies of x."""
    xp, steps, width = namespace(x, w, before), x.shape[-2], w.shape[-1]
    x = xp.concat([before, x], axis=-2)
    y = x[..., width - 1 :, :] * w[:, 0]
    for j in range(1, width):
        y = y + x[..., width - 1 - j : width - 1 - j + steps, :] * w[:, j]
    return y


_compiled = with_kernel("minigrad.compiled.causal_conv1d", _shifted)
