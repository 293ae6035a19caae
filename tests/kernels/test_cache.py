"""The cache of compiled code on disk, and what happens where it cannot be written or read."""

import errno
import importlib.util
import os
import subprocess
import sys
import warnings

import numba
import pytest

from minigrad.compiled import compilation

SOURCE = "from minigrad.compiled.simd import kernel\n\n\n@kernel\ndef {name}(x):\n    return {factor} * x\n"

NOWHERE = """
import os, tempfile, warnings
import numpy as np

def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")

os.makedirs = tempfile.TemporaryFile = tempfile.mkstemp = refuse  # whatever folder Numba tries

import minigrad as mg
from minigrad import compiled

a, x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 20))
with warnings.catch_warnings(record=True) as messages:
    warnings.simplefilter("always")
    found = mg.scan(a, x, axis=0)
h = np.zeros(20)
for i in range(64):
    h = a[i] * h + x[i]
    np.testing.assert_allclose(found[i], h, rtol=1e-10, atol=1e-12)
assert compiled.numba_module("minigrad.compiled.scan")._scan.signatures  # the compiled form, not the plain one
print(*(str(one.message) for one in messages), sep="\\n")
"""


@pytest.fixture(autouse=True)
def no_warning_yet(monkeypatch):
    monkeypatch.setattr(compilation, "_warned", set())


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads a module with a kernel that multiplies by a factor, and returns the kernel.

    Without Python's own cache, which takes two sources of one size, written in one second, for the same. Code is kept
    beside the source, whatever NUMBA_CACHE_DIR is.
    """
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")

    def load(name="scaled", factor=2, text=""):
        source = tmp_path / f"{name}.py"
        source.write_text(text or SOURCE.format(name=name, factor=factor))
        specification = importlib.util.spec_from_file_location(f"package.{name}", source)
        module = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = module
        specification.loader.exec_module(module)
        return getattr(module, name)

    return load


def compiled_anew(function, argument, expected):
    assert function(argument) == expected
    hits, misses = (sum(counts.values()) for counts in (function.stats.cache_hits, function.stats.cache_misses))
    assert hits + misses == 1
    return bool(misses)


def files(tmp_path):
    return sorted((tmp_path / "__pycache__").glob("*.nbc*"))


def test_the_cache_has_one_file_for_each_signature(load, tmp_path):
    assert compiled_anew(load(), 21, 42)
    assert not compiled_anew(load(), 21, 42)
    assert compiled_anew(load(), 0.5, 1.0)
    assert not compiled_anew(load(), 21, 42) and not compiled_anew(load(), 0.5, 1.0)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
        lambda content: b"\x80\x04garbage" * 100,
        lambda content: content + content,
    ],
    ids=["empty", "short", "truncated", "one bit", "garbage", "twice"],
)
def test_a_damaged_file_is_compiled_again_and_mended(load, tmp_path, damage):
    load()(21)
    (file,) = files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert compiled_anew(load(), 21, 42)
    assert not compiled_anew(load(), 21, 42)
    assert files(tmp_path) == [file]


def test_code_of_other_types_under_the_name_is_not_taken(load, tmp_path):
    load()(21)
    (whole,) = files(tmp_path)
    load()(0.5)
    (other,) = set(files(tmp_path)) - {whole}
    other.replace(whole)
    assert compiled_anew(load(), 21, 42)


@pytest.mark.parametrize("place", range(3))
def test_code_of_another_version_is_not_taken(load, monkeypatch, place):
    """Change the version of Python, Numba or llvmlite in the key."""
    versions = list(compilation.VERSIONS)
    versions[place] = "0.1"
    with monkeypatch.context() as patch:
        patch.setattr(compilation, "VERSIONS", tuple(versions))
        load()(21)
    assert compiled_anew(load(), 21, 42)


def test_files_of_numba_s_own_cache_are_left_alone(load, tmp_path):
    load()(21)
    theirs = [file.with_suffix(suffix) for file in files(tmp_path) for suffix in (".nbi", ".1.nbc")]
    for file in theirs:
        file.write_bytes(b"\x80\x04garbage")
    assert not compiled_anew(load(), 21, 42)
    assert {file.read_bytes() for file in theirs} == {b"\x80\x04garbage"}


def test_another_source_is_compiled_again(load):
    load(factor=2)(21)
    assert compiled_anew(load(factor=3), 21, 63)


def test_another_source_of_what_is_called_is_compiled_again(load):
    caller = "from package.inner import inner\n" + SOURCE.format(name="outer", factor="1 + inner(x) + 0")
    for factor, again in ((2, True), (2, False), (3, True)):
        load("inner", factor)
        assert compiled_anew(load("outer", text=caller), 10, 10 * factor + 1) is again


@pytest.mark.parametrize("where", ["tempfile.mkstemp", "os.replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_full_disk_is_one_warning_and_leaves_nothing(load, tmp_path, monkeypatch, where, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    module, _, name = where.partition(".")
    monkeypatch.setattr(getattr(compilation, module), name, refuse)
    first, second = load("first"), load("second", factor=3)
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        assert first(21) == 42 and second(21) == 63 and first(0.5) == 1.0
    assert [str(one.message) for one in messages] == [
        f"compiled code is not kept: [Errno {number}] {os.strerror(number)}"
    ]
    assert not files(tmp_path)


def test_without_a_writable_folder_there_is_one_warning(tmp_path):
    done = subprocess.run([sys.executable, "-c", NOWHERE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("compiled code is not kept, every process compiles again: cannot cache function")


def test_numba_cache_dir_sets_the_folder(tmp_path):
    code = "import numpy as np, minigrad as mg; mg.sigmoid(np.ones(5000))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "made" / "here")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [file.suffix for file in (tmp_path / "made" / "here").rglob("fused_elementwise._sigmoid*")] == [".nbc"]
