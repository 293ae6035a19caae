"""S4 and S4D where they break elsewhere: even lengths, nearly no decay, extreme steps, and what does not fit."""

import numpy as np
import pytest

import minigrad as mg
from models.ssm import hippo, initializers, s4, s4d

S4, S4D = (s4.recurrent, s4.convolution, s4.fused), (s4d.recurrent, s4d.convolution, s4d.fused)


def named(forms):
    return pytest.mark.parametrize("form", forms, ids=lambda form: f"{form.__module__[-3:].strip('.')}.{form.__name__}")


def arguments(form, T, *, D=2, N=3, batch=(), dtype=np.float64):
    """Draw the arguments of S4, or of S4D, which has no P."""
    rng = np.random.default_rng(3)

    def parts(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.result_type(dtype, np.complex64))

    Lambda, P, B, C = (parts(D, N) for _ in range(4))
    Lambda = (-rng.uniform(0.1, 1, size=(D, N)) + 1j * abs(Lambda.imag)).astype(Lambda.dtype)
    u, skip, delta = rng.normal(size=(*batch, T, D)), rng.normal(size=D), rng.uniform(0.1, 1, size=D)
    low = [P] if form in S4 else []
    return [u.astype(dtype), Lambda, *low, B, C, skip.astype(dtype), delta.astype(dtype)]


# By hand


@named(S4D)
def test_one_real_eigenvalue_by_hand(form):
    half = np.log(2.0)
    u, Lambda = np.array([[1.0], [0.0], [1.0]]), np.array([[-half + 0j]])
    one = np.ones((1, 1), dtype=complex)
    y, h = form(u, Lambda, one * half, one, np.zeros(1), np.ones(1), state=4 * one)
    # Ā = 1/2, B̄ = 1/2; h = 2.5, 1.25, 1.125; the conjugate adds as much again
    np.testing.assert_allclose(y, [[5.0], [2.5], [2.25]], rtol=1e-14)
    np.testing.assert_allclose(h, [[1.125]], rtol=1e-14)


def test_initializers():
    np.testing.assert_allclose(initializers.lin(6), [-0.5, -0.5 + np.pi * 1j, -0.5 + 2j * np.pi], rtol=1e-15)
    np.testing.assert_allclose(initializers.inv(4), [-0.5 + 12j / np.pi, -0.5 + 4j / 3 / np.pi], rtol=1e-15)
    np.testing.assert_allclose(initializers.legs(2), [-0.5 + 1j * np.sqrt(3) / 2], rtol=1e-14)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 64, 65, 1024])
@pytest.mark.parametrize("size", [4, 16])
def test_cauchy_kernel_of_hippo_at_any_length(size, length):
    Lambda, P, B, V = hippo.dplr(size)
    C = np.random.default_rng(0).normal(size=size) @ V
    inputs = [x[None] for x in (Lambda, P, B, C)]
    delta = np.array([0.01])
    powers = s4.kernel_power(*inputs, delta, length=length)
    cauchy = s4.kernel_cauchy(*inputs, delta, length=length)
    np.testing.assert_allclose(cauchy, powers, atol=1e-13 * np.abs(powers).max())


@pytest.mark.parametrize("forms", [S4, S4D], ids=["s4", "s4d"])
def test_gradients_of_all_forms_agree(forms):
    inputs = arguments(forms[0], 9, batch=(2,))
    rng = np.random.default_rng(1)
    state = rng.normal(size=(2, 2, 3)) + 1j * rng.normal(size=(2, 2, 3))

    def gradients(form):
        def loss(h, *inputs):
            y, h = form(*inputs, state=h)
            return mg.sum(y * y) + mg.sum(mg.real(h * h * (1 + 2j)))

        return mg.grad(loss, argnums=tuple(range(1 + len(inputs))))(state, *inputs)

    expected = gradients(forms[0])
    for form in forms[1:]:
        for left, right in zip(expected, gradients(form), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-10)


# Long and extreme

