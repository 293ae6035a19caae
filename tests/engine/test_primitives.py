"""Every rule of the calculus, to second order, over real and complex numbers, against differences."""

import numpy as np
import pytest

import minigrad as mg

rng = np.random.default_rng(0)


def real(*shape):
    return rng.standard_normal(shape)


def positive(*shape):
    return rng.uniform(0.5, 2, shape)


def cplx(*shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


SQUARE = real(3, 3) + 4 * np.eye(3)
CSQUARE = cplx(3, 3) + 5 * np.eye(3)
INDEX = np.array([2, 0, 2])
ALONG = np.array([[1, 0], [0, 0], [3, 1]])
ROTARY = np.cos([[0.1, 1, 2], [3, 4, 5]]), np.sin([[0.1, 1, 2], [3, 4, 5]])

UNARY = "negative exp expm1 sin cos tan sinh cosh tanh square reciprocal sigmoid"
CASES = {name: (getattr(mg, name), [real(2, 3)]) for name in UNARY.split()}
CASES |= {f"{name} complex": (getattr(mg, name), [cplx(2, 3)]) for name in UNARY.split() if name != "sigmoid"}
CASES |= {name: (getattr(mg, name), [positive(2, 3)]) for name in ("log", "log1p", "sqrt", "abs")}
CASES |= {f"{name} complex": (getattr(mg, name), [cplx(2, 3)]) for name in ("log", "log1p", "sqrt", "abs")}
CASES |= {f"{n} complex": (getattr(mg, n), [cplx(2, 3)]) for n in ("conj", "real", "imag")}
CASES |= {
    n: (getattr(mg, n), [real(2, 3) / 4]) for n in "asin acos atan softplus log_sigmoid silu gelu erf relu".split()
}
CASES |= {
    n: (getattr(mg, n), [real(2, 3), positive(3)]) for n in "add subtract multiply divide maximum minimum".split()
}
CASES |= {f"{n} complex": (getattr(mg, n), [cplx(2, 1), cplx(3)]) for n in "add subtract multiply divide".split()}
CASES |= {f"{n} mixed": (getattr(mg, n), [real(2, 3), cplx(3)]) for n in "add subtract multiply divide".split()}
CASES |= {
    "pow": (mg.pow, [positive(2, 3), real(3)]),
    "pow complex": (mg.pow, [cplx(2, 3), cplx(3)]),
    "pow constant": (lambda x: x**3, [real(4)]),
    "pow of a constant": (lambda x: 2.0**x, [real(4)]),
    "atan2": (mg.atan2, [real(2, 3), positive(3)]),
    "logaddexp": (mg.logaddexp, [real(2, 3), real(3)]),
    "swiglu": (mg.swiglu, [real(2, 6)]),
    "rotary": (lambda x: mg.rotary(x, *(part.astype(x.dtype) for part in ROTARY)), [real(4, 2, 6)]),
    "where": (lambda x, y: mg.where(np.array([True, False, True]), x, y), [real(2, 3), real(3)]),
    "clip": (lambda x: mg.clip(x, -0.5, 0.5), [real(4)]),
    "sum": (lambda x: mg.sum(x, axis=1), [real(2, 3)]),
    "sum keepdims": (lambda x: mg.sum(x, axis=(0, 2), keepdims=True), [cplx(2, 3, 2)]),
    "mean": (lambda x: mg.mean(x, axis=(0, -1)), [real(2, 3, 2)]),
    "var": (lambda x: mg.var(x, axis=-1, correction=1), [real(2, 3)]),
    "var complex": (lambda x: mg.var(x, axis=-1), [cplx(2, 3)]),
    "std": (mg.std, [real(2, 3)]),
    "prod": (lambda x: mg.prod(x, axis=1), [real(2, 3)]),
    "prod of all": (mg.prod, [cplx(2, 3)]),
    "prod at zeros": (lambda x: mg.prod(x, axis=-1), [np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])]),
    "max": (lambda x: mg.max(x, axis=1), [real(2, 3)]),
    "min": (lambda x: mg.min(x, keepdims=True), [real(2, 3)]),
    "cumulative_sum": (lambda x: mg.cumulative_sum(x, axis=1), [cplx(2, 4)]),
    "cumulative_prod": (lambda x: mg.cumulative_prod(x, axis=0), [cplx(4, 2)]),
    "cumulative_prod at zeros": (lambda x: mg.cumulative_prod(x, axis=0), [np.array([1.0, 0.0, 2.0, 0.0, 3.0])]),
    "cumulative_max": (lambda x: mg.cumulative_max(x, axis=1), [real(2, 5)]),
    "scan": (lambda a, x: mg.scan(a, x, axis=0), [real(5, 2), real(5, 2)]),
    "scan complex": (lambda a, x: mg.scan(a, x, axis=-1), [cplx(2, 4), cplx(2, 4)]),
    "scan reversed": (lambda a, x: mg.scan(a, x, axis=1, reverse=True), [cplx(2, 4), real(2, 4)]),
    "scan broadcast": (lambda a, x: mg.scan(a, x), [real(4, 1), real(2, 4, 3)]),
    "softmax": (lambda x: mg.softmax(x, axis=0), [real(3, 2)]),
    "logsumexp": (lambda x: mg.logsumexp(x, axis=1), [real(3, 2)]),
    "logsumexp keepdims": (lambda x: mg.logsumexp(x, axis=0, keepdims=True), [real(3, 2)]),
    "log_softmax": (mg.log_softmax, [real(3, 2)]),
    "cross_entropy": (lambda x: mg.cross_entropy(x, np.array([[0, 2, 1]])), [real(1, 3, 4)]),
    "rms_norm": (mg.rms_norm, [real(3, 4)]),
    "causal_conv1d": (mg.causal_conv1d, [real(2, 5, 3), real(3, 4)]),
    "causal_conv1d continued": (lambda x, w, b: mg.causal_conv1d(x, w, before=b), [real(5, 3), real(3, 4), real(3, 3)]),
    "matmul": (mg.matmul, [real(2, 3, 4), real(4, 5)]),
    "matmul batch": (mg.matmul, [cplx(2, 1, 3, 4), cplx(3, 4, 2)]),
    "matmul matrix left": (mg.matmul, [real(3, 4), real(2, 4, 5)]),
    "matmul vectors": (mg.matmul, [cplx(4), cplx(4)]),
    "matmul vector left": (mg.matmul, [real(4), real(2, 4, 3)]),
    "matmul vector right": (mg.matmul, [real(2, 3, 4), real(4)]),
    "vecdot": (mg.vecdot, [cplx(2, 3), cplx(2, 3)]),
    "outer": (mg.outer, [real(2), real(3)]),
    "tensordot": (lambda x, y: mg.tensordot(x, y, axes=2), [real(2, 3, 4), real(3, 4, 2)]),
    "tensordot pairs": (lambda x, y: mg.tensordot(x, y, axes=((0, 2), (1, 0))), [real(2, 3, 4), real(4, 2)]),
    "einsum": (lambda x, y, z: mg.einsum("bij,jk,bk->ib", x, y, z), [cplx(2, 3, 4), real(4, 2), cplx(2, 2)]),
    "einsum implicit": (lambda x, y: mg.einsum("ij,jk", x, y), [real(2, 3), real(3, 4)]),
    "einsum ellipsis": (lambda x, y: mg.einsum("...ij,...j->...i", x, y), [real(2, 3, 4), real(4)]),
    "einsum diagonal": (lambda x: mg.einsum("iij->j", x), [real(3, 3, 2)]),
    "einsum summed alone": (lambda x, y: mg.einsum("ij,k->k", x, y), [real(2, 3), real(4)]),
    "solve": (mg.linalg.solve, [SQUARE, real(3, 2)]),
    "solve vector": (mg.linalg.solve, [CSQUARE, cplx(3)]),
    "solve batch": (mg.linalg.solve, [np.stack([SQUARE, SQUARE.T]), real(2, 3, 1)]),
    "solve_triangular": (lambda a, b: mg.solve_triangular(a, b, lower=True), [SQUARE, real(3, 2)]),
    "solve_triangular unit": (lambda a, b: mg.solve_triangular(a, b, unit_diagonal=True), [CSQUARE, cplx(3)]),
    "solve_triangular batch": (lambda a, b: mg.solve_triangular(a, b), [np.stack([SQUARE] * 2), real(3, 2)]),
    "inv": (mg.linalg.inv, [CSQUARE]),
    "det": (mg.linalg.det, [np.stack([SQUARE, SQUARE.T])]),
    "cholesky": (lambda a: mg.linalg.cholesky(a @ a.mT + np.eye(3, dtype=a.dtype)), [SQUARE]),
    "norm": (lambda x: mg.linalg.norm(x, axis=-1), [cplx(2, 3)]),
    "trace": (lambda x: mg.trace(x, offset=1), [real(2, 3, 4)]),
    "diagonal": (lambda x: mg.diagonal(x, offset=-1), [real(4, 3)]),
    "diagonal_matrix": (mg.diagonal_matrix, [cplx(2, 3)]),
    "reshape": (lambda x: mg.reshape(x, (3, -1)), [real(2, 3)]),
    "permute_dims": (lambda x: mg.permute_dims(x, (2, 0, 1)), [real(2, 3, 4)]),
    "matrix_transpose": (mg.matrix_transpose, [cplx(2, 3)]),
    "moveaxis": (lambda x: mg.moveaxis(x, 0, -1), [real(2, 3, 4)]),
    "expand_dims": (lambda x: mg.expand_dims(x, axis=(0, -1)), [real(2, 3)]),
    "squeeze": (lambda x: mg.squeeze(x, axis=(0, 2)), [real(1, 3, 1)]),
    "broadcast_to": (lambda x: mg.broadcast_to(x, (4, 2, 3)), [real(2, 1)]),
    "concat": (lambda x, y: mg.concat([x, y, x], axis=1), [real(2, 1), cplx(2, 3)]),
    "concat flattened": (lambda x, y: mg.concat([x, y], axis=None), [real(2, 1), real(3)]),
    "stack": (lambda x, y: mg.stack([x, y], axis=-1), [real(2, 3), real(2, 3)]),
    "unstack": (lambda x: mg.unstack(x, axis=1)[::2], [real(2, 3)]),
    "flip": (lambda x: mg.flip(x, axis=1), [real(2, 3)]),
    "roll": (lambda x: mg.roll(x, (1, -2), axis=(0, 1)), [real(3, 4)]),
    "pad": (lambda x: mg.pad(x, ((1, 0), (2, 3))), [real(2, 3)]),
    "tril": (lambda x: mg.tril(x, k=-1), [real(2, 3, 3)]),
    "triu": (lambda x: mg.triu(x, k=1), [real(3, 4)]),
    "repeat": (lambda x: mg.repeat(x, 3, axis=0), [real(2, 3)]),
    "tile": (lambda x: mg.tile(x, (2, 1, 3)), [real(2, 3)]),
    "slices": (lambda x: x[..., 1:, None] * x[0, :2][:, None], [real(2, 3)]),
    "repeated slices": (lambda x: mg.stack([x[t] * x[2 - t] for t in range(3)]), [cplx(3, 2)]),
    "fancy indexing": (lambda x: x[INDEX, :, INDEX], [real(3, 2, 3)]),
    "fancy indexing complex": (lambda x: x[:, INDEX], [cplx(2, 3)]),
    "boolean indexing": (lambda x: x[np.array([True, False, True])], [real(3, 2)]),
    "take": (lambda x: mg.take(x, np.array([[0, 2], [2, 2]]), axis=1), [real(2, 3, 2)]),
    "take_along_axis": (lambda x: mg.take_along_axis(x, ALONG, axis=0), [real(4, 2)]),
    "scatter_add": (lambda x, v: mg.scatter_add(x, ALONG, v, axis=0), [real(4, 2), real(3, 2)]),
    "sort": (lambda x: mg.sort(x, axis=0, descending=True), [real(5, 2)]),
    "fft": (mg.fft.fft, [cplx(2, 5)]),
    "fft of reals": (lambda x: mg.fft.fft(x, n=8, axis=0), [real(5, 2)]),
    "fft cut": (lambda x: mg.fft.fft(x, n=3), [cplx(2, 5)]),
    "ifft": (lambda x: mg.fft.ifft(x, axis=0), [cplx(4, 2)]),
    "rfft even": (mg.fft.rfft, [real(2, 6)]),
    "rfft odd": (lambda x: mg.fft.rfft(x, n=7, axis=0), [real(5, 2)]),
    "irfft even": (mg.fft.irfft, [cplx(2, 4)]),
    "irfft odd": (lambda x: mg.fft.irfft(x, n=7), [cplx(2, 4)]),
    "irfft padded": (lambda x: mg.fft.irfft(x, n=9), [cplx(2, 3)]),
    "astype": (lambda x: mg.astype(x, np.complex128) * (1 + 2j), [real(3)]),
}


