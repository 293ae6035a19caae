"""grad, vjp, jvp and their relatives: functions made from functions by the engine's one backward pass."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigrad.backward import pull_back
from minigrad.containers import Container, arrays_of, is_array, map_arrays, rebuilt
from minigrad.engine import (
    Node,
    Tensor,
    as_raw,
    differentiable,
    is_complex,
    primitive,
    snapshot,
    unwrap,
    wrap,
)
from minigrad.namespace import namespace


@primitive(x=lambda g: g)
def identity(_, x):
    """x itself as a new node: what is differentiated with respect to it leaves x's other uses alone."""
    return x


def _target(x: Any, who: str) -> Tensor:
    """A Tensor to differentiate with respect to: a fresh node, above x's own if x is a Tensor that has one."""
    if isinstance(x, Tensor) and x._node is not None:
        return identity(x)
    raw = snapshot(as_raw(unwrap(x), who))
    if not differentiable(raw.dtype):
        raise TypeError(f"{who}: got an array of dtype {raw.dtype}, expected floating, complex or exact numbers")
    return wrap(raw, Node((), tuple(raw.shape), raw.dtype))


def _targets(x: Any, who: str) -> tuple[Any, list[Tensor]]:
    """Containers with every differentiable array replaced by a target, and the targets."""
    x = x if is_array(x) or isinstance(x, (dict, list, tuple, Container)) else as_raw(x, who)
    if is_array(x):
        target = _target(x, who)
        return target, [target]
    found: list[Tensor] = []

    def boxed(a: Any) -> Any:
        if not differentiable(a.dtype):
            return a
        found.append(_target(a, who))
        return found[-1]

    return map_arrays(boxed, x), found


def _regrouped(x: Any, gradients: Sequence[Any]) -> Any:
    """The gradients in the containers of x; None stands where an array is not differentiable."""
    queue = iter(gradients)
    if not is_array(x) and not isinstance(x, (dict, list, tuple, Container)):
        return next(queue)  # a number
    return map_arrays(lambda a: next(queue) if differentiable(a.dtype) else None, x)


def gradients(outputs: Any, inputs: Any, cotangents: Any = None, *, record: bool | None = None) -> Any:
    """Jᴴ g for every input, in the inputs' containers; zeros where the outputs do not depend on it.

    Every other gradient here is made of this one. With record=True the results are Tensors that can be differentiated
    again; with None they are exactly when the outputs also depend on something older than the inputs.
    Raises ValueError when an output is no real scalar and no cotangent of its shape is given, TypeError when an
    input is not a Tensor that is differentiated.
    """
    targets = arrays_of(inputs)
    for t in targets:
        if not isinstance(t, Tensor) or t._node is None:
            raise TypeError(f"gradients: inputs hold {type(t).__name__}, expected Tensors that are differentiated")
    return rebuilt(inputs, _pulled(outputs, cotangents, targets, record, "gradients"))


def _pulled(outputs: Any, cotangents: Any, targets: list[Tensor], record: bool | None, who: str) -> list:
    """What reaches each target; the outputs' own graph is freed on the way if the caller has let go of it."""
    outs = arrays_of(outputs) if arrays_of(outputs) else [as_raw(outputs, who)]
    gs = [None] * len(outs) if cotangents is None else arrays_of(cotangents) or [cotangents]
    if len(gs) != len(outs):
        raise ValueError(f"{who}: got {len(gs)} cotangents, expected {len(outs)}, one for each output")
    pairs = [(y, _cotangent(y, g, who)) for y, g in zip(outs, gs, strict=True)]
    pairs = [(y._node, g) for y, g in pairs if isinstance(y, Tensor) and y._node is not None]
    del outputs, outs
    found: list = [None] * len(targets)
    if pairs and targets:
        roots, gs = [y for y, _ in pairs], [g for _, g in pairs]
        del pairs
        found = pull_back(roots, gs, [t._node for t in targets], record)
    return [namespace(t._value).zeros_like(t._value) if g is None else g for t, g in zip(targets, found, strict=True)]


def _cotangent(output: Any, cotangent: Any, who: str) -> Any:
    raw = unwrap(output)
    if cotangent is None:
        if tuple(raw.shape) != () or is_complex(raw.dtype):
            raise ValueError(
                f"{who}: the output is {raw.dtype} of shape {tuple(raw.shape)}, expected a real scalar or a cotangent"
            )
        return namespace(raw).ones_like(raw)
    if tuple(np.shape(cotangent)) != tuple(raw.shape):
        raise ValueError(f"{who}: the cotangent has shape {np.shape(cotangent)}, expected {tuple(raw.shape)}")
    return cotangent if is_array(cotangent) else np.asarray(cotangent, dtype=raw.dtype)


