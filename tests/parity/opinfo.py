"""PyTorch's operations written in minigrad; an option that minigrad has no counterpart of is `LEFT_OUT`."""

import functools
import itertools

import numpy as np

import minigrad as mg

LEFT_OUT = object()


def unary(name):
    return lambda x: function(name)(x)


def function(name):
    return functools.reduce(getattr, name.split("."), mg)


def binary(f):
    return lambda x, y, **options: LEFT_OUT if options else f(x, y)


def scaled(f):
    return lambda x, y, alpha=1: f(x, y if alpha == 1 else mg.multiply(y, alpha))


def reduction(f):
    def call(x, dim=None, keepdim=False, dtype=None, **options):
        if dtype is not None:
            return LEFT_OUT
        dim = None if isinstance(dim, (list, tuple)) and not dim else dim
        return f(x, axis=tuple(dim) if isinstance(dim, list) else dim, keepdims=keepdim, **options)

    return call


def spread(f):
    def call(x, dim=None, unbiased=True, correction=None, keepdim=False):
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        correction = int(unbiased) if correction is None else correction
        dim = None if isinstance(dim, (list, tuple)) and not dim else dim
        return f(x, axis=tuple(dim) if isinstance(dim, list) else dim, correction=correction, keepdims=keepdim)

    return call


def along(f):
    return lambda x, dim=-1, dtype=None: LEFT_OUT if dtype is not None else f(x, axis=dim)


def clamp(x, min=None, max=None):
    return mg.clip(x, min, max)


def vector_norm(x, ord=2, dim=None, keepdim=False, dtype=None):
    if ord != 2 or dtype is not None:
        return LEFT_OUT
    return mg.linalg.norm(x, axis=tuple(dim) if isinstance(dim, list) else dim, keepdims=keepdim)


def transform(f):
    return lambda x, n=None, dim=-1, norm=None: LEFT_OUT if norm not in (None, "backward") else f(x, n, dim)


def linear(x, weight, bias=None):
    y = mg.matmul(x, mg.matrix_transpose(weight) if weight.ndim > 1 else weight)
    return y if bias is None else y + bias


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-len(shape), 0))
    d = x - mg.mean(x, axis=axes, keepdims=True)
    y = d / mg.sqrt(mg.mean(mg.square(d), axis=axes, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(x, shape, weight=None, eps=None):
    if len(shape) != 1 or x.dtype.kind == "c":
        return LEFT_OUT
    y = mg.rms_norm(x, eps=float(np.finfo(x.dtype).eps) if eps is None else eps)
    return y if weight is None else y * weight


def cross_entropy(x, target, **options):
    if options or x.ndim != 2 or target.dtype.kind != "i":
        return LEFT_OUT
    return mg.cross_entropy(x, target)


def pad(x, widths, mode="constant", value=None):
    if mode != "constant" or value or min(widths) < 0:
        return LEFT_OUT
    pairs = (
        list(itertools.batched(widths, 2))
        if hasattr(itertools, "batched")
        else list(zip(widths[::2], widths[1::2], strict=True))
    )
    return mg.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1])


def flat(x):
    return mg.reshape(x, (-1,))


def permuted(x, dims, *others):
    return mg.permute_dims(x, (dims, *others) if others else dims)


def shaped(f):
    return lambda x, *shape: f(x, tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape)


def expand(x, *shape):
    shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    sizes = (1,) * (len(shape) - x.ndim) + tuple(x.shape)
    return mg.broadcast_to(x, tuple(n if m == -1 else m for m, n in zip(shape, sizes, strict=True)))


def squeeze(x, dim=None):
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return mg.squeeze(x, tuple(d for d in dims if x.ndim and x.shape[d] == 1))


def extreme_along(f):
    def call(x, dim=None, keepdim=False):
        return f(x) if dim is None else f(x, axis=dim, keepdims=keepdim)

    return call


def ordered(x, dim=-1, descending=False, stable=False):
    return mg.sort(x, axis=dim, descending=descending) if x.ndim else LEFT_OUT


def index_select(x, dim, index):
    return mg.take(x, index, axis=dim) if x.ndim and index.ndim else LEFT_OUT


def along_dim(x, indices, dim=None):
    return (
        mg.take_along_axis(flat(x), flat(indices), axis=0) if dim is None else mg.take_along_axis(x, indices, axis=dim)
    )


def spans(x, index, dim):
    """Return whether an index has the sizes of x but along one axis; PyTorch's may be smaller."""
    sizes = [(n, m) for i, (n, m) in enumerate(zip(x.shape, index.shape, strict=False)) if i != dim % x.ndim]
    return 0 < x.ndim == index.ndim and all(n == m for n, m in sizes)


