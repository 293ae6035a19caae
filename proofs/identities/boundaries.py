"""Beyond the boundaries inside compiled code: tiles, slabs, segments, parts for threads, and sizes where it takes over.

    scan                    1024 elements take the kernel, 1024 columns are a slab
    short convolution       4096 elements, a slab of 64 channels (float64: 32)
    activations, norms      4096 elements; whole vectors, rows of a multiple of 16
    products                64³ multiplications, shared among threads from 2²²; tiles of 64 rows
    softmax                 4096 elements of a matrix; the kernel's tiles of 128 queries and 512 keys
    matrix memories         boundary states every 32 tokens, passes of 2 tokens, slabs of 32 columns (float64: 16)
    selective scan          boundary states every 32 tokens, slabs of 64 channels (float64: 32)
    networks                four sequences and 32 units at a time (float64: 16)
    inner models            boundary states every 8 mini-batches, rows of four, whole vectors of columns
    long convolutions       a power of two of points, parts of 256, vectors of 16 channels (float64: 8)
    S4's and S4D's kernels  vectors of frequencies, √L blocks; buffers for 2¹⁷ numbers

The statements about every form draw few and short sequences. Here each form runs once at a size past these numbers, not
a multiple of them, with three threads, and its outputs and all gradients are compared with those of array code. Inputs
are normal, keys of length 1. A wrong offset or an index past a tile gives errors of the numbers' own size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine import unwrap
from models.forms import axis_factor
from models.mechanism import Domain
from proofs.checker.evaluate import flatten
from proofs.checker.forms import Form, each_pair
from proofs.checker.statements import Instance, bounded
from proofs.checker.strategies import Strategy, walk
from proofs.layers import PRECISIONS, TO_HALF_THE_DIGITS, convolve, softmax

CHAPTER = 1

KERNELS = "minigrad, models/kernels"
ENGINE = "minigrad, minigrad/compiled"
THREADS = 3
CHUNK = 64  # the default of most chunkwise forms
MINI_BATCH = {"titans": 2, "ttt": 6}  # of inner models

Arrays = Sequence[np.ndarray]

# The sizes of each mechanism's axes, past the boundaries of its kernel; of other mechanisms, and other axes, any
OTHERS = 9
BATCH: dict[str, Any] = {"*batch": (2,)}
MEMORY = {**BATCH, "T": 67, "K": 18, "V": 35}
SIZES: dict[str, dict[str, Any]] = {
    "softmax": {**BATCH, "T": 130, "S": 400, "K": 9, "V": 5},
    "selective_scan": {**BATCH, "T": 67, "D": 70, "N": 3},
    "ssd": {**BATCH, "T": 67, "N": 18, "P": 35},
    "rnn": {"*batch": (5,), "T": 3, "N": 35},
    "lstm": {"*batch": (5,), "T": 3, "D": 3, "H": 35},
    "rwkv4": {**BATCH, "T": 67, "D": 3},
    "lti": {**BATCH, "T": 300, "D": 9, "N": 2},
    "s4": {**BATCH, "T": 270, "D": 9, "N": 4},
    "s4d": {"*batch": (), "T": 270, "D": 20, "N": 350},
    "lssl": {**BATCH, "T": 270, "D": 9, "N": 2},
    "titans": {**BATCH, "T": 19, "K": 6, "D": 9, "V": 5},
    "ttt": {**BATCH, "T": 20, "K": 18, "D": 9, "V": 35},
}
LAZY = {**BATCH, "T": 260, "S": 5, "K": 3, "V": 2}


# Drawing


def draw(domain: Domain, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return numbers of a domain for which long sequences stay bounded; for LEFT_HALF_PLANE complex ones."""
    x = rng.standard_normal(shape)
    if domain is Domain.ANY:
        return x
    if domain is Domain.KEYS:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)
    if domain is Domain.SMALL:
        return x / (2 * shape[-1] ** 0.5)
    if domain is Domain.LEFT_HALF_PLANE:
        return -rng.uniform(0.1, 1, shape) + 1j * x
    if domain is Domain.STABLE:
        return (x - x.T) / 4 - np.eye(len(x))
    if domain is Domain.LOG_GATE:
        return np.log(rng.uniform(0.5, 1, shape))
    uniform = rng.uniform(0.1, 0.5, shape)
    return -uniform if domain is Domain.NEGATIVE else uniform


