// The adjoint of titans_layers.cu. With dW what is told to the start, dM and dS what is told to M and S of the next batch, and
// g to what a layer gives when it is read (dy at the last one, through its norm):
//
//     dδ = −mix_C ∘ (x dM) − G_C ∘ (x dS) − (mix ∘ r xᵀ)ᵀ g          dx = −mix_C ∘ (δ dMᵀ) − G_C ∘ (δ dSᵀ) − (mix ∘ g δᵀ)ᵀ r
//     dr = γ g Mᵀ + p g Sᵀ − (mix ∘ g δᵀ) x                        dS ← p_C dM + h_C dS + rᵀ p g,  dM ← γ_C dM + rᵀ γ g
//     midxₜₛ = −(gₜ · δₛ)(rₜ · xₛ), and at C  −(xₛ dM) · δₛ;  dγₜ = rₜ · (g Mᵀ)ₜ, and at C  Σ dM ∘ M;  dp, dh and dG_C as these
//
// where all but dr take dM and dS as they came. Then from the first layer to the last, as δₗ = uₗ ∘ gelu′ zₗ, uₗ = δₗ₊₁ Wₗ₊₁ᵀ,
//
//     duₗ = dδₗ ∘ gelu′ zₗ          dδₗ₊₁ += duₗ Wₗ₊₁          dWₗ₊₁ += duₗᵀ δₗ₊₁          dzₗ = dδₗ ∘ uₗ ∘ gelu″ zₗ
//
// and back: dz_L = dδ_L without a norm, dWₗ += xₗᵀ dzₗ, dxₗ += dzₗ Wₗᵀ, dzₗ₋₁ += dxₗ ∘ gelu′ zₗ₋₁. Where a batch begins W is M.
// Within a norm δ = P(γ ∘ e) / s, s = √(var z + ε), with P(g) = g − mean g − ẑ mean(g ẑ), which is its own adjoint: P(dδ) / s is
// told to γ ∘ e, −(dδ mean(ẑ γ e) + γ e mean(ẑ dδ)) / s to ẑ, −Σ dδ δ / s to s, and from ẑ and s they go on to z.
//
// A block owns one sequence, a thread 4 numbers of each tile, as forward. M and S were kept before every 8th batch: from
//         there a block makes those of the 7 others again, then goes back through them.
//
// Bytes   a batch of C tokens reads and writes W, M, S and their cotangents: some 34 N numbers in all, from the second-level
//         cache if 20 N of every sequence find room there, M and S of 8 batches, cotangents and start.
// Work    a token 40 N operations, of which 16 N make again what forward made, and 6 C for each feature that enters or
//         leaves a layer.
// Floor   at K = V = 64 with 128 inside and C = 16: 690,000 operations for 140 KB from the second-level cache, as forward.
#include "titans_batch.cuh"

struct Cotangents {  // of the start, M and S, entries each; the block carries them back in time
    real *W, *M, *S;
};

struct Crossing {  // cotangents of what Gates holds
    Tile mix;
    real gamma[SIDE], p[SIDE], into_S[SIDE];
    real M_to_M[WARPS], S_to_M[WARPS], S_to_S[WARPS];  // Σ dM ∘ M, Σ dM ∘ S and Σ dS ∘ S, a part of each warp
};

// What is read gets dy: z of it, and what the norm gets, row by row.
__device__ inline void read_backward(const Batch &batch, const real *dy, int t) {
    int lane = threadIdx.x % 32, width = batch.last().columns, row = t * width;
    real *g = batch.own(G, batch.depth - 1) + row, *unit = batch.own(READ) + row;
    const real *gamma = batch.gamma;
    if (!gamma) {
        for (int j = lane; j < width; j += 32) g[j] = dy[row + j];
        return;
    }
    real root = standardise(unit, unit, width);
    Projected onto = projected(width, unit, [&](int j) { return gamma[j] * dy[row + j]; });
    for (int j = lane; j < width; j += 32) {
        g[j] = onto(gamma[j] * dy[row + j], unit[j]) / root;
        batch.own(OF_GAMMA)[row + j] = dy[row + j] * unit[j], batch.own(OF_BETA)[row + j] = dy[row + j];
    }
}

