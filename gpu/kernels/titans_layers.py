"""Titans with a memory of any number of layers, inside a norm or not, by `titans_layers.cu` and its adjoint."""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu.launch import KERNELS, check, check_same_shape, empty, launch, to_device_of, zeros

THREADS, SIDE = 256, 32  # of a block; tokens of a batch at most
SEGMENT = 8  # batches between two memories that are saved for the backward pass


class Saved(NamedTuple):
    """Residuals of the backward pass."""

    tokens: tuple[Any, ...]  # q, k, v and the gates
    start: Any  # (B, entries): the model at the start of the current batch
    norm: Any  # (B, 2 V), γ and β; (1, 1) without a norm
    layers: Any  # (depth, 4): `Layer` of titans_batch.cuh
    boundary_states: Any  # (B, segments, parts, entries): M and S, or M alone
    sizes: tuple[int, ...]  # the kernels' integer parameters, from T on
    ends_batch: bool  # whether the last token ends its batch: then the start after it is M
    shapes: list[tuple[int, ...]]  # of the layers of a model, and of γ and β


@functools.cache
def field_count() -> int:
    """Return FIELDS, the length of `enum Field` in titans_batch.cuh."""
    source = (KERNELS / "titans_batch.cuh").read_text(encoding="utf-8")
    enumerators = re.sub(r"//.*", "", re.search(r"enum Field \{(.*?)\}", source, re.DOTALL)[1])  # type: ignore[index]
    return [name.strip() for name in enumerators.split(",")].index("FIELDS")


def supports(length: int, batch_size: int, left: int) -> bool:
    """Return whether no batch has more than 32 tokens."""
    return max(min(left, length), min(batch_size, length - left)) <= SIDE


def forward(
    q: Any,
    k: Any,
    v: Any,
    theta: Any,
    log_eta: Any,
    log_decay: Any,
    *layers: Any,
    batch_size: int,
    left: int,
    on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved]:
    """Return ((y, *start, *memory, *surprise), saved) for q, k (*batch, T, K), v (*batch, T, V), gates (*batch, T) and
    the layers of start, memory and surprise, (*batch, I, O) each. γ and β of a norm, (*batch, 1, V), may follow them.

    The current batch has `left` tokens to come, and no batch has more than 32. A layer with one row more than its input
    has features has a bias in the last one. `on_losses` is called with the squared errors (*batch, T). Raises TypeError
    and ValueError, as `gpu.launch.check` does.
    """
    depth = len(layers) // 3
    names = *(f"{model}[{i}]" for model in ("start", "memory", "surprise") for i in range(depth)), "gamma", "beta"
    check(
        "titans",
        q=q,
        k=k,
        v=v,
        theta=theta,
        log_eta=log_eta,
        log_decay=log_decay,
        **dict(zip(names, layers, strict=False)),
    )
    check_same_shape("titans", theta=theta, log_eta=log_eta, log_decay=log_decay)
    models, norm = [layers[i : i + depth] for i in (0, depth, 2 * depth)], layers[3 * depth :]
    return forward_layers((q, k, v, theta, log_eta, log_decay), models, norm, batch_size, left, on_losses)


def backward(saved: Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of the inputs of `forward` from those of its outputs."""
    depth, (dy, *layers) = len(saved.layers), cotangents
    check("titans", q=saved.tokens[0], dy=dy, **{f"dlayer{i}": x for i, x in enumerate(layers)})
    dmodels = [layers[i : i + depth] for i in (0, depth, 2 * depth)]
    dtokens, dmodels, dnorm = backward_layers(saved, dy, dmodels)
    return *dtokens, *(x for model in dmodels for x in model), *dnorm


def forward_layers(
    tokens: tuple[Any, ...],
    models: Sequence[Sequence[Any]],
    norm: Sequence[Any],
    batch_size: int,
    left: int,
    on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved]:
    """Return ((y, *layers of each model), saved) for the layers of start, M and, in Titans, S.

    Without S (test-time training) the three gates are η, an unused one and τ.
    """
    q, _, v, theta, *_ = tokens
    length, shapes = q.shape[-2], [x.shape for x in (*models[0], *norm)]
    start, *parts = map(_flatten_model, models)
    (count, entries), depth = start.shape, len(models[0])
    table = _layer_table(q.shape[-1], shapes[:depth])
    widest = max(SIDE, *(size for shape in shapes[:depth] for size in shape[-2:]))
    batches = 1 + max(0, -(-(length - left) // batch_size))
    boundary_states = empty(q, (count, -(-batches // SEGMENT), len(parts), entries))
    passing = empty(q, (count, 2, len(parts), entries))  # of batches in between: alternating buffers
    for i, part in enumerate(parts):
        boundary_states[:, 0, i] = part
    norm_parameters = _flatten_model(norm) if norm else zeros(q, (1, 1))
    workspace = empty(q, (count, depth, field_count(), SIDE, widest))
    sizes = length, left, batch_size, depth, entries, widest, SEGMENT, len(parts), len(norm)
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
    return (y, *(layer for model in flat for layer in _unflatten_model(model, shapes[:depth]))), saved


def backward_layers(
    saved: Saved, dy: Any, models: Sequence[Sequence[Any]]
) -> tuple[list[Any], list[list[Any]], list[Any]]:
    """Return the cotangents of the tokens, of the initial models, and of the norm."""
    tokens, start, norm, layers, boundary_states, sizes, ends_batch, shapes = saved
    depth, entries, widest, _, parts, normed = sizes[3:]
    dW, *dparts = map(_flatten_model, models)
    if ends_batch:  # the last M is the next start
        dparts[0], dW = dparts[0] + dW, zeros(dW, dW.shape)
    count, dnorm = len(start), zeros(norm, norm.shape)
    dtokens, passing = [empty(x, x.shape) for x in tokens], empty(start, (count, SEGMENT - 1, parts, entries))
    dS = dparts[1] if parts > 1 else empty(dy, (1,))
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
        empty(dy, (count, depth, field_count(), SIDE, widest)),
        *sizes,
    )
    dmodels = [_unflatten_model(flat, shapes[:depth]) for flat in (dW, *dparts)]
    return dtokens, dmodels, _unflatten_model(dnorm, shapes[depth:]) if normed else []


def _layer_table(features: int, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return a `Layer` of titans_batch.cuh for each layer: features, 1 if it has a bias, columns, offset."""
    table, offset = [], 0
    for *_, rows, columns in shapes:
        table.append((features, rows - features, columns, offset))
        features, offset = columns, offset + rows * columns
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
