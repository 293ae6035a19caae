"""ViT and what it is built of: shapes, forms, libraries, precision, and one line for what does not fit."""

import re

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import map_arrays
from models.errors import UserError
from models.vision.convolution import conv2d, conv_transpose2d
from models.vision.encoder import FORMS, Encoder, EncoderConfig
from models.vision.interpolation import resize
from models.vision.patches import PatchEmbedding, cut
from models.vision.vit import ViT, ViTConfig, rollout

RNG = np.random.default_rng(0)
SMALL = EncoderConfig(width=12, layers=2, heads=3, hidden=20)


def make_model(**sizes):
    return ViT(ViTConfig(**{"height": 8, "width": 8, "encoder": SMALL, **sizes}), np.random.default_rng(0))


def test_shapes():
    model, pixels = make_model(height=8, width=12, channels=3, classes=5, pooled=7), RNG.standard_normal((2, 3, 8, 12))
    assert model(pixels).shape == (2, 5)
    assert model(pixels[0]).shape == (5,)  # no batch
    assert model(pixels[:0]).shape == (0, 5)
    assert model.features(pixels).shape == (2, 7, 12)
    assert model.pooled(pixels).shape == (2, 7)
    assert model.attention(pixels).shape == (2, 2, 3, 7, 7)
    assert model.attention_map(pixels).shape == (2, 2, 3)
    assert model(RNG.standard_normal((2, 3, 16, 8))).shape == (2, 5)  # interpolated
    assert model.attention_map(RNG.standard_normal((2, 3, 16, 8))).shape == (2, 4, 2)


