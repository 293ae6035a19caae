"""The engine's primitives against torch.autograd and JAX: values, gradients, and second derivatives.

A row names a primitive, writes it once over an array namespace, and gives its inputs; the same line runs in minigrad,
in PyTorch (under the standard's names) and in JAX. Complex gradients follow PyTorch's convention, the adjoint Jᴴ g; JAX
pulls back by the transpose, so its cotangents and gradients are conjugated here.
"""

from typing import NamedTuple

import numpy as np
import pytest

import minigrad as mg


class Row(NamedTuple):
    """A primitive: its name, its one source, the shapes and the kinds of its inputs."""

    name: str
    function: object
    shapes: tuple
    kinds: str = "real complex"


A, B, V, M, N = (3, 4), (4,), (5,), (2, 3, 3), (2, 3, 4)
MASK = np.array([True, False, True, True])
ROWS = [
    Row("add", lambda xp, x, y: x + y, (A, B)),
    Row("subtract", lambda xp, x, y: x - y, (B, A)),
    Row("multiply", lambda xp, x, y: x * y, (A, B)),
    Row("divide", lambda xp, x, y: x / y, (A, A)),
    Row("power of a constant", lambda xp, x: x**3, (A,)),
    Row("power", lambda xp, x, y: x**y, (A, A), "positive complex"),
    Row("negative", lambda xp, x: -x, (A,)),
    Row("square", lambda xp, x: xp.square(x), (A,)),
    Row("reciprocal", lambda xp, x: xp.reciprocal(x), (A,)),
    Row("exp", lambda xp, x: xp.exp(x), (A,)),
    Row("expm1", lambda xp, x: xp.expm1(x), (A,)),
    Row("log", lambda xp, x: xp.log(x), (A,), "positive complex"),
    Row("log1p", lambda xp, x: xp.log1p(x), (A,), "positive complex"),
    Row("sqrt", lambda xp, x: xp.sqrt(x), (A,), "positive complex"),
    Row("logaddexp", lambda xp, x, y: xp.logaddexp(x, y), (A, A), "real"),
    Row("sin", lambda xp, x: xp.sin(x), (A,)),
    Row("cos", lambda xp, x: xp.cos(x), (A,)),
    Row("tan", lambda xp, x: xp.tan(x), (A,)),
    Row("atan", lambda xp, x: xp.atan(x), (A,), "real"),
    Row("atan2", lambda xp, x, y: xp.atan2(x, y), (A, A), "real"),
    Row("sinh", lambda xp, x: xp.sinh(x), (A,)),
    Row("cosh", lambda xp, x: xp.cosh(x), (A,)),
    Row("tanh", lambda xp, x: xp.tanh(x), (A,)),
    Row("conj", lambda xp, x: xp.conj(x) * x, (A,), "complex"),
    Row("real", lambda xp, x: xp.real(x), (A,), "complex"),
    Row("imag", lambda xp, x: xp.imag(x), (A,), "complex"),
    Row("abs", lambda xp, x: xp.abs(x), (A,)),
    Row("maximum", lambda xp, x, y: xp.maximum(x, y), (A, B), "real"),
    Row("minimum", lambda xp, x, y: xp.minimum(x, y), (A, B), "real"),
    Row("where", lambda xp, x, y: xp.where(x > y, x * y, y), (A, A), "real"),
    Row("sum", lambda xp, x: xp.sum(x, axis=0), (A,)),
    Row("mean", lambda xp, x: xp.mean(x, axis=-1, keepdims=True), (A,)),
    Row("var", lambda xp, x: xp.var(x, axis=-1), (A,), "real"),
    Row("prod", lambda xp, x: xp.prod(x, axis=-1), (A,)),
    Row("max", lambda xp, x: xp.max(x, axis=0), (A,), "real"),
    Row("min", lambda xp, x: xp.min(x, axis=0), (A,), "real"),
    Row("cumulative_sum", lambda xp, x: xp.cumulative_sum(x, axis=0), (A,)),
    Row("cumulative_prod", lambda xp, x: xp.cumulative_prod(x, axis=-1), (A,)),
    Row("matmul", lambda xp, x, y: x @ y, (M, N)),
    Row("matmul of a vector", lambda xp, x, y: x @ y, ((2, 3, 5), V)),
    Row("solve", lambda xp, x, y: xp.linalg.solve(x, y), (M, N)),
    Row("inv", lambda xp, x: xp.linalg.inv(x), (M,)),
    Row("einsum", lambda xp, x, y: xp.einsum("bik,bkj->bji", x, y), (M, N)),
    Row("einsum, contracted axis", lambda xp, x, y: xp.einsum("ij,kj->k", x, y), (A, (5, 4))),
    Row("fft", lambda xp, x: xp.fft.fft(x), (A,), "complex"),
    Row("ifft", lambda xp, x: xp.fft.ifft(x), (V,), "complex"),
    Row("rfft, even", lambda xp, x: xp.fft.rfft(x), (A,), "real"),
    Row("rfft, odd", lambda xp, x: xp.fft.rfft(x), (V,), "real"),
    Row("irfft, even", lambda xp, x: xp.fft.irfft(x, n=6), (A,), "complex"),
    Row("irfft, odd", lambda xp, x: xp.fft.irfft(x, n=7), (A,), "complex"),
    Row("sort", lambda xp, x: xp.sort(x, axis=-1), (A,), "real"),
    Row("take", lambda xp, x: xp.take(x, xp.asarray([2, 0, 2]), axis=0), (A,)),
    Row("index", lambda xp, x: x[1:, ::2] * x[0, 1], (A,)),
    Row("boolean index", lambda xp, x: x[:, xp.asarray(MASK)], (A,)),
    Row("concat", lambda xp, x, y: xp.concat([x, y, x], axis=0), (A, (2, 4))),
    Row("stack", lambda xp, x, y: xp.stack([x, y], axis=1), (A, A)),
    Row("reshape", lambda xp, x: xp.reshape(x, (2, 6)), (A,)),
    Row("permute_dims", lambda xp, x: xp.permute_dims(x, (2, 0, 1)), (N,)),
    Row("matrix_transpose", lambda xp, x: xp.matrix_transpose(x), (N,)),
    Row("broadcast_to", lambda xp, x: xp.broadcast_to(x, (3, 4)), (B,)),
    Row("flip", lambda xp, x: xp.flip(x, axis=0), (A,)),
    Row("roll", lambda xp, x: xp.roll(x, 2, axis=1), (A,)),
    Row("tril", lambda xp, x: xp.tril(x, k=-1), (A,)),
    Row("triu", lambda xp, x: xp.triu(x, k=1), (A,)),
]
CASES = [pytest.param(row, kind, id=f"{row.name}-{kind}") for row in ROWS for kind in row.kinds.split()]
REAL = [pytest.param(row, kind, id=row.name) for row in ROWS for kind in row.kinds.split() if kind != "complex"]


