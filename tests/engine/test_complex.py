"""Complex rules are adjoints: Re⟨g, J v⟩ = Re⟨Jᴴ g, v⟩ for complex g and v, to second order; order refuses them."""

import numpy as np
import pytest

import minigrad as mg

rng = np.random.default_rng(5)


def cplx(*shape, scale=1.0):
    return scale * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


UNARY = """
abs acos acosh asin asinh atan atanh conj cos cosh erf exp expm1 gelu imag log log10 log1p log2 negative positive real
reciprocal sigmoid sign silu sin sinh sqrt square tan tanh
""".split()
OFF_THE_CUTS = rng.uniform(0.3, 1.5, (2, 3)) + 1j * rng.uniform(0.3, 1.5, (2, 3))
CASES = {name: (getattr(mg, name), [OFF_THE_CUTS]) for name in UNARY}
CASES |= {
    "pow": (mg.pow, [cplx(2, 3), cplx(2, 3)]),
    "pow of a real number": (mg.pow, [rng.uniform(0.5, 2, (2, 3)), cplx(2, 3)]),
    "pow to a real number": (mg.pow, [cplx(2, 3), rng.uniform(0.5, 2, (2, 3))]),
    "pow of a constant": (lambda y: (1 + 2j) ** y, [cplx(2, 3)]),
    "logaddexp": (mg.logaddexp, [cplx(2, 3), cplx(3)]),
    "logaddexp mixed": (mg.logaddexp, [rng.standard_normal(3), cplx(2, 3)]),
    "where": (lambda x, y: mg.where(np.array([True, False, True]), x, y), [cplx(3), rng.standard_normal(3)]),
    "softmax": (mg.softmax, [cplx(2, 3)]),
    "softmax of an axis": (lambda x: mg.softmax(x, axis=0), [cplx(2, 3)]),
    "softmax where": (lambda x: mg.softmax(x, where=np.array([True, False, True])), [cplx(2, 3)]),
    "logsumexp": (mg.logsumexp, [cplx(2, 3)]),
    "log_softmax": (lambda x: mg.log_softmax(x, axis=0), [cplx(2, 3)]),
    "cross_entropy": (lambda x: mg.cross_entropy(x, np.array([2, 0])), [cplx(2, 3)]),
    "rms_norm": (lambda x: mg.rms_norm(x, eps=0.1), [cplx(2, 3)]),
    "swiglu": (mg.swiglu, [cplx(2, 6)]),
    "rotary": (mg.rotary, [cplx(2, 4, 6), cplx(4, 3), cplx(4, 3)]),
    "rotary of real numbers": (mg.rotary, [rng.standard_normal((2, 4, 6)), *rng.standard_normal((2, 4, 3))]),
    "std": (mg.std, [cplx(4)]),
    "prod": (mg.prod, [cplx(4)]),
}


@pytest.mark.parametrize("name", CASES)
def test_rule(name):
    function, args = CASES[name]
    mg.check_grads(function, args, order=2)


def test_sigmoid_of_the_report():
    (gradient,) = mg.grad(lambda z: mg.real(mg.sigmoid(z))[0])(np.array([1 + 2j]))
    slope = 1 / (np.exp(-(1 + 2j) / 2) + np.exp((1 + 2j) / 2)) ** 2
    np.testing.assert_allclose(gradient, np.conj(slope), rtol=1e-14)


def test_holomorphic_functions_conjugate_their_derivative():
    """grad of Re f is the conjugate of f′: from a difference along the real axis, independent of `check_grads`."""
    z, h = OFF_THE_CUTS, 1e-3
    for name in UNARY:
        if name in ("abs", "conj", "imag", "real", "sign"):
            continue
        f = getattr(mg, name)
        difference = (f(z - 2 * h) - 8 * f(z - h) + 8 * f(z + h) - f(z + 2 * h)) / (12 * h)
        gradient = mg.grad(lambda z, f=f: mg.sum(mg.real(f(z))))(z)
        np.testing.assert_allclose(gradient, np.conj(difference), rtol=1e-9, err_msg=name)


def test_sign_turns_only():
    """A complex sign has a derivative: across it, over |z|; at 0 it is taken as 0."""
    (gradient,) = mg.grad(lambda z: mg.imag(mg.sign(z))[0])(np.array([2.0 + 0j]))
    assert gradient == 0.5j
    (gradient,) = mg.grad(lambda z: mg.real(mg.sign(z))[0])(np.array([0j]))
    assert gradient == 0


@pytest.mark.parametrize("name", ["maximum", "minimum", "atan2", "hypot", "remainder"])
def test_functions_of_two_ordered_numbers_refuse_complex_ones(name):
    for args in ((1j * np.ones(2), np.ones(2)), (np.ones(2), mg.Tensor(1j * np.ones(2)))):
        with pytest.raises(TypeError, match=f"^{name}: got complex128, expected real numbers$"):
            getattr(mg, name)(*args)


@pytest.mark.parametrize("name", ["relu", "softplus", "log_sigmoid"])
def test_functions_of_one_ordered_number_refuse_a_complex_one(name):
    caller = name.replace("log_sigmoid", "softplus")
    with pytest.raises(TypeError, match=f"^{caller}: got complex128, expected real numbers$"):
        getattr(mg, name)(1j * np.ones(2))


def test_clip_refuses_complex_numbers():
    with pytest.raises(TypeError, match="^clip: got complex128, expected real numbers$"):
        mg.clip(1j * np.ones(2), 0, 1)
