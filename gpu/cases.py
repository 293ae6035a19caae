"""Every kernel, forward and backward, on drawn arrays: what `check` checks and `bench` times."""

import importlib
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpu import (
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
    work,
)  # fmt: skip
from gpu.precision import matmul_precision

Arrays = tuple[Any, ...]


class Case(NamedTuple):
    """Draw inputs and cotangents, NumPy arrays of a dtype; run kernels on them, wherever they are by then."""

    draw: Callable[..., Arrays]
    inputs: int  # how many of the arrays are; the others are cotangents of what comes out
    ahead: Callable[..., tuple[Arrays, Any]]  # of all arrays: what comes out, and what the way back needs
    back: Callable[[Any, Arrays], Arrays]  # of the latter, and the cotangents
    work: work.Work
    widths: tuple[int, ...] = ()  # of keys and values, where `draw` takes any: those that people use
    precision: str = "float32"  # to which float32 arrays are rounded before they are multiplied
    numbers: str = "float32"  # of the arrays that people would give it, of which gates and states are never bfloat16

    def forward(self, *arrays: Any) -> tuple[Arrays, Any]:
        """What comes out of the inputs, and what the way back needs."""
        with matmul_precision(self.precision):
            return self.ahead(*arrays)

    def run(self, *arrays: Any) -> Arrays:
        """What comes out, and the cotangents of the inputs."""
        made, saved = self.forward(*arrays)
        return *made, *self.back(saved, arrays[self.inputs :])


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
    u, gy = rng.standard_normal((2, batch, T, D), dtype=np.float32)
    delta, A, B = rng.uniform(1e-3, 0.1, (batch, T, D)), -rng.uniform(1, 16, (D, N)), rng.standard_normal((batch, T, N))
    gh = rng.standard_normal((batch, D, N))
    h = gh[:, ::-1] if small else np.zeros_like(gh)  # from which mamba_ssm starts
    return tuple(x.astype(dtype) for x in (u, delta, A, B, B[:, ::-1], np.ones(D), h, gy, gh))


def _sizes(length: int, small: bool, width: int) -> tuple[int, int, int, int]:
    """Sequences, tokens, features of keys and values: 4 times the heads of 1024 features, or few that fill no tile."""
    if small:
        return 2, 70, width or 40, width or 33
    return 4 * 1024 // width, length, width, width


