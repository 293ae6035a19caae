"""The oracle's table against PyTorch and JAX: values, first and second gradients, in every dtype both have.

A row's call runs over their namespaces as it stands, or as `torch_calls` and `jax_calls` write it where names or
options differ. Where inputs are NaN, infinite or at a kink the convention is PyTorch's. It takes gradients by the
adjoint as we do; JAX takes them by the transpose, so its cotangents and gradients are conjugated.
"""

import numpy as np
import pytest

import minigrad as mg
from tests.oracle import cases as oracle
from tests.oracle.domains import ROWS
from tests.oracle.draws import DTYPES, special

STANDARD = """
abs acos acosh add asin asinh atan atan2 atanh broadcast_arrays broadcast_to concat conj copysign cos cosh
cumulative_prod cumulative_sum diff divide exp expand_dims expm1 flip getitem hypot imag linalg.cholesky linalg.cross
linalg.det linalg.eigh linalg.eigvalsh linalg.inv linalg.matrix_norm linalg.matrix_power linalg.pinv linalg.qr
linalg.svd linalg.svdvals linalg.vector_norm log log10 log1p log2 logaddexp matmul matrix_transpose max maximum mean
meshgrid min minimum multiply negative permute_dims positive pow prod real reciprocal remainder repeat reshape roll
sign sin sinh sqrt square squeeze stack std subtract sum swapaxes take take_along_axis tan tanh tile tril triu unstack
var vecdot where fft.fft fft.fftn fft.fftshift fft.hfft fft.ifft fft.ifftn fft.ifftshift fft.ihfft fft.irfft
fft.irfftn fft.rfft fft.rfftn tensordot einsum
""".split()