def draw(row, kind):
    """Return inputs of a kind, named x and y."""
    rng = np.random.default_rng(5)
    arrays = [
        rng.normal(size=shape) + (1j * rng.normal(size=shape) if kind == "complex" else 0) for shape in row.shapes
    ]
    arrays = [np.abs(array) + 0.5 if kind == "positive" else array for array in arrays]
    return dict(zip("xy", arrays, strict=False))


@pytest.mark.parametrize(("row", "kind"), CASES)
def test_torch(row, kind, compare, torch):
    xp = mg.namespace(torch.empty(0))
    compare(lambda *args: (row.function(mg, *args),), lambda *args: (row.function(xp, *args),), draw(row, kind), 1e-12)


@pytest.mark.parametrize(("row", "kind"), CASES)
def test_jax(row, kind, jax, close):
    arrays = draw(row, kind)
    expected, pull_theirs = jax.vjp(
        lambda *args: row.function(jax.numpy, *args), *map(jax.numpy.asarray, arrays.values())
    )
    out, pull = mg.vjp(lambda *args: row.function(mg, *args), *arrays.values())
    close("result", out, expected, 1e-12)
    cotangent = draw(Row("", None, (expected.shape,)), "complex" if expected.dtype.kind == "c" else "real")["x"]
    theirs = pull_theirs(jax.numpy.asarray(cotangent.conj()))
    for name, gradient, other in zip(arrays, pull(cotangent), theirs, strict=True):
        close(f"gradient of {name}", gradient, np.conj(other), 1e-12)


@pytest.mark.parametrize(("row", "kind"), REAL)
def test_second_derivatives(row, kind, torch, close):
    """H v of Σ w |f(x)|³ for random w and v, by differentiating the gradient: forward-mode is not involved."""
    arrays = draw(row, kind)
    vectors = {name: array[::-1].copy() for name, array in arrays.items()}
    weight = draw(Row("", None, (np.shape(row.function(np, *arrays.values())),)), "real")["x"]

    def objective(xp, weight, *args):
        out = row.function(xp, *args)
        return xp.sum(weight * xp.abs(out) ** 3)

    xp = mg.namespace(torch.empty(0))
    _, expected = torch.autograd.functional.hvp(
        lambda *args: objective(xp, torch.tensor(weight), *args),
        tuple(map(torch.tensor, arrays.values())),
        tuple(map(torch.tensor, vectors.values())),
    )
    actual = mg.hvp(lambda *args: objective(mg, weight, *args), tuple(arrays.values()), tuple(vectors.values()))
    for name, ours, theirs in zip(arrays, actual, expected, strict=True):
        close(f"second derivative, {name}", ours, theirs.numpy(), 1e-12)
