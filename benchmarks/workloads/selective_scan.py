"""The selective scan and its dual with one rate a head, at the size of one layer of Mamba-130M's smaller sister.

One sequence of 2048 tokens. The peers are the strong ways to write it (`benchmarks.peers`); Hugging Face's loop keeps
every state in its graph and takes the square of the length to differentiate, so it is asked for both passes at 512.
"""

from __future__ import annotations

import numpy as np

from benchmarks.functions import (
    InputsAndWeights,
    Side,
    forward_and_backward,
    jax,
    minigrad,
    pytorch,
    single_precision,
    workload,
)

TORCH, JAX = "benchmarks.peers.torch_state_spaces", "benchmarks.peers.jax_state_spaces"
SIZES = {"batch": 1, "length": 2048, "channels": 512, "states": 16}
HEADS = {"heads": 8, "length": 2048, "width": 64, "states": 64}


def scanned(batch: int, length: int, channels: int, states: int) -> InputsAndWeights:
    """Draw u, Δ, A, B, C and D, with the steps and rates of a Mamba at its start."""
    rng = np.random.default_rng(0)
    wide, narrow = (batch, length, channels), (batch, length, states)
    u, weights, B, C = (rng.standard_normal(shape) for shape in (wide, wide, narrow, narrow))
    A = -np.broadcast_to(np.arange(1.0, states + 1), (channels, states))
    return single_precision(weights, u=u, delta=_steps(rng, wide), A=A, B=B, C=C, D=rng.standard_normal(channels))


def dual(heads: int, length: int, width: int, states: int) -> InputsAndWeights:
    """Draw x, Δ, A, B and C, heads first, with the steps and rates of a Mamba-2 at its start."""
    rng = np.random.default_rng(0)
    wide, narrow = (heads, length, width), (heads, length, states)
    x, weights, B, C = (rng.standard_normal(shape) for shape in (wide, wide, narrow, narrow))
    return single_precision(weights, x=x, delta=_steps(rng, wide[:-1]), A=-rng.uniform(1, 16, heads), B=B, C=C)


def _steps(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw Δ log-uniform in 0.001…0.1 (the code of Gu and Dao 2023; section 3.6 has it uniform)."""
    return np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), shape))


def scan(*, backward: bool, batch: int, length: int, channels: int, states: int) -> dict:
    """Return the least work per token, channel and state: e^ΔA, then aₜhₜ₋₁ + (Δu)B and Ch, five operations.

    Backward, both again and six products more, an operation or two each: dh, dΔ, dA, dB, dC, du. No state is moved.
    """
    steps, passes = batch * length * channels * states, 2 if backward else 1
    wide, narrow = batch * length * channels, batch * length * states
    # u Δ y; dy and du dΔ; B C; dB dC
    moved_bytes = 4 * (wide * (8 if backward else 3) + narrow * (6 if backward else 2))
    return {"exponentials": passes * steps, "operations": (17 if backward else 5) * steps, "bytes": moved_bytes}


def heads(*, backward: bool, heads: int, length: int, width: int, states: int) -> dict:
    """Return the least work of a head's N × P state: decay, write Bᵀx and read CS are five operations a number.

    Each product has two gradients. A decay is an exponential a token, made again on the way back.
    """
    tokens = heads * length
    numbers = tokens * (width + 2 * states + 1)
    moved_bytes = 4 * (numbers * (3 if backward else 1) + tokens * width * (2 if backward else 1))
    operations = 5 * tokens * width * states * (3 if backward else 1)
    return {"exponentials": tokens * (1 + backward), "operations": operations, "bytes": moved_bytes}


OURS = Side("minigrad fused", minigrad, "models.ssm.selective_scan:fused")
HUGGING_FACE = Side("Hugging Face's loop, PyTorch", pytorch, f"{TORCH}:selective_scan_hugging_face", ("transformers",))
SIDES = (
    OURS,
    Side("JAX lax.scan", jax, f"{JAX}:selective_scan"),
    Side("JAX lax.scan, rematerialised", jax, f"{JAX}:selective_scan_remat"),
    Side("JAX lax.associative_scan", jax, f"{JAX}:selective_scan_associative"),
    Side("PyTorch, two levels of chunks", pytorch, f"{TORCH}:selective_scan"),
    Side("mamba.py, parallel scan", pytorch, f"{TORCH}:selective_scan_mamba_py", ("mambapy",)),
)
FORWARD, SHORT, FEW = (*SIDES, HUGGING_FACE), (OURS, HUGGING_FACE), {**SIZES, "length": 512}
DUAL = (
    Side("minigrad fused", minigrad, "models.ssm.ssd:fused"),
    Side("PyTorch, the paper's chunks", pytorch, f"{TORCH}:ssd"),
    Side("JAX, chunks and a scan", jax, f"{JAX}:ssd"),
)
TITLE = "The selective scan: {} tokens, 512 channels, 16 states"
WORKLOADS = (
    workload("selective_scan", TITLE.format(2048), scanned, FORWARD, scan, SIZES, backward=False, tolerance=2e-5),
    workload("selective_scan", TITLE.format(2048), scanned, SIDES, scan, SIZES, backward=True, tolerance=2e-5),
    workload("selective_scan_512", TITLE.format(512), scanned, SHORT, scan, FEW, backward=True, tolerance=2e-5),
    *forward_and_backward(
        "ssd", "State-space duality: 8 heads of 64, 64 states, length 2048", dual, DUAL, heads, HEADS
    ),
)