// δ gets d: z of the keys, v, what stands around the last layer.
__device__ inline void inner_loss_backward(const Batch &batch, const Gates &gates, real *dv, int t) {
    int lane = threadIdx.x % 32, width = batch.last().columns, row = t * width, last = batch.depth - 1;
    const real *d = batch.own(G_DELTA, last) + row, *delta = batch.own(DELTA, last) + row, *gamma = batch.gamma;
    const real *error = batch.own(ERROR) + row, *unit = batch.own(UNIT) + row;
    real *dz = batch.own(G_Z, last) + row, *to_k = batch.own(TO_K) + row, root = gates.root[t];
    if (!gamma) {
        for (int j = lane; j < width; j += 32) dz[j] = d[j], dv[row + j] = -d[j];
        return;
    }
    Projected onto = projected(width, unit, [&](int j) { return d[j]; });
    real along = row_sum(width, [&](int j) { return unit[j] * gamma[j] * error[j]; }) / width;
    real spread = row_sum(width, [&](int j) { return d[j] * delta[j]; }) / width;
    for (int j = lane; j < width; j += 32) {
        real passed = onto(d[j], unit[j]) / root, to_error = gamma[j] * passed;
        batch.own(OF_GAMMA)[row + j] += error[j] * passed + to_error * unit[j];
        batch.own(OF_BETA)[row + j] += to_error;
        to_k[j] = to_error, dv[row + j] = -to_error;
        dz[j] = gamma[j] * to_error - (d[j] * along + gamma[j] * error[j] * onto.along) / root;
    }
    onto = projected(width, unit, [&](int j) { return dz[j]; });
    for (int j = lane; j < width; j += 32) dz[j] = (onto(dz[j], unit[j]) - unit[j] * spread) / root;
}

// What the reads and the writes of a batch get: dS and dM become those before it, and x, δ and the gates are told.
__device__ inline void update_backward(Tile (&tiles)[2], const Batch &batch, const Gates &gates, Crossing &crossing, Cotangents to,
                               const real *dy, real *dq) {
    int count = batch.count, end = count - 1;
    real M_to_M = 0, S_to_M = 0, S_to_S = 0;
    for (int l = batch.depth - 1; l >= 0; l--) {
        Layer layer = batch.layers[l];
        bool first = l == batch.depth - 1;
        int width = layer.columns, rows = layer.features + layer.bias;
        Matrix g = batch.given(G, l), delta = batch.given(DELTA, l), x = batch.x(l), r = batch.r(l);
        Matrix M = batch.layer(batch.M, l), S = batch.layer(batch.S, l);
        real *to_M = batch.own(TO_M), *to_S = batch.own(TO_S), *of_M = batch.own(OF_M), *of_S = batch.own(OF_S);
        multiply(tiles, [&](int t, int j, real sum) { to_M[t * width + j] = sum; },
                 times(x, batch.layer(to.M, l)));
        multiply(tiles, [&](int t, int j, real sum) { to_S[t * width + j] = sum; },
                 times(batch.if_S(x), batch.layer(to.S, l)));
        multiply(tiles, [&](int t, int i, real sum) { of_M[t * rows + i] = sum; }, times(g, turned(M)));
        multiply(tiles, [&](int t, int i, real sum) { of_S[t * rows + i] = sum; }, times(batch.if_S(g), turned(S)));
        real *scores = batch.own(SCORES, l), *dscores = batch.own(G_SCORES);
        multiply(tiles, [&](int t, int s, real sum) {
            crossing.mix[t][s] = (first ? 0 : crossing.mix[t][s]) - sum * scores[t * count + s];
            dscores[t * count + s] = sum * gates.mix[t][s];
        }, times(g, turned(delta)));
        along_rows(count, [&](int t) {
            real into_M = row_sum(width, [&](int j) { return to_M[t * width + j] * delta.at(t, j); });
            real into_S = row_sum(width, [&](int j) { return to_S[t * width + j] * delta.at(t, j); });
            real gamma = row_sum(rows, [&](int i) { return of_M[t * rows + i] * r.at(t, i); });
            real p = row_sum(rows, [&](int i) { return of_S[t * rows + i] * r.at(t, i); });
            if (threadIdx.x % 32) return;
            crossing.mix[end][t] -= into_M, crossing.into_S[t] = (first ? 0 : crossing.into_S[t]) - into_S;
            crossing.gamma[t] = (first ? 0 : crossing.gamma[t]) + gamma, crossing.p[t] = (first ? 0 : crossing.p[t]) + p;
        });
        real *ddelta = batch.own(G_DELTA, l), *dx = batch.own(G_X, l);
        multiply(tiles, [&](int t, int j, real sum) {
            int at = t * width + j;
            ddelta[at] = sum - gates.into_M[t] * to_M[at] - gates.into_S[t] * to_S[at];
        }, times(turned(batch.pairs(WEIGHTS, l)), g));
        multiply(tiles, [&](int t, int i, real sum) { dx[t * layer.features + i] = -sum; },
                 times(Scaled{gates.into_M, delta}, turned(batch.unbiased(to.M, l))),
                 times(Scaled{gates.into_S, batch.if_S(delta)}, turned(batch.unbiased(to.S, l))),
                 times(turned(batch.pairs(G_SCORES, 0)), Matrix{r.from, count, layer.features}));
        multiply(tiles, [&](int t, int i, real sum) {
            int at = t * layer.features + i;
            real dr = gates.gamma[t] * of_M[t * rows + i] + gates.p[t] * of_S[t * rows + i] - sum;
            if (l) batch.own(G, l - 1)[at] = dr * batch.own(TURN, l)[at];
            else dq[at] = batch.gamma ? dr + dy[at] : dr;
        }, times(batch.pairs(G_SCORES, 0), Matrix{x.from, count, layer.features}));
        if (batch.S)
            multiply(tiles, [&](int i, int j, real sum) {
                int at = layer.before + i * width + j;
                real M = to.M[at], S = to.S[at];
                S_to_M += M * batch.S[at], S_to_S += S * batch.S[at];
                to.S[at] = gates.p[end] * M + gates.h[end] * S + sum;
            }, times(turned(r), Scaled{gates.p, g}));
        multiply(tiles, [&](int i, int j, real sum) {
            int at = layer.before + i * width + j;
            M_to_M += to.M[at] * batch.M[at], to.M[at] = gates.gamma[end] * to.M[at] + sum;
        }, times(turned(r), Scaled{gates.gamma, g}));
    }
    M_to_M = warp_sum(M_to_M), S_to_M = warp_sum(S_to_M), S_to_S = warp_sum(S_to_S);
    if (threadIdx.x % 32 == 0) {
        int warp = threadIdx.x / 32;
        crossing.M_to_M[warp] = M_to_M, crossing.S_to_M[warp] = S_to_M, crossing.S_to_S[warp] = S_to_S;
    }
}

