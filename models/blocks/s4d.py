"""The S4D block: a diagonal state space model per channel, trained through its kernel (Gu et al. 2022, S4D).

Λ = −exp(log_rate) + i frequency         Re Λ < 0 whatever is learned          section 3
Δ = exp(log_delta)
B = 1: only the products Bₙ Cₙ count, and C is trained                         section 3
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
from models.ssm import initializers, s4d


class S4DBlock(SystemBlock):
    """S4D, from the diagonal of HiPPO-LegS ("hippo"), its two approximations, or random eigenvalues.

    Deviation: "hippo" starts with B = 1, the official S4D-LegS with HiPPO's B.
    """

    mechanism = s4d
    starts = ("hippo", "lin", "inv", "random")

    def __init__(self, config: BlockConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        shape = config.width, conjugate_pairs(config)
        if config.start == "random":
            Lambda = eigenvalues(shape, rng)
        else:
            start = {"hippo": initializers.legs, "lin": initializers.lin, "inv": initializers.inv}[config.start]
            Lambda = np.broadcast_to(start(config.states), shape)
        self.log_rate = np.log(-Lambda.real).astype(np.float32)
        self.frequency = Lambda.imag.astype(np.float32)
        self.C = as_real(complex_gaussian(shape, rng))
        self.D = rng.standard_normal(config.width).astype(np.float32)
        self.log_delta = log_steps(config.width, rng).astype(np.float32)

    def system(self, x: Any, state: Any) -> tuple[Any, Any]:
        """Return (y, state) for x `(*batch, T, width)`."""
        Lambda = 1j * self.frequency - mg.exp(self.log_rate)
        return self.run(
            x, Lambda, mg.ones_like(Lambda), as_complex(self.C), self.D, mg.exp(self.log_delta), state=state
        )
