"""The delta rule: write the difference between the value and what the memory returns for the key."""

from __future__ import annotations

from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.memory import delta_rule, linear_attention
from models.sequences import unit_lower_inverse
from proofs.checker.statements import bounded, identity, refuted
from proofs.checker.strategies import (
    LARGE,
    SMALL,
    Beta,
    Betas,
    ChunkSize,
    FullBetas,
    Key,
    Keys,
    LargeBeta,
    Length,
    OrthonormalKeys,
    Queries,
    State,
    Strategy,
    UnitKey,
    UnitKeys,
    Value,
    Values,
    unit_rows,
)

CHAPTER = 5

TwoUnitKeys = Annotated[Any, Strategy("*batch 2 K", unit_rows, differentiable=False, degree=2)]
TwoValues = Annotated[Any, Strategy("*batch 2 V", LARGE)]
HalfAngles = Annotated[Any, Strategy("*batch T", SMALL)]
StateOfFour = Annotated[Any, Strategy("*batch K V", LARGE, sizes={"T": st.integers(1, 4), "K": st.just(4)})]

SCHLAG = "schlag2021"
DELTANET = "yang2024deltanet"


def write_token(k: Any, v: Any, beta: Any, state: Any) -> Any:
    """Return the memory after one token k (*batch, K), v (*batch, V)."""
    row = k[..., None, :]
    return delta_rule.recurrent(row, row, v[..., None, :], beta[..., None], state=state)[1]


def square(k: Any, v: Any) -> Any:
    """Return the loss S ↦ ‖kS − v‖², summed over the batch."""
    return lambda S: mg.sum(((k[..., None, :] @ S)[..., 0, :] - v) ** 2)


# The write as a gradient step


@identity("The write is one step of gradient descent, rate β, on ½‖kS − v‖²", source="talk-titans, 22:34", exact=True)
def write_is_a_gradient_step(k: Key, v: Value, beta: Beta, state: State):
    gradient = mg.grad(lambda S: square(k, v)(S) / 2)(state)
    return write_token(k, v, beta, state), state - beta[..., None, None] * gradient


@refuted(
    "It is a step of rate β on ‖kS − v‖² (that step is twice as long)",
    source="minigrad, the ½ is needed",
    exact=True,
    instead="delta_rule.write_is_a_gradient_step",
)
def step_on_the_square_without_a_half(k: Key, v: Value, beta: Beta, state: State):
    return write_token(k, v, beta, state), state - beta[..., None, None] * mg.grad(square(k, v))(state)


@refuted(
    "It is a step of rate β on the L2 norm ‖kS − v‖ itself (whose gradient has the same length everywhere)",
    source="talk-titans, 22:34: 'the L2 norm is the loss'",
    instead="delta_rule.write_is_a_gradient_step",
)
def step_on_the_norm(k: UnitKey, v: Value, beta: Beta, state: State):
    def norm(S: Any) -> Any:
        return mg.sum(mg.sqrt(mg.sum(((k[..., None, :] @ S)[..., 0, :] - v) ** 2, axis=-1)))

    return write_token(k, v, beta, state), state - beta[..., None, None] * mg.grad(norm)(state)


@identity(
    "½‖kS − v‖² = −⟨kS, v⟩ + ½‖kS‖² + ½‖v‖²: it adds a cost of ‖kS‖ to the dot product, whose gradient kᵀkS is what "
    "the delta rule takes off linear attention's write",
    source="talk-titans, 22:34: 'about the same aim', made precise",
    exact=True,
)
def square_is_dot_product_and_cost(k: Key, v: Value, state: State):
    row, read = k[..., None, :], (k[..., None, :] @ state)[..., 0, :]
    loss = -mg.sum(read * v) + mg.sum(read * read) / 2 + mg.sum(v * v) / 2
    _, written = linear_attention.recurrent(row, row, v[..., None, :], state=state)
    by_delta_rule = write_token(k, v, namespace(k).ones_like(k[..., 0]), state)
    return (square(k, v)(state) / 2, by_delta_rule), (loss, written - row.mT @ read[..., None, :])


