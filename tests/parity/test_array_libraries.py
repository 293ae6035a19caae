"""Linear algebra, einsum, reductions and transforms on torch tensors and JAX arrays, with their derivatives."""

import numpy as np
import pytest

from tests.engine.test_array_libraries import CASES
from tests.engine.test_cupy import derivatives


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives(name, library, request):
    module = request.getfixturevalue(library)
    asarray, array = (module.tensor, module.Tensor) if library == "torch" else (module.numpy.asarray, module.Array)
    f, args = CASES[name]
    for actual, expected in zip(derivatives(f, [asarray(x) for x in args]), derivatives(f, args), strict=True):
        assert isinstance(actual, array)
        np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-8, atol=1e-9)
