"""Titans in mini-batches, for a memory of any number of layers, and its adjoint: no graph, no weights of each token.

Forward, in a batch of C tokens that begins with the layers W (where gradients are taken), M and S:

    zₗ = xₗ Wₗ,  xₗ₊₁ = gelu zₗ          δ_L = z_L − v,  δₗ = uₗ ⊙ gelu′ zₗ,  uₗ = δₗ₊₁ Wₗ₊₁ᵀ          from x₁ = k
    yₗ = γ rₗ Mₗ + p rₗ Sₗ − (mix ⊙ rₗ xₗᵀ) δₗ,  rₗ₊₁ = gelu yₗ                                   from r₁ = q
    M′ = γ_C M + p_C S − xᵀ diag(mix_C) δ          S′ = h_C S − xᵀ diag(G_C) δ

with γ, p, h, mix and G of `models.kernels.titans_gates`. Backward goes through the same lines from the last to the
first; what passes the slopes δ needs gelu″.

Work    one thread takes all sequences through a batch at once, and BLAS multiplies in it. Its steps are too short to be
        shared out: threads that meet at Python's lock every few microseconds took twice as long.
Memory  M and S every 8 batches. The backward pass recomputes those in between, 8 batches at a time.
Cost    backward two products for each of the forward's, and those of the forward again.

With a norm, δ_L and y are those of `models.kernels.titans_norm` for z_L and y_L. A bias is the last row of a layer's
matrix: the weights of a feature 1 that is appended to its input.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gpu.inner_model import WeightLayout
from minigrad.compiled.layout import append_ones, flat_count, laid_out, plain
from minigrad.compiled.simd import kernel
from minigrad.compiled.threads import one_blas_thread
from models.kernels import titans_gates, titans_norm
from models.kernels.gelu_tanh import gelu_tanh

SEGMENT = 8  # batches between two boundary states

Arrays = list[np.ndarray]
Gelu = tuple[np.ndarray, np.ndarray, np.ndarray]  # gelu and its derivatives


class Tokens(NamedTuple):
    """Sequences with one batch axis, or a batch of their tokens."""

    q: np.ndarray  # (B, T, K)
    k: np.ndarray
    v: np.ndarray
    mix: np.ndarray  # (B, T, C)
    last: np.ndarray  # (B, T), the last row of G
    fades: np.ndarray  # (B, T, 3): γ, p, h

    def batch(self, begin: int, stop: int) -> "Tokens":
        """Return the tokens from `begin` up to, without, `stop`."""
        part = Tokens(*(x[:, begin:stop] for x in self))
        return part._replace(mix=part.mix[..., : stop - begin])


class Model(NamedTuple):
    """Structure of a memory, and its norm: what start, M and S have in common."""

    bias: tuple[bool, ...]  # for each layer: whether its last row is a bias
    norm: titans_norm.Norm | None


class InnerPass(NamedTuple):
    """Forward and backward pass of the inner model on a batch: x and δ of a layer are the factors of its updates."""

    x: Arrays
    gelus: list[Gelu]  # at z, but for the last layer
    u: Arrays
    delta: Arrays
    loss_residuals: titans_norm.Residuals | None  # with a norm


class Saved(NamedTuple):
    """Residuals of the backward pass: the inputs, gates, and the memory every 8 batches."""

    tokens: Tokens
    gates: tuple[np.ndarray, ...]  # θ, η, a
    cuts: np.ndarray  # where batches begin, and T
    whole: bool  # whether the last batch is complete
    start: Arrays
    model: Model
    boundary_states: list[tuple[Arrays, Arrays]]  # M and S
    shapes: list[tuple[int, ...]]  # of the inputs


def forward(
    q: Any,
    k: Any,
    v: Any,
    theta: Any,
    log_eta: Any,
    log_decay: Any,
    *weights: Any,
    layout: WeightLayout,
    batch_size: int,
    left: int,
    on_losses: Callable[[np.ndarray], None],
) -> tuple[tuple[Any, ...], Saved]:
    """Return ((y, *start, *memory, *surprise), saved) for q, k (*batch, T, K), v (*batch, T, V), gates (*batch, T) and
    the layers of start, memory and surprise, (*batch, I, O) each, then γ and β (*batch, 1, V) where the layout has a
    norm.

    Batches have `batch_size` tokens, the first `left`; `on_losses` is called with the squared errors (*batch, T).
    Raises ValueError for weights of another layout.
    """
    shapes = [x.shape for x in (q, k, v, theta, log_eta, log_decay, *weights)]
    count, length, depth = flat_count(q.shape), q.shape[-2], layout.depth
    cuts = np.array([0, *range(left, length, batch_size), length])
    theta, eta, a = (laid_out(x, count, length, to=(1,)) for x in (theta, np.exp(log_eta), np.exp(log_decay)))
    q, k, v, *flat = (np.reshape(x, (count, *x.shape[-2:])) for x in (q, k, v, *weights))
    (start, M, S), gamma_beta = layout.split("titans", flat, q.shape[-1], models=3)
    M, S = ([plain(x) for x in layers] for layers in (M, S))
    model = Model(layout.bias, tuple(gamma_beta) if layout.norm else None)
    tokens = Tokens(q, k, v, *titans_gates.forward(theta, eta, a, cuts))
    W, whole = start, (length - left) % batch_size == 0 and length >= left
    boundary_states, y, losses = [], np.empty(v.shape, v.dtype), np.empty((count, length))
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        for i, (begin, stop) in enumerate(pairwise(cuts)):
            if i % SEGMENT == 0:
                boundary_states.append((M, S))
            W, batch = M if i else W, tokens.batch(begin, stop)
            inner_pass = _inner_loss_grad(W, batch, model)
            error = inner_pass.loss_residuals.error if inner_pass.loss_residuals else inner_pass.delta[-1]
            losses[:, begin:stop] = np.sum(error * error, axis=-1)
            z = _read(M, S, inner_pass, batch, model)[0]
            y[:, begin:stop] = titans_norm.read(model.norm, batch.q, z) if model.norm else z
            M, S = _updated(M, S, inner_pass, batch)
    on_losses(losses.reshape(shapes[3]))
    last_weights = [*(M if whole else W), *M, *S]
    final_weights = tuple(x.reshape(shape) for x, shape in zip(last_weights, shapes[6 : 6 + 3 * depth], strict=True))
    return (y.reshape(shapes[2]), *final_weights), Saved(
        tokens, (theta, eta, a), cuts, whole, start, model, boundary_states, shapes
    )


def backward(saved: Saved, cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cotangents of everything that went into `forward` from those of what came out."""
    tokens, (theta, eta, a), cuts, whole, start, model, boundary_states, shapes = saved
    depth = len(start)
    dy, *dends = (np.reshape(g, (len(theta), *g.shape[-2:])) for g in cotangents)
    dtokens, batches = Tokens(*(np.zeros(x.shape, x.dtype) for x in tokens)), list(pairwise(cuts))
    dnorm = [np.zeros_like(x) for x in model.norm or ()]
    dstart, dM, dS = (dends[i : i + depth] for i in (0, depth, 2 * depth))
    if whole:  # the last M is the next start
        dM, dstart = _sums(dM, dstart), [np.zeros_like(g) for g in dstart]
    with one_blas_thread():
        for segment in range(len(boundary_states) - 1, -1, -1):
            (M, S), steps = boundary_states[segment], []
            for i in range(segment * SEGMENT, min((segment + 1) * SEGMENT, len(batches))):
                W, batch = M if i else start, tokens.batch(*batches[i])
                inner_pass = _inner_loss_grad(W, batch, model)
                steps.append((i, batch, W, M, S, inner_pass))
                M, S = _updated(M, S, inner_pass, batch)
            for i, batch, W, M, S, inner_pass in reversed(steps):
                cotangents_after = dy[:, slice(*batches[i])], dM, dS
                dbatch, (dW, dM, dS), dnorm_of_batch = _batch_backward(
                    batch, W, M, S, model, inner_pass, *cotangents_after
                )
                dnorm = _sums(dnorm, dnorm_of_batch)
                for to, g in zip(dtokens.batch(*batches[i]), dbatch, strict=True):
                    to[...] = g
                if batches[i][1] == cuts[-1]:
                    dW = _sums(dW, dstart)
                if i:  # the batch began with its own M
                    dM = _sums(dM, dW)
                else:
                    dstart = dW
    gates = dtokens.mix, dtokens.last, dtokens.fades
    dtheta, deta, da = titans_gates.backward(theta, eta, a, cuts, tokens.mix, tokens.fades, *gates)
    dinputs = (dtokens.q, dtokens.k, dtokens.v, dtheta, deta * eta, da * a, *dstart, *dM, *dS, *dnorm)
    return tuple(g.reshape(shape) for g, shape in zip(dinputs, shapes, strict=True))


