"""The gated delta rule against Hugging Face's Qwen3-Next, chunked and recurrent; float32 inside.

Theirs put time before the heads, take the gate before beta, and scale q by 1/√K without a switch.
"""

from functools import partial

import numpy as np
import pytest

from models.memory import gated_delta_rule

FORMS = {
    "recurrent": gated_delta_rule.recurrent,
    "chunkwise, 16": partial(gated_delta_rule.chunkwise, chunk_size=16),
    "chunkwise, 40": partial(gated_delta_rule.chunkwise, chunk_size=40),
}
B, H, K, V = 2, 3, 8, 6


def inputs(T):
    """Return unit keys, write strengths in (0, 1), decays between 0.3 and 1, and a state."""
    rng = np.random.default_rng(T)
    q, k = rng.normal(size=(2, B, H, T, K))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    v, beta = rng.normal(size=(B, H, T, V)), rng.uniform(size=(B, H, T))
    log_decay = np.log(rng.uniform(0.3, 1.0, size=(B, H, T)))
    state = rng.normal(size=(B, H, K, V))
    return {"q": q, "k": k, "v": v, "beta": beta, "log_decay": log_decay, "state": state}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["chunk", "recurrent"])
@pytest.mark.parametrize("T", [1, 64, 90])
def test_qwen3_next(form, which, T, qwen3_next, compare):
    theirs = getattr(qwen3_next, which)

    def run_theirs(q, k, v, beta, log_decay, state):
        q, k, v, beta, log_decay = (x.transpose(1, 2) for x in (q, k, v, beta, log_decay))
        out, state = theirs(q, k, v, log_decay, beta, initial_state=state, output_final_state=True)
        return out.transpose(1, 2), state

    def run_ours(q, k, v, beta, log_decay, state):
        return FORMS[form](q * K**-0.5, k, v, beta, log_decay, state=state)

    compare(run_ours, run_theirs, inputs(T), 1e-5)