def gathered(x, dim, index, sparse_grad=False):
    if not x.ndim or not spans(x, index, dim):
        return LEFT_OUT
    return mg.take_along_axis(x, index, axis=dim)


def scattered(x, dim, index, src):
    if not x.ndim or src.shape != index.shape or not index.size or not spans(x, index, dim):
        return LEFT_OUT
    return mg.scatter_add(x, index, src, axis=dim)


def repeat_interleave(x, repeats, dim=None, output_size=None):
    if not isinstance(repeats, int):
        return LEFT_OUT
    return mg.repeat(flat(x) if dim is None else x, repeats, axis=0 if dim is None else dim)


def solve_triangular(a, b, *, upper, left=True, unitriangular=False):
    return mg.solve_triangular(a, b, lower=not upper, unit_diagonal=unitriangular) if left else LEFT_OUT


def solve(a, b, *, left=True):
    return LEFT_OUT if not left or (b.ndim > 1 and b.ndim == a.ndim - 1) else mg.linalg.solve(a, b)


def cholesky(a, upper=False):
    lower = mg.linalg.cholesky((a + mg.conj(mg.matrix_transpose(a))) / 2)
    return mg.conj(mg.matrix_transpose(lower)) if upper else lower


def tensordot(x, y, dims=2):
    return mg.tensordot(x, y, axes=dims if isinstance(dims, int) else tuple(map(tuple, dims)))


def diagonal(x, offset=0, dim1=0, dim2=1):
    return mg.diagonal(x, offset=offset) if (dim1 % x.ndim, dim2 % x.ndim) == (x.ndim - 2, x.ndim - 1) else LEFT_OUT


def embedded(d, offset=0, dim1=-2, dim2=-1):
    return mg.diagonal_matrix(d) if (offset, dim1, dim2) == (0, -2, -1) else LEFT_OUT