@identity(
    "The correction form equals the product form: S + βkᵀ(v − kS) = (I − βkᵀk)S + βkᵀv",
    source=f"{SCHLAG}, section 4.2; talk-titans, 21:43",
    exact=True,
)
def correction_is_a_product(k: Key, v: Value, beta: Beta, state: State):
    transitioned = transition(k, beta, state)
    return write_token(k, v, beta, state), transitioned + beta[..., None, None] * k[..., :, None] * v[..., None, :]


def transition(k: Any, beta: Any, x: Any) -> Any:
    """Return (I − β kᵀk) x, for x (*batch, K, n)."""
    return x - beta[..., None, None] * k[..., :, None] * (k[..., None, :] @ x)


# What is read back


@identity(
    "β = 1 and ‖k‖ = 1: reading k right after the write gives v, whatever the memory held",
    source="talk-titans, 21:08–21:43",
    exact=True,
)
def reading_what_was_written(k: UnitKeys, v: Values, beta: FullBetas, state: State, chunk_size: ChunkSize):
    y, _ = delta_rule.chunkwise(k, k, v, beta, state=state, chunk_size=chunk_size)
    return y, v


@refuted(
    "In linear attention, too, a key that is written again returns its last value",
    source="talk-titans, 21:08",
    exact=True,
    instead="linear_attention.written_n_times",
)
def overwriting_without_the_delta(k: UnitKeys, v: Values):
    y, _ = linear_attention.recurrent(k, k, v)
    return y, v


@identity("β = 1 and ‖k‖ = 1: writing a pair again changes nothing", source="talk-titans, 21:43", exact=True)
def writing_again_changes_nothing(k: UnitKey, v: Value, state: State):
    beta = namespace(k).ones_like(k[..., 0])
    once = write_token(k, v, beta, state)
    return write_token(k, v, beta, once), once


@identity("Values stored under orthogonal keys do not change", source=f"{SCHLAG}, section 4.2", exact=True)
def orthogonal_keys_are_untouched(k: OrthonormalKeys, v: Value, beta: Beta, state: State):
    other_keys = k[..., 1:, :]
    return other_keys @ write_token(k[..., 0, :], v, beta, state), other_keys @ state


@identity(
    "Orthonormal keys, β = 1, empty memory: the delta rule is linear attention",
    source=f"{SCHLAG}, section 4.2",
    exact=True,
)
def orthonormal_keys(q: Queries, k: OrthonormalKeys, v: Values, beta: FullBetas):
    return delta_rule.recurrent(q, k, v, beta), linear_attention.recurrent(q, k, v)


# Passes over the same pairs


@identity(
    "Two unit keys, β = 1: a further pass over both pairs leaves the second exact and multiplies the error of the "
    "first by cos²θ: both are recalled in the end unless the keys are parallel",
    source="talk-titans, 22:34, made precise",
    exact=True,
)
def passes_over_two_pairs(k: TwoUnitKeys, v: TwoValues, state: State):
    once = one_pass(k, v, state)
    cosine = namespace(k).sum(k[..., 0, :] * k[..., 1, :], axis=-1, keepdims=True)
    error = (k @ once - v)[..., 0, :]
    return k @ one_pass(k, v, once) - v, namespace(k).stack([cosine**2 * error, 0 * error], axis=-2)


@bounded(
    "Independent unit keys, β = 1: a pass multiplies ‖S − S*‖² by at most 1 − det KKᵀ, with S* the memory of exact "
    "recall nearest to S: passes converge to it",
    source="talk-titans, 22:34, made precise: writes project on kₜS = vₜ in turn, as in Kaczmarz's method",
    exact=True,
    only=("fractions",),
)
def a_pass_comes_nearer(o: OrthonormalKeys, t: HalfAngles, v: Values, state: StateOfFour):
    xp, k, determinant = namespace(o), *independent_keys(o, t)

    def squared_distance(S: Any) -> Any:  # of S to S*: R (KKᵀ)⁻¹ Rᵀ with R = KS − V
        R = k @ S - v
        return xp.sum(R * xp.linalg.solve(k @ k.mT, R), axis=(-2, -1))

    return squared_distance(one_pass(k, v, state)), (1 - determinant) * squared_distance(state)


