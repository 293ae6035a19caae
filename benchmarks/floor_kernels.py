"""Loops that `benchmarks.floors` times; in a module of their own because importing Numba takes half a second."""

from minigrad.compiled.simd import exp2, fma, kernel, lanes, load, splat, store


@kernel
def exponentials(x, count, part, repeats):
    """Compute 2ˣ of the numbers of one part, repeatedly, four vectors at a time."""
    step = lanes(x)
    for _ in range(repeats):
        for i in range(part * count, (part + 1) * count, 4 * step):
            a, b = exp2(load(x, i)), exp2(load(x, i + step))
            c, d = exp2(load(x, i + 2 * step)), exp2(load(x, i + 3 * step))
            store(x, i, a - a)  # keeps the compiler from removing the loop, and x small
            store(x, i + step, b - b)
            store(x, i + 2 * step, c - c)
            store(x, i + 3 * step, d - d)


@kernel
def triad(a, b, c, first, last):
    """Compute a ← b + 3 c for indices from `first` up to `last`."""
    step = lanes(a)
    for i in range(first - first % step, last - last % step, step):
        store(a, i, fma(splat(a, 3), load(c, i), load(b, i)))