// What δ and x get goes on to the start, at which they were made, and to the keys and values.
__device__ inline void inner_model_backward(Tile (&tiles)[2], const Batch &batch, const Gates &gates, real *dW, real *dk, real *dv) {
    for (int l = 1; l < batch.depth; l++) {
        Layer layer = batch.layers[l];
        int width = layer.features;
        real *du = batch.own(G_U, l);
        along_rows(batch.count, [&](int t) {
            for (int j = threadIdx.x % 32; j < width; j += 32) {
                int at = t * width + j;
                real ddelta = batch.own(G_DELTA, l - 1)[at];
                du[at] = ddelta * batch.own(SLOPE, l)[at];
                batch.own(G_Z, l - 1)[at] = ddelta * batch.own(U, l)[at] * batch.own(CURVE, l)[at];
            }
        });
        Matrix du_matrix = {du, batch.count, width};
        multiply(tiles, [&](int t, int j, real sum) { batch.own(G_DELTA, l)[t * layer.columns + j] += sum; },
                 times(du_matrix, batch.unbiased(batch.W, l)));
        multiply(tiles, [&](int i, int j, real sum) { dW[layer.before + i * layer.columns + j] += sum; },
                 times(turned(du_matrix), batch.given(DELTA, l)));
    }
    along_rows(batch.count, [&](int t) { inner_loss_backward(batch, gates, dv, t); });
    for (int l = batch.depth - 1; l >= 0; l--) {
        Layer layer = batch.layers[l];
        multiply(tiles, [&](int i, int j, real sum) { dW[layer.before + i * layer.columns + j] += sum; },
                 times(turned(batch.x(l)), batch.given(G_Z, l)));
        multiply(tiles, [&](int t, int i, real sum) {
            int at = t * layer.features + i;
            real dx = batch.own(G_X, l)[at] + sum;
            if (l) batch.own(G_Z, l - 1)[at] += dx * batch.own(SLOPE, l)[at];
            else dk[at] = batch.gamma ? dx + batch.own(TO_K)[at] : dx;
        }, times(batch.given(G_Z, l), turned(batch.unbiased(batch.W, l))));
    }
}

