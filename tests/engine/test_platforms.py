"""Nothing needs Linux: what macOS and Windows lack is taken away, and everything runs that a user runs first."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import left_out

ROOT = Path(__file__).parents[2]

# Read by every Python process before anything else, those that a program starts included.
ELSEWHERE = """
import ctypes, multiprocessing, os, signal, sys

HIDDEN = "fcntl", "resource", "pwd", "grp", "termios", "cupy", "cupyx", "torch", "jax"

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name in HIDDEN else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
for name in HIDDEN:
    sys.modules.pop(name, None)
for name in ("sched_getaffinity", "sched_setaffinity", "fork", "forkpty", "register_at_fork", "getuid", "geteuid",
             "getgid", "sysconf", "getloadavg", "fchmod", "getpgid", "setsid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGQUIT"):
    if hasattr(signal, name):
        delattr(signal, name)
signal.SIGBREAK = signal.SIGTERM  # some number that a handler can be set for

class CDLL(ctypes.CDLL):
    def __init__(self, name, *args, **options):
        if name is None:
            raise TypeError("an integer is required")  # Windows: no handle of the whole process
        super().__init__(name, *args, **options)

ctypes.CDLL = CDLL
multiprocessing.set_start_method("spawn")
"""

IMPORTS = """
import importlib, os, pkgutil
import benchmarks, gpu, minigrad, models, proofs

assert not hasattr(os, "fork") and not hasattr(os, "sched_getaffinity")
optional = {"torch", "jax", "cupy", "autograd", "fla", "mambapy", "matplotlib", "jinja2", "sklearn", "tokenizers"}
for package in (minigrad, models, proofs, gpu, benchmarks):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "peers" in module.name or ".test_" in module.name:
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] in optional, module.name
assert minigrad.get_num_threads() == os.cpu_count()
assert minigrad.keep_freed_memory() is False
"""

FUSED = """
import warnings
import numpy as np
import minigrad as mg
from models.memory import delta_rule

rng = np.random.default_rng(0)
q, k, v = rng.normal(size=(3, 6, 4))
beta = rng.uniform(size=6)
mg.set_num_threads(2)
with warnings.catch_warnings():
    warnings.simplefilter("error")  # the compiled form, not the plain one
    found = mg.grad(lambda k: mg.sum(delta_rule.fused(q, k, v, beta)[0]))(k)
np.testing.assert_allclose(found, mg.grad(lambda k: mg.sum(delta_rule.recurrent(q, k, v, beta)[0]))(k), rtol=1e-9)
"""


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment["MINIGRAD_NUM_THREADS"] = ""

    def run(*arguments):
        process = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        return process

    return run


def test_every_module_can_be_imported(elsewhere):
    elsewhere("-c", IMPORTS)


def test_a_fused_form_runs_its_kernel(elsewhere):
    elsewhere("-c", FUSED)


def test_a_small_model_trains_and_goes_on(elsewhere, tmp_path):
    sizes = "--width 16 --layers 1 --heads 2 --batch 2 --length 16".split()
    elsewhere("-m", "models", "train", "--task", "recall", *sizes, "--steps", "2", "--out", "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3


def test_a_statement_is_checked_by_processes_that_are_spawned(elsewhere):
    process = elsewhere(
        "-m", "proofs", "check", "linear_attention.order_of_multiplication", "--profile", "quick", "--processes", "2"
    )
    assert "1 hold, 0 fail" in process.stdout


def test_what_there_is_can_be_listed(elsewhere):
    for arguments in (["models", "list"], ["models", "map"], ["benchmarks", "list"], ["gpu", "info"]):
        elsewhere("-m", *arguments)


SYSTEMS = {
    "Linux": {"platform_machine": "x86_64"},
    "Windows": {"platform_machine": "AMD64"},
    "Darwin": {"platform_machine": "arm64"},
    "Darwin, Intel": {"platform_machine": "x86_64"},
}


def installed(extra, system):
    """Return the packages that pip installs for setup.cfg's lines on a system."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    environment = {"platform_system": system.partition(",")[0], **SYSTEMS[system]}
    lines = config["options"]["install_requires"] + config["options.extras_require"][extra]
    expected = [Requirement(line) for line in lines.strip().splitlines()]
    return {x.name for x in expected if x.marker is None or x.marker.evaluate(environment)}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_extra_test_asks_for_what_there_is(system):
    """No wheels: of CuPy and NVRTC for macOS, of Numba and llvmlite for Macs with Intel's processors."""
    gpu, compiler = {"cupy-cuda13x", "nvidia-cuda-nvrtc"}, {"numba", "llvmlite"}
    result = installed("test", system)
    assert {"numpy", "scipy", "pytest", "safetensors"} <= result
    assert result & gpu == (gpu if system == "Linux" else set())
    assert result & compiler == (set() if system == "Darwin, Intel" else compiler)


def test_only_tests_of_gpus_and_of_c_are_left_out_and_on_linux_none():
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert not any(left_out(file, "Linux") for file in files)
    for system in ("Darwin", "Windows"):
        result = {file.relative_to(ROOT / "tests").as_posix() for file in files if left_out(file, system)}
        elsewhere = {name for name in result if not name.startswith("gpu/")}
        assert {"engine/test_cupy.py", "forms/test_values.py", "port/test_ports_in_c.py"} <= elsewhere
        assert len(elsewhere) < 8
        assert len(result) > 20
