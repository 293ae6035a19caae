"""RWKV-4 in folders that transformers writes, RWKV-7 in files by the authors' names: their logits, gradients and text.

transformers is asked in training, where it leaves weights as they are: see `models.published.rwkv4`. Their cached step
holds one sequence, and attention as wide as the model. The authors' package computes no gradients, but the functions
of a token that it is made of have them.
"""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from models.errors import UserError
from models.language.lm import generate
from models.published import load_model, load_tokenizer
from models.published.rwkv7 import RWKV7, RWKV7Config
from models.published.world_tokenizer import VOCABULARY
from models.tasks.text import printable
from tests.parity import causal_lm
from tests.parity.causal_lm import TOKENS, compare_gradients, compare_logits, edited, logits_of, same_logits

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning"
)  # with which the package compiles itself

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": 24}
OPTIONS = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "wide attention": {"attention_hidden_size": 24},
    "narrow attention": {"attention_hidden_size": 5},
    "inner width": {"intermediate_size": 20},
    "both": {"attention_hidden_size": 24, "intermediate_size": 7},
    "large epsilon": {"layer_norm_epsilon": 0.3},
    "no epsilon": {"layer_norm_epsilon": 0.0},
    "rescaled in each layer": {"rescale_every": 1},
    "never rescaled": {"rescale_every": 0},
    "short context": {"context_length": 4},
    "five layers": {"num_hidden_layers": 5},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def theirs(torch, **options):
    """Return their model in training."""
    return causal_lm.theirs(torch, "Rwkv", **SIZES | options).train()


