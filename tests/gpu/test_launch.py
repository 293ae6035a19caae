"""Launch errors: each is one line, and leaves the arrays unchanged."""

import contextlib
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from gpu import emulator, launch
from gpu.cases import CASES
from gpu.kernels import linear_attention, softmax
from gpu.launch import DeviceMemoryError
from gpu.precision import matmul_precision
from models.memory import linear_attention as form
from tests.fake_cupy import asarray
from tests.gpu import fake_gpu

EXACT = [name for name, case in CASES.items() if case.precision == "float32"]


@pytest.fixture
def device(monkeypatch):
    return fake_gpu.install(monkeypatch)


def draw(name, dtype="float32"):
    return tuple(map(asarray, CASES[name].draw(dtype, small=True)))


def copies(arrays):
    return [x.inside.copy() for x in arrays]


def unharmed(arrays, before, name="linear_attention"):
    """Fail unless the arrays are unchanged and the kernel computes the same from them as on the host."""
    for x, y in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(x.inside, y)
    for x, y in zip(CASES[name].run(*arrays), CASES[name].run(*before), strict=True):
        np.testing.assert_array_equal(x.get(), y)


@pytest.mark.parametrize("name", EXACT)
def test_every_kernel_runs_where_its_arrays_are(device, name):
    arrays = draw(name)
    unharmed(arrays, copies(arrays), name)
    assert device.launches


@pytest.mark.parametrize(
    ("name", "dtype", "available", "message"),
    [
        (
            "linear_attention",
            "float32",
            20 << 10,
            "linear_attention: K = 40, V = 33 in float32 needs 25,344 bytes of shared memory, device 0 has 20,480 for "
            "a block: take smaller widths or a form that is not fused",
        ),
        (
            "titans",
            "float64",
            64 << 10,
            "titans_forward: K = 40, V = 33 in float64 needs 83,712 bytes of shared memory, device 0 has 65,536 for a "
            "block: take float32 or smaller widths or a form that is not fused",
        ),
        (
            "gated_delta_rule",
            "float32",
            24 << 10,
            "gated_delta_rule: K = 40, V = 33 in float32 needs 25,856 bytes of shared memory, device 0 has 24,576 for "
            "a block: take smaller widths or a form that is not fused",
        ),
    ],
)
def test_more_shared_memory_than_a_block_can_have(device, name, dtype, available, message):
    arrays = draw(name, dtype)
    before, most = copies(arrays), device.attributes["MaxSharedMemoryPerBlockOptin"]
    device.attributes["MaxSharedMemoryPerBlockOptin"] = available
    with pytest.raises(DeviceMemoryError) as raised:
        CASES[name].run(*arrays)
    assert (str(raised.value), device.launches) == (message, [])
    device.attributes["MaxSharedMemoryPerBlockOptin"] = most
    unharmed(arrays, before, name)


def test_all_shared_memory_of_a_block_can_be_used(device):
    arrays = draw("linear_attention")
    device.attributes["MaxSharedMemoryPerBlockOptin"] = 25_344
    unharmed(arrays, copies(arrays))
    device.attributes["MaxSharedMemoryPerBlockOptin"] = 25_343
    with pytest.raises(DeviceMemoryError):
        linear_attention.forward(*arrays[:4])


