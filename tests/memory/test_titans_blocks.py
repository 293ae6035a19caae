"""Titans' blocks with their own memory: token by token in float64, and copies with one thing wrong."""

import numpy as np
import pytest

from minigrad.pytree import replace_arrays
from models.blocks import MIXERS, BlockConfig
from models.blocks import titans as blocks
from models.errors import UserError
from proofs import STATEMENTS
from proofs.checker import check_system
from tests.copies import copy_of

KINDS = ["titans_mac", "titans_mag", "titans_mal"]


def block_of(kind, chunk_size):
    """Return a block in float64, away from what its weights are at first."""
    rng = np.random.default_rng(0)
    block = MIXERS[kind](BlockConfig(width=8, heads=2, form="chunkwise", chunk_size=chunk_size), rng)
    return replace_arrays(block, [a + 0.3 * rng.standard_normal(a.shape) for a in block.named_parameters().values()])


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_token_by_token_is_one_pass(kind, chunk_size):
    block, x = block_of(kind, chunk_size), np.random.default_rng(1).standard_normal((2, 11, 8))
    full, end = block(x)
    parts, state = [], None
    for t in range(11):
        y, state = block(x[:, t : t + 1], state)
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, rtol=1e-9, atol=1e-10)
    for one, other in zip(arrays(state), arrays(end), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)


def arrays(state):
    for part in state:
        if isinstance(part, tuple):
            yield from arrays(part)
        else:
            yield part


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_beyond_the_window_is_known_from_the_memory(kind):
    """A change of the first token is seen when it has left the window, the convolution's reach and its segment."""
    block, x = block_of(kind, 3), np.random.default_rng(1).standard_normal((11, 8))
    changed = x.copy()
    changed[0] += 1
    difference = np.abs(block(x)[0] - block(changed)[0])
    assert difference[-1].max() > 1e-6


@pytest.mark.parametrize("kind", ["titans", "ttt_mlp", *KINDS])
def test_a_batch_below_one_is_a_mistake_in_one_line(kind):
    with pytest.raises(UserError, match="^chunk_size: expected at least 1, the memory's batch, got 0$"):
        MIXERS[kind](BlockConfig(width=8, heads=2, chunk_size=0), np.random.default_rng(0))


BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    ("window", "(position <= now) & ", "", "causality[layer]", "a token sees those after it in its piece"),
    ("window", "(position >= now - room) & ", "", "memory_as_layer", "a window with no far end"),
    ("window", "position >= room - recent.tokens", "place >= 0", "memory_as_layer", "room not yet taken is seen"),
    ("window", "rotate(q, room) @", "rotate(q, 0) @", "memory_as_layer", "queries that stand at the window's start"),
    ("window", "// rows, room", "// 1, room", "memory_as_context", "two keys a token counted as two tokens"),
    ("window", "weights[..., :PERSISTENT] @ always_v + ", "", "memory_as_layer", "persistent values not read"),
    ("window", "min(recent.tokens + size, room)", "recent.tokens", "streaming[gate]", "the window forgets at a cut"),
    ("titans", "recent._replace(tokens=0)", "recent", "memory_as_context", "a segment that sees the one before"),
    (
        "titans",
        "inner.mini_batches(left,",
        "inner.mini_batches(self.chunk_size,",
        "streaming[context]",
        "a cut begins a segment",
    ),
    ("titans", "self.memory(y, memory)", "self.memory(x, memory)", "memory_as_context", "a memory of the input"),
    (
        "titans",
        "m, memory = self.memory(x, memory)\n        y, attention = self.attention(x, attention)",
        "y, attention = self.attention(x, attention)\n        m, memory = self.memory(y, memory)",
        "memory_as_gate",
        "one after the other",
    ),
    ("titans", "self.attention(x + m, attention)", "self.attention(m, attention)", "memory_as_layer", "no residual"),
    (
        "titans",
        "self.attended(y) * mg.sigmoid(self.remembered(m))",
        "self.attended(y) * mg.sigmoid(m)",
        "memory_as_gate",
        "a gate that is not normalised",
    ),
    ("titans", "axis=-2), (*second", "axis=-3), (*second", "memory_as_context", "all h first, at others' places"),
]


def verdict(name):
    """Return the verdict on a statement in float64."""
    return check_system(STATEMENTS[f"titans_blocks.{name}"], "float64").status


@pytest.mark.parametrize(("module", "text", "instead", "statement", "wrong"), BROKEN, ids=[b[4] for b in BROKEN])
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, monkeypatch):
    copy = copy_of(f"blocks.{module}", text, instead)
    if module == "window":
        monkeypatch.setattr(blocks, "WindowBlock", copy.WindowBlock)
    else:
        for name in ("Gate", "TitansMACBlock", "TitansMAGBlock", "TitansMALBlock"):
            monkeypatch.setattr(blocks, name, getattr(copy, name))
    assert verdict(statement) == "failed", wrong


@pytest.mark.parametrize("statement", sorted({broken[3] for broken in BROKEN}))
def test_a_faithful_copy_passes(statement, monkeypatch):
    monkeypatch.setattr(blocks, "WindowBlock", copy_of("blocks.window").WindowBlock)
    assert verdict(statement) == "passed"
