"""Reduced precision where it is requested, and where device and dtype support it."""

from types import SimpleNamespace

import numpy as np
import pytest

from gpu import launch
from gpu.cases import CASES
from gpu.kernels import product
from gpu.precision import matmul_precision, operand
from tests.fake_cupy import asarray
from tests.gpu import fake_gpu


def on_device(dtype, capability, shared=99 << 10):
    """Return a stand-in for a CuPy array, with a dtype and a device."""
    device = SimpleNamespace(compute_capability=capability, attributes={"MaxSharedMemoryPerBlockOptin": shared})
    return SimpleNamespace(dtype=np.dtype(dtype), device=device)


@pytest.mark.parametrize(("name", "expected"), [("float32", None), ("tensorfloat32", "Tf32"), ("bfloat16", "Bf16")])
def test_operands_are_rounded_where_allowed_and_supported(name, expected):
    with matmul_precision(name):
        assert operand(np.zeros(1, "f")) == expected
        assert operand(np.zeros(1, "d")) is None
        for capability in ("80", "90", "100"):
            assert operand(on_device("f", capability)) == expected
            assert operand(on_device("d", capability)) is None
        assert operand(on_device("f", "75")) is None
        assert operand(on_device("f", "80", 1000), 1000) == expected
        assert operand(on_device("f", "80", 1000), 1001) is None
    assert operand(np.zeros(1, "f")) is None


def test_an_unknown_precision_is_refused():
    message = "^matmul_precision: name is 'tf32', expected 'float32' or 'tensorfloat32' or 'bfloat16'$"
    with pytest.raises(ValueError, match=message), matmul_precision("tf32"):
        pass


@pytest.mark.parametrize("name", ["linear_attention", "delta_rule", "gated_linear_attention"])
def test_too_little_shared_memory_selects_full_precision(monkeypatch, name):
    device, needed = fake_gpu.install(monkeypatch), []
    exact, rounded = CASES[name], CASES[f"{name}, tensorfloat32"]
    arrays = tuple(map(asarray, exact.draw("float32", small=True)))
    with monkeypatch.context() as patch:
        patch.setattr(
            launch, "_check_shared_memory", lambda kernel, like, needed_bytes, of: needed.append(needed_bytes)
        )
        at_best = rounded.run(*arrays)
    device.attributes["MaxSharedMemoryPerBlockOptin"] = max(needed) - 1
    for x, y, z in zip(rounded.run(*arrays), exact.run(*arrays), at_best, strict=True):
        assert x.get().tobytes() == y.get().tobytes() != z.get().tobytes()


def test_the_wider_of_keys_and_values_decides_whether_tiles_fit():
    needed = product.shared_bytes(np.zeros(1, "f"), 4 * product.SIDE + 70, "Tf32")
    with matmul_precision("tensorfloat32"):
        for widths in ((3, 70), (70, 3)):
            assert product.choose_operand(on_device("f", "80", needed), 4, *widths) == "Tf32"
            assert product.choose_operand(on_device("f", "80", needed - 1), 4, *widths) is None
