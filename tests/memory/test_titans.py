"""Titans: cases worked out on paper, gates that are shut, heads, and what goes wrong in one line."""

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import arrays_of
from models.memory import titans
from models.memory.titans import State

FORMS = [titans.recurrent, titans.chunkwise, titans.fused]
T, K, V = 11, 4, 3
HALF, GONE = math.log(0.5), -math.inf
NOTHING = ((np.zeros((1, 1)),),)


def column(*numbers):
    return np.array(numbers, dtype=float)[:, None]


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape) / 2


MEMORIES = {
    "a matrix": ((draw(K, V),),),
    "two layers": ((draw(K, 5), draw(1, 5)), (draw(5, V),)),
    "three layers, one model for each head": ((draw(2, K, 5),), (draw(2, 5, 6),), (draw(2, 6, V), draw(2, 1, V))),
}


def norm(*heads):
    """Return γ and β."""
    return 1 + draw(*heads, 1, K), draw(*heads, 1, K) / 4


WITHIN_A_NORM = {  # where values are as wide as keys
    "a matrix": (((draw(K, K), draw(1, K)),), norm()),
    "two layers, one model for each head": (((draw(2, K, 5),), (draw(2, 5, K), draw(2, 1, K))), norm(2)),
}


def tokens(*batch):
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((*batch, T, n)) for n in (K, K, V))
    theta = rng.uniform(0, 0.3, (*batch, T))
    return q, k, v, theta, *(-rng.exponential(0.5, (*batch, T)) for _ in range(2))


@pytest.mark.parametrize("form", FORMS)
def test_momentum_and_forgetting_by_hand(form):
    # S = ½(4 − 0) = 2, M = 2; S = ½·2 + ½(8 − 2) = 4, M = ½·2 + 4 = 5; S = ½·4 + ½·2(4 − 10) = −4, M = ½·5 − 4 = −1.5
    gates = np.full(3, 0.5), np.full(3, HALF), np.full(3, HALF)
    y, state = form(column(1, 1, 2), column(1, 1, 2), column(4, 8, 4), *gates, NOTHING, batch_size=1)
    np.testing.assert_allclose(y, column(2, 5, -3))
    assert (state.memory[0][0], state.surprise[0][0], state.left) == (-1.5, -4, 1)


@pytest.mark.parametrize("form", FORMS)
def test_in_a_batch_all_gradients_are_taken_at_its_start(form):
    # the second u is −½(8 − 0): S = 1 + 4 = 5, M = 1 + 5 = 6; then a batch begins: S = 2.5 + (4 − 12) = −5.5, M = −2.5
    gates = np.full(3, 0.5), np.full(3, HALF), np.full(3, HALF)
    y, state = form(column(1, 1, 2), column(1, 1, 2), column(4, 8, 4), *gates, NOTHING, batch_size=2)
    np.testing.assert_allclose(y, column(2, 6, -5))
    assert (state.start[0][0], state.memory[0][0], state.surprise[0][0]) == (6, -2.5, -5.5)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 12])
@pytest.mark.parametrize("shut", [[], [0], [4, 5], range(T)], ids=str)
@pytest.mark.parametrize("name", MEMORIES)
def test_the_closed_form_is_the_recurrence(name, shut, batch_size):
    """Values and gradients, also after gates of 0: the memory is emptied, or past surprise forgotten."""
    q, k, v, theta, log_eta, log_decay = tokens(3, 2)
    log_eta[:, 0, list(shut)] = log_decay[:, 1, list(shut)] = GONE

    def everything(form):
        def loss(*arguments):
            y, state = form(*arguments, batch_size=batch_size)
            return mg.sum(y * y) + sum(mg.sum(x * x * x) for x in arrays_of(state)), (y, arrays_of(state))

        inputs = (q, k, v, theta, log_eta, log_decay, MEMORIES[name])
        (_, values), gradients = mg.value_and_grad(loss, argnums=tuple(range(7)), has_aux=True)(*inputs)
        return arrays_of(list(values)) + arrays_of(list(gradients))

    for one, other in zip(everything(titans.recurrent), everything(titans.chunkwise), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11 * np.abs(one).max())


