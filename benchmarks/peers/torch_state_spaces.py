"""State spaces in PyTorch, as a PyTorch user would write them for speed on a CPU.

The selective scan three ways: two levels, all chunks of 64 tokens at once and then the states between them, since a
loop over single tokens loses to it by far; mamba.py's parallel scan; Hugging Face's loop, where no CUDA is. The state
space dual as its paper lists it in 25 lines. S4D as its authors' file for readers has it.
"""

from __future__ import annotations

import inspect
import logging

import torch
from torch import Tensor


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, size: int = 64) -> Tensor:
    """Return y (B, L, D) by two levels of chunks."""
    batch, length, channels = u.shape
    chunks = (batch, length // size, size)
    log_a = (delta[..., None] * A).reshape(*chunks, channels, -1)
    x = ((delta * u)[..., None] * B[..., None, :]).reshape(log_a.shape)
    h, local_states = torch.zeros_like(x[:, :, 0]), []
    for a_t, x_t in zip(
        torch.exp(log_a).unbind(2), x.unbind(2), strict=True
    ):  # the gradient of a slice is as large as the array
        h = a_t * h + x_t
        local_states.append(h)
    a_sum = torch.cumsum(log_a, dim=2)
    initial_states, h = [], torch.zeros_like(h[:, 0])
    for decay, last in zip(torch.exp(a_sum[:, :, -1]).unbind(1), local_states[-1].unbind(1), strict=True):
        initial_states.append(h)
        h = decay * h + last
    states = torch.stack(local_states, 2) + torch.exp(a_sum) * torch.stack(initial_states, 1)[:, :, None]
    return (states.reshape(batch, length, channels, -1) @ C[..., None])[..., 0] + D * u


def selective_scan_mamba_py(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Return y by mamba.py's parallel scan."""
    from mambapy.pscan import pscan

    a = torch.exp(delta[..., None] * A)
    h = pscan(a, (delta * u)[..., None] * B[..., None, :])
    return (h @ C[..., None])[..., 0] + D * u


def selective_scan_hugging_face(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Return y by the loop that transformers' Mamba runs without its CUDA kernels; its axes are (B, D, L)."""
    logging.getLogger("transformers").setLevel(logging.ERROR)  # it advises to install its CUDA kernels
    from transformers.models.mamba import modeling_mamba

    scan = inspect.unwrap(modeling_mamba.mamba_selective_scan)
    return scan(u.mT, delta.mT, A, B.mT, C.mT, D).mT


def ssd(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, size: int = 64) -> Tensor:
    """Return y (H, L, P) by chunks, and by the dual of the recurrence between them (Dao and Gu 2024, listing 1)."""
    v, B, C = (z.unflatten(1, (-1, size)) for z in (delta[..., None] * x, B, C))
    log_decay = (delta * A[:, None]).unflatten(1, (-1, size))
    a_sum = log_decay.cumsum(-1)
    Y_diag = (_decays(log_decay) * (C @ B.mT)) @ v
    states = ((a_sum[..., -1:] - a_sum).exp()[..., None] * B).mT @ v  # (H, chunks, N, P)
    decay_chunk = _decays(torch.nn.functional.pad(a_sum[..., :-1, -1], (1, 0)))
    previous = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
    initial_states = torch.einsum("hij,hjnp->hinp", decay_chunk, previous)
    return (Y_diag + a_sum.exp()[..., None] * (C @ initial_states)).flatten(1, 2)


def _decays(log_decay: Tensor) -> Tensor:
    """Return the decay from s to t, exp of the sum of log_decay over s < r ≤ t; 0 where s > t."""
    T = log_decay.shape[-1]
    rows = log_decay[..., None].expand(*log_decay.shape, T)
    sums = rows.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(-1), 0).cumsum(-2)
    return sums.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), float("-inf")).exp()


def s4d_kernel(log_rate: Tensor, frequency: Tensor, C: Tensor, log_delta: Tensor, *, length: int) -> Tensor:
    """Return K (D, L) by all D·N·L powers, as s4d.py has it; C (2, D, N) holds real and imaginary parts."""
    Lambda, delta = torch.complex(-log_rate.exp(), frequency), log_delta.exp()[:, None]
    weights = torch.complex(C[0], C[1]) * (torch.exp(Lambda * delta) - 1) / Lambda
    powers = torch.exp((Lambda * delta)[..., None] * torch.arange(length))
    return 2 * torch.einsum("dn,dnl->dl", weights, powers).real


def s4_kernel(
    log_rate: Tensor, frequency: Tensor, P: Tensor, B: Tensor, C: Tensor, log_delta: Tensor, *, length: int
) -> Tensor:
    """Return K (D, L) from C̃ by Cauchy sums at every root of unity; P, B and C (2, D, N) hold two parts."""
    Lambda, half = torch.complex(-log_rate.exp(), frequency), log_delta.exp()[:, None] / 2
    P, B, C = (torch.complex(x[0], x[1]) for x in (P, B, C))
    angles = torch.pi * torch.arange(length // 2 + 1) / length
    s, c, poles = angles.sin(), angles.cos(), (half * Lambda)[..., None]
    weights = half[..., None] * torch.stack([C * B, C * P, P.conj() * B, P.conj() * P], 1)
    sums = weights @ (1 / (1j * s - c * poles)) + weights.conj() @ (1 / (1j * s - c * poles.conj()))
    cb, cp, pb, pp = sums.unbind(1)
    return torch.fft.irfft(torch.complex(c, s) * (cb - c * cp * pb / (1 + c * pp)), length)


def convolution(u: Tensor, K: Tensor) -> Tensor:
    """Return K ∗ u for u (B, D, L) by Fourier transforms of twice the length."""
    length = u.shape[-1]
    spectrum = torch.fft.rfft(u, 2 * length) * torch.fft.rfft(K, 2 * length)
    return torch.fft.irfft(spectrum, 2 * length)[..., :length]


def s4d(u: Tensor, log_rate: Tensor, frequency: Tensor, C: Tensor, D: Tensor, log_delta: Tensor) -> Tensor:
    """Return y (B, L, D): the kernel, the convolution and the skip."""
    K = s4d_kernel(log_rate, frequency, C, log_delta, length=u.shape[1])
    return convolution(u.mT, K).mT + D * u
