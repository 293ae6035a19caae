"""Linear algebra, einsum, reductions and transforms on a stand-in for CuPy's arrays, with their derivatives."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.namespace import to_numpy
from tests.engine.test_creation import DIFFERENTIABLE
from tests.engine.test_cupy import derivatives
from tests.engine.test_einsum import EINSUMS
from tests.engine.test_linalg import RULES, cplx, real
from tests.engine.test_reductions import EMPTY, INTEGERS
from tests.fake_cupy import Walled, asarray

MORE = {
    "max": lambda x: mg.max(x, axis=0),
    "prod": lambda x: mg.prod(x, axis=(0, 1)),
    "cumulative_max": lambda x: mg.cumulative_max(x, axis=1),
    "std": lambda x: mg.std(x, axis=0, correction=1),
    "var": mg.var,
    "mean": lambda x: mg.mean(x, axis=1, keepdims=True),
    "linspace": lambda x: mg.linspace(x, 2 * x, 4),
}
CASES = {f"linalg {name}": (f, [cplx(*shape)]) for name, (f, shape) in RULES.items() if "cholesky" not in name}
CASES |= {f"einsum {s}": (lambda *xs, s=s: mg.einsum(s, *xs), [real(*n) for n in EINSUMS[s] if n]) for s in EINSUMS}
CASES = {name: case for name, case in CASES.items() if not name.startswith("einsum") or () not in EINSUMS[name[7:]]}
CASES |= {f"moved {name}": (f, [real(4, 3)]) for name, f in DIFFERENTIABLE.items()}
CASES |= {f"square {name}": (lambda x, f=f: f(x, 0), [real(3, 3)]) for name, (f, _) in EMPTY.items()}
CASES |= {f"empty {name}": (lambda x, f=f: f(x, 0), [np.zeros((0, 3))]) for name, (f, _) in EMPTY.items()}
CASES |= {f"integer {name}": (lambda x, f=f: f(x, np.int64(1)), [real(2, 2, 4)]) for name, f in INTEGERS.items()}
CASES |= {f"reduced {name}": (f, [real(3, 4)]) for name, f in MORE.items()}


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives(name):
    f, args = CASES[name]
    for actual, expected in zip(derivatives(f, [asarray(x) for x in args]), derivatives(f, args), strict=True):
        assert isinstance(actual, Walled)
        np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-8, atol=1e-9)
