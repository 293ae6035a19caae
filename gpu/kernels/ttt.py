"""Test-time training in mini-batches, and its adjoint, by the kernels of `gpu.kernels.titans_layers`."""

from collections.abc import Callable
from typing import Any

from gpu.kernels import titans_layers
from gpu.launch import check, check_same_shape, zeros


def supports(*inputs: Any, batch_size: int, on_losses: Callable[[Any], None], depth: int = 1) -> bool:
    """Return whether there are kernels for mini-batches of this size."""
    return titans_layers.supports(inputs[0].shape[-2], batch_size, batch_size)


def forward(
    q: Any,
    k: Any,
    v: Any,
    eta: Any,
    tau: Any,
    *layers: Any,
    batch_size: int,
    on_losses: Callable[[Any], None],
    depth: int = 1,
) -> tuple[tuple[Any, ...], titans_layers.Saved]:
    """Return ((y, *layers), saved) for q, k (*batch, T, K), v (*batch, T, V), eta, tau (*batch, T) and the `depth`
    layers of a model, (*batch, I, O) each. γ and β of a norm, (*batch, 1, V), may follow them.

    T is a multiple of `batch_size`, which is at most 32. A layer with one row more than its input has features has a
    bias in the last one. `on_losses` is called with the squared errors (*batch, T). Raises TypeError and ValueError, as
    `gpu.launch.check` does.
    """
    names = *(f"layers[{i}]" for i in range(depth)), "gamma", "beta"
    check("ttt", q=q, k=k, v=v, eta=eta, tau=tau, **dict(zip(names, layers, strict=False)))
    check_same_shape("ttt", eta=eta, tau=tau)
    model, norm = layers[:depth], layers[depth:]
    (y, *models), saved = titans_layers.forward_layers(
        (q, k, v, eta, tau, tau), [model, model], norm, batch_size, batch_size, on_losses
    )
    return (y, *models[depth:]), saved


def backward(saved: titans_layers.Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of the inputs of `forward` from those of its outputs."""
    dy, *dlayers = cotangents
    check("ttt", q=saved.tokens[0], dy=dy, **{f"dlayer{i}": x for i, x in enumerate(dlayers)})
    dfinal = [zeros(x, x.shape) for x in dlayers], dlayers
    dtokens, dmodels, dnorm = titans_layers.backward_layers(saved, dy, dfinal)
    dq, dk, dv, deta, _, dtau = dtokens
    return dq, dk, dv, deta, dtau, *(a + b for a, b in zip(*dmodels, strict=True)), *dnorm
