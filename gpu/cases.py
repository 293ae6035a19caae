"""A call of every kernel, forward and backward, on drawn arrays: what `check` checks and `bench` times."""

import math
from collections.abc import Callable
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
    vandermonde,
)  # fmt: skip
from gpu.precision import matmul_precision

Arrays = tuple[Any, ...]

EXPONENTIAL = 16  # operations that a multiprocessor does while it makes an exponential


class Case(NamedTuple):
    """Draw inputs, NumPy arrays of a dtype; run the kernels on them, wherever they have been brought since."""

    draw: Callable[..., Arrays]
    run: Callable[..., Arrays]
    work: Callable[..., float]  # operations both ways, of the inputs, as the headers of the sources count them
    precision: str = "float32"  # to which float32 arrays are rounded before they are multiplied


def _both(module: ModuleType, count: int, **options: Any) -> Callable[..., Arrays]:
    """Forward from the first `count` arrays, and backward from the others."""

    def run(*arrays: Any) -> Arrays:
        made, saved = module.forward(*arrays[:count], **options)
        return *made, *module.backward(saved, arrays[count:])

    return run


def _rounded(case: Case, precision: str) -> Case:
    def run(*arrays: Any) -> Arrays:
        with matmul_precision(precision):
            return case.run(*arrays)

    return case._replace(run=run, precision=precision)


def _tokens(q: Any, v: Any) -> tuple[int, int, int]:
    """How many tokens there are in all sequences, and the features of keys and values."""
    return math.prod(q.shape[:-1]), q.shape[-1], v.shape[-1]


def _draw_scan(dtype: str, *, small: bool) -> Arrays:
    rng, shape = np.random.default_rng(0), (2, 300, 5) if small else (8, 1 << 14, 1024)
    a = rng.uniform(0.5, 1, shape).astype(dtype)
    x, g = rng.standard_normal((2, *shape), dtype=np.float32).astype(dtype)
    return a, x, g


def _run_scan(a: Any, x: Any, g: Any) -> Arrays:
    h = scan.forward(a, x)
    return h, *scan.backward(a, h, g)


def _draw_selective_scan(dtype: str, *, small: bool) -> Arrays:
    rng, (batch, T, D, N) = np.random.default_rng(0), (1, 270, 10, 3) if small else (8, 4096, 1536, 16)
    u, gy = rng.standard_normal((2, batch, T, D), dtype=np.float32)
    delta, A, B = rng.uniform(1e-3, 0.1, (batch, T, D)), -rng.uniform(1, 16, (D, N)), rng.standard_normal((batch, T, N))
    gh = rng.standard_normal((batch, D, N))
    h = gh[:, ::-1] if small else np.zeros_like(gh)  # from which mamba_ssm starts
    return tuple(x.astype(dtype) for x in (u, delta, A, B, B[:, ::-1], np.ones(D), h, gy, gh))


def _work_of_selective_scan(u: Any, delta: Any, A: Any, *others: Any) -> float:
    return u.size * A.shape[-1] * (9 + 24 + 2 * EXPONENTIAL)


def _draw_linear_attention(dtype: str, *, small: bool) -> Arrays:
    rng, (batch, T, K, V) = np.random.default_rng(0), (2, 70, 40, 33) if small else (32, 8192, 128, 128)
    shapes = (T, K), (T, K), (T, V), (K, V), (T, V), (K, V)
    return tuple(rng.standard_normal((batch, *shape), dtype=np.float32).astype(dtype) for shape in shapes)


def _work_of_linear_attention(q: Any, k: Any, v: Any, *others: Any) -> float:
    tokens, K, V = _tokens(q, v)
    return tokens * 4 * (4 * K * V + 64 * (K + V))


def _draw_gated_linear_attention(dtype: str, *, small: bool) -> Arrays:
    q, k, v, S, gy, gS = _draw_linear_attention(dtype, small=small)
    return q, k, v, -np.abs(k[::-1]), S, gy, gS


def _work_of_gated_linear_attention(q: Any, k: Any, v: Any, *others: Any) -> float:
    tokens, K, V = _tokens(q, v)
    return tokens * (18 * K * V + 150 * K)


def _draw_gated_delta_rule(dtype: str, *, small: bool) -> Arrays:
    rng, (q, k, v, *states) = np.random.default_rng(1), _draw_linear_attention(dtype, small=small)
    beta, log_decay = rng.uniform(0, 1, k.shape[:-1]), -rng.exponential(0.1, k.shape[:-1])
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    return q, k, v, beta.astype(dtype), log_decay.astype(dtype), *states


def _draw_delta_rule(dtype: str, *, small: bool) -> Arrays:
    q, k, v, beta, _, *states = _draw_gated_delta_rule(dtype, small=small)
    return q, k, v, beta, *states


