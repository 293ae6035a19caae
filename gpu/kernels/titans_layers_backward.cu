// The adjoint of titans_layers.cu. With dW the cotangent of the start, dM and dS those of M and S after the batch, and
// g that of a layer's output y (dy at the last layer, through its norm):
//
//     dδ = −mix_C ∘ (x dM) − G_C ∘ (x dS) − (mix ∘ r xᵀ)ᵀ g
//     dx = −mix_C ∘ (δ dMᵀ) − G_C ∘ (δ dSᵀ) − (mix ∘ g δᵀ)ᵀ r
//     dr = γ g Mᵀ + p g Sᵀ − (mix ∘ g δᵀ) x                        dS ← p_C dM + h_C dS + rᵀ p g,  dM ← γ_C dM + rᵀ γ g
//     dmixₜₛ = −(gₜ · δₛ)(rₜ · xₛ), and at C  −(xₛ dM) · δₛ;  dγₜ = rₜ · (g Mᵀ)ₜ, and at C  Σ dM ∘ M
//     dp, dh and dG_C likewise
//
// where all but dr use dM and dS after the batch. Then from the first layer to the last, as δₗ = uₗ ∘ gelu′ zₗ, uₗ =
// δₗ₊₁ Wₗ₊₁ᵀ,
//
//     duₗ = dδₗ ∘ gelu′ zₗ          dδₗ₊₁ += duₗ Wₗ₊₁          dWₗ₊₁ += duₗᵀ δₗ₊₁          dzₗ = dδₗ ∘ uₗ ∘ gelu″ zₗ
//
// and in reverse: dz_L = dδ_L without a norm, dWₗ += xₗᵀ dzₗ, dxₗ += dzₗ Wₗᵀ, dzₗ₋₁ += dxₗ ∘ gelu′ zₗ₋₁. At the start
// of a batch W is M. Inside a norm δ = P(γ ∘ e) / s, s = √(var z + ε), with P(g) = g − mean g − ẑ mean(g ẑ), which is
// self-adjoint: the cotangents are P(dδ) / s of γ ∘ e, −(dδ mean(ẑ γ e) + γ e mean(ẑ dδ)) / s of ẑ, −Σ dδ δ / s of s,
// and through ẑ and s that of z.
//
// Block    one sequence. Thread: 4 elements of each tile, as forward. M and S are saved before every 8th batch: a block
//          recomputes those of the following 7 batches, then takes them in reverse.
//
// Memory traffic   a batch of C tokens reads and writes W, M, S and their cotangents: about 34 N elements in all, from
//                  the L2 cache if 20 N of every sequence fit in it: M and S of 8 batches, cotangents and start.
// FLOPs            per token 40 N, of which 16 N recompute the forward pass, and 6 C for each feature that enters or
//                  leaves a layer.
// Bound            at K = V = 64 with 128 inside and C = 16: 690,000 operations for 140 KB from the L2 cache, as
//                  forward.
#include "titans_batch.cuh"

struct Cotangents {  // of the start, M and S, (entries,) each, carried in reverse
    real *W, *M, *S;
};

struct GateCotangents {  // cotangents of the fields of Gates
    Tile mix;
    real gamma[SIDE], p[SIDE], into_S[SIDE];
    real dM_M[WARPS], dM_S[WARPS], dS_S[WARPS];  // Σ dM ∘ M, Σ dM ∘ S and Σ dS ∘ S, partial sums of each warp
};

// Backward of the norm around the output, for row t: the cotangents of y, γ and β.
__device__ inline void read_backward(const Batch &batch, const real *dy, int t) {
    int lane = threadIdx.x % 32, width = batch.last().columns, row = t * width;
    real *g = batch.buffer(DY, batch.depth - 1) + row, *unit = batch.buffer(READ) + row;
    const real *gamma = batch.gamma;
    if (!batch.norm) {
        for (int j = lane; j < width; j += 32) g[j] = dy[row + j];
        return;
    }
    real root = standardise(unit, unit, width);
    Projected onto = projected(width, unit, [&](int j) { return gamma[j] * dy[row + j]; });
    for (int j = lane; j < width; j += 32) {
        g[j] = onto(gamma[j] * dy[row + j], unit[j]) / root;
        batch.buffer(D_GAMMA)[row + j] = dy[row + j] * unit[j], batch.buffer(D_BETA)[row + j] = dy[row + j];
    }
}

