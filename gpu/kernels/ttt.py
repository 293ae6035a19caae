"""Test-time training in mini-batches, and its adjoint, by the kernels of `gpu.kernels.titans_layers`."""

from collections.abc import Callable
from typing import Any

from gpu.kernels import titans_layers
from gpu.launch import check, check_same_shape, zeros


def takes(*inputs: Any, batch_size: int, on_losses: Callable[[Any], None], depth: int = 1) -> bool:
    """Whether there are kernels for such mini-batches."""
    return titans_layers.takes(inputs[0].shape[-2], batch_size, batch_size)


def forward(
    q: Any, k: Any, v: Any, eta: Any, tau: Any, *layers: Any, batch_size: int, on_losses: Callable[[Any], None],
    depth: int = 1,
) -> tuple[tuple[Any, ...], titans_layers.Saved]:  # fmt: skip
    """Return ((y, *layers), saved) for q, k (*batch, T, K), v (*batch, T, V), eta, tau (*batch, T) and the layers of a
    model, (*batch, I, O) each, as many as it is deep. γ and β of a norm, (*batch, 1, V), may follow them.

    T is a multiple of `batch_size`, which is at most 32. A row more than a layer's input has features is a bias.
    `on_losses` is shown the squared errors (*batch, T). Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    names = *(f"layers[{i}]" for i in range(depth)), "gamma", "beta"
    check("ttt", q=q, k=k, v=v, eta=eta, tau=tau, **dict(zip(names, layers, strict=False)))
    check_same_shape("ttt", eta=eta, tau=tau)
    model, norm = layers[:depth], layers[depth:]
    made, saved = titans_layers.walk((q, k, v, eta, tau, tau), [model, model], norm, batch_size, batch_size, on_losses)
    return (made[0], *made[1 + depth :]), saved


def backward(saved: titans_layers.Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of everything that went into `forward` from those of what came out."""
    dy, *after = cotangents
    check("ttt", q=saved.tokens[0], dy=dy, **{f"dlayer{i}": x for i, x in enumerate(after)})
    of_tokens, of_models, of_norm = titans_layers.walk_back(saved, dy, [[zeros(g, g.shape) for g in after], after])
    dq, dk, dv, deta, _, dtau = of_tokens
    return dq, dk, dv, deta, dtau, *(a + b for a, b in zip(*of_models, strict=True)), *of_norm
