"""S4D, its kernel and its convolution apart and the whole: 512 channels with 64 complex states, 4096 tokens.

The parameters are those that are trained, all real. The convolution is asked for with time last, as PyTorch and JAX
are used, since a Fourier transform wants its numbers beside each other; the whole form with features last, as models
have it.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.functions import InputsAndWeights, Side, forward_and_backward, jax, minigrad, pytorch, single_precision

OURS, TORCH = "benchmarks.ours", "benchmarks.peers.torch_state_spaces"
JAX = "benchmarks.peers.jax_state_spaces"
KERNEL = {"length": 4096, "channels": 512, "states": 64}


def system(length: int, channels: int, states: int) -> InputsAndWeights:
    """Draw log −Re Λ, Im Λ, C and log Δ as an S4D-Lin begins; the weights are those of a kernel."""
    rng = np.random.default_rng(0)
    shape = channels, states
    return single_precision(
        rng.normal(size=(channels, length)),
        log_rate=np.full(shape, np.log(0.5)),
        frequency=np.broadcast_to(np.pi * np.arange(states), shape),
        C=rng.normal(size=(2, *shape)) * 0.5**0.5,
        log_delta=rng.uniform(np.log(1e-3), np.log(1e-1), channels),
    )


def convolved(length: int, channels: int, batch: int) -> InputsAndWeights:
    """Draw u (B, D, L) and K (D, L)."""
    rng = np.random.default_rng(0)
    u, weights = rng.normal(size=(2, batch, channels, length))
    return single_precision(weights, u=u, K=rng.normal(size=(channels, length)) / length)


def layer(length: int, channels: int, states: int, batch: int) -> InputsAndWeights:
    """Draw u (B, L, D) and the system, D included, in the order of the mechanism."""
    rng = np.random.default_rng(1)
    inputs, _ = system(length, channels, states)
    u, weights = rng.normal(size=(2, batch, length, channels))
    first = {name: inputs[name] for name in ("log_rate", "frequency", "C")}
    return single_precision(weights, u=u, **first, D=rng.normal(size=channels), log_delta=inputs["log_delta"])


def kernel(*, backward: bool, length: int, channels: int, states: int) -> dict:
    """Return the least work of a kernel as a product of powers: Re(wa) for every length, channel and state.

    That is two products and two sums; each of the two factors has a gradient of the same size. √L powers of either
    factor are few beside them. The kernel, or its gradient, is moved once a pass.
    """
    operations = 4 * channels * states * length
    return {
        "operations": operations * (3 if backward else 1),
        "bytes": 4 * channels * length * (2 if backward else 1),
    }


def transforms(*, backward: bool, length: int, channels: int, batch: int) -> dict:
    """Return the work of a convolution by real Fourier transforms of n = 2L points: 2.5 n log₂ n operations each.

    Forward those of u, of K and of y; backward, of dy, du and dK. A product of spectra is 6 operations for each of n/2
    frequencies, and it has two gradients. u, K and y are moved, and back as much again with g.
    """
    points = 2 * length
    transform, rows = 2.5 * points * math.log2(points), channels * (2 * batch + 1)
    products = 6 * length * channels * batch
    forward = rows * transform + products
    moved_bytes = 4 * length * rows
    return {
        "operations": forward + (rows * transform + 2 * products if backward else 0),
        "bytes": moved_bytes * (2 if backward else 1),
    }


def both_parts(*, backward: bool, length: int, channels: int, states: int, batch: int) -> dict:
    """Return the work of the kernel and of the convolution; the kernel itself need not be moved."""
    kernel_work = kernel(backward=backward, length=length, channels=channels, states=states)
    convolution_work = transforms(backward=backward, length=length, channels=channels, batch=batch)
    return {
        "operations": kernel_work["operations"] + convolution_work["operations"],
        "bytes": convolution_work["bytes"] - kernel_work["bytes"],
    }


def _sides(function: str, form: str) -> tuple[Side, ...]:
    return (
        Side(f"minigrad {form}", minigrad, f"{OURS}:{function}"),
        Side("PyTorch", pytorch, f"{TORCH}:{function}"),
        Side("JAX", jax, f"{JAX}:{function}"),
    )


BATCHED = {**KERNEL, "batch": 4}
CONVOLVED = {name: size for name, size in BATCHED.items() if name != "states"}
WORKLOADS = (
    *forward_and_backward(
        "s4d_kernel",
        "S4D's kernel: 512 channels, 64 complex states, length 4096",
        system,
        _sides("s4d_kernel", "fused"),
        kernel,
        KERNEL,
        tolerance=1e-3,
        options=("length",),
    ),
    *forward_and_backward(
        "convolution",
        "A convolution by Fourier transforms: batch 4, 512 channels, length 4096",
        convolved,
        _sides("convolution", "causal_convolution"),
        transforms,
        CONVOLVED,
    ),
    *forward_and_backward(
        "s4d",
        "S4D: batch 4, 512 channels, 64 complex states, length 4096",
        layer,
        _sides("s4d", "fused"),
        both_parts,
        BATCHED,
        tolerance=1e-3,
    ),
)
