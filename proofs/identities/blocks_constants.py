"""The published constants of blocks: initial values, and sizes where a block is given its width alone.

A random initial value is shown by a sample of at least 256: all numbers are in the range, the outermost within 20/n of
its ends, and the distribution function within √(10/n) of the uniform one, which a right sample misses with a chance
below 10⁻⁸ (Dvoretzky, Kiefer and Wolfowitz).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import scipy.special
from hypothesis import strategies as st

from models.attention import positions
from models.blocks import MIXERS, BlockConfig
from proofs.checker.statements import Instance, bounded, identity
from proofs.checker.strategies import Strategy

CHAPTER = 18

MAMBA, MAMBA2 = "gu2023mamba", "dao2024mamba2"
U = 2.0**-24  # parameters are float32

Seed = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 2**32 - 1)))]
Values = Callable[[Any], np.ndarray]


def make(mixer: str, seed: int = 0, width: int = 32, heads: int = 4) -> Any:
    block = MIXERS[mixer]
    config = BlockConfig(
        width, heads, form=block.default_form, chunk_size=16, states=block.default_states, start=block.starts[0]
    )
    return block(config, np.random.default_rng(seed))


def is_uniform(sample: np.ndarray, low: float, high: float) -> Any:
    """Return what is at most what of a sample that is uniform between two ends, both in units of their distance."""
    u = np.sort((sample.ravel().astype(float) - low) / (high - low))
    n = u.size
    distance = abs(u - (np.arange(n) + 0.5) / n).max()
    left = [-u[0], u[0], u[-1] - 1, 1 - u[-1], distance]
    return np.array(left), np.array([1e-5, 20 / n, 1e-5, 20 / n, 1 / n + math.sqrt(10 / n)])


def is_normal(sample: np.ndarray, deviation: float) -> Any:
    return is_uniform(scipy.special.ndtr(sample.astype(float) / deviation), 0, 1)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x.astype(float)))


def over(values: dict[str, Values]) -> list[Instance]:
    return [Instance(mixer, {"mixer": mixer, "values": function}, {}) for mixer, function in values.items()]


# Steps and rates


@bounded(
    "Steps start log-uniform from 0.001 to 0.1: softplus of the bias",
    source=f"{MAMBA}, section 3.6, with a uniform draw; mamba-code, mamba_ssm/modules/mamba_simple.py; "
    f"{MAMBA2}, section 7.1; yang2025gated, section 3.4; minigrad, models/blocks/kda.py, which takes Mamba-2's",
    over=over(
        {
            "mamba": lambda block: block.dt_proj.bias,
            "mamba2": lambda block: block.dt_bias,
            "gated_delta_rule": lambda block: block.decay_bias,
            "kda": lambda block: block.forget_gate.dt_bias,
        }
    ),
    only=("float64",),
)
def steps_are_log_uniform(seed: Seed, mixer: str, values: Values):
    return is_uniform(np.log(softplus(values(make(mixer, seed, width=256, heads=256)))), math.log(1e-3), math.log(1e-1))


@bounded(
    "Time-invariant models learn log Δ, from a log-uniform Δ from 0.001 to 0.1",
    source="gu2022s4d, section 5 (place not verified); s4-code, models/s4/s4d.py",
    over=over({"s4": lambda block: block.log_delta, "s4d": lambda block: block.log_delta}),
    only=("float64",),
)
def log_steps_are_uniform(seed: Seed, mixer: str, values: Values):
    return is_uniform(values(make(mixer, seed, width=256)), math.log(1e-3), math.log(1e-1))


@bounded(
    "Rates A of heads start uniform from 1 to 16",
    source="mamba-code, mamba_ssm/modules/mamba2.py; fla, fla/layers/kda.py; fla, fla/layers/gated_deltanet.py, from 0",
    over=over(
        {
            "mamba2": lambda block: block.A_log,
            "gated_delta_rule": lambda block: block.decay_log_rate,
            "kda": lambda block: block.forget_gate.A_log,
        }
    ),
    only=("float64",),
)
def rates_are_uniform(seed: Seed, mixer: str, values: Values):
    return is_uniform(np.exp(values(make(mixer, seed, width=256, heads=256)).astype(float)), 1, 16)


@bounded(
    "Mamba's A starts as −(1 … N) in every channel (S4D-Real)",
    source=f"{MAMBA}, section 3.6; gu2022s4d, section 4",
    only=("float64",),
)
def mamba_rates_are_whole_numbers():
    block, n = make("mamba"), np.arange(1, 17)
    return abs(np.exp(block.A_log.astype(float)) - n), np.broadcast_to(4 * U * n, (64, 16))


@identity(
    "Skips D start as 1",
    source="mamba-code, mamba_ssm/modules/mamba_simple.py and mamba2.py",
    over=over({"mamba": lambda block: block.D, "mamba2": lambda block: block.D}),
    only=("float64",),
)
def skips_start_as_one(mixer: str, values: Values):
    D = values(make(mixer)).astype(float)
    return D, np.ones(D.shape)


@bounded(
    "D starts normal with variance 1",
    source="s4-code, models/s4/s4d.py",
    over=over({mixer: lambda block: block.D for mixer in ("s4", "s4d", "lssl")}),
    only=("float64",),
)
def skips_start_normal(seed: Seed, mixer: str, values: Values):
    return is_normal(values(make(mixer, seed, width=256)), 1)


@bounded(
    "C starts normal with variance 1, as complex numbers where it is complex",
    source="s4-code, models/s4/s4d.py",
    over=over(
        {"s4": lambda block: 2**0.5 * block.C, "s4d": lambda block: 2**0.5 * block.C, "lssl": lambda block: block.C}
    ),
    only=("float64",),
)
def outputs_start_normal(seed: Seed, mixer: str, values: Values):
    return is_normal(values(make(mixer, seed)), 1)


# Sizes


def shapes(block: Any) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in block.named_parameters().items()}


def are(mixer: str, **expected: tuple[int, ...]) -> Any:
    """Return the shapes of these parameters of a block of width 32 with 4 heads, and those expected."""
    ours = shapes(make(mixer))
    return [np.array(ours[name.replace("__", ".")]) for name in expected], [np.array(x) for x in expected.values()]


@identity(
    "Mamba: E = 2, N = 16, R = ⌈width/16⌉, a convolution of width 4",
    source=f"{MAMBA}, section 3.4; mamba-code, mamba_ssm/modules/mamba_simple.py, for N and R",
    only=("float64",),
)
def sizes_of_mamba():
    return are(
        "mamba", x_proj__weight=(2 + 2 * 16, 64), conv1d__weight=(64, 4), A_log=(64, 16), dt_proj__weight=(64, 2)
    )


@identity(
    "Mamba-2: E = 2, one group of B and C, a convolution of width 4",
    source=f"{MAMBA2}, section 7.1; mamba-code, mamba_ssm/modules/mamba2.py",
    only=("float64",),
)
def sizes_of_mamba2():
    return are(
        "mamba2", in_proj__weight=(64 + 64 + 2 * 64 + 4, 32), conv1d__weight=(64 + 2 * 64, 4), norm__weight=(64,)
    )


@identity("Gated linear attention: the gate has rank 16", source="yang2024gla, section 4.4", only=("float64",))
def rank_of_the_gate():
    return are("gated_linear_attention", decay_in__weight=(16, 32), decay_out__weight=(32, 16))


@identity(
    "TTT-MLP is four times as wide inside, Titans' memory twice; both are of two layers",
    source="sun2024ttt, section 2.7; minigrad, models/blocks/titans.py: Titans gives no width",
    only=("float64",),
)
def widths_inside():
    ttt = are("ttt_mlp", inner__0=(4, 8, 32), inner__1=(4, 1, 32), inner__2=(4, 32, 8), inner__3=(4, 1, 8))
    titans = are("titans", inner__0=(4, 8, 16), inner__1=(4, 16, 8))
    return (ttt[0], titans[0]), (ttt[1], titans[1])


# Inner models


@bounded(
    "TTT's inner matrices start normal with deviation 0.02",
    source="ttt-code, modeling_ttt.py",
    over=over({"ttt_linear": lambda block: block.inner[0], "ttt_mlp": lambda block: block.inner[2]}),
    only=("float64",),
)
def inner_matrices_start_normal(seed: Seed, mixer: str, values: Values):
    return is_normal(values(make(mixer, seed, width=128)), 0.02)


@identity(
    "Biases of inner models start as 0, their norms as γ = 1 and β = 0",
    source="ttt-code, modeling_ttt.py",
    over=[Instance(mixer, {"mixer": mixer}, {}) for mixer in ("ttt_linear", "ttt_mlp", "titans")],
    only=("float64",),
)
def inner_norms_start_as_the_identity(mixer: str):
    block = make(mixer)
    biases = [array.astype(float) for array in block.inner if array.shape[1] == 1]
    start = [*biases, block.gamma.astype(float), block.beta.astype(float)]
    return start, [*(0 * b for b in biases), np.ones((4, 1, 8)), np.zeros((4, 1, 8))]


@bounded(
    "Titans starts with θ = σ(−2) (1 − η)/K and α = σ(−6) where the input is 0: a token is kept for some 400",
    source="minigrad, models/blocks/titans.py: the paper gives no initial values",
    only=("float64",),
)
def titans_starts_to_forget_slowly():
    block = make("titans")
    rate, forget = (1 / (1 + np.exp(-gate.bias.astype(float))) for gate in (block.rate, block.forget))
    expected = np.concatenate([np.full(4, 1 / (1 + math.exp(2))), np.full(4, 1 / (1 + math.exp(6)))])
    lengths = abs(1 / forget - 404.43)
    errors = np.concatenate([abs(np.concatenate([rate, forget]) - expected), lengths])
    return errors, np.concatenate([8 * U * expected, np.full(4, 0.01)])


@identity(
    "Titans' attention has 4 persistent tokens",
    source="minigrad, models/blocks/window.py: behrouz2025titans gives no number",
    only=("float64",),
)
def persistent_tokens():
    return are("titans_mag", attention__persistent=(4, 32))


# Positions


@bounded(
    "Rotary frequencies are 10000^(−2i/K), from 1 down to 10000^(−1 + 2/K)",
    source="su2021, section 3.2.2 and eq. 15",
    only=("float64",),
)
def rotary_frequencies_are_the_paper_s():
    widths = [2, 4, 64, 128]
    theirs = [math.exp(-2 * i / K * math.log(10_000)) for K in widths for i in range(K // 2)]
    ours = np.concatenate([positions.rotary_frequencies(K) for K in widths])
    block = make("softmax")
    ours, theirs = np.concatenate([ours, block.frequencies]), np.array([*theirs, 1, 0.1, 0.01, 0.001])
    return abs(ours - theirs), 2.0**-48 * theirs
