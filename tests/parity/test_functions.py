"""The composite functions against torch.nn.functional, in float64."""

import numpy as np
import pytest

import minigrad as mg

FUNCTIONS = {
    "relu": (mg.relu, lambda F: F.relu),
    "sigmoid": (mg.sigmoid, lambda F: F.sigmoid),
    "log_sigmoid": (mg.log_sigmoid, lambda F: F.logsigmoid),
    "silu": (mg.silu, lambda F: F.silu),
    "gelu": (mg.gelu, lambda F: F.gelu),
    "softplus": (mg.softplus, lambda F: lambda x: F.softplus(x, threshold=100)),
    "softmax": (lambda x: mg.softmax(x, axis=-1), lambda F: lambda x: F.softmax(x, -1)),
    "log_softmax": (lambda x: mg.log_softmax(x, axis=-2), lambda F: lambda x: F.log_softmax(x, -2)),
    "logsumexp": (lambda x: mg.logsumexp(x, axis=-1), lambda F: lambda x: x.logsumexp(-1)),
    "rms_norm": (lambda x: mg.rms_norm(x, axis=-1, eps=1e-6), lambda F: lambda x: F.rms_norm(x, (8,), eps=1e-6)),
}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name, compare, torch):
    ours, theirs = FUNCTIONS[name]
    x = 5 * draw(2, 6, 8)  # far enough out for saturation to show
    compare(lambda x: (ours(x),), lambda x: (theirs(torch.nn.functional)(x),), {"x": x}, 1e-12)


def test_cross_entropy(compare, torch):
    targets = np.random.default_rng(1).integers(0, 5, size=(3, 7))

    def theirs(logits):
        return (torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten()),)

    compare(lambda logits: (mg.cross_entropy(logits, targets),), theirs, {"logits": 5 * draw(3, 7, 5)}, 1e-12)


def test_take_along_axis(compare, torch):
    indices = np.random.default_rng(1).integers(0, 5, size=(3, 7, 4))

    def theirs(x):
        return (torch.take_along_dim(x, torch.tensor(indices), -1),)

    compare(lambda x: (mg.take_along_axis(x, indices, axis=-1),), theirs, {"x": draw(3, 7, 5)}, 1e-12)


def test_causal_conv1d(compare, torch):
    def theirs(x, w):
        padded = torch.nn.functional.pad(x.mT, (w.shape[-1] - 1, 0))
        return (torch.nn.functional.conv1d(padded, w.flip(-1)[:, None], groups=w.shape[0]).mT,)

    inputs = {"x": draw(2, 9, 3), "w": draw(3, 4, seed=1)}
    compare(lambda x, w: (mg.causal_conv1d(x, w),), theirs, inputs, 1e-12)


def test_solve_triangular(compare, torch):
    lower = np.tril(draw(2, 5, 5)) + 3 * np.eye(5)

    def theirs(a, b):
        return (torch.linalg.solve_triangular(a, b, upper=False),)

    compare(
        lambda a, b: (mg.solve_triangular(a, b, lower=True),), theirs, {"a": lower, "b": draw(2, 5, 3, seed=1)}, 1e-12
    )
