"""The Python array API standard: dtypes and special values of element-wise functions, and drawn arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

import minigrad as mg
from tests.standard import BINARY, DTYPES, UNARY, VERSION, compare, edges, find

xps = make_strategies_namespace(mg, api_version=VERSION)


@pytest.mark.parametrize("name", UNARY)
def test_elementwise_functions_of_one_array(name):
    inputs = [edges(dtype) for dtype in DTYPES]
    if name == "sign":  # of a complex number that is infinite, which is not defined
        inputs = [x[np.isfinite(x)] if x.dtype.kind == "c" else x for x in inputs]
    refused = [compare(name, lambda xp, A, x=x: find(xp, name)(A(x))) for x in inputs]
    assert None in refused


@pytest.mark.parametrize("name", BINARY)
def test_elementwise_functions_of_two_arrays(name):
    shift = "shift" in name
    refused = []
    for one in DTYPES:
        for two in DTYPES:
            x, y = edges(one)[:, None], edges(two)
            if shift or name == "pow":  # shifts by more than there are bits are not defined, nor negative powers
                y = y[(y >= 0) & (y < 7)] if y.dtype.kind in "iu" else y
            if name in ("floor_divide", "remainder") and y.dtype.kind in "iu":
                y = y[y != 0]
            refused.append(compare(name, lambda xp, A, x=x, y=y: find(xp, name)(A(x), A(y))))
    assert None in refused


# ---- drawn arrays

FLOATS = st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])
SHAPES = xps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
ARRAYS = xps.arrays(FLOATS, SHAPES)


@pytest.mark.parametrize("name", [n for n in UNARY if n not in ("imag", "bitwise_invert", "logical_not")])
@settings(max_examples=25, deadline=None)
@given(x=ARRAYS)
def test_drawn_elementwise(name, x):
    compare(name, lambda xp, A: find(xp, name)(A(x)))


@pytest.mark.parametrize("name", ["sum", "max", "min", "mean", "prod", "all", "any", "argmax", "count_nonzero"])
@settings(max_examples=25, deadline=None)
@given(data=st.data(), x=ARRAYS, keepdims=st.booleans())
def test_drawn_reductions(name, data, x, keepdims):
    axes = xps.valid_tuple_axes(x.ndim) if x.ndim and not name.startswith("arg") else st.none()
    axis = data.draw(axes, label="axis")
    with np.errstate(all="ignore"):
        scaled = x / 1e30 if x.dtype == np.float64 else x
    compare(name, lambda xp, A: find(xp, name)(A(scaled), axis=axis, keepdims=keepdims), exact=False)


@settings(max_examples=50, deadline=None)
@given(shapes=xps.mutually_broadcastable_shapes(2, max_side=3), data=st.data())
def test_drawn_broadcasting(shapes, data):
    x, y = (data.draw(xps.arrays(FLOATS, shape)) for shape in shapes.input_shapes)
    for name in ("add", "multiply", "maximum", "less", "hypot"):
        compare(name, lambda xp, A, name=name: find(xp, name)(A(x), A(y)))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), x=xps.arrays(FLOATS, xps.array_shapes(max_dims=3, min_side=0, max_side=3)))
def test_drawn_indices(data, x):
    index = data.draw(xps.indices(x.shape, allow_newaxis=True), label="index")
    np.testing.assert_array_equal(mg.Tensor(x)[index].value, x[index])
