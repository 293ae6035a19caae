"""The compiled passes of `causal_convolution`: Fourier transforms of columns, a vector of channels at every point.

A transform of n points becomes four of q = n/4, with w = exp(−2πi/n), for a, b, c, d at k, k + q, k + 2q, k + 3q:

    s = a + c          t = b + d          e = a − c          f = −i (b − d)
    s + t, (e + f) wᵏ, (s − t) w²ᵏ, (e − f) w³ᵏ          of them come the frequencies 4j, 4j + 1, 4j + 2, 4j + 3

Frequencies stay in digit-reversed order, in place, as inverse transforms take them: products are element-wise. Once
transforms fit the first-level cache, each is finished, multiplied and transformed back before the next.
"""

from minigrad.compiled.simd import fetch, fma, kernel, lanes, load, room, splat, store

AHEAD = 32  # tokens by which a prefetch precedes the load
PART = 256  # points that fit the first-level cache: 32 KiB where a vector has 512 bits


@kernel
def convolve(u, u_steps, K, K_steps, y, y_steps, roots, turns, sizes, first, last):
    """Compute y = K ∗ u for the vectors of channels from `first` to `last`, arrays as `Rows` has them."""
    count, length, taps, channels = sizes
    step, points = lanes(u), len(roots)
    z, weights = room(u, points, 2, step), room(u, points, 2, step)
    part = _last(points, PART)
    for d in range(first * step, last * step, step):
        width = min(step, channels - d)
        _enter(K, d * K_steps[2], K_steps, taps, width, turns, weights)
        _transform(weights, roots, 0, points, points, 1)
        for b in range(count):
            _enter(u, b * u_steps[0] + d * u_steps[2], u_steps, length, width, turns, z)
            _transform(z, roots, 0, points, points, part)
            for start in range(0, points, part):
                _transform(z, roots, start, part, part, 1)
                _multiply(z, weights, 1, start, part)
                _invert(z, roots, start, part, 1, part)
            _invert(z, roots, 0, points, part, points)
            _leave(z, turns, y, b * y_steps[0] + d * y_steps[2], y_steps, length, width)


@kernel
def correlate(u, u_steps, K, K_steps, g, g_steps, du, du_steps, dK, dK_steps, roots, turns, sizes, first, last):
    """Compute the cotangents of u and K from g, that of y."""
    count, length, taps, channels = sizes
    step, points = lanes(u), len(roots)
    x, z = room(u, points, 2, step), room(u, points, 2, step)
    weights, total = room(u, points, 2, step), room(u, points, 2, step)
    part = _last(points, PART)
    for d in range(first * step, last * step, step):
        width = min(step, channels - d)
        _enter(K, d * K_steps[2], K_steps, taps, width, turns, weights)
        _transform(weights, roots, 0, points, points, 1)
        total[:] = 0
        for b in range(count):
            _enter(u, b * u_steps[0] + d * u_steps[2], u_steps, length, width, turns, x)
            _transform(x, roots, 0, points, points, part)
            _enter(g, b * g_steps[0] + d * g_steps[2], g_steps, length, width, turns, z)
            _transform(z, roots, 0, points, points, part)
            for start in range(0, points, part):
                _transform(x, roots, start, part, part, 1)
                _transform(z, roots, start, part, part, 1)
                _collect(x, z, total, start, part)
                _multiply(z, weights, -1, start, part)
                _invert(z, roots, start, part, 1, part)
            _invert(z, roots, 0, points, part, points)
            _leave(z, turns, du, b * du_steps[0] + d * du_steps[2], du_steps, length, width)
        _invert(total, roots, 0, points, 1, points)
        _leave(total, turns, dK, d * dK_steps[2], dK_steps, taps, width)


@kernel
def _last(points, most):
    """Return the number of points after divisions by 4 until it is at most `most`."""
    while points > most:
        points //= 4
    return points


@kernel
def _enter(x, first, steps, length, width, turns, z):
    """Write ωᵗ xₜ into z, and zeros after the last token and beside the last channel."""
    _, along_time, along_channels = steps
    step = lanes(x)
    tile = room(x, step, step)
    tile[:] = 0
    whole = along_channels == 1 and width == step
    for begin in range(0, length, step):
        count, start = min(step, length - begin), first + begin * along_time
        if not whole:
            for d in range(width):
                for t in range(count):
                    tile[t, d] = x[start + t * along_time + d * along_channels]
        for t in range(count):
            if whole:
                fetch(x, start + (t + AHEAD) * along_time, step)
                value = load(x, start + t * along_time)
            else:
                value = load(tile, t * step)
            at = (begin + t) * 2 * step
            store(z, at, value * splat(z, turns[begin + t, 0]))
            store(z, at + step, value * splat(z, turns[begin + t, 1]))
    z[length:] = 0


@kernel
def _leave(z, turns, x, first, steps, length, width):
    """Write Re ω⁻ᵗ zₜ / H into x."""
    _, along_time, along_channels = steps
    step, scale = lanes(x), 1 / len(z)
    tile = room(x, step, step)
    whole = along_channels == 1 and width == step
    for begin in range(0, length, step):
        count, start = min(step, length - begin), first + begin * along_time
        for t in range(count):
            at = (begin + t) * 2 * step
            value = load(z, at) * splat(z, scale * turns[begin + t, 0])
            value = fma(load(z, at + step), splat(z, scale * turns[begin + t, 1]), value)
            if whole:
                fetch(x, start + (t + AHEAD) * along_time, step)
                store(x, start + t * along_time, value)
            else:
                store(tile, t * step, value)
        if not whole:
            for d in range(width):
                for t in range(count):
                    x[start + t * along_time + d * along_channels] = tile[t, d]


