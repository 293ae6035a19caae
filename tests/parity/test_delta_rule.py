"""The delta rule against fla-core's three naive forms, in float64.

Theirs scale q by 1/√K, so ours is given the scaled q. Only their recurrence takes an initial state, and it casts to
float32, hence its tolerance.
"""

from functools import partial

import numpy as np
import pytest

from models.memory import delta_rule

FORMS = {
    "recurrent": delta_rule.recurrent,
    "chunkwise, 16": partial(delta_rule.chunkwise, chunk_size=16),
    "chunkwise, 40": partial(delta_rule.chunkwise, chunk_size=40),
}


def inputs(T, *, K=8, V=6, batch=(2, 3)):
    """Return unit keys and write strengths up to 1.5: between 1 and 2 the rule reflects, still without growth."""
    rng = np.random.default_rng(T)
    q, k = rng.normal(size=(2, *batch, T, K))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    v = rng.normal(size=(*batch, T, V))
    beta = rng.uniform(0.0, 1.5, size=(*batch, T))
    return {"q": q, "k": k, "v": v, "beta": beta}


def scaled(name):
    """Return one of our forms with their scale of q."""

    def run(q, k, v, beta, state=None):
        return FORMS[name](q * q.shape[-1] ** -0.5, k, v, beta, state=state)

    return run


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("T", "their_chunk"), [(64, 32), (96, 32), (60, 20), (1, 1)])
def test_fla_chunkwise(form, T, their_chunk, fla, compare):
    theirs = fla("delta_rule").delta_rule_chunkwise
    compare(scaled(form), lambda *x: theirs(*x, chunk_size=their_chunk), inputs(T), 1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_fla_parallel(form, fla, compare):
    theirs = fla("delta_rule").delta_rule_parallel
    ours = scaled(form)
    compare(lambda *x: ours(*x)[:1], lambda *x: theirs(*x, BM=32, BN=16)[:1], inputs(96), 1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 37])
def test_fla_recurrence_from_an_initial_state(form, T, fla, compare):
    theirs = fla("delta_rule").delta_rule_recurrence
    sample = inputs(T)
    sample["state"] = np.random.default_rng(1).normal(size=(2, 3, 8, 6))
    compare(scaled(form), theirs, sample, 1e-5)
