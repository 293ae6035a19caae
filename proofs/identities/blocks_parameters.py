"""The parameters of blocks: what channels share, which layers have biases, dtypes, and RWKV's initial values.

Initial values of RWKV are the authors' of a first layer, channel by channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from models.blocks import MIXERS, BlockConfig
from models.blocks.latent_attention import LatentAttentionBlock, LatentAttentionConfig
from models.blocks.rwkv4 import RWKV4Config
from models.blocks.rwkv7 import RWKV7Config
from proofs.checker.statements import Instance, bounded, identity
from proofs.identities.blocks_constants import are, make
from proofs.layers import rng

CHAPTER = 18

U = 2.0**-24  # parameters are float32
WIDTHS = (1, 2, 32)

# Sizes and biases


@identity(
    "Every channel of S4 has Λ, P, B, C, D and Δ of its own, 32 of 64 eigenvalues for the pairs; so has S4D, without P "
    "and B",
    source="s4-code, models/s4/s4.py and models/s4/s4d.py; minigrad, models/blocks/s4.py",
    over=[
        Instance("s4", {"mixer": "s4", "pairs": ("P", "B", "C")}, {}),
        Instance("s4d", {"mixer": "s4d", "pairs": ("C",)}, {}),
    ],
    only=("float64",),
)
def channels_share_nothing(mixer: str, pairs: tuple[str, ...]):
    parts = dict.fromkeys(pairs, (2, 32, 32))  # real and imaginary
    return are(mixer, log_rate=(32, 32), frequency=(32, 32), D=(32,), log_delta=(32,), **parts)


MEMORY = ("memory.conv", "memory.rate", "memory.momentum", "memory.forget")
BIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("softmax", "linear_attention", "delta_rule", "gated_delta_rule"), ("conv",)),
    **dict.fromkeys(("ttt_linear", "ttt_mlp"), ("conv", "rate")),
    **dict.fromkeys(("titans_mac", "titans_mag", "titans_mal"), ("attention.conv", *MEMORY)),
    **dict.fromkeys(("lstm", "lssl", "s4", "s4d"), ("output",)),
    "titans": ("conv", "rate", "momentum", "forget"),
    "gated_linear_attention": ("conv", "decay_out"),
    "kda": (),
    "rnn": ("enter", "output"),
    "mamba": ("conv1d", "dt_proj"),
    "mamba2": ("conv1d",),
    "rwkv4": ("norm",),
    "rwkv7": ("att.ln_x", "norm"),
}


@identity(
    "Convolutions, layer norms, gates of one number a head and gated units have biases; projections to q, k and v and "
    "from the heads have none",
    source="mamba-code, mamba_ssm/modules/mamba_simple.py and mamba2.py; yang2024gla, section 4.4; "
    "s4-code, models/s4/s4d.py; rwkv-code, RWKV-v4neo/src/model.py and RWKV-v7/train_temp/src/model.py; "
    "minigrad, models/blocks, for the others",
    over=[Instance(mixer, {"mixer": mixer, "biased": biased}, {}) for mixer, biased in BIASES.items()],
    only=("float64",),
)
def projections_have_no_bias(mixer: str, biased: tuple[str, ...]):
    names, expected = set(make(mixer).named_parameters()), {f"{layer}.bias" for layer in biased}
    ours = np.array([float(name.endswith(".bias") and name in names) for name in sorted(names | expected)])
    return ours, np.array([float(name in expected) for name in sorted(names | expected)])


# Precision


def of_mixer(mixer: str, *dtype: Any) -> list[Any]:
    return [MIXERS[mixer](BlockConfig(8, 2, conv=2, form="recurrent", states=4), rng(), *dtype)]


def of_rwkv4(mixer: str, *dtype: Any) -> list[Any]:
    block = make(mixer)
    return [type(part)(RWKV4Config(8, 8, 16), rng(), *dtype) for part in (block.attention, block.feed_forward)]


def of_rwkv7(mixer: str, *dtype: Any) -> list[Any]:
    block = make(mixer)
    return [type(part)(RWKV7Config(8, 2, 16, 2, 2, 2, 2), rng(), *dtype) for part in (block.att, block.ffn)]


def of_latents(_: str, *dtype: Any) -> list[Any]:
    return [LatentAttentionBlock(LatentAttentionConfig(8, 2, 2, 1, 3, 3, query_rank=2, bias=True), rng(), *dtype)]


MODULES: dict[str, Callable[..., list[Any]]] = {
    **dict.fromkeys(("mamba", "mamba2", "kda"), of_mixer),
    "rwkv4": of_rwkv4,
    "rwkv7": of_rwkv7,
    "latent_attention": of_latents,
}


@identity(
    "All parameters have the dtype that is asked for, float32 where none is",
    source="minigrad, models/blocks",
    over=[Instance(name, {"name": name, "modules": modules}, {}) for name, modules in MODULES.items()],
    only=("float64",),
)
def parameters_have_one_dtype(name: str, modules: Callable[..., list[Any]]):
    made = [modules(name), modules(name, np.float32), modules(name, np.float64)]
    bits = [[8.0 * x.dtype.itemsize for part in parts for x in part.named_parameters().values()] for parts in made]
    return np.array(bits), np.array([[n] * len(bits[0]) for n in (32.0, 32.0, 64.0)])


# Initial values of RWKV


def near(pairs: list[tuple[Any, list[float]]]) -> tuple[Any, Any]:
    """Return how far float32 parameters are from numbers, and a few of their ulp."""
    errors = [abs(ours.astype(float).ravel() - np.array(theirs)) for ours, theirs in pairs]
    return errors, [4 * U * (1 + abs(np.array(theirs))) for _, theirs in pairs]


def portions(n: int) -> list[float]:
    """Return i/(n − 1) for n channels, 0 for one."""
    return [i / (n - 1) for i in range(n)] if n > 1 else [0.0]


@bounded(
    "RWKV-4 starts from log w = −5 + 8 (i/(n − 1))^0.7 and u = log 0.3 + (0, ½, −½, …) in channel i of n, and mixes "
    "i/n of a token with the one before for keys and values, √(i/n) for the receptance; channel mixing i/n for both",
    source="rwkv-code, RWKV-v4neo/src/model.py, of the first layer",
    only=("float64",),
)
def rwkv4_starts_as_a_first_layer():
    pairs = []
    for n in WIDTHS:
        block = make("rwkv4", width=n, heads=1)
        time, channel, ramp = block.attention, block.feed_forward, [i / n for i in range(n)]
        pairs += [
            (time.time_decay, [-5 + 8 * math.pow(x, 0.7) for x in portions(n)]),
            (time.time_first, [math.log(0.3) + (0, 0.5, -0.5)[i % 3] for i in range(n)]),
            (time.time_mix_receptance, [math.sqrt(x) for x in ramp]),
        ]
        shifts = time.time_mix_key, time.time_mix_value, channel.time_mix_key, channel.time_mix_receptance
        pairs += [(shift, ramp) for shift in shifts]
    return near(pairs)


@bounded(
    "RWKV-7's time mixing starts from w0 = −6.5 + 5 (i/(n − 1))^0.85, κ = 0.85, k_a = 1, a0 = r_k = 0, low-rank maps "
    "that are 0, and x_□ = 1 − (i/n)^p with p = 0.2 for r and g, 0.9 for w and a, 0.7 for k and v, its channel mixing "
    "from x_k = 1 − i/n",
    source="rwkv-code, RWKV-v7/train_temp/src/model.py, of the first layer, in a version before its w0, a0, k_k, k_a "
    "and r_k changed (place not verified)",
    only=("float64",),
)
def rwkv7_starts_as_a_first_layer():
    pairs = []
    for n in WIDTHS:
        block = make("rwkv7", width=n, heads=1)
        time = block.att
        pairs += [(time.w0, [-6.5 + 5 * math.pow(x, 0.85) for x in portions(n)])]
        pairs += [(time.k_k, [0.85] * n), (time.k_a, [1.0] * n), (time.a0, [0.0] * n), (time.r_k, [0.0] * n)]
        pairs += [(x, [0.0] * x.size) for x in (time.w1 @ time.w2, time.a1 @ time.a2, time.g1 @ time.g2)]
        for shift, p in zip("rgwakv", (0.2, 0.2, 0.9, 0.9, 0.7, 0.7), strict=True):
            pairs.append((getattr(time, f"x_{shift}"), [1 - math.pow(i / n, p) for i in range(n)]))
        pairs.append((block.ffn.x_k, [1 - i / n for i in range(n)]))
    return near(pairs)