// Backward of the gradient δ_L of the inner loss, for row t: the cotangents of z_L, k, v, γ and β.
__device__ inline void inner_loss_backward(const Batch &batch, const Gates &gates, real *dv, int t) {
    int lane = threadIdx.x % 32, width = batch.last().columns, row = t * width, last = batch.depth - 1;
    const real *d = batch.buffer(D_DELTA, last) + row, *delta = batch.buffer(DELTA, last) + row, *gamma = batch.gamma;
    const real *error = batch.buffer(ERROR) + row, *unit = batch.buffer(UNIT) + row;
    real *dz = batch.buffer(D_Z, last) + row, *dk_residual = batch.buffer(DK_RESIDUAL) + row, root = gates.root[t];
    if (!batch.norm) {
        for (int j = lane; j < width; j += 32) dz[j] = d[j], dv[row + j] = -d[j];
        return;
    }
    Projected onto = projected(width, unit, [&](int j) { return d[j]; });
    real along = row_sum(width, [&](int j) { return unit[j] * gamma[j] * error[j]; }) / width;
    real spread = row_sum(width, [&](int j) { return d[j] * delta[j]; }) / width;
    for (int j = lane; j < width; j += 32) {
        real dstandardised = onto(d[j], unit[j]) / root, derror = gamma[j] * dstandardised;
        batch.buffer(D_GAMMA)[row + j] += error[j] * dstandardised + derror * unit[j];
        batch.buffer(D_BETA)[row + j] += derror;
        dk_residual[j] = derror, dv[row + j] = -derror;
        dz[j] = gamma[j] * derror - (d[j] * along + gamma[j] * error[j] * onto.along) / root;
    }
    onto = projected(width, unit, [&](int j) { return dz[j]; });
    for (int j = lane; j < width; j += 32) dz[j] = (onto(dz[j], unit[j]) - unit[j] * spread) / root;
}

