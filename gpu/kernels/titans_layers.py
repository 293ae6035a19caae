"""Titans with a memory of any number of layers, inside a norm or not, by `titans_layers.cu` and its adjoint."""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu.inner_model import WeightLayout
from gpu.launch import KERNELS, check, check_same_shape, empty, launch, to_device_of, zeros

THREADS, SIDE = 256, 32  # of a block; tokens of a batch at most
SEGMENT = 8  # batches between two memories that are saved for the backward pass


class Tokens(NamedTuple):
    """Queries, keys and values, and gates (*batch, T): an array of one element for a gate that a mechanism lacks."""

    q: Any
    k: Any
    v: Any
    theta: Any  # the inner learning rate; η in test-time training
    log_eta: Any  # Titans alone
    log_decay: Any  # Titans alone
    tau: Any  # test-time training alone


class Sizes(NamedTuple):
    """Integer parameters of both kernels, in their order."""

    length: int
    left: int
    batch_size: int
    depth: int
    entries: int  # of all layers of a model
    widest: int  # number of columns of a matrix of the workspace
    segment: int
    momentum: int  # 1 in Titans, 0 in test-time training
    normed: int  # 1 inside a norm


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    tokens: Tokens
    start: Any  # (B, entries): the model at the start of the current batch
    norm: Any  # (B, 2 V), γ and β; (1, 1) without a norm
    layers: Any  # (depth, fields): `Layer` of titans_batch.cuh
    boundary_states: Any  # (B, segments, parts, entries): M and S, or M alone
    sizes: Sizes
    ends_batch: bool  # whether the last token ends its batch: then the start after it is M
    shapes: list[tuple[int, ...]]  # of the layers of a model


@functools.cache
def field_count() -> int:
    """Return FIELDS, the length of `enum Field` in titans_batch.cuh."""
    return [name.strip() for name in _declaration("enum Field").split(",")].index("FIELDS")


@functools.cache
def layer_fields() -> list[str]:
    """Return the names of the integers of `struct Layer` in titans_batch.cuh, in their order."""
    return re.findall(r"\w+", _declaration("struct Layer").replace("int ", ""))


def _declaration(of: str) -> str:
    """Return what is between the braces of a declaration in titans_batch.cuh, without comments."""
    source = re.sub(r"//.*", "", (KERNELS / "titans_batch.cuh").read_text(encoding="utf-8"))
    return re.search(rf"{of} \{{(.*?)\}}", source, re.DOTALL)[1]  # type: ignore[index]


def supports(length: int, batch_size: int, left: int) -> bool:
    """Return whether no batch has more than 32 tokens."""
    return max(min(left, length), min(batch_size, length - left)) <= SIDE


def forward(
    tokens: tuple[Any, ...],
    weights: Sequence[Any],
    layout: WeightLayout,
    batch_size: int,
    left: int,
    on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved]:
    """Return ((y, *start, *memory, *surprise), saved) for the arguments of `gpu.kernels.titans.forward`.

    `tokens` are q, k (*batch, T, K), v (*batch, T, V), theta, log_eta and log_decay (*batch, T); `weights` the layers
    of start, memory and surprise, (*batch, I, O) each, then γ and β (*batch, 1, V) where the layout has a norm.

    The current batch has `left` tokens to come, and no batch has more than 32. `on_losses` is called with the squared
    errors (*batch, T). Raises TypeError and ValueError, as `gpu.launch.check` does, and ValueError for weights of
    another layout.
    """
    q, k, v, theta, log_eta, log_decay = tokens
    arrays = {f"weights[{i}]": x for i, x in enumerate(weights)}
    check("titans", q=q, k=k, v=v, theta=theta, log_eta=log_eta, log_decay=log_decay, **arrays)
    check_same_shape("titans", theta=theta, log_eta=log_eta, log_decay=log_decay)
    models, norm = layout.split("titans", weights, q.shape[-1], models=3)
    inputs = Tokens(q, k, v, theta, log_eta, log_decay, tau=empty(q, (1,)))
    return forward_layers(inputs, models, norm, layout, batch_size, left, on_losses, momentum=True)


