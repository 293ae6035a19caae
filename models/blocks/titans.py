"""Titans (Behrouz et al. 2025): an MLP trained at test time, alone or with sliding-window attention.

    M(x) = x + LN(g(x))         θ = σ(x w + b) (1 − η) / K, log η = log σ(x w + b), log(1 − α) = log σ(−x w − b),
                                w and b each its own, one gate a head and token

    LMM   o = M(x)                                     the memory alone                section 4.3
    MAC   y = Attn([p ‖ M*(x W_q) ‖ x]), o = y ⊗ M(y)  as context, in segments         section 4.1, eq. 21–25
    MAG   y = SW-Attn(x), o = y ⊗ M(x)                 as gate                         section 4.2, eq. 26–28
    MAL   y = x + M(x), o = SW-Attn(y)                 as layer                        section 4.3, eq. 29–31

M writes and reads, M* reads only; p are the persistent tokens of `models.blocks.window`, ‖ puts side by side. Queries,
keys and values of the memory pass SiLU; queries and keys then have length 1, as section 4.4 says, and values √K.
Convolution, norm and gate are the paper's too.
g is an MLP of two layers, twice as wide inside (the paper tries depths of 1 to 4 and gives no width).

Choices where the paper says nothing:
- Stability. The gradients of an MLP grow with its weights: with M = g, language models of the study
  diverged within 40 steps at θ = 2 σ(x w) / b, b the batch; a quarter of that and values of mean square 1 kept them
  finite, but they did not learn (97 to 101 % of the first memory's inner loss was left in text, now 33 to 41).
  So g stands within the norm and the residual that TTT has: larger weights give the same output and learn slower.
- The range of θ: momentum takes every gradient 1/(1 − η) times, and the slope within the norm grows with the head's
  width K, for which TTT divides by it too. Values have the mean square 1 that LN's answers have at first.
- Initial gates: θ = σ(−2) (1 − η) / K, and α = σ(−6), with which the memory keeps some 400
  tokens. (With σ(0) and σ(−4) the same models learned recall and text more slowly. Chosen on few seeds, 0 among them,
  which the study shows; the other mixers were not tuned so.)
- A window and a segment are as long as the memory's batch, C = `chunk_size`: what is further back is known from the
  memory alone.
- MAC, eq. 21: M* is the memory before the segment, one h a token, RMSNorm on it as on all that the memory gives. A
  token sees the h of tokens up to its own: h of a later one is made of a later input, and figure 3a shows no mask for
  it. So each token has two keys at its place, its own and that of its h.
- MAC, eq. 24–25: the memory learns from y, gradients at its state before the segment, and token t reads it after its
  own write and not after the segment's last, whose input it must not know.
- ⊗: RMSNorm(y) ∘ σ(RMSNorm(m)), after "normalize … using learnable vector-valued weights, followed by a non-linearity
  σ" (section 4.2), which says neither which σ nor on which side.
- MAG and MAL, eq. 26 and 29, put p before the memory's input too. Read first, p leaves a memory that depends on nothing
  read; ours starts from a learned one as it is, so it does not read p
  (`proofs.identities.titans`: persistent_tokens_as_a_start).
- MAL adds its input to what the memory gives (section 4.4: "In all blocks, we use residual connections").
- When to forget, and whether to read before or after the write: see `models.memory.titans`.
"""

from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from minigrad.nn import Linear, Module, RMSNorm
from models.attention.multihead import merge_heads, split_heads
from models.blocks.block import Block, BlockConfig, BlockState, per_head, unit
from models.blocks.learner import LearnerBlock
from models.blocks.window import WindowBlock
from models.memory import inner, titans


