"""Compilation: its messages, its cache, and several processes at once."""

import importlib.util
import io
import os
import subprocess
import sys

import numpy as np
import pytest

from minigrad.compiled import compilation

WORKER = """
import sys
import numpy as np
from minigrad.compiled import scan

a, x = np.random.default_rng(0).standard_normal((2, 40, 30)).astype(sys.argv[1])
made = scan.scan(a, x, 0, False)
print(sum(scan._scan.stats.cache_misses.values()), float(made.sum()))
"""


STEP = """
import numpy as np
import minigrad as mg
from minigrad.compiled import compilation
from models.language.config import Config
from models.language.lm import LanguageModel

model = LanguageModel(Config(mixer="mamba", width=64, layers=1), np.random.default_rng(0))
tokens = np.arange(128).reshape(2, 64)
mg.grad(lambda model: mg.cross_entropy(model(tokens)[0], tokens))(model)
stats = [function.stats for function in compilation._lines.names]
print(sum(sum(s.cache_misses.values()) for s in stats), sum(sum(s.cache_hits.values()) for s in stats))
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def compiled(tmp_path):
    """Return a function that compiles a kernel, or loads it from the cache."""
    source = tmp_path / "doubled.py"
    source.write_text("from minigrad.compiled.simd import kernel\n\n\n@kernel\ndef _twice(x):\n    return 2 * x\n")

    def compiled():
        specification = importlib.util.spec_from_file_location("package.doubled", source)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        assert module._twice(21) == 42

    return compiled


def test_a_long_compilation_is_reported_once(compiled, monkeypatch):
    monkeypatch.setattr(compilation, "PATIENCE", 0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    compiled()
    message = sys.stderr.getvalue()
    assert message.startswith("compiling doubled._twice … ") and message.endswith(" s\n") and message.count("\n") == 1
    compiled()  # now from disk
    assert sys.stderr.getvalue() == message


@pytest.mark.parametrize(("patience", "stream"), [(0, io.StringIO), (60, Terminal)])
def test_no_message_without_a_terminal_or_for_a_quick_compilation(compiled, monkeypatch, patience, stream):
    monkeypatch.setattr(compilation, "PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", stream())
    compiled()
    assert sys.stderr.getvalue() == ""


def test_called_functions_are_reported_with_their_caller(tmp_path, monkeypatch):
    source = tmp_path / "nested.py"
    source.write_text(
        "from minigrad.compiled.simd import kernel\n\n\n@kernel\ndef _inner(x):\n    return 2 * x\n\n\n"
        "@kernel\ndef _outer(x):\n    return 1 + _inner(x)\n"
    )
    specification = importlib.util.spec_from_file_location("package.nested", source)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(compilation, "PATIENCE", 0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert module._outer(20) == 41
    message = sys.stderr.getvalue()
    assert (
        message.startswith("compiling nested._outer … ")
        and message.endswith(" s\n")
        and message.count("compiling") == 1
    )


def test_processes_share_what_they_compile_at_once(tmp_path):
    """Start two with the same types and one with others, on an empty cache: it is complete and right afterwards."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def start(dtype):
        command = [sys.executable, "-c", WORKER, dtype]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def finished(process):
        message, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        misses, total = message.split()
        return int(misses), float(total)

    first = [finished(process) for process in [start(dtype) for dtype in ("float32", "float32", "float64")]]
    again = [finished(process) for process in [start("float32"), start("float64")]]
    assert [misses for misses, _ in again] == [0, 0]
    assert {total for _, total in first} == {total for _, total in again}
    np.testing.assert_allclose(again[0][1], again[1][1], rtol=1e-4)


def test_a_second_process_compiles_nothing_for_a_training_step():
    def run():
        done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
        return map(int, done.stdout.split())

    run()
    misses, hits = run()
    assert misses == 0 and hits > 5