def backward(saved: Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of the inputs of `forward` from those of its outputs."""
    depth, (dy, *layers) = saved.sizes.depth, cotangents
    check("titans", q=saved.tokens.q, dy=dy, **{f"dlayer{i}": x for i, x in enumerate(layers)})
    dmodels = [layers[i : i + depth] for i in (0, depth, 2 * depth)]
    dtokens, dmodels, dnorm = backward_layers(saved, dy, dmodels)
    dq, dk, dv, dtheta, dlog_eta, dlog_decay, _ = dtokens
    return dq, dk, dv, dtheta, dlog_eta, dlog_decay, *(x for model in dmodels for x in model), *dnorm


def forward_layers(
    tokens: Tokens,
    models: Sequence[Sequence[Any]],
    norm: Sequence[Any],
    layout: WeightLayout,
    batch_size: int,
    left: int,
    on_losses: Callable[[Any], None],
    *,
    momentum: bool,
) -> tuple[tuple[Any, ...], Saved]:
    """Return ((y, *layers of each model), saved) for the layers of start, M and, with momentum, S."""
    q, v, theta = tokens.q, tokens.v, tokens.theta
    length, shapes = q.shape[-2], [x.shape for x in models[0]]
    start, *parts = map(_flatten_model, models)
    count, entries = start.shape
    table = _layer_table(q.shape[-1], layout.bias, shapes)
    widest = max(SIDE, *(size for shape in shapes for size in shape[-2:]))
    batches = 1 + max(0, -(-(length - left) // batch_size))
    boundary_states = empty(q, (count, -(-batches // SEGMENT), len(parts), entries))
    passing = empty(q, (count, 2, len(parts), entries))  # of batches in between: alternating buffers
    for i, part in enumerate(parts):
        boundary_states[:, 0, i] = part
    norm_parameters = _flatten_model(norm) if layout.norm else zeros(q, (1, 1))
    workspace = empty(q, (count, layout.depth, field_count(), SIDE, widest))
    sizes = Sizes(length, left, batch_size, layout.depth, entries, widest, SEGMENT, int(momentum), int(layout.norm))
    y, losses, layers = empty(v, v.shape), empty(q, theta.shape), to_device_of(q, table)
    launch(
        "titans_layers",
        "titans_layers",
        q,
        (count,),
        THREADS,
        *tokens,
        start,
        norm_parameters,
        layers,
        boundary_states,
        passing,
        y,
        losses,
        workspace,
        *sizes,
    )
    on_losses(losses)
    last, ends_batch = batches - 1, length >= left and (length - left) % batch_size == 0
    final_states, W = passing[:, batches % 2], start
    if ends_batch:
        W = final_states[:, 0]
    elif last:  # M before the last batch
        W = passing[:, last % 2, 0] if last % SEGMENT else boundary_states[:, last // SEGMENT, 0]
    flat = W, *(final_states[:, i] for i in range(len(parts)))
    saved = Saved(tokens, start, norm_parameters, layers, boundary_states, sizes, ends_batch, shapes)
    return (y, *(layer for model in flat for layer in _unflatten_model(model, shapes))), saved


def backward_layers(
    saved: Saved, dy: Any, models: Sequence[Sequence[Any]]
) -> tuple[Tokens, list[list[Any]], list[Any]]:
    """Return the cotangents of the tokens, of the initial models, and of the norm."""
    tokens, start, norm, layers, boundary_states, sizes, ends_batch, shapes = saved
    parts = 2 if sizes.momentum else 1
    dW, *dparts = map(_flatten_model, models)
    if ends_batch:  # the last M is the next start
        dparts[0], dW = dparts[0] + dW, zeros(dW, dW.shape)
    count, dnorm = len(start), zeros(norm, norm.shape)
    dtokens = Tokens(*(empty(x, x.shape) for x in tokens))
    passing = empty(start, (count, SEGMENT - 1, parts, sizes.entries))
    dS = dparts[1] if sizes.momentum else empty(dy, (1,))
    launch(
        "titans_layers_backward",
        "titans_layers_backward",
        dy,
        (count,),
        THREADS,
        *tokens,
        start,
        norm,
        layers,
        boundary_states,
        passing,
        dy,
        dW,
        dparts[0],
        dS,
        *dtokens,
        dnorm,
        empty(dy, (count, sizes.depth, field_count(), SIDE, sizes.widest)),
        *sizes,
    )
    dmodels = [_unflatten_model(flat, shapes) for flat in (dW, *dparts)]
    values = tokens.v.shape[-1]
    norm_shape = *tokens.v.shape[:-2], 1, values
    return dtokens, dmodels, _unflatten_model(dnorm, [norm_shape, norm_shape]) if sizes.normed else []


def _layer_table(features: int, biases: Sequence[bool], shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return a `Layer` of titans_batch.cuh for each layer, as a row of integers: (depth, fields)."""
    table, before = [], 0
    for bias, (*_, rows, columns) in zip(biases, shapes, strict=True):
        layer = {"features": features, "bias": int(bias), "columns": columns, "before": before}
        table.append([layer[name] for name in layer_fields()])
        features, before = columns, before + rows * columns
    return np.array(table, np.int32)


def _flatten_model(layers: Sequence[Any]) -> Any:
    """Return all layers of a model concatenated, (B, entries)."""
    sizes = [math.prod(x.shape[-2:]) for x in layers]
    flat, offset = empty(layers[0], (layers[0].size // sizes[0], sum(sizes))), 0
    for x, size in zip(layers, sizes, strict=True):
        flat[:, offset : offset + size] = x.reshape(-1, size)
        offset += size
    return flat


def _unflatten_model(flat: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Return the layers of a model that `_flatten_model` has concatenated."""
    layers, offset = [], 0
    for shape in shapes:
        size = math.prod(shape[-2:])
        layers.append(flat[:, offset : offset + size].reshape(shape))
        offset += size
    return layers
