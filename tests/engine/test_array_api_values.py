"""The Python array API standard: what every function returns, with array-api-strict as the oracle."""

import math

import numpy as np
import pytest

from tests.standard import BINARY, DTYPES, FUNCTIONS, UNARY, compare, find

M = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]])
X = np.arange(24.0).reshape(2, 3, 4) % 7 - 2
N = np.array([[3, 1, 2, 1], [0, 3, 3, 2]])
S = np.array([1.0, 3.0, 3.0, 7.0])
CASES = {
    "__array_namespace_info__": lambda xp, A: A(sorted(xp.__array_namespace_info__().dtypes()) == sorted(DTYPES)),
    "all": lambda xp, A: [xp.all(A(X > -2), axis=k, keepdims=True) for k in (None, 0, (0, -1))],
    "any": lambda xp, A: [xp.any(A(X > 3), axis=k) for k in (None, 0, (0, -1))],
    "arange": lambda xp, A: [xp.arange(3), xp.arange(1.0, 2.0, 0.25), xp.arange(5, -1, -2, dtype=xp.int8)],
    "argmax": lambda xp, A: [xp.argmax(A(X)), xp.argmax(A(X), axis=1, keepdims=True)],
    "argmin": lambda xp, A: [xp.argmin(A(X)), xp.argmin(A(X), axis=-1)],
    "argsort": lambda xp, A: [xp.argsort(A(X), axis=1, stable=True), xp.argsort(A(X), descending=True)],
    "asarray": lambda xp, A: [xp.asarray([1, 2]), xp.asarray(True), xp.asarray(A(X), dtype=xp.float32, copy=True)],
    "astype": lambda xp, A: [xp.astype(A(X), xp.int32), xp.astype(A(N), xp.bool, copy=False)],
    "broadcast_arrays": lambda xp, A: xp.broadcast_arrays(A(X), A(N[:1, 0]), A(np.array(1))),
    "broadcast_shapes": lambda xp, A: A(np.array(xp.broadcast_shapes((2, 1), (3,), ()))),
    "broadcast_to": lambda xp, A: xp.broadcast_to(A(N[:, :1]), (3, 2, 4)),
    "can_cast": lambda xp, A: A(np.array([xp.can_cast(xp.int8, xp.int16), xp.can_cast(A(X), xp.float32)])),
    "clip": lambda xp, A: [xp.clip(A(X), 0), xp.clip(A(X), A(np.array(-1.0)), 3), xp.clip(A(N), max=2)],
    "concat": lambda xp, A: [xp.concat((A(X), A(X)), axis=k) for k in (0, -1, None)] + [xp.concat([A(X), A(X[:0])])],
    "count_nonzero": lambda xp, A: [xp.count_nonzero(A(X), axis=k, keepdims=True) for k in (None, 1, (0, 2))],
    "cumulative_prod": lambda xp, A: [
        xp.cumulative_prod(A(X), axis=1, include_initial=True),
        xp.cumulative_prod(A(S), dtype=xp.float32),
    ],
    "cumulative_sum": lambda xp, A: [
        xp.cumulative_sum(A(N), axis=0, include_initial=True),
        xp.cumulative_sum(A(S), dtype=xp.int64),
        xp.cumulative_sum(A(N.astype(np.int8)), axis=1),
    ],
    "diff": lambda xp, A: [
        xp.diff(A(X)),
        xp.diff(A(N), axis=0, n=1, prepend=A(N[:1]), append=A(N[:1])),
        xp.diff(A(S), n=2),
        xp.diff(A(S), n=0),
    ],
    "empty": lambda xp, A: [xp.empty(0), xp.empty((2, 0), dtype=xp.int8)],
    "empty_like": lambda xp, A: [xp.empty_like(A(X[:0])), xp.empty_like(A(X[:0]), dtype=xp.int8)],
    "expand_dims": lambda xp, A: [xp.expand_dims(A(X), axis=k) for k in (0, -1, 2)],
    "eye": lambda xp, A: [xp.eye(2), xp.eye(2, 3, k=1), xp.eye(3, 2, k=-1, dtype=xp.int8), xp.eye(0)],
    "finfo": lambda xp, A: A(np.array(xp.finfo(xp.float32).eps)),
    "flip": lambda xp, A: [xp.flip(A(X), axis=k) for k in (None, 0, (1, -1))],
    "from_dlpack": lambda xp, A: xp.from_dlpack(A(X)),
    "full": lambda xp, A: [xp.full((2, 3), 4), xp.full(2, True), xp.full((), 2.5, dtype=xp.float32)],
    "full_like": lambda xp, A: [xp.full_like(A(X), 4), xp.full_like(A(X), 1, dtype=xp.int8)],
    "iinfo": lambda xp, A: A(np.array(xp.iinfo(xp.int16).max)),
    "isdtype": lambda xp, A: A(np.array([xp.isdtype(xp.int8, "integral"), xp.isdtype(xp.int8, ("bool", "numeric"))])),
    "isin": lambda xp, A: xp.isin(A(N), A(np.array([1, 2]))),
    "linspace": lambda xp, A: [
        xp.linspace(0, 1, 5),
        xp.linspace(0, 1, 5, endpoint=False),
        xp.linspace(2, 2, 1, dtype=xp.float32),
        xp.linspace(0, 1, 0),
    ],
    "matmul": lambda xp, A: [
        xp.matmul(A(X), A(X[0, 0])),
        xp.matmul(A(M[0]), A(M)),
        xp.matmul(A(N), A(N.T)),
        xp.matmul(A(X[0]), A(X[0].T)),
    ],
    "matrix_transpose": lambda xp, A: xp.matrix_transpose(A(X)),
    "max": lambda xp, A: [xp.max(A(X), axis=k, keepdims=True) for k in (None, 0, (0, -1))],
    "mean": lambda xp, A: [xp.mean(A(X), axis=k, keepdims=True) for k in (None, 0, (0, -1), ())],
    "meshgrid": lambda xp, A: [
        *xp.meshgrid(A(S), A(S[:2]), A(S[:3])),
        *xp.meshgrid(A(S), A(S[:2]), indexing="ij"),
        *xp.meshgrid(A(S)),
    ],
    "min": lambda xp, A: [xp.min(A(X), axis=k) for k in (None, 0, (0, -1))],
    "moveaxis": lambda xp, A: [
        xp.moveaxis(A(X), 0, -1),
        xp.moveaxis(A(X), (0, 2), (1, 0)),
        xp.moveaxis(A(X), (-1,), (0,)),
    ],
    "nonzero": lambda xp, A: xp.nonzero(A(X)),
    "ones": lambda xp, A: [xp.ones(2), xp.ones((2, 0), dtype=xp.int8)],
    "ones_like": lambda xp, A: [xp.ones_like(A(N)), xp.ones_like(A(N), dtype=xp.float32)],
    "permute_dims": lambda xp, A: xp.permute_dims(A(X), (2, 0, 1)),
    "prod": lambda xp, A: (
        [xp.prod(A(X), axis=k) for k in (None, 0, (0, -1))]
        + [xp.prod(A(N.astype(np.uint8))), xp.prod(A(X), dtype=xp.float32)]
    ),
    "repeat": lambda xp, A: [
        xp.repeat(A(X), 2),
        xp.repeat(A(X), 3, axis=1),
        xp.repeat(A(N), A(np.array([2, 0])), axis=0),
    ],
    "reshape": lambda xp, A: [
        xp.reshape(A(X), (4, -1)),
        xp.reshape(A(X), (24,), copy=True),
        xp.reshape(A(X), (24,), copy=False),
    ],
    "result_type": lambda xp, A: A(np.array(xp.result_type(A(N), xp.int8, 1) == xp.int64)),
    "roll": lambda xp, A: [
        xp.roll(A(X), 5),
        xp.roll(A(X), -1, axis=1),
        xp.roll(A(X), (1, 2), axis=(0, -1)),
        xp.roll(A(X), 2, axis=(0, 1)),
    ],
    "searchsorted": lambda xp, A: [
        xp.searchsorted(A(S), A(X)),
        xp.searchsorted(A(S), A(X), side="right"),
        xp.searchsorted(A(S[::-1].copy()), A(S), sorter=A(np.arange(3, -1, -1))),
    ],
    "sort": lambda xp, A: [xp.sort(A(X), axis=1), xp.sort(A(N), descending=True, stable=False)],
    "squeeze": lambda xp, A: [xp.squeeze(A(X[:1]), axis=0), xp.squeeze(A(X[:1, :1]), (0, 1))],
    "stack": lambda xp, A: [xp.stack([A(X), A(X)], axis=k) for k in (0, -1, 2)],
    "std": lambda xp, A: [xp.std(A(X), axis=k, correction=1) for k in (None, 0, (0, -1))],
    "sum": lambda xp, A: (
        [xp.sum(A(X), axis=k, keepdims=True) for k in (None, 0, (0, -1))]
        + [xp.sum(A(N.astype(np.uint8))), xp.sum(A(X), dtype=xp.float32)]
    ),
    "take": lambda xp, A: [xp.take(A(X), A(np.array([2, 0, -1])), axis=1), xp.take(A(S), A(np.array([1, 1])))],
    "take_along_axis": lambda xp, A: xp.take_along_axis(A(N), A(np.array([[0], [3]])), axis=1),
    "tensordot": lambda xp, A: [
        xp.tensordot(A(X), A(X), axes=((0, 1), (0, 1))),
        xp.tensordot(A(M), A(M), axes=1),
        xp.tensordot(A(S), A(S), axes=0),
        xp.tensordot(A(N), A(N)),
    ],
    "tile": lambda xp, A: [xp.tile(A(X), (2, 1, 3)), xp.tile(A(X), (2,)), xp.tile(A(S), (2, 2)), xp.tile(A(S), ())],
    "tril": lambda xp, A: [xp.tril(A(X), k=k) for k in (-1, 0, 2)],
    "triu": lambda xp, A: [xp.triu(A(X), k=k) for k in (-1, 0, 2)],
    "unique_all": lambda xp, A: xp.unique_all(A(N)),
    "unique_counts": lambda xp, A: xp.unique_counts(A(N)),
    "unique_inverse": lambda xp, A: xp.unique_inverse(A(N)),
    "unique_values": lambda xp, A: xp.sort(xp.unique_values(A(N))),
    "unstack": lambda xp, A: [*xp.unstack(A(X)), *xp.unstack(A(X), axis=-1)],
    "var": lambda xp, A: [xp.var(A(X), axis=k, keepdims=True) for k in (None, 0, (0, -1))],
    "vecdot": lambda xp, A: [
        xp.vecdot(A(X), A(X[0])),
        xp.vecdot(A(X), A(X), axis=-2),
        xp.vecdot(A(N.astype(np.uint8)), A(N.astype(np.uint8))),
        xp.vecdot(A(S * 1j), A(S + 0j)),
    ],
    "where": lambda xp, A: [xp.where(A(X > 0), A(X), A(np.float64(1))), xp.where(A(N > 1), A(N), 0)],
    "zeros": lambda xp, A: [xp.zeros(2), xp.zeros((2, 0), dtype=xp.int8)],
    "zeros_like": lambda xp, A: [xp.zeros_like(A(N)), xp.zeros_like(A(N), dtype=xp.float32)],
    "linalg.cholesky": lambda xp, A: [xp.linalg.cholesky(A(M)), xp.linalg.cholesky(A(M[None] + 0j), upper=True)],
    "linalg.cross": lambda xp, A: [xp.linalg.cross(A(M), A(M[::-1])), xp.linalg.cross(A(X), A(X[:, :, ::-1]), axis=-2)],
    "linalg.det": lambda xp, A: [
        xp.linalg.det(A(M)),
        xp.linalg.det(A(M[:0, :0])),
        xp.linalg.det(A(np.zeros((0, 2, 2)))),
    ],
    "linalg.diagonal": lambda xp, A: [xp.linalg.diagonal(A(X), offset=k) for k in (-2, 0, 1, 4)],
    "linalg.eigh": lambda xp, A: [xp.linalg.eigh(A(M)).eigenvalues, xp.abs(xp.linalg.eigh(A(M)).eigenvectors)],
    "linalg.eigvalsh": lambda xp, A: xp.linalg.eigvalsh(A(M)),
    "linalg.inv": lambda xp, A: [xp.linalg.inv(A(M)), xp.linalg.inv(A(M[None, ...] * 1j))],
    "linalg.matmul": lambda xp, A: xp.linalg.matmul(A(M), A(M)),
    "linalg.matrix_norm": lambda xp, A: [
        xp.linalg.matrix_norm(A(X), ord=o, keepdims=True) for o in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)
    ],
    "linalg.matrix_power": lambda xp, A: [xp.linalg.matrix_power(A(M), n) for n in (-2, -1, 0, 1, 2, 5)],
    "linalg.matrix_rank": lambda xp, A: [xp.linalg.matrix_rank(A(X)), xp.linalg.matrix_rank(A(M), rtol=0.5)],
    "linalg.matrix_transpose": lambda xp, A: xp.linalg.matrix_transpose(A(X)),
    "linalg.outer": lambda xp, A: xp.linalg.outer(A(S), A(S[:2])),
    "linalg.pinv": lambda xp, A: [xp.linalg.pinv(A(X)), xp.linalg.pinv(A(M), rtol=0.5)],
    "linalg.qr": lambda xp, A: [*xp.linalg.qr(A(X)), *xp.linalg.qr(A(X[0].T), mode="complete")],
    "linalg.slogdet": lambda xp, A: [
        *xp.linalg.slogdet(A(M)),
        *xp.linalg.slogdet(A(-M[None])),
        *xp.linalg.slogdet(A(M * 1j)),
    ],
    "linalg.solve": lambda xp, A: [xp.linalg.solve(A(M), A(M[0])), xp.linalg.solve(A(M[None]), A(M[:, :2]))],
    "linalg.svd": lambda xp, A: (
        [xp.abs(part) if part.ndim > 2 else part for part in xp.linalg.svd(A(X), full_matrices=False)]
        + [xp.linalg.svd(A(X)).S]
    ),
    "linalg.svdvals": lambda xp, A: xp.linalg.svdvals(A(X)),
    "linalg.tensordot": lambda xp, A: xp.linalg.tensordot(A(M), A(M), axes=1),
    "linalg.trace": lambda xp, A: [
        xp.linalg.trace(A(X), offset=1),
        xp.linalg.trace(A(N.astype(np.int8))),
        xp.linalg.trace(A(N), dtype=xp.float32),
    ],
    "linalg.vecdot": lambda xp, A: xp.linalg.vecdot(A(M), A(M)),
    "linalg.vector_norm": lambda xp, A: [
        xp.linalg.vector_norm(A(X), axis=k, ord=o, keepdims=True)
        for k in (None, 1, (0, 2))
        for o in (0, 1, 2, 3, -1, math.inf, -math.inf)
    ],
    "fft.fftfreq": lambda xp, A: [xp.fft.fftfreq(n, d=0.5) for n in (1, 4, 5)] + [xp.fft.fftfreq(4, dtype=xp.float32)],
    "fft.rfftfreq": lambda xp, A: (
        [xp.fft.rfftfreq(n, d=0.5) for n in (1, 4, 5)] + [xp.fft.rfftfreq(4, dtype=xp.float32)]
    ),
    "fft.fftshift": lambda xp, A: [
        xp.fft.fftshift(A(X)),
        xp.fft.fftshift(A(X), axes=1),
        xp.fft.fftshift(A(X), axes=(0, -1)),
    ],
    "fft.ifftshift": lambda xp, A: [
        xp.fft.ifftshift(A(X)),
        xp.fft.ifftshift(A(X), axes=1),
        xp.fft.ifftshift(A(X), axes=(0, -1)),
    ],
}
for _name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
    CASES[f"fft.{_name}"] = lambda xp, A, name=_name: [
        find(xp.fft, name)(
            A(X.astype(dtype) if name in ("rfft", "ihfft") else X + 1j * X[::-1]), n=n, axis=k, norm=norm
        )
        for norm in ("backward", "ortho", "forward")
        for n, k in ((None, -1), (5, 1), (6, 1), (2, -1))
        for dtype in ("float32", "float64")
    ]
for _name in ("fftn", "ifftn", "rfftn", "irfftn"):
    CASES[f"fft.{_name}"] = lambda xp, A, name=_name: [
        find(xp.fft, name)(A(X if name == "rfftn" else X + 1j * X[::-1]), s=s, axes=k, norm=norm)
        for norm in ("backward", "ortho", "forward")
        for s, k in ((None, None), ((4, 2), (0, 1)), (None, (1, 0)), ((3, 5), (-1, 0)))
    ]


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    error = compare(name, CASES[name], exact=False)
    assert error is None, error


def test_every_function_is_compared():
    assert {*CASES, *UNARY, *BINARY} == {*FUNCTIONS}
