"""Sums of products over named axes (Einstein's convention)."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from minigrad.engine import primitive
from minigrad.primitives.arguments import array, upcast_half
from minigrad.primitives.elementwise import conj
from minigrad.primitives.products import diagonal
from minigrad.primitives.shapes import broadcast_to, moveaxis, reshape, squeeze


def _einsum_vjp(g, i, xs, subscripts):
    """Return the cotangent of operand i: an einsum of g and the other operands to the axes of operand i."""
    *terms, result = subscripts.replace("->", ",").split(",")
    other_operands = [(t, conj(x)) for j, (t, x) in enumerate(zip(terms, xs, strict=True)) if j != i]
    summed = [c for c in terms[i] if c not in result and all(c not in t for t, _ in other_operands)]
    retained = "".join(c for c in terms[i] if c not in summed)
    g = _einsum(
        g,
        *(x for _, x in other_operands),
        subscripts=f"{','.join([result, *(t for t, _ in other_operands)])}->{retained}",
    )
    sizes = dict(zip(terms[i], xs[i].shape, strict=True))
    g = reshape(g, tuple(1 if c in summed else sizes[c] for c in terms[i]))
    return broadcast_to(g, tuple(xs[i].shape))


@primitive(xs=_einsum_vjp)
def _einsum(xp, *xs, subscripts):
    return xp.einsum(subscripts, *xs, optimize=True) if xp is np and len(xs) > 1 else xp.einsum(subscripts, *xs)


def einsum(subscripts: str, *operands: Any) -> Any:
    """Return the sum of products that the subscripts name (Einstein's convention, as numpy.einsum).

    An axis of size 1 goes with any size under the same letter. Raises ValueError when the subscripts do not fit the
    operands.
    """
    arrays = [array(x, "einsum", "operands") for x in operands]
    terms, result = _explicit(subscripts, arrays)
    sizes = _sizes(subscripts, terms, arrays)
    if unknown := sorted(set(result) - set(sizes)) or [c for c in sizes if result.count(c) > 1]:
        raise ValueError(
            f"einsum: the result of {subscripts!r} has {unknown[0]!r}, expected letters of terms, once each"
        )
    pairs = [_without_repeats(term, x, sizes) for term, x in zip(terms, arrays, strict=True)]
    return _contract(*(x for _, x in pairs), subscripts=",".join(t for t, _ in pairs) + "->" + result)


@upcast_half
def _contract(*operands, subscripts):
    return _einsum(*operands, subscripts=subscripts)


def _explicit(subscripts: str, operands: list) -> tuple[list[str], str]:
    """Return the terms and the result of the subscripts, with letters for ellipses and an implicit result added."""
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not set(inputs + result) <= set(string.ascii_letters + ",."):
        raise ValueError(f"einsum: got {subscripts!r}, expected letters, commas, '...' and '->'")
    if len(terms) != len(operands):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(operands)}")
    free = [c for c in string.ascii_letters if c not in subscripts]
    widest = 0
    for n, (term, x) in enumerate(zip(terms, operands, strict=True)):
        extra = x.ndim - len(term.replace("...", ""))
        if extra < 0 or (extra and "..." not in term):
            raise ValueError(f"einsum: operand {n} has {x.ndim} axes (shape {tuple(x.shape)}), expected {term!r}")
        if extra > len(free):
            raise ValueError(f"einsum: operand {n} has {x.ndim} axes, expected no more than there are letters")
        widest = max(widest, extra)
        terms[n] = term.replace("...", "".join(free[len(free) - extra :]))
    ellipsis = "".join(free[len(free) - widest :])
    if not arrow:
        letters = "".join(terms)
        result = ellipsis + "".join(sorted(c for c in set(letters) - set(ellipsis) if letters.count(c) == 1))
    return terms, result.replace("...", ellipsis)


def _sizes(subscripts: str, terms: list[str], operands: list) -> dict[str, int]:
    """Return the size of every letter's axis, after broadcasting axes of size 1."""
    sizes: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        for c, n in zip(term, x.shape, strict=True):
            if sizes.setdefault(c, n) == 1:
                sizes[c] = n
            elif n not in (1, sizes[c]):
                raise ValueError(f"einsum: {c!r} of {subscripts!r} has sizes {sizes[c]} and {n}, expected one")
    return sizes


def _without_repeats(term: str, x: Any, sizes: dict[str, int]) -> tuple[str, Any]:
    """Return a term and its operand with broadcast axes squeezed, and the diagonal taken of repeated letters."""
    single = [i for i, c in enumerate(term) if x.shape[i] != sizes[c]]
    term, x = "".join(c for i, c in enumerate(term) if i not in single), squeeze(x, tuple(single))
    for c in sizes:
        while term.count(c) > 1:
            pair = term.index(c), term.rindex(c)
            x = diagonal(moveaxis(x, pair, (-2, -1)))
            term = "".join(a for i, a in enumerate(term) if i not in pair) + c
    return term, x
