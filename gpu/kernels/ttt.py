"""Test-time training in mini-batches, and its adjoint, by the kernels of `gpu.kernels.titans_layers`."""

from collections.abc import Callable
from typing import Any

from gpu.inner_model import WeightLayout
from gpu.kernels import titans_layers
from gpu.kernels.titans_layers import Tokens
from gpu.launch import check, check_same_shape, empty, zeros


def supports(*inputs: Any, layout: WeightLayout, batch_size: int, on_losses: Callable[[Any], None]) -> bool:
    """Return whether there are kernels for mini-batches of this size."""
    return titans_layers.supports(inputs[0].shape[-2], batch_size, batch_size)


def forward(
    q: Any,
    k: Any,
    v: Any,
    eta: Any,
    tau: Any,
    *weights: Any,
    layout: WeightLayout,
    batch_size: int,
    on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], titans_layers.Saved]:
    """Return ((y, *layers), saved) for q, k (*batch, T, K), v (*batch, T, V), eta, tau (*batch, T) and the layers of a
    model, (*batch, I, O) each, then γ and β (*batch, 1, V) where the layout has a norm.

    T is a multiple of `batch_size`, which is at most 32. `on_losses` is called with the squared errors (*batch, T).
    Raises TypeError and ValueError, as `gpu.launch.check` does, and ValueError for weights of another layout.
    """
    check("ttt", q=q, k=k, v=v, eta=eta, tau=tau, **{f"weights[{i}]": x for i, x in enumerate(weights)})
    check_same_shape("ttt", eta=eta, tau=tau)
    (model,), norm = layout.split("ttt", weights, q.shape[-1])
    tokens = Tokens(q, k, v, eta, log_eta=empty(q, (1,)), log_decay=empty(q, (1,)), tau=tau)
    (y, *models), saved = titans_layers.forward_layers(
        tokens, [model, model], norm, layout, batch_size, batch_size, on_losses, momentum=False
    )
    return (y, *models[layout.depth :]), saved


def backward(saved: titans_layers.Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of the inputs of `forward` from those of its outputs."""
    dy, *dlayers = cotangents
    check("ttt", q=saved.tokens.q, dy=dy, **{f"dlayer{i}": x for i, x in enumerate(dlayers)})
    dfinal = [zeros(x, x.shape) for x in dlayers], dlayers
    dtokens, dmodels, dnorm = titans_layers.backward_layers(saved, dy, dfinal)
    dmodel = [a + b for a, b in zip(*dmodels, strict=True)]
    return dtokens.q, dtokens.k, dtokens.v, dtokens.theta, dtokens.tau, *dmodel, *dnorm
