"""HiPPO and discretisation beside SciPy's control toolbox, its matrix exponential, and s5-pytorch's start of LegS."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.signal import cont2discrete, lsim

import minigrad as mg
from models.ssm import discretize, hippo

STEPS = (1e-6, 1e-3, 0.1, 1.0, 100.0)
RULES = {
    "zoh": (discretize.zoh, {"method": "zoh"}),
    "bilinear": (discretize.bilinear, {"method": "bilinear"}),
    "euler": (discretize.euler, {"method": "euler"}),
    "alpha 0.3": (
        lambda A, B, delta: discretize.generalized_bilinear(A, B, delta, alpha=0.3),
        {"method": "gbt", "alpha": 0.3},
    ),
}


def stable(N, seed=0):
    """Return a matrix that is not normal, with eigenvalues in the left half-plane."""
    mixing = np.random.default_rng(seed).normal(size=(N, N))
    return mixing - (1 + np.linalg.eigvals(mixing).real.max()) * np.eye(N)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-12 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("delta", STEPS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("N", [1, 4, 16])
def test_cont2discrete(rule, delta, N):
    function, options = RULES[rule]
    for A in (stable(N), hippo.legs(N)[0], np.eye(N, k=1) / 50):  # the last is nilpotent
        B = np.random.default_rng(1).normal(size=(N, 2))
        expected = cont2discrete((A, B, np.eye(N), np.zeros((N, 2))), delta, **options)[:2]
        for left, right in zip(function(A, B, delta), expected, strict=True):
            close(left, right)


@pytest.mark.parametrize("delta", STEPS)
@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_expm(measure, delta):
    A, B = hippo.MEASURES[measure](64)
    block = expm(delta * np.block([[A, B[:, None]], [np.zeros((1, 65))]]))
    A_bar, B_bar = discretize.zoh(A, B, delta)
    close(A_bar, block[:64, :64])
    close(B_bar, block[:64, 64])


def test_recurrence_beside_a_simulation():
    """SciPy's own simulation of the sliding window, sample by sample."""
    f = np.sin(np.arange(200) / 9)
    A, B = hippo.legt(8)
    _, _, states = lsim((A, B[:, None], np.eye(8), np.zeros((8, 1))), f, np.arange(200) / 50, interp=False)
    close(hippo.project(f, 8, measure="legt", delta=1 / 50, method="zoh")[:-1], states[1:])


@pytest.mark.parametrize("N", [2, 8, 64])
def test_legs_beside_s5(s5, N):
    A, P, B = s5.make_NPLR_HiPPO(N)
    close(hippo.legs(N)[0], A)
    close(hippo.legs(N)[1], B)
    close(hippo.nplr(N)[1][:, 0], P)


@pytest.mark.parametrize("N", [2, 8, 64])
def test_diagonal_beside_s5(s5, N):
    """Eigenvectors are known up to a phase each, which P and B share: their products do not depend on it."""
    all_of_them, P, B, _, _ = s5.make_DPLR_HiPPO(N)
    upper = all_of_them.imag > 0
    Lambda, P_half, B_half, _ = hippo.dplr(N)
    close(Lambda, all_of_them[upper])
    close(P_half.conj() * B_half, (P.conj() * B)[upper])
    close(abs(P_half), abs(P[upper]))


def smooth_system(*, dense):
    rng = np.random.default_rng(2)
    A = stable(4) if dense else -rng.uniform(0.1, 3, size=4) + 1j * rng.normal(size=4)
    return A, rng.normal(size=4) + 0 * A[0], 0.3


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("rule", discretize.METHODS)
def test_gradients_beside_torch(torch, rule, dense):
    """Both hand out the adjoint's gradient, so complex ones agree too."""
    A, B, delta = smooth_system(dense=dense)
    method = discretize.METHODS[rule]

    def loss(xp, A, B):
        A_bar, B_bar = method(A, B, delta)
        return xp.sum(xp.abs(A_bar) ** 2) + xp.sum(xp.abs(B_bar) ** 2)

    leaves = [torch.tensor(x, requires_grad=True) for x in (A, B)]
    loss(torch, *leaves).backward()
    for ours, leaf in zip(mg.grad(lambda A, B: loss(mg, A, B), (0, 1))(A, B), leaves, strict=True):
        close(ours, leaf.grad.numpy())


@pytest.mark.parametrize("rule", discretize.METHODS)
def test_under_a_compiler(jax, rule):
    """Of a traced system nothing can be refused; a traced matrix cannot be held exponentially, and says so."""
    A, B, delta = smooth_system(dense=False)
    method = discretize.METHODS[rule]
    for left, right in zip(jax.jit(method)(A, B, delta), method(A, B, delta), strict=True):
        close(np.asarray(left), right)
    A, B, delta = smooth_system(dense=True)
    if rule in ("zoh", "mamba"):
        with pytest.raises(TypeError):
            jax.jit(method)(A, B, delta)
    else:
        for left, right in zip(jax.jit(method)(A, B, delta), method(A, B, delta), strict=True):
            close(np.asarray(left), right)
