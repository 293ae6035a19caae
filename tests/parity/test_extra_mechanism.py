"""A mechanism that is one more file is compared on the arrays of PyTorch and JAX, with no other edit."""

import pytest

from proofs.checker.forms import forms
from tests.extra_mechanism import added
from tests.parity import test_namespaces

NAMES = ("gated_average.recurrent", "gated_average.quadratic")


@pytest.fixture(autouse=True)
def _added(tmp_path, monkeypatch):
    with added(tmp_path):
        monkeypatch.setattr(test_namespaces, "FORMS", {form.name: form for form in forms()})
        yield


@pytest.mark.parametrize("name", NAMES)
def test_torch(name, torch, close):
    test_namespaces.test_torch(name, torch, close)
    test_namespaces.test_our_gradients_of_torch_tensors(name, torch, close)


@pytest.mark.parametrize("name", NAMES)
def test_jax(name, jax, close):
    test_namespaces.test_jax(name, jax, close)
    test_namespaces.test_jax_compiles_it(name, jax, close)
