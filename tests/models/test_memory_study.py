"""Memories that learn, in the study: their block is stable, their losses fall, a surprise is where it was planted."""

import json

import numpy as np
import pytest

from models.blocks import MIXERS, BlockConfig
from models.blocks.titans import TitansBlock
from models.language.config import Config
from models.language.lm import LanguageModel
from models.memory import inner, ttt
from models.memory.online_learner import POINTS
from models.references import cited
from models.study import memory, recorded
from models.study.learning import inner_losses, losses, surprises
from models.study.plans import DEEP


def test_titans_stays_finite_when_one_token_comes_again_and_again_with_long_momentum():
    rng = np.random.default_rng(0)
    block = TitansBlock(BlockConfig(width=16, heads=2, form="chunkwise", chunk_size=16), rng)
    block.rate.bias, block.momentum.bias = np.full(2, 5, np.float32), np.full(2, 4, np.float32)
    x = np.repeat(rng.standard_normal((1, 1, 16)).astype(np.float32), 400, axis=1)
    y, _ = block(x)
    assert np.isfinite(y).all()


def test_titans_stays_finite_however_large_its_values_are():
    rng = np.random.default_rng(0)
    block = TitansBlock(BlockConfig(width=16, heads=2, form="chunkwise", chunk_size=16), rng)
    block.qkv.weight = 100 * block.qkv.weight
    block.rate.bias = np.full(2, 5, np.float32)
    y, _ = block(rng.standard_normal((1, 400, 16)).astype(np.float32))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("mixer", ["ttt_linear", "ttt_mlp", "titans"])
def test_the_inner_loss_falls_along_a_sequence_that_repeats_itself(mixer):
    model = LanguageModel(Config(mixer=mixer, vocab=8, width=16, layers=2, heads=2), np.random.default_rng(0))
    for layer in model.layers:  # gates that learn fast and forget nothing
        layer.block.rate.bias = np.full(2, 5, np.float32)
        if mixer == "titans":
            layer.block.forget.bias = np.full(2, -9, np.float32)
    tokens = np.tile(np.random.default_rng(1).integers(0, 8, size=(3, 16)), 8)
    before, _ = model(tokens)
    losses = inner_losses(model, tokens)
    assert losses["positions"] == [16 * i + 8.0 for i in range(8)]
    for learned, first in zip(losses["learned"], losses["first"], strict=True):
        assert learned[0] == first[0]  # nothing is learned yet
        assert max(learned[1:]) < 0.9 * min(first) and learned[-1] < 0.8 * first[-1]
    np.testing.assert_array_equal(model(tokens)[0], before)  # listening leaves no trace


@pytest.mark.parametrize("mixer", DEEP)
def test_in_the_recorded_text_model_every_layer_learns_while_it_reads(mixer):
    losses = json.loads((recorded.FOLDER / f"text-{mixer}.json").read_text())["result"]["inner_losses"]
    quarter = len(losses["positions"]) // 4
    for learned, first in zip(losses["learned"], losses["first"], strict=True):
        assert np.mean(learned[-quarter:]) < 0.5 * np.mean(first[-quarter:])
        assert np.mean(learned[-quarter:]) < 0.7 * learned[0]  # and not because the first memory is a bad one


@pytest.mark.parametrize("mixer", ["ttt_mlp", "titans"])
def test_the_inner_loss_is_the_loss_whose_gradient_the_memory_takes(mixer):
    """Compare one token a batch, and one batch, by hand from the block's own rows."""
    block = MIXERS[mixer](
        BlockConfig(width=8, heads=1, form=MIXERS[mixer].default_form, chunk_size=2), np.random.default_rng(0)
    )
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((1, 5, 8)).astype(np.float32) for _ in range(3))
    gate = np.full((1, 5), 0.1, np.float32)
    norm = tuple(rng.standard_normal((1, 1, 8)).astype(np.float32) for _ in range(2))
    if mixer == "titans":
        inputs, options = (gate, -gate, -gate, block.layers), {"norm": norm}
    else:
        inputs, options = (gate, ttt.Weights(block.layers, norm)), {}
    learned, first = losses(block, q, k, v, *inputs, **options)
    form = getattr(block.mechanism, block.form)
    for t in range(5):
        start = block.layers
        if t >= 2:
            ended = t // 2 * 2
            cut = [x[:, :ended] if x.shape[:2] == (1, 5) else x for x in (q, k, v, *inputs[:-1])]
            start = form(*cut, inputs[-1], batch_size=2, **options)[1].start
        for weights, result in ((start, learned), (block.layers, first)):
            error = inner.apply_model(weights, norm, k[:, t : t + 1]) - v[:, t : t + 1]
            np.testing.assert_allclose(result[:, t], (error**2).sum(-1).reshape(-1) / 2, rtol=1e-5)


def test_momentary_surprise_is_greatest_where_it_was_planted_and_past_surprise_follows():
    result = surprises(length=120, period=6, planted=[70, 95], rate=1.0, kept=0.9, forgotten=0.002, seed=1)
    momentary, past = np.array(result["momentary"]), np.array(result["past"])
    settled = np.arange(120) >= 60  # the pairs are known by then
    assert set(np.flatnonzero(settled)[np.argsort(momentary[settled])[-2:]]) == {70, 95}
    assert momentary[70] > 5 * momentary[60:70].max()
    assert past[70:76].min() > 2 * past[60:70].max()  # tokens later it is still there
    forgetful = surprises(length=120, period=6, planted=[70, 95], rate=1.0, kept=1e-9, forgotten=0.002, seed=1)["past"]
    assert forgetful[72] < 0.5 * forgetful[70]


def test_a_planted_place_outside_the_sequence_is_no_place():
    with pytest.raises(IndexError):
        surprises(length=10, period=2, planted=[10], rate=1.0, kept=0.5, forgotten=0.0, seed=0)


def test_sentences_say_what_the_numbers_say():
    result = {
        "delta_rule": {96: 1.0, 300: 0.95, 900: 0.2},
        "titans": {96: 0.92, 300: 0.5, 900: 0.9},
        "softmax": {96: 0.1, 300: 0.1, 900: 0.1},
    }
    assert memory.how_far(result, 96) == [
        "The longest sequence up to which 90% of the needles are found, after training at 96: "
        "delta rule 300, Titans 96, softmax none.",
        "At 900: Titans 90%, delta rule 20%, softmax 10%.",
    ]
    losses = {"positions": [1, 2, 3, 4], "learned": [[4.0, 3.0, 2.0, 1.0]], "first": [[4.0, 4.0, 4.0, 4.0]]}
    assert memory.fall("Titans", losses) == (
        "Titans: in the last quarter of the text the inner loss is, relative to the initial memory's, 25% in layer 1."
    )


def test_the_map_has_a_dot_for_every_choice_that_is_printed():
    svg = memory.learners()["figure"]
    for name, point in POINTS.items():
        for words in (name, point.memory, point.loss, point.optimiser, point.gates, cited(point.source)):
            assert f">{words}<" in svg, words
    assert svg.count("<use") >= 5 * len(POINTS)
