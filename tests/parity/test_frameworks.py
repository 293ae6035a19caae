"""Every cell of docs/FRAMEWORKS.md: a form inside PyTorch or JAX gives what it gives on NumPy's arrays.

A run has two calls, so that a state is returned and taken again. Traces of JAX are compared in shapes and dtypes with
64-bit numbers on and off, and once in values: to compile each would take minutes.
"""

import warnings

import ml_dtypes
import numpy as np
import pytest

import minigrad as mg
from docs import frameworks
from minigrad.pytree import arrays_of, map_arrays
from models.ssm import selective_scan
from proofs.checker.forms import forms
from tests.forms.drawing import tokens

FORMS = {form.name: form for form in forms()}
PLAIN = [name for name, form in FORMS.items() if not form.compiled]
COMPILED = [name for name, form in FORMS.items() if form.compiled]
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
TOLERANCES = {"float32": 1e-5, "bfloat16": 2.0**-6}  # of the largest entry; two roundings of bfloat16, on either side
INDUCTOR = ["delta_rule.chunkwise", "selective_scan.associative", "rnn.recurrent"]
CHUNK = 2


class Run:
    """A form on three tokens and then on one, from the state that it returned: y, y and the arrays of the state."""

    def __init__(self, name, dtype):
        self.form = FORMS[name]
        self.inputs = tokens(self.form, 4, dtype=DTYPES[dtype])
        self.arrays = list(self.inputs.values())
        self.batched = [0 if self.form.axes[x].startswith("*batch") else None for x in self.inputs]
        self.tolerance = TOLERANCES[dtype]

    def __call__(self, *arrays):
        inputs = dict(zip(self.inputs, arrays, strict=True))
        y, state = self.form(self.form.slice_time(inputs, 0, 3), None, CHUNK)
        z, state = self.form(self.form.slice_time(inputs, 3, None), state, CHUNK)
        return tuple(arrays_of((y, z, state)))

    def loss(self, *arrays):
        """Return the sum of the squares of all numbers that are returned."""
        out = [part for x in self(*arrays) for part in ((x.real, x.imag) if "complex" in str(x.dtype) else (x,))]
        return sum((x * x).sum() for x in out)

    def gradients(self):
        """Return the gradients of the loss on NumPy's arrays."""

        def loss(*arrays):
            out = [part for x in self(*arrays) for part in ((mg.real(x), mg.imag(x)) if x.dtype.kind == "c" else (x,))]
            return sum(mg.sum(x * x) for x in out)

        return mg.grad(loss, tuple(range(len(self.arrays))))(*self.arrays)

    def compare(self, actual, expected):
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), f"result {i}: {a.dtype} {a.shape}, not {b.dtype} {b.shape}"
            a, b = (x.astype(np.complex128) for x in (a, b))
            error, scale = np.abs(a - b).max(), np.abs(b).max() or 1.0
            assert error <= self.tolerance * scale, f"result {i} differs by {error / scale:.1e} of its largest entry"


def check(name, column, run):
    """Run a cell: it works where docs/frameworks.toml has no exception for it, and else fails as is said there."""
    exception = frameworks.exception(FORMS[name].function, column)
    if exception is None:
        run()
        return
    with pytest.raises(Exception) as raised:  # whatever the other library raises
        run()
    assert exception["error"] in str(raised.value)


# PyTorch


def to_torch(torch, x):
    return torch.from_numpy(x.astype(np.float32)).bfloat16() if x.dtype == ml_dtypes.bfloat16 else torch.from_numpy(x)


def from_torch(x):
    x = x.detach().resolve_conj()
    return x.float().numpy().astype(ml_dtypes.bfloat16) if str(x.dtype) == "torch.bfloat16" else x.numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PLAIN)
def test_torch(name, dtype, torch):
    run = Run(name, dtype)
    expected, argnums = run(*run.arrays), tuple(range(len(run.arrays)))
    tensors = [to_torch(torch, x) for x in run.arrays]

    def compare(actual, expected):
        run.compare(list(map(from_torch, actual)), expected)

    check(name, "torch eager", lambda: compare(run(*tensors), expected))
    check(name, "torch grad", lambda: compare(torch.func.grad(run.loss, argnums)(*tensors), run.gradients()))
    check(name, "torch vmap", lambda: compare(torch.func.vmap(run, tuple(run.batched))(*tensors), expected))