def _draw_linear_attention(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    rng, (batch, T, K, V) = np.random.default_rng(0), _sizes(8192, small, width)
    shapes = (T, K), (T, K), (T, V), (K, V), (T, V), (K, V)
    return tuple(rng.standard_normal((batch, *shape), dtype=np.float32).astype(dtype) for shape in shapes)


def _draw_gated_linear_attention(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, S, gy, gS = _draw_linear_attention(dtype, small=small, width=width)
    return q, k, v, -np.abs(k[::-1]), S, gy, gS


def _draw_gated_delta_rule(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    rng, (q, k, v, *states) = np.random.default_rng(1), _draw_linear_attention(dtype, small=small, width=width)
    beta, log_decay = rng.uniform(0, 1, k.shape[:-1]), -rng.exponential(0.1, k.shape[:-1])
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    return q, k, v, beta.astype(dtype), log_decay.astype(dtype), *states


def _draw_delta_rule(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, beta, _, *states = _draw_gated_delta_rule(dtype, small=small, width=width)
    return q, k, v, beta, *states


def _draw_titans(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, beta, log_decay, S, gy, gS = _draw_gated_delta_rule(dtype, small=small, width=width)
    return q, k, v, beta / 8, log_decay[..., ::-1].copy(), log_decay, S, gS, S + gS, gy, gS, S, S - gS


def _draw_ttt(dtype: str, *, small: bool, width: int = 0, depth: int = 1) -> Arrays:
    """A model in a norm, with `depth` layers and a bias at each; it is twice as wide inside."""
    rng, (batch, T, K, _) = np.random.default_rng(2), _sizes(8192, small, width)
    widths = [K, *[2 * K] * (depth - 1), K]
    q, k, v, gy = rng.standard_normal((4, batch, T, K), dtype=np.float32) / np.float32(K**0.5)
    rates = rng.uniform(0, 0.1, (batch, T)), rng.uniform(0.5, 1, (batch, T))
    shapes = [(batch, rows + 1, columns) for rows, columns in pairwise(widths)]
    model, after = ([rng.standard_normal(shape) * shape[1] ** -0.5 for shape in shapes] for _ in range(2))
    around = rng.uniform(0.5, 1, (batch, 1, K)), rng.standard_normal((batch, 1, K))
    return tuple(x.astype(dtype) for x in (q, k, v, *rates, *model, *around, gy, *after))


def _draw_titans_layers(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    q, k, v, theta, left, *model, gamma, beta, gy, g0, g1 = _draw_ttt(dtype, small=small, width=width, depth=2)
    models = *model, *(x + x for x in model), *(-x for x in model)
    return q, k, v, theta, -left, left / 8 - 1 / 8, *models, gamma, beta, gy, *[g0, g1] * 3


def _draw_softmax(dtype: str, *, small: bool, width: int = 0) -> Arrays:
    rng, (batch, T, K, V) = np.random.default_rng(0), _sizes(4096, small, width)
    shapes = (T, K), (T, K), (T, V), (T, V)
    return tuple(rng.standard_normal((batch, *shape), dtype=np.float32).astype(dtype) for shape in shapes)


def _softmax(q: Any, k: Any, v: Any, gy: Any) -> tuple[Arrays, Any]:
    y, saved = softmax.forward(q, k, v, causal=True, scale=q.shape[-1] ** -0.5)
    return (y,), saved


def _draw_vandermonde(dtype: str, *, small: bool) -> Arrays:
    rng, (D, N, L) = np.random.default_rng(0), (2, 3, 5000) if small else (1024, 32, 16384)
    w, turned = rng.standard_normal((2, D, N)), np.exp(2j * np.pi * rng.random((D, N)))
    A = rng.uniform(0.9, 1, (D, N)) * turned
    return *(_complex(x, dtype) for x in (w[0] + 1j * w[1], A)), rng.standard_normal((D, L)).astype(dtype)


def _vandermonde(w: Any, A: Any, gK: Any) -> tuple[Arrays, Any]:
    K, saved = vandermonde.forward(w, A, length=gK.shape[1])
    return (K,), saved


def _draw_cauchy(dtype: str, *, small: bool) -> Arrays:
    rng, (D, N, L) = np.random.default_rng(0), (2, 3, 300) if small else (1024, 32, 16384)
    x, y = rng.standard_normal((2, 2, D, N)), rng.standard_normal((2, 2, D, L))
    w, poles, z, gK = x[0, 0] + 1j * x[0, 1], 1j * x[1, 0] - 0.5, 1j * y[0, 0], y[1, 0] + 1j * y[1, 1]
    return tuple(_complex(a, dtype) for a in (w, z, poles, gK))


def _cauchy(w: Any, z: Any, poles: Any, gK: Any) -> tuple[Arrays, Arrays]:
    return (cauchy.forward(w, z, poles),), (w, z, poles)


def _complex(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(np.result_type(dtype, np.complex64))


def _of(
    module: ModuleType, draw: Callable[..., Arrays], inputs: int, count: work.Work, *widths: int, **options: Any
) -> Case:
    """The case of a kernel that makes several arrays."""

    def ahead(*arrays: Any) -> tuple[Arrays, Any]:
        return module.forward(*arrays[:inputs], **options)

    return Case(draw, inputs, ahead, module.backward, count, widths)


def _in_two_bytes(case: Case) -> Case:
    """The case of q, k, v and the cotangent of y in bfloat16, where that is asked for."""

    def draw(dtype: str, **options: Any) -> Arrays:
        drawn = case.draw("float32" if dtype == "bfloat16" else dtype, **options)
        if dtype != "bfloat16":
            return drawn
        numbers = importlib.import_module("ml_dtypes").bfloat16
        return tuple(x.astype(numbers) if i in (0, 1, 2, case.inputs) else x for i, x in enumerate(drawn))

    return case._replace(draw=draw, precision="bfloat16", numbers="bfloat16")


WIDTHS = 64, 128
CASES = {
    "cauchy": Case(_draw_cauchy, 3, _cauchy, lambda saved, given: cauchy.backward(*saved, *given), work.cauchy),
    "delta_rule": _of(delta_rule, _draw_delta_rule, 5, work.delta_rule, *WIDTHS),
    "gated_delta_rule": _of(gated_delta_rule, _draw_gated_delta_rule, 6, work.delta_rule, *WIDTHS),
    "gated_linear_attention": _of(
        gated_linear_attention, _draw_gated_linear_attention, 5, work.gated_linear_attention, *WIDTHS
    ),
    "linear_attention": _of(linear_attention, _draw_linear_attention, 4, work.linear_attention, *WIDTHS),
    "scan": Case(_draw_scan, 2, _scan, lambda saved, given: scan.backward(*saved, *given), work.scan),
    "selective_scan": _of(selective_scan, _draw_selective_scan, 7, work.selective_scan),
    "softmax": Case(
        _draw_softmax, 3, _softmax, lambda saved, given: softmax.backward(saved, *given), work.softmax, WIDTHS
    ),
    "titans": _of(
        titans, _draw_titans, 9, work.titans, *WIDTHS, batch_size=64, left=32, on_losses=lambda losses: None
    ),
    "titans_layers": _of(
        titans, _draw_titans_layers, 14, work.titans_layers, 64, batch_size=16, left=5, on_losses=lambda losses: None
    ),
    "ttt": _of(ttt, _draw_ttt, 8, work.ttt, 64, batch_size=8, on_losses=lambda losses: None),
    "vandermonde": Case(
        _draw_vandermonde, 2, _vandermonde, lambda saved, given: vandermonde.backward(saved, *given), work.vandermonde
    ),
}  # fmt: skip
# Of these there is a version for them.
TENSOR_CORES = "delta_rule", "gated_delta_rule", "gated_linear_attention", "linear_attention", "softmax"
ROUNDED = {x: CASES[x] for x in TENSOR_CORES}
ROUNDED["linear_attention"] = CASES["linear_attention"]._replace(work=work.linear_attention_tensor_cores)
CASES |= {f"{x}, tensorfloat32": case._replace(precision="tensorfloat32") for x, case in ROUNDED.items()}
CASES |= {f"{x}, bfloat16": _in_two_bytes(case) for x, case in ROUNDED.items()}
