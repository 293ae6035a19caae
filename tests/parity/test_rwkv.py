"""RWKV-4 against Hugging Face's, RWKV-7 against fla-core's naive forms, and the time and channel mixing of RWKV-4.

Hugging Face's WKV casts keys to float32, so keys are drawn that float32 holds; gradients pass through the cast. fla's
forms compute in float32, and scale r.
"""

from functools import partial

import numpy as np
import pytest

from models.blocks.rwkv4 import ChannelMix, RWKV4Config, TimeMix
from models.recurrent import rwkv4, rwkv7

WKV4 = {
    "recurrent": rwkv4.recurrent,
    "parallel": rwkv4.parallel,
    "chunkwise, 5": partial(rwkv4.chunkwise, chunk_size=5),
}
WKV7 = {
    "recurrent": rwkv7.recurrent,
    "chunkwise, 16": partial(rwkv7.chunkwise, chunk_size=16),
    "chunkwise, 40": partial(rwkv7.chunkwise, chunk_size=40),
    "fused": rwkv7.fused,
}


def wkv_inputs(T, D=6, batch=2):
    """Return k and v, the logarithm of w, u, and a state as Hugging Face keeps it: numerator, denominator, exponent."""
    rng = np.random.default_rng(T)
    k, v = rng.normal(size=(2, batch, T, D))
    return {
        "k": (3 * k).astype(np.float32).astype(np.float64),
        "v": v,
        "time_decay": rng.normal(size=D),
        "u": rng.normal(size=D),
        "numerator": rng.normal(size=(batch, D)),
        "denominator": rng.uniform(0.1, 2, (batch, D)),
        "exponent": rng.normal(size=(batch, D)),
    }


@pytest.mark.parametrize("form", WKV4)
@pytest.mark.parametrize("T", [1, 17])
@pytest.mark.parametrize("from_a_state", [True, False])
def test_wkv(form, T, from_a_state, transformers, compare, close, torch):
    wkv = transformers("rwkv").rwkv_linear_attention_cpu

    def run_theirs(k, v, time_decay, u, *state):
        y, (numerator, denominator, exponent) = wkv(time_decay, u, k, v, state=state or None, return_state=True)
        return y, numerator / denominator, exponent + denominator.log()

    def run_ours(k, v, time_decay, u, *state):
        if state:
            numerator, denominator, exponent = state
            xp = denominator.__array_namespace__()
            state = (numerator / denominator, exponent + xp.log(denominator))
        y, after = WKV4[form](k, v, time_decay.__array_namespace__().exp(time_decay), u, state=state or None)
        return y, *after

    inputs = dict(list(wkv_inputs(T).items())[: 7 if from_a_state else 4])
    compare(run_ours, run_theirs, inputs, 1e-6)
    if from_a_state:  # without, theirs starts in float32
        for ours, theirs in zip(
            run_ours(*inputs.values()), run_theirs(*map(torch.tensor, inputs.values())), strict=True
        ):
            close("result", ours, theirs.numpy(), 1e-13)


@pytest.mark.parametrize("sizes", [(8, 8, 32), (8, 12, 20)])
def test_time_and_channel_mixing(sizes, transformers, compare, torch):
    from transformers import RwkvConfig

    width, inner, hidden = sizes
    config = RwkvConfig(hidden_size=width, attention_hidden_size=inner, intermediate_size=hidden, num_hidden_layers=2)
    torch.manual_seed(0)
    ours_config = RWKV4Config(width, inner, hidden, chunk_size=4)
    for theirs, ours in (
        (transformers("rwkv").RwkvSelfAttention(config), TimeMix),
        (transformers("rwkv").RwkvFeedForward(config), ChannelMix),
    ):
        theirs = theirs.double()
        for parameter in theirs.parameters():  # which are not initialised
            torch.nn.init.normal_(parameter, std=0.5)
        mine = ours(ours_config, np.random.default_rng(0), np.float64)
        weights = {name: x.detach().numpy().squeeze() for name, x in theirs.named_parameters()}
        mine.load_parameters(weights)
        x = {"x": np.random.default_rng(1).normal(size=(3, 11, width))}
        compare(lambda x, mine=mine: mine(x)[:1], lambda x, theirs=theirs: theirs(x)[:1], x, 1e-6)


def rwkv7_inputs(T, K=8, V=6, batch=(2, 3)):
    """Return r, k̃, v, −κ̂, κ̂ ∘ a, decays between 0.5 and 1, and a state."""
    rng = np.random.default_rng(T)
    r, k, kappa = rng.normal(size=(3, *batch, T, K))
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    return {
        "r": r,
        "k": k,
        "v": rng.normal(size=(*batch, T, V)),
        "a": -kappa,
        "b": kappa * rng.uniform(size=kappa.shape),
        "log_decay": np.log(rng.uniform(0.5, 1.0, kappa.shape)),
        "state": rng.normal(size=(*batch, K, V)),
    }


@pytest.mark.parametrize("form", WKV7)
@pytest.mark.parametrize(("theirs", "T"), [("dplr_recurrence", 1), ("dplr_recurrence", 37), ("dplr_chunkwise", 64)])
def test_dplr(form, theirs, T, fla, compare):
    function = getattr(fla("generalized_delta_rule/dplr"), theirs)

    def run_theirs(r, k, v, a, b, log_decay, state):
        r, *others, state = (x.float() for x in (r * r.shape[-1] ** 0.5, k, v, a, b, log_decay, state))
        return function(r, *others, initial_state=state)

    def run_ours(r, k, v, a, b, log_decay, state):
        return WKV7[form](r, k, v, a, b, log_decay, state=state)

    compare(run_ours, run_theirs, rwkv7_inputs(T), 1e-5)
