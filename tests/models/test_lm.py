"""A language model over any mixer: causal, one pass = prefill and then single tokens, plain NumPy when it generates.

Each of these is stated of every mixer with its own options, and of softmax attention with every scheme of positions and
with what GPT-2 and Llama have.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

import minigrad as mg
from models.attention import softmax
from models.attention.positions import rotary, rotary_frequencies
from models.blocks import MIXERS
from models.blocks.mlp import MLPS
from models.errors import UserError
from models.language.config import NORMS, Config
from models.language.lm import LanguageModel, generate, state_numbers
from models.objectives import mean_loss

VOCAB = 11
GPT2 = {
    "positions": "learned",
    "max_positions": 20,
    "norm": "layer",
    "bias": True,
    "mlp": "gelu_tanh",
    "mlp_bias": True,
}
LLAMA = {"kv_heads": 2, "heads": 4, "head_size": 6, "hidden": 20, "eps": 1e-5, "tied": False}
VARIANTS = {
    **{mixer: {"mixer": mixer} for mixer in MIXERS},
    "delta rule, no convolution": {"mixer": "delta_rule", "conv": 0},
    "gpt2": {"mixer": "softmax", "conv": 0, **GPT2},
    "llama": {"mixer": "softmax", "conv": 0, **LLAMA},
    **{
        f"{scheme}, {groups} of keys": {"mixer": "softmax", "positions": scheme, "heads": 4, "kv_heads": groups}
        for scheme in MIXERS["softmax"].schemes
        for groups in (1, 4)
    },
    **{f"norm {norm}": {"norm": norm, "eps": 0.1} for norm in NORMS},
    **{f"mlp {mlp}": {"mlp": mlp, "tied": False} for mlp in MLPS},
    **{
        f"{mixer}, {variant}": {"mixer": mixer, "variant": variant}
        for mixer, block in MIXERS.items()
        for variant in block.variants[1:]
    },
    "rotary, some channels": {"mixer": "softmax", "frequencies": (1.0, 0.5)},
}

UNUSED = {"BC": ["dt_proj.weight"], "none": ["dt_proj.weight", "x_proj.weight"]}  # Mamba's variants keep their sizes


@pytest.fixture(params=VARIANTS)
def config(request):
    return small(**VARIANTS[request.param])


def small(**options) -> Config:
    return Config(**{"vocab": VOCAB, "width": 16, "layers": 2, "heads": 2, "chunk_size": 4, **options})


def model_of(config: Config) -> LanguageModel:
    model = LanguageModel(config, np.random.default_rng(0))
    rng = np.random.default_rng(1)  # away from what weights are at first, where a dead path may go unseen
    parameters = model.named_parameters()
    model.load_parameters({n: a + 0.3 * rng.standard_normal(a.shape) for n, a in parameters.items()})
    return model


def tokens_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, VOCAB, size=shape)


def test_prefill_and_single_steps_give_what_one_pass_gives(config):
    model, tokens = model_of(config), tokens_of(3, 13)
    full, _ = model(tokens)
    logits, state = model(tokens[:, :6])
    parts = [logits]
    for t in range(6, 13):
        logits, state = model(tokens[:, t : t + 1], state)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, atol=2e-4)


def test_every_form_gives_the_same_logits(config):
    tokens = tokens_of(2, 9)
    forms = MIXERS[config.mixer].forms()
    logits = [model_of(replace(config, form=form))(tokens)[0] for form in forms]
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], atol=2e-4)


def test_the_future_changes_nothing(config):
    model, tokens = model_of(config), tokens_of(1, 12)
    changed = tokens.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % VOCAB
    np.testing.assert_allclose(model(tokens)[0][:, :7], model(changed)[0][:, :7], atol=1e-5)
    assert np.abs(model(tokens)[0][:, 7:] - model(changed)[0][:, 7:]).max() > 0.1


def test_batch_axes_are_independent_and_optional(config):
    model, tokens = model_of(config), tokens_of(2, 2, 7)
    logits, _ = model(tokens)
    np.testing.assert_allclose(logits[1, 0], model(tokens[1, 0])[0], atol=1e-4)


def test_every_parameter_gets_a_gradient(config):
    model, tokens = model_of(config), tokens_of(2, 10)
    _, grads = mg.value_and_grad(lambda m: mean_loss(m(tokens[:, :-1])[0], tokens[:, 1:]))(model)
    gradients = grads.named_parameters()
    assert gradients.keys() == model.named_parameters().keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32, name
        used = name.rpartition("block.")[2] not in UNUSED.get(config.variant, ())
        assert np.isfinite(gradient).all() and (np.abs(gradient).max() > 0) == used, name


def test_the_gradient_is_the_slope(config):
    """Along a random direction in double precision, against a central difference."""
    model, tokens = model_of(config), tokens_of(2, 7)
    arrays = {n: a.astype(np.float64) for n, a in model.named_parameters().items()}
    rng = np.random.default_rng(3)
    direction = {n: rng.standard_normal(a.shape) for n, a in arrays.items()}

    def loss(m):
        return mean_loss(m(tokens[:, :-1])[0], tokens[:, 1:])

    def at(step: float):
        return float(loss(_with(model, {n: a + step * direction[n] for n, a in arrays.items()})))

    _, grads = mg.value_and_grad(loss)(_with(model, arrays))
    slope = sum(float(np.sum(g * direction[n])) for n, g in grads.named_parameters().items())
    assert slope == pytest.approx((at(1e-6) - at(-1e-6)) / 2e-6, rel=1e-5)


def _with(x, arrays: dict[str, np.ndarray], prefix: str = ""):
    """Return a copy of a module with arrays of another element type, which `load_parameters` would cast."""
    from minigrad.pytree import replace_arrays

    return replace_arrays(x, [arrays[name] for name in x.named_parameters()])


def test_inference_is_plain_numpy(config):
    logits, state = model_of(config)(tokens_of(5))
    assert type(logits) is np.ndarray and logits.dtype == np.float32
    # an inner batch counts its tokens, and what is without a convolution has no state of one
    assert {type(a) for a in _arrays(state)} - {int, type(None)} == {np.ndarray}


def _arrays(state):
    for part in state:
        if isinstance(part, list | tuple):
            yield from _arrays(part)
        else:
            yield part


def test_only_the_state_of_softmax_grows(config):
    model = model_of(config)
    sizes = [state_numbers(model(tokens_of(t))[1]) for t in (1, 5, 20)]
    per_token = 2 * config.kv_heads * config.head_size * config.layers if config.mixer == "softmax" else 0
    assert [size - sizes[0] for size in sizes] == [0, 4 * per_token, 19 * per_token]


def test_generation_is_greedy_at_temperature_zero_and_repeats_with_a_seed(config):
    model, prompt = model_of(config), tokens_of(4)

    def run(temperature, seed):
        return list(generate(model, prompt, tokens=8, temperature=temperature, rng=np.random.default_rng(seed)))

    greedy = run(0, 0)
    tokens = list(prompt)
    for token in greedy:
        logits = model(np.array(tokens))[0][-1]
        assert logits[token] > logits.max() - 1e-3
        tokens.append(token)
    assert run(5.0, 1) == run(5.0, 1) != run(5.0, 2)
    assert list(generate(model, prompt, tokens=0, temperature=1, rng=np.random.default_rng(0))) == []


def test_sampling_follows_the_softmax():
    model = model_of(small())
    logits = model(tokens_of(3))[0][-1] / 2
    expected = np.exp(logits - logits.max())
    rngs = [np.random.default_rng(i) for i in range(500)]
    sample = [next(generate(model, tokens_of(3), tokens=1, temperature=2, rng=rng)) for rng in rngs]
    result = np.bincount(sample, minlength=VOCAB) / 500
    assert np.abs(result - expected / expected.sum()).max() < 0.1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mixer": "delta"}, f"mixer: expected one of {', '.join(MIXERS)}, got 'delta' (nearest: delta_rule)"),
        (
            {"form": "chunks"},
            "form of delta_rule: expected one of recurrent, chunkwise, fused, got 'chunks' (nearest: chunkwise)",
        ),
        ({"heads": 3}, "heads: expected width 16 to be a multiple of 2 × heads, got 3 heads"),
        ({"layers": 0}, "layers: expected at least 1, got 0"),
        ({"layers": 1.0}, "layers: expected a whole number, got 1.0"),
        ({"width": "16"}, "width: expected a whole number, got '16'"),
        ({"vocab": None}, "vocab: expected a whole number, got None"),
        ({"conv": -1}, "conv: expected at least 0, got -1"),
        ({"mixer": "mamba", "conv": 0}, "conv: expected at least 1, got 0"),
        ({"bias": 1}, "bias: expected true or false, got 1"),
        ({"eps": -1.0}, "eps: expected a number of at least 0, got -1.0"),
        ({"norm": "layr"}, "norm: expected one of rms, layer, got 'layr' (nearest: layer)"),
        ({"mlp": "swigl"}, f"mlp: expected one of {', '.join(MLPS)}, got 'swigl' (nearest: swiglu)"),
        ({"mixer": "mamba", "mlp": "relu"}, "mlp: expected none, since mamba has no such choice, got relu"),
        ({"positions": "alibi"}, "positions: expected none, since delta_rule has no such choice, got alibi"),
        ({"kv_heads": 1}, "kv_heads: expected none, since delta_rule has no such choice, got 1"),
        (
            {"mixer": "softmax", "positions": "rope"},
            "positions: expected one of rotary, none, sinusoidal, learned, alibi, t5, got 'rope' (nearest: none)",
        ),
        ({"mixer": "softmax", "heads": 4, "kv_heads": 3}, "kv_heads: expected a divisor of the 4 heads, got 3"),
        (
            {"mixer": "softmax", "head_size": 3},
            "head_size: expected an even number for rotary positions, got 3",
        ),
        (
            {"mixer": "softmax", "width": 15, "head_size": 3, "positions": "sinusoidal"},
            "width: expected an even number for sinusoidal positions, got 15",
        ),
        (
            {"mixer": "softmax", "max_positions": 3},
            "max_positions: expected none, since no positions are learned, got 3",
        ),
        (
            {"mixer": "softmax", "positions": "none", "frequencies": (1.0,)},
            "frequencies: expected at most 0, got 1",
        ),
        ({"mixer": "softmax", "frequencies": (1.0,) * 5}, "frequencies: expected at most 4, got 5"),
        ({"mixer": "lstm", "variant": "all"}, "variant: expected none, since lstm has no such choice, got all"),
        (
            {"mixer": "mamba", "variant": "deltas"},
            "variant of mamba: expected one of all, delta, BC, none, got 'deltas' (nearest: delta)",
        ),
        (
            {"mixer": "s4d", "start": "legs"},
            "start of s4d: expected one of hippo, lin, inv, random, got 'legs' (nearest: lin)",
        ),
    ],
)
def test_configurations_that_cannot_be(settings, message):
    with pytest.raises(UserError) as excinfo:
        Config(**{"width": 16, "heads": 2, **settings})
    assert str(excinfo.value) == message


def test_a_text_longer_than_the_learned_positions():
    model = model_of(small(mixer="softmax", positions="learned", max_positions=5))
    _, state = model(tokens_of(5))
    message = "^tokens: expected at most 5, the learned positions, got "
    with pytest.raises(UserError, match=f"{message}6$"):
        model(tokens_of(6))
    with pytest.raises(UserError, match=f"{message}7$"):
        model(tokens_of(2), state)


def test_states_that_make_no_pairs():
    with pytest.raises(UserError, match="states: expected an even number, for pairs of conjugate eigenvalues, got 5"):
        model_of(Config(mixer="s4d", width=16, heads=2, states=5))


@pytest.mark.parametrize("tokens", [np.zeros((2, 0), int), np.zeros((2, 3)), np.array(3)])
def test_tokens_that_are_none(tokens):
    with pytest.raises(ValueError, match=r"^tokens: expected integers of shape \(\*batch, T\) with T ≥ 1, got "):
        model_of(small())(tokens)


@pytest.mark.parametrize("scheme", [scheme for scheme in MIXERS["softmax"].schemes if scheme != "none"])
def test_positions_tell_the_order_of_tokens(scheme):
    """Without any, the last token reads the others as a set; where a convolution is, that tells them apart too."""
    tokens = np.array([1, 2, 3, 4, 0])
    swapped = tokens[[1, 0, 2, 3, 4]]

    def difference(positions):
        model = model_of(small(mixer="softmax", conv=0, positions=positions, layers=1))
        return np.abs(model(tokens)[0][-1] - model(swapped)[0][-1]).max()

    assert difference("none") < 1e-5
    assert difference(scheme) > 1e-4


def test_groups_of_queries_share_keys_and_values():
    """A model of G heads of keys and values is one of H whose rows of W_k and W_v are repeated, H/G times each."""
    few = small(mixer="softmax", heads=4, kv_heads=2, bias=True, conv=0)
    grouped, full = model_of(few), model_of(replace(few, kv_heads=4))
    parameters = grouped.named_parameters()
    rows = [*range(16), *_repeated(16), *_repeated(24)]
    full.load_parameters({name: a[rows] if ".qkv." in name else a for name, a in parameters.items()})
    tokens = tokens_of(2, 9)
    np.testing.assert_allclose(grouped(tokens)[0], full(tokens)[0], atol=1e-5)
    keys, _ = grouped(tokens)[1][0].memory
    assert keys.shape == (2, 2, 9, 4)


def _repeated(start: int) -> list[int]:
    return [start + 4 * head + channel for head in (0, 0, 1, 1) for channel in range(4)]


def test_half_the_frequencies_are_half_the_positions():
    block = model_of(small(mixer="softmax", frequencies=tuple((rotary_frequencies(8) / 2).tolist()))).layers[0].block
    q, k, v = (np.random.default_rng(i).standard_normal((2, 9, 8)).astype(np.float32) for i in range(3))
    half = np.arange(9) / 2
    expected, _ = softmax.quadratic(rotary(q, half), rotary(k, half), v)
    np.testing.assert_allclose(block.mix(q, k, v, None, None)[0], expected, atol=1e-5)


@pytest.mark.parametrize("scheme", ["alibi", "t5"])
def test_relative_positions_are_added_to_the_scores(scheme):
    """By hand, for two heads: ALiBi's slopes are 2⁻⁴ and 2⁻⁸, and T5 has a bucket for each of the first distances."""
    block = model_of(small(mixer="softmax", positions=scheme)).layers[0].block
    q, k, v = (np.random.default_rng(i).standard_normal((2, 15, 8)).astype(np.float32) for i in range(3))
    distance = np.arange(15)[:, None] - np.arange(15)
    if scheme == "alibi":
        scores = q @ k.mT / 8**0.5 - np.array([2**-4, 2**-8])[:, None, None] * distance
    else:
        scores = q @ k.mT + block.table[np.maximum(distance, 0)].transpose(2, 0, 1)
    weights = np.where(distance >= 0, np.exp(scores), 0)
    expected = weights / weights.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(block.mix(q, k, v, None, None)[0], expected, atol=1e-5)