def _chosen(args: tuple, argnums: int | Sequence[int], who: str) -> tuple[int, ...]:
    nums = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in nums:
        if not 0 <= n < len(args):
            raise ValueError(f"{who}: argnums names argument {n}, expected one of the {len(args)} given")
    return nums


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Python looks for reference cycles ever again among all it holds; a graph has none, and would be walked each time.

    Where nothing is switched off already: a call within another one leaves it to the outer, and so does its user.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


def value_and_grad(f: Callable, argnums: int | Sequence[int] = 0, *, has_aux: bool = False) -> Callable:
    """A function that returns f(*args) and its gradient with respect to the arguments of argnums.

    f returns a real scalar, or with has_aux a pair (scalar, anything). An argument may be an array, a Tensor or
    nested containers of them, `nn.Module`s included; the gradient has the same containers. The gradients are raw
    arrays, or Tensors when an argument was a Tensor (they can be differentiated again).
    Raises ValueError when f returns no real scalar, TypeError when an argument cannot be differentiated.
    """

    @_no_search_for_cycles()
    def evaluate(*args: Any) -> Any:
        nums = _chosen(args, argnums, "grad")
        boxed = {n: _targets(args[n], f"grad: argument {n}") for n in nums}
        targets = [t for n in nums for t in boxed[n][1]]
        out = f(*(boxed[n][0] if n in boxed else a for n, a in enumerate(args)))
        out, aux = out if has_aux else (out, None)
        value = out if any(t._node.parents for t in targets) else unwrap(out)
        last = [out]
        del out
        found = iter(_pulled(last.pop(), None, targets, None, "grad"))  # nothing else holds the graph now
        grouped = tuple(_regrouped(args[n], [next(found) for _ in boxed[n][1]]) for n in nums)
        result = grouped[0] if isinstance(argnums, int) else grouped
        return ((value, map_arrays(unwrap, aux)), result) if has_aux else (value, result)

    return evaluate


def grad(f: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """The gradient of a scalar function, ∂f/∂args[argnums], as `value_and_grad` gives it.

    For complex arguments it is the adjoint's: descent is −grad.
    """
    evaluate = value_and_grad(f, argnums)
    return lambda *args: evaluate(*args)[1]


def vjp(f: Callable, *args: Any) -> tuple[Any, Callable[[Any], tuple]]:
    """f(*args), and the function g ↦ Jᴴ g to the arguments; f returns an array or containers of arrays."""
    boxed = [_targets(a, f"vjp: argument {n}") for n, a in enumerate(args)]
    out = f(*(b[0] for b in boxed))
    targets = [t for b in boxed for t in b[1]]
    tracked = any(t._node.parents for t in targets)

    def pull(cotangents: Any) -> tuple:
        record = True if any(isinstance(g, Tensor) and g._node for g in arrays_of(cotangents)) else None
        found = iter(_pulled(out, cotangents, targets, record, "vjp"))
        return tuple(_regrouped(a, [next(found) for _ in b[1]]) for a, b in zip(args, boxed, strict=True))

    return (out if tracked else map_arrays(unwrap, out)), pull


def jvp(f: Callable, args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """f(*args) and its derivative J v along the tangents.

    g ↦ Jᴴ g is linear, and its adjoint is J: so a gradient of a recorded gradient is the directional derivative.
    """
    out, pull = vjp(f, *(map_arrays(Tensor, a if is_array(a) or arrays_of(a) else as_raw(a, "jvp")) for a in args))
    dummy = map_arrays(lambda o: Tensor(namespace(unwrap(o)).zeros_like(unwrap(o))), out)
    pulled = pull(dummy)
    total = _inner(pulled, tangents)
    raw = map_arrays(unwrap, out)
    if not isinstance(total, Tensor) or total._node is None:
        return raw, map_arrays(lambda o: namespace(o).zeros_like(o), raw)
    return raw, gradients(total, dummy, record=False)


def _inner(x: Any, y: Any) -> Any:
    """Re⟨x, y⟩ over all arrays of two containers."""
    total: Any = 0.0
    for a, b in zip(arrays_of(list(x)), [as_raw(t, "jvp") for t in _leaves(y)], strict=True):
        xp = namespace(a, b)
        total = total + xp.sum(xp.real(xp.conj(a) * b))
    return total


def _leaves(x: Any) -> list:
    return arrays_of(x) if arrays_of(x) else list(x)


def hvp(f: Callable, args: Sequence[Any], vectors: Sequence[Any]) -> tuple:
    """The Hessian of a real scalar function times the vectors: ∂/∂x ⟨∂f/∂x, v⟩, one result for each argument."""
    nums = tuple(range(len(args)))
    return grad(lambda *xs: _inner(grad(f, nums)(*xs), vectors), nums)(*args)
