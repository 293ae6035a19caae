"""Kimi Linear folders that transformers writes with unusual options, read from disk by us."""

import copy
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
from models.language.kimi_linear import KimiLinearModel
from models.language.lm import generate
from models.published import load_model, read_architecture
from tests.kimi_linear_48b import PUBLISHED

SIZES = {  # transformers multiplies experts by a kernel that wants rows of 16 bytes
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_heads": 3,
    "linear_head_dim": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 3,
    "moe_intermediate_size": 8,
    "num_experts": 8,
    "num_experts_per_token": 3,
    "num_expert_group": 4,
    "topk_group": 2,
    "num_shared_experts": 2,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
TOKENS = np.random.default_rng(0).integers(0, 24, (2, 11))

OPTIONS = {
    "as it is": {},
    "delta attention alone": {"layer_types": ["linear_attention"] * 3},
    "latent attention alone": {"layer_types": ["full_attention"] * 3},
    "every fourth layer after the first": {"layer_types": None, "num_hidden_layers": 5},
    "heads of all sizes": {
        "linear_num_heads": 1,
        "linear_head_dim": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "heads of one channel": {"linear_head_dim": 1, "qk_nope_head_dim": 1, "v_head_dim": 1},
    "wide filter": {"linear_conv_kernel_dim": 7},
    "filter of one": {"linear_conv_kernel_dim": 1},
    "large values": {"v_head_dim": 9, "kv_lora_rank": 20},
    "nothing shared by the heads' keys": {"qk_rope_head_dim": 0},
    "much shared by the heads' keys": {"qk_rope_head_dim": 7},
    "queries of low rank": {"q_lora_rank": 5},
    "biases": {"attention_bias": True},
    "queries of low rank with biases": {"q_lora_rank": 5, "attention_bias": True},
    "as many keys as queries": {"num_key_value_heads": None},
    "dense": {"mlp_layer_types": ["dense"] * 3},
    "sparse": {"mlp_layer_types": ["sparse"] * 3},
    "sparse, then dense": {"mlp_layer_types": ["sparse", "sparse", "dense"]},
    "dense by number": {"first_k_dense_replace": 2},
    "dense by a large number": {"first_k_dense_replace": 9},
    "weights as they come": {"moe_renormalize": False},
    "one expert": {"num_experts_per_token": 1},
    "all experts": {"num_experts_per_token": 8, "topk_group": 4},
    "all experts of a group": {"num_experts_per_token": 2, "topk_group": 1},
    "one group": {"num_expert_group": 1, "topk_group": 1},
    "groups of four": {"num_expert_group": 2, "topk_group": 1},
    "large factor": {"routed_scaling_factor": 7.5},
    "no factor": {"routed_scaling_factor": 1.0},
    "one shared expert": {"num_shared_experts": 1},
    "large epsilon": {"rms_norm_eps": 0.3},
    "swish": {"hidden_act": "swish"},
    "no cache": {"use_cache": False},
    "one layer": {"num_hidden_layers": 1, "layer_types": ["full_attention"]},
    "no layer": {"num_hidden_layers": 0, "layer_types": []},
    "one word": {"vocab_size": 1},
    "two ends": {"eos_token_id": [3, 5]},
    "of training": {"attention_dropout": 0.5, "initializer_range": 0.1, "output_router_logits": True},
    "their own names": {
        "linear_attn_config": {
            "kda_layers": [3, 2],
            "full_attn_layers": [1],
            "head_dim": 8,
            "num_heads": 2,
            "short_conv_kernel_size": 3,
        },
        "linear_num_heads": 2,
        "linear_head_dim": 8,
        "linear_conv_kernel_dim": 3,
        "layer_types": None,
        "first_k_dense_replace": 0,
    },
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def theirs(torch, **options):
    """Return their model with random weights of distinguishable size."""
    import transformers

    torch.manual_seed(0)
    config = transformers.KimiLinearConfig(**SIZES | options)
    model = transformers.KimiLinearForCausalLM(config).eval()
    with torch.no_grad():
        for name, array in model.state_dict().items():
            array.add_((0.4 if "gate.weight" in name else 0.2) * torch.randn_like(array))
    return model


def reread(torch, folder):
    """Return their model, read back from a folder of theirs in float32."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits_of(torch, model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens), use_cache=False).logits.numpy()  # a cache needs a layer of attention


def in_double(folder):
    """Return our model with parameters in double precision."""
    of = read_architecture(folder / "config.json")
    sizes = {"vocab": of.vocab, "width": of.width, "eps": of.eps, "tied": of.tied, "dtype": np.float64}
    model = KimiLinearModel(of.layers, np.random.default_rng(0), **sizes)
    model.load_parameters(load_model(folder).named_parameters())
    return model


def edited(path, **changes):
    """Rewrite a JSON file with some values changed, and those that are ... left out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    model, tokens = theirs(torch, **OPTIONS[name]), TOKENS % OPTIONS[name].get("vocab_size", 24)
    model.save_pretrained(tmp_path)
    close(name, load_model(tmp_path)(tokens)[0], logits_of(torch, model, tokens), 2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", ["5GB", "6KB"])
def test_widths_and_shards(dtype, size, torch, close, tmp_path):
    """Compare models loaded in float32 from files of two bytes a number, whole or in shards."""
    theirs(torch).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "6KB")
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, reread(torch, tmp_path), TOKENS), 2e-5)


def test_the_names_of_the_published_repository(torch, close, tmp_path):
    """A dense MLP is `mlp` there, and transformers writes it as `block_sparse_moe`."""
    from safetensors.torch import load_file, save_file

    model = theirs(torch)
    model.save_pretrained(tmp_path)
    arrays = {
        re.sub(r"block_sparse_moe\.(gate_proj|up_proj|down_proj)", r"mlp.\1", name): array
        for name, array in load_file(tmp_path / "model.safetensors").items()
    }
    assert "model.layers.0.mlp.gate_proj.weight" in arrays
    assert "model.layers.1.block_sparse_moe.experts.7.w3.weight" in arrays
    save_file(arrays, tmp_path / "model.safetensors")
    changes = {"layer_types": ..., "mlp_layer_types": ..., "linear_head_dim": ..., "linear_num_heads": ...}
    linear = {"kda_layers": [1, 3], "full_attn_layers": [2], "num_heads": 3, "head_dim": 4, "short_conv_kernel_size": 4}
    options = {"first_k_dense_replace": 1, "mla_use_nope": True, "rope_theta": 10000.0, "rope_scaling": None}
    edited(tmp_path / "config.json", linear_attn_config=linear, **options, **changes)
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, model, TOKENS), 2e-5)