// Backward of outputs and update: dS and dM become those before the batch; the cotangents of q, x, δ and the gates are
// set.
__device__ inline void update_backward(Tile (&tiles)[2], const Batch &batch, const Gates &gates, GateCotangents &dgates,
                                       Cotangents d, const real *dy, real *dq) {
    int count = batch.count, end = count - 1;
    real dM_M = 0, dM_S = 0, dS_S = 0;
    for (int l = batch.depth - 1; l >= 0; l--) {
        Layer layer = batch.layers[l];
        bool first = l == batch.depth - 1;
        int width = layer.columns, rows = layer.features + layer.bias;
        Matrix g = batch.outputs(DY, l), delta = batch.outputs(DELTA, l), x = batch.x(l), r = batch.r(l);
        Matrix M = batch.layer(batch.M, l), S = batch.layer(batch.S, l);
        real *x_dM = batch.buffer(X_DM), *x_dS = batch.buffer(X_DS), *dy_M = batch.buffer(DY_M),
            *dy_S = batch.buffer(DY_S);
        multiply(tiles, [&](int t, int j, real sum) { x_dM[t * width + j] = sum; },
                 times(x, batch.layer(d.M, l)));
        multiply(tiles, [&](int t, int j, real sum) { x_dS[t * width + j] = sum; },
                 times(batch.if_momentum(x), batch.layer(d.S, l)));
        multiply(tiles, [&](int t, int i, real sum) { dy_M[t * rows + i] = sum; }, times(g, transposed(M)));
        multiply(tiles, [&](int t, int i, real sum) { dy_S[t * rows + i] = sum;
                                                     }, times(batch.if_momentum(g), transposed(S)));
        real *scores = batch.buffer(SCORES, l), *dscores = batch.buffer(D_SCORES);
        multiply(tiles, [&](int t, int s, real sum) {
            dgates.mix[t][s] = (first ? 0 : dgates.mix[t][s]) - sum * scores[t * count + s];
            dscores[t * count + s] = sum * gates.mix[t][s];
        }, times(g, transposed(delta)));
        along_rows(count, [&](int t) {
            real dmix_last = row_sum(width, [&](int j) { return x_dM[t * width + j] * delta.at(t, j); });
            real dG_last = row_sum(width, [&](int j) { return x_dS[t * width + j] * delta.at(t, j); });
            real gamma = row_sum(rows, [&](int i) { return dy_M[t * rows + i] * r.at(t, i); });
            real p = row_sum(rows, [&](int i) { return dy_S[t * rows + i] * r.at(t, i); });
            if (threadIdx.x % 32) return;
            dgates.mix[end][t] -= dmix_last, dgates.into_S[t] = (first ? 0 : dgates.into_S[t]) - dG_last;
            dgates.gamma[t] = (first ? 0 : dgates.gamma[t]) + gamma, dgates.p[t] = (first ? 0 : dgates.p[t]) + p;
        });
        real *ddelta = batch.buffer(D_DELTA, l), *dx = batch.buffer(D_X, l);
        multiply(tiles, [&](int t, int j, real sum) {
            int at = t * width + j;
            ddelta[at] = sum - gates.into_M[t] * x_dM[at] - gates.into_S[t] * x_dS[at];
        }, times(transposed(batch.token_pairs(WEIGHTS, l)), g));
        multiply(tiles, [&](int t, int i, real sum) { dx[t * layer.features + i] = -sum; },
                 times(Scaled{gates.into_M, delta}, transposed(batch.unbiased(d.M, l))),
                 times(Scaled{gates.into_S, batch.if_momentum(delta)}, transposed(batch.unbiased(d.S, l))),
                 times(transposed(batch.token_pairs(D_SCORES, 0)), Matrix{r.from, count, layer.features}));
        multiply(tiles, [&](int t, int i, real sum) {
            int at = t * layer.features + i;
            real dr = gates.gamma[t] * dy_M[t * rows + i] + gates.p[t] * dy_S[t * rows + i] - sum;
            if (l) batch.buffer(DY, l - 1)[at] = dr * batch.buffer(READ_SLOPE, l)[at];
            else dq[at] = batch.norm ? dr + dy[at] : dr;
        }, times(batch.token_pairs(D_SCORES, 0), Matrix{x.from, count, layer.features}));
        if (batch.momentum)
            multiply(tiles, [&](int i, int j, real sum) {
                int at = layer.before + i * width + j;
                real M = d.M[at], S = d.S[at];
                dM_S += M * batch.S[at], dS_S += S * batch.S[at];
                d.S[at] = gates.p[end] * M + gates.h[end] * S + sum;
            }, times(transposed(r), Scaled{gates.p, g}));
        multiply(tiles, [&](int i, int j, real sum) {
            int at = layer.before + i * width + j;
            dM_M += d.M[at] * batch.M[at], d.M[at] = gates.gamma[end] * d.M[at] + sum;
        }, times(transposed(r), Scaled{gates.gamma, g}));
    }
    dM_M = warp_sum(dM_M), dM_S = warp_sum(dM_S), dS_S = warp_sum(dS_S);
    if (threadIdx.x % 32 == 0) {
        int warp = threadIdx.x / 32;
        dgates.dM_M[warp] = dM_M, dgates.dM_S[warp] = dM_S, dgates.dS_S[warp] = dS_S;
    }
}

