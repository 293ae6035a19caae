"""Outside implementations to compare with, and the comparison.

Everything here comes with `pip install -e '.[parity]'`; no further step is needed. `fla-core` is asked for without its
extras, so that no Triton comes with it: its `naive.py` files are loaded by path, and `import fla` (which wants Triton)
is never executed. Where Triton is present all the same, Hugging Face swaps its functions for fla's kernels;
`functools.wraps` left the plain ones under `__wrapped__`, and those are compared.

An oracle that is not installed fails the test: a comparison that did not happen must not look like one that passed.
Without the extra, leave the tests out with `-m "not parity"`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigrad as mg


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.parity)


def oracle(module: str) -> ModuleType:
    """Import an outside implementation, or fail."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.fail(f"{module}: not installed ({error.name}); pip install -e '.[parity]'", pytrace=False)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """Return PyTorch."""
    return oracle("torch")


@pytest.fixture(scope="session")
def jax() -> ModuleType:
    """Return JAX, in double precision."""
    module = oracle("jax")
    module.config.update("jax_enable_x64", True)
    return module


@pytest.fixture(scope="session")
def s5() -> ModuleType:
    """Return s5-pytorch's initial matrices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it compiles itself with torch.jit
        return oracle("s5.init")


@pytest.fixture(scope="session")
def titans_pytorch() -> ModuleType:
    """Return titans-pytorch's neural memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # one of its requirements uses torch.jit
        return oracle("titans_pytorch")


@pytest.fixture(scope="session")
def performer_pytorch() -> ModuleType:
    """Return performer-pytorch's linear attention."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it compares versions by distutils
        return oracle("performer_pytorch.performer_pytorch")


@pytest.fixture(scope="session")
def fla() -> Callable[[str], ModuleType]:
    """Load `fla/ops/<name>/naive.py`."""

    def load(name: str) -> ModuleType:
        package = importlib.util.find_spec("fla")
        if package is None or not package.submodule_search_locations:
            pytest.fail("fla: not installed; pip install -e '.[parity]'", pytrace=False)
        path = Path(package.submodule_search_locations[0]) / "ops" / name / "naive.py"
        spec = importlib.util.spec_from_file_location(f"fla_naive_{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def transformers() -> Callable[[str], ModuleType]:
    """Load Hugging Face's module of a model, by its name."""
    return lambda name: oracle(f"transformers.models.{name}.modeling_{name}")


@pytest.fixture(scope="session")
def qwen3_next() -> SimpleNamespace:
    """Return Hugging Face's gated delta rule in plain PyTorch, chunked and recurrent."""
    logging.getLogger("transformers").setLevel(logging.ERROR)  # it advises its CUDA kernels
    module = oracle("transformers.models.qwen3_next.modeling_qwen3_next")
    return SimpleNamespace(
        chunk=inspect.unwrap(module.torch_chunk_gated_delta_rule),
        recurrent=inspect.unwrap(module.torch_recurrent_gated_delta_rule),
    )


@pytest.fixture(scope="session")
def kimi_linear() -> SimpleNamespace:
    """Return Hugging Face's Kimi Delta Attention in plain PyTorch, chunked and recurrent."""
    logging.getLogger("transformers").setLevel(logging.ERROR)  # it advises its CUDA kernels
    module = oracle("transformers.models.kimi_linear.modeling_kimi_linear")
    return SimpleNamespace(
        chunk=inspect.unwrap(module.chunk_kimi_delta_attention),
        recurrent=inspect.unwrap(module.recurrent_kimi_delta_attention),
    )


@pytest.fixture(scope="session")
def rwkv_package() -> ModuleType:
    """Return the RWKV authors' package, with RWKV-7, which compiles itself with torch.jit.

    It sets flags of PyTorch, which PyTorch's own tables of samples, used by other tests of the process, have locked.
    """
    flags = oracle("torch.backends").flags_frozen.__globals__
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("RWKV_V7_ON", "1")
        patch.setitem(flags, "__allow_nonbracketed_mutation_flag", True)
        warnings.simplefilter("ignore", DeprecationWarning)
        return oracle("rwkv.model")


@pytest.fixture(scope="session")
def rwkv_vocabulary() -> Path:
    """Return the World vocabulary that comes with the package."""
    return Path(oracle("rwkv.utils").__file__).parent / "rwkv_vocab_v20230424.txt"


def compare(
    ours: Callable[..., Any], theirs: Callable[..., Any], inputs: Mapping[str, np.ndarray], tolerance: float
) -> None:
    """Compare our results and all our gradients with theirs.

    Both functions take the inputs in order, ours as NumPy arrays (or Tensors), theirs as torch tensors, and return a
    tuple of results. Both are pulled back from the same random cotangents, so every derivative takes part. An error is
    relative to the largest entry of what it is compared with.

    Raises:
        AssertionError: naming the result or the gradient that differs, and by how much.
    """
    torch = oracle("torch")
    expected = {name: torch.tensor(array, requires_grad=True) for name, array in inputs.items()}
    results = theirs(*expected.values())
    rng = np.random.default_rng(17)
    cotangents = tuple(_like(rng, result.detach().numpy()) for result in results)
    torch.autograd.backward(
        results, tuple(torch.tensor(c).to(r.dtype) for c, r in zip(cotangents, results, strict=True))
    )
    mine, pull = mg.vjp(ours, *inputs.values())
    assert len(mine) == len(results)
    for i, (left, right) in enumerate(zip(mine, results, strict=True)):
        close(f"result {i}", left, right.detach().numpy(), tolerance)
    for (name, tensor), gradient in zip(expected.items(), pull(cotangents), strict=True):
        close(f"gradient of {name}", gradient, tensor.grad.resolve_conj().numpy(), tolerance)


def close(name: str, left: Any, right: Any, tolerance: float) -> None:
    """Compare two arrays, relative to the largest entry of the second.

    Raises:
        AssertionError: naming the array, the error and the tolerance.
    """
    left, right = np.asarray(left), np.asarray(right)
    assert left.shape == right.shape, f"{name} has shape {left.shape}, expected {right.shape}"
    scale = np.max(np.abs(right), initial=0.0) or 1.0
    error = np.max(np.abs(left - right), initial=0.0) / scale
    assert error <= tolerance, f"{name} differs by {error:.1e} of its largest entry, expected at most {tolerance:.0e}"


def _like(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """Draw float64 or complex128 numbers that float32 holds exactly, since some oracles return it."""
    sample = rng.normal(size=array.shape).astype(np.float32).astype(np.float64)
    return sample + 1j * sample[::-1] if array.dtype.kind == "c" else sample


@pytest.fixture(scope="session", name="compare")
def compare_fixture() -> Callable[..., None]:
    """Return `compare`, for test modules, which pytest imports one by one."""
    return compare


@pytest.fixture(scope="session", name="close")
def close_fixture() -> Callable[..., None]:
    """Return `close`, for test modules."""
    return close
