"""The engine and the mechanisms need NumPy, SciPy, Numba, jaxtyping, array-api-compat and threadpoolctl only."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HIDE = """
import sys
from importlib.machinery import PathFinder

ALLOWED = {"array_api_compat", "jaxtyping", "llvmlite", "numba", "numpy", "scipy", "threadpoolctl", "wadler_lindig",
           "minigrad", "models", "gpu", "proofs", "benchmarks", *sys.stdlib_module_names}

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.startswith("_") or name.partition(".")[0] in ALLOWED:
            return super().find_spec(name, path, target)
        return None

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
USE = """
import numpy as np
import minigrad as mg
from models.language.config import Config
from models.language.lm import LanguageModel
from models.memory import linear_attention

q, k, v = np.random.default_rng(0).normal(size=(3, 5, 2))
for form in (linear_attention.recurrent, linear_attention.chunkwise, linear_attention.fused):
    gradient = mg.grad(lambda q: mg.sum(form(q, k, v)[0] ** 2))(q)
    assert gradient.shape == q.shape
model = LanguageModel(Config(mixer="mamba", width=16, layers=1), np.random.default_rng(0))
assert np.isfinite(model(np.arange(8)[None])[0]).all()
print("done")
"""


def test_the_engine_and_a_model_run_without_the_extras():
    run = subprocess.run([sys.executable, "-W", "error", "-c", HIDE + USE], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "done\n", run.stderr


@pytest.mark.parametrize(("package", "extra"), [("models", "cli"), ("gpu", "cli"), ("proofs", "check")])
def test_a_command_line_names_the_extra_that_it_needs(package, extra):
    run = subprocess.run(
        [sys.executable, "-c", f"{HIDE}\nimport runpy\nrunpy.run_module({package!r}, run_name='__main__')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    expected = f"{package}: \\w+ is missing, which the extra '{extra}' installs: pip install -e '.\\[{extra}\\]'\n"
    assert re.fullmatch(expected, run.stderr), run.stderr


def test_types_are_published():
    assert (ROOT / "minigrad" / "py.typed").is_file()