EXTREMES = {
    "decay 1 - 1e-7": (1.0, -1e-7),
    "step 1e-6": (1e-6, -0.5),
    "step 1e2": (1e2, -0.5),
    "step 1e2, fast": (1e2, -100.0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@named((*S4, *S4D))
def test_long_sequences_stay_finite(form, dtype):
    """Every extreme side by side, a channel each, forward and backward."""
    step, rate = np.array(list(EXTREMES.values()), dtype).T
    inputs = arguments(form, 100_000, D=len(step), N=2, dtype=dtype)
    inputs[1] = (rate[:, None] + 1j * inputs[1].imag).astype(inputs[1].dtype)
    inputs[-1] = step

    def loss(*inputs):
        y, h = form(*inputs)
        return mg.mean(y * y) + mg.sum(mg.real(h))

    value, gradients = mg.value_and_grad(loss, argnums=tuple(range(len(inputs))))(*inputs)
    assert np.isfinite(value)
    for gradient, x in zip(gradients, inputs, strict=True):
        assert gradient.dtype == x.dtype and gradient.shape == x.shape
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("forms", [S4, S4D], ids=["s4", "s4d"])
def test_a_hundred_thousand_tokens_by_all_forms(forms):
    inputs = arguments(forms[0], 100_000, D=1, N=1)
    inputs[1], inputs[-1] = inputs[1] * 0 - 1e-7 + 0.3j, np.ones(1)
    if forms is S4:
        inputs[2] = inputs[2] * 1e-5
    y, h = forms[0](*inputs)
    for form in forms[1:]:
        z, g = form(*inputs)
        np.testing.assert_allclose(y, z, atol=1e-8 * np.abs(y).max())
        np.testing.assert_allclose(h, g, rtol=1e-7)


def test_training_sizes_need_no_array_of_every_power():
    """D = 64, N = 32, L = 1024: the largest array S4D's kernel makes is a 32nd of D·N·L."""
    sizes = []

    class Watched(np.ndarray):
        def __array_finalize__(self, other):
            sizes.append(self.size)

    inputs = arguments(s4d.recurrent, 1, D=64, N=32, dtype=np.float32)
    A, B = s4d.discrete(inputs[1], inputs[2], inputs[-1], "zoh")
    s4d.responses(B.view(Watched), A.view(Watched), 1024)
    assert max(sizes) == 64 * 32 * 32


# What does not fit


@named((*S4, *S4D))
def test_errors(form):
    inputs = arguments(form, 4)
    u, Lambda, *_, C, D, delta = inputs
    name = f"{'s4' if form in S4 else 's4d'}.{form.__name__}"
    with pytest.raises(ValueError, match=rf"^{name}: Lambda holds real part 0.5, expected real parts"):
        form(u, Lambda * 0 + 0.5, *inputs[2:])
    with pytest.raises(ValueError, match=rf"^{name}: delta holds 0.0, expected steps above 0$"):
        form(*inputs[:-1], delta * 0)
    with pytest.raises(ValueError, match=rf"^{name}: delta holds nan, expected steps above 0$"):
        form(*inputs[:-1], delta * np.nan)
    with pytest.raises(TypeError, match=rf"^{name}: Lambda has dtype float64, expected complex$"):
        form(u, Lambda.real, *inputs[2:])
    with pytest.raises(ValueError, match=rf"^{name}: C has 2 on axis N, expected 3 as in Lambda"):
        form(*inputs[:-3], C[:, :2], D, delta)
    with pytest.raises(TypeError, match=rf"^{name}: u has dtype complex128, expected real floating point$"):
        form(u + 0j, *inputs[1:])


def test_discretisations():
    inputs = arguments(s4d.recurrent, 4)
    for form in S4D:
        with pytest.raises(ValueError, match=r"^s4d: discretisation is 'euler', expected zoh or bilinear$"):
            form(*inputs, discretisation="euler")


def test_odd_sizes_have_no_pairs():
    for name, start in (("lin", initializers.lin), ("inv", initializers.inv), ("legs", initializers.legs)):
        with pytest.raises(ValueError, match=rf"^initializers.{name}: N is 3, expected an even number"):
            start(3)
    with pytest.raises(ValueError, match=r"^hippo.dplr: N is 3, expected an even number"):
        hippo.dplr(3)


def test_kernels_refuse_what_does_not_fade():
    _, Lambda, P, B, C, _, delta = arguments(s4.recurrent, 1)
    for name, kernel in (("kernel_power", s4.kernel_power), ("kernel_cauchy", s4.kernel_cauchy)):
        with pytest.raises(ValueError, match=rf"^s4.{name}: Lambda holds real part 0.0, expected real parts below 0$"):
            kernel(1j * Lambda.imag, P, B, C, delta, length=4)
