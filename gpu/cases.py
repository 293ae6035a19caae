"""Cases for `gpu.check` and `gpu.bench`: every kernel, forward and backward, on randomly drawn arrays."""

import importlib
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpu import flops
from gpu.inner_model import WeightLayout
from gpu.kernels import (
    cauchy,
    delta_rule,
    gated_delta_rule,
    gated_linear_attention,
    linear_attention,
    scan,
    selective_scan,
    softmax,
    titans,
    ttt,
    vandermonde,
)
from gpu.precision import matmul_precision

Arrays = tuple[Any, ...]


class Case(NamedTuple):
    """A kernel with its inputs: draw NumPy arrays of a dtype, and run the kernel on them, on any device."""

    draw: Callable[..., Arrays]  # (dtype, *, small[, width]) → inputs and cotangents of the outputs
    inputs: int  # number of inputs among the arrays; the rest are cotangents
    forward: Callable[..., tuple[Arrays, Any]]  # all arrays → (outputs, residuals)
    vjp: Callable[[Any, Arrays], Arrays]  # residuals, cotangents of the outputs → cotangents of the inputs
    flops: flops.Count
    widths: tuple[int, ...] = ()  # common numbers of features of keys and values, where `draw` takes a width
    precision: str = "float32"  # to which operands of matrix products are rounded
    dtype: str = "float32"  # of the arrays as users pass them; gates and states stay float32 beside bfloat16

    def run_forward(self, *arrays: Any) -> tuple[Arrays, Any]:
        """Return (outputs, residuals) at the case's precision."""
        with matmul_precision(self.precision):
            return self.forward(*arrays)

    def run(self, *arrays: Any) -> Arrays:
        """Return the outputs and the cotangents of the inputs."""
        outputs, residuals = self.run_forward(*arrays)
        return *outputs, *self.vjp(residuals, arrays[self.inputs :])


def _draw_scan(dtype: str, *, small: bool) -> Arrays:
    rng, shape = np.random.default_rng(0), (2, 9000, 5) if small else (8, 1 << 14, 1024)  # many tiles in a line
    a = rng.uniform(0.5, 1, shape).astype(dtype)
    x, g = rng.standard_normal((2, *shape), dtype=np.float32).astype(dtype)
    return a, x, g


def _scan(a: Any, x: Any, g: Any) -> tuple[Arrays, Arrays]:
    h = scan.forward(a, x)
    return (h,), (a, h)


def _draw_selective_scan(dtype: str, *, small: bool) -> Arrays:
    rng, (batch, T, D, N) = np.random.default_rng(0), (1, 270, 10, 3) if small else (8, 4096, 1536, 16)
    u, dy = rng.standard_normal((2, batch, T, D), dtype=np.float32)
    delta, A, B = rng.uniform(1e-3, 0.1, (batch, T, D)), -rng.uniform(1, 16, (D, N)), rng.standard_normal((batch, T, N))
    dh = rng.standard_normal((batch, D, N))
    h = dh[:, ::-1] if small else np.zeros_like(dh)  # from which mamba_ssm starts
    return tuple(x.astype(dtype) for x in (u, delta, A, B, B[:, ::-1], np.ones(D), h, dy, dh))


def _sizes(length: int, small: bool, width: int) -> tuple[int, int, int, int]:
    """Return (sequences, T, K, V): 4 sequences with the heads of 1024 features, or small sizes that fill no tile."""
    if small:
        return 2, 70, width or 40, width or 33
    return 4 * 1024 // width, length, width, width


