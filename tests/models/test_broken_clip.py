"""The chapter on CLIP can fail: copies of its modules with one thing wrong, and each of them is caught."""

import pytest

from proofs.identities import clip as chapter
from tests.copies import copy_of, statement_fails

LOSS, GRADIENT, LINEAR = (
    "the_loss_is_the_paper_s",
    "gradients_are_probabilities_less_pairs",
    "zero_shot_is_a_linear_classifier",
)
SYMMETRIC, ORDER, LENGTHS, ORTHOGONAL, BOUND = (
    "the_loss_is_symmetric",
    "the_order_of_pairs_does_not_matter",
    "lengths_change_nothing",
    "gradients_are_orthogonal_to_features",
    "the_scale_bounds_the_loss",
)
ENDED = "what_follows_the_end_changes_nothing"
ENSEMBLE, AVERAGED = "an_ensemble_is_a_mean_direction", "an_ensemble_averages_logits"
CLASSES = "mg.cross_entropy(logits.mT, pairs)"
BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    ("contrastive", CLASSES, "mg.cross_entropy(logits, pairs)", SYMMETRIC, "images alone"),
    ("contrastive", CLASSES, "mg.cross_entropy(logits, pairs)", GRADIENT, "images alone, by the gradient"),
    ("contrastive", CLASSES, "mg.cross_entropy(logits.mT, pairs[::-1])", ORDER, "texts paired from the end"),
    ("contrastive", "(loss_i + loss_t) / 2", "loss_i + loss_t", LOSS, "a sum, not the mean"),
    ("contrastive", "(loss_i + loss_t) / 2", "loss_i + loss_t", GRADIENT, "a sum, by the gradient"),
    ("contrastive", "exp(t) * ", "exp(-t) * ", LOSS, "a temperature, not a scale"),
    ("contrastive", "exp(t) * ", "exp(t + 1) * ", BOUND, "another scale, by the bound"),
    ("contrastive", "namespace(t).exp(t) * ", "", LINEAR, "no scale"),
    ("contrastive", "(normalize(I_f) @", "(I_f @", LENGTHS, "images not normalised"),
    ("contrastive", "@ normalize(T_f).mT", "@ T_f.mT", ORTHOGONAL, "texts not normalised"),
    (
        "contrastive",
        "normalize(namespace(T_f).mean(normalize(T_f)",
        "(namespace(T_f).mean(normalize(T_f)",
        ENSEMBLE,
        "not again",
    ),
    ("contrastive", "mean(normalize(T_f), axis", "mean(T_f, axis", ENSEMBLE, "not at first"),
    ("contrastive", "mean(normalize(T_f), axis", "mean(T_f, axis", AVERAGED, "not at first, by the logits"),
    (
        "clip",
        "np.argmax(is_end, axis=-1)",
        "tokens.shape[-1] - 1 - np.argmax(is_end[..., ::-1], axis=-1)",
        ENDED,
        "last end",
    ),
    (
        "clip",
        "np.argmax(is_end, axis=-1)",
        "0 * np.argmax(is_end, axis=-1) + tokens.shape[-1] - 1",
        ENDED,
        "last token",
    ),
]


@pytest.fixture
def fails(monkeypatch):
    """Return whether a statement of the chapter fails with a copy, in one number system of NumPy alone."""

    def fails(module, copy, name):
        monkeypatch.setattr(chapter, module, copy)
        return statement_fails(f"clip.{name}")

    return fails


@pytest.mark.parametrize(("module", "text", "instead", "statement", "wrong"), BROKEN, ids=lambda x: x)
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, fails):
    assert fails(module, copy_of(f"vision.{module}", text, instead), statement), wrong


@pytest.mark.parametrize("module", ["contrastive", "clip"])
def test_a_faithful_copy_passes(module, fails):
    for statement in {case[3] for case in BROKEN if case[0] == module}:
        assert not fails(module, copy_of(f"vision.{module}"), statement)
