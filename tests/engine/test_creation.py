"""Creation functions beyond the array API standard: devices, copies, and gradients through them."""

import numpy as np
import pytest

import minigrad as mg


def test_isin_inverted():
    """array-api-strict 2.6.1 does not invert."""
    np.testing.assert_array_equal(mg.isin(np.arange(3), np.array([1]), invert=True), [True, False, True])


def test_devices_and_copies():
    for x in (mg.zeros(2, device="cpu"), mg.ones_like(np.ones(2), device="cpu"), mg.asarray([1], device="cpu")):
        assert isinstance(x, np.ndarray)
    a = np.ones(3)
    assert mg.asarray(a, copy=False) is a and mg.asarray(a, copy=True) is not a
    assert not np.shares_memory(mg.astype(a, np.float64), a) and mg.astype(a, np.float64, copy=False) is a
    assert mg.astype(mg.Tensor(a), np.float32, device="cpu").dtype == np.float32
    with pytest.raises(ValueError):
        mg.reshape(np.ones((2, 3)).T, (6,), copy=False)


def test_new_arrays_of_tensors_have_gradients():
    t = np.arange(5) / 4
    g0, g1 = mg.grad(lambda a, b: mg.sum(mg.linspace(a, b, 5) * t), (0, 1))(np.array(1.0), np.array(3.0))
    np.testing.assert_allclose([g0, g1], [np.sum(t * (1 - t)), np.sum(t * t)])
    g = mg.grad(lambda a: mg.sum(mg.linspace(0.0, a, 4, endpoint=False)))(np.array(1.0))
    np.testing.assert_allclose(g, 1.5)
    mg.check_grads(lambda a, b: mg.linspace(a, b, 3), [np.ones((2, 3)), np.arange(3.0)])
    assert mg.grad(lambda a: mg.sum(mg.full((2, 3), a)))(np.array(1.0)) == 6
    assert mg.grad(lambda a: mg.sum(mg.full_like(np.ones(4), a)))(np.array(1.0)) == 4
    np.testing.assert_array_equal(
        mg.grad(lambda x: mg.sum(mg.asarray([[x[0], 2.0], [x[1], x[0]]])))(np.ones(2)), [2, 1]
    )
    with pytest.raises(TypeError, match="^arange: stop is a differentiated Tensor, expected a number"):
        mg.arange(0, mg.Tensor(3.0))
    assert mg.arange(mg.Tensor(3)).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^full: fill_value has shape \(2,\), expected a scalar$"):
        mg.full(3, mg.Tensor(np.ones(2)))


DIFFERENTIABLE = {
    "diff": lambda x: mg.diff(x, axis=0, n=2, append=x[:1]),
    "meshgrid": lambda x: mg.meshgrid(x[0], x[1], x[2]),
    "moveaxis": lambda x: mg.moveaxis(x, (0, 1), (1, 0)),
    "repeat": lambda x: mg.repeat(x, np.array([1, 0, 2, 1]), axis=0),
    "repeat flat": lambda x: mg.repeat(x, 2),
    "tile": lambda x: mg.tile(x, (2,)),
    "roll": lambda x: mg.roll(x, (1, 2)),
    "cumulative_sum": lambda x: mg.cumulative_sum(x, axis=1, include_initial=True),
    "cumulative_prod": lambda x: mg.cumulative_prod(x, axis=0, include_initial=True),
    "fftshift": lambda x: mg.fft.fftshift(x) * mg.fft.ifftshift(x, axes=0),
    "fft": lambda x: [mg.fft.fft(x, 5, norm=norm) for norm in ("ortho", "forward")],
    "ifft": lambda x: [mg.fft.ifft(x, 3, norm=norm) for norm in ("ortho", "forward")],
    "rfft": lambda x: [mg.fft.rfft(mg.real(x), 5, norm=norm) for norm in ("ortho", "forward")],
    "irfft": lambda x: [mg.fft.irfft(x, 5, norm=norm) for norm in ("ortho", "forward")],
    "hfft": lambda x: [mg.fft.hfft(x, 6, norm=norm) for norm in ("backward", "ortho", "forward")],
    "ihfft": lambda x: [mg.fft.ihfft(mg.real(x), 6, norm=norm) for norm in ("backward", "ortho", "forward")],
    "fftn": lambda x: [mg.fft.fftn(x), mg.fft.ifftn(x, norm="ortho")],
    "rfftn": lambda x: mg.fft.rfftn(mg.real(x), s=(3, 6), norm="forward"),
    "irfftn": lambda x: mg.fft.irfftn(x, axes=(1, 0)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_rules(name):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3))
    mg.check_grads(DIFFERENTIABLE[name], [x])
    mg.check_grads(DIFFERENTIABLE[name], [x + 1j * rng.standard_normal((4, 3))])
    half = x.astype(np.float16)
    assert mg.grad(lambda x: sum(mg.sum(mg.real(y)) for y in parts(DIFFERENTIABLE[name](x))))(half).dtype == np.float16


def parts(outputs):
    return outputs if isinstance(outputs, (tuple, list)) else [outputs]
