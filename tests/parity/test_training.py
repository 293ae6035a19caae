"""Modules and optimisers against torch.nn, torch.optim and torch.nn.utils, in float64."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim

D = 6


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def modules(torch):
    """Return pairs of modules, ours and theirs, by name."""
    rng = np.random.default_rng(0)
    return {
        "Linear": (nn.Linear(D, 4, rng=rng, dtype=np.float64), torch.nn.Linear(D, 4, dtype=torch.float64)),
        "LayerNorm": (nn.LayerNorm(D, dtype=np.float64), torch.nn.LayerNorm(D, dtype=torch.float64)),
        "RMSNorm": (
            nn.RMSNorm(D, eps=1e-6, dtype=np.float64),
            torch.nn.RMSNorm(D, eps=1e-6, dtype=torch.float64),
        ),
    }


@pytest.mark.parametrize("name", ["Linear", "LayerNorm", "RMSNorm"])
def test_module(name, torch, close):
    """Names, shapes, values and gradients are PyTorch's, so a state_dict goes from one to the other."""
    ours, theirs = modules(torch)[name]
    rng = np.random.default_rng(1)
    weights = {key: rng.normal(size=tuple(value.shape)) for key, value in theirs.state_dict().items()}
    ours.load_parameters(weights)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    x = draw(3, 5, D)
    expected = theirs(torch.tensor(x))
    (expected**2).sum().backward()
    close("output", ours(x), expected.detach().numpy(), 1e-12)
    gradients = mg.grad(lambda module: mg.sum(module(x) ** 2))(ours).named_parameters()
    assert list(gradients) == [key for key, _ in theirs.named_parameters()]
    for key, parameter in theirs.named_parameters():
        close(f"gradient of {key}", gradients[key], parameter.grad.numpy(), 1e-12)


def test_embedding(torch, close):
    ours = nn.Embedding(7, D, rng=np.random.default_rng(0), dtype=np.float64)
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(ours.weight), freeze=False)
    tokens = np.array([[1, 6, 1], [0, 1, 3]])
    expected = theirs(torch.tensor(tokens))
    (expected**3).sum().backward()
    close("output", ours(tokens), expected.detach().numpy(), 1e-12)
    gradient = mg.grad(lambda module: mg.sum(module(tokens) ** 3))(ours).weight
    close("gradient of weight", gradient, theirs.weight.grad.numpy(), 1e-12)


def test_conv1d(torch, close):
    """Theirs weighs the present with the last entry of a filter, ours with the first."""
    ours = nn.Conv1d(D, 4, rng=np.random.default_rng(0), dtype=np.float64)
    theirs = torch.nn.Conv1d(D, D, 4, groups=D, padding=3, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(ours.weight[:, None, ::-1].copy()))
        theirs.bias.copy_(torch.tensor(ours.bias))
    x = draw(2, 9, D)
    expected = theirs(torch.tensor(x).mT)[..., :9].mT
    (expected**2).sum().backward()
    close("output", ours(x)[0], expected.detach().numpy(), 1e-12)
    gradients = mg.grad(lambda module: mg.sum(module(x)[0] ** 2))(ours)
    close("gradient of weight", gradients.weight, theirs.weight.grad.numpy()[:, 0, ::-1], 1e-12)
    close("gradient of bias", gradients.bias, theirs.bias.grad.numpy(), 1e-12)


class Pair(nn.Module):
    """A matrix and a vector: ours decays matrices only."""

    def __init__(self):
        self.matrix, self.vector = draw(3, 4), draw(4, seed=1)


def optimisers(torch):
    """Return, by name, our optimiser and theirs over (matrix, vector)."""
    adam = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3}
    return {
        "SGD": (optim.SGD(0.1), lambda m, v: torch.optim.SGD([m, v], 0.1)),
        "momentum": (optim.SGD(0.1, momentum=0.9), lambda m, v: torch.optim.SGD([m, v], 0.1, momentum=0.9)),
        "AdamW": (
            optim.AdamW(weight_decay=0.2, **adam),
            lambda m, v: torch.optim.AdamW(
                [{"params": [m], "weight_decay": 0.2}, {"params": [v], "weight_decay": 0.0}], **adam
            ),
        ),
    }


@pytest.mark.parametrize("name", ["SGD", "momentum", "AdamW"])
def test_optimiser(name, torch, close):
    ours, make = optimisers(torch)[name]
    model = Pair()
    parameters = [torch.tensor(array, requires_grad=True) for array in (model.matrix, model.vector)]
    theirs = make(*parameters)
    rng = np.random.default_rng(2)
    for step in range(20):
        gradients = Pair()
        gradients.matrix, gradients.vector = rng.normal(size=(3, 4)), rng.normal(size=4)
        ours.step(model, gradients)
        for parameter, gradient in zip(parameters, (gradients.matrix, gradients.vector), strict=True):
            parameter.grad = torch.tensor(gradient)
        theirs.step()
        close(f"matrix after step {step}", model.matrix, parameters[0].detach().numpy(), 1e-12)
        close(f"vector after step {step}", model.vector, parameters[1].detach().numpy(), 1e-12)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping(limit, torch, close):
    """Theirs divides by the norm + 1e-6, hence the tolerance."""
    model = Pair()
    clipped, norm = optim.clip_by_global_norm(model, limit)
    parameters = [torch.zeros(array.shape, dtype=torch.float64) for array in (model.matrix, model.vector)]
    for parameter, gradient in zip(parameters, (model.matrix, model.vector), strict=True):
        parameter.grad = torch.tensor(gradient)
    close("norm", norm, torch.nn.utils.clip_grad_norm_(parameters, limit).numpy(), 1e-12)
    close("matrix", clipped.matrix, parameters[0].grad.numpy(), 1e-6)
    close("vector", clipped.vector, parameters[1].grad.numpy(), 1e-6)
