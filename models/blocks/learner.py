"""Base block of test-time training and Titans: an inner model for each head, trained in mini-batches.

f(x) = x + LN(g(x)),  g the model's layers, γ and β the norm's, learned with them by the outer loss
"""

from typing import Any, ClassVar

import numpy as np

from minigrad.nn import Linear
from models.blocks.block import BlockConfig, MemoryBlock
from models.errors import UserError
from models.memory.inner import Layers, Norm


class LearnerBlock(MemoryBlock):
    """A memory block whose memory is a model: `chunk_size` is its mini-batch, `hidden` the widths between its layers.

    Widths are in heads' widths K: () is a matrix, (4,) an MLP of two layers with 4 K between them.

    Raises: UserError for a mini-batch below 1.
    """

    default_chunk_size = 16
    hidden: ClassVar[tuple[int, ...]] = ()
    biased: ClassVar[bool] = True
    deviation: ClassVar[float | None] = None  # of the first weights; 1/√fan_in if None

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        if config.chunk_size < 1:
            raise UserError(f"chunk_size: expected at least 1, the memory's batch, got {config.chunk_size}")
        K = config.width // config.heads
        widths = [K, *(n * K for n in self.hidden), K]
        self.inner = []
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
            scale = fan_in**-0.5 if self.deviation is None else self.deviation
            self.inner.append(scale * normal(rng, config.heads, fan_in, fan_out))
            if self.biased:
                self.inner.append(np.zeros((config.heads, 1, fan_out), np.float32))
        self.rate = Linear(config.width, config.heads, rng=rng)
        self.gamma, self.beta = np.ones((config.heads, 1, K), np.float32), np.zeros((config.heads, 1, K), np.float32)

    @property
    def layers(self) -> Layers:
        """The inner model before the first token."""
        size = 2 if self.biased else 1
        return tuple(tuple(self.inner[i : i + size]) for i in range(0, len(self.inner), size))

    @property
    def around(self) -> Norm:
        """The norm around the inner model."""
        return self.gamma, self.beta

    def run(self, *inputs: Any, state: Any, **options: Any) -> tuple[Any, Any]:
        """Run the mechanism in mini-batches, whatever the form: they are a part of it."""
        form = self.single_step if inputs[0].shape[-2] == 1 else self.form
        return getattr(self.mechanism, form)(*inputs, state=state, batch_size=self.chunk_size, **options)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return float32 numbers of a normal distribution."""
    return rng.standard_normal(shape).astype(np.float32)
