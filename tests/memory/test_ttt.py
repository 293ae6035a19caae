"""Test-time training: cases worked out on paper, the layer norm inside, heads, and what goes wrong in one line."""

import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import arrays_of
from models.memory import inner, ttt
from models.memory.ttt import State, Weights

FORMS = [ttt.primal, ttt.dual, ttt.fused]
T, K, HIDDEN = 11, 4, 6


def column(*numbers):
    return np.array(numbers, dtype=float)[:, None]


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape) / 2


def norm(*heads):
    return 1 + draw(*heads, 1, K), draw(*heads, 1, K)


LINEAR = Weights(((draw(K, K), draw(1, K)),), norm())
MLP = Weights(((draw(K, HIDDEN), draw(1, HIDDEN)), (draw(HIDDEN, K), draw(1, K))), norm())
HEADS = Weights(((draw(3, K, HIDDEN), draw(3, 1, HIDDEN)), (draw(3, HIDDEN, K), draw(3, 1, K))), norm(3))
ALONE = Weights(((draw(3, K, K),),))
MODELS = {"linear": LINEAR, "mlp": MLP, "a model for each head": HEADS, "a matrix for each head": ALONE}


def tokens(*batch):
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((*batch, T, K)) for _ in range(3))
    return q, k, v, rng.uniform(0, 0.5, (*batch, T))


@pytest.mark.parametrize("form", FORMS)
def test_one_token_after_the_other(form):
    # W: 0 + ½·1·(4 − 0) = 2, then 2 + ½·1·(8 − 2) = 5, then 5 + ½·2·(4 − 10) = −1
    y, state = form(
        column(1, 1, 3),
        column(1, 1, 2),
        column(4, 8, 4),
        np.full(3, 0.5),
        Weights(((np.zeros((1, 1)),),)),
        batch_size=1,
    )
    np.testing.assert_allclose(y, column(2, 5, -3))
    assert state.start[0][0] == -1 and state.left == 1


@pytest.mark.parametrize("form", FORMS)
def test_in_a_batch_all_gradients_are_taken_at_its_start(form):
    # W: 2, then 2 + ½·1·(8 − 0) = 6 and there a batch ends; then 6 + ½·2·(4 − 12) = −2
    y, state = form(
        column(1, 1, 3),
        column(1, 1, 2),
        column(4, 8, 4),
        np.full(3, 0.5),
        Weights(((np.zeros((1, 1)),),)),
        batch_size=2,
    )
    np.testing.assert_allclose(y, column(2, 6, -6))
    assert state.start[0][0] == 6 and state.total[0][0] == 8 and state.left == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_token_may_see_a_share_of_the_sum(form):
    # W = −τ Σ: ½·4 = 2 times 1, then (½·4 + ½·8) times ½, and from there 3 + ½(4 − 3)
    y, _ = form(
        column(1, 1, 1),
        column(1, 1, 1),
        column(4, 8, 4),
        np.full(3, 0.5),
        Weights(((np.zeros((1, 1)),),)),
        tau=np.array([1, 0.5, 1]),
        batch_size=2,
    )
    np.testing.assert_allclose(y, column(2, 3, 3.5))


def everything(form, weights, batch, **options):
    """Return outputs, weights, and the gradients of both to all inputs."""

    def loss(q, k, v, eta, weights):
        y, state = form(q, k, v, eta, weights, **options)
        return mg.sum(y * y) + sum(mg.sum(x * x * x) for x in arrays_of(state)), (y, arrays_of(state))

    result = mg.value_and_grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True)(*tokens(*batch), weights)
    return arrays_of(list(result[0][1])) + arrays_of(list(result[1]))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
