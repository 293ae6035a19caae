"""einsum: broadcasting, diagonals, empty axes and every number of operands, to second order."""

import math
import string

import numpy as np
import pytest

import minigrad as mg

rng = np.random.default_rng(7)


def real(*shape):
    return rng.standard_normal(shape)


def cplx(*shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


EINSUMS = {
    "i->": [(3,)],
    "i,i->": [(3,), (3,)],
    "ii": [(3, 3)],
    "ii->i": [(3, 3)],
    "iji->j": [(2, 3, 2)],
    "iijj->ij": [(2, 2, 3, 3)],
    "iii": [(2, 2, 2)],
    "ii,i": [(3, 3), (3,)],
    "ij,jk": [(2, 3), (3, 4)],
    "ij,jk,kl->il": [(2, 3), (3, 4), (4, 2)],
    "ij,jk->ik ": [(2, 1), (3, 4)],
    "ij,ij->ij": [(1, 3), (2, 1)],
    "ij,ij->": [(1, 3), (2, 1)],
    "i,i->i": [(1,), (1,)],
    "ii,i->i": [(1, 1), (3,)],
    "ij,i->j": [(1, 3), (4,)],
    "...i,...i": [(2, 3), (3,)],
    "...i,...i->...": [(4, 1, 3), (2, 1)],
    "...,...->...": [(2, 1), (3,)],
    "i...,j->...": [(2, 3), (4,)],
    ",i->i": [(), (3,)],
    "->": [()],
    ",": [(), ()],
    "ij->": [(0, 3)],
    "ij,jk->ik": [(2, 0), (0, 3)],
    "ij,kj->ik": [(0, 2), (3, 2)],
    "ij,k->k": [(2, 3), (4,)],
    "ba": [(2, 3)],
}


@pytest.mark.parametrize("numbers", [real, cplx])
@pytest.mark.parametrize("subscripts", EINSUMS)
def test_einsum(subscripts, numbers):
    operands = [np.asarray(numbers(*shape)) for shape in EINSUMS[subscripts]]
    np.testing.assert_allclose(mg.einsum(subscripts, *operands), np.einsum(subscripts, *operands), atol=1e-12)
    mg.check_grads(lambda *xs: mg.einsum(subscripts, *xs), operands, order=2)


def test_einsum_of_one_operand_and_then_of_two():
    """Regression test: the arguments to save were cached without the number of operands."""
    np.testing.assert_array_equal(mg.grad(lambda a: mg.einsum("i->", a))(np.ones(2)), 1)
    np.testing.assert_array_equal(mg.grad(lambda a: mg.einsum("i,i->", a, np.full(2, 3.0)))(np.ones(2)), 3)
    np.testing.assert_array_equal(
        mg.grad(lambda a: mg.einsum("i,i,i->", a, np.full(2, 3.0), np.ones(2)))(np.ones(2)), 3
    )


def test_a_trace_does_not_meet_the_rest():
    assert mg.einsum("ii", np.array([[1.0, math.inf], [math.nan, 2.0]])) == 3


def test_einsum_with_all_letters():
    letters = string.ascii_letters
    x = np.ones((1,) * 30)
    assert mg.einsum(f"{letters[:30]},{letters[22:]}->{letters[:22]}", x, np.ones((1,) * 30)).ndim == 22
    assert (
        mg.tensordot(x, x, axes=30).shape == ()
        and mg.tensordot(np.ones((1,) * 32), np.ones((1,) * 32), axes=0).ndim == 64
    )
    with pytest.raises(ValueError, match="^einsum: operand 0 has 3 axes, expected no more than there are letters$"):
        mg.einsum(f"...,{letters[:51]}", np.ones((1, 1, 1)), np.ones((1,) * 51))
