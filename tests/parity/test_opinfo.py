"""PyTorch's own test samples (OpInfo), which come with it, for every operation that both libraries have.

`tests/parity/opinfo.py` writes each of PyTorch's operations in minigrad. The samples of an operation give values, first
and second gradients; for elementwise ones its reference inputs follow, which hold NaN, infinities and zeros. Complex
gradients have one convention here and there, the adjoint's.
"""

import itertools
import warnings

import numpy as np
import pytest

import minigrad as mg
from tests.parity.opinfo import LEFT_OUT, OURS, WRAPPED

FIRST = 40  # samples of an operation, and reference inputs of it, that are compared


def holds_nan(sample):
    return bool(sample.input.isnan().any())


# An operation, what differs, of which samples, and why that is no fault.
BY_DESIGN = {
    "sign": ("value is [nan", holds_nan, "the sign of NaN is NaN, as the standard has it"),
    "sgn": ("value is [nan", holds_nan, "the sign of NaN is NaN, as the standard has it"),
    "abs": ("gradient 0 is [nan", holds_nan, "the gradient at NaN is NaN"),
    "where": (
        "value is",
        lambda s: not any(getattr(x, "ndim", 0) for x in (s.input, s.args[1])),
        "two Python numbers make float64, as in NumPy",
    ),
    "cat": (
        "concat: got",
        lambda s: any(x.shape == (0,) for x in s.input) and any(x.ndim > 1 for x in s.input),
        "an array of shape (0,) does not go with arrays of more axes, as in NumPy",
    ),
    "logsumexp": (
        "second gradient 0 is [0.+0.j], PyTorch's [-2.4020",
        lambda s: s.input.is_complex() and float(s.input.abs().max()) > 1e6,
        "0 is right to 50 digits: its exp(x − out) keeps the rounding error of an imaginary part of 10⁶",
    ),
    "__rmod__": ("derivative for aten::remainder is not implemented", lambda s: True, "PyTorch has no gradient there"),
    "clamp": (
        "doesn't match the broadcast shape",
        lambda s: (
            np.broadcast_shapes(s.input.shape, *(getattr(x, "shape", ()) for x in (*s.args, *s.kwargs.values())))
            != tuple(s.input.shape)
        ),
        "PyTorch has no gradient of an input that its bounds broadcast",
    ),
    "tensordot": (
        "differ in size",
        lambda s: 1 in (*s.input.shape, *s.args[0].shape),
        "an axis of size 1 does not go with a longer one, as in NumPy",
    ),
}


def by_design(name, sample, error):
    """Return whether an error is the one expected of this sample; an array without axes has none to name, too."""
    if "array of 0 axes" in str(error) or "array of dimension 0" in str(error):
        return getattr(sample.input, "ndim", 1) == 0
    text, has, _ = BY_DESIGN.get(name, ("", lambda s: False, ""))
    return text in str(error) and has(sample)


@pytest.fixture(scope="module")
def samples():
    """Return a function from an operation, its variant and a dtype to its samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

    return {f"{op.name} {op.variant_test_name}".strip(): op for op in op_db}


def as_numpy(x, torch, result):
    """Return containers with NumPy arrays for tensors; those that are differentiated are collected as places."""
    if isinstance(x, torch.Tensor):
        array = x.numpy(force=True).copy()
        if x.requires_grad:
            result.append((x, array))
            return Place(len(result) - 1)
        return array
    if isinstance(x, torch.Size):
        return tuple(x)
    if isinstance(x, (list, tuple)):
        return type(x)(as_numpy(item, torch, result) for item in x)
    if isinstance(x, dict):
        return {name: as_numpy(item, torch, result) for name, item in x.items()}
    return x


class Place:
    """Placeholder of the n-th differentiated argument in a sample's containers."""

    def __init__(self, n):
        self.n = n


def filled(x, arrays):
    if isinstance(x, Place):
        return arrays[x.n]
    if isinstance(x, (list, tuple)):
        return type(x)(filled(item, arrays) for item in x)
    if isinstance(x, dict):
        return {name: filled(item, arrays) for name, item in x.items()}
    return x


def leaf(x, torch, orders):
    """Return a tensor as one that is differentiated where it can be."""
    if not isinstance(x, torch.Tensor):
        return x
    return x.detach().clone().requires_grad_(bool(orders) and (x.is_floating_point() or x.is_complex()))


def first_results(outputs, torch):
    """Return floating results: the values of torch's (values, indices)."""
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    return [m for m in outputs if m.is_floating_point() or m.is_complex()] or outputs