@pytest.mark.parametrize("name", CASES)
def test_rule(name):
    f, args = CASES[name]
    mg.check_grads(f, args, order=2)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_do_not_depend_on_how_the_pass_is_run(name):
    """A recorded pass gives the same numbers as an ordinary one, and jvp the same as both."""
    f, args = CASES[name]
    out, pull = mg.vjp(f, *args)
    outs = out if isinstance(out, tuple) else (out,)
    g = tuple(np.cos(np.arange(o.size)).reshape(o.shape) * (1 + 0 * o) for o in outs)
    plain = pull(g if isinstance(out, tuple) else g[0])
    recorded = mg.vjp(f, *[mg.Tensor(a) for a in args])[1](g if isinstance(out, tuple) else g[0])
    tangents = [np.sin(np.arange(a.size) + 1.0).reshape(a.shape).astype(a.dtype) for a in args]
    _, tangent = mg.jvp(f, args, tangents)
    for p, r in zip(plain, recorded, strict=True):
        assert isinstance(p, (np.ndarray, np.generic)) and isinstance(r, mg.Tensor)
        np.testing.assert_allclose(r.value, p, rtol=1e-13, atol=1e-13)
    forward = sum(
        np.vdot(a, b).real for a, b in zip(g, tangent if isinstance(tangent, tuple) else [tangent], strict=True)
    )
    backward = sum(np.vdot(p, t).real for p, t in zip(plain, tangents, strict=True))
    np.testing.assert_allclose(forward, backward, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_values_are_numpys_and_dtypes_are_kept(name):
    """On raw arrays a function returns raw arrays, on Tensors the same numbers, and single precision stays single."""
    f, args = CASES[name]
    single = [a.astype(np.complex64 if a.dtype.kind == "c" else np.float32) for a in args]
    raw, boxed = f(*single), f(*[mg.Tensor(a) for a in single])
    for r, b in zip(
        raw if isinstance(raw, tuple) else [raw], boxed if isinstance(boxed, tuple) else [boxed], strict=True
    ):
        np.testing.assert_array_equal(b.value, r)
        assert name == "astype" or r.dtype in (np.float32, np.complex64)
    for g, a in zip(mg.vjp(f, *single)[1](raw), single, strict=True):
        assert g.dtype == a.dtype and g.shape == a.shape
