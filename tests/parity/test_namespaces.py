"""One source, many libraries: every form runs on torch tensors and on JAX arrays, and gives what NumPy gives.

A porter may call our function inside a PyTorch or JAX model, so their autodiff must go through it too.
"""

import numpy as np
import pytest

import minigrad as mg
from proofs.checker.forms import forms

FORMS = {form.name: form for form in forms() if not form.compiled}


def reference(form):
    """Return the output of a form on NumPy arrays, and the gradients of the sum of its squares."""
    arrays = list(form.sample(11).values())
    gradients = mg.grad(lambda *args: mg.sum(form.function(*args)[0] ** 2), tuple(range(len(arrays))))(*arrays)
    return arrays, form.function(*arrays)[0], gradients


@pytest.mark.parametrize("name", FORMS)
def test_torch(name, torch, close):
    arrays, expected, gradients = reference(FORMS[name])
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    out, _ = FORMS[name].function(*tensors)
    assert isinstance(out, torch.Tensor)
    close("output", out.detach().numpy(), expected, 1e-12)
    for i, gradient in enumerate(torch.autograd.grad((out**2).sum(), tensors)):
        close(f"gradient of argument {i}", gradient.numpy(), gradients[i], 1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_jax(name, jax, close):
    arrays, expected, gradients = reference(FORMS[name])
    arguments = tuple(map(jax.numpy.asarray, arrays))
    out, _ = FORMS[name].function(*arguments)
    assert isinstance(out, jax.Array)
    close("output", out, expected, 1e-12)
    theirs = jax.grad(lambda args: (FORMS[name].function(*args)[0] ** 2).sum())(arguments)
    for i, gradient in enumerate(theirs):
        close(f"gradient of argument {i}", gradient, gradients[i].conj(), 1e-12)  # JAX's gradients are the conjugates


@pytest.mark.parametrize("name", FORMS)
def test_jax_compiles_it(name, jax, close):
    """Under `jit` shapes are known and values are not: no form may look at a value."""
    arrays, expected, _ = reference(FORMS[name])
    close("output", jax.jit(lambda *args: FORMS[name].function(*args)[0])(*arrays), expected, 1e-12)


def test_jax_compiles_a_numpy_condition(jax):
    """Arrays that JAX traces have no device for the condition to follow."""
    mask, x = np.array([True, False]), np.array([1.0, 2.0])
    compiled = jax.jit(lambda x: mg.where(mask, x, -x))
    np.testing.assert_array_equal(compiled(x), mg.where(mask, x, -x))


@pytest.mark.parametrize("name", FORMS)
def test_our_gradients_of_torch_tensors(name, torch, close):
    """A Tensor may hold a torch tensor: our own backward pass, first and second order, runs on it too."""
    arrays, _, gradients = reference(FORMS[name])
    argnums = tuple(range(len(arrays)))

    def loss(*args):
        return mg.sum(FORMS[name].function(*args)[0] ** 2)

    ours = mg.grad(loss, argnums)(*map(torch.tensor, arrays))
    for i, gradient in enumerate(ours):
        assert isinstance(gradient, torch.Tensor)
        close(f"gradient of argument {i}", gradient.numpy(), gradients[i], 1e-12)
    q, rest = torch.tensor(arrays[0]), [torch.tensor(array) for array in arrays[1:]]
    along = np.linspace(1, 2, arrays[0].size).reshape(arrays[0].shape)  # a constant would not change RWKV-4's outputs
    (curved,) = mg.hvp(lambda q: loss(q, *rest), [q], [torch.tensor(along)])
    (expected,) = mg.hvp(lambda q: loss(q, *arrays[1:]), [arrays[0]], [along])
    close("curvature along q", curved.numpy(), expected, 1e-12)
