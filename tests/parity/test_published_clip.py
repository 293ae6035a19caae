"""Folders of CLIP that transformers writes, read from disk by us: logits, features, gradients, tokens, or one line."""

import json

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import map_arrays
from models.errors import UserError
from models.published import clip_tokenizer, load_model, read_architecture
from tests.parity.causal_lm import edited

EXACT, ROUNDED = 1e-12, 2e-5  # of float64 and float32, relative to the largest number
END = 29
RNG = np.random.default_rng(0)
PIXELS = RNG.standard_normal((3, 3, 12, 12))
TOKENS = RNG.integers(3, END, (3, 7))
TOKENS[0, 6], TOKENS[1, 3:], TOKENS[2, 4] = END, END, END  # whole; ended, then padding; ended, then other tokens
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "attention_dropout": 0.3, "layer_norm_eps": 1e-5}
TEXT = SMALL | {
    "vocab_size": END + 1,
    "hidden_size": 16,
    "intermediate_size": 20,
    "max_position_embeddings": 9,
    "eos_token_id": END,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
IMAGE = SMALL | {"hidden_size": 12, "intermediate_size": 28, "image_size": 12, "patch_size": 4}
OPTIONS = {
    # of both, of the text encoder, of the image encoder
    "as it is": ({}, {}, {}),
    "gelu": ({}, {"hidden_act": "gelu"}, {}),
    "tanh gelu": ({}, {}, {"hidden_act": "gelu_new"}),
    "relu and silu": ({}, {"hidden_act": "silu"}, {"hidden_act": "relu"}),
    "eps of texts": ({}, {"layer_norm_eps": 0.03}, {}),
    "eps of images": ({}, {}, {"layer_norm_eps": 0.03}),
    "another projection": ({"projection_dim": 5}, {"projection_dim": 3}, {}),
    "another scale": ({"logit_scale_init_value": 5.5}, {}, {}),  # above log 100: a forward pass does not limit it
    "other layers": ({}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}),
    "other heads": ({}, {"num_attention_heads": 4}, {"num_attention_heads": 3}),
    "other patches": ({}, {}, {"patch_size": 6}),
    "the largest token": ({}, {"eos_token_id": 2}, {}),
    "another end": ({}, {"eos_token_id": int(TOKENS[0, 2])}, {}),
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def clip(torch, name="as it is", seed=0):
    """Return their model with random weights of distinguishable size."""
    import transformers

    both, text, image = OPTIONS[name]
    torch.manual_seed(seed)
    config = transformers.CLIPConfig(
        **{"projection_dim": 8} | both,
        text_config=TEXT | text,
        vision_config=IMAGE | image,
        attn_implementation="eager",
    )
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tokens_for(name):
    """Return tokens that have the end of this configuration in each row."""
    if name != "another end":
        return TOKENS
    tokens = TOKENS.copy()
    tokens[:, 5] = OPTIONS[name][1]["eos_token_id"]
    return tokens


def in_float64(torch, model, folder):
    """Return ours in float64, with the numbers of theirs in double precision."""
    of = read_architecture(folder / "config.json")
    ours = map_arrays(lambda array: array.astype(np.float64), load_model(folder))
    ours.load_parameters(dict(of.parameters({name: x.detach().numpy() for name, x in model.named_parameters()})))
    return ours


@pytest.fixture
def exact_softmax(torch, monkeypatch):
    """Compute their softmax in double precision, where `eager_attention_forward` rounds to float32."""
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    """Compare logits in float32, as a folder is read."""
    model, tokens = clip(torch, name), tokens_for(name)
    model.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(PIXELS, dtype=torch.float32))
    pixels = PIXELS.astype(np.float32)
    close("logits", ours(pixels, tokens), theirs.logits_per_image.numpy(), ROUNDED)
    close("logits of texts", ours(pixels, tokens).T, theirs.logits_per_text.numpy(), ROUNDED)


