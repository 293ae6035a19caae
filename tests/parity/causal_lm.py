"""Models of transformers with random weights, in folders that it writes, and what ours, read from one, must do."""

import json

import numpy as np

import minigrad as mg
from models.language.lm import generate
from models.objectives import mean_loss
from models.published import load_model, read_architecture

TOLERANCE = 2e-5  # of float32, relative to the largest number
TOKENS = np.random.default_rng(0).integers(0, 24, (2, 11))


def theirs(torch, kind, **options):
    """Return their model with random weights of distinguishable size."""
    import transformers

    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = getattr(transformers, f"{kind}Config")(**ids | options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def reread(torch, folder):
    """Return their model, read back from a folder of theirs in float32."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits_of(torch, model, tokens):
    """Return their logits."""
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def edited(path, **changes):
    """Rewrite a JSON file with some values changed, and those that are ... left out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def same_logits(torch, close, model, folder, tokens=TOKENS):
    """Compare logits as `compare_logits` does, with those of their model."""
    compare_logits(close, load_model(folder), logits_of(torch, model, tokens), tokens)


def compare_logits(close, ours, expected, tokens):
    """Compare logits of one pass, and of the same tokens three at first and then one by one."""
    parts, state = [], None
    close("logits", ours(tokens)[0], expected, TOLERANCE)
    for now in (tokens[..., :3], *(tokens[..., t : t + 1] for t in range(3, tokens.shape[-1]))):
        logits, state = ours(now, state)
        parts.append(logits)
    close("logits by the state", np.concatenate(parts, axis=-2), expected, TOLERANCE)


def same_gradients(torch, close, model, folder, tokens=TOKENS, in_file=dict):
    """Compare the gradient of the mean cross-entropy by every parameter, under our names.

    `in_file` makes of the arrays of their modules by name those of a file.
    """
    loss = model(torch.tensor(tokens), labels=torch.tensor(tokens)).loss
    loss.backward()
    gradients = in_file({name: parameter.grad for name, parameter in model.named_parameters()})
    gradients = {name: gradient.numpy() for name, gradient in gradients.items()}
    compare_gradients(close, folder / "config.json", load_model(folder), loss.item(), gradients, tokens)


def compare_gradients(close, source, model, loss, gradients, tokens):
    """Compare loss and gradients of our model with those given by names in files, of the architecture in `source`."""
    of = read_architecture(source)
    expected = dict(of.parameters({of.name(name): gradient for name, gradient in gradients.items()}))
    ours, tree = mg.value_and_grad(lambda m: mean_loss(m(tokens[..., :-1])[0], tokens[..., 1:]))(model)
    actual = tree.named_parameters()
    assert abs(float(ours) - loss) < TOLERANCE
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        close(f"gradient of {name}", gradient, expected[name], 10 * TOLERANCE)


def same_greedy_tokens(torch, model, folder, tokens=TOKENS[0, :4], count=12):
    """Compare the tokens that are most likely one after another, theirs by their own cache."""
    with torch.no_grad():
        full = model.generate(torch.tensor(tokens[None]), max_new_tokens=count, do_sample=False, pad_token_id=0)
    greedy = {"tokens": count, "temperature": 0, "rng": np.random.default_rng(0)}
    assert list(generate(load_model(folder), tokens, **greedy)) == full[0, len(tokens) :].tolist()
