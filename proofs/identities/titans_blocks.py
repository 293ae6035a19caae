"""Titans' blocks: memory as context, as gate and as layer, each with local attention.

Beside the real attention stands a memory whose rounding can be bounded, the sum of what it has read: what is shown is
how a block joins its parts. That the real memory is causal and streams is shown for every form of it; that blocks with
the real memory do, by `tests/models/test_lm.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

import minigrad as mg
from minigrad import namespace
from models.attention import softmax
from models.attention.multihead import merge_heads, split_heads
from models.blocks import BlockConfig, BlockState
from models.blocks import titans as blocks
from models.blocks.softmax import rotate
from models.memory import titans
from proofs.checker.statements import Instance, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, ChunkSize, Cut, Keys, Queries, Strategy, Values

CHAPTER = 9

BEHROUZ = "behrouz2025titans"
WIDTH = 4
NUMPY = ("float64", "float32", "gradient")  # a block's own weights are NumPy arrays of float32

Inputs = Annotated[Any, Strategy(f"*batch T {WIDTH}", LARGE)]
FixedKeys = Annotated[Any, Strategy("S K", SMALL)]
FixedValues = Annotated[Any, Strategy("S V", LARGE)]


class CumulativeSum:
    """A memory whose output is the cumulative sum of its inputs; recall returns the sum of earlier segments."""

    loudness = 1

    def __init__(self, segment: int):
        self.segment = segment

    def __call__(self, x: Any, state: BlockState | None = None) -> tuple[Any, BlockState]:
        zeros = 0 * x[..., 0, :]
        memory: Any = (zeros, zeros, (), self.segment) if state is None else state.memory
        start, total, _, left = memory
        y = []
        for t in range(x.shape[-2]):
            total, left = total + x[..., t, :], left - 1
            y.append(self.loudness * total)
            start, left = (start, left) if left else (total, self.segment)
        return namespace(x).stack(y, axis=-2), BlockState(None, titans.State(start, total, (), left))

    def recall(self, q: Any, memory: Any) -> Any:
        merged = merge_heads(q)
        return self.loudness * (merged if memory is None else merged + memory.start[..., None, :])


class ZeroMemory(CumulativeSum):
    """A memory that returns 0."""

    loudness = 0


def make_block(kind: str, size: int, memory: type[CumulativeSum] = CumulativeSum) -> Any:
    """Return a block of that kind with fixed weights and the given memory."""
    config = BlockConfig(width=WIDTH, heads=2, conv=2, form="chunkwise", chunk_size=size)
    block = getattr(blocks, kind)(config, np.random.default_rng(0))
    block.memory = memory(size)
    return block


EACH = [
    Instance(label, {"kind": kind}, {})
    for label, kind in (("context", "TitansMACBlock"), ("gate", "TitansMAGBlock"), ("layer", "TitansMALBlock"))
]


@identity(
    "Streaming: a sequence may be split anywhere, inside a segment or a window, and continued from the state",
    source=f"{BEHROUZ}, section 4; minigrad, the contract of a block",
    over=EACH,
    only=NUMPY,
)
def streaming(kind: str, x: Inputs, cut: Cut, chunk_size: ChunkSize):
    block = make_block(kind, chunk_size)
    before, middle = block(x[..., :cut, :])
    after, end = block(x[..., cut:, :], middle)
    return block(x), (namespace(x).concat([before, after], axis=-2), end)


@identity("Causality: outputs do not depend on later tokens", source=f"{BEHROUZ}, section 4", over=EACH, only=NUMPY)
def causality(kind: str, x: Inputs, other: Inputs, cut: Cut, chunk_size: ChunkSize):
    block = make_block(kind, chunk_size)
    changed = namespace(x).concat([x[..., :cut, :], other[..., cut:, :]], axis=-2)
    return block(x)[0][..., :cut, :], block(changed)[0][..., :cut, :]


# What each is, written out


def attend_each_token(
    attention: Any, x: Any, size: int, segments: bool, h: Any = None, whole_segment: bool = False
) -> Any:
    """Compute attention token by token, with rotary positions counted from the first token.

    A token attends to the persistent tokens, to its window or its segment up to itself, and to h over the same range
    or, with `whole_segment`, over its whole segment.
    """
    xp, y = namespace(x), []
    q, k, v = attention.split(attention.conv(attention.qkv(x))[0])
    always_k, always_v = attention.keys_and_values(attention.persistent)
    rotated_k = rotate(k, 0)
    for t in range(x.shape[-2]):
        first = t - t % size if segments else max(0, t - size + 1)
        keys, values = [rotated_k[..., first : t + 1, :]], [v[..., first : t + 1, :]]
        if h is not None:
            stop = first + size if whole_segment else t + 1
            recalled_k, recalled_v = attention.keys_and_values(h)
            keys.append(rotate(recalled_k, 0)[..., first:stop, :])
            values.append(recalled_v[..., first:stop, :])
        now = q[..., t : t + 1, :]
        scores = xp.concat([now @ always_k.mT, rotate(now, t) @ xp.concat(keys, axis=-2).mT], axis=-1)
        weights = mg.softmax(scores * now.shape[-1] ** -0.5, axis=-1)
        fixed = always_k.shape[-2]
        y.append(weights[..., :fixed] @ always_v + weights[..., fixed:] @ xp.concat(values, axis=-2))
    return attention.output(merge_heads(xp.concat(y, axis=-2)))


@identity(
    "As layer: attention to the input plus the memory's output",
    source=f"{BEHROUZ}, eq. 29–31 and section 4.4",
    only=NUMPY,
)
def memory_as_layer(x: Inputs, chunk_size: ChunkSize):
    block = make_block("TitansMALBlock", chunk_size)
    summed = x + namespace(x).cumulative_sum(x, axis=-2)
    return block(x)[0], attend_each_token(block.attention, summed, chunk_size, segments=False)


@identity(
    "As gate: the output of attention times σ of the memory's output, both normalised",
    source=f"{BEHROUZ}, eq. 26–28",
    only=NUMPY,
)
def memory_as_gate(x: Inputs, chunk_size: ChunkSize):
    block = make_block("TitansMAGBlock", chunk_size)
    y, m = attend_each_token(block.attention, x, chunk_size, segments=False), namespace(x).cumulative_sum(x, axis=-2)
    return block(x)[0], block.gate.attended(y) * mg.sigmoid(block.gate.remembered(m))


@identity(
    "As context: attention to the segment and to the memory before it; the memory learns its output, and gates it",
    source=f"{BEHROUZ}, eq. 21–25",
    only=NUMPY,
)
def memory_as_context(x: Inputs, chunk_size: ChunkSize):
    block, xp = make_block("TitansMACBlock", chunk_size), namespace(x)
    stored, h, out = 0 * x[..., :1, :], [], []
    for first in range(0, x.shape[-2], chunk_size):
        stop = min(first + chunk_size, x.shape[-2])
        h.append(stored + block.query(x[..., first:stop, :]))
        recalled = xp.concat(h, axis=-2)
        y = attend_each_token(block.attention, x[..., :stop, :], chunk_size, segments=True, h=recalled)
        y = y[..., first:stop, :]
        m = stored + xp.cumulative_sum(y, axis=-2)
        out.append(block.gate.attended(y) * mg.sigmoid(block.gate.remembered(m)))
        stored = m[..., -1:, :]
    return block(x)[0], xp.concat(out, axis=-2)


# With the memory switched off


@identity(
    "As layer, without the memory: attention to the persistent tokens and the last C",
    source=f"{BEHROUZ}, eq. 29–31 and section 4.4, figure 3b",
    only=NUMPY,
)
def layer_without_memory(x: Inputs, chunk_size: ChunkSize):
    block = make_block("TitansMALBlock", chunk_size, ZeroMemory)
    return block(x)[0], attend_each_token(block.attention, x, chunk_size, segments=False)


@identity(
    "As gate, without the memory: that attention, normalised, times a gate of ½",
    source=f"{BEHROUZ}, eq. 26–28",
    only=NUMPY,
)
def gate_without_memory(x: Inputs, chunk_size: ChunkSize):
    block = make_block("TitansMAGBlock", chunk_size, ZeroMemory)
    return block(x)[0], block.gate.attended(attend_each_token(block.attention, x, chunk_size, segments=False)) / 2


@identity(
    "As context, without the memory: attention in segments, to which every token adds a row of zeros",
    source=f"{BEHROUZ}, eq. 21–25",
    only=NUMPY,
)
def context_without_memory(x: Inputs, chunk_size: ChunkSize):
    block = make_block("TitansMACBlock", chunk_size, ZeroMemory)
    attended = attend_each_token(block.attention, x, chunk_size, segments=True, h=0 * x)
    return block(x)[0], block.gate.attended(attended) / 2


@refuted(
    "As context, without the memory: attention in segments alone (but a key of 0 takes a share of the weights)",
    source=f"{BEHROUZ}, eq. 22",
)
def context_without_memory_is_attention(x: Inputs, chunk_size: ChunkSize):
    block = make_block("TitansMACBlock", chunk_size, ZeroMemory)
    return block(x)[0], block.gate.attended(attend_each_token(block.attention, x, chunk_size, segments=True)) / 2


@refuted(
    "As context, every token may attend to what the memory recalls for the whole segment",
    source=f"{BEHROUZ}, eq. 21–22 and figure 3a, which shows no mask there",
)
def recalled_ahead_is_causal(x: Inputs, other: Inputs, cut: Cut, chunk_size: ChunkSize):
    block = make_block("TitansMACBlock", chunk_size)

    def outputs(x: Any) -> Any:
        h = block.memory.recall(split_heads(block.query(x), 2), None)
        return attend_each_token(block.attention, x, chunk_size, segments=True, h=h, whole_segment=True)[..., :cut, :]

    return outputs(x), outputs(namespace(x).concat([x[..., :cut, :], other[..., cut:, :]], axis=-2))


# Persistent tokens


@identity(
    "Attention with persistent tokens is a weighted mean of a feed-forward net, whose activation is softmax, and "
    "of attention without them",
    source=f"{BEHROUZ}, section 3.3, eq. 19–20, made precise; sukhbaatar2019, eq. 5–9 (place not verified)",
)
def persistent_tokens_are_a_feed_forward_net(q: Queries, k: Keys, v: Values, p_k: FixedKeys, p_v: FixedValues):
    xp, root = namespace(q), q.shape[-1] ** -0.5
    always = tuple(xp.broadcast_to(p, (*q.shape[:-2], *p.shape)) for p in (p_k, p_v))
    with_persistent, _ = softmax.quadratic(q, k, v, state=always)  # what stands before the first token is seen by all
    net = mg.softmax(q @ p_k.mT * root, axis=-1) @ p_v  # its weights p_k and p_v depend on nothing that is read
    without_persistent, _ = softmax.quadratic(q, k, v)
    fixed_mass = xp.sum(xp.exp(q @ p_k.mT * root), axis=-1, keepdims=True)
    mass = xp.sum(xp.tril(xp.exp(q @ k.mT * root)), axis=-1, keepdims=True)
    return with_persistent, (fixed_mass * net + mass * without_persistent) / (fixed_mass + mass)
