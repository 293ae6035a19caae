"""The backward pass: from the nodes of results to those of targets, newest first, and each node once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from minigrad.engine import Node, Tensor, constant, unwrap


def _walk(roots: Sequence[Node], oldest: int) -> tuple[list[Node], bool]:
    """Return the nodes under the roots, oldest first, down to the oldest target; and whether anything older was met."""
    stack, order, older = list({root.number: root for root in roots}.values()), [], False
    seen = {root.number for root in roots}
    while stack:
        node = stack.pop()
        if node.number < oldest:
            older = True
            continue
        order.append(node)
        for parent in node.parents:
            if parent is not None and parent.number not in seen:
                seen.add(parent.number)
                stack.append(parent)
    order.sort(key=lambda node: node.number)
    return order, older


def depends_on_older(results: Sequence[Any], targets: Sequence[Tensor]) -> bool:
    """Return whether results depend on a Tensor older than the targets: one that an outer transform differentiates."""
    roots = [y._node for y in results if isinstance(y, Tensor) and y._node is not None]
    return _walk(roots, min((t._node.number for t in targets), default=sys.maxsize))[1]


def backward_pass(
    roots: list[Node], cotangents: Sequence[Any], targets: Sequence[Node], record: bool | None = None
) -> list:
    """Return cotangents of the targets for those of the roots, None where no root depends on a target.

    With record=None the pass is recorded exactly when the roots also depend on something older than the targets:
    then an outer gradient is under way and may differentiate this one. Otherwise the list of roots is emptied, so
    that values are freed as the walk passes them.
    """
    order, older = _walk(roots, min(t.number for t in targets))
    record = older if record is None else record
    wanted = {t.number for t in targets}
    leads = set(wanted)
    steps = []  # the nodes that lead to a target, oldest first, and through which of their parents
    for node in order:
        need, needed = [], node.number in leads
        for p in node.parents:
            need.append(p is not None and p.number in leads)
            needed = needed or need[-1]
        if needed:
            leads.add(node.number)
            steps.append((node, need))
    pending: dict[int, list] = {}
    for root, g in zip(roots, cotangents, strict=True):
        g = (g if type(g) is Tensor else constant(g)) if record else unwrap(g)
        pending.setdefault(root.number, []).append(root.unbroadcast_and_cast(g))
    found: dict[int, Any] = {}
    if not record:
        roots.clear()
    order.clear()
    root = node = p = None  # type: ignore[assignment]
    while steps:
        node, need = steps.pop()
        contributions = pending.pop(node.number, None)
        if contributions is None:
            continue
        g = node.accumulate(contributions)
        if node.number in wanted:
            found[node.number] = g
        if True in need:
            for parent, d in zip(node.parents, node.vjp(g, need, record), strict=True):
                if d is not None:
                    d = parent.unbroadcast_and_cast(d)
                    if parent.number in pending:
                        pending[parent.number].append(d)
                    else:
                        pending[parent.number] = [d]
    return [found.get(t.number) for t in targets]