@pytest.mark.parametrize("name", OPTIONS)
def test_features_and_gradients_in_float64(name, torch, close, tmp_path, exact_softmax):
    """Compare gradients by every parameter, of the loss that theirs returns."""
    model, tokens = clip(torch, name), tokens_for(name)
    model.save_pretrained(tmp_path)
    model.double()
    ours, of = in_float64(torch, model, tmp_path), read_architecture(tmp_path / "config.json")
    theirs = model(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(PIXELS), return_loss=True)
    theirs.loss.backward()
    for label, features, expected in (
        ("images", ours.encode_image(PIXELS), theirs.vision_model_output.pooler_output),
        ("texts", ours.encode_text(tokens), theirs.text_model_output.pooler_output),
    ):
        close(f"features of {label}", features, expected.detach().numpy(), EXACT)
    loss, tree = mg.value_and_grad(lambda m: m.loss(PIXELS, tokens))(ours)
    assert abs(float(loss) - theirs.loss.item()) < EXACT
    actual = tree.named_parameters()
    expected = dict(of.parameters({name: x.grad.numpy() for name, x in model.named_parameters()}))
    assert actual.keys() == expected.keys()
    for parameter, gradient in actual.items():
        if parameter.endswith("key.bias"):  # it moves all scores of a query alike, which the softmax does not see
            assert max(np.abs(gradient).max(), np.abs(expected[parameter]).max()) < EXACT
        else:
            close(f"gradient of {parameter}", gradient, expected[parameter], 10 * EXACT)


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (8, 20), (12, 16), (12, 12)])
def test_pictures_of_other_sizes(size, torch, close, tmp_path, exact_softmax):
    model = clip(torch)
    model.save_pretrained(tmp_path)
    model.double()
    ours, pixels = in_float64(torch, model, tmp_path), np.random.default_rng(1).standard_normal((2, 3, *size))
    with torch.no_grad():
        theirs = model.get_image_features(torch.tensor(pixels), interpolate_pos_encoding=True).pooler_output
    close("features", ours.encode_image(pixels, interpolate=True), theirs.numpy(), EXACT)


def test_padding_and_its_mask_change_nothing(torch, close, tmp_path):
    model = clip(torch)
    model.save_pretrained(tmp_path)
    padded = np.pad(TOKENS, ((0, 0), (0, 2)), constant_values=END)
    mask = torch.tensor(np.cumsum(padded == END, axis=1) <= 1)
    with torch.no_grad():
        theirs = model.get_text_features(torch.tensor(padded), attention_mask=mask).pooler_output
    close("features", load_model(tmp_path).encode_text(TOKENS), theirs.numpy(), ROUNDED)