@kernel
def _transform(z, roots, first, count, points, end):
    """Run the steps of the transforms in z[first : first + count] from `points` points down to `end`."""
    step = lanes(z)
    while points > max(end, 2):
        quarter, stride = points // 4, len(roots) // points
        far = quarter * 2 * step
        for k in range(quarter):
            r1, i1 = splat(z, roots[k * stride, 0]), splat(z, roots[k * stride, 1])
            r2, i2 = splat(z, roots[2 * k * stride, 0]), splat(z, roots[2 * k * stride, 1])
            r3, i3 = splat(z, roots[3 * k * stride, 0]), splat(z, roots[3 * k * stride, 1])
            for start in range(first + k, first + count, points):
                a = start * 2 * step
                b, c, d = a + far, a + 2 * far, a + 3 * far
                ar, br, cr, dr = load(z, a), load(z, b), load(z, c), load(z, d)
                ai, bi, ci, di = load(z, a + step), load(z, b + step), load(z, c + step), load(z, d + step)
                sr, si, tr, ti = ar + cr, ai + ci, br + dr, bi + di
                er, ei, fr, fi = ar - cr, ai - ci, bi - di, dr - br  # f = −i (b − d)
                store(z, a, sr + tr)
                store(z, a + step, si + ti)
                pr, pi, qr, qi, vr, vi = er + fr, ei + fi, sr - tr, si - ti, er - fr, ei - fi
                store(z, b, pr * r1 - pi * i1)
                store(z, b + step, fma(pr, i1, pi * r1))
                store(z, c, qr * r2 - qi * i2)
                store(z, c + step, fma(qr, i2, qi * r2))
                store(z, d, vr * r3 - vi * i3)
                store(z, d + step, fma(vr, i3, vi * r3))
        points = quarter
    if points == 2 and end == 1:
        _pairs(z, first, count)


@kernel
def _invert(z, roots, first, count, points, end):
    """Undo `_transform`, from those of `points` points up to `end`, but for a factor of end / points."""
    step = lanes(z)
    if points == 1 and _last(end, 2) == 2:
        _pairs(z, first, count)
        points = 2
    while points < end:
        quarter, points = points, 4 * points
        stride, far = len(roots) // points, quarter * 2 * step
        for k in range(quarter):
            r1, i1 = splat(z, roots[k * stride, 0]), splat(z, roots[k * stride, 1])
            r2, i2 = splat(z, roots[2 * k * stride, 0]), splat(z, roots[2 * k * stride, 1])
            r3, i3 = splat(z, roots[3 * k * stride, 0]), splat(z, roots[3 * k * stride, 1])
            for start in range(first + k, first + count, points):
                a = start * 2 * step
                b, c, d = a + far, a + 2 * far, a + 3 * far
                ar, br, cr, dr = load(z, a), load(z, b), load(z, c), load(z, d)
                ai, bi, ci, di = load(z, a + step), load(z, b + step), load(z, c + step), load(z, d + step)
                pr, pi = fma(br, r1, bi * i1), bi * r1 - br * i1
                qr, qi = fma(cr, r2, ci * i2), ci * r2 - cr * i2
                vr, vi = fma(dr, r3, di * i3), di * r3 - dr * i3
                sr, si, tr, ti = ar + qr, ai + qi, pr + vr, pi + vi
                er, ei, fr, fi = ar - qr, ai - qi, vi - pi, pr - vr  # f = i (p − v)
                store(z, a, sr + tr)
                store(z, a + step, si + ti)
                store(z, b, er + fr)
                store(z, b + step, ei + fi)
                store(z, c, sr - tr)
                store(z, c + step, si - ti)
                store(z, d, er - fr)
                store(z, d + step, ei - fi)


@kernel
def _pairs(z, first, count):
    """Compute transforms of two points, which undo themselves but for a factor of 2."""
    step = lanes(z)
    for a in range(first * 2 * step, (first + count) * 2 * step, 4 * step):
        for part in range(2):
            x, y = load(z, a + part * step), load(z, a + (2 + part) * step)
            store(z, a + part * step, x + y)
            store(z, a + (2 + part) * step, x - y)


@kernel
def _multiply(z, weights, sign, first, count):
    """Compute z ← z K̂, or z conj(K̂) where the sign is −1."""
    step = lanes(z)
    for at in range(first * 2 * step, (first + count) * 2 * step, 2 * step):
        zr, zi, wr, wi = load(z, at), load(z, at + step), load(weights, at), load(weights, at + step) * splat(z, sign)
        store(z, at, zr * wr - zi * wi)
        store(z, at + step, fma(zr, wi, zi * wr))


@kernel
def _collect(x, z, total, first, count):
    """Add conj(x) z to the total."""
    step = lanes(z)
    for at in range(first * 2 * step, (first + count) * 2 * step, 2 * step):
        xr, xi, zr, zi = load(x, at), load(x, at + step), load(z, at), load(z, at + step)
        store(total, at, fma(xr, zr, fma(xi, zi, load(total, at))))
        store(total, at + step, fma(xr, zi, load(total, at + step)) - xi * zr)
