"""The chapter on vision can fail: copies with one thing wrong, and every one of them is caught.

A copy is the module's own source with one piece of text replaced, put where the chapter looks for the module. The copy
with nothing replaced passes.
"""

import pytest

from proofs.identities import vision as chapter
from proofs.identities import vit as whole
from tests.copies import copy_of, statement_fails

SUM, ADJOINT, STRIDED, KEYS, AXES, TOKENS, MOVED, NORMED, HIDDEN, PATHS, REACH, EVERYWHERE = (
    "a_convolution_is_a_sum_over_taps",
    "transposed_is_the_adjoint",
    "patches_are_a_strided_convolution",
    "interpolation_is_cubic_convolution",
    "maps_are_interpolated_by_axes",
    "the_tokens_are_the_paper_s",
    "patches_move_with_their_positions",
    "layers_are_pre_norm",
    "hidden_tokens_change_nothing",
    "rollout_is_the_sum_over_paths",
    "convolutions_reach_so_far",
    "attention_reaches_everywhere",
)
BROKEN = [
    # module, text, what stands there instead, the statement that fails, what is wrong
    ("convolution", "permute_dims(w, (2, 3, 1, 0))", "permute_dims(w, (2, 3, 1, 0))[::-1]", SUM, "kernel flipped"),
    ("convolution", "((padding, padding),) * 2", "((0, 2 * padding), (padding, padding))", SUM, "padded below only"),
    ("convolution", "for i in range(kH) for j in range(kW)]", "for j in range(kW) for i in range(kH)]", SUM, "taps"),
    ("convolution", "y if b is None else y + b\n\n\n@checked", "y\n\n\n@checked", SUM, "no bias"),
    ("convolution", "j : j + columns : stride", "j : j + columns : 1", SUM, "columns without stride"),
    ("convolution", "xp.moveaxis(y, -3, -4)", "xp.moveaxis(y, -2, -4)", ADJOINT, "offsets exchanged"),
    ("convolution", "permute_dims(w, (0, 2, 3, 1))", "permute_dims(w, (0, 3, 2, 1))", ADJOINT, "kernel transposed"),
    ("convolution", "((padding, padding),) * 2", "((padding + 1, padding + 1),) * 2", REACH, "padded too far"),
    ("patches", "(-4, -2), (-5, -4)", "(-4, -2), (-4, -5)", STRIDED, "columns before rows"),
    ("patches", "if b is None else x + b", "", STRIDED, "no bias"),
    ("patches", "concat([first, xp.reshape(", "concat([0 * first, xp.reshape(", TOKENS, "no class token"),
    ("patches", "return tokens + self.positions_for(rows, columns)", "return tokens", TOKENS, "no positions"),
    ("patches", "self.positions_for(rows, columns)", "self.positions_for(rows, columns)[::-1]", TOKENS, "from the end"),
    ("interpolation", "A = -0.75", "A = -0.5", KEYS, "the kernel of Pillow"),
    ("interpolation", "(np.arange(m) + 0.5) * (n / m) - 0.5", "np.arange(m) * (n / m)", KEYS, "corners of pixels"),
    ("interpolation", "(np.arange(m) + 0.5) * (n / m)", "(np.arange(m) + 0.5) * ((n + 0.1) / m)", KEYS, "DINO's 0.1"),
    ("interpolation", "np.clip(floor + tap, 0, n - 1)", "(floor + tap) % n", KEYS, "ends that wrap around"),
    ("interpolation", "((H, height), (W, width))", "((H, height), (W, height))", AXES, "a square"),
    (
        "encoder",
        "z = z + self.attention(self.attention_norm(z), mask)",
        "z = self.attention_norm(z + self.attention(z, mask))",
        NORMED,
        "post-norm",
    ),
    ("encoder", "self.activation(self.mlp_in(self.mlp_norm(z)))", "self.activation(self.mlp_in(z))", NORMED, "no norm"),
    ("encoder", "return z + self.mlp_out", "return self.mlp_out", NORMED, "no residual"),
    (
        "encoder",
        "causal=self.causal, mask=mask)\n        return self",
        "causal=self.causal)\n        return self",
        HIDDEN,
        "no mask",
    ),
    ("encoder", "None else visible[", "None else ~visible[", HIDDEN, "the mask reversed"),
    (
        "encoder",
        "causal=self.causal, mask=mask)\n        return self",
        "causal=True, mask=mask)\n        return self",
        MOVED,
        "causal",
    ),
    (
        "encoder",
        "causal=self.causal, mask=mask)\n        return self",
        "causal=True, mask=mask)\n        return self",
        EVERYWHERE,
        "causal",
    ),
    ("vit", "mixed[..., layer, :, :] @ through", "through @ mixed[..., layer, :, :]", PATHS, "the last layer first"),
    ("vit", "xp.eye(size, dtype=weights.dtype)) / 2", "0) / 1", PATHS, "no residual"),
    ("vit", "xp.sum(weights, axis=-3) / heads", "xp.sum(weights, axis=-3)", PATHS, "a sum over heads"),
]
HEADS, OUTPUT, COUNT = "the_head_reads_the_class_token", "the_output_is_a_distribution", "parameters_are_counted"
BROKEN_WHOLE = [  # the text of `models.vision.vit`, what stands there instead, the statement that fails, what is wrong
    (
        "return self.head(self.features(pixels)[..., 0, :])",
        "return self.head(self.features(pixels)[..., 1, :])",
        HEADS,
        "a patch",
    ),
    ("self.norm(self.encoder(", "(self.encoder(", HEADS, "no norm"),
    ("return mg.tanh(self.pooler(", "return mg.sigmoid(self.pooler(", HEADS, "a sigmoid"),
    ("[..., 0, :])\n\n    def features", "[..., :1, :])\n\n    def features", HEADS, "an axis more"),
    ("self.head(self.features(pixels)[..., 0, :])", "self.features(pixels)[..., 0, :]", OUTPUT, "features, no classes"),
    ("Linear(width, config.classes, rng=rng)", "Linear(width, config.classes, bias=False, rng=rng)", COUNT, "no bias"),
]


