"""The key of a study's job covers every source file that computes its result, and no other."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.study.job_handlers import HANDLERS
from models.study.jobs import ROOT, digest
from models.study.sources import sources

PACKAGES = ("minigrad", "models", "proofs", "gpu", "benchmarks")
EVERY = frozenset(HANDLERS)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def key(kind, root):
    return digest.__wrapped__(kind, root)


@pytest.fixture(scope="module")
def before(copy):
    return {kind: key(kind, copy) for kind in HANDLERS}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("minigrad/engine.py", EVERY),
        ("minigrad/compiled/simd.py", EVERY),
        ("models/kernels/softmax.py", EVERY),
        ("models/kernels/tiles.py", EVERY),  # which only another kernel imports
        ("models/memory/__init__.py", EVERY - {"hippo"}),
        ("models/blocks/mamba.py", EVERY - {"hippo"}),  # imported relatively
        ("models/study/learning.py", {"train", "induction", "needle", "recall", "surprise", "tones"}),
        ("models/study/cost.py", {"cost", "growth", "scan"}),
        ("models/study/through_time.py", {"through time"}),
        ("models/vision/rotation_ttt.py", {"rotation", "controls"}),
        ("models/recurrent/rnn.py", EVERY - {"hippo"}),  # which proofs find by looking into the packages
        ("proofs/identities/hippo.py", {"proofs"}),
        ("proofs/talks/talk-titans.toml", {"proofs"}),
        ("gpu/kernels/scan.py", {"proofs", "memory"}),
        ("gpu/kernels/common.cuh", {"proofs", "memory"}),
        ("models/attention/softmax.py", EVERY - {"hippo"}),
        ("benchmarks/memory.py", {"memory"}),
        ("models/study/translated.py", {"translation"}),
        ("models/study/figures.py", set()),
        ("models/study/report.py", set()),
        ("models/cli.py", set()),
    ],
)
def test_a_change_of_a_file_changes_the_keys_of_the_jobs_that_it_computes(copy, before, file, changed):
    path = copy / file
    text = path.read_text("utf-8")
    path.write_text(text + "\n", "utf-8")
    try:
        assert {kind for kind in HANDLERS if key(kind, copy) != before[kind]} == changed
    finally:
        path.write_text(text, "utf-8")


def test_a_copy_has_the_keys_of_the_original(before):
    assert before == {kind: key(kind, ROOT) for kind in HANDLERS}


@pytest.mark.parametrize(
    ("handler", "module"),
    [
        ("_train", "models.train"),
        ("_cost", "models.study.cost"),
        ("_grow", "models.study.cost"),
        ("_through_time", "models.study.through_time"),
        ("_remember", "models.study.remembering"),
        ("_surprise", "models.study.learning"),
        ("_rotate", "models.vision.rotation_ttt"),
    ],
)
def test_no_module_that_is_loaded_is_left_out(handler, module):
    code = f"import sys, {module}; print(*(getattr(x, '__file__', '') for x in [*sys.modules.values()]), sep='\\n')"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {Path(line) for line in process.stdout.splitlines() if line.startswith(str(ROOT))}
    loaded = {file for file in loaded if file.relative_to(ROOT).parts[0] in ("minigrad", "models")}
    assert loaded and loaded <= set(sources(handler, ROOT))
