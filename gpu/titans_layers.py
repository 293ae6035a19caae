"""Titans with a memory of any number of layers, in a norm or in none, by `titans_layers.cu` and its adjoint."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu.launch import alike, check, copied, empty, launch, zeros

THREADS, SIDE = 256, 32  # of a block; tokens of a batch at most
SEGMENT = 8  # batches between two memories that are kept
FIELDS = 26  # of `Field` in titans_batch.cuh


class Saved(NamedTuple):
    """What the backward pass needs: the inputs, and the memory every 8 batches."""

    tokens: tuple[Any, ...]  # q, k, v and the gates
    start: Any  # (B, entries)
    norm: Any  # (B, 2, V)
    layers: Any  # (depth, 4), as titans_batch.cuh has them
    kept: Any  # (B, segments, 2, entries): M and S
    sizes: tuple[int, ...]  # what the kernels ask, from T on
    over: bool  # the last token ends its batch: the start after it is M
    shapes: list[tuple[int, ...]]  # of all inputs


def takes(length: int, batch_size: int, left: int) -> bool:
    """Whether batches are as short as a tile."""
    return max(min(left, length), min(batch_size, length - left)) <= SIDE


def forward(
    q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, *layers: Any,
    batch_size: int, left: int, look: Callable[[Any], None],
) -> tuple[tuple[Any, ...], Saved]:  # fmt: skip
    """Return ((y, *start, *memory, *surprise), saved) for q, k (*batch, T, K), v (*batch, T, V), gates (*batch, T) and
    the layers of start, memory and surprise, (*batch, I, O) each. γ and β of a norm, (*batch, 1, V), may follow them.

    The first `left` tokens end the batch under way, and every batch has at most 32. A row more than a layer's input has
    features is a bias. `look` is shown the squared errors (*batch, T). Raises TypeError and ValueError, as
    `gpu.launch.check` does.
    """
    tokens = q, k, v, theta, log_eta, log_decay
    depth, length, shapes = len(layers) // 3, q.shape[-2], [x.shape for x in (*tokens, *layers)]
    names = *(f"{model}[{i}]" for model in ("start", "memory", "surprise") for i in range(depth)), "gamma", "beta"
    check("titans", q=q, k=k, v=v, theta=theta, log_eta=log_eta, log_decay=log_decay,
          **dict(zip(names, layers, strict=False)))  # fmt: skip
    alike("titans", theta=theta, log_eta=log_eta, log_decay=log_decay)
    start, M, S = (_flat(layers[i : i + depth]) for i in (0, depth, 2 * depth))
    count, entries = start.shape
    table = _table(q.shape[-1], shapes[6 : 6 + depth])
    widest = max(SIDE, *(size for shape in shapes[6 : 6 + depth] for size in shape[-2:]))
    batches = 1 + max(0, -(-(length - left) // batch_size))
    kept, passing = empty(q, (count, -(-batches // SEGMENT), 2, entries)), empty(q, (count, 2, 2, entries))
    kept[:, 0, 0], kept[:, 0, 1] = M, S
    normed = len(layers) % 3 > 0
    norm = _flat(layers[-2:]) if normed else zeros(q, (1, 1))
    sizes = length, left, batch_size, depth, entries, widest, SEGMENT, int(normed)
    y, losses, table = empty(v, v.shape), empty(q, theta.shape), copied(q, table)
    launch("titans_layers", "titans_layers", q, (count,), THREADS,
           *tokens, start, norm, table, kept, passing, y, losses, _room(q, count, depth, widest), *sizes)  # fmt: skip
    look(losses)
    before, over = batches - 1, length >= left and (length - left) % batch_size == 0
    end = passing[:, batches % 2]
    W = passing[:, before % 2] if before % SEGMENT else kept[:, before // SEGMENT]
    ends = end[:, 0] if over else W[:, 0] if before else start, end[:, 0], end[:, 1]
    made = (x for flat in ends for x in _layers(flat, shapes[6 : 6 + depth]))
    return (y, *made), Saved(tokens, start, norm, table, kept, sizes, over, shapes)


def backward(saved: Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of everything that went into `forward` from those of what came out."""
    tokens, start, norm, layers, kept, sizes, over, shapes = saved
    depth, entries, widest, _, normed = sizes[3:]
    gy, *gmemories = cotangents
    check("titans", q=tokens[0], gy=gy, **{f"glayers[{i}]": x for i, x in enumerate(gmemories)})
    gW, gM, gS = (_flat(gmemories[i : i + depth]) for i in (0, depth, 2 * depth))
    if over:  # the last M is the next start
        gM, gW = gM + gW, zeros(gW, gW.shape)
    count, gnorm = len(start), zeros(norm, norm.shape)
    made, passing = [empty(x, x.shape) for x in tokens], empty(start, (count, SEGMENT - 1, 2, entries))
    launch("titans_layers_backward", "titans_layers_backward", gy, (count,), THREADS,
           *tokens, start, norm, layers, kept, passing, gy, gW, gM, gS, *made, gnorm,
           _room(gy, count, depth, widest), *sizes)  # fmt: skip
    of_layers = [x for flat in (gW, gM, gS) for x in _layers(flat, shapes[6 : 6 + depth])]
    return *made, *of_layers, *(_layers(gnorm, shapes[-2:]) if normed else ())


def _table(features: int, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Of each layer the features that enter it, 1 if it has a bias, what it gives, and the numbers of those before."""
    table, before = [], 0
    for *_, rows, columns in shapes:
        table.append((features, rows - features, columns, before))
        features, before = columns, before + rows * columns
    return np.array(table, np.int32)


def _room(like: Any, count: int, depth: int, widest: int) -> Any:
    """What blocks keep of a batch."""
    return empty(like, (count, depth, FIELDS, SIDE, widest))


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