def composed(name):
    """Return a call over the functions of any namespace, for functions that only minigrad has under one name."""
    return {
        "rms_norm": lambda xp, x, axis=-1, eps=1e-6: x / xp.sqrt(xp.mean(x * x, axis=axis, keepdims=True) + eps),
        "outer": lambda xp, x, y: x[:, None] * y[None, :],
        "solve": lambda xp, a, b: xp.linalg.solve(a, b),
        "scan": scan,
        "swiglu": lambda xp, x: xp.sigmoid(a := x[..., : x.shape[-1] // 2]) * a * x[..., x.shape[-1] // 2 :],
        "rotary": turned,
        "asarray": lambda xp, x: x + 0,
        "astype": lambda xp, x, dtype: x + 0j,
        "causal_conv1d": convolved,
        "nn.LayerNorm": layer_norm,
        "nn.Linear": lambda xp, x, w, b: x @ xp.matrix_transpose(w) + b,
        "nn.RMSNorm": lambda xp, x, w: x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * w,
        "trace": lambda xp, x, offset=0: xp.linalg.trace(x, offset=offset),
        "diagonal": lambda xp, x, offset=0: xp.linalg.diagonal(x, offset=offset),
        "logsumexp": lambda xp, x, axis=None, keepdims=False: xp.logsumexp(x, axis=axis, keepdims=keepdims),
    }[name]


def scan(xp, a, x, axis=-2, reverse=False):
    a, x = xp.broadcast_arrays(a, x)
    a, x = xp.moveaxis(a, axis, 0), xp.moveaxis(x, axis, 0)
    if not x.shape[0]:
        return xp.moveaxis(a * x, 0, axis)
    h, out = 0 * x[0], []
    for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        h = a[t] * h + x[t]
        out.append(h)
    return xp.moveaxis(xp.stack(out[::-1] if reverse else out), 0, axis)


def turned(xp, x, cos, sin):
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return xp.concat([a * cos - b * sin, a * sin + b * cos], axis=-1)


def convolved(xp, x, w, before):
    width, steps = w.shape[1], x.shape[-2]
    x = xp.concat([before, x], axis=-2)
    return sum(x[..., width - 1 - j : width - 1 - j + steps, :] * w[:, j] for j in range(width))


def layer_norm(xp, x, w, b):
    d = x - xp.mean(x, axis=-1, keepdims=True)
    return d / xp.sqrt(xp.mean(d * d, axis=-1, keepdims=True) + 1e-5) * w + b


COMPOSED = """
rms_norm outer solve scan rotary asarray astype causal_conv1d nn.LayerNorm nn.Linear nn.RMSNorm trace diagonal
""".split()

# Rows of the table that are compared with no other library here, each with the reason.
ONLY_OURS = {
    "to_dense": "the engine's own adjoint of indexing",
    "nn.Dropout": "its numbers are drawn by NumPy's generator",
    "nn.Conv1d": "causal_conv1d with a bias and a state that is copied",
    "nn.Embedding": "take along axis 0",
    "linalg.slogdet": "det and log, compared in det",
    "linspace": "linear in its ends, compared with NumPy",
    "moveaxis": "permute_dims",
}


def torch_calls(torch):
    functional = torch.nn.functional

    def torch_index(i):
        if isinstance(i, slice) and (i.step or 1) < 0:
            return torch.arange(3, -1, i.step)  # of an axis of 4; PyTorch has no negative steps
        if isinstance(i, (list, tuple, np.ndarray, np.generic)):
            return torch.tensor(np.array(i, dtype=None if np.array(i).dtype == bool else np.int64))
        return i

    def clamp(x, low=None, high=None):
        return torch.clamp(x, low, high)

    def softmax(x, axis=-1, where=None):
        if x.is_complex():  # for which PyTorch has none
            y = torch.exp(x) if where is None else torch.exp(x) * torch.asarray(where)
            total = torch.sum(y, axis, keepdim=True)
            return y / torch.where(total == 0, 1, total)
        if where is None:
            return torch.softmax(x, axis)
        return torch.nan_to_num(torch.softmax(torch.where(torch.asarray(where), x, -torch.inf), axis))

    return {
        "erf": torch.erf,
        "gelu": functional.gelu,
        "log_sigmoid": functional.logsigmoid,
        "relu": functional.relu,
        "sigmoid": torch.sigmoid,
        "silu": lambda x: x * torch.sigmoid(x),
        "softplus": lambda x: functional.softplus(x, threshold=100),
        "clip": lambda x, *bounds, min=None, max=None, above=False: (
            clamp(x, None, *bounds) if above else clamp(x, *bounds) if bounds else clamp(x, min, max)
        ),
        "swiglu": lambda x: torch.sigmoid(a := x[..., : x.shape[-1] // 2]) * a * x[..., x.shape[-1] // 2 :],
        "softmax": softmax,
        "log_softmax": lambda x, axis=-1: (
            x - torch.logsumexp(x, axis, True) if x.is_complex() else torch.log_softmax(x, axis)
        ),
        "logaddexp": lambda x, y: torch.log(torch.exp(x) + torch.exp(y)) if x.is_complex() else torch.logaddexp(x, y),
        "diff": lambda x, axis=-1, n=1, **ends: torch.diff(
            x, n, axis, **{name: torch.asarray(end).to(x.dtype) for name, end in ends.items()}
        ),
        "logsumexp": lambda x, axis, keepdims=False: torch.logsumexp(x, axis, keepdims),
        "cross_entropy": lambda x, targets: functional.cross_entropy(
            x.reshape(-1, x.shape[-1]), torch.asarray(targets).reshape(-1)
        ),
        "cumulative_max": lambda x, axis: torch.cummax(x, axis)[0],
        "sort": lambda x, axis=-1, descending=False: torch.sort(x, dim=axis, descending=descending, stable=True)[0],
        "solve_triangular": lambda a, b, lower=False, unit_diagonal=False: torch.linalg.solve_triangular(
            a, b if b.ndim > 1 else b[:, None], upper=not lower, unitriangular=unit_diagonal
        ).reshape((*a.shape[:-1], *b.shape[-1:]) if b.ndim > 1 else b.shape),
        "diagonal_matrix": torch.diag_embed,
        "take": lambda x, indices, axis: x[(slice(None),) * (axis % x.ndim) + (torch.tensor(np.int64(indices)),)],
        "getitem": lambda x, index: x[
            tuple(map(torch_index, index)) if isinstance(index, tuple) else torch_index(index)
        ],
        "reshape": lambda x, shape: torch.reshape(x, shape if isinstance(shape, tuple) else (shape,)),
        "repeat": lambda x, repeats, axis: torch.repeat_interleave(x, repeats, axis),
        "pad": lambda x, widths: functional.pad(x, [n for pair in reversed(widths) for n in pair]),
        "scatter_add": lambda x, v, indices, axis=-1: torch.scatter_add(
            x, axis, torch.asarray(indices) % x.shape[axis], v
        ),
    }


def jax_calls(jax):
    nn, np_ = jax.nn, jax.numpy

    def jax_index(i):
        return np.array(i) if isinstance(i, (list, tuple)) else i

    return {
        "erf": jax.scipy.special.erf,
        "take": lambda x, indices, axis: np_.take(x, np.int64(indices), axis=axis),
        "getitem": lambda x, index: x[tuple(map(jax_index, index)) if isinstance(index, tuple) else jax_index(index)],
        "permute_dims": lambda x, axes: np_.permute_dims(x, tuple(a % x.ndim for a in axes)),
        "linalg.det": lambda a: np_.linalg.det(a) if a.size else np_.ones(a.shape[:-2]),
        "gelu": lambda x: nn.gelu(x, approximate=False),
        "log_sigmoid": nn.log_sigmoid,
        "relu": nn.relu,
        "sigmoid": nn.sigmoid,
        "silu": nn.silu,
        "softplus": nn.softplus,
        "softmax": lambda x, axis=-1, where=None: nn.softmax(x, axis, where=where),
        "log_softmax": lambda x, axis=-1: nn.log_softmax(x, axis),
        "cumulative_max": lambda x, axis: jax.lax.cummax(x, axis % x.ndim),
        "logsumexp": lambda x, axis, keepdims=False: nn.logsumexp(x, axis, keepdims=keepdims),
        "clip": lambda x, min=None, max=None, above=False: np_.clip(x, *(None, min) if above else (min, max)),
        # JAX takes the sign of complex numbers for a constant.
        "sign": lambda x: x / np_.abs(x) if np_.iscomplexobj(x) else np_.sign(x),
        "diagonal_matrix": lambda d: d[..., None] * np_.eye(d.shape[-1]),
        "pad": lambda x, widths: np_.pad(x, widths),
        "sort": lambda x, axis=-1, descending=False: np_.sort(x, axis, descending=descending),
        "swiglu": lambda x: nn.silu(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :],
        "solve_triangular": lambda a, b, lower=False, unit_diagonal=False: jax.scipy.linalg.solve_triangular(
            a, b, lower=lower, unit_diagonal=unit_diagonal
        ),
    }


@pytest.fixture(scope="module")
def calls(torch, jax):
    """Return, for a library's name, its namespace and what it has under other names."""
    return {
        "torch": (mg.namespace(torch.empty(0)), torch_calls(torch)),
        "jax": (jax.numpy, jax_calls(jax)),
    }


def theirs(calls, library, name):
    """Return a row's call in another library, of its arrays and the options, or None."""
    xp, own = calls[library]
    if name in own:
        return own[name]
    if name in COMPOSED:
        return lambda *xs, **options: composed(name)(xp, *xs, **options)
    return (lambda *xs, **options: ROWS[name].call(xp, *xs, **options)) if name in STANDARD else None


# Where PyTorch's special numbers are its own, and why.
OWN = {
    "abs": (lambda x: np.isnan(x), "its gradient at NaN is 0, ours NaN"),
    "acosh": (lambda x: x <= -1, "its gradient has numbers where the function has none"),
    "gelu": (lambda x: np.isinf(x), "it multiplies 0 and infinity"),
    "silu": (lambda x: np.isinf(x), "it multiplies 0 and infinity"),
    "softplus": (lambda x: x >= 88, "its gradient overflows"),
    "copysign": (lambda x, y: np.isinf(x), "it divides infinities"),
    "atan2": (
        lambda y, x: ~((x * x + y * y > np.finfo(x.dtype).tiny) & np.isfinite(x * x + y * y)),
        "squares overflow",
    ),
    "remainder": (lambda x, y: np.isinf(x / y), "its quotient overflows"),
}
REAL_ONLY = ("erf", "gelu")  # there; here they are compared with differences for complex numbers
NAMES = [name for name in ROWS if name not in ONLY_OURS]


def agree(label, ours, other, tolerance):
    ours, other = np.asarray(oracle.raw(ours)), np.asarray(other)
    oracle.close(label, ours, other.astype(ours.dtype), tolerance)


def tupled(outputs):
    """Return several results as a plain tuple."""
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else outputs


def in_torch(torch, x):
    return torch.tensor(np.ascontiguousarray(x) if x.ndim else x, requires_grad=x.dtype.kind in "fc")


@pytest.mark.parametrize("kind", "efdFD")
@pytest.mark.parametrize("name", NAMES)
def test_torch(name, kind, calls, torch):
    row = ROWS[name]
    other = theirs(calls, "torch", name)
    assert other, f"{name} has no counterpart in PyTorch: write one, or say in ONLY_OURS why there is none"
    if kind not in row.kinds or (kind in "FD" and name in REAL_ONLY):
        return
    tolerance = 64 * float(np.finfo(DTYPES[kind]).eps) if kind != "e" else 0.02
    with oracle.quiet():
        for (_, options), case in zip(row.cases, oracle.cases(row, kind), strict=True):
            if name.startswith("fft") and not case.arrays[0].size:
                continue  # Intel's transforms refuse an empty batch
            tensors = [in_torch(torch, a) for a in case.arrays]
            outputs = other(*tensors, **options)
            outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
            out = case.function(*case.arrays)
            for ours, value in zip(oracle.parts(out), outputs, strict=True):
                agree(f"value of {options}", ours, value.numpy(force=True), tolerance)
            ws = oracle.weights(out)
            expected = torch.autograd.grad(
                outputs,
                tensors,
                [torch.tensor(w).to(m.dtype) for w, m in zip(ws, outputs, strict=True)],
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            actual = oracle.pulled(case.function, case.arrays, ws)[1]
            for n, (ours, value) in enumerate(zip(actual, expected, strict=True)):
                agree(f"gradient {n} of {options}", ours, value.numpy(force=True), tolerance)
            tracked_indices = [n for n, e in enumerate(expected) if e.requires_grad]
            if kind in "dD" and tracked_indices:
                vs = oracle.weights(actual, 7)
                second = torch.autograd.grad(
                    [expected[n] for n in tracked_indices],
                    tensors,
                    [torch.tensor(vs[n]) for n in tracked_indices],
                    allow_unused=True,
                    materialize_grads=True,
                )

                def gradients(*xs, function=case.function, ws=ws, tracked_indices=tracked_indices):
                    pulled = oracle.pulled(function, list(xs), ws)[1]
                    return tuple(pulled[n] for n in tracked_indices)

                ours = oracle.pulled(gradients, case.arrays, [vs[n] for n in tracked_indices])[1]
                for n, (value, e) in enumerate(zip(ours, second, strict=True)):
                    agree(f"second gradient {n} of {options}", value, e.numpy(force=True), 1e-9)


@pytest.mark.parametrize("kind", "dD")
@pytest.mark.parametrize("name", NAMES)
def test_jax(name, kind, calls, jax):
    row = ROWS[name]
    other = theirs(calls, "jax", name)
    if other is None or kind not in row.kinds or (kind in "FD" and name in REAL_ONLY):
        return
    with oracle.quiet():
        for (_, options), case in zip(row.cases, oracle.cases(row, kind), strict=True):
            outputs, pull = jax.vjp(
                lambda *xs, options=options: tupled(other(*xs, **options)), *map(jax.numpy.asarray, case.arrays)
            )
            out = case.function(*case.arrays)
            outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
            for ours, value in zip(oracle.parts(out), outputs, strict=True):
                agree(f"value of {options}", ours, value, 1e-12)
            ws = oracle.weights(out)
            g = [
                jax.numpy.asarray(np.conj(w) if m.dtype.kind == "c" else w.real)
                for w, m in zip(ws, outputs, strict=True)
            ]
            expected = pull(tuple(g) if len(g) > 1 else g[0])
            for n, (ours, value) in enumerate(
                zip(oracle.pulled(case.function, case.arrays, ws)[1], expected, strict=True)
            ):
                agree(f"gradient {n} of {options}", ours, np.conj(value), 1e-10)


@pytest.mark.parametrize("kind", "fd")
@pytest.mark.parametrize("name", [name for name in NAMES if ROWS[name].elementwise])
def test_torch_at_special_numbers(name, kind, calls, torch):
    """Values and gradients at zeros, ties, NaN, infinities and the ends of the range; and beyond the domain."""
    row, other = ROWS[name], theirs(calls, "torch", name)
    if kind not in row.kinds:
        return
    x = special(kind)
    arrays = [x] if len(row.arguments) == 1 else [np.repeat(x, x.size), np.tile(x, x.size)]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    with oracle.quiet():
        outputs = other(*tensors)
        out = row.call(mg, *arrays)
        w = np.ones_like(out)
        own = OWN[name][0](*arrays) if name in OWN else np.zeros(out.shape, bool)
        same_special("value", out, outputs.numpy(force=True), arrays, own)
        expected = torch.autograd.grad(outputs, tensors, torch.tensor(w), allow_unused=True, materialize_grads=True)
        for n, (ours, value) in enumerate(
            zip(oracle.pulled(lambda *xs: row.call(mg, *xs), arrays, [w])[1], expected, strict=True)
        ):
            same_special(f"gradient {n}", ours, value.numpy(force=True), arrays, own)


def same_special(label, ours, other, arrays, own):
    """Check that NaN and infinities are in the same places and finite numbers near, except where PyTorch differs."""
    info = np.finfo(ours.dtype)
    both = (ours == other) | (np.isnan(ours) & np.isnan(other))
    near = np.abs(ours - other) <= 1e-4 * np.abs(other) + 1e-5
    bad = np.nonzero(~both & ~near & ~own)[0]
    lines = [f"at {[float(a[i]) for a in arrays]}: {ours[i]}, PyTorch's {other[i]}" for i in bad[:6]]
    assert not len(bad), f"{label} differs in {len(bad)} of {ours.size} ({info.dtype}): " + "; ".join(lines)
