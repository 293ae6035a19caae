"""Folders of Marian that transformers writes, read from disk by us: logits, gradients, decoding, or one line."""

import json
import re

import numpy as np
import pytest

import minigrad as mg
from models.errors import UserError
from models.language.decoding import beam_search, greedy, log_probabilities
from models.objectives import mean_loss
from models.published import load_model, read_architecture
from tests.parity.causal_lm import edited

TOLERANCE = 2e-5  # of float32, relative to the largest number
PAD, END = 23, 0
RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.integers(1, 20, (3, 7)), RNG.integers(1, 20, (3, 6))
SOURCE[1, 5:], SOURCE[2, 2:] = PAD, PAD
SIZES = {
    "vocab_size": 24,
    "d_model": 16,
    "max_position_embeddings": 14,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 20,
    "activation_function": "swish",
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
}
APART = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 26}
OPTIONS = {
    "as it is": {},
    "scaled": {"scale_embedding": True},
    "relu": {"activation_function": "relu"},
    "gelu": {"activation_function": "gelu"},
    "silu": {"activation_function": "silu"},
    "tanh gelu": {"activation_function": "gelu_new"},
    "other layers": {"encoder_layers": 3, "decoder_layers": 1},
    "other heads": {"encoder_attention_heads": 1, "decoder_attention_heads": 2},
    "other hidden sizes": {"encoder_ffn_dim": 8, "decoder_ffn_dim": 12},
    "an embedding each": {"share_encoder_decoder_embeddings": False},
    "a vocabulary each": APART,
    "and a head": APART | {"tie_word_embeddings": False, "scale_embedding": True},
    "another start": {"decoder_start_token_id": 5},
    "dropout": {"dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def marian(torch, seed=0, generation=None, **options):
    """Return their model with random weights of distinguishable size, and rules of generation."""
    import transformers

    torch.manual_seed(seed)
    model = transformers.MarianMTModel(transformers.MarianConfig(**SIZES | options)).eval()
    with torch.no_grad():
        for name, array in [*model.named_parameters(), ("", model.final_logits_bias)]:
            if "embed_positions" not in name:
                array.add_(0.3 * torch.randn_like(array))
    for name, value in (generation or {}).items():
        setattr(model.generation_config, name, value)
    return model


def reread(torch, folder):
    import transformers

    return transformers.MarianMTModel.from_pretrained(folder, dtype=torch.float32).eval()


def same_logits(torch, close, model, folder):
    """Compare logits of one pass, and of the same target two tokens at first and then one by one."""
    source, target = torch.tensor(SOURCE), torch.tensor(TARGET)
    with torch.no_grad():
        expected = model(source, attention_mask=source != PAD, decoder_input_ids=target).logits.numpy()
    ours = load_model(folder)
    close("logits", ours(SOURCE, TARGET, pad=PAD), expected, TOLERANCE)
    state, parts = ours.encode(SOURCE, pad=PAD), []
    for now in (TARGET[:, :2], *(TARGET[:, t : t + 1] for t in range(2, TARGET.shape[1]))):
        logits, state = ours.decode(now, state)
        parts.append(logits)
    close("logits by the state", np.concatenate(parts, axis=1), expected, TOLERANCE)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    model = marian(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_logits(torch, close, model, tmp_path)


@pytest.mark.parametrize("name", ["scaled", "and a head"])
def test_gradients(name, torch, close, tmp_path):
    """Compare gradients by every parameter; theirs holds a row of the embedding and the bias fixed, which is undone."""
    model = marian(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    model.final_logits_bias.requires_grad_()
    for module in model.modules():
        if hasattr(module, "padding_idx"):
            module.padding_idx = None
    source, target = torch.tensor(SOURCE), torch.tensor(TARGET)
    logits = model(source, attention_mask=source != PAD, decoder_input_ids=target[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
    loss.backward()
    of = read_architecture(tmp_path / "config.json")
    named = {**dict(model.named_parameters()), "final_logits_bias": model.final_logits_bias}
    gradients = {of.name(name): array.grad.numpy() for name, array in named.items() if array.requires_grad}
    expected = dict(of.parameters(gradients))
    ours, tree = mg.value_and_grad(lambda m: mean_loss(m(SOURCE, TARGET[:, :-1], pad=PAD), TARGET[:, 1:]))(
        load_model(tmp_path)
    )
    assert abs(float(ours) - loss.item()) < TOLERANCE
    actual = tree.named_parameters()
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        if name.endswith("key.bias"):  # it moves all scores of a query alike, which the softmax does not see
            assert max(np.abs(gradient).max(), np.abs(expected[name]).max()) < 1e-6
        else:
            close(f"gradient of {name}", gradient, expected[name], 10 * TOLERANCE)


def decoded(folder, source, beam=1):
    """Return ours, as `translate` decodes: tokens up to the end, and the rules."""
    of = read_architecture(folder / "config.json")
    rules, model = of.generation(folder), load_model(folder)
    options = {name: getattr(rules, name) for name in ("pad", "start", "end", "tokens", "banned", "must_end")}
    if beam == 1:
        return greedy(model, source, **options).tolist()
    return [beam_search(model, row[row != PAD], beam=beam, penalty=rules.penalty, **options)[0] for row in source]


def generated(torch, model, beam):
    with torch.no_grad():
        source = torch.tensor(SOURCE)
        full = model.generate(source, attention_mask=source != PAD, num_beams=beam).numpy()
    return full[:, 1:].tolist()


GENERATION = {
    "as published": {"max_length": 12, "bad_words_ids": [[PAD]], "forced_eos_token_id": END},
    "nothing banned": {"max_length": 12, "bad_words_ids": None, "forced_eos_token_id": None},
    "much banned": {"max_length": 12, "bad_words_ids": [[w] for w in (*range(3, PAD), END)]},
    "renormalised": {"max_length": 12, "bad_words_ids": [[PAD]], "renormalize_logits": True},
    "new tokens": {"max_new_tokens": 4, "forced_eos_token_id": END},
    "by default": {},
}


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
@pytest.mark.parametrize("rules", GENERATION)
@pytest.mark.parametrize("options, positions", [("scaled", 20), ("another start", 30), ("and a head", 21)])
def test_greedy_tokens(rules, options, positions, torch, tmp_path):
    model = marian(torch, 1, GENERATION[rules], max_position_embeddings=positions, **OPTIONS[options])
    model.save_pretrained(tmp_path)
    assert decoded(tmp_path, SOURCE) == generated(torch, model, 1)


@pytest.mark.parametrize("forced", [END, None, ...])
def test_rules_in_the_config(forced, torch, tmp_path):
    """Decode without generation_config.json, as in folders of 2020."""
    model = marian(torch, 1)
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    edited(tmp_path / "config.json", max_length=9, bad_words_ids=[[PAD], [1]], num_beams=3, forced_eos_token_id=forced)
    rules = read_architecture(tmp_path / "config.json").generation(tmp_path)
    assert (rules.tokens, rules.banned, rules.beam, rules.must_end) == (8, (PAD, 1), 3, forced == END)
    model = reread(torch, tmp_path)
    assert decoded(tmp_path, SOURCE) == generated(torch, model, 1)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_beam_search(exponent, torch, tmp_path):
    """Under their score, Σ log p / |Y|^exponent, our texts are theirs or better ones."""
    rules = GENERATION["as published"] | {"max_length": 8, "length_penalty": exponent, "num_beams": 4}
    model = marian(torch, 1, rules | {"renormalize_logits": True})
    model.save_pretrained(tmp_path)
    ours, same = load_model(tmp_path), 0
    for source, text, other in zip(SOURCE, decoded(tmp_path, SOURCE, 4), generated(torch, model, 4), strict=True):
        other = [*other[: other.index(END)], END]
        scores = [score(ours, source, tokens, exponent) for tokens in (text, other)]
        assert scores[0] >= scores[1] - 1e-5
        same += text == other
    assert same


def score(model, source, text, exponent):
    """Return the score of a text whose last token is forced where it is the seventh."""
    logits = model(source, np.array([PAD, *text[:-1]]), pad=PAD)
    logits[:, PAD] = -np.inf
    each = log_probabilities(logits)[np.arange(len(text)), text]
    return each[:6].sum() / len(text) ** exponent


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", ["5GB", "10KB"])
def test_widths_and_shards(dtype, size, torch, close, tmp_path):
    marian(torch).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "10KB")
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


def with_all_names(torch, model, folder):
    """Write a file with every name of the embedding, and the tables of positions, as old files; return its arrays."""
    arrays = {name: array.clone() for name, array in model.state_dict().items()}
    assert "model.encoder.embed_positions.weight" in arrays and "lm_head.weight" in arrays
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(arrays, folder / "pytorch_model.bin")
    return arrays


def test_the_layout_of_old_files(torch, close, tmp_path):
    model = marian(torch)
    with_all_names(torch, model, tmp_path)
    same_logits(torch, close, model, tmp_path)


def test_an_embedding_by_one_of_its_other_names(torch, close, tmp_path):
    model = marian(torch)
    arrays = with_all_names(torch, model, tmp_path)
    for name in ("model.shared.weight", "model.encoder.embed_tokens.weight", "lm_head.weight"):
        del arrays[name]
    torch.save(arrays, tmp_path / "pytorch_model.bin")
    same_logits(torch, close, model, tmp_path)


def test_arrays_that_should_be_copies_or_constants(torch, tmp_path, capsys):
    arrays = with_all_names(torch, marian(torch), tmp_path)
    file = tmp_path / "pytorch_model.bin"
    for name, message in (
        ("model.encoder.embed_tokens.weight", "encoder.embed_tokens.weight: expected the numbers of shared.weight"),
        ("model.decoder.embed_positions.weight", "model.decoder.embed_positions.weight: expected 0.841471 at (1, 0)"),
    ):
        changed = arrays[name].clone()
        changed[1, 0] += 0.5
        torch.save(arrays | {name: changed}, file)
        with pytest.raises(UserError, match=re.escape(message)):
            load_model(tmp_path)
    torch.save(arrays | {"lm_head.weight": 2 * arrays["lm_head.weight"]}, file)
    model = load_model(tmp_path)
    assert "the config ties it to the embedding, the file holds another: the file's is used" in capsys.readouterr().err
    np.testing.assert_array_equal(model.head.weight, 2 * model.embedding.weight)


PUBLISHED = {
    "_num_labels": 3,
    "activation_dropout": 0.0,
    "activation_function": "swish",
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "architectures": ["MarianMTModel"],
    "attention_dropout": 0.0,
    "bad_words_ids": [[58100]],
    "bos_token_id": 0,
    "classif_dropout": 0.0,
    "classifier_dropout": 0.0,
    "d_model": 512,
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 2048,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 6,
    "decoder_start_token_id": 58100,
    "decoder_vocab_size": 58101,
    "dropout": 0.1,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 6,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_length": 512,
    "max_position_embeddings": 512,
    "model_type": "marian",
    "normalize_before": False,
    "normalize_embedding": False,
    "num_beams": 4,
    "num_hidden_layers": 6,
    "pad_token_id": 58100,
    "scale_embedding": True,
    "share_encoder_decoder_embeddings": True,
    "static_position_embeddings": True,
    "use_cache": True,
    "vocab_size": 58101,
}


def test_a_published_config(tmp_path):
    """Read the layout of OPUS-MT's, with the number of parameters that the class of transformers has."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    of = read_architecture(tmp_path / "config.json")
    with torch.device("meta"):
        theirs = transformers.MarianMTModel(transformers.MarianConfig(**PUBLISHED))
    count = sum(p.numel() for name, p in theirs.named_parameters() if "embed_positions" not in name)
    assert sum(int(np.prod(shape)) for _, shape in of.shapes()) == count + 58101  # their bias is a buffer
    rules = of.generation(tmp_path)
    assert (rules.tokens, rules.beam, rules.banned, rules.length_penalty) == (511, 4, (58100,), 1.0)


DISAGREEMENTS = [
    ({"d_model": 20}, "shared.weight: expected shape (24, 20), got (24, 16)"),
    ({"vocab_size": 26}, "shared.weight: expected shape (26, 16), got (24, 16)"),
    ({"decoder_layers": 3}, "decoder.layers.2.fc1.weight: expected an array of shape (20, 16), got none"),
    ({"encoder_layers": 10**12}, "encoder.layers.2.fc1.weight: expected an array of shape (20, 16), got none"),
    ({"encoder_layers": 1}, "encoder.layers.1.fc1.bias: expected no such array, got one of shape (20,)"),
    ({"encoder_ffn_dim": 8}, "encoder.layers.0.fc1.weight: expected shape (8, 16), got (20, 16)"),
    ({"share_encoder_decoder_embeddings": False}, "decoder.embed_tokens.weight: expected an array of shape (24, 16)"),
]


@pytest.mark.parametrize("changes, message", DISAGREEMENTS)
def test_a_config_that_does_not_fit_the_weights(changes, message, torch, tmp_path):
    marian(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **{"decoder_vocab_size": ...} | changes)
    with pytest.raises(UserError, match=re.escape(f"checkpoint {tmp_path}/model.safetensors: {message}")):
        load_model(tmp_path)


def test_a_text_longer_than_the_positions(torch, tmp_path):
    marian(torch).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="^source: expected at most 14 tokens, the positions, got 15$"):
        load_model(tmp_path).encode(np.ones((1, 15), int), pad=PAD)
