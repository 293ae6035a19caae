"""S4's kernel by Cauchy sums and one Fourier transform: 512 channels, a real state of 64, 4096 tokens.

The parameters are those that the paper trains: Λ, P, B, C̃ = C(1 − Āᴸ) and Δ. Every implementation takes one of each
conjugate pair, half of the frequencies, and the form of the sums that no node makes singular.
"""

from __future__ import annotations

import numpy as np

from benchmarks.functions import InputsAndWeights, Side, forward_and_backward, jax, minigrad, pytorch, single_precision

SIZES = {"length": 4096, "channels": 512, "states": 32}


def system(length: int, channels: int, states: int) -> InputsAndWeights:
    """Draw what HiPPO-LegS begins with, C̃ and log Δ at random; the weights are those of a kernel."""
    from models.ssm import hippo

    rng = np.random.default_rng(0)
    Lambda, P, B, *_ = hippo.dplr(2 * states)
    shape = channels, states
    return single_precision(
        rng.normal(size=(channels, length)),
        log_rate=np.broadcast_to(np.log(-Lambda.real), shape),
        frequency=np.broadcast_to(Lambda.imag, shape),
        P=np.broadcast_to(np.stack([P.real, P.imag])[:, None], (2, *shape)),
        B=np.broadcast_to(np.stack([B.real, B.imag])[:, None], (2, *shape)),
        C=rng.normal(size=(2, *shape)) * 0.5**0.5,
        log_delta=rng.uniform(np.log(1e-3), np.log(1e-1), channels),
    )


def work(*, backward: bool, length: int, channels: int, states: int) -> dict:
    """Return the least work of four sums: for every channel, pole and frequency a complex number with 8 real weights.

    That is 32 operations, each of whose two factors has a gradient of the same size. The four gradients in the number
    itself, and its making, are few beside them. The kernel, or its gradient, is moved once a pass.
    """
    operations = 32 * channels * states * (length // 2 + 1)
    return {
        "operations": operations * (3 if backward else 1),
        "bytes": 4 * channels * length * (2 if backward else 1),
    }


WORKLOADS = forward_and_backward(
    "s4_kernel",
    "S4's kernel: 512 channels, 32 pairs of states, length 4096",
    system,
    (
        Side("minigrad fused", minigrad, "benchmarks.ours:s4_kernel"),
        Side("PyTorch", pytorch, "benchmarks.peers.torch_state_spaces:s4_kernel"),
        Side("JAX", jax, "benchmarks.peers.jax_state_spaces:s4_kernel"),
    ),
    work,
    SIZES,
    tolerance=5e-3,  # log Δ has a gradient of large parts that cancel: 1.7e-3 (PyTorch 6.6e-4) from float64's
    options=("length",),
)
