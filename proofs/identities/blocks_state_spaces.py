"""Blocks of state spaces: Mamba's, Mamba-2's, S4's, S4D's and LSSL's.

Each is written out token by token from its paper, beside the block with the same weights, drawn for every parameter.
The left side is the block; the right side uses nothing of the block's or the mechanism's file.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from models.blocks import MIXERS, BlockConfig
from models.blocks.mamba import MambaConfig
from models.blocks.mamba2 import Mamba2Config
from proofs.checker.statements import bounded, identity
from proofs.checker.strategies import LARGE, Strategy
from proofs.identities.blocks import FLOATS, tokens
from proofs.layers import (
    PRECISIONS,
    TO_HALF_THE_DIGITS,
    Seed,
    Weights,
    compare,
    convolve,
    drawn_weights,
    heads,
    linear,
    mixed_channels,
    outer,
    parts,
    rms_norm,
    rng,
    silu,
    softplus,
    times,
    with_weights,
)

CHAPTER = 18

MAMBA, MAMBA2, S4, S4D = "gu2023mamba", "dao2024mamba2", "gu2022s4", "gu2022s4d"
WIDTH, N = 3, 4  # channels, and the states of each
SIZES = {"T": st.integers(1, 4), "*batch": st.sampled_from([(), (2,)])}

Inputs = Annotated[Any, Strategy(f"*batch T {WIDTH}", LARGE, sizes=SIZES)]

# Selective


def make_mamba(norm_eps: float | None = None) -> Any:
    sizes = MambaConfig(WIDTH, inner=3, states=2, rank=2, conv=3, form="chunkwise", chunk_size=2, norm_eps=norm_eps)
    return MIXERS["mamba"](sizes, rng())  # type: ignore[arg-type]


def make_mamba2() -> Any:
    sizes = Mamba2Config(WIDTH, inner=8, heads=4, states=2, groups=2, conv=2, form="chunkwise", chunk_size=2)
    return MIXERS["mamba2"](sizes, rng())  # type: ignore[arg-type]


@identity(
    "Mamba: x, z = W_in input, u = SiLU(conv(x)), δ, B, C = W_x u, Δ = softplus(W_Δ δ + b), h = exp(ΔA) h + ΔB u with "
    "A = −exp(A_log), output = W_out ((C h + D u) ⊙ SiLU(z))",
    source=f"{MAMBA}, sections 3.4 and 3.6, figure 3; mamba-code, for ΔB; talk-mamba, slide 25",
    over=drawn_weights(make_mamba),
    only=FLOATS,
)
def mamba(x: Inputs, w: Weights):
    x_, z = heads(linear(w, "in_proj", x), 2)
    u = silu(convolve(w, "conv1d", x_))
    low, B, C = parts(linear(w, "x_proj", u), 2, 2, 2)
    delta = softplus(linear(w, "dt_proj", low))
    A, h, y = -mg.exp(w["A_log"]), 0, []
    for u_t, delta_t, B_t, C_t in tokens(u, delta, B, C):
        h = mg.exp(delta_t[..., None] * A) * h + outer(delta_t * u_t, B_t)
        y.append(mg.sum(h * C_t[..., None, :], axis=-1) + w["D"] * u_t)
    return with_weights(make_mamba(), w)(x)[0], linear(w, "out_proj", mg.stack(y, axis=-2) * silu(z))


@identity(
    "Mamba-2: z, x B C, δ = W_in input, x, B, C = SiLU(conv(x B C)), Δ = softplus(δ + b), S = exp(ΔA) S + B (Δx)ᵀ with "
    "A = −exp(A_log) one a head, y = S C + D x, output = W_out RMSNorm(y ⊙ SiLU(z)), norm, B and C of a group of heads",
    source=f"{MAMBA2}, section 7.1 and figure 6; mamba-code, mamba_ssm/modules/mamba2.py, for the norm after the gate",
    over=drawn_weights(make_mamba2),
    only=FLOATS,
)
def mamba2(x: Inputs, w: Weights):
    z, mixed, low = parts(linear(w, "in_proj", x), 8, 16, 4)
    u, B, C = parts(silu(convolve(w, "conv1d", mixed)), 8, 4, 4)
    delta, A, y = softplus(low + w["dt_bias"]), -mg.exp(w["A_log"]), []
    for i, u_h in enumerate(heads(u, 4)):
        S, y_h = 0, []
        for u_t, delta_t, B_t, C_t in tokens(u_h, heads(delta, 4)[i], heads(B, 2)[i // 2], heads(C, 2)[i // 2]):
            S = mg.exp(delta_t * A[i])[..., None] * S + outer(B_t, delta_t * u_t)
            y_h.append(times(C_t, S) + w["D"][i] * u_t)
        y.append(mg.stack(y_h, axis=-2))
    groups = heads(mg.concat(y, axis=-1) * silu(z), 2)
    normed = mg.concat([rms_norm(group, 1e-5) for group in groups], axis=-1) * w["norm.weight"]
    return with_weights(make_mamba2(), w)(x)[0], linear(w, "out_proj", normed)


# Time-invariant


def make(mixer: str) -> Any:
    return MIXERS[mixer](BlockConfig(WIDTH, states=N, start="hippo", form="recurrent"), rng())


def complex_pairs(x: Any) -> Any:
    """Return complex numbers and their conjugates, (D, N), from real and imaginary parts (2, D, N/2)."""
    return mg.concat([x[0] + 1j * x[1], x[0] - 1j * x[1]], axis=-1)


def run(u: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    """Return y = C h + D u of h = A h + B u, for matrices A (D, N, N) and columns B, C (D, N)."""
    h, y = 0 * B, []
    for (u_t,) in tokens(u):
        h = mg.sum(A * h[..., None, :], axis=-1) + B * u_t[..., None]
        y.append(mg.sum(C * h, axis=-1))
    return mg.real(mg.stack(y, axis=-2)) + D * u


def bilinear(A: Any, B: Any, delta: Any) -> tuple[Any, Any]:
    """Return (I − ΔA/2)⁻¹ (I + ΔA/2) and (I − ΔA/2)⁻¹ ΔB, a step for each channel."""
    identity_, half = namespace(A).eye(A.shape[-1], dtype=A.dtype), delta[:, None, None] * A / 2
    rows = mg.concat([identity_ + half, (delta[:, None] * B)[..., None]], axis=-1)
    solved = mg.linalg.solve(identity_ - half, rows)
    return solved[..., :-1], solved[..., -1]


@bounded(
    "S4: A = Λ − P Pᴴ over conjugate pairs, Λ = −exp(log_rate) + i frequency, Δ = exp(log_delta), the bilinear method; "
    "y = C h + D u, output = a ⊙ σ(b), a, b = GELU(y) W + c" + TO_HALF_THE_DIGITS,
    source=f"{S4}, theorem 1, eq. 3 and section 3.4; s4-code, models/s4/s4.py, for the GELU and the gated unit",
    over=PRECISIONS,
    only=("float64",),
)
def s4(seed: Seed, precision: str):
    return compare(make("s4"), written_out_s4, seed, precision, WIDTH)


def written_out_s4(w: Weights, x: Any) -> Any:
    Lambda, P, B, C = map(complex_pairs, (eigenvalues(w), w["P"], w["B"], w["C"]))
    A = Lambda[..., None] * namespace(Lambda).eye(N, dtype=Lambda.dtype) - P[..., :, None] * mg.conj(P)[..., None, :]
    return mixed_channels(w, run(x, *bilinear(A, B, mg.exp(w["log_delta"])), C, w["D"]))


@identity(
    "S4D: A = Λ alone, B = 1, zero-order hold, h = exp(ΔΛ) h + Λ⁻¹ (exp(ΔΛ) − 1) u; the rest as S4's",
    source=f"{S4D}, section 3; s4-code, models/s4/s4d.py",
    over=drawn_weights(lambda: make("s4d")),
    only=FLOATS,
)
def s4d(x: Inputs, w: Weights):
    Lambda, C = map(complex_pairs, (eigenvalues(w), w["C"]))
    A = mg.exp(mg.exp(w["log_delta"])[:, None] * Lambda)
    y = run(x, A[..., None] * namespace(A).eye(N, dtype=A.dtype), (A - 1) / Lambda, C, w["D"])
    return with_weights(make("s4d"), w)(x)[0], mixed_channels(w, y)


def eigenvalues(w: Weights) -> Any:
    """Return the real and imaginary parts of Λ, (2, D, N/2)."""
    return mg.stack([-mg.exp(w["log_rate"]), w["frequency"]], axis=0)


@identity(
    "LSSL: A and B those of HiPPO-LegS for every channel, Δ on a grid of logarithms from 0.001 to 0.1, the bilinear "
    "method; the rest as S4's",
    source="gu2021lssl, eq. 4–5, section 4.1; gu2020hippo, theorem 2; minigrad, models/blocks/lssl.py, for the grid",
    over=drawn_weights(lambda: make("lssl")),
    only=FLOATS,
)
def lssl(x: Inputs, w: Weights):
    n = np.arange(N)
    below = np.sqrt(np.outer(2 * n + 1, 2 * n + 1))
    A = -np.where(n[:, None] > n, below, np.where(n[:, None] == n, n + 1, 0))
    constants = A, np.sqrt(2 * n + 1), 10 ** np.linspace(-3, -1, WIDTH)  # stored in float32
    A, B, delta = (mg.astype(to_library_of(x, c.astype(np.float32)), x.dtype) for c in constants)
    y = run(x, *bilinear(A, mg.stack([B] * WIDTH), delta), w["C"], w["D"])
    return with_weights(make("lssl"), w)(x)[0], mixed_channels(w, y)
