"""Every block takes a batch of none, one token, any layout, and inputs that are wider or narrower than its weights."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import arrays_of
from models.blocks import MIXERS, BlockConfig
from models.blocks.mamba2 import Mamba2Block, Mamba2Config
from tests.forms.drawing import LAYOUTS

WIDTH = 8


def block_of(name):
    rng = np.random.default_rng(0)
    if name == "mamba2":
        return Mamba2Block(Mamba2Config(WIDTH, 2 * WIDTH, 4, states=4), rng)
    kind = MIXERS[name]
    states = 4 if kind.default_states else 0
    return kind(BlockConfig(WIDTH, 2, form=kind.default_form, chunk_size=3, states=states, start=kind.starts[0]), rng)


def inputs(length, batch=2):
    return np.random.default_rng(1).standard_normal((batch, length, WIDTH)).astype(np.float32)


BLOCKS = pytest.mark.parametrize("name", [*MIXERS, *({"mamba2"} - set(MIXERS))])


@pytest.mark.parametrize("length", [1, 5])
@BLOCKS
def test_no_sequence_gives_no_outputs_and_gradients_of_zero(name, length):
    block, x = block_of(name), inputs(length, batch=0)
    out, state = block(x)
    assert out.shape == block(x, state)[0].shape == (0, length, WIDTH)
    assert mg.grad(lambda x: mg.sum(block(x)[0] ** 2))(x).shape == x.shape
    for gradient in arrays_of(mg.grad(lambda block: mg.sum(block(x)[0] ** 2))(block)):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


@pytest.mark.parametrize("layout", LAYOUTS)
@BLOCKS
def test_the_layout_of_inputs_changes_nothing(name, layout):
    block, x = block_of(name), inputs(5)
    for a, b in zip(arrays_of(block(LAYOUTS[layout](x))), arrays_of(block(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("length", [1, 5])
@BLOCKS
def test_inputs_of_another_precision_are_taken_or_refused_in_one_line(name, length, dtype):
    block, x = block_of(name), inputs(length)
    exact = block(x.astype(dtype).astype(np.float32))[0]
    try:
        out, state = block(x.astype(dtype))
    except TypeError as error:  # a compiled form's, of the argument that differs from the weights or the inputs
        assert ".fused: " in str(error) and "expected" in str(error)
        return
    assert {np.zeros(0, array.dtype).real.dtype for array in arrays_of((out, state))} == {out.dtype}
    np.testing.assert_allclose(out, exact, rtol=1e-4, atol=1e-5)


@BLOCKS
def test_one_precision_goes_through_and_stays(name):
    out, state = block_of(name)(inputs(5))
    assert {array.dtype.name for array in arrays_of((out, state))} <= {"float32", "complex64"}