class TitansBlock(LearnerBlock):
    """S = η S − θ ∇, M = (1 − α) M + S, y = M(q)."""

    mechanism = titans
    hidden = (2,)
    biased = False

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.momentum = Linear(config.width, config.heads, rng=rng)
        self.forget = Linear(config.width, config.heads, rng=rng)
        for gate, first in ((self.rate, -2), (self.forget, -6)):
            gate.bias = np.full(config.heads, first, np.float32)

    def mix(self, q: Any, k: Any, v: Any, x: Any, memory: Any) -> tuple[Any, Any]:
        """Return (y, memory)."""
        momentum = self.momentum(x)
        theta = per_head(mg.sigmoid(self.rate(x)) * mg.sigmoid(-momentum)) / k.shape[-1]
        log_eta, log_decay = per_head(mg.log_sigmoid(momentum)), per_head(mg.log_sigmoid(-self.forget(x)))
        q, k, v = (unit(mg.silu(row)) for row in (q, k, v))
        v = v * v.shape[-1] ** 0.5
        return self.run(q, k, v, theta, log_eta, log_decay, self.layers, state=memory, norm=self.around)

    def recall(self, q: Any, memory: titans.State | None) -> Any:
        """Return M*(q) `(*batch, T, width)` of the memory before the current batch, which is not changed."""
        layers = self.layers if memory is None else memory.start
        return merge_heads(self.norm(inner.apply_model(layers, self.around, unit(mg.silu(q)))))


class TitansState(NamedTuple):
    """State of a Titans block: that of the memory and that of the attention, both None before the first token."""

    memory: BlockState | None = None
    attention: BlockState | None = None


class WithAttention(Block):
    """A memory, and sliding-window attention whose window is as long as the memory's batch."""

    mechanism = titans
    default_chunk_size = 32

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.memory, self.attention = TitansBlock(config, rng), WindowBlock(config, rng)


class Gate(Module):
    """y ⊗ m = RMSNorm(y) ∘ σ(RMSNorm(m))."""

    def __init__(self, width: int) -> None:
        self.attended, self.remembered = RMSNorm(width), RMSNorm(width)

    def __call__(self, y: Any, m: Any) -> Any:
        return self.attended(y) * mg.sigmoid(self.remembered(m))


class TitansMACBlock(WithAttention):
    """Memory as context: per segment, attention reads the memory's output beside the input."""

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.query, self.gate = Linear(config.width, config.width, bias=False, rng=rng), Gate(config.width)

    def __call__(self, x: Any, state: TitansState | None = None) -> tuple[Any, TitansState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        state, out = state or TitansState(), []
        left = self.chunk_size if state.memory is None else state.memory.memory.left
        for (segment,) in inner.mini_batches(left, self.chunk_size, x):
            y, state = self._segment(segment, state)
            out.append(y)
        return mg.namespace(*out).concat(out, axis=-2), state

    def _segment(self, x: Any, state: TitansState) -> tuple[Any, TitansState]:
        """Attend to and memorise some tokens of one segment."""
        attention, memory = self.attention, state.memory
        q = split_heads(self.query(x), attention.heads)
        h = self.memory.recall(q, None if memory is None else memory.memory)
        conv, recent = state.attention or (None, None)
        qkv, conv = attention.project(x, conv)
        q, k, v = attention.split(qkv)
        k, v = (_paired(*pair) for pair in zip(attention.keys_and_values(h), (k, v), strict=True))
        y, recent = attention.attend(q, k, v, recent)
        y = attention.output(merge_heads(y))
        m, memory = self.memory(y, memory)
        if memory.memory.left == self.chunk_size:
            recent = recent._replace(tokens=0)  # the next segment sees nothing of this one
        return self.gate(y, m), TitansState(memory, BlockState(conv, recent))


class TitansMAGBlock(WithAttention):
    """Memory as gate: the memory and attention in parallel, on the same input."""

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.gate = Gate(config.width)

    def __call__(self, x: Any, state: TitansState | None = None) -> tuple[Any, TitansState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        memory, attention = state or TitansState()
        m, memory = self.memory(x, memory)
        y, attention = self.attention(x, attention)
        return self.gate(y, m), TitansState(memory, attention)


class TitansMALBlock(WithAttention):
    """Memory as layer: attention over x plus the memory's output."""

    def __call__(self, x: Any, state: TitansState | None = None) -> tuple[Any, TitansState]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        memory, attention = state or TitansState()
        m, memory = self.memory(x, memory)
        y, attention = self.attention(x + m, attention)
        return y, TitansState(memory, attention)


def _paired(first: Any, second: Any) -> Any:
    """Interleave the rows of two arrays (…, T, K): (…, 2 T, K)."""
    xp = mg.namespace(first, second)
    return xp.reshape(xp.stack([first, second], axis=-2), (*second.shape[:-2], 2 * second.shape[-2], second.shape[-1]))