def arrays_of(form: Form, sizes: dict[str, Any], precision: str) -> tuple[dict[str, np.ndarray], Any]:
    """Return the tokens of a form and an initial state, None where a part of it is a count."""
    rng = np.random.default_rng(0)

    def array(strategy: Strategy, domain: Domain) -> np.ndarray:
        factors = [axis_factor(axis) for axis in strategy.axes.split()]
        lengths = [(1 if axis == "1" else sizes.get(axis, OTHERS), factor) for factor, axis in factors]
        shape = tuple(n for size, factor in lengths for n in (size if isinstance(size, tuple) else (factor * size,)))
        x = draw(domain, shape, rng)
        if strategy.complex and not np.iscomplexobj(x):
            x = x + 1j * draw(domain, shape, rng)
        return x.astype(np.result_type(precision, np.complex64) if np.iscomplexobj(x) else precision)

    tokens = {name: array(strategy, form.domains[name]) for name, strategy in form.tokens.items()}
    if form.layout or any(strategy.fill is None for strategy in walk(form.state)):
        return tokens, None
    parts = [array(strategy, form.mechanism.state) for strategy in walk(form.state)]
    return tokens, tuple(parts) if isinstance(form.state, tuple) else parts[0]


# Comparison


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of threads of kernels inside the block, and restore it after."""
    before = mg.get_num_threads()
    mg.set_num_threads(count)
    try:
        yield
    finally:
        mg.set_num_threads(before)


def outputs_and_gradients(function: Callable[..., Any], arrays: Arrays) -> list[np.ndarray]:
    """Return all results of a function, and the gradients of all arrays along one normal cotangent."""

    def loss(*arrays: Any) -> Any:
        rng, results = np.random.default_rng(1), flatten(function(*arrays))
        total = 0
        for y in results:
            c = rng.standard_normal(y.shape).astype(unwrap(y).real.dtype)
            total = total + mg.sum(c * mg.real(y)) + (mg.sum(c * mg.imag(y)) if np.iscomplexobj(unwrap(y)) else 0)
        return total, results

    (_, results), gradients = mg.value_and_grad(loss, argnums=tuple(range(len(arrays))), has_aux=True)(*arrays)
    return [unwrap(x) for x in (*results, *gradients)]


def compare(ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: np.ndarray) -> tuple[Any, Any]:
    """Return how far two functions are from one another, in results and gradients, and half the digits of these."""
    with threads(THREADS):
        left, right = (outputs_and_gradients(function, arrays) for function in (ours, theirs))
    half = float(np.finfo(arrays[0].dtype).eps) ** 0.5
    errors = [np.atleast_1d(abs(a - b)).astype(float) for a, b in zip(left, right, strict=True)]
    return errors, [np.full(np.shape(e), half * (1 + float(abs(b).max()))) for e, b in zip(errors, right, strict=True)]


# Forms of mechanisms


def pairs(*, compiled: bool) -> list[Instance]:
    """Return an instance for each form but the plainest, the compiled ones in both precisions."""
    instances = []
    for case in each_pair():
        form, plainest = case.fixed["form"], case.fixed["plainest"]
        if form.compiled is compiled and (compiled or form.layout is None):
            # array code of the same order of work, unless it shares the convolution's kernel
            fixed = {"form": form, "plainest": plainest, "shares_kernel": form.function.work == "FFT"}
            for precision in ("float64", "float32") if compiled else ("float64",):
                label = f"{case.label}.{precision}" if compiled else case.label
                instances.append(Instance(label, fixed | {"precision": precision}, {}))
    return instances


def of_forms(form: Form, plainest: Form, sizes: dict[str, Any], precision: str, shares_kernel: bool) -> tuple[Any, Any]:
    tokens, state = arrays_of(form, sizes, precision)
    states = [] if state is None else [*state] if isinstance(state, tuple) else [state]
    chunk_size = MINI_BATCH.get(mechanism(form), OTHERS) if form.layout else CHUNK

    def call(function: Callable[..., Any], *arrays: Any) -> Any:
        values, parts = dict(zip(tokens, arrays, strict=False)), arrays[len(tokens) :]
        start = None if not parts else tuple(parts) if isinstance(state, tuple) else parts[0]
        return function(values, start, chunk_size)

    reference = plainest if shares_kernel or not form.compiled else replace(form, function=form.reference)
    return compare(
        lambda *arrays: call(form, *arrays), lambda *arrays: call(reference, *arrays), *tokens.values(), *states
    )


@bounded(
    "At sizes past its tiles, slabs and segments, on three threads, a kernel gives what array code gives"
    + TO_HALF_THE_DIGITS,
    source=KERNELS,
    over=pairs(compiled=True),
    only=("float64",),
)
def kernels(form: Form, plainest: Form, precision: str, shares_kernel: bool):
    return of_forms(form, plainest, SIZES.get(mechanism(form), MEMORY), precision, shares_kernel)


@bounded(
    "Past its default chunk, and past the sizes where scan and convolution are compiled, a form gives what the "
    "plainest gives" + TO_HALF_THE_DIGITS,
    source="minigrad, the papers each mechanism names",
    over=pairs(compiled=False),
    only=("float64",),
)
def chunks(form: Form, plainest: Form, precision: str, shares_kernel: bool):
    sizes = LAZY if form.function.__name__ == "lazy" else SIZES.get(mechanism(form), MEMORY)
    sizes = {**sizes, "T": max(sizes["T"], CHUNK + 3)}
    return of_forms(form, plainest, sizes, precision, shares_kernel)


def mechanism(form: Form) -> str:
    return form.name.partition(".")[0]


# The engine's own kernels


def normal(precision: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(precision)


def recurrence(a: Any, x: Any, *, reverse: bool) -> Any:
    """Return hₜ = aₜ hₜ₋₁ + xₜ along the second axis from the last, token after token."""
    times = range(x.shape[-2])
    h, rows = 0, {}
    for t in reversed(times) if reverse else times:
        rows[t] = h = a[..., t, :] * h + x[..., t, :]
    return mg.stack([rows[t] for t in times], axis=-2)


@bounded(
    "A scan past a slab of columns, with the order of time and against it, is the recurrence" + TO_HALF_THE_DIGITS,
    source=ENGINE,
    over=[
        Instance(f"{case.label}.{'backwards' if reverse else 'forwards'}", {**case.fixed, "reverse": reverse}, {})
        for case in PRECISIONS
        for reverse in (False, True)
    ],
    only=("float64",),
)
def scan(precision: str, reverse: bool):
    a, x = normal(precision, 2, 3, 1030)
    return compare(
        lambda a, x: mg.scan(a, x, axis=-2, reverse=reverse), lambda a, x: recurrence(a, x, reverse=reverse), a, x
    )


@bounded(
    "A short convolution past a slab of channels is the sum over its taps" + TO_HALF_THE_DIGITS,
    source=ENGINE,
    over=PRECISIONS,
    only=("float64",),
)
def short_convolution(precision: str):
    x, w = normal(precision, 2, 35, 70), normal(precision, 70, 4)
    return compare(mg.causal_conv1d, lambda x, w: convolve({"f.weight": w}, "f", x), x, w)


def in_parts(function: Callable[..., Any], rows: int) -> Callable[..., Any]:
    """Return the function applied to a few rows at a time, too few for a kernel."""

    def apply(x: Any, *others: Any) -> Any:
        parts = [slice(start, start + rows) for start in range(0, len(x), rows)]
        return mg.concat([function(x[part], *(other[part] for other in others)) for part in parts], axis=0)

    return apply


ROW_BY_ROW: dict[str, tuple[Callable[..., Any], int, tuple[tuple[int, ...], ...]]] = {
    # a function, the rows of a part, and the shapes of its arguments
    "sigmoid": (mg.sigmoid, 500, ((4100,),)),
    "tanh": (mg.tanh, 500, ((4100,),)),
    "silu": (mg.silu, 500, ((4100,),)),
    "gelu": (mg.gelu, 500, ((4100,),)),
    "rms_norm": (mg.rms_norm, 50, ((130, 48),)),
    "swiglu": (mg.swiglu, 20, ((70, 70),)),
    "rotary": (mg.rotary, 20, ((70, 70), (70, 35), (70, 35))),
}


@bounded(
    "Functions of elements or rows give large arrays what they give small parts of them" + TO_HALF_THE_DIGITS,
    source=ENGINE,
    over=[
        Instance(f"{name}.{case.label}", {"name": name, **case.fixed}, {}) for name in ROW_BY_ROW for case in PRECISIONS
    ],
    only=("float64",),
)
def large_arrays(name: str, precision: str):
    function, rows, shapes = ROW_BY_ROW[name]
    return compare(function, in_parts(function, rows), *(normal(precision, *shape) for shape in shapes))


MATRICES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    # a function that takes large matrices one by one, and its definition
    "softmax": (mg.softmax, softmax),
    "matmul": (lambda x: x @ x.mT, lambda x: mg.sum(x[..., :, None, :] * x[..., None, :, :], axis=-1)),
}


@bounded(
    "The softmax and the product of large matrices are their definitions" + TO_HALF_THE_DIGITS,
    source=ENGINE,
    over=[
        Instance(f"{name}.{case.label}", {"name": name, **case.fixed}, {}) for name in MATRICES for case in PRECISIONS
    ],
    only=("float64",),
)
def large_matrices(name: str, precision: str):
    return compare(*MATRICES[name], normal(precision, 3, 70, 70))


@bounded(
    "A product that threads share is the sum of products of a few columns each" + TO_HALF_THE_DIGITS,
    source=f"{ENGINE}/threads.py",
    over=PRECISIONS,
    only=("float64",),
)
def shared_product(precision: str):
    x, y = normal(precision, 130, 200), normal(precision, 200, 170)
    parts = [slice(start, start + 8) for start in range(0, 200, 8)]
    return compare(lambda x, y: x @ y, lambda x, y: sum(x[:, part] @ y[part] for part in parts), x, y)