// By the first warp, each lane a column of G and mix.
__device__ inline void gates_backward(const Batch &batch, const Gates &gates, const Crossing &crossing, real *dtheta, real *dlog_eta,
                              real *dlog_decay) {
    int lane = threadIdx.x, end = batch.count - 1;
    if (lane >= SIDE) return;
    if (!batch.S) {  // τ and η
        real to_rate = 0, rate = lane <= end ? batch.theta[lane] : 0;
        for (int t = 0; t <= end; t++) {
            real g = lane <= t ? crossing.mix[t][lane] : 0, to_tau = warp_sum(rate * g);
            to_rate = fma(batch.log_alpha[t], g, to_rate);
            if (lane == 0) dlog_decay[t] = to_tau;
        }
        if (lane <= end) dtheta[lane] = to_rate;
        return;
    }
    real to_gamma = 0, to_p = 0, to_h = 0, to_mix = 0, to_G = lane <= end ? crossing.into_S[lane] : 0;
    for (int warp = 0; warp < WARPS; warp++)
        to_gamma += crossing.M_to_M[warp], to_p += crossing.S_to_M[warp], to_h += crossing.S_to_S[warp];
    for (int t = end; t >= 0; t--) {
        real eta = exp(batch.log_eta[t]), alpha = exp(batch.log_alpha[t]);
        to_gamma += crossing.gamma[t], to_p += crossing.p[t], to_h += to_p;
        real to_alpha = to_gamma * (t ? gates.gamma[t - 1] : 1) + to_p * (t ? gates.p[t - 1] : 0);
        real to_eta = to_h * (t ? gates.h[t - 1] : 1);
        to_gamma *= alpha, to_p *= alpha, to_h *= eta;
        if (lane <= t) to_mix += crossing.mix[t][lane], to_G += to_mix;
        if (lane == t) dtheta[t] = to_G;
        to_alpha += warp_sum(lane < t ? to_mix * gates.mix[t - 1][lane] : 0);
        to_eta += warp_sum(lane < t ? to_G * gates.surprise[t - 1][lane] : 0);
        to_mix *= alpha, to_G *= eta;
        if (lane == 0) dlog_eta[t] = to_eta * eta, dlog_decay[t] = to_alpha * alpha;
    }
}

// dW, dM, dS (batch, entries): at first of what came out, at last of what went in. passing
// (batch, segment − 1, parts, entries): M and S between two that are kept.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_layers_backward(const real *q, const real *k, const real *v, const real *theta, const real *log_eta,
                       const real *log_alpha, const real *start, const real *norm, const Layer *layers, const real *kept,
                       real *passing, const real *dy, real *dW, real *dM, real *dS, real *dq, real *dk, real *dv,
                       real *dtheta, real *dlog_eta, real *dlog_decay, real *dnorm, real *room, int length, int left, int size,
                       int depth, int entries, int widest, int segment, int parts,
                       int normed) {
    __shared__ Tile tiles[2];
    __shared__ Gates gates;
    __shared__ Crossing crossing;
    __shared__ Batch batch;
    int batches = 1 + (length > left ? (length - left + size - 1) / size : 0);
    int keys = layers[0].features, values = layers[depth - 1].columns;
    long long sequence = blockIdx.x, from = sequence * length, model = (long long)parts * entries;
    kept += sequence * ((batches + segment - 1) / segment) * model, passing += sequence * (segment - 1) * model;
    start += sequence * entries, room += sequence * depth * FIELDS * SIDE * widest;
    dnorm += normed ? sequence * 2 * values : 0;
    Cotangents to = {dW + sequence * entries, dM + sequence * entries, dS + sequence * entries};
    const real *gamma = normed ? norm + sequence * 2 * values : nullptr, *beta = normed ? gamma + values : nullptr;

    for (int piece = (batches - 1) / segment; piece >= 0; piece--) {
        int begin = piece * segment, end = min(begin + segment, batches);
        for (int step = begin; step < 2 * end - begin - 1; step++) {  // there, but for the last batch, and back
            bool back = step >= end - 1;
            int i = back ? 2 * end - 2 - step : step;
            int first = i ? left + (i - 1) * size : 0, count = min(left + i * size, length) - first;
            long long at = from + first;
            const real *now = i == begin ? kept + piece * model : passing + (i - begin - 1) * model;
            real *next = passing + (i - begin) * model;
            __syncthreads();  // the batch before is done with
            if (threadIdx.x == 0)
                batch = {layers, depth, widest, count, q + at * keys, k + at * keys, v + at * values, theta + at,
                           log_eta + at, log_alpha + at, gamma, beta, i ? now : start, now,
                           parts > 1 ? now + entries : nullptr, room};
            __syncthreads();
            fill(gates, batch);
            inner_model(tiles, batch, gates, [](int, real) {});
            if (!back) {
                write(tiles, batch, gates, next, next + entries);
                continue;
            }
            read(tiles, batch, gates);
            along_rows(count, [&](int t) { read_backward(batch, dy + at * values, t); });
            update_backward(tiles, batch, gates, crossing, to, dy + at * values, dq + at * keys);
            inner_model_backward(tiles, batch, gates, to.W, dk + at * keys, dv + at * values);
            gates_backward(batch, gates, crossing, dtheta + at, dlog_eta + at, dlog_decay + at);
            // all rows and sums were made before the last product
            for (int j = threadIdx.x; normed && j < 2 * values; j += THREADS) {
                const real *rows = j < values ? batch.own(OF_GAMMA) + j : batch.own(OF_BETA) + j - values;
                for (int t = 0; t < count; t++) dnorm[j] += rows[t * values];
            }
            if (i)  // the batch began with its own M
                for (int j = threadIdx.x; j < entries; j += THREADS) to.M[j] += to.W[j], to.W[j] = 0;
        }
    }
}