def _draw_linear_attention(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    rng, (batch, T, K, V) = np.random.default_rng(0), _sizes(8192, small, width)
    shapes = (T, K), (T, K), (T, V), (K, V), (T, V), (K, V)
    return tuple(rng.standard_normal((batch, *shape), dtype=np.float32).astype(dtype) for shape in shapes)


def _draw_gated_linear_attention(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, S, dy, dS = _draw_linear_attention(dtype, small=small, width=width)
    return q, k, v, -np.abs(k[::-1]), S, dy, dS


def _draw_gated_delta_rule(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    rng, (q, k, v, *states) = np.random.default_rng(1), _draw_linear_attention(dtype, small=small, width=width)
    beta, log_decay = rng.uniform(0, 1, k.shape[:-1]), -rng.exponential(0.1, k.shape[:-1])
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    return q, k, v, beta.astype(dtype), log_decay.astype(dtype), *states


def _draw_delta_rule(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, beta, _, *states = _draw_gated_delta_rule(dtype, small=small, width=width)
    return q, k, v, beta, *states


def _draw_titans(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, beta, log_decay, S, dy, dS = _draw_gated_delta_rule(dtype, small=small, width=width)
    return q, k, v, beta / 8, log_decay[..., ::-1].copy(), log_decay, S, dS, S + dS, dy, dS, S, S - dS


def _draw_ttt(dtype: str, *, small: bool, width: int = 0, depth: int = 1) -> Arrays:
    """Draw for a model inside a norm, of `depth` layers with a bias each, whose hidden layers have 2 K features."""
    rng, (batch, T, K, _) = np.random.default_rng(2), _sizes(8192, small, width)
    widths = [K, *[2 * K] * (depth - 1), K]
    q, k, v, dy = rng.standard_normal((4, batch, T, K), dtype=np.float32) / np.float32(K**0.5)
    rates = rng.uniform(0, 0.1, (batch, T)), rng.uniform(0.5, 1, (batch, T))
    shapes = [(batch, rows + 1, columns) for rows, columns in pairwise(widths)]
    model, dmodel = ([rng.standard_normal(shape) * shape[1] ** -0.5 for shape in shapes] for _ in range(2))
    norm = rng.uniform(0.5, 1, (batch, 1, K)), rng.standard_normal((batch, 1, K))
    return tuple(x.astype(dtype) for x in (q, k, v, *rates, *model, *norm, dy, *dmodel))


def _draw_titans_layers(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, theta, left, *model, gamma, beta, dy, g0, g1 = _draw_ttt(dtype, small=small, width=width, depth=2)
    models = *model, *(x + x for x in model), *(-x for x in model)
    return q, k, v, theta, -left, left / 8 - 1 / 8, *models, gamma, beta, dy, *[g0, g1] * 3


def _draw_softmax(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    rng, (batch, T, K, V) = np.random.default_rng(0), _sizes(4096, small, width)
    shapes = (T, K), (T, K), (T, V), (T, V)
    return tuple(rng.standard_normal((batch, *shape), dtype=np.float32).astype(dtype) for shape in shapes)


def _softmax(q: Any, k: Any, v: Any, dy: Any) -> tuple[Arrays, Any]:
    y, saved = softmax.forward(q, k, v, causal=True, scale=q.shape[-1] ** -0.5)
    return (y,), saved


def _draw_vandermonde(dtype: str, *, small: bool) -> Arrays:
    rng, (D, N, L) = np.random.default_rng(0), (2, 3, 5000) if small else (1024, 32, 16384)
    w, phase = rng.standard_normal((2, D, N)), np.exp(2j * np.pi * rng.random((D, N)))
    A = rng.uniform(0.9, 1, (D, N)) * phase
    return *(_complex(x, dtype) for x in (w[0] + 1j * w[1], A)), rng.standard_normal((D, L)).astype(dtype)


def _vandermonde(w: Any, A: Any, dK: Any) -> tuple[Arrays, Any]:
    K, saved = vandermonde.forward(w, A, length=dK.shape[1])
    return (K,), saved


def _draw_cauchy(dtype: str, *, small: bool) -> Arrays:
    rng, (D, N, L) = np.random.default_rng(0), (2, 3, 300) if small else (1024, 32, 16384)
    x, y = rng.standard_normal((2, 2, D, N)), rng.standard_normal((2, 2, D, L))
    w, poles, z, dK = x[0, 0] + 1j * x[0, 1], 1j * x[1, 0] - 0.5, 1j * y[0, 0], y[1, 0] + 1j * y[1, 1]
    return tuple(_complex(a, dtype) for a in (w, z, poles, dK))


def _cauchy(w: Any, z: Any, poles: Any, dK: Any) -> tuple[Arrays, Arrays]:
    return (cauchy.forward(w, z, poles),), (w, z, poles)


def _complex(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(np.result_type(dtype, np.complex64))


def _of(
    module: ModuleType, draw: Callable[..., Arrays], inputs: int, count: flops.Count, *widths: int, **options: Any
) -> Case:
    """Return the case of a kernel with several outputs."""

    def forward(*arrays: Any) -> tuple[Arrays, Any]:
        return module.forward(*arrays[:inputs], **options)

    return Case(draw, inputs, forward, module.backward, count, widths)


def _with_bfloat16(case: Case) -> Case:
    """Return the case with q, k, v and the cotangent of y in bfloat16 where bfloat16 is drawn."""

    def draw(dtype: str, **options: Any) -> Arrays:
        arrays = case.draw("float32" if dtype == "bfloat16" else dtype, **options)
        if dtype != "bfloat16":
            return arrays
        bfloat16 = importlib.import_module("ml_dtypes").bfloat16
        return tuple(x.astype(bfloat16) if i in (0, 1, 2, case.inputs) else x for i, x in enumerate(arrays))

    return case._replace(draw=draw, precision="bfloat16", dtype="bfloat16")


WIDTHS = 64, 128
CASES = {
    "cauchy": Case(
        _draw_cauchy, 3, _cauchy, lambda saved, cotangents: cauchy.backward(*saved, *cotangents), flops.cauchy
    ),
    "delta_rule": _of(delta_rule, _draw_delta_rule, 5, flops.delta_rule, *WIDTHS),
    "gated_delta_rule": _of(gated_delta_rule, _draw_gated_delta_rule, 6, flops.delta_rule, *WIDTHS),
    "gated_linear_attention": _of(
        gated_linear_attention, _draw_gated_linear_attention, 5, flops.gated_linear_attention, *WIDTHS
    ),
    "linear_attention": _of(linear_attention, _draw_linear_attention, 4, flops.linear_attention, *WIDTHS),
    "scan": Case(_draw_scan, 2, _scan, lambda saved, cotangents: scan.backward(*saved, *cotangents), flops.scan),
    "selective_scan": _of(selective_scan, _draw_selective_scan, 7, flops.selective_scan),
    "softmax": Case(
        _draw_softmax,
        3,
        _softmax,
        lambda saved, cotangents: softmax.backward(saved, *cotangents),
        flops.softmax,
        WIDTHS,
    ),
    "titans": _of(
        titans,
        _draw_titans,
        9,
        flops.titans,
        *WIDTHS,
        layout=WeightLayout(bias=(False,), norm=False),
        batch_size=64,
        left=32,
        on_losses=lambda losses: None,
    ),
    "titans_layers": _of(
        titans,
        _draw_titans_layers,
        14,
        flops.titans_layers,
        64,
        layout=WeightLayout(bias=(True, True), norm=True),
        batch_size=16,
        left=5,
        on_losses=lambda losses: None,
    ),
    "ttt": _of(
        ttt,
        _draw_ttt,
        8,
        flops.ttt,
        64,
        layout=WeightLayout(bias=(True,), norm=True),
        batch_size=8,
        on_losses=lambda losses: None,
    ),
    "vandermonde": Case(
        _draw_vandermonde,
        2,
        _vandermonde,
        lambda saved, cotangents: vandermonde.backward(saved, *cotangents),
        flops.vandermonde,
    ),
}
# Of these there is a version for them.
TENSOR_CORES = "delta_rule", "gated_delta_rule", "gated_linear_attention", "linear_attention", "softmax"
ROUNDED = {x: CASES[x] for x in TENSOR_CORES}
ROUNDED["linear_attention"] = CASES["linear_attention"]._replace(flops=flops.linear_attention_tensor_cores)
CASES |= {f"{x}, tensorfloat32": case._replace(precision="tensorfloat32") for x, case in ROUNDED.items()}
CASES |= {f"{x}, bfloat16": _with_bfloat16(case) for x, case in ROUNDED.items()}
