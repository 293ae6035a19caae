"""The gated delta rule in one pass, and its adjoint in two.

    eₜ = vₜ − kₜ Diag(αₜ) Sₜ₋₁          Sₜ = Diag(αₜ) Sₜ₋₁ + βₜ kₜᵀ eₜ          yₜ = qₜ Sₜ        Kimi Team 2025, eq. 1

backward, with dSₜ the cotangent of Sₜ, from the last token to the first:

    dSₜ = Diag(αₜ₊₁) (dSₜ₊₁ − kₜ₊₁ᵀ dvₜ₊₁) + qₜᵀ dyₜ          dvₜ = βₜ kₜ dSₜ          dβₜ = (kₜ dSₜ) eₜᵀ
    dqₜ = dyₜ Sₜᵀ          dkₜ = βₜ eₜ dSₜᵀ − αₜ ⊙ dvₜ Sₜ₋₁ᵀ          d log αₜ = αₜ ⊙ Σᵥ ((dSₜ − kₜᵀ dvₜ) ⊙ Sₜ₋₁)

dv comes first, with values in the lanes; then e and dv are known, S and dS are those of a gated linear attention that
wrote βe, and its adjoint does the second line, with keys in the lanes.

Work    and layout as in `models.kernels.delta_rule_core`, which makes e and dv, and `linear_attention_core`.
Memory  e, and S every 32 tokens.
Cost    four multiplications and three additions a token and entry of S forward, about four times that back.

One decay per token (Yang et al. 2025, eq. 10) stands for equal decays of all channels: its cotangent is the sum of
theirs.
"""

from typing import Any, NamedTuple

import numpy as np

from minigrad.compiled.layout import cut_out, flat_count
from models.kernels.delta_rule_core import attend, attend_backward, per_token
from models.kernels.gated_linear_attention import adjoint, decays
from models.kernels.linear_attention_core import STEPS, memory, sequence


class Saved(NamedTuple):
    """Residuals of the backward pass: the padded inputs, e, every 32nd state, and the shapes of the inputs."""

    q: np.ndarray  # (batch, T', K')
    k: np.ndarray
    beta: np.ndarray  # (batch, T')
    log_decay: Any  # (*batch, T) or (*batch, T, K) as it came
    e: np.ndarray  # (batch, T', V')
    boundary_states: np.ndarray  # (batch, ⌈T' / 32⌉, K', V')
    shapes: tuple[tuple[int, ...], ...]  # of q, v and S


def forward(q: Any, k: Any, v: Any, beta: Any, log_decay: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V), beta (*batch, T) and S (*batch, K, V).

    log_decay is (*batch, T, K), or (*batch, T) for one decay of all channels.
    """
    count, shapes = flat_count(q.shape), (q.shape, v.shape, S.shape)
    q, k, v = (sequence(x, count, *x.shape[-2:]) for x in (q, k, v))
    beta, S = per_token(beta, count), memory(S, count, *S.shape[-2:])
    boundary_states = np.empty((count, -(-v.shape[1] // STEPS), *S.shape[1:]), v.dtype)
    y, e = attend(q, k, v, beta, _narrowest(log_decay, shapes[0]), S, boundary_states)
    return (cut_out(y, shapes[1]), cut_out(S, shapes[2])), Saved(q, k, beta, log_decay, e, boundary_states, shapes)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, beta, log_decay and S from those of y and of the last S."""
    q, k, beta, log_decay, e, boundary_states, (keys, values, state) = saved
    count = flat_count(keys)
    dy = sequence(cotangents[0], count, *values[-2:])
    dS = memory(cotangents[1], count, *state[-2:])
    dv, dbeta = attend_backward(q, k, beta, _narrowest(log_decay, keys), e, dy, dS)
    dS = memory(np.swapaxes(cotangents[1], -1, -2), count, *state[:-3:-1])
    dq, dk, da = adjoint(q, k, e * beta[..., None], decays(log_decay, keys), dv, dy, boundary_states, dS)
    da = cut_out(da, keys)
    return (
        cut_out(dq, keys),
        cut_out(dk, keys),
        cut_out(dv, values),
        cut_out(dbeta, keys[:-1], axes=1),
        da if log_decay.shape == keys else da.sum(axis=-1),
        cut_out(np.swapaxes(dS, -1, -2), state),
    )


def _narrowest(log_decay: Any, keys: tuple[int, ...]) -> np.ndarray:
    """Return α as it varies: (batch, T'), or (batch, T', K') where there is one for each channel."""
    return decays(log_decay, keys) if log_decay.shape == keys else np.exp(per_token(log_decay, flat_count(keys)))
