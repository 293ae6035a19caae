"""RWKV-4's WKV: in each channel a mean of the values, weighted by the exponentials of the keys, older ones less.

             Σᵢ<ₜ e^(kᵢ − (t−1−i)w) vᵢ + e^(u + kₜ) vₜ
    wkvₜ  =  ──────────────────────────────────────────          Peng et al. 2023 (RWKV), eq. 16
             Σᵢ<ₜ e^(kᵢ − (t−1−i)w)    + e^(u + kₜ)

As a recurrence, with aₜ and bₜ the sums over i ≤ t of the next token's numerator and denominator (appendix D):

    wkvₜ = (aₜ₋₁ + e^(u + kₜ) vₜ) / (bₜ₋₁ + e^(u + kₜ))          aₜ = e^−w aₜ₋₁ + e^kₜ vₜ          bₜ = e^−w bₜ₋₁ + e^kₜ

    k, v    key and value of a token, (*batch, T, D): a number for each channel.
    w       the decay of a channel, w ≥ 0, (D,): a step leaves e^−w. The published code has w = e^time_decay.
    u       the bonus of the current token, (D,). The published code calls it time_first.
    mean    aₜ / bₜ, the mean of the values so far, (*batch, D).
    lse     log bₜ, the logarithm of the sum of their weights, (*batch, D). It starts at −∞, of no weights.

The state is (mean, lse). Deviation: the paper and the published code keep (a e^−p, b e^−p, p), with p the greatest
exponent so far, lest e^k overflow. Any p would do, and the greatest has kinks; a and b determine (mean, lse), which are
smooth in all arguments. Here too only differences to the greatest exponent are exponentiated: `minigrad.softmax` and
`logsumexp` subtract it.
For real numbers. What does not fit raises TypeError or ValueError, as `models.forms` says.
"""

import math

from jaxtyping import Float

import minigrad as mg
from minigrad import namespace
from models.forms import Array, form
from models.mechanism import Domain, Mechanism
from models.sequences import chunks, tokens

TD = Float[Array, "*batch T D"]
BD = Float[Array, "*batch D"]
D = Float[Array, "D"]

MECHANISM = Mechanism(
    arguments={"k": Domain.ANY, "v": Domain.ANY, "w": Domain.NONNEGATIVE, "u": Domain.ANY},
    state=Domain.ANY,
    rational=False,
    blocks={"rwkv4": "models.blocks.rwkv4.RWKV4Block"},
)


@form
def recurrent(k: TD, v: TD, w: D, u: D, *, state: tuple[BD, BD] | None = None) -> tuple[TD, tuple[BD, BD]]:
    """Compute the recurrence of a and b in logarithms, token after token: O(T·D)."""
    (mean, lse), y = _initial_state(state, k, v), []
    xp = namespace(k, v, w, u, mean, lse)
    for k_t, v_t in tokens(k, v):
        values = xp.concat([mean, v_t], axis=-2)  # (2, D)
        y.append(_weighted_mean(xp.concat([lse, u + k_t], axis=-2), values))
        mean, lse = _mean_and_lse(xp.concat([lse - w, k_t], axis=-2), values)
    return xp.concat(y, axis=-2), (mean[..., 0, :], lse[..., 0, :])


@form(work="T²", memory="T²")
def parallel(k: TD, v: TD, w: D, u: D, *, state: tuple[BD, BD] | None = None) -> tuple[TD, tuple[BD, BD]]:
    """Compute all tokens at once, as a softmax over the tokens before: O(T²·D), with a T × T × D array."""
    y, (mean, lse) = _parallel(k, v, w, u, _initial_state(state, k, v))
    return y, (mean[..., 0, :], lse[..., 0, :])


@form
def chunkwise(
    k: TD, v: TD, w: D, u: D, *, state: tuple[BD, BD] | None = None, chunk_size: int = 16
) -> tuple[TD, tuple[BD, BD]]:
    """Compute the parallel form in chunks of C tokens, a recurrence between: O(T·C·D)."""
    rows, y = _initial_state(state, k, v), []
    for k_c, v_c in chunks(chunk_size, k, v):
        wkv, rows = _parallel(k_c, v_c, w, u, rows)
        y.append(wkv)
    return namespace(*y).concat(y, axis=-2), (rows[0][..., 0, :], rows[1][..., 0, :])


def _initial_state(state: tuple[BD, BD] | None, k: TD, v: TD) -> tuple[Array, Array]:
    """Return mean and lse as rows (*batch, 1, D); of no tokens the weights sum to 0."""
    if state is None:
        zeros = namespace(k, v).zeros_like(k[..., :1, :] * v[..., :1, :])
        return zeros, zeros - math.inf
    mean, lse = state
    return mean[..., None, :], lse[..., None, :]


def _parallel(k: TD, v: TD, w: D, u: D, state: tuple[Array, Array]) -> tuple[TD, tuple[Array, Array]]:
    """Return y of all tokens and the state after them, both states as rows: the first is a token before the others."""
    mean, lse = state
    xp = namespace(k, v, w, u, mean, lse)
    # (T, 1): t − 1 − i of the state at token t; it has not decayed before the first
    age = xp.arange(k.shape[-2], dtype=w.dtype)[:, None]
    between = age - 1 - age.mT  # (T, T): t − 1 − i, −1 on the diagonal
    exponents = xp.where(
        (between >= 0)[..., None], k[..., None, :, :] - between[..., None] * w, (u + k)[..., None, :, :]
    )
    exponents = xp.concat([(lse - age * w)[..., :, None, :], exponents], axis=-2)  # (T, 1 + T, D)
    values = xp.concat([mean, v], axis=-2)  # (1 + T, D)
    visible = xp.concat([age >= 0, between >= -1], axis=-1)[..., None]  # (T, 1 + T, 1)
    y = _weighted_mean(exponents, values[..., None, :, :], visible)[..., 0, :]
    left = age.shape[-2] - 1 - age  # (T, 1): steps from a token to the last
    after = xp.concat([lse - age.shape[-2] * w, k - left * w], axis=-2)  # (1 + T, D)
    return y, _mean_and_lse(after, values)


def _weighted_mean(exponents: Array, values: Array, visible: Array | None = None) -> Array:
    """Return the mean of values (…, n, D) with weights e^exponents, as a row (…, 1, D), of those that are visible."""
    weights = mg.softmax(exponents, axis=-2, where=visible)
    return namespace(weights, values).sum(weights * values, axis=-2, keepdims=True)


def _mean_and_lse(exponents: Array, values: Array) -> tuple[Array, Array]:
    """Return the weighted mean and the logarithm of the sum of the weights, both rows (…, 1, D)."""
    return _weighted_mean(exponents, values), mg.logsumexp(exponents, axis=-2, keepdims=True)