@pytest.mark.parametrize("name", PLAIN)
def test_torch_compile(name, torch):
    """One trace has both precisions, the first call in float32 and the second in bfloat16: it costs half as much."""
    check(name, "torch compile", lambda: compile_both(torch, name, "eager"))


@pytest.mark.parametrize("name", INDUCTOR)
def test_torch_compile_by_inductor(name, torch):
    compile_both(torch, name, "inductor")


def compile_both(torch, name, backend):
    single, half = Run(name, "float32"), Run(name, "bfloat16")
    form, names = single.form, list(single.inputs)

    def run(first, second, cast):
        y, state = form(form.slice_time(dict(zip(names, first, strict=True)), 0, 3), None, CHUNK)
        short = map_arrays(lambda x: x if "complex" in str(x.dtype) else cast(x), state)
        z, after = form(form.slice_time(dict(zip(names, second, strict=True)), 3, None), short, CHUNK)
        return tuple(arrays_of((y, state))), tuple(arrays_of((z, after)))

    expected = run(single.arrays, half.arrays, lambda x: x.astype(ml_dtypes.bfloat16))
    tensors = [[to_torch(torch, x) for x in each.arrays] for each in (single, half)]
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of each function with a cache that it does not use the cache
        actual = torch.compile(run, fullgraph=True, backend=backend)(*tensors, lambda x: x.bfloat16())
    for each, a, b in zip((single, half), actual, expected, strict=True):
        each.compare(list(map(from_torch, a)), b)


# JAX


@pytest.mark.parametrize("name", PLAIN)
def test_jax_traces(name, jax):
    for dtype in DTYPES:
        run = Run(name, dtype)
        results = run(*run.arrays)
        for column, traced, expected in (
            ("jax jit", run, results),
            ("jax grad", jax.grad(run.loss, tuple(range(len(run.arrays)))), run.arrays),
            ("jax vmap", jax.vmap(run, tuple(run.batched)), results),
        ):
            for x64 in (False, True):

                def trace(traced=traced, expected=expected, x64=x64, run=run):
                    with jax.enable_x64(x64):
                        actual = jax.eval_shape(traced, *run.arrays)
                    assert [(x.shape, x.dtype) for x in actual] == [(x.shape, x.dtype) for x in expected]

                check(name, column, trace)


@pytest.mark.parametrize("name", PLAIN)
def test_jax_computes(name, jax):
    """One program computes gradients and results of `vmap` in float32, and results in bfloat16."""
    single, half = Run(name, "float32"), Run(name, "bfloat16")

    def everything(first, second):
        gradients = jax.grad(single.loss, tuple(range(len(first))))(*first)
        return gradients, jax.vmap(single, tuple(single.batched))(*first), half(*second)

    with jax.enable_x64(False):
        lowered = jax.jit(everything).lower(single.arrays, half.arrays)
        gradients, batched, results = lowered.compile({"xla_backend_optimization_level": 0})(single.arrays, half.arrays)
    single.compare([np.asarray(x).conj() for x in gradients], single.gradients())  # JAX's gradients are the conjugates
    single.compare(list(map(np.asarray, batched)), single(*single.arrays))
    half.compare(list(map(np.asarray, results)), half(*half.arrays))


# Checks of values, and kernels


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_values_that_are_known_are_checked(library, request):
    module = request.getfixturevalue(library)
    asarray, grad = (module.tensor, module.func.grad) if library == "torch" else (module.numpy.asarray, module.grad)
    ones = asarray(np.ones((3, 2)))

    def loss(delta):
        return selective_scan.recurrent(ones, delta, -asarray(np.ones((2, 2))), ones, ones, ones[0])[0].sum()

    assert grad(loss)(ones).shape == (3, 2)
    with pytest.raises(ValueError, match="selective_scan.recurrent: delta holds .*, expected steps of at least 0"):
        loss(-ones)
    with pytest.raises(ValueError, match="selective_scan.recurrent: delta holds .*, expected steps of at least 0"):
        grad(loss)(-ones)  # whose values are known as well


@pytest.mark.parametrize("name", COMPILED)
def test_a_fused_form_says_that_its_kernel_takes_other_arrays(name, torch, jax):
    run = Run(name, "float32")
    with pytest.raises(TypeError, match="expected a NumPy array of float32 or float64"):
        run(*(to_torch(torch, x) for x in run.arrays))
    with pytest.raises(TypeError, match="expected a NumPy array of float32 or float64"):
        jax.eval_shape(run, *run.arrays)
