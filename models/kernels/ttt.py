"""Test-time training of one layer, a mini-batch after the other, and its adjoint: no graph, no weights of each token.

Forward, in a mini-batch of C tokens that begins with W, and with x̂ = (x − mean x) / √(var x + ε):

    z = k W,  e = k + γ ẑ + β − v,  g = γ e,  δ = (g − mean g − ẑ mean(g ẑ)) / √(var z + ε)
    r = q W − A δ,  A = tril(τ ηᵀ ∘ q kᵀ),  y = q + γ r̂ + β              without a norm δ = z − v and y = r
    W′ = W − kᵀ (τ_C η δ)

backward, with a = dδ / √(var z + ε) and LNᵀ(x̂, g) = (g − mean g − x̂ mean(g x̂)) / √(var x + ε), the x̂ of which is g's:

    dr = LNᵀ(r̂, γ dy),  dA = tril(τ ηᵀ ∘ dr δᵀ),  R = k dW′
    dδ = −Aᵀ dr − τ_C η R
    dg = a − mean a − ẑ mean(a ẑ),  de = γ dg,  dv = −de
    dz = LNᵀ(ẑ, γ de − a mean(g ẑ) − g mean(a ẑ)) − ẑ mean(a δ)
    dq = dy + dr Wᵀ − dA k,  dk = de + dz Wᵀ − dAᵀ q − τ_C η δ dW′ᵀ,  dW = dW′ + qᵀ dr + kᵀ dz

Work    a sequence is a thread's unit; what belongs to a mini-batch, W too, stays in the first two levels of the cache.
Memory  Wᵀ at every mini-batch, which is K / C times the size of y; δ, ẑ and r̂.
Cost    three products of C × K × V a mini-batch forward, six back, and the smaller ones among its tokens.

A bias is a row of W whose feature is 1, in q and k.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpu.inner_model import WeightLayout
from minigrad.compiled.layout import append_ones, cut_out, flat_count, laid_out, vector
from minigrad.compiled.simd import assign, fma, kernel, lanes, load, room, splat, store, total
from minigrad.compiled.threads import share
from models.kernels.tiles import add_outer, add_rows, dot, normalize_row, normalize_row_backward, scaled


class Tokens(NamedTuple):
    """Sequences as they are laid out."""

    q: np.ndarray  # (B, T, K')
    k: np.ndarray
    v: np.ndarray  # (B, T, V')
    eta: np.ndarray  # (B, T)
    tau: np.ndarray


class Norm(NamedTuple):
    """The norm, if there is one, and the widths of rows without padding."""

    present: bool
    gamma: np.ndarray  # (B, V')
    beta: np.ndarray
    inside: np.ndarray  # (V',): 1 where V' is V, then 0
    features: int  # rows of W
    values: int


class Residuals(NamedTuple):
    """Intermediate results that the backward pass needs."""

    delta: np.ndarray  # (B, T, V')
    unit: np.ndarray  # ẑ
    read: np.ndarray  # r̂
    spread: np.ndarray  # (B, T): √(var z + ε)
    read_spread: np.ndarray
    W_starts: np.ndarray  # Wᵀ at the start of every mini-batch, (B, T / C, V', K')


class Saved(NamedTuple):
    """Residuals of the backward pass, and the shapes of the inputs."""

    tokens: Tokens
    norm: Norm
    residuals: Residuals
    shapes: tuple[tuple[int, ...], ...]


def forward(
    q: Any,
    k: Any,
    v: Any,
    eta: Any,
    tau: Any,
    *weights: Any,
    layout: WeightLayout,
    batch_size: int,
    on_losses: Callable[[np.ndarray], None],
) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, W), saved) for q, k (*batch, T, K), v (*batch, T, V), eta, tau (*batch, T), a layer W (*batch, K, V),
    or (*batch, K + 1, V) where the layout has a bias, and γ and β (*batch, 1, V) where it has a norm.

    T is a multiple of `batch_size`. `on_losses` is called with the squared errors (*batch, T). Raises ValueError for
    weights of another layout, and for a layout of several layers.
    """
    if layout.depth != 1:
        raise ValueError(f"ttt: layout has {layout.depth} layers, expected 1")
    ((W,),), norm = layout.split("ttt", weights, q.shape[-1])
    shapes = tuple(x.shape for x in (q, k, v, eta, tau, *weights))
    count, length, features, values = flat_count(q.shape), q.shape[-2], W.shape[-2], v.shape[-1]
    pair, dtype = (vector(v, 2),), v.dtype
    q, k = map(append_ones, (q, k)) if layout.bias[0] else (q, k)
    q, k = (laid_out(x, count, length, features, to=pair) for x in (q, k))
    v, W = laid_out(v, count, length, values, to=pair), _own(W, count, features, values)
    tokens = Tokens(q, k, v, *(np.ascontiguousarray(x).reshape(count, length) for x in (eta, tau)))
    columns = v.shape[2]
    gamma, beta = (
        laid_out(x, count, values, to=pair) for x in (norm if layout.norm else np.zeros((2, count, values), dtype))
    )
    norm_parameters = Norm(layout.norm, gamma, beta, (np.arange(columns) < values).astype(dtype), features, values)
    W_starts = np.empty((count, length // batch_size, columns, W.shape[1]), dtype)
    (delta, unit, read), spreads = np.empty((3, *v.shape), dtype), np.empty((2, count, length), dtype)
    residuals = Residuals(delta, unit, read, spreads[0], spreads[1], W_starts)
    y, losses = np.empty_like(v), np.empty((count, length), dtype)
    share(
        lambda part, first, last: _forward(tokens, norm_parameters, W, residuals, y, losses, batch_size, first, last),
        count,
    )
    on_losses(losses.reshape(shapes[3]))
    return (cut_out(y, shapes[2]), cut_out(W, shapes[5])), Saved(tokens, norm_parameters, residuals, shapes)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of everything that went into `forward` from those of y and of the last W."""
    tokens, norm, residuals, shapes = saved
    dy = laid_out(cotangents[0], *tokens.v.shape[:2], norm.values, to=(vector(tokens.v, 2),))
    dW = _own(cotangents[1], len(dy), norm.features, norm.values)
    dtokens = Tokens(*(np.zeros_like(x) for x in tokens))
    dnorm = norm._replace(gamma=np.zeros_like(norm.gamma), beta=np.zeros_like(norm.beta))
    share(lambda part, first, last: _backward(tokens, norm, residuals, dy, dW, dtokens, dnorm, first, last), len(dy))
    dqkv = [cut_out(x, shape) for x, shape in zip(dtokens[:3], shapes, strict=False)]
    drates = [x.reshape(shape) for x, shape in zip(dtokens[3:], shapes[3:], strict=False)]
    dgamma_beta = [x[:, : norm.values].reshape(shape) for x, shape in zip(dnorm[1:3], shapes[6:], strict=False)]
    return (*dqkv, *drates, cut_out(dW, shapes[5]), *dgamma_beta)


def _own(W: np.ndarray, *shape: int) -> np.ndarray:
    """Return W (*batch, K, V) as (B, K', V'), new."""
    laid = laid_out(W, *shape, to=(vector(W, 2), vector(W, 2)))
    return laid.copy() if np.may_share_memory(laid, W) else laid


@kernel
def _forward(tokens, norm, W, residuals, y, losses, size, first, last):
    q, k, v, eta, tau = tokens
    A, update = np.zeros((size, size), v.dtype), room(v, size, v.shape[2])
    for b in range(first, last):
        X = W[b, : norm.features]
        for n in range(v.shape[1] // size):
            begin, stop = n * size, (n + 1) * size
            keys, queries, delta = k[b, begin:stop], q[b, begin:stop], residuals.delta[b, begin:stop]
            z, r = residuals.unit[b, begin:stop], residuals.read[b, begin:stop]
            assign(residuals.W_starts[b, n], W[b].T)
            z[:], r[:] = 0, 0
            add_rows(keys, X, z)
            _inner_loss_grad(
                keys, v[b, begin:stop], b, norm, z, delta, residuals.spread[b, begin:stop], losses[b, begin:stop]
            )
            add_rows(queries, X, r)
            for i in range(size):
                for j in range(i + 1):
                    A[i, j] = -tau[b, begin + i] * eta[b, begin + j] * dot(queries, i, keys, j)
            add_rows(A, delta, r)
            _read(queries, b, norm, r, residuals.read_spread[b, begin:stop], y[b, begin:stop])
            for i in range(size):
                scaled(delta, i, -tau[b, stop - 1] * eta[b, begin + i], update)
            add_outer(keys, update, X)


@kernel
def _inner_loss_grad(k, v, b, norm, z, delta, spread, losses):
    """Compute ẑ in place of z, δ, √(var z + ε) and Σ e², row by row."""
    columns, step, wide = v.shape[1], lanes(v), k.shape[1]
    for i in range(len(v)):
        row, squares = i * columns, splat(v, 0)
        if not norm.present:
            for c in range(row, row + columns, step):
                e = load(z, c) - load(v, c)
                squares = fma(e, e, squares)
                store(delta, c, e)
        else:
            spread[i] = normalize_row(z, i, norm.inside, norm.values)
            for c in range(0, columns, step):
                e = _error(k, i * wide + c, v, row + c, z, b * columns + c, norm) * load(norm.inside, c)
                squares = fma(e, e, squares)
                store(delta, row + c, load(norm.gamma, b * columns + c) * e)
            normalize_row_backward(z, delta, i, norm.inside, norm.values, spread[i])
        losses[i] = total(squares)


@kernel
def _error(k, in_k, v, in_v, unit, in_norm, norm):
    """Return k + γ ẑ + β − v."""
    normed = fma(load(norm.gamma, in_norm), load(unit, in_v), load(norm.beta, in_norm))
    return load(k, in_k) + normed - load(v, in_v)


@kernel
def _read(q, b, norm, r, spread, y):
    """Compute y from r, and r̂ in place of r."""
    columns, step, wide = y.shape[1], lanes(y), q.shape[1]
    for i in range(len(y)):
        row = i * columns
        if norm.present:
            spread[i] = normalize_row(r, i, norm.inside, norm.values)
        for c in range(0, columns, step):
            out = load(r, row + c)
            if norm.present:
                out = fma(load(norm.gamma, b * columns + c), out, load(norm.beta, b * columns + c))
                out = load(q, i * wide + c) + out
            store(y, row + c, out)


@kernel
def _backward(tokens, norm, residuals, dy, dW, dtokens, dnorm, first, last):
    q, k, v, eta, tau = tokens
    dq, dk, dv, deta, dtau = dtokens
    columns, size = v.shape[2], v.shape[1] // residuals.W_starts.shape[1]
    A, dA, dA_T = np.zeros((size, size), v.dtype), np.zeros((size, size), v.dtype), np.empty((size, size), v.dtype)
    dr, ddelta, R = room(v, size, columns), room(v, size, columns), room(v, size, columns)
    update, dX_T = room(v, size, columns), room(v, columns, k.shape[2])
    for b in range(first, last):
        dX = dW[b, : norm.features]
        for n in range(residuals.W_starts.shape[1] - 1, -1, -1):
            begin, stop = n * size, (n + 1) * size
            keys, queries, delta = k[b, begin:stop], q[b, begin:stop], residuals.delta[b, begin:stop]
            dk_b, dq_b, W_start, end = dk[b, begin:stop], dq[b, begin:stop], residuals.W_starts[b, n], tau[b, stop - 1]

            # y
            spread = residuals.read_spread[b, begin:stop]
            _read_backward(dy[b, begin:stop], b, norm, residuals.read[b, begin:stop], spread, dr, dq_b, dnorm)
            for i in range(size):
                for j in range(i + 1):
                    score, dscore = dot(queries, i, keys, j), dot(dr, i, delta, j)
                    rate = tau[b, begin + i] * eta[b, begin + j]
                    A[j, i], dA[i, j] = -rate * score, -rate * dscore
                    dtau[b, begin + i] -= eta[b, begin + j] * score * dscore
                    deta[b, begin + j] -= tau[b, begin + i] * score * dscore
            assign(dA_T, dA.T)
            ddelta[:] = 0
            add_rows(A, dr, ddelta)
            add_rows(dA, keys, dq_b)
            add_rows(dA_T, queries, dk_b)
            add_rows(dr, W_start, dq_b)

            # W′
            assign(dX_T, dW[b].T)
            R[:] = 0
            add_rows(keys, dX, R)
            for i in range(size):
                R_delta = dot(R, i, delta, i)
                deta[b, begin + i] -= end * R_delta
                dtau[b, stop - 1] -= eta[b, begin + i] * R_delta
                weight = splat(v, -end * eta[b, begin + i])
                for c in range(i * columns, (i + 1) * columns, lanes(v)):
                    store(ddelta, c, fma(weight, load(R, c), load(ddelta, c)))
                scaled(delta, i, -end * eta[b, begin + i], update)
            add_rows(update, dX_T, dk_b)

            # δ: its cotangent is replaced by that of z
            z, values, spread = residuals.unit[b, begin:stop], v[b, begin:stop], residuals.spread[b, begin:stop]
            _inner_loss_backward(keys, values, b, norm, z, delta, spread, ddelta, dk_b, dv[b, begin:stop], dnorm)
            add_rows(ddelta, W_start, dk_b)
            add_outer(queries, dr, dX)
            add_outer(keys, ddelta, dX)


@kernel
def _read_backward(dy, b, norm, unit, spread, dr, dq, dnorm):
    """Compute the cotangent of r, and add to those of the residual and the norm."""
    columns, step, wide = dy.shape[1], lanes(dy), dq.shape[1]
    for i in range(len(dy)):
        row = i * columns
        for c in range(0, columns, step):
            g, at = load(dy, row + c), b * columns + c
            if norm.present:
                store(dnorm.gamma, at, fma(g, load(unit, row + c), load(dnorm.gamma, at)))
                store(dnorm.beta, at, load(dnorm.beta, at) + g)
                store(dq, i * wide + c, load(dq, i * wide + c) + g)
                g = g * load(norm.gamma, at)
            store(dr, row + c, g)
        if norm.present:
            normalize_row_backward(unit, dr, i, norm.inside, norm.values, spread[i])


@kernel
def _inner_loss_backward(k, v, b, norm, unit, delta, spread, g, dk, dv, dnorm):
    """Replace g, the cotangent of δ, by that of z; add to those of v, of the residual and of the norm."""
    columns, step, wide = v.shape[1], lanes(v), k.shape[1]
    for i in range(len(v)):
        row = i * columns
        if not norm.present:
            for c in range(row, row + columns, step):
                store(dv, c, splat(v, 0) - load(g, c))
            continue
        inverse = splat(v, 1 / spread[i])
        mean_a = mean_a_z = mean_g_z = mean_a_delta = splat(v, 0)
        for c in range(0, columns, step):
            x, a = load(unit, row + c), load(g, row + c) * inverse
            e = _error(k, i * wide + c, v, row + c, unit, b * columns + c, norm)
            mean_a, mean_a_z, mean_a_delta = mean_a + a, fma(a, x, mean_a_z), fma(a, load(delta, row + c), mean_a_delta)
            mean_g_z = fma(load(norm.gamma, b * columns + c) * e, x, mean_g_z)
        mean_a, mean_a_z = splat(v, total(mean_a) / norm.values), splat(v, total(mean_a_z) / norm.values)
        mean_g_z, mean_a_delta = splat(v, total(mean_g_z) / norm.values), splat(v, total(mean_a_delta) / norm.values)
        for c in range(0, columns, step):
            at, x, a = b * columns + c, load(unit, row + c), load(g, row + c) * inverse
            gamma, e = load(norm.gamma, at), _error(k, i * wide + c, v, row + c, unit, at, norm)
            dg = a - fma(mean_a_z, x, mean_a)
            de = gamma * dg
            store(dnorm.gamma, at, fma(dg, e, fma(de, x, load(dnorm.gamma, at))))
            store(dnorm.beta, at, load(dnorm.beta, at) + de)
            store(dv, row + c, splat(v, 0) - de)
            store(dk, i * wide + c, load(dk, i * wide + c) + de)
            store(g, row + c, gamma * de - fma(a, mean_g_z, gamma * e * mean_a_z))
        normalize_row_backward(unit, g, i, norm.inside, norm.values, spread[i])
        for c in range(row, row + columns, step):
            store(g, c, load(g, c) - load(unit, c) * mean_a_delta)
