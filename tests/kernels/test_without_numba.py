"""Without Numba, or where LLVM cannot be loaded, the plain forms run, after one warning. Other errors propagate."""

import os
import subprocess
import sys

import pytest

from minigrad import compiled

USE = """
import warnings
import numpy as np
import minigrad as mg
import models
from models.language.config import Config
from models.language.lm import LanguageModel
from models.memory import delta_rule
from models.ssm import selective_scan

rng = np.random.default_rng(0)
u, delta, B, C = (rng.uniform(0.1, 1, shape) for shape in ((20, 3), (20, 3), (20, 2), (20, 2)))
A, D = -rng.uniform(1, 2, (3, 2)), rng.standard_normal(3)
q, k, v = rng.normal(size=(3, 6, 4))
beta = rng.uniform(size=6)
model, tokens = LanguageModel(Config(mixer="mamba", width=16, layers=1), rng), np.arange(24).reshape(2, 12)
with warnings.catch_warnings(record=True) as messages:
    warnings.simplefilter("always")
    scanned = selective_scan.fused(u, delta, A, B, C, D)[0]
    selective_scan.fused(u, delta, A, B, C, D)
    ruled = delta_rule.fused(q, k, v, beta)[0]
    large = mg.sigmoid(np.linspace(-3, 3, 5000))
    loss, _ = mg.value_and_grad(lambda model: mg.cross_entropy(model(tokens)[0], tokens))(model)
np.testing.assert_allclose(scanned, selective_scan.recurrent(u, delta, A, B, C, D)[0], rtol=1e-12)
np.testing.assert_allclose(ruled, delta_rule.recurrent(q, k, v, beta)[0], rtol=1e-10)
np.testing.assert_allclose(large, 1 / (1 + np.exp(-np.linspace(-3, 3, 5000))), rtol=1e-12)
assert np.isfinite(loss)
print(*(str(one.message) for one in messages), sep="\\n")
"""
MISSING = "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None\n"
BROKEN = """
import sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "llvmlite.binding":
            raise OSError("Could not find/load shared object file 'libllvmlite.so'")
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(
    ("before", "environment", "reason"),
    [
        (MISSING, {}, "ModuleNotFoundError: import of numba halted; None in sys.modules"),
        (BROKEN, {}, "OSError: Could not find/load shared object file 'libllvmlite.so'"),
        ("", {"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set"),
    ],
    ids=["no numba", "no LLVM", "switched off"],
)
def test_the_plain_forms_run_and_one_warning_says_so(before, environment, reason):
    done = subprocess.run(
        [sys.executable, "-c", before + USE], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"no compiled kernels, the plain forms run instead ({reason})"]


@pytest.mark.parametrize("error", [ImportError("a name that is not there"), ValueError("a bug"), RuntimeError("no")])
def test_errors_of_a_kernel_module_propagate(monkeypatch, error):
    def fail(name):
        if name.startswith("models"):
            raise error
        return sys.modules[name]

    assert compiled._compiler_starts()
    monkeypatch.setattr(compiled.importlib, "import_module", fail)
    with pytest.raises(type(error), match=str(error)):
        compiled.numba_module.__wrapped__("models.kernels.selective_scan")  # without what was found before
