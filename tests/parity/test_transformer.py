"""The Transformer against torch.nn.Transformer, and label smoothing against torch's cross entropy, in float64.

torch's stacks end in one more norm each, which is put in here as an identity; its feed-forward and post-norm order are
the paper's. Its attention keeps the three projections in one matrix, with biases, as `bias=True` does here.
"""

import numpy as np
import pytest

import minigrad as mg
from minigrad.pytree import map_arrays
from models.language.transformer import Transformer, TransformerConfig, smoothed_cross_entropy

pytestmark = pytest.mark.parity

PAD, VOCAB, WIDTH, HEADS = 0, 11, 12, 2
SOURCE = np.array([[3, 4, 5, 6, 7], [8, 9, 10, 0, 0]])
TARGET = np.array([[1, 4, 5, 3], [1, 8, 3, 9]])


def make_ours():
    config = TransformerConfig(VOCAB, width=WIDTH, layers=2, heads=HEADS, hidden=20, bias=True)
    model = map_arrays(lambda x: x.astype(np.float64), Transformer(config, np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    for name, array in model.named_parameters().items():
        if "norms" in name:  # as they start, gains of 1 hide mistakes
            array += 0.3 * rng.standard_normal(array.shape)
    return model


def layers_of(ours, theirs):
    """Yield (our name, our layer, their layer) of both stacks."""
    for stack in ("encoder", "decoder"):
        for i, pair in enumerate(zip(getattr(ours, stack), getattr(theirs, stack).layers, strict=True)):
            yield f"{stack}.{i}", *pair


def copied(torch, ours):
    """Return torch's model with our weights, and a function from its gradients to ours by name."""
    theirs = torch.nn.Transformer(
        WIDTH, HEADS, 2, 2, dim_feedforward=20, dropout=0.0, batch_first=True, dtype=torch.float64
    )
    theirs.encoder.norm = theirs.decoder.norm = None
    pairs = {}
    for name, our, their in layers_of(ours, theirs):
        attentions = [("attention", our.attention, their.self_attn)]
        if hasattr(our, "cross"):
            attentions.append(("cross", our.cross, their.multihead_attn))
        for part, one, other in attentions:
            for i, projection in enumerate((one.query, one.key, one.value)):
                rows = slice(i * WIDTH, (i + 1) * WIDTH)
                which = ("query", "key", "value")[i]
                pairs[f"{name}.{part}.{which}.weight"] = projection.weight, other.in_proj_weight, rows
                pairs[f"{name}.{part}.{which}.bias"] = projection.bias, other.in_proj_bias, rows
            for kind in ("weight", "bias"):
                ours_and_theirs = getattr(one.output, kind), getattr(other.out_proj, kind), slice(None)
                pairs[f"{name}.{part}.output.{kind}"] = ours_and_theirs
        for kind in ("weight", "bias"):
            pairs[f"{name}.feed_forward.into.{kind}"] = (
                getattr(our.feed_forward.into, kind),
                getattr(their.linear1, kind),
                slice(None),
            )
            pairs[f"{name}.feed_forward.out.{kind}"] = (
                getattr(our.feed_forward.out, kind),
                getattr(their.linear2, kind),
                slice(None),
            )
            for i, norm in enumerate(our.norms):
                pairs[f"{name}.norms.{i}.{kind}"] = (
                    getattr(norm, kind),
                    getattr(getattr(their, f"norm{i + 1}"), kind),
                    slice(None),
                )
    with torch.no_grad():
        for array, parameter, rows in pairs.values():
            parameter[rows] = torch.from_numpy(array)
    return theirs, lambda: {name: parameter.grad[rows].numpy() for name, (_, parameter, rows) in pairs.items()}


def test_logits_and_gradients_are_torch_s(torch, close):
    ours = make_ours()
    theirs, gradients = copied(torch, ours)
    embedding = torch.from_numpy(ours.embedding.weight.copy()).requires_grad_()

    def embed(tokens):
        at, channel = np.arange(tokens.shape[1])[:, None], np.arange(WIDTH)
        angles = at / 10000 ** ((channel - channel % 2) / WIDTH)
        return embedding[tokens] * WIDTH**0.5 + torch.from_numpy(np.where(channel % 2, np.cos(angles), np.sin(angles)))

    hidden = torch.from_numpy(SOURCE == PAD)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(TARGET.shape[1], dtype=torch.float64)
    y = theirs(
        embed(SOURCE), embed(TARGET), tgt_mask=causal, src_key_padding_mask=hidden, memory_key_padding_mask=hidden
    )
    logits = y @ embedding.T
    direction = np.random.default_rng(2).standard_normal(logits.shape)
    (logits * torch.from_numpy(direction)).sum().backward()

    close("logits", ours(SOURCE, TARGET, pad=PAD), logits.detach().numpy(), 1e-13)
    grads = mg.grad(lambda model: mg.sum(model(SOURCE, TARGET, pad=PAD) * direction))(ours).named_parameters()
    expected = {"embedding.weight": embedding.grad.numpy(), **gradients()}
    assert grads.keys() == expected.keys()
    scale = max(np.abs(gradient).max() for gradient in expected.values())
    for name, theirs_gradient in expected.items():
        if name.endswith(".key.bias"):  # 0 but for rounding: it adds the same to all scores of a query
            assert max(np.abs(grads[name]).max(), np.abs(theirs_gradient).max()) < 1e-14 * scale
            continue
        close(name, grads[name], theirs_gradient, 1e-11)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_is_torch_s(torch, close, smoothing):
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((6, VOCAB)), rng.integers(0, VOCAB, 6)
    theirs = torch.from_numpy(logits).requires_grad_()
    loss = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(targets), label_smoothing=smoothing)
    loss.backward()
    value, grad = mg.value_and_grad(lambda x: smoothed_cross_entropy(x, targets, smoothing))(logits)
    close("loss", np.asarray(value), loss.detach().numpy(), 1e-14)
    close("gradient", grad, theirs.grad.numpy(), 1e-14)
