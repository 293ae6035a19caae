"""Linear attention against fla-core's naive forms.

Theirs put time before the heads, (B, T, H, K), and scale q unless told not to. The chunked one works in the dtype it is
given, over whole chunks of 64; the recurrent one casts to float32, and takes an initial state.
"""

from functools import partial

import numpy as np
import pytest

from models.memory import linear_attention

FORMS = {
    "parallel": linear_attention.parallel,
    "recurrent": linear_attention.recurrent,
    "chunkwise, 48": partial(linear_attention.chunkwise, chunk_size=48),
    "chunkwise, 200": partial(linear_attention.chunkwise, chunk_size=200),
}


def inputs(T, *, K=8, V=6, batch=(2, 3)):
    """Return q, k, v with batch axes (B, H)."""
    rng = np.random.default_rng(T)
    q, k = rng.normal(size=(2, *batch, T, K))
    return {"q": q, "k": k, "v": rng.normal(size=(*batch, T, V))}


def time_first(theirs, **options):
    """Return their function with our layout (B, H, T, ·), as a tuple of results."""

    def run(q, k, v, state=None):
        arguments = (
            options if state is None else {**options, "initial_state": state.float(), "output_final_state": True}
        )
        out = theirs(*(x.transpose(1, 2) for x in (q, k, v)), scale=1.0, **arguments)
        return (out.transpose(1, 2),) if state is None else (out[0].transpose(1, 2), out[1])

    return run


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [64, 128])
def test_fla_chunked(form, T, fla, compare):
    theirs = time_first(fla("linear_attn").naive_chunk_linear_attn)
    compare(lambda *x: FORMS[form](*x)[:1], theirs, inputs(T), 1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 37])
def test_fla_recurrent_from_an_initial_state(form, T, fla, compare):
    theirs = time_first(fla("linear_attn").naive_recurrent_linear_attn)
    sample = inputs(T)
    sample["state"] = np.random.default_rng(1).normal(size=(2, 3, 8, 6))
    compare(lambda q, k, v, state: FORMS[form](q, k, v, state=state), theirs, sample, 1e-5)
