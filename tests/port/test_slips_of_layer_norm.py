"""Slips in the gradient of the layer norm around an inner model, planted in test-time training and Titans in NumPy."""

import numpy as np
import pytest

from proofs.port import check

NORM = """
EPSILON = 1e-6

def mean(x):
    return x.mean(axis=-1, keepdims=True)

def standardise(z):
    deviation = np.sqrt(mean((z - mean(z)) ** 2) + EPSILON)
    return (z - mean(z)) / deviation, deviation

def slope(z, k, v, gamma, beta):
    u, deviation = standardise(z)
    g = gamma * (k + gamma * u + beta - v)
    return (g - mean(g) - u * mean(g * u)) / deviation
"""
TTT = """
def port(q, k, v, eta, W1, b1, gamma, beta, batch_size=16):
    W, b = (np.broadcast_to(x, (*q.shape[:-2], *x.shape)) for x in (W1, b1))
    W0, b0, out = W, b, []
    for t in range(q.shape[-2]):
        q_t, k_t, v_t = (x[..., t, None, :] for x in (q, k, v))
        g = eta[..., t, None, None] * slope(k_t @ W0 + b0, k_t, v_t, gamma, beta)
        W, b = W - k_t.mT @ g, b - g
        out.append(q_t + gamma * standardise(q_t @ W + b)[0] + beta)
        if (t + 1) % batch_size == 0:
            W0, b0 = W, b
    return np.concatenate(out, axis=-2)
"""
TITANS = """
def port(q, k, v, theta, log_eta, log_decay, W1, gamma, beta, batch_size=16):
    M = start = np.broadcast_to(W1, (*q.shape[:-2], *W1.shape))
    S, out = np.zeros_like(M), []
    for t in range(q.shape[-2]):
        q_t, k_t, v_t = (x[..., t, None, :] for x in (q, k, v))
        rate, eta, keep = (x[..., t, None, None] for x in (theta, np.exp(log_eta), np.exp(log_decay)))
        S = eta * S - rate * (k_t.mT @ slope(k_t @ start, k_t, v_t, gamma, beta))
        M = keep * M + S
        out.append(q_t + gamma * standardise(q_t @ M)[0] + beta)
        if (t + 1) % batch_size == 0:
            start = M
    return np.concatenate(out, axis=-2)
"""
FORMS = {"memory.ttt.primal": ("linear, norm", TTT), "memory.titans.recurrent": ("matrix, norm", TITANS)}
RIGHT = "(g - mean(g) - u * mean(g * u)) / deviation"
PLANTED = [
    (
        "(g - mean(g)) / deviation - u * mean(g * u)",
        "layer-norm gradient: ẑ mean(g ẑ) is outside the parenthesis, not divided by the deviation",
    ),
    ("(g - mean(g)) / deviation", "layer-norm gradient: what goes through the variance is missing"),
    ("(g / gamma - mean(g / gamma) - u * mean(g / gamma * u)) / deviation", "layer-norm gradient: γ is missing"),
    ("g / gamma", "layer-norm gradient: it is that of the plain model, f(k) − v"),
]


def run(form, new=RIGHT, cases=("T > chunk", "T not a multiple", "open gate")):
    variant, text = FORMS[form]
    assert RIGHT in NORM
    scope = {"np": np}
    exec(NORM.replace(RIGHT, new) + text, scope)
    return check(scope["port"], form, variant=variant, cases=list(cases), precisions=["float64"])


@pytest.mark.parametrize("form", FORMS)
def test_a_right_gradient_is_right(form):
    report = run(form)
    assert report.right, str(report)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("new", "slip"), PLANTED, ids=[slip for _, slip in PLANTED])
def test_a_slip_is_named(form, new, slip):
    report = run(form, new)
    assert not report.right
    assert report.slips == [slip]


def test_the_mean_of_the_gradient_does_not_show_in_the_outputs():
    assert run("memory.ttt.primal", "(g - u * mean(g * u)) / deviation").right


def test_a_mistake_that_is_no_slip_has_no_name():
    assert run("memory.ttt.primal", "2.5 * g").slips == []
