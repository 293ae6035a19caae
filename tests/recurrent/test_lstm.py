"""The LSTM beside a calculation by hand, PyTorch's order of gates, generation by its state, and bad input."""

import math

import numpy as np
import pytest

import minigrad as mg
from models.blocks import MIXERS, BlockConfig
from models.recurrent import lstm


def sigma(x):
    return 1 / (1 + math.exp(-x))


def test_two_steps_by_hand():
    x, W, U = np.array([[1.0], [-0.5]]), np.array([[1.0], [0.5], [-2.0], [0.25]]), np.array([[0.5], [-1], [2], [1]])
    b = np.array([0.1, 0.2, 0.3, 0.4])
    h, c, y = 0.0, 0.0, []
    for x_t in (1.0, -0.5):
        i, f, g, o = (w * x_t + u * h + bias for w, u, bias in zip(W[:, 0], U[:, 0], b, strict=True))
        c = sigma(f) * c + sigma(i) * math.tanh(g)
        h = sigma(o) * math.tanh(c)
        y.append([h])
    for form in (lstm.recurrent, lstm.projected, lstm.fused):
        outputs, state = form(x, W, U, b)
        np.testing.assert_allclose(outputs, y, rtol=1e-14)
        np.testing.assert_allclose(state, [[h], [c]], rtol=1e-14)


def test_only_an_open_forget_gate_carries_the_gradient():
    """With gates that ignore the input, 50 steps back the gradient is f⁵⁰: 0.5⁵⁰ at a bias of 0, near 1 at 10."""
    zeros, state = np.zeros((8, 2)), (np.zeros(2), np.ones(2))
    for bias in (0.0, 10.0):
        b = np.repeat([0, bias, 0, 0], 2)

        def last_cell(c, b=b):
            return mg.sum(lstm.recurrent(np.zeros((50, 2)), zeros, zeros, b, state=(state[0], c))[1][1])

        np.testing.assert_allclose(mg.grad(last_cell)(state[1]), sigma(bias) ** 50, rtol=1e-12)


@pytest.mark.parametrize("form", ["recurrent", "projected", "fused"])
def test_a_block_continues_from_its_state(form):
    rng = np.random.default_rng(0)
    block = MIXERS["lstm"](BlockConfig(width=8, form=form), rng)
    x = rng.standard_normal((2, 9, 8)).astype(np.float32)
    y, _ = block(x)
    first, state = block(x[:, :5])
    outputs = [first]
    for t in range(5, 9):
        out, state = block(x[:, t : t + 1], state)
        outputs.append(out)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), y, rtol=0, atol=1e-6)


def test_the_forget_gates_of_a_block_start_open():
    block = MIXERS["lstm"](BlockConfig(width=3), np.random.default_rng(0))
    np.testing.assert_array_equal(block.b, [0] * 3 + [1] * 3 + [0] * 6)


x, W, U, b = np.zeros((5, 2)), np.zeros((12, 2)), np.zeros((12, 3)), np.zeros(12)
WRONG = [
    ((x, W[:11], U, b), "W has 11 on axis 4*H, expected a multiple of 4 (shape (11, 2), expected 4*H D)"),
    ((x, W[:, :1], U, b), "W has 1 on axis D, expected 2 as in x (shape (12, 1), expected 4*H D)"),
    ((x, W, U[:8], b), "U has 8 on axis 4*H, expected 12 as in W (shape (8, 3), expected 4*H H)"),
    ((x, W, U[:, :2], b), "U has 2 on axis H, expected 3 as in W (shape (12, 2), expected 4*H H)"),
    ((x, W, U, b[:4]), "b has 4 on axis 4*H, expected 12 as in W (shape (4,), expected 4*H)"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_weights_of_another_size(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared whole
        lstm.recurrent(*arguments)
    assert str(error.value) == f"lstm.recurrent: {message}"


def test_a_state_of_one_array():
    with pytest.raises(TypeError, match=r"^lstm.fused: state is of type ndarray, expected a tuple of 2 arrays$"):
        lstm.fused(x, W, U, b, state=np.zeros(3))