def _sums(x: Arrays, y: Arrays) -> Arrays:
    return [a + b for a, b in zip(x, y, strict=True)]


def _inner_loss_grad(W: Arrays, batch: Tokens, model: Model) -> InnerPass:
    bias, norm = model
    x, z = [append_ones(batch.k) if bias[0] else batch.k], batch.k
    gelus: list[Gelu] = []
    u: Arrays = []
    for i, layer in enumerate(W):
        z = x[i] @ layer
        if i + 1 < len(W):
            gelus.append(gelu_tanh(z))
            x.append(append_ones(gelus[i][0]) if bias[i + 1] else gelus[i][0])
    last, loss_residuals = titans_norm.inner_loss_grad(norm, batch.k, batch.v, z) if norm else (z - batch.v, None)
    delta = [last]
    for layer, (_, slope, _) in zip(W[:0:-1], gelus[::-1], strict=True):
        u.insert(0, delta[0] @ layer[:, : slope.shape[-1]].mT)
        delta.insert(0, u[0] * slope)
    return InnerPass(x, gelus, u, delta, loss_residuals)


def _read(
    M: Arrays, S: Arrays, inner_pass: InnerPass, batch: Tokens, model: Model
) -> tuple[np.ndarray, Arrays, list[Gelu]]:
    """Return y_L, the input of each layer, and gelu with its derivatives between them."""
    bias, (gamma, p, _) = model.bias, np.split(batch.fades, 3, axis=-1)
    r, y = [append_ones(batch.q) if bias[0] else batch.q], batch.q
    gelus: list[Gelu] = []
    for i, (m, s, x, delta) in enumerate(zip(M, S, inner_pass.x, inner_pass.delta, strict=True)):
        y = gamma * (r[i] @ m) + p * (r[i] @ s) - (batch.mix * (r[i] @ x.mT)) @ delta
        if i + 1 < len(M):
            gelus.append(gelu_tanh(y))
            r.append(append_ones(gelus[i][0]) if bias[i + 1] else gelus[i][0])
    return y, r, gelus


