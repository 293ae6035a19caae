"""The engine on a GPU's arrays: a stand-in for them, which can do no more than CuPy can."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.namespace import namespace, to_numpy
from minigrad.pytree import arrays_of, map_arrays
from tests.engine.test_primitives import CASES
from tests.fake_cupy import Walled, asarray


def derivatives(f, args):
    """Return the value, the gradients of the sum of its squares, and second derivatives along the arguments."""

    def squares(*xs):
        return sum(mg.sum(mg.real(y * mg.conj(y))) for y in arrays_of(f(*xs)))

    out, _ = mg.vjp(f, *args)
    return arrays_of((out, mg.grad(squares, tuple(range(len(args))))(*args), mg.hvp(squares, args, args)))


@pytest.mark.parametrize("name", CASES)
def test_a_primitive_and_its_derivatives(name):
    f, args = CASES[name]
    for actual, expected in zip(derivatives(f, [asarray(x) for x in args]), derivatives(f, args), strict=True):
        assert isinstance(actual, Walled)
        np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("solve", [mg.linalg.solve, mg.solve_triangular])
@pytest.mark.parametrize("shape", [(4,), (4, 2), (3, 4, 2), (2, 1, 4, 2)])
def test_solvers_broadcast(solve, shape):
    """CuPy's does not; and a vector stands for one column whatever the batch."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 4, 4)) + 4 * np.eye(4), rng.standard_normal(shape)
    lhs = np.triu(a) if solve is mg.solve_triangular else a
    expected = np.linalg.solve(lhs, b if b.ndim > 1 else b[:, None])
    for actual in (solve(a, b), solve(asarray(a), asarray(b))):
        np.testing.assert_allclose(to_numpy(actual), expected if b.ndim > 1 else expected[..., 0], rtol=1e-12)


@pytest.mark.parametrize("enter", [asarray, np.asarray], ids=["there", "host"])
def test_parameters_and_moments_are_loaded_where_the_module_is(enter):
    module = map_arrays(asarray, nn.Linear(3, 2, rng=np.random.default_rng(0)))
    optimiser = optim.AdamW(0.1)
    optimiser.step(module, module)
    module.load_parameters({name: enter(np.ones(x.shape)) for name, x in module.named_parameters().items()})
    for x in arrays_of(module):
        assert isinstance(x, Walled) and x.dtype == np.float32 and (x.get() == 1).all()
    again = optim.AdamW(0.1)
    again.load_state_dict(optimiser.state_dict())
    assert all(isinstance(x, Walled) for x in again.state.values()) and len(again.state) == 4


def test_an_index_out_of_range_is_refused():
    """CuPy would wrap it around."""
    with pytest.raises(IndexError, match=r"^take: indices span 0 to 3, expected −3 to 2$"):
        mg.take(asarray(np.ones((3, 2))), asarray(np.array([0, 3])), axis=0)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: np.spacing(x), TypeError, "returned NotImplemented"),  # CuPy has none
        (lambda x: np.insert(x, 0, 1), TypeError, "no implementation found"),
        (lambda x: namespace(x).insert(x, 0, 1), AttributeError, "'insert'"),
        (lambda x: np.sum(x, where=x > 0), TypeError, "sum of CuPy: got an unexpected keyword argument 'where'"),
        (lambda x: np.exp(x, where=x > 0), TypeError, "cupy_exp of CuPy: got an unexpected keyword argument 'where'"),
        (lambda x: x.sum(initial=1), TypeError, "sum of CuPy: got an unexpected keyword argument 'initial'"),
        (lambda x: x.itemset(1), AttributeError, "'itemset'"),
        (lambda x: np.left_shift(x, x), TypeError, "cupy_left_shift of CuPy: got .*float64"),
        (lambda x: x.flags.writeable, AttributeError, "'writeable'"),
    ],
)
def test_what_cupy_lacks_is_refused(call, error, message):
    """The stand-in refuses functions, keywords and dtypes that CuPy does not have."""
    with pytest.raises(error, match=message):
        call(asarray(np.ones(3)))