SAME = "abs acos asin atan ceil conj cos cosh erf exp expm1 floor imag isfinite isinf isnan log log1p real reciprocal"
SAME += " round sigmoid sign signbit sin sinh sqrt square tan tanh trunc logical_not linalg.det linalg.inv"
TWO = "maximum minimum atan2 logaddexp remainder pow logical_and logical_or logical_xor outer linalg.vecdot"
OURS = {name: unary(name) for name in SAME.split()}
OURS |= {name: binary(function(name.removeprefix("linalg."))) for name in TWO.split()}
OURS["logaddexp"] = lambda x, y: LEFT_OUT if x.dtype.kind == "c" else mg.logaddexp(x, y)
OURS |= {
    "neg": mg.negative,
    "__radd__": lambda x, y: y + x,
    "__rsub__": lambda x, y: y - x,
    "__rmul__": lambda x, y: y * x,
    "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x,
    "__rmod__": lambda x, y: y % x,
    "__rmatmul__": lambda x, y: y @ x,
    "nn.functional.relu": unary("relu"),
    "nn.functional.silu": unary("silu"),
    "nn.functional.logsigmoid": unary("log_sigmoid"),
    "nn.functional.gelu": lambda x, approximate="none": mg.gelu(x) if approximate == "none" else LEFT_OUT,
    "sgn": lambda x: LEFT_OUT if x.dtype.kind == "c" else mg.sign(x),
    "add": scaled(mg.add),
    "sub": scaled(mg.subtract),
    "mul": binary(mg.multiply),
    "true_divide": binary(mg.divide),
    "div no_rounding_mode": binary(mg.divide),
    "rsub": lambda x, y, alpha=1: mg.subtract(y, mg.multiply(x, alpha)),
    "floor_divide": binary(mg.floor_divide),
    "eq": binary(mg.equal),
    "ne": binary(mg.not_equal),
    "lt": binary(mg.less),
    "le": binary(mg.less_equal),
    "gt": binary(mg.greater),
    "ge": binary(mg.greater_equal),
    "where": lambda x, condition, y: mg.where(condition, x, y),
    "clamp": clamp,
    "clamp_min": lambda x, y: mg.clip(x, y),
    "clamp_max": lambda x, y: mg.clip(x, None, y),
    "sum": reduction(mg.sum),
    "mean": reduction(mg.mean),
    "prod": reduction(mg.prod),
    "amax": reduction(mg.max),
    "amin": reduction(mg.min),
    "all": reduction(mg.all),
    "any": reduction(mg.any),
    "var": spread(mg.var),
    "std": spread(mg.std),
    "count_nonzero": reduction(mg.count_nonzero),
    "logsumexp": reduction(mg.logsumexp),
    "max reduction_no_dim": extreme_along(mg.max),
    "min reduction_no_dim": extreme_along(mg.min),
    "max reduction_with_dim": extreme_along(mg.max),
    "min reduction_with_dim": extreme_along(mg.min),
    "linalg.vector_norm": vector_norm,
    "cumsum": along(mg.cumulative_sum),
    "cumprod": along(mg.cumulative_prod),
    "cummax": lambda x, dim: mg.cumulative_max(x, axis=dim),
    "softmax": along(mg.softmax),
    "log_softmax": along(mg.log_softmax),
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.rms_norm": rms_norm,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.linear": linear,
    "nn.functional.embedding": lambda w, index, **options: LEFT_OUT if options else mg.take(w, index, axis=0),
    "matmul": binary(mg.matmul),
    "mm": binary(mg.matmul),
    "bmm": binary(mg.matmul),
    "mv": binary(mg.matmul),
    "dot": binary(mg.matmul),
    "vdot": lambda x, y: mg.vecdot(x, y),
    "linalg.vecdot": lambda x, y, dim=-1: mg.vecdot(x, y, axis=dim),
    "tensordot": tensordot,
    "einsum": lambda xs, equation: mg.einsum(equation, *xs),
    "linalg.solve": solve,
    "linalg.solve_triangular": solve_triangular,
    "linalg.cholesky": cholesky,
    "cholesky": cholesky,
    "trace": unary("trace"),
    "diagonal": diagonal,
    "linalg.diagonal": lambda x, offset=0, dim1=-2, dim2=-1: diagonal(x, offset, dim1, dim2),
    "diag_embed": embedded,
    "reshape": shaped(mg.reshape),
    "view": shaped(mg.reshape),
    "flatten": lambda x, *dims, **named: LEFT_OUT if dims or named else flat(x),
    "ravel": flat,
    "permute": permuted,
    "transpose": lambda x, a, b: mg.swapaxes(x, a, b) if x.ndim else LEFT_OUT,
    "movedim": lambda x, a, b: mg.moveaxis(x, a, b),
    "unsqueeze": lambda x, dim: mg.expand_dims(x, axis=dim),
    "squeeze": squeeze,
    "mT": unary("matrix_transpose"),
    "broadcast_to": lambda x, shape: mg.broadcast_to(x, tuple(shape)),
    "expand": expand,
    "broadcast_tensors": lambda x, *ys: mg.broadcast_arrays(x, *ys),
    "cat": lambda xs, dim=0: mg.concat(xs, axis=dim),
    "stack": lambda xs, dim=0: mg.stack(xs, axis=dim),
    "unbind": lambda x, dim=0: mg.unstack(x, axis=dim),
    "flip": lambda x, dims: mg.flip(x, axis=tuple(dims)),
    "roll": lambda x, shifts, dims=None: mg.roll(
        x, shifts, axis=dims if isinstance(dims, int) else tuple(dims) if dims else None
    ),
    "nn.functional.pad constant": pad,
    "constant_pad_nd": pad,
    "tril": lambda x, k=0: mg.tril(x, k=k),
    "triu": lambda x, k=0: mg.triu(x, k=k),
    "tile": lambda x, reps: mg.tile(x, tuple(reps)),
    "repeat": lambda x, reps: mg.tile(x, tuple(reps)),
    "repeat_interleave": repeat_interleave,
    "__getitem__": lambda x, index: x[index],
    "index_select": index_select,
    "take_along_dim": along_dim,
    "gather": gathered,
    "scatter_add": scattered,
    "sort": ordered,
    "msort": lambda x: mg.sort(x, axis=0) if x.ndim else LEFT_OUT,
    "fft.fft": transform(mg.fft.fft),
    "fft.ifft": transform(mg.fft.ifft),
    "fft.rfft": transform(mg.fft.rfft),
    "fft.irfft": transform(mg.fft.irfft),
    "zeros_like": lambda x, **options: mg.zeros_like(x),
    "ones_like": lambda x, **options: mg.ones_like(x),
    "clone": lambda x, **options: mg.asarray(x),
    "contiguous": lambda x, **options: mg.asarray(x),
}

# PyTorch's operation, made a function of all matrices: its gradient is one of many that agree on Hermitian ones.
WRAPPED = dict.fromkeys(("cholesky", "linalg.cholesky"), lambda op: lambda a, **options: op((a + a.mH) / 2, **options))