def _updated(M: Arrays, S: Arrays, inner_pass: InnerPass, batch: Tokens) -> tuple[Arrays, Arrays]:
    """Return M′ and S′."""
    into_M, into_S, ends = [], [], np.ascontiguousarray(batch.fades[:, -1])
    for m, s, x, delta in zip(M, S, inner_pass.x, inner_pass.delta, strict=True):
        into_M.append((x * batch.mix[:, -1, :, None]).mT @ delta)
        into_S.append((x * batch.last[..., None]).mT @ delta)
        _update(m, s, ends, into_M[-1], into_S[-1])
    return into_M, into_S


@kernel
def _update(m, s, ends, into_m, into_s):
    """Write γ m + p s − x into what held x, and h s − y into what held y."""
    for b in range(len(m)):
        gamma, p, h = ends[b]
        for i in range(m.shape[1]):
            for j in range(m.shape[2]):
                into_m[b, i, j] = gamma * m[b, i, j] + p * s[b, i, j] - into_m[b, i, j]
                into_s[b, i, j] = h * s[b, i, j] - into_s[b, i, j]


@kernel
def _update_backward(ends, dm, ds, to_m, to_s):
    """Write γ dm and p dm + h ds, the cotangents of m and s."""
    for b in range(len(dm)):
        gamma, p, h = ends[b]
        for i in range(dm.shape[1]):
            for j in range(dm.shape[2]):
                to_m[b, i, j] = gamma * dm[b, i, j]
                to_s[b, i, j] = p * dm[b, i, j] + h * ds[b, i, j]


