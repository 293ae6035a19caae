"""The selective scan and its dual where they break elsewhere: long sequences, extreme steps, and what does not fit."""

import numpy as np
import pytest

import minigrad as mg
from models.ssm import selective_scan, ssd

SCANS = (selective_scan.recurrent, selective_scan.associative, selective_scan.chunkwise, selective_scan.fused)
DUALS = (ssd.recurrent, ssd.quadratic, ssd.chunkwise, ssd.fused)


def named(forms):
    return pytest.mark.parametrize("form", forms, ids=lambda form: form.__name__)


def scan_arguments(T, *, D=2, N=3, batch=(), dtype=np.float64):
    rng = np.random.default_rng(3)
    u, delta = rng.normal(size=(*batch, T, D)), rng.uniform(0.1, 1, size=(*batch, T, D))
    A = -rng.uniform(0.1, 2, size=(D, N))
    B, C = rng.normal(size=(2, *batch, T, N))
    return [x.astype(dtype) for x in (u, delta, A, B, C, rng.normal(size=D))]


def dual_arguments(T, *, P=2, N=3, batch=(), dtype=np.float64):
    rng = np.random.default_rng(3)
    x, delta = rng.normal(size=(*batch, T, P)), rng.uniform(0.1, 1, size=(*batch, T))
    B, C = rng.normal(size=(2, *batch, T, N))
    return [np.asarray(x, dtype=dtype) for x in (x, delta, -rng.uniform(0.1, 2, size=batch[-1:]), B, C)]


# By hand


@named(SCANS)
def test_scan_by_hand(form):
    half = np.log(2.0)
    u, delta = np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [2.0], [0.0]])
    B, C = np.array([[3.0], [1.0], [5.0]]), np.array([[1.0], [2.0], [1.0]])
    y, h = form(u, delta, np.array([[-half]]), B, C, np.array([10.0]))
    # h: 1·3·1 = 3; 3/4 + 2·1·2 = 4.75; the step of 0 leaves it
    np.testing.assert_allclose(y, [[3 + 10], [9.5 + 20], [4.75 + 40]], rtol=1e-15)
    np.testing.assert_allclose(h, [[4.75]], rtol=1e-15)


@named(DUALS)
def test_dual_by_hand(form):
    x, delta = np.array([[1.0], [2.0]]), np.array([1.0, 2.0])
    B, C = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 5.0], [2.0, 1.0]])
    y, S = form(x, delta, -np.log(np.array(2.0)), B, C, state=np.array([[2.0], [0.0]]))
    # S: (2/2 + 3, 0); (4/4 + 4, 4)
    np.testing.assert_allclose(y, [[4.0], [14.0]], rtol=1e-15)
    np.testing.assert_allclose(S, [[5.0], [4.0]], rtol=1e-15)


def test_theorem_1_from_the_logits():
    z, u = np.random.default_rng(0).normal(size=(2, 9, 1)) * 3
    delta, gate, one = mg.softplus(z), mg.sigmoid(z), np.ones((9, 1))
    y, _ = selective_scan.recurrent(u * gate / delta, delta, np.array([[-1.0]]), one, one, np.zeros(1))
    h = 0.0
    for t in range(9):
        h = (1 - gate[t]) * h + gate[t] * u[t]
        np.testing.assert_allclose(y[t], h, rtol=1e-13)


# Chunks, starts, gradients


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 50])
def test_chunks_of_any_size(chunk_size):
    for mechanism, arguments in ((selective_scan, scan_arguments), (ssd, dual_arguments)):
        inputs = arguments(7, batch=(2, 3))
        for left, right in zip(
            mechanism.chunkwise(*inputs, chunk_size=chunk_size), mechanism.recurrent(*inputs), strict=True
        ):
            np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("forms", [SCANS, DUALS], ids=["scan", "dual"])
def test_gradients_of_all_forms_agree(forms):
    arguments = (scan_arguments if forms is SCANS else dual_arguments)(9, batch=(2,))
    state = np.random.default_rng(1).normal(size=(2, 2, 3) if forms is SCANS else (2, 3, 2))

    def gradients(form):
        def loss(S, *arguments):
            y, S = form(*arguments, state=S)
            return mg.sum(y * y) + mg.sum(S * S * S)

        return mg.grad(loss, argnums=tuple(range(1 + len(arguments))))(state, *arguments)

    expected = gradients(forms[0])
    for form in forms[1:]:
        for left, right in zip(gradients(form), expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-10)


# Long and extreme

