"""Our side where a workload asks for less than a form does, or for its parameters as they are trained.

`jax` and `pytorch` have their own functions of the same names in `benchmarks.peers`.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.pytree import map_arrays, replace_arrays
from models import linear_systems
from models.memory import titans, ttt
from models.recurrent import rnn as simple_network
from models.ssm import s4
from models.ssm import s4d as mechanism
from models.vision import sam
from models.vision import vit as vision_transformer
from models.vision.encoder import EncoderConfig
from models.vision.sam import image_encoder, windows


def s4d_kernel(log_rate: Any, frequency: Any, C: Any, log_delta: Any, *, length: int) -> Any:
    """Return K̄, (D, L), as the fused form has it, with B = 1 as in `models.blocks.s4d`; C (2, D, N) holds two parts."""
    Lambda = 1j * frequency - mg.exp(log_rate)
    A, B = mechanism.discrete(Lambda, mg.ones_like(Lambda), mg.exp(log_delta), "zoh")
    return mechanism.compiled_responses((C[0] + 1j * C[1]) * B, A, length)


def s4d(u: Any, log_rate: Any, frequency: Any, C: Any, D: Any, log_delta: Any) -> Any:
    """Return y, (B, L, D), of the whole mechanism, with B = 1."""
    Lambda = 1j * frequency - mg.exp(log_rate)
    return mechanism.fused(u, Lambda, mg.ones_like(Lambda), C[0] + 1j * C[1], D, mg.exp(log_delta))[0]


def s4_kernel(log_rate: Any, frequency: Any, P: Any, B: Any, C: Any, log_delta: Any, *, length: int) -> Any:
    """Return K̄, (D, L), from C̃ as the paper trains it; P, B and C (2, D, N) hold two parts."""
    Lambda, (P, B, C) = 1j * frequency - mg.exp(log_rate), (x[0] + 1j * x[1] for x in (P, B, C))
    spectrum = s4.kernel_spectrum(Lambda, P, B, C, mg.exp(log_delta), length, s4.compiled_cauchy)
    return mg.fft.irfft(spectrum, length)


def rnn(x: Any, U: Any, W: Any, b: Any) -> Any:
    """Return y, (B, L, H), of the simple recurrent network for x (B, L, D)."""
    return simple_network.fused(x @ U.mT + b, W)[0]


def convolution(u: Any, K: Any) -> Any:
    """Return K ∗ u for u (B, D, L)."""
    return linear_systems.causal_convolution(u.mT, K).mT


def windowed_attention(x: Any, *weights: Any, window: int, heads: int) -> Any:
    """Return attention in windows of x (B, H, W, D), by weights in the order of `MapAttention`."""
    attention = replace_arrays(_map_attention(x.shape[-1], window, heads), list(weights))
    return windows.join(attention(windows.split(x, window)), *x.shape[1:3])


@cache
def _map_attention(width: int, window: int, heads: int) -> Any:
    config = sam.ImageEncoderConfig(width=width, heads=heads, form="fused")
    return image_encoder.MapAttention(config, window, np.random.default_rng(0))


def vit(pixels: Any, *weights: Any, layers: int, heads: int) -> Any:
    """Return the logits (B, classes) of ViT, given the weights in the order of `models.vision.vit.ViT`."""
    side, (width, channels, patch, _) = pixels.shape[-1], weights[0].shape
    model = _vit(
        side, patch, channels, weights[-1].shape[0], EncoderConfig(width, layers, heads, qkv_bias=False, form="fused")
    )
    return replace_arrays(model, list(weights))(pixels)


@cache
def _vit(side: int, patch: int, channels: int, classes: int, encoder: EncoderConfig) -> Any:
    config = vision_transformer.ViTConfig(side, side, patch, channels, classes, encoder=encoder)
    model = vision_transformer.ViT(config, np.random.default_rng(0))
    return map_arrays(lambda array: array[:0], model)  # the weights are given


def _ttt_linear(
    form: Any, q: Any, k: Any, v: Any, eta: Any, W: Any, b: Any, gamma: Any, beta: Any, *, batch_size: int
) -> Any:
    """Return y, (H, L, d), of TTT-Linear."""
    return form(q, k, v, eta, ttt.Weights(((W, b),), (gamma, beta)), batch_size=batch_size)[0]


def _titans_mlp(
    form: Any, q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, W1: Any, W2: Any, *, batch_size: int
) -> Any:
    """Return y, (H, L, d), of Titans with an MLP of two layers."""
    return form(q, k, v, theta, log_eta, log_decay, ((W1,), (W2,)), batch_size=batch_size)[0]


ttt_linear, ttt_linear_dual, ttt_linear_primal = (
    partial(_ttt_linear, form) for form in (ttt.fused, ttt.dual, ttt.primal)
)
titans_mlp, titans_mlp_chunkwise, titans_mlp_recurrent = (
    partial(_titans_mlp, form) for form in (titans.fused, titans.chunkwise, titans.recurrent)
)