def _batch_backward(
    batch: Tokens,
    W: Arrays,
    M: Arrays,
    S: Arrays,
    model: Model,
    inner_pass: InnerPass,
    dy: np.ndarray,
    dM: Arrays,
    dS: Arrays,
) -> tuple[Tokens, tuple[Arrays, Arrays, Arrays], Arrays]:
    """Return the cotangents of a batch, of W, M and S, and of a norm, all new, from those of y, M′ and S′."""
    x, gelus, u, delta, loss_residuals = inner_pass
    depth, norm, (z, r, read_gelus) = len(W), model.norm, _read(M, S, inner_pass, batch, model)
    dfades, dlast, dmix = np.zeros_like(batch.fades), np.zeros_like(batch.last), np.zeros_like(batch.mix)
    dx, ddelta = [], []

    # M′ and S′
    column, last = batch.mix[:, -1, :, None], batch.last[..., None]
    for i in range(depth):
        x_dM, x_dS = x[i] @ dM[i], x[i] @ dS[i]
        ddelta.append(-column * x_dM - last * x_dS)
        dx.append(-column * (delta[i] @ dM[i].mT) - last * (delta[i] @ dS[i].mT))
        dmix[:, -1] -= np.sum(x_dM * delta[i], axis=-1)
        dlast -= np.sum(x_dS * delta[i], axis=-1)
        for place, (g, layer) in enumerate([(dM[i], M[i]), (dM[i], S[i]), (dS[i], S[i])]):
            dfades[:, -1, place] += np.vecdot(g, layer).sum(axis=-1)
    d_after, dM, dS = (dM, dS), [np.empty_like(g) for g in dM], [np.empty_like(g) for g in dS]
    ends = np.ascontiguousarray(batch.fades[:, -1])
    for i in range(depth):
        _update_backward(ends, d_after[0][i], d_after[1][i], dM[i], dS[i])

    # y
    gamma, p, _ = np.split(batch.fades, 3, axis=-1)
    g, dnorm = titans_norm.read_backward(norm, z, dy) if norm else (dy, [])
    dr = g
    for i in range(depth - 1, -1, -1):
        scores, gamma_g, p_g = r[i] @ x[i].mT, gamma * g, p * g
        dfades[..., 0] += np.sum(g * (r[i] @ M[i]), axis=-1)
        dfades[..., 1] += np.sum(g * (r[i] @ S[i]), axis=-1)
        dM[i] += r[i].mT @ gamma_g
        dS[i] += r[i].mT @ p_g
        dweights = -(g @ delta[i].mT)
        dmix += dweights * scores
        ddelta[i] -= (batch.mix * scores).mT @ g
        dscores = dweights * batch.mix
        dx[i] += dscores.mT @ r[i]
        dr = gamma_g @ M[i].mT + p_g @ S[i].mT + dscores @ x[i]
        if i:
            slope = read_gelus[i - 1][1]
            g = dr[..., : slope.shape[-1]] * slope

    # δ from the first layer to the last, then z from the last to the first
    dW, dz = [np.zeros_like(layer) for layer in W], []
    for i in range(1, depth):
        _, slope, curve = gelus[i - 1]
        features, du = slope.shape[-1], ddelta[i - 1] * slope
        dz.append(ddelta[i - 1] * u[i - 1] * curve)
        ddelta[i] += du @ W[i][:, :features]
        dW[i][:, :features] += du.mT @ delta[i]
    dz_last = dk_residual = ddelta[-1]
    if norm and loss_residuals:
        dz_last, dk_residual, dnorm_of_loss = titans_norm.inner_loss_backward(
            norm, loss_residuals, delta[-1], ddelta[-1]
        )
        dnorm = _sums(dnorm, dnorm_of_loss)
    dz.append(dz_last)
    for i in range(depth - 1, -1, -1):
        dW[i] += x[i].mT @ dz[i]
        dx[i] += dz[i] @ W[i].mT
        if i:
            slope = gelus[i - 1][1]
            dz[i - 1] += dx[i][..., : slope.shape[-1]] * slope
    keys = batch.k.shape[-1]
    dq, dk = dr[..., :keys], dx[0][..., :keys]
    if norm:
        dq, dk = dq + dy, dk + dk_residual
    return Tokens(dq, dk, -dk_residual, dmix, dlast, dfades), (dW, dM, dS), dnorm