LENGTHS = {"quadratic": 500}  # it keeps T² numbers, the others go to a hundred thousand
EXTREMES = {"decay 1 - 1e-7": (1.0, -1e-7), "step 1e-6": (1e-6, -1.0), "step 1e2": (1e2, -16.0), "step 0": (0.0, -1.0)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@named((*SCANS, *DUALS))
def test_long_sequences_stay_finite(form, dtype):
    """Every extreme side by side, forward and backward: a channel each of the scan, a head each of its dual."""
    T = LENGTHS.get(form.__name__, 100_000)
    step, rate = np.array(list(EXTREMES.values()), dtype).T
    if form in SCANS:
        arguments = scan_arguments(T, D=len(step), N=1, dtype=dtype)
        arguments[1], arguments[2] = np.full_like(arguments[1], step), rate[:, None]
    else:
        arguments = dual_arguments(T, P=1, N=1, batch=step.shape, dtype=dtype)
        arguments[1], arguments[2] = np.full_like(arguments[1], step[:, None]), rate

    def loss(*arguments):
        y, state = form(*arguments)
        return mg.mean(y * y) + mg.sum(state)

    value, gradients = mg.value_and_grad(loss, argnums=tuple(range(len(arguments))))(*arguments)
    assert np.isfinite(value)
    for gradient, x in zip(gradients, arguments, strict=True):
        assert gradient.dtype == dtype and gradient.shape == x.shape
        assert np.isfinite(gradient).all()


@named((selective_scan.recurrent, ssd.recurrent))
def test_recurrence_of_a_hundred_thousand_tokens(form):
    T = 100_000
    arguments = scan_arguments(T, D=1, N=1) if form is selective_scan.recurrent else dual_arguments(T, P=1, N=1)
    arguments[1], arguments[2] = np.full_like(arguments[1], 1.0), np.full_like(arguments[2], -1e-7)
    y, _ = form(*arguments)
    chunked, _ = (selective_scan if form is selective_scan.recurrent else ssd).chunkwise(*arguments)
    np.testing.assert_allclose(y, chunked, rtol=1e-9, atol=1e-9 * np.abs(y).max())


def test_nearly_no_decay_in_float32():
    """A sum of 1e5 logarithms of −1e-7 is 1 % of decay; float32's nearest factor, 1 − 1.19e-7, would make it 1.2 %."""
    T = 100_000
    u, one = np.zeros((T, 1), np.float32), np.ones((T, 1), np.float32)
    start, rate = np.ones((1, 1), np.float32), np.array([[-1e-7]], np.float32)
    _, h = selective_scan.associative(u, one, rate, one, one, u[0], state=start)
    np.testing.assert_allclose(h, np.exp(-0.01), rtol=1e-5)


# What does not fit


@named(SCANS)
def test_scan_errors(form):
    u, delta, A, B, C, D = scan_arguments(4)
    name = f"selective_scan.{form.__name__}"
    with pytest.raises(ValueError, match=rf"^{name}: A holds 0.5, expected rates of at most 0: they seem to be A_log"):
        form(u, delta, np.full_like(A, 0.5), B, C, D)
    with pytest.raises(ValueError, match=rf"^{name}: A holds 0.5, expected rates of at most 0$"):
        form(u, delta, np.concatenate([A[:-1], np.full_like(A[-1:], 0.5)]), B, C, D)
    with pytest.raises(ValueError, match=rf"^{name}: delta holds -2.0, expected steps of at least 0$"):
        form(u, np.where(np.arange(4)[:, None] == 2, -2.0, delta), A, B, C, D)
    with pytest.raises(ValueError, match=rf"^{name}: delta holds nan, expected steps of at least 0$"):
        form(u, np.where(np.arange(4)[:, None] == 2, np.nan, delta), A, B, C, D)
    with pytest.raises(ValueError, match=rf"^{name}: C has 3 on axis T, expected 4 as in u"):
        form(u, delta, A, B, C[:3], D)
    with pytest.raises(ValueError, match=rf"^{name}: B has 2 on axis N, expected 3 as in A"):
        form(u, delta, A, B[:, :2], C, D)
    with pytest.raises(TypeError, match=rf"^{name}: u has dtype complex128, expected real floating point$"):
        form(u + 0j, delta, A, B, C, D)


@named(DUALS)
def test_dual_errors(form):
    x, delta, A, B, C = dual_arguments(4, batch=(2, 3))
    name = f"ssd.{form.__name__}"
    with pytest.raises(ValueError, match=rf"^{name}: A holds 0.5, expected rates of at most 0: they seem to be A_log"):
        form(x, delta, A * 0 + 0.5, B, C)
    with pytest.raises(ValueError, match=rf"^{name}: delta holds -1.0, expected steps of at least 0$"):
        form(x, delta * 0 - 1, A, B, C)
    with pytest.raises(ValueError, match=rf"^{name}: A has shape \(2,\), expected \(\) or the last of the batch axes"):
        form(x, delta, A[:2], B, C)
    with pytest.raises(ValueError, match=rf"^{name}: delta has 3 on axis T, expected 4 as in x"):
        form(x, delta[..., :3], A, B, C)


def test_chunk_sizes():
    with pytest.raises(ValueError, match=r"^selective_scan.chunkwise: chunk_size is 0, expected an integer"):
        selective_scan.chunkwise(*scan_arguments(4), chunk_size=0)
    with pytest.raises(ValueError, match=r"^ssd.chunkwise: chunk_size is 0, expected an integer"):
        ssd.chunkwise(*dual_arguments(4), chunk_size=0)