def reread(torch, folder):
    return causal_lm.reread(torch, folder).train()


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, torch, close, tmp_path):
    model = theirs(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    same_logits(torch, close, model, tmp_path)


@pytest.mark.parametrize("every", [1, 2, 6, -1])
def test_halved_layers_say_the_same(every, torch, close, tmp_path):
    """At inference transformers halves hidden states, which the ε of its norms sees, and nothing else."""
    model = theirs(torch, rescale_every=every, layer_norm_epsilon=0.0)
    model.save_pretrained(tmp_path)
    close("logits", load_model(tmp_path)(TOKENS)[0], logits_of(torch, model.eval(), TOKENS), 2e-4)
    assert model.rwkv.layers_are_rescaled


@pytest.mark.parametrize("name", ["as it is", "tied", "both", "large epsilon"])
def test_gradients(name, torch, close, tmp_path):
    model = theirs(torch, **OPTIONS[name])
    model.save_pretrained(tmp_path)
    causal_lm.same_gradients(torch, close, model, tmp_path)


def test_greedy_tokens(torch, tmp_path):
    """Theirs by their own cache, with layers halved or not."""
    for every in (0, 1):
        model = theirs(torch, rescale_every=every)
        model.save_pretrained(tmp_path)
        causal_lm.same_greedy_tokens(torch, model.eval(), tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", ["5GB", "6KB"])
def test_widths_and_shards(dtype, size, torch, close, tmp_path):
    theirs(torch).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "6KB")
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


def test_a_head_that_the_config_ties(torch, close, tmp_path, capsys):
    model = theirs(torch)
    model.save_pretrained(tmp_path)
    edited(tmp_path / "config.json", tie_word_embeddings=True)
    same_logits(torch, close, model, tmp_path)
    assert "head.weight: the config ties it to the embedding, the file holds another: the file's is used" in (
        capsys.readouterr().err
    )


def test_what_a_config_leaves_out(torch, close, tmp_path):
    model = theirs(torch)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": "rwkv"}))
    same_logits(torch, close, reread(torch, tmp_path), tmp_path)


REFUSED = [
    ({"hidden_size": 0}, "config.json: hidden_size: expected a whole number of at least 1, got 0"),
    ({"attention_hidden_size": "16"}, 'attention_hidden_size: expected a whole number of at least 1, got "16"'),
    ({"intermediate_size": 0.5}, "config.json: intermediate_size: expected a whole number of at least 1, got 0.5"),
    ({"num_hidden_layers": 0}, "config.json: num_hidden_layers: expected a whole number of at least 1, got 0"),
    ({"layer_norm_epsilon": -1}, "config.json: layer_norm_epsilon: expected a number of at least 0, got -1"),
    ({"tie_word_embeddings": None}, "config.json: tie_word_embeddings: expected true or false, got null"),
    ({"num_attention_heads": 4}, "num_attention_heads: expected no such option, since there is no code for it, got 4"),
    ({"hidden_size": 20}, "model.safetensors: embeddings.weight: expected shape (24, 20), got (24, 16)"),
    ({"attention_hidden_size": 8}, "blocks.0.attention.time_decay: expected shape (8,), got (16,)"),
    ({"intermediate_size": 8}, "blocks.0.feed_forward.key.weight: expected shape (8, 16), got (64, 16)"),
    ({"num_hidden_layers": 4}, "blocks.3.ln1.weight: expected an array of shape (16,), got none"),
    ({"num_hidden_layers": 2}, "blocks.2.attention.key.weight: expected no such array, got one of shape (16, 16)"),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_a_config_that_cannot_be_read_or_fits_no_weights(changes, message, torch, tmp_path):
    theirs(torch).save_pretrained(tmp_path)
    edited(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=re.escape(message)) as excinfo:
        load_model(tmp_path)
    assert str(tmp_path) in str(excinfo.value) and "\n" not in str(excinfo.value)


# RWKV-7

SEVEN = {
    "as it is": {},
    "one head": {"heads": 1},
    "heads of two channels": {"heads": 6},
    "ranks of two": {"decay_rank": 2, "rate_rank": 2, "gate_rank": 2, "value_rank": 2},
    "one layer": {"layers": 1},
    "five layers": {"layers": 5},
    "two words": {"vocab": 2},
}
LN0, FIRST = "blocks.0.ln0.weight", "blocks.0.att"


def written(torch, path, *, vocab=24, layers=3, vector=(1, 1, 12), dtype="float32", extra=True, **options):
    """Write a file of random arrays as the authors do, with value residuals in the first layer, and return them."""
    sizes = {"width": 12, "heads": 3, "hidden": 20, "decay_rank": 5, "rate_rank": 6, "gate_rank": 7, "value_rank": 4}
    block = RWKV7Config(**sizes | options)
    of = RWKV7(vocab=vocab, tied=False, block=block, layers=layers, vector=vector)
    shapes = dict(of.shapes())
    if extra:
        shapes |= {f"{FIRST}.v0": vector, f"{FIRST}.v1": (12, 4), f"{FIRST}.v2": (4, 12)}
    torch.manual_seed(0)
    arrays = {name: 0.5 * torch.randn(shape) for name, shape in shapes.items()}
    for name, array in arrays.items():
        array += bool(re.search(r"ln\w+\.weight", name))
    arrays = {name: array.to(getattr(torch, dtype)) for name, array in arrays.items()}
    torch.save(arrays, path)
    return arrays


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("layout", [{}, {"vector": (12,), "extra": False}], ids=["authors", "flat"])
def test_sizes_from_arrays(name, layout, torch, rwkv_package, close, tmp_path):
    written(torch, tmp_path / "model.pth", **SEVEN[name] | layout)
    tokens, oracle = (
        TOKENS[0] % SEVEN[name].get("vocab", 24),
        rwkv_package.RWKV_x070(str(tmp_path / "model"), "cpu fp32"),
    )
    expected, _ = oracle.forward(tokens.tolist(), None, full_output=True)
    compare_logits(close, load_model(tmp_path), expected.numpy(), tokens)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, torch, rwkv_package, close, tmp_path):
    written(torch, tmp_path / "model.pth", dtype=dtype)
    oracle = rwkv_package.RWKV_x070(str(tmp_path / "model"), "cpu fp32")
    expected, _ = oracle.forward(TOKENS[1].tolist(), None, full_output=True)
    compare_logits(close, load_model(tmp_path / "model.pth"), expected.numpy(), TOKENS[1])


def their_logits(torch, package, z, tokens, heads=3, width=12, layers=3):
    """Return the logits of a file's arrays, by the functions of one token of the authors' package."""

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (width,), z[f"{name}.weight"], z[f"{name}.bias"])

    def weights(module, names):
        arrays = {name: z[f"{module}.{name}"].squeeze() for name in names.split()}
        return [array.T if array.ndim == 2 and name.endswith("weight") else array for name, array in arrays.items()]

    zero, per_head, logits = torch.zeros(width), width // heads, []
    states = [(zero, torch.zeros(heads, per_head, per_head), zero) for _ in range(layers)]
    for token in tokens:
        x, v_first = norm(z["emb.weight"][token], "blocks.0.ln0"), zero
        for i, (last, memory, mixed_last) in enumerate(states):
            arrays = weights(
                f"blocks.{i}.att",
                "x_r x_w x_k x_v x_a x_g w0 w1 w2 a0 a1 a2 v0 v1 v2 g1 g2 k_k k_a r_k "
                "receptance.weight key.weight value.weight output.weight ln_x.weight ln_x.bias",
            )
            arrays[19] = arrays[19].flatten()
            mixed, last, memory, v_first = package.RWKV_x070_TMix_one(
                i, heads, per_head, norm(x, f"blocks.{i}.ln1"), last, v_first, memory, *arrays
            )
            x, ffn = x + mixed, weights(f"blocks.{i}.ffn", "x_k key.weight value.weight")
            mixed, mixed_last = package.RWKV_x070_CMix_one(norm(x, f"blocks.{i}.ln2"), mixed_last, *ffn)
            x, states[i] = x + mixed, (last, memory, mixed_last)
        logits.append(norm(x, "ln_out") @ z["head.weight"].T)
    return torch.stack(logits)


