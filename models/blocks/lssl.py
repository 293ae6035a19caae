"""The LSSL block: one dense A for all channels, a step for each (Gu et al. 2021, LSSL; its variant LSSL-fixed).

    A, B, Δ keep their initial values; C and D are trained                 section 4.1, appendix B.1–B.2, "LSSL-fixed"

Deviations: Δ is on a grid, log-spaced in 0.001…0.1, where the paper draws it log-uniform; a GLU follows the GELU.
"""

import functools
from typing import Any

import numpy as np

from minigrad.conversion import to_library_of
from models.blocks.block import BlockConfig
from models.blocks.system import SystemBlock
from models.ssm import hippo, lssl


class LSSLBlock(SystemBlock):
    """LSSL, from HiPPO-LegS ("hippo") or from a random matrix, shifted until it is stable."""

    mechanism = lssl
    default_form = "convolution"

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.start = config.start
        self.C = rng.standard_normal((config.width, config.states)).astype(np.float32)
        self.D = rng.standard_normal(config.width).astype(np.float32)

    def system(self, x: Any, state: Any) -> tuple[Any, Any]:
        """Return (y, state) for x `(*batch, T, width)`."""
        width, states = self.C.shape
        constants = *fixed(self.start, states), np.geomspace(1e-3, 1e-1, width, dtype=np.float32)
        A, B, steps = (to_library_of(self.C, constant) for constant in constants)
        return self.run(x, A, B, self.C, self.D, steps, state=state)


@functools.cache
def fixed(start: str, states: int) -> tuple[np.ndarray, np.ndarray]:
    """Return A (N, N) and B (N,), the same in every run: a checkpoint need not hold them."""
    if start == "hippo":
        A, B = hippo.legs(states)
    else:
        rng = np.random.default_rng(states)
        A, B = rng.standard_normal((states, states)) / np.sqrt(states), rng.standard_normal(states)
        A = A - (0.01 + np.linalg.eigvals(A).real.max()) * np.eye(states)
    return A.astype(np.float32), B.astype(np.float32)