@pytest.mark.parametrize("scheme", ["sinusoidal", "learned"])
def test_absolute_positions_are_added_to_the_embeddings(scheme):
    """Vaswani et al. 2017, section 3.4: embeddings are multiplied by √width where sinusoids are added."""
    model = model_of(small(mixer="softmax", positions=scheme, max_positions=9 if scheme == "learned" else 0))
    tokens, state = tokens_of(7), model(tokens_of(2))[1]
    x = model.embedding.weight[tokens]
    if scheme == "learned":
        expected = x + model.position_embedding[2:]
    else:
        angles = np.arange(2, 9)[:, None] / 10_000 ** (np.arange(8) / 8)
        expected = 4 * x + np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(7, 16)
    np.testing.assert_allclose(model.embed(tokens, state), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name, act",
    [
        ("relu", lambda x: max(x, 0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
        ("gelu_tanh", lambda x: x * (1 + math.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
    ],
)
def test_the_first_half_gates_the_second(name, act):
    """Shazeer 2020, eq. 5 and 6, whose gated units are named after their activations."""
    gated = {"relu": "reglu", "silu": "swiglu", "gelu": "geglu", "gelu_tanh": "geglu_tanh"}[name]
    a, b = np.array([-1.5, 0.3, 2.0]), np.array([0.7, -2.0, 3.0])
    expected = [act(x) for x in a]
    np.testing.assert_allclose(MLPS[name](a), expected, rtol=1e-12)
    np.testing.assert_allclose(MLPS[gated](np.concatenate([a, b])), expected * b, rtol=1e-12)
