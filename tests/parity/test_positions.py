"""Positions against the code in transformers, and multi-head attention against PyTorch's layer.

Its tables are of float32, whatever the precision asked for: with positions below 50 an angle is off by up to 3e-6.
"""

import numpy as np
import pytest

from models.attention import multihead, positions, softmax

T = 40
SINGLE = 1e-5
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def draw(*shape):
    return np.random.default_rng(T).standard_normal(shape)


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("scaling", [None, LLAMA3], ids=["default", "llama3"])
def test_llama_rotary(scaling, start, torch, transformers, compare):
    llama = transformers("llama")
    rope = {"rope_type": "llama3", **scaling} if scaling else {"rope_type": "default"}
    config = llama.LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        rope_parameters={**rope, "rope_theta": 500_000.0},
    )
    rotary = llama.LlamaRotaryEmbedding(config)
    frequencies = positions.rotary_frequencies(32, base=500_000.0)
    if scaling:
        scaled = positions.llama3_frequencies(frequencies, factor=8.0, low=1.0, high=4.0, length=64)
        assert np.any(scaled == frequencies) and np.any(scaled == frequencies / 8)
        frequencies = scaled

    def theirs(q, k):
        cos, sin = rotary(q, torch.arange(start, start + T)[None])
        return llama.apply_rotary_pos_emb(q, k, cos, sin)

    def ours(q, k):
        return tuple(positions.rotary(x, start + np.arange(T), frequencies=frequencies) for x in (q, k))

    compare(ours, theirs, {"q": draw(2, 2, T, 32), "k": draw(2, 1, T, 32)}, SINGLE)


def test_gptj_rotary(torch, transformers, compare):
    """GPT-J rotates the first channels only, neighbours as pairs; its heads stand behind time."""
    gptj, width = transformers("gptj"), 8
    sin, cos = gptj.create_sinusoidal_positions(T, width).chunk(2, dim=-1)

    def theirs(q):
        x = q.transpose(1, 2)
        rotated = gptj.apply_rotary_pos_emb(x[..., :width], sin[None], cos[None])
        return (torch.cat([rotated, x[..., width:]], dim=-1).transpose(1, 2),)

    def ours(q):
        frequencies = positions.rotary_frequencies(width)
        return (positions.rotary(q, np.arange(T), frequencies=frequencies, layout="interleaved"),)

    compare(ours, theirs, {"q": draw(2, 3, T, 12)}, SINGLE)


def test_marian_sinusoids(transformers, close):
    table = transformers("marian").MarianSinusoidalPositionalEmbedding(T, 24)
    table = table.create_weight().numpy()
    close("table", positions.sinusoidal(np.zeros((T, 24)), np.arange(T), layout="halves"), table, SINGLE)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20])
@pytest.mark.parametrize("model", ["bloom", "mpt"])
def test_alibi(model, heads, torch, transformers, close):
    """Both add m s, of the key alone, up to a number that a query's scores share."""
    module = transformers(model)
    if model == "bloom":
        bias = module.build_alibi_tensor(torch.ones(1, T, dtype=torch.int64), heads, torch.float32).numpy()
    else:
        bias = module.build_mpt_alibi_tensor(heads, T).numpy()
    ours = positions.alibi(np.zeros((heads, 1, 2)), np.array([T - 1]), np.arange(T))
    close("bias of the last query", ours, bias - bias[..., -1:], 1e-6)


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (16, 40)])
def test_t5_bias(buckets, distance, decoder, torch, transformers, compare):
    """The bias of the last 30 of 300 queries, and its gradient for the table."""
    t5 = transformers("t5")
    config = t5.T5Config(
        d_model=8,
        num_heads=3,
        d_kv=4,
        is_decoder=decoder,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=distance,
    )
    attention = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)

    def theirs(table):
        attention.relative_attention_bias.forward = lambda bucket: torch.nn.functional.embedding(bucket, table)
        return (attention.compute_bias(30, 300, past_seen_tokens=270)[0],)

    def ours(table):
        at, keys = 270 + np.arange(30), np.arange(300)
        return (positions.t5_bias(table, at, keys, bidirectional=not decoder, max_distance=distance),)

    compare(ours, theirs, {"table": draw(buckets, 3)}, 1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_torch_multihead_attention(causal, torch, compare):
    layer = torch.nn.MultiheadAttention(12, 3, batch_first=True, bias=False, dtype=torch.float64)
    weights = {"projection": draw(36, 12), "output": draw(12, 12)}

    def theirs(x, projection, output):
        names = {"in_proj_weight": projection, "out_proj.weight": output}
        mask = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
        return (torch.func.functional_call(layer, names, (x, x, x), {"attn_mask": mask, "need_weights": False})[0],)

    def ours(x, projection, output):
        q, k, v = (x @ projection[i : i + 12].mT for i in (0, 12, 24))
        return (multihead.attend(softmax.quadratic, q, k, v, heads=3, causal=causal)[0] @ output.mT,)

    compare(ours, theirs, {"x": draw(2, T, 12), **weights}, 1e-12)


def test_torch_grouped_queries(torch, compare):
    def theirs(q, k, v):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return (torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),)

    compare(
        lambda q, k, v: multihead.grouped(softmax.quadratic, q, k, v)[:1],
        theirs,
        {"q": draw(2, 6, T, 4), "k": draw(2, 2, T, 4), "v": draw(2, 2, T, 5)},
        1e-12,
    )
