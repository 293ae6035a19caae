"""Feature maps φ for linear attention: φ(q)·φ(k) replaces or approximates softmax attention's exp(q·k).

    oₜ = φ(qₜ) Σₛ φ(kₛ)ᵀ vₛ / φ(qₜ) Σₛ φ(kₛ)ᵀ     Katharopoulos et al. 2020, eq. 4, 5 and 12

    elu_plus_one      positive weights; not an approximation of softmax
    taylor            Σⱼ (q·k)ʲ / j! up to j = order; → exp(q·k)
    positive_random   an unbiased estimate of exp(q·k) from m random directions, always positive

exp(q·k) is softmax attention with scale 1; for its 1/√K multiply q by that before the map.
"""

import math
from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from minigrad import namespace
from models.forms import Array


def normalised(form: Callable, q: Array, k: Array, v: Array, **options: Any) -> tuple[Array, Array]:
    """Normalise a form of linear attention: weights of features q and k sum to one. Return (y, state) like the form.

    A column of ones is appended to the values: its output is the sum of the weights, by which y is divided. The state
    is K × (V + 1): the paper's s and, as its last column, z (eq. 18 and 19).
    """
    xp = namespace(q, k, v)
    y, state = form(q, k, xp.concat([v, xp.ones_like(v[..., :1])], axis=-1), **options)
    return y[..., :-1] / y[..., -1:], state


def elu_plus_one(x: Float[Array, "*batch T K"]) -> Float[Array, "*batch T K"]:
    """Return elu(x) + 1: x + 1 above 0, exp(x) below. Katharopoulos et al. 2020, eq. 7."""
    xp = namespace(x)
    above = x > 0
    return xp.where(above, x + 1, xp.exp(xp.where(above, 0, x)))


def taylor(x: Float[Array, "*batch T K"], *, order: int = 2) -> Float[Array, "*batch T F"]:
    """Return all products of up to `order` coordinates, those of j coordinates over √j!: F = 1 + K + K² + … + K^order.

    φ(q)·φ(k) = Σⱼ (q·k)ʲ / j! for j ≤ order, which is at most |q·k|^(order+1) · e^|q·k| / (order+1)! from exp(q·k).
    Order 2 is the map of Arora et al. 2024 (Based), section 4.1, eq. 4; an even order keeps the weights positive.
    """
    xp = namespace(x)
    power = xp.ones_like(x[..., :1])  # the j-fold products, flattened
    features = [power]
    for j in range(1, order + 1):
        product = power[..., :, None] * x[..., None, :]
        power = xp.reshape(product, (*x.shape[:-1], product.shape[-2] * product.shape[-1]))
        features.append(power / math.sqrt(math.factorial(j)))
    return xp.concat(features, axis=-1)


def positive_random(x: Float[Array, "*batch T K"], directions: Float[Array, "m K"]) -> Float[Array, "*batch T m"]:
    """Return exp(ω·x − ½‖x‖²) / √m for each direction ω: with ω ~ N(0, I), E[φ(q)·φ(k)] = exp(q·k).

    Choromanski et al. 2021 (Performers, FAVOR+), lemma 1. The variance falls as 1/m. Queries and keys take the same
    directions, such as `rng.standard_normal((m, K))`: independent ones, where the paper's are orthogonal.
    """
    xp = namespace(x, directions)
    half_square = xp.sum(x * x, axis=-1, keepdims=True) / 2
    return xp.exp(x @ directions.mT - half_square) / math.sqrt(directions.shape[0])
