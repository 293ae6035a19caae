"""The table of kernels: what it names is there, and a form without its kernel is its reference form."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad import compiled
from minigrad.pytree import arrays_of
from models.forms import mechanisms
from models.kernels.dispatch import KERNELS
from proofs.checker.forms import forms

ROOT = Path(__file__).parents[2]
COMPILED = [form for form in forms() if form.compiled]


@pytest.mark.parametrize("name", KERNELS)
def test_what_an_entry_names_is_there(name):
    mechanism, kernel = name.partition(":")[0], KERNELS[name]
    assert kernel.reference in mechanisms()[mechanism]
    for path in filter(None, (kernel.numba, kernel.cuda)):
        module = importlib.import_module(path)
        inputs = [list(inspect.signature(getattr(module, way)).parameters) for way in ("forward", "backward")]
        assert len(inputs[1]) == 2 and inputs[0]


@pytest.mark.parametrize("form", COMPILED, ids=lambda form: form.name)
def test_a_form_without_its_kernel_is_the_reference_form(monkeypatch, form):
    monkeypatch.setattr(compiled, "_compiler_starts", lambda: False)
    monkeypatch.setattr(compiled, "numba_module", lambda path: None)
    mechanism = form.function.__module__.removeprefix("models.")
    names = {kernel.reference for name, kernel in KERNELS.items() if name.partition(":")[0] == mechanism}
    (reference,) = (each for each in forms() if each.name in {form.name.replace(".fused", f".{x}") for x in names})
    tokens = form.sample(20)
    for actual, expected in zip(arrays_of(form(tokens)), arrays_of(reference(tokens)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-13)


def test_every_kernel_of_a_compiled_form_is_in_the_table():
    assert {name.partition(":")[0] for name in KERNELS} - {"ssm.lti"} == {
        form.function.__module__.removeprefix("models.") for form in COMPILED
    }


def test_no_kernel_is_imported_before_it_is_called():
    code = """
import sys
import models.cli
print(*(name for name in sys.modules if name.startswith(("numba.", "models.kernels.", "gpu.kernels."))))
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["models.kernels.dispatch"]


def test_scan_finds_the_kernel_of_a_device_whatever_was_imported_before():
    code = """
import numpy as np
import minigrad as mg
from minigrad.compiled import scan_kernel

class Array:  # as a module of that name would have it
    __module__, dtype, size = "cupy", np.dtype("f"), 1

print(scan_kernel(Array(), Array()).__module__)
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["gpu.kernels.scan"]
