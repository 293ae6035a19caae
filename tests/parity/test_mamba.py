"""Hugging Face's Mamba and Mamba-2, written to disk by them and read from disk by us: logits, gradients, generation.

Their continuation is taken from full passes: the one that `generate` takes from its cache leaves it for Mamba-2 with
several groups (transformers 5.23). Ours, from the state, must be that of full passes.
"""

import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
from models.published import load_model, read_architecture

TOKENS = np.random.default_rng(0).integers(0, 40, (2, 11))
SIZES = {"num_hidden_layers": 2, "vocab_size": 40}
MODELS = {
    "mamba": {"hidden_size": 24, "state_size": 5, "time_step_rank": 3, "conv_kernel": 4},
    "mamba untied, with biases": {
        "hidden_size": 16,
        "state_size": 4,
        "conv_kernel": 3,
        "use_bias": True,
        "use_conv_bias": False,
        "tie_word_embeddings": False,
    },
    "mamba2": {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "state_size": 6, "n_groups": 2, "chunk_size": 4},
}


@pytest.fixture(params=MODELS, scope="module")
def pair(request, torch, tmp_path_factory):
    """Return their model, in evaluation mode, and the folder they wrote it to."""
    import transformers

    torch.manual_seed(0)
    kind = "Mamba2" if request.param == "mamba2" else "Mamba"
    config = getattr(transformers, f"{kind}Config")(**SIZES, **MODELS[request.param])
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():  # the default initialisation is too small to tell much
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp(kind)
    theirs.save_pretrained(folder)
    return theirs, folder


def continued(theirs, tokens, count, torch):
    """Return the tokens and their greedy continuation, with a full pass for each."""
    for _ in range(count):
        with torch.no_grad():
            tokens = [*tokens, int(theirs(torch.tensor([tokens])).logits[0, -1].argmax())]
    return tokens


def test_logits(pair, torch, close):
    theirs, folder = pair
    expected = theirs(torch.tensor(TOKENS)).logits.detach().numpy()
    close("logits", load_model(folder)(TOKENS)[0], expected, 1e-5)


def test_gradients(pair, torch, close):
    theirs, folder = pair
    targets = np.roll(TOKENS, 1, axis=-1)
    logits = theirs(torch.tensor(TOKENS)).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten()).backward()
    grads = mg.grad(lambda model: mg.cross_entropy(model(TOKENS)[0], targets))(load_model(folder)).named_parameters()
    of = read_architecture(folder / "config.json")
    expected = dict(of.parameters({of.name(n): p.grad.numpy() for n, p in theirs.named_parameters()}))
    assert expected.keys() == grads.keys()
    for name, grad in grads.items():
        close(name, grad, expected[name], 1e-4)


def test_generation_token_by_token(pair, torch):
    """The greedy continuation from the state alone is theirs, and one pass over all of it agrees."""
    theirs, folder = pair
    prompt, count = TOKENS[:1, :5], 12
    expected = continued(theirs, prompt[0].tolist(), count, torch)
    model, state, feed, tokens = load_model(folder), None, prompt, list(prompt[0])
    for _ in range(count):
        logits, state = model(feed, state)
        tokens.append(int(np.argmax(logits[0, -1])))
        feed = np.array([[tokens[-1]]])
    assert tokens == expected
    full, _ = model(np.array([tokens[:-1]]))
    np.testing.assert_allclose(logits[0, -1], full[0, -1], rtol=1e-4, atol=1e-4)


def test_the_command_line_generates_from_a_published_folder(pair, torch):
    """Generate with the folder's own tokenizer: the greedy continuation is theirs, word by word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    theirs, folder = pair
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    expected = continued(theirs, [3, 1, 4], 6, torch)
    command = [sys.executable, "-m", "models", "generate", "--checkpoint", str(folder), "--prompt", "w3 w1 w4"]
    process = subprocess.run([*command, "--tokens", "6", "--temperature", "0"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [f"w{i}" for i in expected]
