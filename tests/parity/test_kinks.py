"""The table of conventions in PyTorch and in JAX: each row is as it says, or differs where it says so."""

import numpy as np
import pytest

import minigrad as mg
from tests.kinks import KINKS


def agree(kink, value, gradients):
    pairs = zip((value, *gradients), (kink.value, *kink.gradients.values()), strict=True)
    return all(np.allclose(np.asarray(a), b, rtol=1e-12, atol=0, equal_nan=True) for a, b in pairs)


def torch_names(torch):
    """Return the names that expressions use, for tensors."""
    xp, f = mg.namespace(torch.empty(0)), torch.nn.functional
    names = {name: getattr(xp, name) for name in dir(xp)}
    names |= {"relu": f.relu, "silu": f.silu, "gelu": f.gelu, "softplus": f.softplus, "log_sigmoid": f.logsigmoid}
    names |= {"logsumexp": lambda x: torch.logsumexp(x, -1), "softmax": lambda x: torch.softmax(x, -1)}
    names |= {"log_softmax": lambda x: torch.log_softmax(x, -1), "max": torch.amax, "min": torch.amin}
    names |= {"cumulative_max": lambda x, axis: torch.cummax(x, axis).values, "abs": torch.abs, "round": torch.round}
    names |= {"sigmoid": torch.sigmoid, "pow": torch.pow, "clip": torch.clamp}
    return names | {"var": lambda x: torch.var(x, correction=0), "std": lambda x: torch.std(x, correction=0)}


def jax_names(jax):
    """Return the names that expressions use, for JAX's arrays."""
    xp, f = jax.numpy, jax.nn
    names = {name: getattr(xp, name) for name in dir(xp)}
    names |= {"relu": f.relu, "silu": f.silu, "softplus": f.softplus, "log_sigmoid": f.log_sigmoid}
    names |= {"gelu": lambda x: f.gelu(x, approximate=False), "sigmoid": f.sigmoid, "softmax": f.softmax}
    names |= {"logsumexp": jax.scipy.special.logsumexp, "log_softmax": f.log_softmax}
    return names | {"cumulative_max": jax.lax.cummax}


@pytest.mark.parametrize("name", KINKS)
def test_torch(name, torch):
    kink = KINKS[name]
    arguments = [torch.tensor(a, requires_grad=True) for a in kink.arguments.values()]
    value = kink.at(torch_names(torch), *arguments)
    value.sum().backward()
    gradients = [np.zeros(a.shape) if a.grad is None else a.grad.numpy() for a in arguments]
    assert agree(kink, value.detach().numpy(), gradients) == (kink.prefers in ("both", "PyTorch"))


@pytest.mark.parametrize("name", KINKS)
def test_jax(name, jax):
    kink = KINKS[name]
    value, pull = jax.vjp(lambda *xs: kink.at(jax_names(jax), *xs), *map(jax.numpy.asarray, kink.arguments.values()))
    assert agree(kink, value, pull(jax.numpy.ones_like(value))) == (kink.prefers in ("both", "JAX"))
