"""The chapters on positions, heads and latents can fail: copies with one thing wrong, and every one of them is caught.

A copy is the module's own source with one piece of text replaced, put where the chapter looks for the module. The copy
with nothing replaced passes.
"""

import pytest

from tests.copies import copy_of, first_failure

BROKEN = [
    # module, text, what stands there instead, what is wrong
    ("positions", "BASE = 10_000.0", "BASE = 1_000.0", "another base"),
    (
        "positions",
        "base ** (-np.arange(width // 2) / (width // 2))",
        "base ** (-np.arange(width // 2) / width)",
        "RoPE's exponent halved",
    ),
    ("positions", "-np.arange(width // 2) /", "-np.arange(1, width // 2 + 1) /", "RoPE's exponent from 1"),
    ("positions", "x, np.sin(angles), x.dtype", "x, -np.sin(angles), x.dtype", "rotated backwards"),
    ("positions", "concat([sin, cos], axis=-1)", "concat([cos, sin], axis=-1)", "sines in the odd channels"),
    ("positions", "(x.shape[-1] // 2, 2))", "(2, x.shape[-1] // 2))", "halves taken for pairs"),
    ("positions", 'layout: str = "interleaved"', 'layout: str = "halves"', "sinusoids in Marian's layout"),
    ("positions", "/ (2 * math.pi)", "", "radians for turns"),
    (
        "positions",
        "(1 - smooth) * frequencies / factor + smooth",
        "smooth * frequencies / factor + (1 - smooth)",
        "short waves scaled",
    ),
    ("positions", "/ (high - low), 0, 1)", "/ (high - low), 0, 2)", "beyond the unscaled frequency"),
    ("positions", "for turns in (fast, slow)", "for turns in (slow, fast)", "YaRN's ends of the ramp exchanged"),
    ("positions", "np.floor(first), np.ceil(last)", "np.ceil(first), np.floor(last)", "the ends rounded inwards"),
    ("positions", "max(first, 0)", "max(first, 1)", "a ramp from pair 1"),
    ("positions", "min(last, width - 1)", "min(last, width)", "a ramp to the width"),
    (
        "positions",
        "2.0 ** (-8 * np.arange(1, power + 1) / power)",
        "2.0 ** (-4 * np.arange(1, power + 1) / power)",
        "ALiBi's slopes, their roots",
    ),
    ("positions", "np.arange(1, power + 1) / power", "np.arange(power) / power", "ALiBi's slopes from 1"),
    ("positions", "np.arange(1, 2 * power, 2)", "np.arange(2, 2 * power + 1, 2)", "slopes of further heads repeated"),
    ("positions", "-alibi_slopes(q", "alibi_slopes(q", "what is far preferred"),
    (
        "positions",
        "abs(np.asarray(positions)[:, None] - np.asarray(key_positions))",
        "np.asarray(positions)[:, None] + 0 * np.asarray(key_positions)",
        "a bias of the query alone",
    ),
    (
        "positions",
        "abs(np.asarray(positions)[:, None] - np.asarray(key_positions))",
        "abs(np.arange(len(positions))[:, None] - np.asarray(key_positions))",
        "queries counted from 0",
    ),
    (
        "positions",
        "np.asarray(key_positions) - np.asarray(positions)[:, None]",
        "np.asarray(positions)[:, None] - np.asarray(key_positions)",
        "query − key",
    ),
    ("positions", "np.maximum(-relative, 0)", "np.maximum(relative, 0)", "buckets for the future"),
    ("positions", "exact = n // 2", "exact = n // 4", "fewer distances with a bucket of their own"),
    ("positions", "n * (relative > 0)", "n * (relative >= 0)", "distance 0 among the keys after"),
    ("positions", "n * (relative > 0)", "n * (relative < 0)", "sides exchanged"),
    ("positions", "math.log(max_distance / exact)", "math.log(max_distance)", "logarithm of the distance alone"),
    ("positions", "np.floor(octaves", "np.ceil(octaves", "rounded up"),
    ("positions", "np.minimum(shared, n - 1)", "np.minimum(shared, n - 2)", "the last bucket never used"),
    (
        "positions",
        "max_distance: int = 128) -> np.ndarray",
        "max_distance: int = 256) -> np.ndarray",
        "twice the distance",
    ),
    ("positions", "buckets)], -1, 0)", "buckets)] * 2, -1, 0)", "a bias scaled"),
    (
        "positions",
        "return table[_in_library_of(table, positions)]",
        "return table[_in_library_of(table, positions - 1)]",
        "the row before",
    ),
    (
        "multihead",
        "(*x.shape[:-1], heads, width // heads)), -3, -2)",
        "(*x.shape[:-1], width // heads, heads)), -1, -3)",
        "heads interleaved",
    ),
    ("multihead", "    y = xp.moveaxis(y, -3, -2)\n", "    y = xp.moveaxis(y, -3, -1)\n", "joined by channel"),
    (
        "multihead",
        "_split_groups(q, groups), _share",
        "_split_groups(q[..., ::-1, :, :], groups), _share",
        "groups in reverse",
    ),
    ("multihead", "= tuple(_share(x, heads // groups) for x in state)", "= None", "the state ignored"),
    ("multihead", "xp.concat([state[0], k], axis=-2)", "k", "keys of the state forgotten"),
    ("softmax", "q.shape[-1] ** -0.5 if scale is None", "1.0 if scale is None", "no scale"),
    ("softmax", "k=key_count - size) if causal", "k=key_count - size - 1) if causal", "no present"),
    ("softmax", "visible = mask if visible is None else visible & mask", "visible = visible", "no mask"),
    ("softmax", "scores if bias is None else scores + bias", "scores if bias is None else scores * bias", "a factor"),
    ("softmax", "axis=-1, where=visible) @ v", "axis=-2, where=visible) @ v", "weights that sum to one for a key"),
    (
        "latent",
        "[k_C, xp.broadcast_to(k_R, (*k_C.shape[:-1], k_R.shape[-1]))]",
        "[k_C, k_C[..., :1]]",
        "nothing shared",
    ),
    (
        "latent",
        "[..., None, :, :R], latents[..., None, :, R:]",
        "[..., None, :, 1:], latents[..., None, :, :1]",
        "k_R first",
    ),
    ("latent", "c @ W_UV.mT", "c @ (2 * W_UV).mT", "values scaled"),
    ("latent", "k_C = c @ W_UK.mT", "k_C = c @ W_UK[:1].mT + 0 * (c @ W_UK.mT)", "the keys of the first head for all"),
    ("latent", "q[..., :K] @ W_UK, q[..., K:]", "q[..., :K] @ W_UK, 0 * q[..., K:]", "no query for what is shared"),
    ("latent", "scale=q.shape[-1] ** -0.5", "scale=K**-0.5", "the scale of the keys without what is shared"),
    ("latent", "scale=q.shape[-1] ** -0.5, ", "", "the scale of a latent"),
    ("latent", "return x, x[..., :R]", "return x, x[..., -R:]", "k_R read as a value"),
    ("latent", "return o @ W_UV.mT", "return o @ W_UV[::-1].mT", "outputs of another head"),
    ("latent", "None if state is None else keys_and_values(state, W_UK, W_UV)", "None", "the state ignored"),
    ("latent", "None if state is None else shared(state)", "None", "the state ignored where it is absorbed"),
    ("latent", "concat([state, latents], axis=-2)", "concat([latents, state], axis=-2)", "the state after the tokens"),
]
CHAPTERS = {"positions": "positions", "multihead": "multihead", "softmax": "multihead", "latent": "latent_attention"}


def failure(name, module, monkeypatch):
    """Return the first statement of the chapter that fails on the copy, each in one number system of NumPy alone."""
    monkeypatch.setattr(f"proofs.identities.{CHAPTERS[name]}.{name}", module)
    return first_failure(CHAPTERS[name])


@pytest.mark.parametrize(("name", "text", "instead", "wrong"), BROKEN, ids=lambda x: x.replace("\n", " "))
def test_a_broken_copy_is_caught(name, text, instead, wrong, monkeypatch):
    assert failure(name, copy_of(f"attention.{name}", text, instead), monkeypatch), wrong


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_faithful_copy_passes(name, monkeypatch):
    assert failure(name, copy_of(f"attention.{name}"), monkeypatch) is None
