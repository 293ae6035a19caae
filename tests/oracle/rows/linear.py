"""Products, solves, factorizations and Fourier transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

import minigrad as mg
from tests.oracle.draws import INVERTIBLE, REAL
from tests.oracle.row import (
    cases,
    one,
)

EINSUMS = (
    (((2,),), {"subscripts": "i->"}),
    (((2, 3), (3, 4)), {"subscripts": "ij,jk"}),
    (((3, 3),), {"subscripts": "ii"}),
    (((2, 3),), {"subscripts": "ij->ji"}),
    (((2, 3), (1, 4)), {"subscripts": "ij,ik->jk"}),
    (((2, 3, 4), (4,)), {"subscripts": "...ij,...j->...i"}),
    (((3, 3, 2),), {"subscripts": "iij->j"}),
    (((2, 3), (4,)), {"subscripts": "ij,k->k"}),
    (((2, 3), (2, 3), (3,)), {"subscripts": "ij,ij,j->i"}),
    (((2, 0), (0, 3)), {"subscripts": "ij,jk->ik"}),
    (((0, 2), (2, 3)), {"subscripts": "ij,jk->ik"}),
    (((), (3,)), {"subscripts": ",i->i"}),
    (((2, 3), (2, 3)), {"subscripts": "ij,ij"}),
    (((2, 1, 3), (3, 2)), {"subscripts": "abc,cd->bad"}),
    (((2, 3), (2, 1)), {"subscripts": "ij,ij->ij"}),
    (((3, 3), (3, 3)), {"subscripts": "ii,ij->j"}),
)
PRODUCTS = (
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((3,), (2, 3, 4)),
    ((2, 2, 3), (3,)),
    ((2, 1, 2, 3), (4, 3, 2)),
    ((2, 3, 4), (4, 2)),
    ((2, 3), (2, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (3, 4)),
    ((2, 3), (3, 0)),
    ((2, 0, 3), (3, 2)),
    ((1, 2, 3), (2, 3, 1)),
)
SPECTRA = (
    ((2, 6),),
    ((5,),),
    ((5, 2), {"n": 8, "axis": 0}),
    ((2, 5), {"n": 3}),
    ((1,),),
    ((2, 2),),
    ((0, 3),),
    ((3, 2), {"n": 7, "axis": -2}),
)
MATRICES = (((3, 3),), ((2, 3, 3),), ((1, 1),), ((0, 3, 3),), ((0, 0),))


def _hermitian(xp: Any, a: Any) -> Any:
    return (a + xp.conj(xp.matrix_transpose(a))) / 2


def _spectral(xp: Any, u: Any, s: Any, *_: Any) -> tuple:
    """Return the values and what does not depend on the sign or phase of a vector."""
    return s, (u * xp.expand_dims(s, axis=-2) ** 2) @ xp.conj(xp.matrix_transpose(u))


def _triangle(a: np.ndarray, lower: bool, unit: bool) -> np.ndarray:
    a = np.tril(a) if lower else np.triu(a)
    eye = np.eye(a.shape[-1], dtype=a.dtype)
    return a * (1 - eye) + eye if unit else a


ROWS: dict[str, dict] = {
    # ---- products and solves
    "matmul": {"arguments": (REAL, REAL), "cases": [(s, {}) for s in PRODUCTS], "kinds": "efdFDi"},
    "vecdot": {
        "arguments": (REAL, REAL),
        "kinds": "efdFDi",
        "cases": cases(
            [((2, 3), (2, 3))], (((3, 2), (3, 1)), {"axis": 0}), [((3,), (2, 3))], [((0,), (0,))], [((2, 0), (2, 0))]
        ),
    },
    "outer": {"arguments": (REAL, REAL), "cases": cases([((2,), (3,))], [((0,), (3,))], [((1,), (1,))])},
    "tensordot": {
        "arguments": (REAL, REAL),
        "cases": cases(
            (((2, 3, 4), (3, 4, 2)), {"axes": 2}),
            (((2, 3), (2,)), {"axes": 0}),
            (((2, 3), (3, 2)), {"axes": 1}),
            (((2, 3, 4), (4, 2)), {"axes": ((0, 2), (1, 0))}),
            (((2, 0), (0, 3)), {"axes": 1}),
            (((2, 3), (3, 2)), {"axes": ([-1], [0])}),
        ),
    },
    "einsum": {
        "arguments": None,
        "cases": list(EINSUMS),
        "call": lambda xp, *xs, subscripts: xp.einsum(subscripts, *xs),
    },
    "solve": {
        "reference": np.linalg.solve,
        "arguments": (INVERTIBLE, REAL),
        "kinds": "fdFD",
        "cases": cases(
            [((3, 3), (3, 2))],
            [((3, 3), (3,))],
            [((2, 3, 3), (2, 3, 1))],
            [((2, 3, 3), (3, 2))],
            [((3, 3), (2, 3, 1))],
            [((0, 3, 3), (0, 3, 2))],
            [((3, 3), (3, 0))],
            [((0, 0), (0, 2))],
        ),
    },
    "solve_triangular": {
        "arguments": (INVERTIBLE, REAL),
        "kinds": "fdFD",
        "cases": cases(
            (((3, 3), (3, 2)), {"lower": True}),
            [((3, 3), (3,))],
            (((2, 3, 3), (3, 2)), {"unit_diagonal": True}),
            (((2, 3, 3), (2, 3, 1)), {"lower": True, "unit_diagonal": True}),
            [((0, 3, 3), (0, 3, 2))],
        ),
        "reference": lambda a, b, lower=False, unit_diagonal=False: np.linalg.solve(
            _triangle(a, lower, unit_diagonal), b
        ),
    },
    "linalg.inv": one(INVERTIBLE, *MATRICES, kinds="fdFD"),
    "linalg.det": one(INVERTIBLE, *MATRICES, ((2, 1, 2, 2),), ((4, 4),), kinds="fdFD", order=3, fractions=True),
    "linalg.cholesky": dict(
        one(INVERTIBLE, *MATRICES[:3], kinds="fdFD"),
        call=lambda xp, a: xp.linalg.cholesky(a @ xp.conj(xp.matrix_transpose(a))),
        hermitian=mg.linalg.cholesky,
    ),
    "linalg.slogdet": dict(one(INVERTIBLE, *MATRICES, kinds="fdFD"), reference=lambda a: tuple(np.linalg.slogdet(a))),
    "linalg.matrix_power": one(
        INVERTIBLE, ((3, 3), {"n": 3}), ((2, 2, 2), {"n": 0}), ((3, 3), {"n": -2}), kinds="fdFD"
    ),
    "linalg.pinv": one(REAL, ((3, 2),), ((2, 3),), ((2, 3, 3),), kinds="fdFD"),
    "linalg.qr": dict(
        one(REAL, ((3, 2),), ((3, 3),), ((2, 3, 2),), kinds="fdFD"),
        call=lambda xp, a: tuple(xp.linalg.qr(a)),
    ),
    "linalg.svd": dict(
        one(REAL, ((3, 3),), ((3, 2),), ((2, 2, 3),), kinds="fdFD"),
        call=lambda xp, a: _spectral(xp, *xp.linalg.svd(a, full_matrices=False)),
    ),
    "linalg.svdvals": one(REAL, ((3, 2),), ((2, 3, 3),), kinds="fdFD"),
    "linalg.eigh": dict(
        one(INVERTIBLE, ((3, 3),), ((2, 2, 2),), kinds="fdFD"),
        call=lambda xp, a: _spectral(xp, *reversed(xp.linalg.eigh(_hermitian(xp, a)))),
        hermitian=lambda a: mg.linalg.eigh(a).eigenvectors,
    ),
    "linalg.eigvalsh": dict(
        one(INVERTIBLE, ((3, 3),), ((2, 2, 2),), kinds="fdFD"), call=lambda xp, a: xp.linalg.eigvalsh(_hermitian(xp, a))
    ),
    "linalg.cross": {
        "arguments": (REAL, REAL),
        "cases": cases([((2, 3), (2, 3))], (((3, 2), (3, 1)), {"axis": 0})),
        "kinds": "efdFD",
    },
    "linalg.matrix_norm": one(
        REAL,
        ((3, 2),),
        ((2, 3, 3), {"ord": 1}),
        ((2, 3), {"ord": "nuc"}),
        ((2, 3), {"ord": 2}),
        ((2, 3), {"ord": -2}),
        ((2, 3), {"ord": -1}),
        ((2, 3, 2), {"ord": 2, "keepdims": True}),
        ((2, 3), {"ord": np.inf, "keepdims": True}),
        kinds="fdFD",
    ),
    "linalg.vector_norm": one(
        REAL,
        ((2, 3), {"axis": -1}),
        ((2, 3, 2), {"axis": (0, 2), "keepdims": True}),
        ((3,),),
        ((),),
        ((3,), {"ord": 1}),
        ((3,), {"ord": 3}),
        ((2, 3), {"axis": 0, "ord": 3}),
        ((2, 3), {"axis": 1, "ord": 2.5, "keepdims": True}),
        ((3,), {"ord": -np.inf}),
        ((2, 3), {"axis": 0, "ord": np.inf}),
        kinds="fdFD",
        flat=True,
        points=(
            ([[1, np.inf]], {"ord": 3}, np.inf, [[0, 0]]),
            ([[0, 1, 0]], {"ord": 3}, 1, [[0, 1, 0]]),
            ([[0, 4, 0]], {"ord": 0.5}, 4, [[0, 1, 0]]),
            ([[0, 0]], {"ord": 0.5}, 0, [[0, 0]]),
            ([[0, 2]], {"ord": -1.0}, 0, [[0, 0]]),
            ([[1e-200]], {"ord": 3}, 0, [[0]]),
        ),
    ),
    "trace": dict(
        one(
            REAL, ((2, 3, 4), {"offset": 1}), ((3, 3),), ((2, 3), {"offset": -2}), ((0, 2, 2),), ((2, 2), {"offset": 5})
        ),
        linear=True,
        reference=lambda x, offset=0: np.trace(x, offset, -2, -1),
    ),
    "diagonal": dict(
        one(
            REAL, ((4, 3), {"offset": -1}), ((2, 3, 3),), ((2, 3), {"offset": 2}), ((0, 2, 2),), ((2, 2), {"offset": 5})
        ),
        linear=True,
        reference=lambda x, offset=0: np.diagonal(x, offset, -2, -1),
    ),
    "diagonal_matrix": dict(
        one(REAL, ((3,),), ((2, 3),), ((0,),), ((0, 2),)),
        linear=True,
        reference=lambda d: d[..., None] * np.eye(d.shape[-1], dtype=d.dtype),
    ),
    # ---- Fourier transforms
    "fft.fft": one(REAL, *SPECTRA, kinds="fdFD", linear=True),
    "fft.ifft": one(REAL, *SPECTRA, kinds="fdFD", linear=True),
    "fft.rfft": one(REAL, *SPECTRA, kinds="fd", linear=True),
    "fft.irfft": one(
        REAL,
        *SPECTRA[:2],
        *SPECTRA[5:6],
        ((2, 3), {"n": 9}),
        ((4,), {"n": 5}),
        ((2, 2), {"n": 6, "axis": 0}),
        ((2, 4), {"n": 3}),
        kinds="FD",
        linear=True,
    ),
    "fft.hfft": one(REAL, ((4,),), ((2, 3), {"n": 5}), ((3, 2), {"axis": 0}), kinds="FD", linear=True),
    "fft.ihfft": one(REAL, ((6,),), ((2, 5),), ((3, 2), {"n": 4, "axis": 0}), kinds="fd", linear=True),
    "fft.fftn": one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1)}), kinds="fdFD", linear=True),
    "fft.ifftn": one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1)}), kinds="fdFD", linear=True),
    "fft.rfftn": one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1)}), kinds="fd", linear=True),
    "fft.irfftn": one(REAL, ((2, 3),), ((2, 3, 2), {"axes": (0, -1), "s": (2, 3)}), kinds="FD", linear=True),
    "fft.fftshift": one(REAL, ((5,),), ((2, 3), {"axes": 1}), linear=True),
    "fft.ifftshift": one(REAL, ((5,),), ((2, 3), {"axes": (0, 1)}), linear=True),
}
