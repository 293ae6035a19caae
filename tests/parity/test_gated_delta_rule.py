"""The gated delta rule against Hugging Face's Qwen3-Next, Kimi Linear and fla-core's KDA; float32 inside.

Theirs put time before the heads, take the gate before beta, and scale q by 1/√K; fla-core's chunks must fill up.
"""

from functools import partial, reduce

import numpy as np
import pytest

import minigrad as mg
from models.blocks.kda import KimiDeltaAttentionBlock, KimiDeltaAttentionConfig
from models.memory import gated_delta_rule

FORMS = {
    "recurrent": gated_delta_rule.recurrent,
    "chunkwise, 16": partial(gated_delta_rule.chunkwise, chunk_size=16),
    "chunkwise, 40": partial(gated_delta_rule.chunkwise, chunk_size=40),
    "fused": gated_delta_rule.fused,
}
B, H, K, V = 2, 3, 8, 6


def inputs(T, gates=()):
    """Return unit keys, write strengths in (0, 1), decays between 0.3 and 1, and a state."""
    rng = np.random.default_rng(T)
    q, k = rng.normal(size=(2, B, H, T, K))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    v, beta = rng.normal(size=(B, H, T, V)), rng.uniform(size=(B, H, T))
    log_decay = np.log(rng.uniform(0.3, 1.0, size=(B, H, T, *gates)))
    state = rng.normal(size=(B, H, K, V))
    return {"q": q, "k": k, "v": v, "beta": beta, "log_decay": log_decay, "state": state}


def time_first(theirs):
    """Return their function with our layout and order of arguments."""

    def run(q, k, v, beta, log_decay, state):
        q, k, v, beta, log_decay = (x.transpose(1, 2) for x in (q, k, v, beta, log_decay))
        out, state = theirs(q, k, v, log_decay, beta, initial_state=state, output_final_state=True)
        return out.transpose(1, 2), state

    return run


def scaled(form):
    """Return our form with their scale of q."""
    return lambda q, *arguments: FORMS[form](q * K**-0.5, *arguments[:-1], state=arguments[-1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["chunk", "recurrent"])
@pytest.mark.parametrize("T", [1, 64, 90])
def test_qwen3_next(form, which, T, qwen3_next, compare):
    compare(scaled(form), time_first(getattr(qwen3_next, which)), inputs(T), 1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["chunk", "recurrent"])
@pytest.mark.parametrize("T", [1, 90])
def test_kimi_linear(form, which, T, kimi_linear, compare):
    compare(scaled(form), time_first(getattr(kimi_linear, which)), inputs(T, gates=(K,)), 1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "T"), [("naive_recurrent_kda", 1), ("naive_recurrent_kda", 37), ("naive_chunk_kda", 64)]
)
def test_fla_kda(form, name, T, fla, compare):
    theirs = getattr(fla("kda"), name)
    compare(scaled(form), time_first(theirs), inputs(T, gates=(K,)), 1e-5)


@pytest.mark.parametrize("T", [1, 70])
def test_kimi_linears_layer(T, transformers, torch, close):
    """Compare the block on two sequences, then one more token from the state, and the gradient of its input."""
    module, sizes = transformers("kimi_linear"), {"linear_num_heads": 3, "linear_head_dim": 4}
    config = module.KimiLinearConfig(hidden_size=8, num_hidden_layers=1, layer_types=["linear_attention"], **sizes)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    theirs = module.KimiLinearDeltaAttention(config, 0)
    theirs.forget_gate.A_log.data.uniform_(0, 2)
    theirs.forget_gate.dt_bias.data.uniform_(-5, 0)
    theirs.o_norm.weight.data.uniform_(0.5, 1.5)
    mine = KimiDeltaAttentionBlock(KimiDeltaAttentionConfig(8, 3, 4), np.random.default_rng(0))
    for name, weight in theirs.state_dict().items():
        *path, last = name.split(".")
        holder = reduce(getattr, path, mine)
        array = weight.numpy().reshape(getattr(holder, last).shape)
        setattr(holder, last, array[:, ::-1] if holder is mine.conv1d else array)  # theirs is a correlation
    x, weights = np.random.default_rng(T).normal(size=(2, 2, T + 1, 8)).astype(np.float32)
    y, pull = mg.vjp(lambda x: mine(x)[0], x)
    their_x = torch.tensor(x, requires_grad=True)
    their_y = theirs(their_x)
    their_y.backward(torch.tensor(weights))
    close("output", y, their_y.detach().numpy(), 1e-5)
    close("gradient", *pull(weights), their_x.grad.numpy(), 1e-4)
    first, state = mine(x[:, :T])
    after, _ = mine(x[:, T:], state)
    close("output in two parts", np.concatenate([first, after], axis=1), their_y.detach().numpy(), 1e-5)
