"""Titans with a memory of any number of layers, in a norm or in none, by `titans_layers.cu` and its adjoint."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu.launch import check, check_same_shape, empty, launch, to_device_of, zeros

THREADS, SIDE = 256, 32  # of a block; tokens of a batch at most
SEGMENT = 8  # batches between two memories that are kept
FIELDS = 26  # of `Field` in titans_batch.cuh


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, and the memory every 8 batches."""

    tokens: tuple[Any, ...]  # q, k, v and the gates
    start: Any  # (B, entries)
    norm: Any  # (B, 2 V), or one 0 without a norm
    layers: Any  # (depth, 4), as titans_batch.cuh has them
    kept: Any  # (B, segments, parts, entries): M and S, or M
    sizes: tuple[int, ...]  # what the kernels ask, from T on
    over: bool  # the last token ends its batch: the start after it is M
    shapes: list[tuple[int, ...]]  # of the layers of a model, and of γ and β


def takes(length: int, batch_size: int, left: int) -> bool:
    """Whether batches are as short as a tile."""
    return max(min(left, length), min(batch_size, length - left)) <= SIDE


def forward(
    q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, *layers: Any,
    batch_size: int, left: int, on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved]:  # fmt: skip
    """Return ((y, *start, *memory, *surprise), saved) for q, k (*batch, T, K), v (*batch, T, V), gates (*batch, T) and
    the layers of start, memory and surprise, (*batch, I, O) each. γ and β of a norm, (*batch, 1, V), may follow them.

    The first `left` tokens end the batch under way, and every batch has at most 32. A row more than a layer's input has
    features is a bias. `on_losses` is shown the squared errors (*batch, T). Raises TypeError and ValueError, as
    `gpu.launch.check` does.
    """
    depth = len(layers) // 3
    names = *(f"{model}[{i}]" for model in ("start", "memory", "surprise") for i in range(depth)), "gamma", "beta"
    check("titans", q=q, k=k, v=v, theta=theta, log_eta=log_eta, log_decay=log_decay,
          **dict(zip(names, layers, strict=False)))  # fmt: skip
    check_same_shape("titans", theta=theta, log_eta=log_eta, log_decay=log_decay)
    models, norm = [layers[i : i + depth] for i in (0, depth, 2 * depth)], layers[3 * depth :]
    return walk((q, k, v, theta, log_eta, log_decay), models, norm, batch_size, left, on_losses)


def backward(saved: Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of everything that went into `forward` from those of what came out."""
    depth, (dy, *layers) = len(saved.layers), cotangents
    check("titans", q=saved.tokens[0], dy=dy, **{f"dlayer{i}": x for i, x in enumerate(layers)})
    of_tokens, of_models, of_norm = walk_back(saved, dy, [layers[i : i + depth] for i in (0, depth, 2 * depth)])
    return *of_tokens, *(x for model in of_models for x in model), *of_norm


def walk(
    tokens: tuple[Any, ...], models: Sequence[Sequence[Any]], norm: Sequence[Any], batch_size: int, left: int,
    on_losses: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved]:  # fmt: skip
    """Return ((y, *layers of each model), saved) for the layers of start, M and, in Titans, S.

    Without S the gates are η, anything and τ of test-time training.
    """
    q, _, v, theta, *_ = tokens
    length, shapes = q.shape[-2], [x.shape for x in (*models[0], *norm)]
    start, *parts = map(_flat, models)
    (count, entries), depth = start.shape, len(models[0])
    table = _table(q.shape[-1], shapes[:depth])
    widest = max(SIDE, *(size for shape in shapes[:depth] for size in shape[-2:]))
    batches = 1 + max(0, -(-(length - left) // batch_size))
    kept = empty(q, (count, -(-batches // SEGMENT), len(parts), entries))
    passing = empty(q, (count, 2, len(parts), entries))
    for i, part in enumerate(parts):
        kept[:, 0, i] = part
    around, room = _flat(norm) if norm else zeros(q, (1, 1)), (count, depth, FIELDS, SIDE, widest)
    sizes = length, left, batch_size, depth, entries, widest, SEGMENT, len(parts), len(norm)
    y, losses, layers = empty(v, v.shape), empty(q, theta.shape), to_device_of(q, table)
    launch("titans_layers", "titans_layers", q, (count,), THREADS,
           *tokens, start, around, layers, kept, passing, y, losses, empty(q, room), *sizes)  # fmt: skip
    on_losses(losses)
    before, over = batches - 1, length >= left and (length - left) % batch_size == 0
    ends, W = passing[:, batches % 2], start
    if over or before:
        W = ends[:, 0] if over else passing[:, before % 2, 0] if before % SEGMENT else kept[:, before // SEGMENT, 0]
    made = (x for flat in (W, *(ends[:, i] for i in range(len(parts)))) for x in _layers(flat, shapes[:depth]))
    return (y, *made), Saved(tokens, start, around, layers, kept, sizes, over, shapes)


def walk_back(
    saved: Saved, dy: Any, models: Sequence[Sequence[Any]]
) -> tuple[list[Any], list[list[Any]], list[Any]]:  # fmt: skip
    """Return the cotangents of the tokens, of the models before the first one, and of the norm."""
    tokens, start, norm, layers, kept, sizes, over, shapes = saved
    depth, entries, widest, _, parts, normed = sizes[3:]
    dW, *dparts = map(_flat, models)
    if over:  # the last M is the next start
        dparts[0], dW = dparts[0] + dW, zeros(dW, dW.shape)
    count, dnorm = len(start), zeros(norm, norm.shape)
    made, passing = [empty(x, x.shape) for x in tokens], empty(start, (count, SEGMENT - 1, parts, entries))
    dS = dparts[1] if parts > 1 else empty(dy, (1,))
    launch("titans_layers_backward", "titans_layers_backward", dy, (count,), THREADS,
           *tokens, start, norm, layers, kept, passing, dy, dW, dparts[0], dS, *made, dnorm,
           empty(dy, (count, depth, FIELDS, SIDE, widest)), *sizes)  # fmt: skip
    of_models = [_layers(flat, shapes[:depth]) for flat in (dW, *dparts)]
    return made, of_models, _layers(dnorm, shapes[depth:]) if normed else []


def _table(features: int, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Of each layer the features that enter it, 1 if it has a bias, what it gives, and the numbers of those before."""
    table, before = [], 0
    for *_, rows, columns in shapes:
        table.append((features, rows - features, columns, before))
        features, before = columns, before + rows * columns
    return np.array(table, np.int32)


def _flat(layers: Sequence[Any]) -> Any:
    """All layers of a model side by side, (B, entries)."""
    sizes = [math.prod(x.shape[-2:]) for x in layers]
    made, at = empty(layers[0], (layers[0].size // sizes[0], sum(sizes))), 0
    for x, size in zip(layers, sizes, strict=True):
        made[:, at : at + size] = x.reshape(-1, size)
        at += size
    return made


def _layers(flat: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """The layers of a model, from what `_flat` made of them."""
    made, at = [], 0
    for shape in shapes:
        size = math.prod(shape[-2:])
        made.append(flat[:, at : at + size].reshape(shape))
        at += size
    return made