@pytest.mark.parametrize("name", MODELS)
def test_every_form_is_primal_with_the_layer_norm_inside(name, batch_size):
    """Values and first gradients, to q, k, v, the rates and W₀: by hand and through a gradient of a gradient."""
    batch = (2, 3) if "head" in name else (2,)
    primal, *others = (everything(form, MODELS[name], batch, batch_size=batch_size) for form in FORMS)
    for result in others:
        for one, other in zip(primal, result, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10 * np.abs(one).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_second_gradients_agree_with_differences(form, name):
    q, k, v, eta = tokens()

    def loss(eta, W):
        weights = MODELS[name]._replace(layers=((W, *MODELS[name].layers[0][1:]), *MODELS[name].layers[1:]))
        return mg.sum(form(q, k, v, eta, weights, batch_size=4)[0] ** 2)

    mg.check_grads(loss, (eta, MODELS[name].layers[0][0]), order=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", range(5))
def test_gradients_to_one_argument_are_those_to_all(form, which):
    """One tracked argument among plain arrays: everything that depends on it is tracked."""

    def loss(*arguments):
        y, state = form(*arguments, batch_size=4)
        return mg.sum(y * y) + sum(mg.sum(x * x * x) for x in arrays_of(state))

    arguments = (*tokens(), MLP)
    single = mg.grad(loss, which)(*arguments)
    together = mg.grad(loss, tuple(range(5)))(*arguments)[which]
    for one, other in zip(arrays_of([single]), arrays_of([together]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cut", [1, 4, 6, 10])
def test_a_sequence_may_be_cut_inside_a_batch(form, name, cut):
    arguments = tokens(2, 3)
    y, state = form(*arguments, MODELS[name], batch_size=4)
    before, middle = form(
        *(x[..., :cut, :] for x in arguments[:3]), arguments[3][..., :cut], MODELS[name], batch_size=4
    )
    after, end = form(
        *(x[..., cut:, :] for x in arguments[:3]), arguments[3][..., cut:], MODELS[name], state=middle, batch_size=4
    )
    np.testing.assert_allclose(np.concatenate([before, after], axis=-2), y, rtol=1e-9, atol=1e-12)
    assert state.left == end.left == 1
    for one, other in zip(arrays_of(state), arrays_of(end), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_gelu_is_within_its_approximation():
    x = np.linspace(-4, 4, 101)
    np.testing.assert_allclose(inner.gelu(x), mg.gelu(x), atol=5e-4)


def test_the_layer_norm_divides_by_the_root_of_the_variance_and_its_epsilon():
    # the variance is 10⁻⁶, as much as ε
    unit, deviation = inner.standardise(np.array([[1e-3, -1e-3]]))
    np.testing.assert_allclose(unit, [[0.5**0.5, -(0.5**0.5)]])
    np.testing.assert_allclose(deviation, [[1e-3 * 2**0.5]])


# What goes wrong

q = k = np.ones((2, 6, 4))
v, eta, wide = np.ones((2, 6, 4)), np.ones((2, 6)), np.ones((2, 6, 3))
W, b = np.ones((4, 4)), np.zeros((1, 4))

MISTAKES = [
    (
        lambda: ttt.primal(q, k, v, eta, {"W": W}),
        TypeError,
        "ttt.primal: weights is of type dict, expected Weights(layers, norm)",
    ),
    (
        lambda: ttt.dual(q, k, v, eta, Weights((W, b))),
        TypeError,
        "ttt.dual: weights.layers is of type tuple, expected a tuple of layers, each a tuple (W,) or (W, b)",
    ),
    (
        lambda: ttt.dual(q, k, v, eta, Weights(((np.ones((5, 4)),),))),
        ValueError,
        "ttt.dual: weights.layers[0][0] has 5 rows, expected 4, as many as k has features (shape (5, 4))",
    ),
    (
        lambda: ttt.primal(q, k, v, eta, Weights(((np.ones((4, 7)), np.ones((1, 7))), (np.ones((6, 4)),)))),
        ValueError,
        "ttt.primal: weights.layers[1][0] has 6 rows, expected 7, "
        "as many as weights.layers[0][0] has columns (shape (6, 4))",
    ),
    (
        lambda: ttt.primal(q, k, wide, eta, Weights(((W,),))),
        ValueError,
        "ttt.primal: weights.layers[0][0] has 4 columns, expected 3, as many as v has features (shape (4, 4))",
    ),
    (
        lambda: ttt.dual(q, k, v, eta, Weights(((W, np.zeros(4)),))),
        ValueError,
        "ttt.dual: weights.layers[0][1] is an array of shape (4,), expected an array of at least 2 axes",
    ),
    (
        lambda: ttt.dual(q, k, v, eta, Weights(((np.ones((3, 4, 4)),),))),
        ValueError,
        "ttt.dual: weights.layers has an array of shape (3, 4, 4), expected one that broadcasts to (2, 4, 4)",
    ),
    (
        lambda: ttt.dual(q, k, wide, eta, Weights(((np.ones((4, 3)),),), (np.ones((1, 3)), np.zeros((1, 3))))),
        ValueError,
        "ttt.dual: v has 3 features, expected 4 as k has (with a norm the model is k + LN(…), shape (2, 6, 3))",
    ),
    (
        lambda: ttt.primal(q, k, v, eta - 3 * (np.arange(6) > 3), Weights(((W,),))),
        ValueError,
        "ttt.primal: eta is -2 at token 4, expected at least 0",
    ),
    (
        lambda: ttt.dual(q, k, v, eta, Weights(((W,),)), tau=eta * np.nan),
        ValueError,
        "ttt.dual: tau is nan at token 0, expected at least 0",
    ),
    (
        lambda: ttt.primal(q, k, v, eta, Weights(((W,),)), batch_size=0),
        ValueError,
        "ttt.primal: batch_size is 0, expected an integer of at least 1",
    ),
    (
        lambda: ttt.primal(q, k, v, eta, Weights(((W,),)), state=W),
        TypeError,
        "ttt.primal: state is of type ndarray, expected State(start, total, left)",
    ),
    (
        lambda: ttt.primal(q, k, v, eta, Weights(((W,),)), state=State(((W,),), ((W,),), 0)),
        ValueError,
        "ttt.primal: state.left is 0, expected an integer of at least 1",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), MISTAKES)
def test_a_mistake_is_one_line(call, kind, message):
    with pytest.raises(kind) as excinfo:
        call()
    assert str(excinfo.value) == message


@pytest.mark.parametrize("form", FORMS)
def test_a_rate_that_diverges_is_named_by_its_token(form):
    q, k, v, eta = tokens(2)
    eta[1, 4] = 1e200
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as excinfo:
        form(q, k, v, eta, Weights(((np.zeros((K, K)),),)), batch_size=1)
    why = "expected a finite one: the inner rate is too large, or an input was not finite"
    assert str(excinfo.value) == f"ttt.{form.__name__}: the inner loss is inf at token 5, {why}"


@pytest.mark.skipif(sys.platform != "linux", reason="the arrays are modelled on CuPy's, which is for Linux")
def test_a_mistake_is_seen_in_any_librarys_arrays():
    from tests.fake_cupy import asarray

    q, k, v, eta = map(asarray, tokens())
    weights = Weights(((asarray(np.zeros((K, K))),),))
    with pytest.raises(ValueError, match=r"^ttt.dual: eta is -2 at token 4, expected at least 0$"):
        ttt.dual(q, k, v, asarray(np.where(np.arange(T) < 4, 1, -2.0)), weights)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="the inner loss is inf at token 1"):
        ttt.dual(q, k, v, eta * 1e200, weights, batch_size=1)


def test_the_loss_falls_where_a_sequence_repeats_itself():
    """The same four pairs again and again: what the memory gets wrong about them goes to 0."""
    _, _, v, _ = tokens()
    k, v = np.tile(np.eye(K) + 0.2, (40, 1)), np.tile(v[:K], (40, 1))
    y, _ = ttt.dual(k, k, v, np.full(40 * K, 0.2), Weights(((np.zeros((K, K)),),)), batch_size=K)
    errors = np.linalg.norm(y - v, axis=-1)
    assert errors[-K:].max() < errors[:K].min() / 100
