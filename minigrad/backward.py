"""The backward pass: visit the nodes between results and targets once, newest first, and propagate cotangents."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any

from minigrad.engine import Node, Tensor, constant, unwrap


def backward_pass(
    roots: list[Node], cotangents: Sequence[Any], targets: Sequence[Node], record: bool | None = None
) -> list:
    """Return the cotangents of the targets given those of the roots; None where no root depends on a target.

    With record=True the vector–Jacobian products are computed on Tensors and can be differentiated again. With
    record=None they are when the roots also depend on a node older than every target: then an enclosing transform is
    active and may differentiate the result. Without recording, the list of roots is emptied, so that each node is
    freed, with the arrays it saved, as soon as it has been visited.
    """
    steps, depends_on_outer = _path(roots, targets)
    record = depends_on_outer if record is None else record
    received = _seed(roots, cotangents, record)  # by number of node: the cotangents that it has received so far
    if not record:
        roots.clear()
    results: dict[int, Any] = {t.number: None for t in targets}
    while steps:
        node, needs_grad = steps.pop()
        contributions = received.pop(node.number, None)
        if contributions is None:
            continue
        g = node.accumulate(contributions)
        if node.number in results:
            results[node.number] = g
        if True in needs_grad:
            for parent, d in zip(node.parents, node.vjp(g, needs_grad, record), strict=True):
                if d is not None:
                    d = parent.unbroadcast_and_cast(d)
                    if parent.number in received:
                        received[parent.number].append(d)
                    else:
                        received[parent.number] = [d]
    return [results[t.number] for t in targets]


def depends_on_older(results: Sequence[Any], targets: Sequence[Tensor]) -> bool:
    """Return whether the results depend on a node older than every target: one of an enclosing transform."""
    roots = [y._node for y in results if isinstance(y, Tensor) and y._node is not None]
    return _ancestors(roots, min((t._node.number for t in targets), default=sys.maxsize))[1]


def _ancestors(roots: Sequence[Node], oldest: int) -> tuple[list[Node], bool]:
    """Return the nodes that the roots depend on in topological order, parents first, and whether any was left out.

    Nodes older than `oldest`, a node's number, are left out. Parents have smaller numbers than their children, so
    sorting by number is a topological sort.
    """
    stack, ancestors, any_older = list({root.number: root for root in roots}.values()), [], False
    visited = {root.number for root in roots}
    while stack:
        node = stack.pop()
        if node.number < oldest:
            any_older = True
            continue
        ancestors.append(node)
        for parent in node.parents:
            if parent is not None and parent.number not in visited:
                visited.add(parent.number)
                stack.append(parent)
    ancestors.sort(key=operator.attrgetter("number"))
    return ancestors, any_older


def _path(roots: Sequence[Node], targets: Sequence[Node]) -> tuple[list[tuple[Node, list[bool]]], bool]:
    """Return the nodes that depend on a target, parents first, each with a flag per parent: does it need a gradient.

    The second result says whether the roots also depend on a node older than every target.
    """
    ancestors, any_older = _ancestors(roots, min(t.number for t in targets))
    relevant = {t.number for t in targets}
    steps = []
    for node in ancestors:
        needs_grad, is_relevant = [], node.number in relevant
        for parent in node.parents:
            needs_grad.append(parent is not None and parent.number in relevant)
            is_relevant = is_relevant or needs_grad[-1]
        if is_relevant:
            relevant.add(node.number)
            steps.append((node, needs_grad))
    return steps, any_older


def _seed(roots: Sequence[Node], cotangents: Sequence[Any], record: bool) -> dict[int, list]:
    """Return the cotangents that each root starts with: Tensors if the pass is recorded, else raw arrays."""
    received: dict[int, list] = {}
    for root, g in zip(roots, cotangents, strict=True):
        g = (g if type(g) is Tensor else constant(g)) if record else unwrap(g)
        received.setdefault(root.number, []).append(root.unbroadcast_and_cast(g))
    return received
