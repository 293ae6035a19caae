"""Folders that transformers writes with unusual options, read from disk by us: its logits, its text, or one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.errors import UserError
from models.language.lm import generate
from models.published import Detokenizer, encode_prompt, end_tokens, load_model, load_tokenizer
from models.tasks.text import printable
from tests.parity.causal_lm import TOKENS, edited, logits_of, reread

SIZES = {"hidden_size": 16, "state_size": 4, "vocab_size": 24, "num_hidden_layers": 2}
HEADS = {"num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 4}
KINDS = ("Mamba", "Mamba2", "FalconMamba")

EVERY_KIND = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "biases": {"use_bias": True},
    "no convolution bias": {"use_conv_bias": False},
    "other biases": {"use_bias": True, "use_conv_bias": False},
    "one state": {"state_size": 1},
    "wide filter": {"conv_kernel": 7},
    "filter of one": {"conv_kernel": 1},
    "filter of two": {"conv_kernel": 2},
    "large epsilon": {"layer_norm_epsilon": 0.3},
    "no epsilon": {"layer_norm_epsilon": 0.0},
    "residuals as they come": {"residual_in_fp32": False},
    "rescaled": {"rescale_prenorm_residual": True},
    "swish": {"hidden_act": "swish"},
    "no cache": {"use_cache": False},
    "one layer": {"num_hidden_layers": 1},
    "no layer": {"num_hidden_layers": 0},
    "one word": {"vocab_size": 1},
    "steps from elsewhere": {"time_step_min": 0.1, "time_step_max": 3.0, "time_step_floor": 0.2},
    "no end": {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None},
    "two ends": {"eos_token_id": [3, 5]},
}
MAMBA = {
    "expanded by one": {"expand": 1},
    "expanded by three": {"expand": 3},
    "rank of one": {"time_step_rank": 1},
    "rank of seven": {"time_step_rank": 7},
    "rank by width": {"time_step_rank": "auto", "hidden_size": 40},
    "constant steps": {"time_step_init_scheme": "constant", "time_step_scale": 3.0},
    "other scans": {"use_mambapy": False, "use_associative_scan": False},
    "limits that Mamba has not": {"time_step_limit": [0.01, 0.02]},
}
OPTIONS = {
    "Mamba": EVERY_KIND | MAMBA,
    "FalconMamba": EVERY_KIND
    | MAMBA
    | {"mixer epsilon": {"mixer_rms_eps": 0.5}, "no mixer epsilon": {"mixer_rms_eps": 0.0}},
    "Mamba2": EVERY_KIND
    | {
        "expanded by one": {"expand": 1, "num_heads": 2},
        "expanded by three": {"expand": 3, "num_heads": 6},
        "one group": {"n_groups": 1},
        "a group a head": {"n_groups": 4},
        "one head": {"num_heads": 1, "head_dim": 32, "n_groups": 1},
        "heads of one channel": {"num_heads": 32, "head_dim": 1},
        "limits": {"time_step_limit": [0.3, 0.6]},
        "limits below zero": {"time_step_limit": (-1.0, 0.1)},
        "no room between limits": {"time_step_limit": [0.5, 0.5]},
        "chunks of one": {"chunk_size": 1},
        "chunks longer than the text": {"chunk_size": 256},
        "what it ignores": {"norm_before_gate": True, "rms_norm": False, "intermediate_size": 5},
    },
}
CASES = [(kind, name) for kind in KINDS for name in OPTIONS[kind]]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def theirs(torch, kind, **options):
    """Return their model with random weights of distinguishable size."""
    import transformers

    heads = HEADS if kind == "Mamba2" else {}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES | heads | options)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind, name", CASES)
def test_options(kind, name, torch, close, tmp_path):
    """Compared with the model that wrote the folder: where `rescale_prenorm_residual` is set, transformers 5.23 divides
    the weights that it reads once more, and does not agree with itself.
    """
    options = OPTIONS[kind][name]
    model, tokens = theirs(torch, kind, **options), TOKENS % options.get("vocab_size", 24)
    model.save_pretrained(tmp_path)
    close(name, load_model(tmp_path)(tokens)[0], logits_of(torch, model, tokens), 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("size", ["5GB", "6KB"])
def test_widths_and_shards(kind, dtype, size, torch, close, tmp_path):
    """Compare models loaded in float32 from files of two or eight bytes a number, whole or in shards."""
    theirs(torch, kind).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "6KB")
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, reread(torch, tmp_path), TOKENS), 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("silent", [True, False])
def test_a_head_that_the_config_does_not_speak_of(kind, silent, torch, close, tmp_path, capsys):
    theirs(torch, kind, tie_word_embeddings=False).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", tie_word_embeddings=... if silent else True)
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, reread(torch, tmp_path), TOKENS), 2e-5)
    message = capsys.readouterr().err
    assert message.count("\n") == (0 if silent and kind == "Mamba2" else 1)  # Mamba-2 is untied where nothing is said
    assert not message or message.endswith(
        "lm_head.weight: the config ties it to the embedding, the file holds another: the file's is used\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_config_leaves_out(kind, torch, close, tmp_path):
    """A model of the classes' own choices, but for a few sizes, from a config that names nothing else."""
    arguments = {name: SIZES[name] for name in ("hidden_size", "num_hidden_layers", "vocab_size")}
    arguments |= {"num_heads": 4, "head_dim": 8, "n_groups": 2} if kind == "Mamba2" else {}
    theirs(torch, kind, state_size=128 if kind == "Mamba2" else 16, **arguments).save_pretrained(tmp_path)
    full = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(arguments | {"model_type": full["model_type"]}))
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, reread(torch, tmp_path), TOKENS), 2e-5)