def _work_of_delta_rule(q: Any, k: Any, v: Any, *others: Any) -> float:
    tokens, K, V = _tokens(q, v)
    return tokens * (34 * K * V + 128 * V + 260 * K)


def _draw_titans(dtype: str, *, small: bool) -> Arrays:
    q, k, v, beta, log_decay, S, gy, gS = _draw_gated_delta_rule(dtype, small=small)
    return q, k, v, beta / 8, log_decay[..., ::-1].copy(), log_decay, S, gS, S + gS, gy, gS, S, S - gS


def _work_of_titans(q: Any, k: Any, v: Any, *others: Any) -> float:
    tokens, K, V = _tokens(q, v)
    return tokens * (30 * K * V + 230 * K)


def _draw_softmax(dtype: str, *, small: bool) -> Arrays:
    rng, (batch, T, K, V) = np.random.default_rng(0), (2, 70, 40, 33) if small else (32, 4096, 128, 128)
    shapes = (T, K), (T, K), (T, V), (T, V)
    return tuple(rng.standard_normal((batch, *shape), dtype=np.float32).astype(dtype) for shape in shapes)


def _run_softmax(q: Any, k: Any, v: Any, gy: Any) -> Arrays:
    y, saved = softmax.forward(q, k, v, causal=True, scale=q.shape[-1] ** -0.5)
    return y, *softmax.backward(saved, gy)


def _work_of_softmax(q: Any, k: Any, v: Any, *others: Any) -> float:
    tokens, K, V = _tokens(q, v)
    return tokens * q.shape[-2] / 2 * (2 * (K + V) + 2 * (3 * K + 2 * V) + 3 * EXPONENTIAL)


def _draw_vandermonde(dtype: str, *, small: bool) -> Arrays:
    rng, (D, N, L) = np.random.default_rng(0), (2, 3, 5000) if small else (1024, 32, 16384)
    w, turned = rng.standard_normal((2, D, N)), np.exp(2j * np.pi * rng.random((D, N)))
    A = rng.uniform(0.9, 1, (D, N)) * turned
    return *(_complex(x, dtype) for x in (w[0] + 1j * w[1], A)), rng.standard_normal((D, L)).astype(dtype)


def _run_vandermonde(w: Any, A: Any, gK: Any) -> Arrays:
    K, saved = vandermonde.forward(w, A, length=gK.shape[1])
    return K, *vandermonde.backward(saved, gK)


def _draw_cauchy(dtype: str, *, small: bool) -> Arrays:
    rng, (D, N, L) = np.random.default_rng(0), (2, 3, 300) if small else (1024, 32, 16384)
    x, y = rng.standard_normal((2, 2, D, N)), rng.standard_normal((2, 2, D, L))
    w, poles, z, gK = x[0, 0] + 1j * x[0, 1], 1j * x[1, 0] - 0.5, 1j * y[0, 0], y[1, 0] + 1j * y[1, 1]
    return tuple(_complex(a, dtype) for a in (w, z, poles, gK))


def _run_cauchy(w: Any, z: Any, poles: Any, gK: Any) -> Arrays:
    return cauchy.forward(w, z, poles), *cauchy.backward(w, z, poles, gK)


def _complex(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(np.result_type(dtype, np.complex64))


def _work_of_kernel(operations: int) -> Callable[..., float]:
    """So many for each node or power and each n; a division is 8 of them."""
    return lambda w, *others: operations * w.shape[-1] * others[-1].size


CASES = {
    "cauchy": Case(_draw_cauchy, _run_cauchy, _work_of_kernel(16 + 24 + 24 + 3 * 8)),
    "delta_rule": Case(_draw_delta_rule, _both(delta_rule, 5), _work_of_delta_rule),
    "gated_delta_rule": Case(_draw_gated_delta_rule, _both(gated_delta_rule, 6), _work_of_delta_rule),
    "gated_linear_attention": Case(
        _draw_gated_linear_attention, _both(gated_linear_attention, 5), _work_of_gated_linear_attention
    ),
    "linear_attention": Case(_draw_linear_attention, _both(linear_attention, 4), _work_of_linear_attention),
    "scan": Case(_draw_scan, _run_scan, lambda a, *others: 14 * a.size),
    "selective_scan": Case(_draw_selective_scan, _both(selective_scan, 7), _work_of_selective_scan),
    "softmax": Case(_draw_softmax, _run_softmax, _work_of_softmax),
    "titans": Case(_draw_titans, _both(titans, 9, batch_size=64, left=32, look=lambda losses: None), _work_of_titans),
    "vandermonde": Case(_draw_vandermonde, _run_vandermonde, _work_of_kernel(8 + 16)),
}
# Of these there is a version for them.
TENSOR_CORES = "delta_rule", "gated_delta_rule", "gated_linear_attention", "linear_attention", "softmax"
CASES |= {f"{name}, {x}": _rounded(CASES[name], x) for name in TENSOR_CORES for x in ("tensorfloat32", "bfloat16")}