@pytest.mark.parametrize("name", CASES)
def test_a_block_asks_for_no_more_shared_memory_than_it_touches(monkeypatch, name):
    """Run with less shared memory by at most the padding of a row, which must be an access outside."""
    on_host, too_much = launch._emulated_module, []

    def with_less(source, defines):
        def get_function(kernel):
            run = on_host(source, defines).get_function(kernel)

            def call(grid, block, arguments, *, shared_mem):
                if shared_mem:
                    copies = [x.copy() for x in arguments]
                    with contextlib.suppress(emulator.KernelError):
                        run(grid, block, copies, shared_mem=shared_mem - min(80, shared_mem // 2))
                        too_much.append(kernel)
                run(grid, block, arguments, shared_mem=shared_mem)

            return call

        return SimpleNamespace(get_function=get_function)

    monkeypatch.setattr(launch, "_emulated_module", with_less)
    CASES[name].run(*CASES[name].draw("float32", small=True))
    assert too_much == []


def test_tensor_cores_where_they_are_asked_for_and_there(device):
    arrays = draw("linear_attention")

    def run():
        (y, S), saved = linear_attention.forward(*arrays[:4])
        return y, S, *linear_attention.backward(saved, arrays[4:])

    exact = run()
    with matmul_precision("tensorfloat32"):
        rounded = run()
        device.attributes["MaxSharedMemoryPerBlockOptin"] = 53_247  # a byte less than these tiles need
        small = run()
        device.compute_capability = "75"
        old = run()
    for x, y, *others in zip(exact, rounded, small, old, strict=True):
        assert x.get().tobytes() != y.get().tobytes()
        assert all(x.get().tobytes() == other.get().tobytes() for other in others)


def test_out_of_memory_names_the_array(device):
    arrays = draw("linear_attention")
    before, room = copies(arrays), device.room
    device.room = 10_000
    with pytest.raises(DeviceMemoryError) as raised:
        linear_attention.forward(*arrays[:4])
    full = "Out of memory allocating 18,480 bytes (allocated so far: 0 bytes)."
    assert str(raised.value) == f"device 0 has no room for float32 (2, 70, 33): {full}"
    device.room = room
    _, saved = linear_attention.forward(*arrays[:4])
    device.room = 10_000
    with pytest.raises(DeviceMemoryError, match="no room for float32"):
        linear_attention.backward(saved, arrays[4:])
    device.room = room
    unharmed(arrays, before)


def test_unsupported_arrays_are_named(device):
    arrays = draw("linear_attention")
    before, (q, k, v, S, *_) = copies(arrays), arrays
    for bad, error, message in (
        (asarray(k.inside.astype("float16")), TypeError, "k is float16, expected float32 or float64 or bfloat16"),
        (asarray(k.inside.astype(int)), TypeError, "k is int64, expected float32 or float64 or bfloat16"),
        (
            asarray(k.inside.astype(float)),
            TypeError,
            "k is cupy float64 on device 0, expected cupy float32 on device 0 as q is",
        ),
        (
            asarray(np.asfortranarray(k.inside)),
            ValueError,
            "k is not contiguous, expected one that ascontiguousarray has made",
        ),
        (
            asarray(k.inside[:, :0]),
            ValueError,
            "k has shape (2, 0, 40), expected at least one element along every axis",
        ),
        (
            fake_gpu.at(k.inside, fake_gpu.Device(1)),
            TypeError,
            "k is cupy float32 on device 1, expected cupy float32 on device 0 as q is",
        ),
        (k.inside, TypeError, "k is numpy float32, expected cupy float32 on device 0 as q is"),
    ):
        with pytest.raises(error) as raised:
            linear_attention.forward(q, bad, v, S)
        assert str(raised.value) == f"linear_attention: {message}"
    assert device.launches == []
    unharmed(arrays, before)


def test_bfloat16_arrays(device):
    q, k, v, dy = (asarray(x.astype(ml_dtypes.bfloat16)) for x in CASES["softmax"].draw("float32", small=True))
    y, saved = softmax.forward(q, k, v, causal=True, scale=0.5)
    results = y, *softmax.backward(saved, dy)
    expected, saved = softmax.forward(*(x.inside for x in (q, k, v)), causal=True, scale=0.5)
    for x, expected_array in zip(results, (expected, *softmax.backward(saved, dy.inside)), strict=True):
        assert x.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(x.get(), expected_array)
    device.launches.clear()
    with pytest.raises(TypeError, match=r"^softmax: dy is cupy float32 on device 0, expected cupy bfloat16 on"):
        softmax.backward(saved._replace(q=q), asarray(dy.inside.astype("f")))
    device.attributes["MaxSharedMemoryPerBlockOptin"] = 20_000
    with pytest.raises(DeviceMemoryError) as raised:
        softmax.forward(q, k, v, causal=True, scale=0.5)
    assert str(raised.value) == (
        "softmax_forward: K = 40, V = 33 in bfloat16 needs 36,864 bytes of shared memory, device 0 has 20,000 for a "
        "block: take float32 or smaller widths or a form that is not fused"
    )
    with pytest.raises(TypeError, match="^titans: q is bfloat16, expected float32 or float64$"):
        CASES["titans"].run(q, *draw("titans")[1:])
    with pytest.raises(TypeError, match="^softmax: k is float16, expected float32 or float64 or bfloat16$"):
        softmax.forward(q, asarray(k.inside.astype("float16")), v, causal=True, scale=0.5)
    device.compute_capability = "75"
    with pytest.raises(TypeError) as raised:
        softmax.forward(q, k, v, causal=True, scale=0.5)
    message = "softmax: q is bfloat16, which needs compute capability 80, device 0 has 75: take float32"
    assert str(raised.value) == message
    assert device.launches == []


@pytest.mark.parametrize("name", EXACT)
def test_cotangents_are_checked(device, name):
    *arrays, g = draw(name)
    before, odd = copies((*arrays, g)), asarray(g.inside.astype("complex64") if g.dtype.kind == "f" else g.inside.real)
    with pytest.raises(TypeError, match=r": d\w* is "):
        CASES[name].run(*arrays, odd)
    unharmed((*arrays, g), before, name)


def test_forms_on_a_device_accept_any_strides(device):
    q, k, v = (asarray(x) for x in np.random.default_rng(0).standard_normal((3, 3, 40, 2)).swapaxes(1, 2))
    y, _ = form.fused(q, k, v)
    np.testing.assert_allclose(y.get(), form.parallel(*(x.inside for x in (q, k, v)))[0], rtol=0, atol=1e-12)
    assert device.launches == ["linear_attention"]
    with pytest.raises(TypeError, match=r"^linear_attention: k is float16, expected float32 or float64 or "):
        form.fused(q, asarray(k.inside.astype("float16")), v)
    device.attributes["MaxSharedMemoryPerBlockOptin"] = 0
    with pytest.raises(DeviceMemoryError, match=r"a form that is not fused$"):
        form.fused(q, k, v)
    np.testing.assert_allclose(form.chunkwise(q, k, v)[0].get(), y.get(), rtol=0, atol=1e-12)


def test_a_header_that_changes_is_compiled_again(device, monkeypatch, tmp_path):
    """CuPy's cache on disk is keyed by source and options, and ignores headers."""
    compiled = []
    monkeypatch.setattr("cupy.RawModule", lambda *, code, options: compiled.append((code, options)))
    for file in launch.KERNELS.glob("*.cu*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(launch, "KERNELS", tmp_path)
    for header in ("", "", "// another"):
        (tmp_path / "another.cuh").write_text(header, encoding="utf-8")
        launch._device_module.__wrapped__("softmax", ("REAL=float",), 0)
    first, same, other = compiled
    assert first == same != other
    assert first[0] == other[0]
