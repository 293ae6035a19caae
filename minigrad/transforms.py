"""Transforms of functions: grad, value_and_grad, vjp, jvp and hvp, all in terms of one backward pass."""

from __future__ import annotations

import gc
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigrad.backward import backward_pass, depends_on_older
from minigrad.conversion import as_array, copy_if_mutable, differentiable, is_complex, is_differentiable
from minigrad.engine import Node, Tensor, primitive, unwrap, wrap
from minigrad.namespace import namespace
from minigrad.primitives.elementwise import has_complex_objects, real
from minigrad.pytree import is_container, is_leaf, leaves_of, map_leaves, matching_leaves


@primitive(x=lambda g: g)
def identity(_, x):
    """Return x as a new node: derivatives with respect to it are partial, other uses of x do not count."""
    return x


def _target(x: Any, caller: str) -> Tensor:
    """Return a Tensor to differentiate with respect to: a new leaf, or a child of x's node if x is tracked."""
    if isinstance(x, Tensor) and x._node is not None:
        return identity(x)
    raw = copy_if_mutable(as_array(unwrap(x), caller))
    if not differentiable(raw.dtype):
        raise TypeError(f"{caller}: got an array of dtype {raw.dtype}, expected floating, complex or exact numbers")
    return wrap(raw, Node((), tuple(raw.shape), raw.dtype))


def _targets(x: Any, caller: str) -> tuple[Any, list[Tensor]]:
    """Replace every differentiable leaf in the containers by a target; return the containers and the targets."""
    if not is_container(x):
        target = _target(x, caller)
        return target, [target]
    targets: list[Tensor] = []

    def box(a: Any) -> Any:
        if not is_differentiable(a):
            return a
        targets.append(_target(a, caller))
        return targets[-1]

    return map_leaves(box, x), targets


def _unflatten(x: Any, gradients: Sequence[Any]) -> Any:
    """Return the gradients in the containers of x, with None for leaves that are not differentiable."""
    queue = iter(gradients)
    if not is_container(x):
        return next(queue)
    return map_leaves(lambda a: next(queue) if is_differentiable(a) else None, x, lambda _: None)


def gradients(outputs: Any, inputs: Any, cotangents: Any = None, *, record: bool | None = None) -> Any:
    """Return Jᴴ g for every input, in the inputs' containers; zeros where the outputs do not depend on it.

    With record=True the results are Tensors that can be differentiated again; with None they are if the outputs also
    depend on a Tensor older than the inputs, which an enclosing transform may differentiate with respect to.
    Raises ValueError when an output is no real scalar and no cotangent of its shape is given, TypeError when an
    input is not a Tensor that is differentiated.
    """
    targets = leaves_of(inputs)
    for t in targets:
        if not isinstance(t, Tensor) or t._node is None:
            raise TypeError(f"gradients: inputs hold {type(t).__name__}, expected Tensors that are differentiated")
    return _unflatten(inputs, _backward(outputs, cotangents, targets, record, "gradients")[0])


def _backward(
    outputs: Any, cotangents: Any, targets: list[Tensor], record: bool | None, caller: str
) -> tuple[list, list]:
    """Return the cotangent of each target, and the nodes of the outputs if the pass was recorded.

    If it was not, each node is freed once it has been visited, unless the caller still refers to it.
    """
    outs = leaves_of(outputs) if is_container(outputs) else [as_array(outputs, caller)]
    gs = [None] * len(outs) if cotangents is None else _flatten_cotangents(outputs, cotangents, caller)
    pairs = [(y, _check_cotangent(y, g, caller)) for y, g in zip(outs, gs, strict=True)]
    pairs = [(y._node, g) for y, g in pairs if isinstance(y, Tensor) and y._node is not None]
    del outputs, outs
    results: list = [None] * len(targets)
    roots, gs = [y for y, _ in pairs], [g for _, g in pairs]
    del pairs
    if roots and targets:
        results = backward_pass(roots, gs, [t._node for t in targets], record)
    for n, t in enumerate(targets):
        if results[n] is None:
            results[n] = namespace(t._value).zeros_like(t._value)
        elif has_complex_objects(results[n]) and not has_complex_objects(t._value):
            results[n] = real(results[n])  # as the engine does where a dtype tells
        elif not _owns_memory(results, n):
            results[n] = copy_if_mutable(results[n])
    return results, roots


def _flatten_cotangents(outputs: Any, cotangents: Any, caller: str) -> list:
    """Return a list of the cotangents in the order of the outputs."""
    if not is_container(outputs):
        leaves = leaves_of(cotangents) if isinstance(cotangents, tuple) else [cotangents]
        if len(leaves) != 1:
            raise ValueError(f"{caller}: got {len(leaves)} cotangents, expected 1, one for each output")
        return leaves
    if is_leaf(cotangents) and len(leaves_of(outputs)) == 1:
        return [cotangents]
    return matching_leaves(outputs, cotangents, f"{caller}: cotangents")


