"""Linear algebra: determinants of any rank, factorizations to second order, norms and products."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import minigrad as mg
from minigrad.exact import Modular

LA = mg.linalg
rng = np.random.default_rng(7)


def real(*shape):
    return rng.standard_normal(shape)


def cplx(*shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def hermitian(x):
    return x + mg.conj(mg.matrix_transpose(x))


def without_phase(q):
    """Return the projections on the columns, which do not depend on the choice of their phases."""
    return q[..., :, None, :] * mg.conj(q)[..., None, :, :]


RULES = {
    "eigenvalues": (lambda x: LA.eigh(hermitian(x)).eigenvalues, (4, 4)),
    "eigenvalues of a batch": (lambda x: LA.eigvalsh(hermitian(x)), (2, 3, 3)),
    "eigenvectors": (lambda x: without_phase(LA.eigh(hermitian(x)).eigenvectors), (3, 3)),
    "singular values": (LA.svdvals, (2, 3, 4)),
    "singular vectors": (lambda x: [without_phase(LA.svd(x)[0]), without_phase(mg.conj(LA.svd(x)[2].mT))], (3, 3)),
    "svd tall": (lambda x: without_phase(LA.svd(x, full_matrices=False).U), (4, 2)),
    "svd wide": (lambda x: without_phase(mg.conj(LA.svd(x, full_matrices=False).Vh.mT)), (2, 4)),
    "both vectors": (lambda x: LA.svd(x, full_matrices=False).U @ LA.svd(x, full_matrices=False).Vh, (4, 3)),
    "qr": (lambda x: tuple(LA.qr(x)), (3, 3)),
    "qr tall": (lambda x: tuple(LA.qr(x)), (2, 4, 3)),
    "qr wide": (lambda x: tuple(LA.qr(x)), (2, 4)),
    "qr complete": (lambda x: tuple(LA.qr(x, mode="complete")), (3, 4)),
    "pinv": (LA.pinv, (3, 3)),
    "pinv tall": (LA.pinv, (2, 4, 2)),
    "pinv wide": (LA.pinv, (2, 4)),
    "cholesky": (lambda x: LA.cholesky(x @ mg.conj(x.mT) + mg.eye(3)), (3, 3)),
    "cholesky upper": (lambda x: LA.cholesky(x @ mg.conj(x.mT) + mg.eye(3), upper=True), (3, 3)),
    "cholesky batch": (lambda x: LA.cholesky(x @ mg.conj(x.mT) + mg.eye(2)), (3, 2, 2)),
    "det": (LA.det, (2, 4, 4)),
    "slogdet": (lambda x: tuple(LA.slogdet(x)), (2, 3, 3)),
    "inv": (LA.inv, (2, 3, 3)),
    "matrix_power": (lambda x: LA.matrix_power(x, 5), (2, 3, 3)),
    "matrix_power negative": (lambda x: LA.matrix_power(x, -3), (3, 3)),
    "matrix_power 0": (lambda x: LA.matrix_power(x, 0) * x, (2, 3, 3)),
    "cross": (lambda x: LA.cross(x, mg.flip(x, axis=0)), (2, 3)),
    "cross axis": (lambda x: LA.cross(x[:, :1], x, axis=0), (3, 2)),
    "trace": (lambda x: mg.trace(x, offset=-1), (2, 4, 3)),
    "diagonals": (lambda x: [mg.diagonal(x, offset=k) for k in range(-4, 5)], (2, 4, 3)),
    "outer": (lambda x: mg.outer(x[0], x[1]), (2, 3)),
    "vecdot": (lambda x: mg.vecdot(x, x[:1], axis=1), (4, 3, 2)),
    "tensordot": (lambda x: mg.tensordot(x, x, axes=((0, 2), (2, 0))), (2, 3, 2)),
    "tensordot outer": (lambda x: mg.tensordot(x, x, axes=0), (2, 3)),
    "vector_norm 1": (lambda x: LA.vector_norm(x, axis=1, ord=1), (2, 3)),
    "vector_norm 2": (lambda x: LA.vector_norm(x, axis=(0, -1), keepdims=True), (2, 3, 2)),
    "vector_norm 3": (lambda x: LA.vector_norm(x, axis=-1, ord=3), (2, 3)),
    "vector_norm 1.5": (lambda x: LA.vector_norm(x, ord=1.5), (2, 3)),
    "vector_norm -2": (lambda x: LA.vector_norm(x, ord=-2, keepdims=True), (2, 3)),
    "vector_norm inf": (lambda x: LA.vector_norm(x, axis=0, ord=math.inf), (2, 3)),
    "vector_norm -inf": (lambda x: LA.vector_norm(x, ord=-math.inf), (2, 3)),
} | {
    f"matrix_norm {ord}": (lambda x, ord=ord: LA.matrix_norm(x, ord=ord, keepdims=True), (2, 3, 4))
    for ord in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)
}


@pytest.mark.parametrize("numbers", [real, cplx])
@pytest.mark.parametrize("name", RULES)
def test_rules_to_second_order(name, numbers):
    f, shape = RULES[name]
    mg.check_grads(f, [numbers(*shape)], order=2, tolerance=1e-5)


@pytest.mark.parametrize("numbers", [real, cplx])
def test_factors_multiply_to_the_matrix(numbers):
    for shape in ((3, 3), (2, 4, 3), (2, 3, 4), (0, 3, 3), (3, 0), (0, 3)):
        x = numbers(*shape)
        for full in (True, False):
            u, s, vh = LA.svd(x, full_matrices=full)
            assert u.shape == (*shape[:-1], shape[-2] if full else s.shape[-1])
            assert vh.shape == (*shape[:-2], shape[-1] if full else s.shape[-1], shape[-1])
            k = s.shape[-1]
            np.testing.assert_allclose((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], x, atol=1e-12)
            np.testing.assert_allclose(
                np.conj(u.mT) @ u, np.broadcast_to(np.eye(u.shape[-1]), (*shape[:-2], *[u.shape[-1]] * 2)), atol=1e-12
            )
        for mode in ("reduced", "complete"):
            q, r = LA.qr(x, mode=mode)
            np.testing.assert_allclose(q @ r, x, atol=1e-12)
            np.testing.assert_allclose(r, np.triu(r))
        if shape[-1] == shape[-2]:
            h = hermitian(x)
            w, v = LA.eigh(h)
            np.testing.assert_allclose((v * w[..., None, :]) @ np.conj(v.mT), h, atol=1e-12)
            low, up = (LA.cholesky(h @ h + np.eye(3), upper=upper) for upper in (False, True))
            np.testing.assert_allclose(low @ np.conj(low.mT), h @ h + np.eye(3), atol=1e-11)
            np.testing.assert_allclose(up, np.conj(low.mT), atol=1e-12)


def test_what_does_not_depend_on_the_choice_of_vectors_has_a_gradient_where_values_coincide():
    """A sum of f(λ) over a matrix with equal eigenvalues: V f(Λ) Vᴴ is smooth; its derivative of λ² is 2 a."""
    a = np.diag([2.0, 2.0, 1.0])

    def squared(x):
        w, v = LA.eigh(x)
        return mg.sum(((v * (w * w)[..., None, :]) @ v.mT) * np.eye(3))

    np.testing.assert_allclose(mg.grad(squared)(a), 2 * a, atol=1e-12)
    np.testing.assert_allclose(mg.grad(lambda x: mg.sum(LA.svdvals(x)))(a), np.eye(3), atol=1e-12)
    assert np.isfinite(mg.grad(lambda x: LA.matrix_norm(x, ord="nuc"))(np.zeros((3, 2)))).all()


# ---- determinants


def minors(a):
    """Return the signed minors, by their definition."""
    n = a.shape[-1]
    rest = [[k for k in range(n) if k != i] for i in range(n)]
    outputs = np.empty_like(a)
    for i, j in itertools.product(range(n), repeat=2):
        outputs[..., i, j] = (-1) ** (i + j) * np.linalg.det(a[..., rest[i], :][..., rest[j]])
    return outputs


def of_rank(rank, n, numbers=real, batch=()):
    return numbers(*batch, n, rank) @ numbers(*batch, rank, n)


@pytest.mark.parametrize("numbers", [real, cplx])
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_the_determinants_gradient_is_the_matrix_of_cofactors(rank, numbers):
    a = of_rank(rank, 4, numbers)
    _, pull = mg.vjp(LA.det, a)
    expected = np.conj(minors(a))
    np.testing.assert_allclose(pull(np.array(1.0 + 0j if numbers is cplx else 1.0))[0], expected, atol=1e-10)
    if rank < 3:
        np.testing.assert_allclose(expected, 0, atol=1e-10)


@pytest.mark.parametrize("numbers", [real, cplx])
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_second_derivatives_of_determinants(rank, numbers):
    mg.check_grads(LA.det, [of_rank(rank, 4, numbers, (2,))], order=2)
    mg.check_grads(LA.det, [numbers(2, rank, rank)], order=2)


def test_third_derivatives_of_determinants():
    mg.check_grads(LA.det, [real(3, 3) + 2 * np.eye(3)], order=3)
    mg.check_grads(LA.det, [cplx(3, 3) + 2 * np.eye(3)], order=3)


def test_determinants_of_integers_that_are_singular():
    a = np.array([[1.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(mg.grad(LA.det)(a), [[4, -2], [-2, 1]], atol=1e-12)
    np.testing.assert_allclose(mg.grad(LA.det)(np.eye(3) * 0), 0)
    np.testing.assert_allclose(mg.grad(LA.det)(np.eye(3)), np.eye(3))
    np.testing.assert_allclose(mg.hvp(LA.det, [np.zeros((2, 2))], [a])[0], [[4, -2], [-2, 1]], atol=1e-12)


def test_a_matrix_that_is_not_finite_leaves_the_others_alone():
    a = np.stack([np.eye(2), np.full((2, 2), np.nan), 2 * np.eye(2)])
    with np.errstate(invalid="ignore"):
        g = mg.grad(lambda a: mg.sum(LA.det(a)))(a)
    np.testing.assert_array_equal(g, np.stack([np.eye(2), np.full((2, 2), np.nan), 2 * np.eye(2)]))
    outputs = mg.solve_triangular(a, np.ones((3, 2, 1)))
    np.testing.assert_array_equal(np.isnan(outputs).all(axis=(1, 2)), [False, True, False])


@pytest.mark.parametrize("shape", [(0, 2, 2), (2, 0, 0)])
def test_empty_matrices(shape):
    """A batch of none, or matrices of no rows, in the value and in the gradient."""
    right = np.zeros((*shape[:-1], 0))
    for f in (
        LA.det,
        LA.inv,
        LA.cholesky,
        LA.pinv,
        LA.svdvals,
        LA.eigvalsh,
        lambda x: LA.slogdet(x).logabsdet,
        lambda x: LA.qr(x).Q,
        lambda x: LA.solve(x, x),
        lambda x: mg.solve_triangular(x, x),
        lambda x: LA.matrix_norm(x),
        lambda x: LA.matrix_power(x, 2),
        lambda x: LA.solve(x + np.eye(shape[-1]), right),
        lambda x: mg.solve_triangular(x + np.eye(shape[-1]), right),
    ):
        x = np.zeros(shape)
        assert mg.grad(lambda x, f=f: mg.sum(f(x)))(x).shape == shape
    np.testing.assert_array_equal(LA.det(np.zeros(shape)), np.ones(shape[:-2]))


@pytest.mark.parametrize("kind", [Fraction, Modular])
def test_determinants_of_exact_numbers(kind):
    a = np.array([[kind(x) for x in row] for row in [[1, 2, 3], [2, 4, 6], [1, 0, 5]]], dtype=object)
    assert LA.det(a) == kind(0)
    g = mg.grad(lambda a: mg.sum(LA.det(a)))(a)
    assert (g == np.array([[20, -4, -4], [-10, 2, 2], [0, 0, 0]], dtype=object)).all()
    second = mg.grad(lambda a: mg.sum(mg.grad(lambda a: mg.sum(LA.det(a)))(a)))(a)
    assert second[0, 0] == kind(4 + 5 - 6 - 0)  # ∂Σcof/∂a₀₀ = a₁₁ + a₂₂ − a₁₂ − a₂₁
    assert LA.det(np.stack([a, a])).shape == (2,)


def test_slogdet_of_what_overflows():
    sign, logabs = LA.slogdet(np.diag([-1e200, 1e200, 1e200]))
    assert sign == -1 and math.isclose(logabs, 600 * math.log(10))
    g = mg.grad(lambda x: LA.slogdet(x).logabsdet)(np.diag([-1e200, 1e200]))
    np.testing.assert_allclose(g, np.diag([-1e-200, 1e-200]))


# ---- norms, ranks, products


@pytest.mark.parametrize("ord", [0, 1, 2, 3, 1.5, -1, -2, math.inf, -math.inf])
def test_vector_norms(ord):
    x = cplx(3, 4)
    expected = np.linalg.vector_norm(x, axis=1, ord=ord)
    np.testing.assert_allclose(LA.vector_norm(x, axis=1, ord=ord), expected)
    np.testing.assert_allclose(
        LA.vector_norm(x.real, ord=ord, keepdims=True), np.linalg.vector_norm(x.real, ord=ord, keepdims=True)
    )
    assert LA.vector_norm(x.astype(np.complex64), ord=ord).dtype == np.float32
    if ord > 0:
        np.testing.assert_array_equal(mg.grad(lambda x: LA.vector_norm(x, ord=ord))(np.zeros(3)), 0)


def test_ranks():
    a = np.stack([of_rank(r, 4) for r in range(5)])
    np.testing.assert_array_equal(LA.matrix_rank(a), range(5))
    assert LA.matrix_rank(mg.Tensor(np.eye(3)), rtol=2.0).value == 0


def test_vecdot_keeps_the_dtype():
    for dtype in (np.uint8, np.int32, np.bool_, np.float16, np.complex64):
        x, y = np.arange(12).reshape(3, 4).astype(dtype), np.ones(4, dtype)
        outputs = mg.vecdot(x, y)
        assert outputs.dtype == dtype
        np.testing.assert_array_equal(outputs, np.vecdot(x, y))
    x, y = cplx(2, 5, 3), cplx(5, 1)
    np.testing.assert_allclose(mg.vecdot(x, y, axis=-2), np.vecdot(x, y, axis=-2))


@pytest.mark.parametrize(
    "f",
    [
        LA.det,
        LA.inv,
        lambda x: LA.solve(x, x),
        LA.svdvals,
        LA.pinv,
        lambda x: LA.qr(x).Q,
        LA.eigvalsh,
        lambda x: LA.slogdet(x).logabsdet,
        lambda x: mg.solve_triangular(x, x),
        lambda x: LA.cholesky(x),
        lambda x: LA.matrix_norm(x, ord=2),
        lambda x: x @ x,
        lambda x: mg.einsum("ij,jk->ik", x, x),
    ],
)
def test_half_precision(f):
    """LAPACK has no routines for it: what single precision gives, rounded."""
    x = np.diag([1.0, 2.0, 3.0]).astype(np.float16)
    y = f(x)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, f(x.astype(np.float32)).astype(np.float16))
    assert mg.grad(lambda x: mg.sum(f(x)))(x).dtype == np.float16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: LA.det(x), "det: got shape (2, 3), expected square matrices"),
        (lambda x: LA.inv(x), "inv: got shape (2, 3), expected square matrices"),
        (lambda x: LA.eigh(x), "eigh: got shape (2, 3), expected square matrices"),
        (lambda x: LA.matrix_power(x, 2), "matrix_power: got shape (2, 3), expected square matrices"),
        (lambda x: LA.solve(x, x), "solve: got shape (2, 3), expected square matrices"),
        (lambda x: LA.svd(x[0]), "svd: got shape (3,), expected matrices"),
        (lambda x: LA.qr(x, mode="r"), "qr: got mode 'r', expected 'reduced' or 'complete'"),
        (lambda x: LA.cross(x.mT, x.mT), "cross: got shapes (3, 2) and (3, 2), expected 3 along axis -1"),
        (lambda x: mg.outer(x, x), "outer: got shapes (2, 3) and (2, 3), expected two vectors"),
        (lambda x: mg.vecdot(x, x[:, :2]), "vecdot: got 3 and 2 numbers, expected as many"),
        (lambda x: mg.vecdot(x, x[0, 0]), "vecdot: y is a scalar, expected an array of at least one axis"),
        (lambda x: mg.tensordot(x, x.mT), "tensordot: axes (0, 1) of shape (2, 3) and (0, 1) of (3, 2) differ in size"),
        (lambda x: mg.tensordot(x, x, axes=3), "tensordot: got axes 3, expected 0 to 2"),
        (lambda x: mg.diagonal(x[0]), "diagonal: got shape (3,), expected at least two axes"),
        (lambda x: LA.matrix_norm(x, ord=3), "matrix_norm: got ord 3, expected 'fro', 'nuc', ±1, ±2 or ±∞"),
        (
            lambda x: mg.einsum("ij,kj->ii", x, x),
            "einsum: the result of 'ij,kj->ii' has 'i', expected letters of terms, once each",
        ),
        (
            lambda x: mg.einsum("ij->k", x),
            "einsum: the result of 'ij->k' has 'k', expected letters of terms, once each",
        ),
        (lambda x: mg.einsum("ij,ji->", x, x), "einsum: 'j' of 'ij,ji->' has sizes 3 and 2, expected one"),
        (lambda x: mg.einsum("i1->", x), "einsum: got 'i1->', expected letters, commas, '...' and '->'"),
    ],
)
def test_errors(call, message):
    for x in (np.ones((2, 3)), mg.Tensor(np.ones((2, 3)))):
        with pytest.raises(ValueError) as excinfo:
            call(x)
        assert str(excinfo.value) == message


def test_the_complete_q_has_no_gradient():
    with pytest.raises(ValueError, match="^qr: the complete Q of 3 × 2 has no gradient, use mode='reduced'$"):
        mg.grad(lambda x: mg.sum(LA.qr(x, mode="complete").Q))(real(3, 2))
