"""Judge a mutant by the tests that import its module."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from proofs.mutate.placing import ROOT, VARIABLE, module_name
from proofs.mutate.relating import imports, named
from proofs.mutate.verdicts import Mutant

SECONDS = 900  # what the tests of a module may take
LEFT_OUT = {"parity", "proofs", "oracle", "gpu", "benchmarks"}  # tests of other libraries, of the checker, of others


def killed_by_tests(mutant: Mutant, source: str) -> str:
    """Return the first file of tests of the mutant's module that fails with the mutant in place; "" where none does.

    Raises RuntimeError for tests that fail without it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(mutant.file).name)
        path.write_text(source, encoding="utf-8")
        for test in tests_of(mutant.file):
            if not _pass(test):
                raise RuntimeError(f"{test} fails without a mutant")
            if not _pass(test, f"{module_name(mutant.file)}={path}"):
                return test
    return ""


@functools.cache
def tests_of(file: str) -> list[str]:
    """Return the files of tests that import a module, those first that have its name."""
    module = module_name(file)
    paths = [p for p in (ROOT / "tests").glob("*/test_*.py") if p.parent.name not in LEFT_OUT]
    found = [p.relative_to(ROOT).as_posix() for p in paths if module in named(p, imports())]
    return sorted(found, key=lambda test: (Path(file).stem not in test, test))


@functools.cache
def _pass(test: str, mutant: str = "") -> bool:
    """Return whether the tests of a file pass, with a mutant if one is named, in time."""
    cache = str(Path(tempfile.gettempdir(), "minigrad-mutants"))  # compiled mutants go there
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, VARIABLE: mutant}
    plugins = ["-p", "no:cacheprovider", "-p", "proofs.mutate.placing"]
    command = [sys.executable, "-m", "pytest", "-x", "-q", *plugins, test]
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False
