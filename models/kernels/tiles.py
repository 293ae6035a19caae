"""Products of small matrices, and the layer norm of a row, for kernels that keep them in the cache.

Matrices are contiguous, and their rows whole vectors; those that are added to, pairs of them. Products go four rows and
two vectors at a time: eight sums, of which none waits for the other.
"""

import math

from minigrad.compiled.simd import fma, kernel, lanes, load, splat, store, total

EPSILON = 1e-6  # in the norm


@kernel
def add_rows(x, W, out):
    """Compute x W, added to out; where rows are no multiple of four the last is recomputed."""
    count, (rows, columns), step = len(x), W.shape, lanes(W)
    for t in range(0, count, 4):
        t1, t2, t3 = min(t + 1, count - 1), min(t + 2, count - 1), min(t + 3, count - 1)
        for c in range(0, columns, 2 * step):
            at0, at1, at2, at3 = t * columns + c, t1 * columns + c, t2 * columns + c, t3 * columns + c
            a00, a01, a10, a11 = load(out, at0), load(out, at0 + step), load(out, at1), load(out, at1 + step)
            a20, a21, a30, a31 = load(out, at2), load(out, at2 + step), load(out, at3), load(out, at3 + step)
            for r in range(rows):
                w0, w1 = load(W, r * columns + c), load(W, r * columns + c + step)
                x0, x1, x2, x3 = splat(W, x[t, r]), splat(W, x[t1, r]), splat(W, x[t2, r]), splat(W, x[t3, r])
                a00, a01, a10, a11 = fma(x0, w0, a00), fma(x0, w1, a01), fma(x1, w0, a10), fma(x1, w1, a11)
                a20, a21, a30, a31 = fma(x2, w0, a20), fma(x2, w1, a21), fma(x3, w0, a30), fma(x3, w1, a31)
            for at, left, right in ((at0, a00, a01), (at1, a10, a11), (at2, a20, a21), (at3, a30, a31)):
                store(out, at, left)
                store(out, at + step, right)


@kernel
def add_outer(x, y, out):
    """Compute xᵀ y, added to out; where its rows are no multiple of four, up to three more get zeros."""
    count, (rows, columns), step = len(x), out.shape, lanes(y)
    for r in range(0, rows, 4):
        for c in range(0, columns, 2 * step):
            at = r * columns + c
            a00, a01 = load(out, at), load(out, at + step)
            a10, a11 = load(out, at + columns), load(out, at + columns + step)
            a20, a21 = load(out, at + 2 * columns), load(out, at + 2 * columns + step)
            a30, a31 = load(out, at + 3 * columns), load(out, at + 3 * columns + step)
            for t in range(count):
                y0, y1 = load(y, t * columns + c), load(y, t * columns + c + step)
                x0, x1, x2, x3 = splat(y, x[t, r]), splat(y, x[t, r + 1]), splat(y, x[t, r + 2]), splat(y, x[t, r + 3])
                a00, a01, a10, a11 = fma(x0, y0, a00), fma(x0, y1, a01), fma(x1, y0, a10), fma(x1, y1, a11)
                a20, a21, a30, a31 = fma(x2, y0, a20), fma(x2, y1, a21), fma(x3, y0, a30), fma(x3, y1, a31)
            for i, left, right in ((0, a00, a01), (1, a10, a11), (2, a20, a21), (3, a30, a31)):
                store(out, (r + i) * columns + c, left)
                store(out, (r + i) * columns + c + step, right)


@kernel
def dot(x, i, y, j):
    """Return row i of x times row j of y."""
    width, products = x.shape[1], splat(x, 0)
    for c in range(0, width, lanes(x)):
        products = fma(load(x, i * width + c), load(y, j * width + c), products)
    return total(products)


@kernel
def scaled(x, i, by, out):
    """Write row i of x times a number as row i of out."""
    columns = x.shape[1]
    for c in range(i * columns, (i + 1) * columns, lanes(x)):
        store(out, c, load(x, c) * splat(x, by))


@kernel
def normalize_row(x, i, inside, values):
    """Write x̂ in place of row i of x, of which `inside` marks the first `values`; return √(var x + ε)."""
    columns, step = x.shape[1], lanes(x)
    row, sums, squares = i * columns, splat(x, 0), splat(x, 0)
    for c in range(row, row + columns, step):
        sums = sums + load(x, c)
    mean = splat(x, total(sums) / values)
    for c in range(0, columns, step):
        centred = (load(x, row + c) - mean) * load(inside, c)
        squares = fma(centred, centred, squares)
        store(x, row + c, centred)
    deviation = math.sqrt(total(squares) / values + EPSILON)
    for c in range(row, row + columns, step):
        store(x, c, load(x, c) / splat(x, deviation))
    return deviation


@kernel
def normalize_row_backward(unit, g, i, inside, values, deviation):
    """Write (g − mean g − x̂ mean(g x̂)) / √(var x + ε) in place of row i of g, the cotangent of x from that of x̂."""
    columns, step = g.shape[1], lanes(g)
    row, sums, along = i * columns, splat(g, 0), splat(g, 0)
    for c in range(row, row + columns, step):
        sums, along = sums + load(g, c), fma(load(g, c), load(unit, c), along)
    sums, along = splat(g, total(sums) / values), splat(g, total(along) / values)
    for c in range(0, columns, step):
        slope = load(g, row + c) - fma(along, load(unit, row + c), sums)
        store(g, row + c, slope / splat(g, deviation) * load(inside, c))