def test_what_a_config_leaves_out(torch, close, tmp_path):
    """Layers of the classes' own choice, and the routing of one group that is theirs by default."""
    chosen = {"num_hidden_layers": 9, "layer_types": None, "num_expert_group": 1, "topk_group": 1}
    theirs(torch, **chosen, num_shared_experts=1, num_experts_per_token=8).save_pretrained(tmp_path)
    full, kept = json.loads((tmp_path / "config.json").read_text()), {"model_type", "num_hidden_layers", "num_experts"}
    names = set(SIZES) - {
        "layer_types",
        "num_expert_group",
        "topk_group",
        "num_shared_experts",
        "num_experts_per_token",
    }
    (tmp_path / "config.json").write_text(json.dumps({key: full[key] for key in full if key in names | kept}))
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, reread(torch, tmp_path), TOKENS), 2e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head(tied, torch, close, tmp_path, capsys):
    """Transformers never ties it: a config that ties it is true where the head is the embedding, or is not there."""
    from safetensors.torch import load_file, save_file

    model = theirs(torch, tie_word_embeddings=True)
    if tied:
        model.lm_head.weight.data = model.model.embed_tokens.weight.data.clone()
    model.save_pretrained(tmp_path)
    expected = logits_of(torch, model, TOKENS)
    ours = load_model(tmp_path)
    close("logits", ours(TOKENS)[0], expected, 2e-5)
    assert (ours.lm_head is None) == tied
    message = "lm_head.weight: the config ties it to the embedding, the file holds another: the file's is used\n"
    assert capsys.readouterr().err.endswith("" if tied else message)
    if tied:
        arrays = load_file(tmp_path / "model.safetensors")
        del arrays["lm_head.weight"]
        save_file(arrays, tmp_path / "model.safetensors")
        close("logits", load_model(tmp_path)(TOKENS)[0], expected, 2e-5)