// Backward of the inner model and its gradients: from the cotangents of δ and x to those of the start, keys and values.
__device__ inline void inner_model_backward(Tile (&tiles)[2], const Batch &batch, const Gates &gates, real *dW,
                                            real *dk, real *dv) {
    for (int l = 1; l < batch.depth; l++) {
        Layer layer = batch.layers[l];
        int width = layer.features;
        real *du = batch.buffer(D_U, l);
        along_rows(batch.count, [&](int t) {
            for (int j = threadIdx.x % 32; j < width; j += 32) {
                int at = t * width + j;
                real ddelta = batch.buffer(D_DELTA, l - 1)[at];
                du[at] = ddelta * batch.buffer(SLOPE, l)[at];
                batch.buffer(D_Z, l - 1)[at] = ddelta * batch.buffer(U, l)[at] * batch.buffer(CURVE, l)[at];
            }
        });
        Matrix du_matrix = {du, batch.count, width};
        multiply(tiles, [&](int t, int j, real sum) { batch.buffer(D_DELTA, l)[t * layer.columns + j] += sum; },
                 times(du_matrix, batch.unbiased(batch.W, l)));
        multiply(tiles, [&](int i, int j, real sum) { dW[layer.before + i * layer.columns + j] += sum; },
                 times(transposed(du_matrix), batch.outputs(DELTA, l)));
    }
    along_rows(batch.count, [&](int t) { inner_loss_backward(batch, gates, dv, t); });
    for (int l = batch.depth - 1; l >= 0; l--) {
        Layer layer = batch.layers[l];
        multiply(tiles, [&](int i, int j, real sum) { dW[layer.before + i * layer.columns + j] += sum; },
                 times(transposed(batch.x(l)), batch.outputs(D_Z, l)));
        multiply(tiles, [&](int t, int i, real sum) {
            int at = t * layer.features + i;
            real dx = batch.buffer(D_X, l)[at] + sum;
            if (l) batch.buffer(D_Z, l - 1)[at] += dx * batch.buffer(SLOPE, l)[at];
            else dk[at] = batch.norm ? dx + batch.buffer(DK_RESIDUAL)[at] : dx;
        }, times(batch.outputs(D_Z, l), transposed(batch.unbiased(batch.W, l))));
    }
}

// Backward of the gates, by the first warp: a lane has a column of G and mix.
__device__ inline void gates_backward(const Batch &batch, const Gates &gates, const GateCotangents &dgates,
                                      real *dtheta, real *dlog_eta, real *dlog_decay, real *dtau) {
    int lane = threadIdx.x, end = batch.count - 1;
    if (lane >= SIDE) return;
    if (!batch.momentum) {  // mixₜₛ = τₜ ηₛ
        real drate = 0, rate = lane <= end ? batch.theta[lane] : 0;
        for (int t = 0; t <= end; t++) {
            real g = lane <= t ? dgates.mix[t][lane] : 0, sum = warp_sum(rate * g);
            drate = fma(batch.tau[t], g, drate);
            if (lane == 0) dtau[t] = sum;
        }
        if (lane <= end) dtheta[lane] = drate;
        return;
    }
    real dgamma = 0, dp = 0, dh = 0, dmix = 0, dG = lane <= end ? dgates.into_S[lane] : 0;
    for (int warp = 0; warp < WARPS; warp++)
        dgamma += dgates.dM_M[warp], dp += dgates.dM_S[warp], dh += dgates.dS_S[warp];
    for (int t = end; t >= 0; t--) {
        real eta = exp(batch.log_eta[t]), alpha = exp(batch.log_alpha[t]);
        dgamma += dgates.gamma[t], dp += dgates.p[t], dh += dp;
        real dalpha = dgamma * (t ? gates.gamma[t - 1] : 1) + dp * (t ? gates.p[t - 1] : 0);
        real deta = dh * (t ? gates.h[t - 1] : 1);
        dgamma *= alpha, dp *= alpha, dh *= eta;
        if (lane <= t) dmix += dgates.mix[t][lane], dG += dmix;
        if (lane == t) dtheta[t] = dG;
        dalpha += warp_sum(lane < t ? dmix * gates.mix[t - 1][lane] : 0);
        deta += warp_sum(lane < t ? dG * gates.surprise[t - 1][lane] : 0);
        dmix *= alpha, dG *= eta;
        if (lane == 0) dlog_eta[t] = deta * eta, dlog_decay[t] = dalpha * alpha;
    }
}

