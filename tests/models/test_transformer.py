"""The Transformer as a model: its cache, padding in a batch, positions, dropout, decoding, and what it refuses."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from minigrad.pytree import arrays_of
from models.errors import UserError
from models.language.decoding import beam_search, greedy, length_penalty
from models.language.transformer import Transformer, TransformerConfig

PAD, START, END = 0, 1, 2
TOKENS = {"pad": PAD, "start": START, "end": END}
SMALL = TransformerConfig(9, width=8, layers=2, heads=2, dropout=0.25)
SOURCE, TARGET = np.array([[3, 4, 5, 6], [7, 8, 0, 0]]), np.array([[1, 4, 5], [1, 8, 3]])


@pytest.fixture
def model():
    return Transformer(SMALL, np.random.default_rng(0))


def test_a_padded_batch_is_its_sources_alone(model):
    together = model(SOURCE, TARGET, pad=PAD)
    for source, target, logits in zip((SOURCE[0], SOURCE[1, :2]), TARGET, together, strict=True):
        np.testing.assert_allclose(model(source, target, pad=PAD), logits, atol=2e-6)
    moved = model(np.array([[0, 7, 8, 0], [0, 0, 7, 8]]), TARGET[[1, 1]], pad=PAD)
    assert abs(moved[0] - moved[1]).max() > 1e-3  # positions count


def test_one_token_at_a_time_is_all_at_once(model):
    state, rows = model.encode(SOURCE, pad=PAD), []
    sources = [layer.source for layer in state.layers]
    for t in range(TARGET.shape[1]):
        logits, state = model.decode(TARGET[:, t : t + 1], state)
        rows.append(logits)
        assert state.layers[1].target[0].shape == (2, 2, t + 1, 4)
    np.testing.assert_allclose(np.concatenate(rows, axis=1), model(SOURCE, TARGET, pad=PAD), atol=2e-6)
    for before, layer in zip(sources, state.layers, strict=True):
        assert before[0] is layer.source[0] and before[1] is layer.source[1]  # computed once


def test_every_weight_learns_and_dropout_is_drawn_from_the_generator(model):
    def loss(m, rng=None):
        return mg.mean(m(SOURCE, TARGET, pad=PAD, rng=rng) ** 2)

    grads = mg.grad(loss)(model).named_parameters()
    assert grads.keys() == model.named_parameters().keys()
    assert all(np.abs(g).max() > 0 for g in grads.values())
    one, two, other = (float(loss(model, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert one == two != other
    assert loss(model) == loss(Transformer(SMALL, np.random.default_rng(0)))


def test_weights_of_attention_sum_to_one_and_leave_out_padding(model):
    for weights in model.cross_attention(SOURCE, TARGET, pad=PAD):
        assert weights.shape == (2, 2, 3, 4)
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
        assert (weights[1, :, :, 2:] == 0).all()


def test_greedy_decodings_of_a_batch_are_those_of_its_sources(model):
    decoded = greedy(model, SOURCE, **TOKENS, tokens=12)
    for source, row in zip((SOURCE[0], SOURCE[1, :2]), decoded, strict=True):
        alone = greedy(model, source[None], **TOKENS, tokens=12)[0]
        text, score = beam_search(model, source, beam=1, **TOKENS, tokens=12)
        assert alone.tolist() == text == row[: len(text)].tolist()
        assert (row[len(text) :] == PAD).all() and (END in text[-1:] or len(text) == 12)
        wide, better = beam_search(model, source, beam=5, **TOKENS, tokens=12)
        logits = np.asarray(model(source, np.array([START, *wide[:-1]]), pad=PAD), dtype=np.float64)
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        total = log_p[np.arange(len(wide)), wide].sum()
        assert better == pytest.approx(total / length_penalty(len(wide), 0.6), rel=1e-5)


def test_a_decoding_ends_by_itself_or_at_the_limit(model):
    model.embedding.weight[END] += 100 * model.decoder[-1].norms[2].weight  # the head's row
    model.decoder[-1].norms[2].bias += 1
    assert greedy(model, SOURCE, **TOKENS).tolist() == [[END], [END]]
    assert beam_search(model, SOURCE[0], beam=3, **TOKENS)[0] == [END]
    model.embedding.weight[END] *= -1
    assert greedy(model, SOURCE, **TOKENS).shape == (2, 4 + 50)
    assert len(beam_search(model, SOURCE[0], beam=2, **TOKENS)[0]) == 4 + 50


def test_the_rate_rises_and_falls():
    rates = [optim.inverse_sqrt(step, warmup=4000, width=512) for step in (0, 3999, 15999)]
    assert rates == pytest.approx([512**-0.5 * 4000**-1.5, (512 * 4000) ** -0.5, (512 * 16000) ** -0.5])


def test_learned_positions_are_rows_of_a_table():
    model = Transformer(TransformerConfig(9, width=8, heads=2, positions="learned", length=4), np.random.default_rng(0))
    state = model.encode(SOURCE, pad=PAD)
    _, state = model.decode(TARGET, state)
    model.decode(TARGET[:, :1], state)
    assert model.named_parameters()["positions.weight"].shape == (4, 8)
    for call, message in [
        (
            lambda: model.decode(TARGET[:, :2], state),
            "target: expected at most 4 tokens, the learned positions",
        ),
        (lambda: model.encode(np.full((1, 5), 3), pad=PAD), "source: expected at most 4 tokens, the learned"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}.*, got 5$"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(np.array([[3], [0]]), TARGET, pad=PAD), "source: expected at least one token besides padding"),
        (lambda m: m(np.zeros((2, 0), int), TARGET, pad=PAD), "tokens: expected integers of shape .* with T ≥ 1, got"),
        (lambda m: m(SOURCE, TARGET + 6, pad=PAD), "tokens: expected 0 to 8, got 14"),
        (lambda m: beam_search(m, SOURCE[0], beam=0, **TOKENS), "beam: expected at least 1, got 0"),
        (lambda m: TransformerConfig(9, width=8, heads=3), "heads: expected width 8 to be a multiple of heads, got 3"),
        (lambda m: TransformerConfig(9, width=9, heads=3), "width: expected an even number, for sinusoids are pairs"),
        (lambda m: TransformerConfig(9, layers=0), "layers: expected at least 1, got 0"),
        (lambda m: TransformerConfig(9, dropout=1.0), "dropout: expected at least 0 and below 1, got 1.0"),
        (lambda m: TransformerConfig(9, positions="learned"), "length: expected at least 1, got 0"),
        (lambda m: TransformerConfig(9, length=4), "length: expected 0, for sinusoids have no last position, got 4"),
    ],
)
def test_what_it_refuses(model, call, message):
    with pytest.raises(ValueError, match=f"^{message}") as excinfo:
        call(model)
    assert "\n" not in str(excinfo.value)


def test_positions_are_known_by_name():
    with pytest.raises(UserError, match="positions: expected one of sinusoidal, learned, got 'rotary'"):
        TransformerConfig(9, positions="rotary")
    assert len(arrays_of(Transformer(SMALL, np.random.default_rng(0)))) == 1 + 2 * (4 + 4 + 4) + 2 * (8 + 4 + 6)
