"""A language model over any mixer: causal, one pass = prefill and then single tokens, plain NumPy when it generates."""

from dataclasses import replace

import numpy as np
import pytest

import minigrad as mg
from models.blocks import MIXERS
from models.errors import UserError
from models.language.lm import Config, LanguageModel, generate, state_numbers
from models.objectives import mean_loss

SMALL = Config(vocab=11, width=16, layers=2, heads=2, chunk_size=4)


@pytest.fixture(params=list(MIXERS))
def config(request):
    return replace(SMALL, mixer=request.param, form="")


def model_of(config: Config) -> LanguageModel:
    model = LanguageModel(config, np.random.default_rng(0))
    rng = np.random.default_rng(1)  # away from what weights are at first, where a dead path may go unseen
    parameters = model.named_parameters()
    model.load_parameters({n: a + 0.3 * rng.standard_normal(a.shape) for n, a in parameters.items()})
    return model


def tokens_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, SMALL.vocab, size=shape)


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
    changed[:, 7:] = (changed[:, 7:] + 1) % SMALL.vocab
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
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name


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
    assert {type(a) for a in _arrays(state)} - {int} == {np.ndarray}  # an inner batch counts its tokens


def _arrays(state):
    for part in state:
        if isinstance(part, list | tuple):
            yield from _arrays(part)
        else:
            yield part


def test_only_the_state_of_softmax_grows(config):
    model = model_of(config)
    sizes = [state_numbers(model(tokens_of(t))[1]) for t in (1, 5, 20)]
    per_token = 2 * config.width * config.layers if config.mixer == "softmax" else 0
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
    model = model_of(SMALL)
    logits = model(tokens_of(3))[0][-1] / 2
    expected = np.exp(logits - logits.max())
    rngs = [np.random.default_rng(i) for i in range(500)]
    sample = [next(generate(model, tokens_of(3), tokens=1, temperature=2, rng=rng)) for rng in rngs]
    result = np.bincount(sample, minlength=SMALL.vocab) / 500
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


def test_states_that_make_no_pairs():
    with pytest.raises(UserError, match="states: expected an even number, for pairs of conjugate eigenvalues, got 5"):
        model_of(Config(mixer="s4d", width=16, heads=2, states=5))


@pytest.mark.parametrize("tokens", [np.zeros((2, 0), int), np.zeros((2, 3)), np.array(3)])
def test_tokens_that_are_none(tokens):
    with pytest.raises(ValueError, match=r"^tokens: expected integers of shape \(\*batch, T\) with T ≥ 1, got "):
        model_of(SMALL)(tokens)