REFUSED = [
    ("Mamba", {"hidden_act": "gelu"}, 'hidden_act: expected "silu" or "swish", got "gelu"'),
    ("Mamba2", {"hidden_act": "relu"}, 'hidden_act: expected "silu" or "swish", got "relu"'),
    ("FalconMamba", {"hidden_act": "tanh"}, 'hidden_act: expected "silu" or "swish", got "tanh"'),
    ("Mamba", {"sliding_window": 4}, "sliding_window: expected no such option, since there is no code for it, got 4"),
]


@pytest.mark.parametrize("kind, options, message", REFUSED)
def test_options_that_there_is_no_code_for(kind, options, message, torch, tmp_path):
    theirs(torch, kind, **options).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/config.json: {message}")):
        load_model(tmp_path)


BROKEN = [
    (kind, name, value)
    for kind, more in (("Mamba", ["time_step_rank"]), ("Mamba2", ["n_groups", "num_heads"]), ("FalconMamba", []))
    for name in ["hidden_size", "state_size", "vocab_size", "conv_kernel", "expand", *more]
    for value in (0, -3, None, "5", 2.5, 10**12)
]


def they_run(torch, folder):
    try:
        logits_of(torch, reread(torch, folder), TOKENS)
    except Exception:  # whatever it is
        return False
    return True


@pytest.mark.parametrize("kind, name, value", BROKEN)
def test_a_value_that_they_refuse_is_refused_in_one_line(kind, name, value, torch, tmp_path):
    theirs(torch, kind).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **{name: value, "intermediate_size": ...})
    with pytest.raises(UserError) as excinfo:
        load_model(tmp_path)
    assert str(tmp_path) in str(excinfo.value) and "\n" not in str(excinfo.value)
    assert not they_run(torch, tmp_path)