def test_gradients_of_rwkv7(torch, rwkv_package, close, tmp_path):
    arrays = written(torch, tmp_path / "model.pth")
    leaves = {name: array.clone().requires_grad_() for name, array in arrays.items()}
    tokens = TOKENS[0, :6]
    logits = their_logits(torch, rwkv_package, leaves, tokens.tolist())
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]))
    loss.backward()
    gradients = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
    assert leaves.keys() - gradients.keys() == {f"{FIRST}.v{i}" for i in range(3)}
    compare_logits(close, load_model(tmp_path), logits.detach().numpy(), tokens)
    compare_gradients(close, tmp_path / "model.pth", load_model(tmp_path), loss.item(), gradients, tokens)


DISAGREEMENTS = [
    ({f"{FIRST}.r_k": None}, f"{FIRST}.r_k: expected an array of RWKV-7, the one model that is read from a .pth"),
    ({f"{FIRST}.r_k": (5, 2)}, f"{FIRST}.r_k: expected heads × channels = 12, the width of emb.weight, got 5 × 2"),
    ({"emb.weight": (24,)}, "emb.weight: expected an array of two axes, each at least 1, got one of shape (24,)"),
    ({f"{FIRST}.w1": (12, 0)}, f"{FIRST}.w1: expected an array of two axes, each at least 1, got one of shape (12, 0)"),
    ({"blocks.1.att.v1": None}, "blocks.1.att.v1: expected an array of two axes, each at least 1, got none"),
    ({"blocks.2.att.v1": (12, 9)}, "blocks.2.att.v1: expected shape (12, 4), got (12, 9)"),
    ({f"{FIRST}.x_k": (12,)}, f"{FIRST}.x_k: expected shape (1, 1, 12), got (12,)"),
    ({"head.weight": None}, "head.weight: expected an array of shape (24, 12), got none"),
    ({LN0: None}, f"{LN0}: expected an array of shape (12,), got none"),
    ({"blocks.1.ffn.s_emb.weight": (24, 4)}, "blocks.1.ffn.s_emb.weight: expected no such array, got one of shape"),
    ({"blocks.999999999.ln1.weight": (12,)}, "blocks.3.ln1.weight: expected an array of shape (12,), got none"),
]


@pytest.mark.parametrize("changes, message", DISAGREEMENTS)
def test_arrays_that_disagree(changes, message, torch, tmp_path):
    arrays = written(torch, tmp_path / "model.pth") | {n: s and torch.zeros(s) for n, s in changes.items()}
    torch.save({name: array for name, array in arrays.items() if array is not None}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=re.escape(f"checkpoint {tmp_path}/model.pth: {message}")) as excinfo:
        load_model(tmp_path)
    assert "\n" not in str(excinfo.value)


def test_a_file_that_is_missing_or_holds_no_arrays_by_name(torch, tmp_path):
    path = tmp_path / "model.pth"
    with pytest.raises(UserError, match=r"model\.pth: expected a readable file, got: No such file or directory$"):
        load_model(path)
    torch.save([torch.zeros(2)], path)
    with pytest.raises(UserError, match=r"model\.pth: expected a file of tensors by name, got something else$"):
        load_model(tmp_path)


def test_world_tokenizer(rwkv_vocabulary, tmp_path):
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

    (tmp_path / VOCABULARY).write_bytes(rwkv_vocabulary.read_bytes())
    theirs, ours, rng = TRIE_TOKENIZER(str(rwkv_vocabulary)), load_tokenizer(tmp_path), np.random.default_rng(0)
    texts = ["", "\0\r\n\u2028 ' \\x", *("".join(map(chr, rng.integers(1, 0xD000, 40))) for _ in range(20))]
    texts += ["".join(theirs.decode([int(i)]) for i in rng.integers(1, 65530, 40)) for _ in range(20)]
    for text in texts:
        assert ours.encode(text).ids == theirs.encode(text) and ours.decode(theirs.encode(text)) == text
    for index in range(1, 65530):
        assert ours.id_to_token(index) == theirs.decodeBytes([index]).decode(errors="replace")


def test_text(torch, rwkv_package, rwkv_vocabulary, tmp_path):
    """The most likely tokens by the authors' state, and the same from the command line, as characters."""
    written(torch, tmp_path / "model.pth", vocab=65536)
    (tmp_path / VOCABULARY).write_bytes(rwkv_vocabulary.read_bytes())
    oracle, tokenizer = rwkv_package.RWKV_x070(str(tmp_path / "model"), "cpu fp32"), load_tokenizer(tmp_path)
    prompt, state, expected = "  naïve 漢字", None, []
    feed = ids = tokenizer.encode(prompt).ids
    for _ in range(20):
        logits, state = oracle.forward(feed, state)
        feed = [int(logits.argmax())]
        expected += feed
    rng = np.random.default_rng(0)
    assert list(generate(load_model(tmp_path), np.array(ids), tokens=20, temperature=0, rng=rng)) == expected
    command = [sys.executable, "-m", "models", "generate", "--checkpoint", str(tmp_path), "--prompt", prompt]
    process = subprocess.run([*command, "--tokens", "20", "--temperature", "0"], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == prompt + printable(tokenizer.decode(expected)) + "\n"