def _owns_memory(arrays: list, n: int) -> bool:
    """Return whether item n of the list is a Tensor, which is immutable, or the only reference to a writable array.

    An array with other references may be the caller's cotangent, another result, or saved in the graph. (PyTorch too
    decides by the reference count whether a gradient must be copied.)
    """
    if isinstance(arrays[n], (Tensor, np.generic)):
        return True
    if sys.getrefcount(arrays[n]) > _SOLE_COUNT:
        return False
    if not isinstance(arrays[n], np.ndarray):
        return getattr(arrays[n], "base", getattr(arrays[n], "_base", None)) is None
    if not arrays[n].flags.writeable:
        return False
    base = arrays[n].base
    return base is None or (
        isinstance(base, np.ndarray) and base.size == arrays[n].size and sys.getrefcount(base) <= _SOLE_BASE_COUNT
    )


def _sole_reference_counts() -> tuple[int, int]:
    """Return the reference counts that `_owns_memory` sees for a sole reference; they differ between Pythons."""
    arrays = [np.empty(2)[:]]
    base = arrays[0].base
    return sys.getrefcount(arrays[0]), sys.getrefcount(base)


_SOLE_COUNT, _SOLE_BASE_COUNT = _sole_reference_counts()


def _check_cotangent(output: Any, cotangent: Any, caller: str) -> Any:
    """Return the cotangent as an array of the output's shape; 1 for a real scalar if it is None."""
    raw = as_array(unwrap(output), caller)
    if cotangent is None:
        if tuple(raw.shape) != () or is_complex(raw.dtype):
            output_type = f"{raw.dtype} of shape {tuple(raw.shape)}"
            raise ValueError(f"{caller}: the output is {output_type}, expected a real scalar or a cotangent")
        return namespace(raw).ones_like(raw)
    g = as_array(cotangent, f"{caller}: the cotangent")
    if tuple(g.shape) != tuple(raw.shape):
        raise ValueError(f"{caller}: the cotangent has shape {tuple(g.shape)}, expected {tuple(raw.shape)}")
    return g if g.dtype == raw.dtype or hasattr(cotangent, "dtype") else g.astype(raw.dtype)


def _check_argnums(args: tuple, argnums: int | Sequence[int], caller: str) -> tuple[int, ...]:
    """Return argnums as a tuple. Raise TypeError or ValueError where they are not positions of arguments."""
    try:
        nums = tuple(map(operator.index, (argnums,) if isinstance(argnums, (int, np.integer)) else argnums))
    except TypeError:
        raise TypeError(f"{caller}: got argnums {argnums!r}, expected an integer or several") from None
    for n in nums:
        if not 0 <= n < len(args):
            raise ValueError(f"{caller}: argnums names argument {n}, expected one of the {len(args)} given")
    return nums


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Disable Python's search for reference cycles, which would traverse the graph repeatedly: it has none.

    It is enabled again at the end if it was before.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def value_and_grad(f: Callable, argnums: int | Sequence[int] = 0, *, has_aux: bool = False) -> Callable:
    """Return a function that returns f(*args) and its gradient with respect to the arguments of argnums.

    f returns a real scalar, or with has_aux a pair (scalar, anything). An argument may be a float, an array, a Tensor
    or nested containers of them, `nn.Module`s included; the gradient has the same containers, with None for integers
    and whatever else is not differentiable. The gradients are raw arrays of their own, which nothing else refers to,
    or Tensors when an argument was a Tensor (they can be differentiated again).
    Raises ValueError when f returns no real scalar, TypeError when an argument cannot be differentiated.
    """

    @gc_disabled()
    def evaluate(*args: Any) -> Any:
        nums = _check_argnums(args, argnums, "grad")
        boxed = {n: _targets(args[n], f"grad: argument {n}") for n in nums}
        targets = [t for n in nums for t in boxed[n][1]]
        out = f(*(boxed[n][0] if n in boxed else a for n, a in enumerate(args)))
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(f"grad: with has_aux the function returned a {type(out).__name__}, expected a pair")
        out, aux = out if has_aux else (out, None)
        if is_container(out):
            raise TypeError(f"grad: the function returned a {type(out).__name__}, expected a real scalar (see has_aux)")
        if has_aux and not depends_on_older(leaves_of(aux), targets):
            aux = map_leaves(unwrap, aux)
        value, last = unwrap(out), [out]
        del out
        cotangents, roots = _backward(last.pop(), None, targets, None, "grad")  # nothing else refers to the graph now
        value, queue = wrap(value, roots[0]) if roots else value, iter(cotangents)
        grads = tuple(_unflatten(args[n], [next(queue) for _ in boxed[n][1]]) for n in nums)
        result = grads[0] if isinstance(argnums, (int, np.integer)) else grads
        return ((value, aux), result) if has_aux else (value, result)

    return evaluate


