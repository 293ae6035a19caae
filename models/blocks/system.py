"""Base block of time-invariant state space models, which mix along time: a nonlinearity and a gated channel mixer.

    y   = system(x)                               every channel alone
    out = a ⊙ σ(b),   a, b = GELU(y) W + c        a gated linear unit, after which no MLP follows

As in S4 (Gu et al. 2022, appendix D.2, and its published code) and in S4D (Gu et al. 2022, section 5).
"""

from typing import Any, ClassVar

import numpy as np

import minigrad as mg
from minigrad.nn import Linear
from models.blocks.block import Block, BlockConfig
from models.errors import UserError


class SystemBlock(Block):
    """A system for every channel, which its own block supplies, then a nonlinearity and a gated linear unit."""

    default_states = 64
    starts: ClassVar[tuple[str, ...]] = ("hippo", "random")
    mixes_channels = True

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.output = Linear(config.width, 2 * config.width, rng=rng)

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Return (out, state), out `(*batch, T, width)` as x is; the state continues at the next token."""
        y, state = self.system(x, state)
        both = self.output(mg.gelu(y))
        width = both.shape[-1] // 2
        return both[..., :width] * mg.sigmoid(both[..., width:]), state

    def system(self, x: Any, state: Any) -> tuple[Any, Any]:
        """Return (y, state) for x `(*batch, T, width)`."""
        raise NotImplementedError


def conjugate_pairs(config: BlockConfig) -> int:
    """Return the number of conjugate pairs among this many eigenvalues. Raises UserError for an odd number."""
    if config.states < 2 or config.states % 2:
        raise UserError(f"states: expected an even number, for pairs of conjugate eigenvalues, got {config.states}")
    return config.states // 2


def log_steps(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return log Δ for this many channels, Δ log-uniform in 0.001…0.1, as S4 and its successors have it."""
    return rng.uniform(np.log(1e-3), np.log(1e-1), count)


def eigenvalues(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return Λ with Im Λ ≥ 0 in the disc of radius 1 around −1: where a random matrix's are, shifted until stable.

    The circular law: those of a Gaussian matrix of variance 1/N fill the unit disc evenly (Ginibre 1965).
    """
    return -1 + np.sqrt(rng.uniform(size=shape)) * np.exp(1j * np.pi * rng.uniform(size=shape))


def complex_gaussian(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return complex numbers of variance 1."""
    return np.sqrt(0.5) * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def as_real(z: np.ndarray) -> np.ndarray:
    """Return (2, *shape) float32, the real and imaginary parts: optimisers take real parameters."""
    return np.stack([z.real, z.imag]).astype(np.float32)


def as_complex(x: Any) -> Any:
    """Return the complex numbers of parts x (2, …), the inverse of `as_real`."""
    return x[0] + 1j * x[1]