def test_integers_are_no_weights(torch, tmp_path):
    from safetensors.torch import load_file, save_file

    theirs(torch, "Mamba").save_pretrained(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    for dtype, output in ((torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")):
        name = "backbone.layers.0.mixer.D"
        save_file(arrays | {name: arrays[name].to(dtype)}, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match=f"{name}: expected one of F16, BF16, F32, F64, got {output}"):
            load_model(tmp_path)


# mamba_ssm's own layout, from the same weights; its code needs a GPU to be imported


def native(torch, model, folder, *, ssm_cfg, container="bin", **more):
    """Write a folder as mamba_ssm does, of a model of transformers'."""
    from safetensors.torch import save_file

    arrays = {name.replace("embeddings", "embedding"): array for name, array in model.state_dict().items()}
    config = {
        "d_model": 16,
        "n_layer": 2,
        "vocab_size": 21,
        "ssm_cfg": ssm_cfg,
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
    }
    (folder / "config.json").write_text(json.dumps(config | more))
    if container == "bin":
        torch.save(arrays, folder / "pytorch_model.bin")
    elif container == "old bin":
        torch.save(arrays, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        save_file({name: array.clone() for name, array in arrays.items()}, folder / "model.safetensors")


SSM = {
    "Mamba": {"d_state": 4},
    "Mamba2": {"layer": "Mamba2", "d_state": 4, "headdim": 8, "ngroups": 2, "chunk_size": 4, "use_mem_eff_path": True},
}


@pytest.mark.parametrize("kind", SSM)
@pytest.mark.parametrize("container", ["bin", "old bin", "safetensors"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_authors_own_layout(kind, container, tied, torch, close, tmp_path):
    model = theirs(torch, kind, tie_word_embeddings=tied)
    native(torch, model, tmp_path, ssm_cfg=SSM[kind], container=container, tie_embeddings=tied)
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, model, TOKENS), 2e-5)


@pytest.mark.parametrize(
    "kind, options, ssm",
    [
        (
            "Mamba",
            {"expand": 3, "use_bias": True, "use_conv_bias": False, "time_step_rank": 5, "conv_kernel": 3},
            {"d_state": 4, "expand": 3, "bias": True, "conv_bias": False, "dt_rank": 5, "d_conv": 3, "dt_min": 0.1},
        ),
        (
            "Mamba2",
            {"expand": 1, "num_heads": 2, "n_groups": 1, "time_step_limit": [0.3, 0.6], "use_bias": True},
            {"layer": "Mamba2", "d_state": 4, "expand": 1, "headdim": 8, "dt_limit": [0.3, 0.6], "bias": True},
        ),
    ],
)
def test_the_authors_options(kind, options, ssm, torch, close, tmp_path):
    model = theirs(torch, kind, tie_word_embeddings=True, **options)
    native(torch, model, tmp_path, ssm_cfg=ssm)
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, model, TOKENS), 2e-5)


@pytest.mark.parametrize("kind", SSM)
def test_layer_norms_where_the_authors_say_so(kind, torch, close, tmp_path):
    """`rms_norm` false makes every norm between blocks PyTorch's LayerNorm."""
    model = theirs(torch, kind, tie_word_embeddings=True)
    for holder, name in [(model.backbone, "norm_f"), *((layer, "norm") for layer in model.backbone.layers)]:
        norm = torch.nn.LayerNorm(16, eps=1e-5)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        setattr(holder, name, norm)
    native(torch, model, tmp_path, ssm_cfg=SSM[kind], rms_norm=False)
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, model, TOKENS), 2e-5)


def test_half_precision_in_pytorch_s_format(torch, close, tmp_path):
    model = theirs(torch, "Mamba").bfloat16()
    native(torch, model, tmp_path, ssm_cfg=SSM["Mamba"])
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, model.float(), TOKENS), 2e-5)


