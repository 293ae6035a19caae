"""The S4 block: a DPLR state space model per channel, trained through its kernel (Gu et al. 2022, S4).

    A = Λ − P Pᴴ,   Λ = −exp(log_rate) + i frequency,   Δ = exp(log_delta)        sections 3.2 and 3.4

Every channel learns all of its own Λ, P, B, C, D and Δ, as in the published code.
"""

from typing import Any

import numpy as np

import minigrad as mg
from models.blocks.block import BlockConfig
from models.blocks.system import (
    SystemBlock,
    as_complex,
    as_real,
    complex_gaussian,
    conjugate_pairs,
    eigenvalues,
    log_steps,
)
from models.ssm import hippo, s4


class S4Block(SystemBlock):
    """S4, from HiPPO-LegS ("hippo") or from random eigenvalues and a random rank one."""

    mechanism = s4

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        shape = config.width, conjugate_pairs(config)
        if config.start == "hippo":
            Lambda, P, B = (np.broadcast_to(x, shape) for x in hippo.dplr(config.states)[:3])
        else:
            Lambda, P = eigenvalues(shape, rng), complex_gaussian(shape, rng) / np.sqrt(shape[1])
            B = complex_gaussian(shape, rng)
        self.log_rate = np.log(-Lambda.real).astype(np.float32)
        self.frequency = Lambda.imag.astype(np.float32)
        self.P, self.B, self.C = as_real(P), as_real(B), as_real(complex_gaussian(shape, rng))
        self.D = rng.standard_normal(config.width).astype(np.float32)
        self.log_delta = log_steps(config.width, rng).astype(np.float32)

    def system(self, x: Any, state: Any) -> tuple[Any, Any]:
        """Return (y, state) for x `(*batch, T, width)`."""
        Lambda, P, B, C = 1j * self.frequency - mg.exp(self.log_rate), *map(as_complex, (self.P, self.B, self.C))
        return self.run(x, Lambda, P, B, C, self.D, mg.exp(self.log_delta), state=state)