@pytest.fixture
def fails(monkeypatch):
    """Return whether a statement of the chapter fails with a copy, in one number system of NumPy alone."""

    def fails(module, copy, name):
        monkeypatch.setattr(chapter, module, copy)
        if module == "encoder":
            monkeypatch.setattr(chapter.vit, "Encoder", copy.Encoder)
        if module == "patches":
            monkeypatch.setattr(chapter.vit, "PatchTokens", copy.PatchTokens)
            monkeypatch.setattr(chapter.vit, "PatchEmbedding", copy.PatchEmbedding)
        return statement_fails(f"vision.{name}")

    return fails


@pytest.mark.parametrize(
    ("module", "text", "instead", "statement", "wrong"), BROKEN, ids=[f"{case[3]}-{case[4]}" for case in BROKEN]
)
def test_a_broken_copy_is_caught(module, text, instead, statement, wrong, fails):
    assert fails(module, copy_of(f"vision.{module}", text, instead), statement), wrong


@pytest.mark.parametrize("module", ["convolution", "patches", "interpolation", "encoder", "vit"])
def test_a_faithful_copy_passes(module, fails):
    for statement in sorted({case[3] for case in BROKEN if case[0] == module}):
        assert not fails(module, copy_of(f"vision.{module}"), statement)


@pytest.mark.parametrize(
    ("text", "instead", "statement", "wrong"), BROKEN_WHOLE, ids=[f"{case[2]}-{case[3]}" for case in BROKEN_WHOLE]
)
def test_a_broken_copy_of_the_whole_model_is_caught(text, instead, statement, wrong, monkeypatch):
    for copy, expected in ((copy_of("vision.vit"), False), (copy_of("vision.vit", text, instead), True)):
        monkeypatch.setattr(whole, "vit", copy)
        monkeypatch.setattr(chapter, "vit", copy)  # where the small model is made
        assert statement_fails(f"vit.{statement}") == expected, wrong
