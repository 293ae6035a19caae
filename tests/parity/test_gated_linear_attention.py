"""Gated linear attention, a gate per key channel and a gate per token, against fla-core's recurrence.

It casts to float32 and scales q by 1/√K without a switch; time comes before the heads. A gate per token is compared as
the same gate in every channel.
"""

from functools import partial

import numpy as np
import pytest

from models.memory import gated_linear_attention

FORMS = {
    "parallel": gated_linear_attention.parallel,
    "recurrent": gated_linear_attention.recurrent,
    "chunkwise, 16": partial(gated_linear_attention.chunkwise, chunk_size=16),
}
B, H, K, V = 2, 3, 8, 6


def inputs(T, gates):
    """Return q, k, v, log_decay and a state; decays between 0.3 and 1."""
    rng = np.random.default_rng(T)
    q, k = rng.normal(size=(2, B, H, T, K))
    v = rng.normal(size=(B, H, T, V))
    log_decay = np.log(rng.uniform(0.3, 1.0, size=(B, H, T, *gates)))
    return {"q": q, "k": k, "v": v, "log_decay": log_decay, "state": rng.normal(size=(B, H, K, V))}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gates", [(), (K,)], ids=["per token", "per channel"])
@pytest.mark.parametrize("T", [1, 37])
def test_fla_recurrent(form, gates, T, fla, compare):
    theirs = fla("gla").naive_recurrent_gla

    def run_theirs(q, k, v, log_decay, state):
        log_decay = log_decay if gates else log_decay[..., None].expand(*log_decay.shape, K)
        first = (x.transpose(1, 2) for x in (q, k, v, log_decay))
        out, state = theirs(*first, initial_state=state, output_final_state=True)
        return out.transpose(1, 2), state

    def run_ours(q, k, v, log_decay, state):
        return FORMS[form](q * K**-0.5, k, v, log_decay, state=state)

    compare(run_ours, run_theirs, inputs(T, gates), 1e-5)