@pytest.mark.parametrize("options", [{}, {"q_lora_rank": 5, "attention_bias": True, "moe_renormalize": False}])
def test_gradients(options, torch, close, tmp_path):
    """Their gradients are written as a model of theirs, so they are read under our names."""
    model = theirs(torch, **options)
    model.save_pretrained(tmp_path / "model")
    weights = np.random.default_rng(1).normal(size=(*TOKENS.shape, 24)).astype(np.float32)
    (torch.tensor(weights) * model(torch.tensor(TOKENS)).logits).sum().backward()
    gradients = copy.deepcopy(model)
    with torch.no_grad():
        for name, array in gradients.state_dict().items():
            parameter = dict(model.named_parameters()).get(name)
            array.copy_(torch.zeros_like(array) if parameter is None else parameter.grad)
    gradients.save_pretrained(tmp_path / "gradients")
    expected = load_model(tmp_path / "gradients").named_parameters()
    ours = load_model(tmp_path / "model")
    actual = mg.grad(lambda model: mg.sum(weights * model(TOKENS)[0]))(ours).named_parameters()
    assert actual.keys() == expected.keys() and len(actual) > 80
    for name, gradient in expected.items():
        close(name, actual[name], gradient, 1e-4)


def test_token_by_token(torch, close, tmp_path):
    """One token at a time, where the up-projections are absorbed, and in parts, where they are not."""
    layers = ["full_attention", "linear_attention", "linear_attention", "full_attention"]
    theirs(torch, num_hidden_layers=4, layer_types=layers).save_pretrained(tmp_path)
    model = in_double(tmp_path)
    whole, final = model(TOKENS)
    for lengths in ([1] * 11, [4, *[1] * 7], [1, 3, 5, 2]):
        parts, state, start = [], None, 0
        for length in lengths:
            y, state = model(TOKENS[:, start : start + length], state)
            parts.append(y)
            start += length
        close("logits", np.concatenate(parts, axis=1), whole, 1e-12)
        close("latents", state[3], final[3], 1e-12)
    assert state[3].shape == (2, 11, 6 + 2)


@pytest.mark.parametrize("options", [{}, {"num_experts_per_token": 1, "q_lora_rank": 5}])
def test_their_greedy_tokens(options, torch, tmp_path):
    """Continue from their cache and from our state, for a prompt of several tokens and of one."""
    theirs(torch, **options).save_pretrained(tmp_path)
    model, ours = reread(torch, tmp_path), load_model(tmp_path)
    for prompt in ([3, 1, 4, 1, 5], [9]):
        with torch.no_grad():
            full = model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0)
        actual = generate(ours, np.array(prompt), tokens=20, temperature=0, rng=np.random.default_rng(0))
        assert list(actual) == full[0].tolist()[len(prompt) :]


def test_the_command_line(torch, tmp_path):
    import transformers
    from tokenizers import Tokenizer, models

    words = [f"w{i}" for i in range(24)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    theirs(torch).save_pretrained(tmp_path)
    with torch.no_grad():
        full = reread(torch, tmp_path).generate(torch.tensor([[7]]), max_new_tokens=10, do_sample=False, pad_token_id=0)
    command = [sys.executable, "-m", "models", "generate", "--checkpoint", str(tmp_path), "--prompt", "w7"]
    process = subprocess.run([*command, "--tokens", "10", "--temperature", "0"], capture_output=True, text=True)
    assert process.returncode == 0 and process.stderr == ""
    assert process.stdout == " ".join(words[i] for i in full[0].tolist()) + "\n"


# Configs


def test_the_published_config(torch, tmp_path):
    """Read the 48B config, and compare the number of parameters with that of their model on the meta device."""
    import transformers

    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    architecture = read_architecture(tmp_path / "config.json")
    with torch.device("meta"), pytest.warns(FutureWarning, match="rope_scaling"):
        model = transformers.KimiLinearForCausalLM(transformers.AutoConfig.from_pretrained(tmp_path))
    numbers = sum(int(np.prod(shape)) for _, shape in architecture.shapes())
    assert numbers == sum(array.numel() for array in model.state_dict().values())
    assert 49e9 < numbers < 50e9
