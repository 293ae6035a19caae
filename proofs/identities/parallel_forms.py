"""Parallel, recurrent and chunkwise forms: what waits for what, and what is computed. Talk on Titans, 1:00:13–1:09:15.

Steps are operations on whole arrays on the longest path from the tokens to the outputs (`sequential_steps`); operations
are those of scalars. A recurrence whose steps are affine, hₜ = Aₜ hₜ₋₁ + bₜ, is parallel whether or not A depends on
time and the write on the state: affine maps compose to affine maps. A step through a tanh does not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.memory import delta_rule, linear_attention
from models.recurrent import rnn
from models.sequences import tokens
from models.ssm import lti
from proofs.checker.counting import counted, sequential_steps
from proofs.checker.forms import Form, each_form
from proofs.checker.statements import Instance, bounded, grows, identity, refuted
from proofs.checker.strategies import LARGE, SMALL, Betas, Cut, Keys, Length, State, Strategy, Values
from proofs.identities.lti import delay
from proofs.identities.selective import reduce_in_brackets

CHAPTER = 2

PARALLEL = "talk-titans, 1:00:59"

KeySize = Annotated[int, Strategy(number=lambda draw, sizes: sizes["K"])]
ValueSize = Annotated[int, Strategy(number=lambda draw, sizes: sizes["V"])]
ChunkCount = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(1, 3)))]
Doublings = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 8)))]

Inputs = Annotated[Any, Strategy("*batch T N", LARGE)]
Weights = Annotated[Any, Strategy("N N", SMALL)]
Weight = Annotated[Any, Strategy("D", SMALL)]
Preactivation = Annotated[Any, Strategy("D", LARGE)]
Drive = Annotated[Any, Strategy("*batch T 1", LARGE)]
Column = Annotated[Any, Strategy("N", LARGE)]
Start = Annotated[Any, Strategy("*batch 1 N", LARGE)]


# Steps


def named(name: str, cases: list[Instance]) -> list[Instance]:
    """Return the cases whose form has this name."""
    return [case for case in cases if case.fixed["form"].function.__name__ == name]


LINEAR = each_form(work="T", compiled=False)
AT_ONCE = [x for x in each_form(work="T²", memory="T²") if x.fixed["form"].function.__name__ != "direct"]
DOUBLING = each_form(work="T log T", compiled=False)


def steps(form: Form, length: int, chunk_size: int = 64) -> int:
    """Return the sequential steps of the outputs of one call."""
    arguments = {name: mg.Tensor(x) for name, x in form.sample(length).items()}
    return sequential_steps(form(arguments, None, chunk_size)[0])


@identity(
    "All tokens at once: as many steps for T tokens as for two, since no token waits for another",
    source=PARALLEL,
    exact=True,
    only=("fractions",),
    over=[Instance(x.label, x.fixed, {}) for x in AT_ONCE],
)
def steps_at_once(form: Form, length: Length):
    return np.array(steps(form, length + 1)), np.array(steps(form, 2))


@grows(
    "In recurrent form: T steps, each of which waits for the one before",
    source="talk-titans, 1:03:05",
    order=1,
    over=named("recurrent", LINEAR),
)
def steps_of_recurrence(form: Form, length: int):
    return steps(form, length)


@grows(
    "In chunks of √T tokens: √T steps, those between T/C chunks and at most C inside one",
    source="talk-titans, 1:03:58 and, of test-time training, 1:10:25",
    order=1,
    lengths=(4, 8, 16),
    over=named("chunkwise", LINEAR) + named("dual", LINEAR),
)
def steps_of_chunks(form: Form, length: int):
    return steps(form, length**2, chunk_size=length)


@grows(
    "As a scan of an associative operator: log₂ T rounds",
    source="hillis1986; talk-titans, 1:03:05, made precise",
    order=1,
    lengths=(2, 4, 8),
    over=DOUBLING,
)
def steps_of_doubling(form: Form, length: int):
    return steps(form, 2**length)


@refuted(
    "The state after T tokens needs all states before it, so that T steps wait for one another (a scan takes log₂ T)",
    source="talk-titans, 1:03:05: 'parallel computation is of course impossible'",
    exact=True,
    relation="≤",
    instead="parallel_forms.steps_of_doubling",
)
def recurrence_needs_all_steps(doublings: Doublings):
    return np.array(2**doublings), np.array(steps(DOUBLING[0].fixed["form"], 2**doublings))


# Operations


@identity(
    "Masked waste: of the T² scores that the parallel form computes the mask removes a share of exactly (T − 1)/2T",
    source=f"{PARALLEL}, made precise",
    exact=True,
    only=("fractions",),
)
def masked_scores(length: Length):
    ones, values = np.ones((length, 1)), np.eye(length)  # each output is its row of masked scores
    weights, _ = linear_attention.parallel(ones, ones, values)
    return np.array(Fraction(int(np.sum(weights == 0)), length**2)), np.array(Fraction(length - 1, 2 * length))


@identity(
    "Operations: T(T(2K + 2V − 1) − V) in parallel, T(4KV − V) as a recurrence, T(C(2K + 2V − 1) + 4KV − V) in chunks",
    source="talk-titans, 1:02:21–1:03:58, made precise; yang2024gla, section 2.2",
    exact=True,
    only=("fractions",),
)
def operations_of_each_form(K: KeySize, V: ValueSize, size: Length, chunks: ChunkCount):
    T = size * chunks

    chunkwise = functools.partial(linear_attention.chunkwise, chunk_size=size)
    counts = [operations(form, T, K, V) for form in (masked_attention, linear_attention.recurrent, chunkwise)]
    a_pair, a_state = 2 * K + 2 * V - 1, 4 * K * V - V
    return np.array(counts), np.array([T * (T * a_pair - V), T * a_state, T * (size * a_pair + a_state)])


@refuted(
    "The parallel form takes more operations than the recurrence",
    source="talk-titans, 1:02:21–1:03:05: 'few steps, many FLOPs'",
    exact=True,
    relation="≤",
    instead="parallel_forms.parallel_form_computes_more_of_long_sequences",
)
def parallel_form_computes_more(T: Length, K: KeySize, V: ValueSize):
    return operations_of_two_forms(T, K, V)


@bounded(
    "From T = 4KV/(2K + 2V − 1) tokens on, about 2KV/(K + V), it does",
    source="talk-titans, 1:02:21–1:03:05, made precise",
    exact=True,
    only=("fractions",),
)
def parallel_form_computes_more_of_long_sequences(T: Length, K: KeySize, V: ValueSize):
    return operations_of_two_forms(T - 1 + math.ceil(Fraction(4 * K * V, 2 * K + 2 * V - 1)), K, V)


def masked_attention(q: Any, k: Any, v: Any, state: Any) -> Any:
    """Return (QKᵀ ∘ M) V, the parallel form without a state before it, which it ignores, or after it."""
    return namespace(q).tril(q @ k.mT) @ v


def operations(form: Callable[..., Any], T: int, K: int, V: int) -> int:
    """Return the number of operations with numbers of one call that reads a memory of zeros."""
    tally = [0]
    *arrays, state = (counted(np.ones(shape), tally) for shape in ((T, K), (T, K), (T, V), (K, V)))
    form(*arrays, state=state)
    return tally[0]


def operations_of_two_forms(T: int, K: int, V: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the operations of the recurrence and of the parallel form."""
    forms = (linear_attention.recurrent, masked_attention)
    recurrent, parallel = (np.array(operations(form, T, K, V)) for form in forms)
    return recurrent, parallel


