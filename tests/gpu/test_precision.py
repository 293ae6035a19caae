"""Fewer bits where they are asked for, and where the device and the numbers allow it."""

from types import SimpleNamespace

import numpy as np
import pytest

from gpu.precision import matmul_precision, operand


def on_device(dtype, capability, shared=99 << 10):
    """As much of a CuPy array as is asked."""
    device = SimpleNamespace(compute_capability=capability, attributes={"MaxSharedMemoryPerBlockOptin": shared})
    return SimpleNamespace(dtype=np.dtype(dtype), device=device)


@pytest.mark.parametrize(("name", "expected"), [("float32", None), ("tensorfloat32", "Tf32"), ("bfloat16", "Bf16")])
def test_only_what_is_asked_for_and_can_be_done_is_rounded(name, expected):
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


def test_another_name_is_refused():
    said = "^matmul_precision: name is 'tf32', expected 'float32' or 'tensorfloat32' or 'bfloat16'$"
    with pytest.raises(ValueError, match=said), matmul_precision("tf32"):
        pass