def grad(f: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """Return a function that returns the gradient ∂f/∂args[argnums] of a scalar f, as `value_and_grad` does.

    For complex arguments it is Jᴴ 1, as in PyTorch: descend along −grad.
    """
    evaluate = value_and_grad(f, argnums)
    return lambda *args: evaluate(*args)[1]


def vjp(f: Callable, *args: Any) -> tuple[Any, Callable[[Any], tuple]]:
    """Return f(*args) and the function g ↦ Jᴴ g, where f returns an array or containers of arrays.

    g has the containers of f's result, and Jᴴ g is a tuple with one member for each argument. Raises ValueError when
    the containers or shapes of g are others.
    """
    boxed = [_targets(a, f"vjp: argument {n}") for n, a in enumerate(args)]
    out = f(*(b[0] for b in boxed))
    targets = [t for b in boxed for t in b[1]]
    nested = depends_on_older(leaves_of(out), targets)

    def pullback(cotangents: Any) -> tuple:
        record = True if any(isinstance(g, Tensor) and g._node for g in leaves_of(cotangents)) else None
        queue = iter(_backward(out, cotangents, targets, record, "vjp")[0])
        return tuple(_unflatten(a, [next(queue) for _ in b[1]]) for a, b in zip(args, boxed, strict=True))

    return (out if nested else map_leaves(_copy_value, out)), pullback


def _copy_value(x: Any) -> Any:
    """Return a copy of a Tensor's raw array, which the graph may have saved; anything else unchanged."""
    return copy_if_mutable(x._value) if isinstance(x, Tensor) else x


def jvp(f: Callable, args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return f(*args) and the directional derivative J v; the tangents v have the containers of the arguments.

    g ↦ Jᴴ g is linear in g, so J v is the gradient of Re⟨Jᴴ g, v⟩ with respect to g, at any g: reverse mode twice.
    Raises ValueError when the tangents are not in the arguments' containers or shapes.
    """
    new_leaves: list[Tensor] = []

    def leaf(x: Any) -> Tensor:
        if isinstance(x, Tensor) and x._node is not None:
            return x
        new_leaves.append(Tensor(as_array(unwrap(x), "jvp")))
        return new_leaves[-1]

    out, pullback = vjp(f, *(map_leaves(leaf, a) if is_container(a) else leaf(a) for a in args))
    g = map_leaves(lambda o: Tensor(_zeros_like(o)), out)
    vectors = _matching_vectors(args, tangents, "jvp")
    inner = _real_inner(pullback(g), vectors)
    nested = depends_on_older([*leaves_of(out), *vectors], [x for x in new_leaves if x._node is not None])
    raw = out if nested else map_leaves(unwrap, out)
    if not isinstance(inner, Tensor) or inner._node is None:
        return raw, map_leaves(_zeros_like, out)
    queue = iter(gradients(inner, [d for d in leaves_of(g) if d._node is not None], record=nested))
    return raw, map_leaves(lambda d: unwrap(d) if d._node is None else next(queue), g)


def _zeros_like(x: Any) -> Any:
    raw = as_array(unwrap(x), "jvp")
    return namespace(raw).zeros_like(raw)


def _matching_vectors(args: Sequence[Any], vectors: Sequence[Any], caller: str) -> list:
    """Return a list of the vectors' leaves, one of the same shape for each differentiable leaf of the arguments."""
    leaves, matching = leaves_of(list(args)), matching_leaves(list(args), list(vectors), caller)
    pairs = [(x, as_array(v, caller)) for x, v in zip(leaves, matching, strict=True) if is_differentiable(x)]
    for x, v in pairs:
        if tuple(np.shape(unwrap(x))) != tuple(v.shape):
            raise ValueError(f"{caller}: got a vector of shape {tuple(v.shape)}, expected {tuple(np.shape(unwrap(x)))}")
    return [v for _, v in pairs]


def _real_inner(x: Any, vectors: list) -> Any:
    """Return Re⟨x, v⟩, summed over all leaves of x."""
    total: Any = 0.0
    for a, b in zip(leaves_of(x), vectors, strict=True):
        xp = namespace(a, b)
        total = total + xp.sum(xp.real(xp.conj(a) * b))
    return total


def hvp(f: Callable, args: Sequence[Any], vectors: Sequence[Any]) -> tuple:
    """Return the Hessian–vector product ∂/∂x ⟨∂f/∂x, v⟩ of a real scalar f, a tuple with a member for each argument."""
    nums, leaves = tuple(range(len(args))), _matching_vectors(args, vectors, "hvp")
    return grad(lambda *xs: _real_inner(grad(f, nums)(*xs), leaves), nums)(*args)