def test_files_of_2021(torch, close, tmp_path):
    """Read position_ids, the options of an encoder under another name, and those of all models among them."""
    from safetensors.torch import load_file, save_file

    model = clip(torch, "the largest token")
    model.save_pretrained(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    for side, count in (("text_model", 9), ("vision_model", 10)):
        arrays[f"{side}.embeddings.position_ids"] = torch.arange(count)[None]
    save_file(arrays, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    old = {"add_cross_attention": False, "dropout": 0.0, "length_penalty": 1.0, "pruned_heads": {}, "top_k": 50}
    old |= {"bad_words_ids": None, "num_beams": 1, "tie_word_embeddings": True, "typical_p": 1.0, "is_decoder": False}
    edited(
        tmp_path / "config.json",
        text_config={"hidden_size": 99},
        text_config_dict=config["text_config"] | old,
        vision_config=config["vision_config"] | old,
        vision_config_dict=None,
    )
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(TOKENS), pixel_values=torch.tensor(PIXELS).float()).logits_per_image
    close("logits", load_model(tmp_path)(PIXELS.astype(np.float32), TOKENS), expected.numpy(), ROUNDED)


# The tokenizer


CAPTIONS = [
    "a photo of a cat",
    "A  PHOTO\tof 2 cats' tails, isn't it?!",
    "naïve café — 100 % ½ 图像 \U0001f600",
    "don't we'll they've",
    "x" * 40,
    "e\u0301 cats",
]


@pytest.fixture(scope="module")
def vocabulary():
    """Return a vocabulary and merges as CLIP's are: 256 bytes, 256 that end a word, merges, start and end."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    merges = [("p", "h"), ("o", "t"), ("ph", "ot"), ("phot", "o</w>"), ("c", "a"), ("ca", "t</w>"), ("o", "f</w>")]
    merges += [("x", "x"), ("xx", "xx"), ("'", "t</w>"), ("n", "'")]
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    return {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}, merges


def theirs_and_folder(vocabulary, folder, kind):
    """Return their tokenizer, and write it to a folder as tokenizer.json or as vocab.json and merges.txt."""
    from transformers import CLIPTokenizer

    vocab, merges = vocabulary
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=12)
    if kind == "tokenizer.json":
        tokenizer.save_pretrained(folder)
    else:
        (folder / "vocab.json").write_text(json.dumps(vocab))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return tokenizer, clip_tokenizer.load(folder, len(vocab), 12)


@pytest.mark.parametrize("kind", ["tokenizer.json", "vocab.json and merges.txt"])
def test_tokens(kind, vocabulary, tmp_path):
    tokenizer, ours = theirs_and_folder(vocabulary, tmp_path, kind)
    for caption in CAPTIONS:
        assert ours.tokenizer.encode(caption).ids == tokenizer(caption).input_ids, caption
    expected = tokenizer(CAPTIONS, truncation=True, padding=True, max_length=12).input_ids
    np.testing.assert_array_equal(ours.encode(CAPTIONS, truncate=True), expected)
    assert (ours.encode(CAPTIONS, truncate=True)[:, -1] == ours.end).all()


def test_padding_is_to_the_longest(vocabulary, tmp_path):
    _, ours = theirs_and_folder(vocabulary, tmp_path, "tokenizer.json")
    assert ours.encode(["cat", "a photo of a cat"]).shape == (2, 7)


LINES = [
    ([], r"captions: expected a list of at least one, got \[\]"),
    ("a cat", "captions: expected a list of at least one, got 'a cat'"),
    (["a cat", " \n"], r"caption ' \\n': expected at least one word, got none"),
    ([3], "caption: expected text, got int"),
    (["a cat <|endoftext|> b"], r"caption 'a cat <\|endoftext\|> b': expected characters .* got '<\|endoftext\|>'"),
    (["a cat that is far too long"], "caption 'a cat that is far too long'…: expected at most 12 tokens, the context"),
]


@pytest.mark.parametrize(("captions", "line"), LINES)
def test_captions_that_cannot_be_read(captions, line, vocabulary, tmp_path):
    _, ours = theirs_and_folder(vocabulary, tmp_path, "tokenizer.json")
    with pytest.raises(UserError, match=f"^{line}"):
        ours.encode(captions)


def test_an_unknown_character(vocabulary, tmp_path):
    vocab, merges = vocabulary
    known = {piece: i for i, piece in enumerate(piece for piece in vocab if piece not in ("z", "z</w>"))}
    _, ours = theirs_and_folder((known, merges), tmp_path, "vocab.json and merges.txt")
    with pytest.raises(UserError, match=r"^caption 'a lazy cat': expected characters .* tokens for, got 'z'$"):
        ours.encode(["a cat", "a lazy cat"])


def test_a_token_that_the_model_lacks(vocabulary, tmp_path):
    _, ours = theirs_and_folder(vocabulary, tmp_path, "tokenizer.json")
    ours.vocab = 100
    with pytest.raises(UserError, match=r"caption 'cat': expected tokens below vocab_size 100, got 524 "):
        ours.encode(["cat"])