@identity(
    "The dot product converges to nothing: after n passes of linear attention from an empty memory it reads n times "
    "what it reads after one",
    source="talk-titans, 16:11 and 22:34, made precise",
    exact=True,
)
def passes_of_linear_attention(k: Keys, v: Values, length: Length):
    (_, once), S = linear_attention.recurrent(k, k, v), None
    for _ in range(length):
        _, S = linear_attention.recurrent(k, k, v, state=S)
    return k @ S, length * (k @ once)


def one_pass(k: Any, v: Any, S: Any) -> Any:
    """Return the memory after all pairs were written with β = 1."""
    return delta_rule.recurrent(k, k, v, namespace(k).ones_like(k[..., 0]), state=S)[1]


def independent_keys(o: Any, t: Any) -> tuple[Any, Any]:
    """Return unit keys kᵢ = sin aᵢ oᵢ₋₁ + cos aᵢ oᵢ of orthonormal rows o, with t = tan a/2, and det KKᵀ."""
    xp, t = namespace(o, t), t / 2  # so that cos a > 0
    cos, sin = ((1 - t * t) / (1 + t * t))[..., 1:], (2 * t / (1 + t * t))[..., 1:]
    later = sin[..., None] * o[..., :-1, :] + cos[..., None] * o[..., 1:, :]
    return xp.concat([o[..., :1, :], later], axis=-2), xp.prod(cos * cos, axis=-1)


# Products of transitions


@identity(
    "(I + N)(I + N)⁻¹ = I for N strictly lower triangular", source=f"{DELTANET}, section 3 (UT transform)", exact=True
)
def unit_lower_triangular_inverse(k: Keys, beta: Betas):
    xp = namespace(k, beta)
    N = xp.tril(beta[..., None] * (k @ k.mT), k=-1)
    return unit_lower_inverse(N) + N @ unit_lower_inverse(N), xp.eye(k.shape[-2], dtype=k.dtype) + 0 * N


@identity(
    "The product of the transitions I − βkᵀk is I − Σ kᵀw: the WY representation",
    source=f"{DELTANET}, section 3",
    exact=True,
)
def wy_representation(k: Keys, beta: Betas, state: State):
    xp, product = namespace(k, beta), state
    for t in range(k.shape[-2]):
        product = transition(k[..., t, :], beta[..., t], product)
    weighted = beta[..., None] * k
    w = unit_lower_inverse(xp.tril(weighted @ k.mT, k=-1)) @ weighted
    return product, state - k.mT @ (w @ state)


@bounded(
    "0 ≤ β ≤ 2 and ‖k‖ = 1: the transition makes no vector longer", source="grazzi2024, section 4.2, eq. 2", exact=True
)
def transition_does_not_grow(k: UnitKey, beta: Beta, x: Key):
    xp, column = namespace(k, x), x[..., :, None]
    transitioned = transition(k, beta, column)
    return xp.sum(transitioned * transitioned, axis=-2), xp.sum(column * column, axis=-2)


@refuted(
    "The transition makes no vector longer for β up to 3 either",
    source="minigrad, the bound on β is needed",
    exact=True,
    relation="≤",
)
def transition_with_a_larger_beta(k: UnitKey, beta: LargeBeta, x: Key):
    return transition_does_not_grow(k, beta, x)


@identity(
    "Along the key the transition multiplies by 1 − β‖k‖²: n writes beyond β = 2 grow as |1 − β|ⁿ",
    source="minigrad, the eigenvector of I − βkᵀk",
    exact=True,
)
def transition_along_the_key(k: UnitKey, beta: LargeBeta, length: Length):
    vector = k[..., :, None]
    for _ in range(length):
        vector = transition(k, beta, vector)
    return vector, (1 - beta[..., None, None]) ** length * k[..., :, None]