# Steps that depend on the state before


@identity(
    "The delta rule's steps are affine, (I − βkᵀk, βkᵀv), so that they compose in any brackets, though they read the "
    "memory and differ at every token",
    source="talk-titans, 1:09:15: 'depends on the memory before'; yang2024deltanet, section 3",
    exact=True,
)
def delta_rule_in_brackets(k: Keys, v: Values, beta: Betas, state: State, cut: Cut):
    decay, write = reduce_in_brackets(affine_steps(k, v, beta), cut, compose)
    return decay @ state + write, delta_rule.recurrent(k, k, v, beta, state=state)[1]


@grows(
    "Composed in pairs, the delta rule's state after T tokens takes log₂ T rounds",
    source="talk-titans, 1:09:15, made precise; blelloch1990, section 1.4",
    order=1,
    lengths=(2, 4, 8),
)
def delta_rule_in_rounds(length: int):
    rng = np.random.default_rng(0)
    k, v, beta = (mg.Tensor(rng.uniform(0.1, 0.5, shape)) for shape in ((2**length, 2), (2**length, 2), 2**length))
    return sequential_steps(compose_in_pairs(affine_steps(k, v, beta))[1])


def affine_steps(k: Any, v: Any, beta: Any) -> list[tuple[Any, Any]]:
    """Return the map S ↦ A S + B of each token: (I − β kᵀk, β kᵀv)."""
    identity_matrix = namespace(k).eye(k.shape[-1], dtype=k.dtype)
    return [(identity_matrix - b * k_t.mT @ k_t, b * k_t.mT @ v_t) for k_t, v_t, b in tokens(k, v, beta[..., None])]


def compose(second: tuple[Any, Any], first: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the second map after the first."""
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def compose_in_pairs(maps: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Compose 2ⁿ maps in n rounds, neighbours with neighbours."""
    while len(maps) > 1:
        maps = [compose(later, earlier) for earlier, later in zip(maps[::2], maps[1::2], strict=True)]
    return maps[0]


@identity(
    "A network h = W h + B u without tanh is the convolution of its inputs with B, WB, W²B, …: it is parallel",
    source="talk-titans, 1:00:13: 'because of nonlinearity'; gu2022s4, eq. 4–5",
    exact=True,
)
def network_without_tanh(u: Drive, W: Weights, B: Column, C: Column, h: Start):
    xp, x, y = namespace(u), h, []
    for (u_t,) in tokens(u):
        x = x @ W.mT + u_t * B
        y.append(xp.sum(x * C, axis=-1, keepdims=True))
    return (xp.concat(y, axis=-2), x), lti.convolution(u, W, B, C, state=h)


@refuted(
    "Two steps h ← tanh(w h + x) are one such step, of some w and x (its inverse tanh would be affine in h)",
    source="talk-titans, 1:00:13, made precise: steps of a fixed size do not compose",
    instead="parallel_forms.network_without_tanh",
)
def two_tanh_steps_are_one(w: Weight, first: Preactivation, second: Preactivation, h: Preactivation):
    xp = namespace(w, h)

    def after_two(h: Any) -> Any:
        x, W = xp.stack([first, second]), w * xp.eye(w.shape[0], dtype=w.dtype)
        return rnn.recurrent(x, W, state=h)[1]

    before, here, after = (xp.log((1 + y) / (1 - y)) / 2 for y in map(after_two, (h - 1, h, h + 1)))
    return here - before, after - here


@identity(
    "The weights of a network are the same at every token, not updated: inputs delayed give the states delayed",
    source="talk-mamba, slide 17: 'W is updated at every step', made precise; elman1990",
)
def network_commutes_with_delays(x: Inputs, W: Weights):
    return rnn.recurrent(delay(x), W)[0], delay(rnn.recurrent(x, W)[0])
