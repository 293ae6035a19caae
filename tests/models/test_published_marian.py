"""Published Marian models without transformers: what a folder may say, and the command `translate`."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import UserError
from models.language.decoding import beam_search, greedy
from models.published import load_model, read_architecture
from tests.models.test_cli import cli  # noqa: F401

PAD = 23
SIZES = {
    "model_type": "marian",
    "vocab_size": 24,
    "d_model": 16,
    "max_position_embeddings": 14,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 20,
    "activation_function": "swish",
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
    "eos_token_id": 0,
}
REFUSED = [
    ({"d_model": 15}, "d_model: expected an even number, for sinusoids are pairs, got 15"),
    ({"decoder_attention_heads": 3}, "decoder_attention_heads: expected a divisor of 16 channels, got 3"),
    ({"encoder_layers": 0}, "encoder_layers: expected a whole number of at least 1, got 0"),
    ({"activation_function": "laplace"}, 'activation_function: expected "gelu" or '),
    ({"tie_word_embeddings": False}, "tie_word_embeddings: expected true, since share_encoder_decoder_embeddings is"),
    ({"decoder_vocab_size": 26}, "decoder_vocab_size: expected vocab_size 24, since share_encoder_decoder_embeddings"),
    ({"normalize_before": True}, "normalize_before: expected false, since there is no code for another value, got tr"),
    ({"is_gated": True}, "is_gated: expected no such option, since there is no code for it, got true"),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_a_config_that_cannot_be_read(changes, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SIZES | changes))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/config.json: {message}")):
        load_model(tmp_path)


RULES = [
    ({"decoder_start_token_id": 24}, "decoder_start_token_id: expected one token from 0 to 23, got 24"),
    ({"eos_token_id": None}, "eos_token_id: expected one token from 0 to 23, got none"),
    ({"eos_token_id": [0, 1]}, "eos_token_id: expected one token from 0 to 23, got [0, 1]"),
    ({"forced_eos_token_id": 2}, "forced_eos_token_id: expected null or eos_token_id 0, got 2"),
    ({"bad_words_ids": [[1, 2]]}, "bad_words_ids: expected lists of one token, since there is no code for words of se"),
    ({"bad_words_ids": [[24]]}, "bad_words_ids: expected tokens from 0 to 23, got [[24]]"),
    ({"max_length": 1}, "max_length: expected a whole number of at least 2, got 1"),
    ({"num_beams": 0}, "num_beams: expected a whole number of at least 1, got 0"),
    ({"length_penalty": "x"}, 'length_penalty: expected a number from −100 to 100, got "x"'),
    ({"do_sample": True}, "do_sample: expected false, got true"),
    ({"min_length": 3}, "min_length: expected 0, got 3"),
    (
        {"repetition_penalty": 1.2},
        "repetition_penalty: expected 1.0, since there is no code for another value",
    ),
]


@pytest.mark.parametrize("changes, message", RULES)
@pytest.mark.parametrize("file", ["generation_config", "config"])
def test_rules_that_there_is_no_code_for(file, changes, message, tmp_path):
    config = SIZES
    (tmp_path / "config.json").write_text(json.dumps(config))
    of = read_architecture(tmp_path / "config.json")
    (tmp_path / f"{file}.json").write_text(json.dumps((config if file == "config" else {}) | changes))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/{file}.json: {message}")):
        of.generation(tmp_path)


def test_a_rule_that_nobody_knows(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SIZES))
    (tmp_path / "generation_config.json").write_text(json.dumps({"watermarking_config": {}}))
    with pytest.raises(UserError, match="watermarking_config: expected no such option, since there is no code for it"):
        read_architecture(tmp_path / "config.json").generation(tmp_path)


def written(folder, rules, end_bias=0.0, seed=0):
    """Write a folder of random weights, with a tokenizer of words w1 … w22 that does not add the end."""
    import tokenizers

    (folder / "config.json").write_text(json.dumps(SIZES))
    (folder / "generation_config.json").write_text(json.dumps(rules))
    rng = np.random.default_rng(seed)
    shapes = dict(read_architecture(folder / "config.json").shapes())
    arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["final_logits_bias"][0, 0] = end_bias
    save_file(arrays, folder / "model.safetensors")
    words = {"</s>": 0, **{f"w{i}": i for i in range(1, PAD)}, "<pad>": PAD}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>", "<pad>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def text_of(tokens):
    return " ".join(f"w{token}" for token in tokens if 0 < token < PAD) + "\n"


@pytest.mark.parity  # which installs tokenizers
def test_translate(cli, tmp_path):  # noqa: F811
    """Greedily and by a beam, the one that the folder names unless told otherwise; the source gets its end."""
    rules = {"max_length": 9, "num_beams": 3, "bad_words_ids": [[PAD]], "length_penalty": 10.0}
    written(tmp_path, rules, end_bias=6.0)
    model, source = load_model(tmp_path), np.array([3, 7, 5, 0])
    options = {"pad": PAD, "start": PAD, "end": 0, "tokens": 8, "banned": [PAD]}
    by_beam = text_of(beam_search(model, source, beam=3, penalty=lambda n: n**10, **options)[0])
    by_mean = text_of(beam_search(model, source, beam=3, penalty=lambda n: n, **options)[0])
    one_by_one = text_of(greedy(model, source[None], **options)[0])
    assert by_beam not in (one_by_one, by_mean)
    for beam, expected in ((), by_beam), (("--beam", 1), one_by_one):
        code, out, err = cli("translate", "--checkpoint", tmp_path, "--text", "w3 w7 w5", *beam)
        assert (code, out) == (0, expected)
        assert err in ("", "translate: expected an end within 8 tokens, got none: the text is cut off there\n")


@pytest.mark.parity
def test_what_cannot_be_translated_is_one_line(cli, tmp_path):  # noqa: F811
    written(tmp_path, {"max_length": 9})
    folder = ("--checkpoint", tmp_path)
    long = "w1 " * 14
    for words, message in (
        (("translate", *folder, "--text", long), "--text: expected at most 14 tokens, the positions, got 15"),
        (("translate", *folder, "--text", " "), "--text: expected text that becomes at least one token, got ' '"),
        (("generate", *folder), "expected a language model, got an encoder and decoder: see translate"),
    ):
        code, out, err = cli(*words)
        assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True}))
    _, _, err = cli("translate", *folder, "--text", "w1")
    assert "tokenizer_config.json: separate_vocabs: expected false, since tokenizer.json has one vocabulary" in err
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "tokenizer.json").rename(tmp_path / "source.spm")
    code, _, err = cli("translate", *folder, "--text", "w1")
    assert code == 2 and err.count("\n") == 1
    assert "got only SentencePiece's source.spm, which must be converted first" in err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    code, _, err = cli("translate", *folder, "--text", "w1")
    assert "expected an encoder and decoder, got a language model: see generate" in err