class Trap:
    """An object that would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["trap", "list", "bytes", "integers"])
def test_files_of_pytorch_that_are_no_weights(content, torch, tmp_path):
    native(torch, theirs(torch, "Mamba"), tmp_path, ssm_cfg=SSM["Mamba"])
    path = tmp_path / "pytorch_model.bin"
    arrays = torch.load(path, weights_only=True)
    if content == "bytes":
        path.write_bytes(b"PK\x03\x04 and then nothing")
    else:
        trap = {"backbone.embedding.weight": Trap(tmp_path / "sprung")}
        integers = {name: array.to(torch.int8) for name, array in arrays.items()}
        torch.save({"trap": trap, "list": [1, 2], "integers": integers}[content], path)
    with pytest.raises(UserError, match=r"pytorch_model\.bin: \S*:? ?expected ") as excinfo:
        load_model(tmp_path)
    assert "\n" not in str(excinfo.value) and not (tmp_path / "sprung").exists()


# Text


@pytest.fixture(scope="module")
def tokenizer():
    """Return a byte-level BPE, with an end token and a few merges of characters of several bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    outputs = Tokenizer(models.BPE())
    outputs.pre_tokenizer, outputs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = ["the theory of état – naïve 𝄞 music, 漢字 and the end"] * 3
    outputs.train_from_iterator(
        words,
        trainers.BpeTrainer(
            vocab_size=290, special_tokens=["<|end|>", "<|mark|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return outputs


def spoken(torch, kind, folder, tokenizer, **options):
    """Write a folder with a model of the tokenizer's vocabulary."""
    import transformers

    theirs(torch, kind, vocab_size=tokenizer.get_vocab_size(), **options).save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
    fast.save_pretrained(folder)
    return fast


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [None, 0, [1, 7]])
def test_their_greedy_text(kind, end, torch, tokenizer, tmp_path):
    """Token by token, to their end token, and printed as their decoder shows what follows the prompt."""
    fast = spoken(torch, kind, tmp_path, tokenizer, eos_token_id=end)
    model, prompt = reread(torch, tmp_path), "the naïve <|mark|> end"
    ids = fast(prompt)["input_ids"]
    with torch.no_grad():
        full = model.generate(
            torch.tensor([ids]), max_new_tokens=20, do_sample=False, use_cache=False, eos_token_id=end, pad_token_id=0
        )[0].tolist()
    ours = load_tokenizer(tmp_path)
    assert encode_prompt(ours, prompt, 10**9) == ids
    stop = end_tokens(tmp_path, ours)
    actual = list(
        generate(load_model(tmp_path), np.array(ids), tokens=20, temperature=0, rng=np.random.default_rng(0), stop=stop)
    )
    expected = full[len(ids) :]
    if end is None:
        expected = expected[: expected.index(0)] if 0 in expected else expected  # the tokenizer's own end
    assert actual == [token for token in expected if token not in stop]


@pytest.mark.parametrize("seed", range(10))
def test_streamed_text_is_their_decoding(seed, tokenizer):
    ids = np.random.default_rng(seed).integers(0, tokenizer.get_vocab_size(), 60).tolist()
    prompt = tokenizer.encode("état – ").ids
    stream = Detokenizer(tokenizer, prompt)
    pieces = [*(stream.add([token]) for token in ids), stream.flush()]
    assert "".join(pieces) == tokenizer.decode([*prompt, *ids])[len(tokenizer.decode(prompt)) :]
    assert len([piece for piece in pieces if piece]) > 10


@pytest.mark.parametrize("decoder", ["metaspace", "wordpiece", "bytefallback"])
def test_streamed_words_keep_their_spaces(decoder):
    """Decoders that treat the first token differently from the others."""
    from tokenizers import Tokenizer, decoders, models

    words = {
        "metaspace": ["▁the", "▁end", "ing", "▁", "."],
        "wordpiece": ["the", "end", "##ing", "of", "##s"],
        "bytefallback": ["▁the", "end", "<0xE2>", "<0x82>", "<0xAC>"],
    }[decoder]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.decoder = {
        "metaspace": decoders.Metaspace(),
        "wordpiece": decoders.WordPiece(cleanup=False),
        "bytefallback": decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    }[decoder]
    for seed in range(10):
        ids = np.random.default_rng(seed).integers(0, 5, 20).tolist()
        if decoder == "bytefallback":  # whole characters: one byte too many makes it take back those before
            ids = [token for first in ids for token in ([2, 3, 4] if first > 1 else [first])]
        stream = Detokenizer(tokenizer, [0, 1])
        pieces = [*(stream.add([token]) for token in ids), stream.flush()]
        assert "".join(pieces) == tokenizer.decode([0, 1, *ids])[len(tokenizer.decode([0, 1])) :]


def test_the_command_line_shows_the_prompt_as_typed_and_the_text_to_its_end(torch, tokenizer, tmp_path):
    fast = spoken(torch, "Mamba", tmp_path, tokenizer, eos_token_id=0)
    edited(tmp_path / "generation_config.json", eos_token_id=list(range(100, 290)))
    prompt = "  <|mark|>the naïve<|end|> 漢 "
    model, ids = reread(torch, tmp_path), fast(prompt)["input_ids"]
    with torch.no_grad():
        full = model.generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False, use_cache=False, pad_token_id=0)
    outputs = [token for token in full[0].tolist()[len(ids) :] if token < 100]
    expected = fast.decode([*ids, *outputs], skip_special_tokens=True)[
        len(fast.decode(ids, skip_special_tokens=True)) :
    ]
    command = [sys.executable, "-m", "models", "generate", "--checkpoint", str(tmp_path), "--prompt", prompt]
    process = subprocess.run([*command, "--tokens", "30", "--temperature", "0"], capture_output=True, text=True)
    assert process.returncode == 0 and process.stderr == ""
    assert len(outputs) < 30 and process.stdout == prompt + printable(expected) + "\n"