@pytest.mark.parametrize("batch_size", [1, 3, 12])
@pytest.mark.parametrize("name", WITHIN_A_NORM)
def test_within_a_norm_all_forms_are_the_recurrence(name, batch_size):
    """Values and gradients, those to γ and β too."""
    q, k, _, *gates = tokens(3, 2)

    def everything(form):
        def loss(q, k, v, gates, memory, norm):
            y, state = form(q, k, v, *gates, memory, norm=norm, batch_size=batch_size)
            return mg.sum(y * y) + sum(mg.sum(x * x * x) for x in arrays_of(state)), (y, arrays_of(state))

        arguments = (q, k, draw(3, 2, T, K), gates, *WITHIN_A_NORM[name])
        (_, values), gradients = mg.value_and_grad(loss, argnums=tuple(range(6)), has_aux=True)(*arguments)
        return arrays_of(list(values)) + arrays_of(list(gradients))

    expected = everything(titans.recurrent)
    for form in (titans.chunkwise, titans.fused):
        for one, other in zip(expected, everything(form), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10 * np.abs(one).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", range(7))
def test_gradients_to_one_argument_are_those_to_all(form, which):
    """One tracked argument among plain arrays: everything that depends on it is tracked."""

    def loss(*arguments):
        y, state = form(*arguments, batch_size=4)
        return mg.sum(y * y) + sum(mg.sum(x * x * x) for x in arrays_of(state))

    arguments = (*tokens(), MEMORIES["two layers"])
    single = mg.grad(loss, which)(*arguments)
    together = mg.grad(loss, tuple(range(7)))(*arguments)[which]
    for one, other in zip(arrays_of([single]), arrays_of([together]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("cut", [1, 4, 6, 10])
def test_a_sequence_may_be_cut_inside_a_batch(form, name, cut):
    arguments = tokens(3, 2)
    y, _ = form(*arguments, MEMORIES[name], batch_size=4)
    parts, state = [], None
    for span in (slice(None, cut), slice(cut, None)):
        piece = [x[:, :, span] for x in arguments]
        part, state = form(*piece, MEMORIES[name], state=state, batch_size=4)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=-2), y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_so_it_may_within_a_norm(form):
    (q, k, _, *gates), (memory, norm) = tokens(3, 2), WITHIN_A_NORM["two layers, one model for each head"]
    arguments = [q, k, draw(3, 2, T, K), *gates]
    y, _ = form(*arguments, memory, norm=norm, batch_size=4)
    before, state = form(*[x[:, :, :6] for x in arguments], memory, norm=norm, batch_size=4)
    after, _ = form(*[x[:, :, 6:] for x in arguments], memory, state=state, norm=norm, batch_size=4)
    np.testing.assert_allclose(np.concatenate([before, after], axis=-2), y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_second_gradients_agree_with_differences(form):
    q, k, v, theta, log_eta, log_decay = tokens()
    memory = MEMORIES["two layers"]

    def loss(theta, log_eta, log_decay):
        return mg.sum(form(q, k, v, theta, log_eta, log_decay, memory, batch_size=4)[0] ** 2)

    mg.check_grads(loss, (theta, log_eta, log_decay), order=2)


@pytest.mark.parametrize("form", FORMS)
def test_so_they_do_within_a_norm(form):
    (q, k, _, *gates), (memory, norm) = tokens(), WITHIN_A_NORM["a matrix"]

    def loss(theta, gamma):
        return mg.sum(form(q, k, q[::-1], theta, *gates[1:], memory, norm=(gamma, norm[1]), batch_size=4)[0] ** 2)

    mg.check_grads(loss, (gates[0] / 8, norm[0]), order=2)


@pytest.mark.parametrize("form", FORMS)
def test_no_rate_runs_away_within_a_norm(form):
    """Larger weights answer the same and learn slower: at a rate at which an MLP alone overflows, losses stay."""
    rng = np.random.default_rng(0)
    k, v = (rng.standard_normal((300, K)) for _ in range(2))
    gates = np.full(300, 10.0), np.full(300, HALF), np.full(300, math.log(0.9))
    memory = ((rng.standard_normal((K, 5)),), (rng.standard_normal((5, K)),))
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError):
        form(k, k, v, *gates, memory)
    y, _ = form(k, k, v, *gates, memory, norm=norm())
    assert np.abs(y - k).max() < 2 * K**0.5 + 1  # |γ ẑ + β| with |ẑ| < √K


# What goes wrong

q = k = np.ones((2, 6, 4))
v, gate = np.ones((2, 6, 3)), np.zeros((2, 6))
W = np.ones((4, 3))
late = gate.copy()
late[1, 3:] = 0.25

MISTAKES = [
    (
        lambda: titans.chunkwise(q, k, v, gate, late, gate, ((W,),)),
        ValueError,
        "titans.chunkwise: log_eta is 0.25 at token 3, expected at most 0 (η at most 1)",
    ),
    (
        lambda: titans.recurrent(q, k, v, gate, gate, late * np.nan, ((W,),)),
        ValueError,
        "titans.recurrent: log_decay is nan at token 0, expected at most 0 (α at least 0)",
    ),
    (
        lambda: titans.recurrent(q, k, v, -late, gate, gate, ((W,),)),
        ValueError,
        "titans.recurrent: theta is -0.25 at token 3, expected at least 0",
    ),
    (
        lambda: titans.recurrent(q, k, v, gate, gate, gate, ((W,),), batch_size=0),
        ValueError,
        "titans.recurrent: batch_size is 0, expected an integer of at least 1",
    ),
    (
        lambda: titans.recurrent(q, k, v, gate, gate, gate, W),
        TypeError,
        "titans.recurrent: memory is an array of shape (4, 3), expected a tuple of layers, each a tuple (W,) or (W, b)",
    ),
    (
        lambda: titans.chunkwise(q, k, v, gate, gate, gate, ((np.ones((4, 6)),), (np.ones((5, 3)),))),
        ValueError,
        "titans.chunkwise: memory[1][0] has 5 rows, expected 6, as many as memory[0][0] has columns (shape (5, 3))",
    ),
    (
        lambda: titans.chunkwise(q, k, v, gate, gate, gate, ((np.ones((4, 4)),),)),
        ValueError,
        "titans.chunkwise: memory[0][0] has 4 columns, expected 3, as many as v has features (shape (4, 4))",
    ),
    (
        lambda: titans.fused(q, k, v, gate, gate, gate, ((W,),), norm=norm()),
        ValueError,
        "titans.fused: v has 3 features, expected 4 as k has (with a norm the model is k + LN(…), shape (2, 6, 3))",
    ),
    (
        lambda: titans.recurrent(q, k, k, gate, gate, gate, ((np.eye(4),),), norm=(np.ones((1, 3)), np.ones((1, 4)))),
        ValueError,
        "titans.recurrent: norm[0] has 3 columns, expected 4, as many as v has features (shape (1, 3))",
    ),
    (
        lambda: titans.chunkwise(q, k, v, gate, gate, gate, ((W,),), state=(W, W, W)),
        TypeError,
        "titans.chunkwise: state is of type tuple, expected State(start, memory, surprise, left)",
    ),
    (
        lambda: titans.chunkwise(q, k, v, gate, gate, gate, ((W,),), state=State(*[((W,),)] * 3, 0)),
        ValueError,
        "titans.chunkwise: state.left is 0, expected an integer of at least 1",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), MISTAKES)
def test_a_mistake_is_one_line(call, kind, message):
    with pytest.raises(kind) as excinfo:
        call()
    assert str(excinfo.value) == message


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("form", FORMS)
def test_a_rate_that_diverges_is_named_by_its_token(form, batch_size):
    """θ‖k‖² = 40 a token: the error grows 39 times a token, or 159 times a batch of 4, until its square overflows."""
    T = 300
    k, v = np.full((T, 1), 2.0), np.ones((T, 1))
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as excinfo:
        form(k, k, v, np.full(T, 10.0), np.full(T, GONE), np.zeros(T), NOTHING, batch_size=batch_size)
    token = {1: 97, 4: 284}[batch_size]  # 39^(2·97) and 159^(2·71) are the first squares beyond 1.8 · 10³⁰⁸
    assert f"titans.{form.__name__}: the inner loss is inf at token {token}, expected a finite one" in str(
        excinfo.value
    )