def test_pictures_do_not_change_each_other():
    model, pixels = make_model(), RNG.standard_normal((3, 1, 8, 8)).astype(np.float32)
    each = np.stack([model(x) for x in pixels])
    np.testing.assert_allclose(model(pixels), each, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_forms_agree(causal):
    z, visible = RNG.standard_normal((2, 7, 12)), np.array([[True] * 7, [True] * 4 + [False] * 3])
    results = []
    for form in FORMS:
        config = EncoderConfig(width=12, layers=2, heads=3, causal=causal, form=form)
        encoder = map_arrays(lambda x: x.astype(np.float64), Encoder(config, np.random.default_rng(0)))
        y, gradient = mg.value_and_grad(lambda e: mg.sum(e(z, visible)[visible] ** 2))(encoder)  # noqa: B023
        results.append((float(y), gradient.layers[0].attention.query.weight))
    for y, gradient in results[1:]:
        np.testing.assert_allclose(y, results[0][0], rtol=1e-12)
        np.testing.assert_allclose(gradient, results[0][1], rtol=1e-9, atol=1e-12)


def test_a_causal_encoder_cannot_see_ahead():
    encoder = Encoder(EncoderConfig(width=12, layers=2, heads=3, causal=True), np.random.default_rng(0))
    z = RNG.standard_normal((5, 12))
    changed = np.concatenate([z[:3], RNG.standard_normal((2, 12))])
    np.testing.assert_array_equal(encoder(z)[:3], encoder(changed)[:3])
    assert np.all(np.triu(encoder.attention(z), 1) == 0)


def test_attention_and_rollout_are_weighted_means():
    model, pixels = make_model(), RNG.standard_normal((2, 1, 8, 8))
    np.testing.assert_allclose(model.attention(pixels).sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(rollout(model.attention(pixels)).sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(model.attention_map(pixels).sum(axis=(-1, -2)), 1, rtol=1e-6)
    one_layer = model.attention(pixels)[:, :1]
    np.testing.assert_allclose(rollout(one_layer), one_layer[:, 0].mean(axis=1) / 2 + np.eye(5) / 2, rtol=1e-6)


def test_precision_is_that_of_the_parameters_and_pixels():
    model = make_model()
    assert model(RNG.standard_normal((1, 8, 8)).astype(np.float32)).dtype == np.float32
    doubled = map_arrays(lambda x: x.astype(np.float64), model)
    assert doubled(RNG.standard_normal((1, 8, 8))).dtype == np.float64
    assert doubled(RNG.standard_normal((1, 12, 8))).dtype == np.float64


def test_gradients():
    x, w, b = (RNG.standard_normal(shape) for shape in ((2, 5, 6, 2), (3, 2, 3, 2), (3,)))
    mg.check_grads(lambda *args: conv2d(*args, stride=2, padding=1), (x, w, b), order=2)
    mg.check_grads(conv_transpose2d, (x, RNG.standard_normal((2, 3, 2, 2)), b), order=2)
    mg.check_grads(lambda x: resize(x, 7, 3), (x,), order=1)
    mg.check_grads(lambda x: cut(x, 2), (RNG.standard_normal((2, 4, 6)),), order=1)


def test_patches_read_rows_first():
    pixels = np.arange(2 * 4 * 6.0).reshape(2, 4, 6)
    patches = cut(pixels, 2)
    assert patches.shape == (2, 3, 8)
    np.testing.assert_array_equal(patches[1, 2], pixels[:, 2:4, 4:6].ravel())  # channel by channel, row by row


EMBED = PatchEmbedding(3, 4, 8, np.random.default_rng(0))
REFUSED = [
    (lambda: EMBED(np.ones((2, 1, 8, 8))), "PatchEmbedding: pixels has shape (2, 1, 8, 8), expected (*batch, 3, H, W)"),
    (lambda: EMBED(np.ones((8, 8))), "PatchEmbedding: pixels has shape (8, 8), expected (*batch, 3, H, W)"),
    (
        lambda: EMBED(np.ones((3, 8, 10))),
        "patches.cut: pixels has a picture of 8 × 10, expected multiples of the patch's 4 × 4",
    ),
    (lambda: EMBED(np.ones((3, 0, 8))), "patches.embed: pixels has 0 on axis H, expected at least 1 (shape (3, 0, 8)"),
    (
        lambda: conv2d(np.ones((8, 8, 3)), np.ones((2, 4, 3, 3))),
        "convolution.conv2d: w has 4 on axis C, expected 3 as in x",
    ),
    (
        lambda: conv2d(np.ones((2, 8, 3)), np.ones((2, 3, 3, 3))),
        "convolution.conv2d: x has 2 on axis H with its padding, expected at least the kernel's 3",
    ),
    (
        lambda: conv2d(np.ones((8, 8, 3)), np.ones((2, 3, 3, 3)), padding=-1),
        "convolution.conv2d: padding is -1, expected an integer of at least 0",
    ),
    (
        lambda: conv2d(np.ones((8, 8, 3)), np.ones((2, 3, 3, 3)), padding=0.5),
        "convolution.conv2d: padding is 0.5, expected an integer of at least 0",
    ),
    (
        lambda: conv2d(np.ones((8, 8, 3)), np.ones((2, 3, 3, 3)), stride=0),
        "convolution.conv2d: stride is 0, expected an integer of at least 1",
    ),
    (lambda: conv_transpose2d(np.ones((2, 2, 3)), np.ones((3, 2, 2, 3))), "convolution.conv_transpose2d: w has 3 on"),
    (lambda: resize(np.ones((2, 2, 1)), 0, 3), "interpolation.resize: height is 0, expected at least 1"),
    (lambda: make_model(classes=0)(np.ones((1, 8, 8))), "ViT: expected a model with a classification head, got one"),
    (lambda: make_model().pooled(np.ones((1, 8, 8))), "ViT: expected a model with a pooler, got one without"),
    (lambda: ViTConfig(height=30), "height: expected a multiple of the patch's 4, got 30"),
    (lambda: ViTConfig(width=0), "width: expected at least 1, got 0"),
    (lambda: ViTConfig(patch=-1), "patch: expected at least 1, got -1"),
    (lambda: EncoderConfig(heads=3), "heads: expected width 64 to be a multiple of heads, got 3 heads"),
    (lambda: EncoderConfig(layers=0), "layers: expected at least 1, got 0"),
    (lambda: EncoderConfig(activation="geglu"), "activation: expected one of relu, silu, gelu, gelu_tanh, quick_gelu"),
    (lambda: EncoderConfig(form="quick"), "form: expected one of quadratic, lazy, fused, got 'quick'"),
]


@pytest.mark.parametrize("call, message", REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_sizes_of_a_configuration_are_the_user_s():
    with pytest.raises(UserError):
        ViTConfig(height=30)