def agree(label, ours, theirs, dtype):
    """Raise AssertionError where two arrays differ, NaN and infinities included."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{label} has shape {ours.shape}, PyTorch's {theirs.shape}"
    single = dtype.itemsize <= 4
    scale = np.max(np.abs(theirs[np.isfinite(theirs)]), initial=0) if theirs.size < 400 else 0
    close = np.isclose(
        ours,
        theirs,
        rtol=2e-4 if single else 1e-9,
        atol=(1e-5 if single else 1e-10) * (1 + min(scale, 1e3)),
        equal_nan=True,
    )
    assert np.all(close), (
        f"{label} is {ours[~close][:3]}, PyTorch's {theirs[~close][:3]} ({np.sum(~close)} of {close.size})"
    )


def compare_sample(torch, op, ours, sample, orders=2):
    """Compare value and derivatives up to second order of a sample with PyTorch's; return whether that was possible."""
    sample = sample.transform(lambda x: leaf(x, torch, orders))
    actual = []
    x, args, kwargs = (as_numpy(part, torch, actual) for part in (sample.input, sample.args, sample.kwargs))
    tensors, arrays = [t for t, _ in actual], [a for _, a in actual]
    dtype = arrays[0].dtype if arrays else np.dtype(np.float64)

    def function(*arrays):
        outputs = ours(filled(x, arrays), *filled(args, arrays), **filled(kwargs, arrays))
        return outputs if outputs is LEFT_OUT else tuple(outputs) if isinstance(outputs, (list, tuple)) else (outputs,)

    outputs = function(*arrays)
    if outputs is LEFT_OUT:
        return False
    theirs = first_results(WRAPPED.get(op.name, lambda op: op)(op)(sample.input, *sample.args, **sample.kwargs), torch)
    for value, other in zip(outputs, theirs, strict=True):
        agree("value", value, other.numpy(force=True), dtype)
    tracked_indices = [i for i, other in enumerate(theirs) if other.requires_grad]
    if not tensors or not tracked_indices or not orders:
        return True
    rng = np.random.default_rng(0)

    def like(t):
        drawn = np.asarray(rng.standard_normal(tuple(t.shape)))
        drawn = drawn + 1j * rng.standard_normal(tuple(t.shape)) if t.is_complex() else drawn
        return torch.tensor(drawn).to(t.dtype)

    def tracked(*arrays):
        outputs = function(*arrays)
        return tuple(outputs[i] for i in tracked_indices)

    ws = [like(theirs[i]) for i in tracked_indices]
    expected = torch.autograd.grad(
        [theirs[i] for i in tracked_indices],
        tensors,
        ws,
        create_graph=orders > 1,
        allow_unused=True,
        materialize_grads=True,
    )
    g = tuple(w.numpy() for w in ws)
    for n, (result, other) in enumerate(zip(mg.vjp(tracked, *arrays)[1](g), expected, strict=True)):
        agree(f"gradient {n}", result, other.numpy(force=True), dtype)
    if orders > 1 and any(e.requires_grad for e in expected):
        positions = [i for i, e in enumerate(expected) if e.requires_grad]
        vs = [like(expected[i]) for i in positions]
        second = torch.autograd.grad(
            [expected[i] for i in positions], tensors, vs, allow_unused=True, materialize_grads=True
        )

        def gradients(*arrays):
            pulled = mg.vjp(tracked, *arrays)[1](g)
            return tuple(pulled[i] for i in positions)

        for n, (result, other) in enumerate(
            zip(mg.vjp(gradients, *arrays)[1](tuple(v.numpy() for v in vs)), second, strict=True)
        ):
            agree(f"second gradient {n}", result, other.numpy(force=True), dtype)
    return True


NAMES = [*OURS]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("name", NAMES)
def test_samples(name, dtype, samples, torch):
    compare_all(torch, samples, name, dtype, "sample_inputs", 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_reference_inputs(name, dtype, samples, torch):
    compare_all(torch, samples, name, dtype, "reference_inputs", 1)


def compare_all(torch, samples, name, dtype, kind, orders):
    wrong = []
    for op in [samples[name]]:
        number = getattr(torch, dtype)
        if number not in op.dtypes or (kind == "reference_inputs" and not hasattr(op, "ref")):
            continue
        differentiable = number in op.supported_backward_dtypes("cpu") and op.supports_autograd
        torch.manual_seed(0)
        orders = (orders if op.supports_gradgrad else min(orders, 1)) if differentiable else 0
        drawn = list(itertools.islice(getattr(op, kind)("cpu", number, requires_grad=False), FIRST))
        for sample in (s for s in drawn if not isinstance(s.input, torch.Tensor) or s.input.numel() < 10**4):
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    compare_sample(torch, op, OURS[name], sample, orders)
            except Exception as error:
                if by_design(name, sample, error):
                    continue
                wrong.append(f"{sample.summary()[:200]}: {type(error).__name__}: {str(error)[:200]}")
    assert not wrong, f"{len(wrong)} samples: " + "\n".join(wrong[:3])
