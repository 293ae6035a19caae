"""Invariant systems beside SciPy's simulator, S4D beside s5-pytorch's layer, S4 beside dense matrices in PyTorch."""

import importlib

import numpy as np
import pytest
from scipy.signal import cont2discrete, dlsim, dlti

from models.ssm import lssl, lti, s4, s4d

TOLERANCE = 1e-12


@pytest.fixture(scope="session")
def s5_layer(s5):
    """Return s5-pytorch's discretisations and its scan."""
    return importlib.import_module("s5.s5_model")


def parts(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def inputs(T, *, D=2, N=3, low=False):
    rng = np.random.default_rng(5)
    Lambda = -rng.uniform(0.1, 1, size=(D, N)) + 3j * rng.uniform(size=(D, N))
    arguments = {"u": rng.normal(size=(T, D)), "Lambda": Lambda}
    arguments |= {"P": parts(rng, D, N)} if low else {}
    arguments |= {"B": parts(rng, D, N), "C": parts(rng, D, N), "D": rng.normal(size=D)}
    return arguments | {"delta": rng.uniform(0.01, 1, size=D)}


def simulated(A, B, C, u):
    """Return SciPy's output, which it reads before a step: C (A h + B u) is what we read after it."""
    _, y, _ = dlsim(dlti(A, B[:, None], (C @ A)[None], np.array([[C @ B]])), u)
    return y[:, 0]


@pytest.mark.parametrize("form", [lti.recurrent, lti.direct, lti.convolution], ids=lambda form: form.__name__)
def test_scipy_simulates_the_discrete_system(form, close):
    rng = np.random.default_rng(0)
    A, B, C = rng.normal(size=(4, 4)) / 4, rng.normal(size=4), rng.normal(size=4)
    u = rng.normal(size=(50, 2))
    y, _ = form(u, A, B, C)
    for i in range(2):
        close(f"channel {i}", y[:, i], simulated(A, B, C, u[:, i]), TOLERANCE)


@pytest.mark.parametrize("alpha", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("form", [lssl.recurrent, lssl.convolution], ids=lambda form: form.__name__)
def test_scipy_simulates_lssl(form, alpha, close):
    rng = np.random.default_rng(0)
    A, B = -np.tril(rng.uniform(0.1, 1, size=(4, 4))), rng.normal(size=4)
    C, D, delta, u = rng.normal(size=(2, 4)), rng.normal(size=2), np.array([0.01, 1.5]), rng.normal(size=(50, 2))
    y, _ = form(u, A, B, C, D, delta, alpha=alpha)
    for i in range(2):
        system = A, B[:, None], np.eye(4), np.zeros((4, 1))
        A_bar, B_bar = cont2discrete(system, delta[i], method="gbt", alpha=alpha)[:2]
        expected = simulated(A_bar, B_bar[:, 0], C[i], u[:, i]) + D[i] * u[:, i]
        close(f"channel {i}", y[:, i], expected, TOLERANCE)


@pytest.mark.parametrize("discretisation", ["zoh", "bilinear"])
@pytest.mark.parametrize("form", [s4d.recurrent, s4d.convolution], ids=lambda form: form.__name__)
def test_s5_runs_s4d(form, discretisation, torch, s5_layer, compare):
    discretise = getattr(s5_layer, f"discretize_{discretisation}")

    def theirs(u, Lambda, B, C, D, delta):
        outputs = []
        for i in range(delta.shape[0]):
            A_bar, B_bar = discretise(Lambda[i], B[i][:, None], delta[i].expand(Lambda.shape[1]))
            y, h = s5_layer.apply_ssm(A_bar, B_bar, 2 * C[i][None], D[i : i + 1], u[:, i : i + 1])
            outputs.append((y, h[None]))
        return torch.cat([y for y, _ in outputs], dim=1), torch.cat([h for _, h in outputs])

    compare(lambda *arguments: form(*arguments, discretisation=discretisation), theirs, inputs(21), TOLERANCE)


@pytest.mark.parametrize("length", [20, 21])
@pytest.mark.parametrize("form", [s4.recurrent, s4.convolution], ids=lambda form: form.__name__)
def test_dense_matrices_run_s4(form, length, torch, compare):
    def theirs(u, Lambda, P, B, C, D, delta):
        outputs = []
        for i in range(delta.shape[0]):
            eigenvalues, p, b, c = (torch.cat([x[i], x[i].conj()]) for x in (Lambda, P, B, C))
            A, one = torch.diag(eigenvalues) - torch.outer(p, p.conj()), torch.eye(len(p), dtype=p.dtype)
            inverse = torch.linalg.inv(one - delta[i] / 2 * A)
            h, y = torch.zeros_like(b), []
            for u_t in u[:, i]:
                h = inverse @ ((one + delta[i] / 2 * A) @ h + delta[i] * b * u_t)
                y.append((c @ h).real + D[i] * u_t)
            outputs.append((torch.stack(y), h[: len(p) // 2]))
        return torch.stack([y for y, _ in outputs], dim=1), torch.stack([h for _, h in outputs])

    compare(form, theirs, inputs(length, low=True), TOLERANCE)