// dW, dM, dS (batch, entries): on entry of the outputs, on return of the inputs. passing (batch, segment − 1, parts,
// entries): M and S before the batches of a segment, but for the first.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_layers_backward(const real *q, const real *k, const real *v, const real *theta, const real *log_eta,
                       const real *log_alpha, const real *tau, const real *start, const real *norm, const Layer *layers,
                       const real *boundary_states, real *passing, const real *dy, real *dW, real *dM, real *dS,
                       real *dq, real *dk, real *dv, real *dtheta, real *dlog_eta, real *dlog_decay, real *dtau,
                       real *dnorm, real *workspace, int length, int left, int batch_size, int depth, int entries,
                       int widest, int segment, int momentum, int normed) {
    __shared__ Tile tiles[2];
    __shared__ Gates gates;
    __shared__ GateCotangents dgates;
    __shared__ Batch batch;
    int batches = 1 + (length > left ? (length - left + batch_size - 1) / batch_size : 0);
    int keys = layers[0].features, values = layers[depth - 1].columns;
    long long sequence = blockIdx.x, from = sequence * length, model = (momentum ? 2LL : 1LL) * entries;
    boundary_states += sequence * ((batches + segment - 1) / segment) * model,
        passing += sequence * (segment - 1) * model;
    start += sequence * entries, workspace += sequence * depth * FIELDS * SIDE * widest;
    dnorm += normed ? sequence * 2 * values : 0;
    Cotangents d = {dW + sequence * entries, dM + sequence * entries, dS + sequence * entries};
    const real *gamma = normed ? norm + sequence * 2 * values : nullptr, *beta = normed ? gamma + values : nullptr;

    for (int segment_index = (batches - 1) / segment; segment_index >= 0; segment_index--) {
        int begin = segment_index * segment, end = min(begin + segment, batches);
        for (int step = begin; step < 2 * end - begin - 1; step++) {  // recompute all but the last batch, then go back
            bool backward = step >= end - 1;
            int i = backward ? 2 * end - 2 - step : step;
            int first = i ? left + (i - 1) * batch_size : 0, count = min(left + i * batch_size, length) - first;
            long long at = from + first;
            const real *current = i == begin ? boundary_states + segment_index * model
                                             : passing + (i - begin - 1) * model;
            real *next = passing + (i - begin) * model;
            __syncthreads();  // all threads have finished the previous batch
            if (threadIdx.x == 0)
                batch = {layers, depth, widest, count, normed != 0, momentum != 0,
                         q + at * keys, k + at * keys, v + at * values,
                         theta + at, log_eta + at, log_alpha + at, tau + at, gamma, beta,
                         i ? current : start, current, momentum ? current + entries : nullptr, workspace};
            __syncthreads();
            compute_gates(gates, batch);
            inner_model(tiles, batch, gates, [](int, real) {});
            if (!backward) {
                write(tiles, batch, gates, next, next + entries);
                continue;
            }
            read(tiles, batch, gates);
            along_rows(count, [&](int t) { read_backward(batch, dy + at * values, t); });
            update_backward(tiles, batch, gates, dgates, d, dy + at * values, dq + at * keys);
            inner_model_backward(tiles, batch, gates, d.W, dk + at * keys, dv + at * values);
            gates_backward(batch, gates, dgates, dtheta + at, dlog_eta + at, dlog_decay + at, dtau + at);
            // no barrier: all rows were written before the last product
            for (int j = threadIdx.x; normed && j < 2 * values; j += THREADS) {
                const real *rows = j < values ? batch.buffer(D_GAMMA) + j : batch.buffer(D_BETA) + j - values;
                for (int t = 0; t < count; t++) dnorm[j] += rows[t * values];
            }
            if (i)  // at the start of a batch W is M
                for (int j = threadIdx.x; j < entries; j += THREADS) d.M[j] += d.W[j], d.W[j] = 0;
        }
    }
}
