// One batch of tokens of a Titans memory with any number of layers, as the forward and the backward kernel compute it.
//
//     Gₜₛ = ηₜ Gₜ₋₁ₛ, Gₜₜ = θₜ       mixₜₛ = αₜ mixₜ₋₁ₛ + Gₜₛ       weights of the gradient at token s in S and M at t
//     hₜ = ηₜ hₜ₋₁,  pₜ = αₜ pₜ₋₁ + hₜ,  γₜ = αₜ γₜ₋₁                     weights of S and M at the start of the batch
//     zₗ = xₗ Wₗ,  xₗ₊₁ = gelu zₗ          δ_L = z_L − v,  δₗ = uₗ ∘ gelu′ zₗ,  uₗ = δₗ₊₁ Wₗ₊₁ᵀ          from x₁ = k
//     yₗ = γ rₗ Mₗ + p rₗ Sₗ − (mix ∘ rₗ xₗᵀ) δₗ,  rₗ₊₁ = gelu yₗ                                   from r₁ = q
//     M′ = γ_C M + p_C S − (mix_C ∘ x)ᵀ δ          S′ = h_C S − (G_C ∘ x)ᵀ δ
//
// Inside a norm, ẑ = (z − mean z) / √(var z + ε), the output is q + γ ∘ ẑ + β, and, with e = k + γ ∘ ẑ + β − v,
// δ_L = (g − mean g − ẑ mean(g ẑ)) / √(var z + ε) for g = γ ∘ e.
//
// Test-time training (Sun et al. 2024, eq. 4–8) is the same without S and decay, and with mixₜₛ = τₜ ηₛ.
#pragma once
#include "matrices.cuh"

struct Layer {  // titans_layers.py reads the fields here
    int features, bias, columns;  // of its input; 1 if it has a bias; of its output
    int before;                   // entries of all previous layers
};

// Matrices of a batch in the workspace, for each layer: 32 rows at most, which stay in the L2 cache.
enum Field {
    X, SLOPE, CURVE, U,     // input of a layer, gelu′ and gelu″ there, and u
    DELTA,                  // δ: gradient with respect to its output
    R, READ_SLOPE,          // input of the layer when it is read, and gelu′ there
    SCORES, WEIGHTS,        // r xᵀ, and −mix of it
    Z, UNIT, ERROR, READ,   // of the last layer: z, ẑ and e, and the output
    DY, D_DELTA, D_X, D_Z, D_U, D_SCORES,           // backward: cotangents of y, δ, x, z, u and r xᵀ
    X_DM, X_DS, DY_M, DY_S,                         // products x dM, x dS, dy Mᵀ and dy Sᵀ
    D_GAMMA, D_BETA,                                // cotangents of the norm's parameters, per token
    DK_RESIDUAL,                                    // cotangent of k through the residual connection of the norm
    FIELDS
};

struct Gates {
    Tile mix, surprise;  // surprise is G
    real gamma[SIDE], p[SIDE], h[SIDE];
    real into_M[SIDE], into_S[SIDE];  // the last rows of mix and G
    real root[SIDE];                  // √(var z + ε)
};

struct Batch {
    const Layer *layers;
    int depth, widest, count;  // layers; columns of the widest; tokens
    bool norm;                 // around the model
    bool momentum;             // S: Titans, and not test-time training
    const real *q, *k, *v;
    const real *theta, *log_eta, *log_alpha;  // without momentum θ is test-time training's η, and the others are unused
    const real *tau;                          // without momentum
    const real *gamma, *beta;  // of the norm
    const real *W, *M, *S;
    real *workspace;

    __device__ real *buffer(Field field, int layer = 0) const {
        return workspace + (layer * FIELDS + field) * (long long)SIDE * widest;
    }
    __device__ Layer last() const { return layers[depth - 1]; }
    __device__ Matrix inputs(Field field, const real *first, int l) const {
        return {l ? buffer(field, l) : first, count, layers[l].features, layers[l].bias};
    }
    __device__ Matrix x(int l) const { return inputs(X, k, l); }
    __device__ Matrix r(int l) const { return inputs(R, q, l); }
    __device__ Matrix outputs(Field field, int l) const { return {buffer(field, l), count, layers[l].columns}; }
    __device__ Matrix token_pairs(Field field, int l) const { return {buffer(field, l), count, count}; }
    __device__ Matrix if_momentum(Matrix left) const {  // otherwise a factor without columns, whose product is 0
        return momentum ? left : Matrix{left.from, left.height, 0};
    }
    __device__ Matrix layer(const real *of, int l) const {
        return {of + layers[l].before, layers[l].features + layers[l].bias, layers[l].columns};
    }
    __device__ Matrix unbiased(const real *of, int l) const {
        return {of + layers[l].before, layers[l].features, layers[l].columns};
    }
};

struct Gelu {
    real value, slope, curve;
};

// The tanh GELU of Hendrycks and Gimpel 2016 with its first two derivatives:
//
//     gelu x = x s,  s = ½ (1 + tanh p) = 1 / (1 + e),  e = exp(−2 p),  p = √(2/π) (x + 0.044715 x³)
//     gelu′ x = s + x s′,  s′ = 2 p′ s (s e)
//     gelu″ x = 2 s′ + x s″,  s″ = 2 p″ s (s e) + 4 p′² s (s e) (s e − s)
__device__ inline Gelu gelu(real x) {
    const real root = 0.79788456080286535588, cubic = 0.044715;
    real squares = cubic * x * x, exponent = -2 * root * x * (1 + squares);
    real e = exp(exponent < 83 ? exponent : 83);  // s e is not 0 · ∞
    real s = 1 / (1 + e), spread = s * (s * e), rate = 2 * root * (1 + 3 * squares);
    real curvature = 12 * root * cubic * x + rate * rate * (s * e - s);
    return {x * s, s + x * rate * spread, spread * (2 * rate + x * curvature)};
}

// Compute the gates, by the first warp: a lane has a column of mix and G.
__device__ inline void compute_gates(Gates &gates, const Batch &batch) {
    int lane = threadIdx.x;
    if (lane >= SIDE) return;
    real mix_t = 0, G_t = 0, gamma = 1, p = 0, h = 1;
    for (int t = 0; t < batch.count && !batch.momentum; t++) {
        gates.mix[t][lane] = mix_t = lane <= t ? batch.tau[t] * batch.theta[lane] : 0;
        if (lane == 0) gates.gamma[t] = 1, gates.p[t] = 0;  // and G is 0
    }
    for (int t = 0; t < batch.count && batch.momentum; t++) {
        real eta = exp(batch.log_eta[t]), alpha = exp(batch.log_alpha[t]);
        gamma *= alpha, h *= eta, p = fma(alpha, p, h);
        G_t = lane == t ? batch.theta[t] : eta * G_t, mix_t = fma(alpha, mix_t, G_t);
        gates.surprise[t][lane] = G_t, gates.mix[t][lane] = mix_t;
        if (lane == 0) gates.gamma[t] = gamma, gates.p[t] = p, gates.h[t] = h;
    }
    gates.into_S[lane] = G_t, gates.into_M[lane] = mix_t;
}

// Compute ẑ of a row by a warp; return √(var z + ε).
__device__ inline real standardise(const real *z, real *unit, int width) {
    real mean = row_sum(width, [&](int j) { return z[j]; }) / width;
    real spread = row_sum(width, [&](int j) { return (z[j] - mean) * (z[j] - mean); }) / width;
    real root = sqrt(spread + real(1e-6));
    for (int j = threadIdx.x % 32; j < width; j += 32) unit[j] = (z[j] - mean) / root;
    return root;
}

// P(g) = g − mean g − ẑ mean(g ẑ) of a row.
struct Projected {
    real mean, along;
    __device__ real operator()(real g, real unit) const { return g - mean - unit * along; }
};
template <class Value> __device__ inline Projected projected(int width, const real *unit, Value g) {
    return {row_sum(width, g) / width, row_sum(width, [&](int j) { return g(j) * unit[j]; }) / width};
}

// Compute e and δ_L of row t from z; return Σ e².
__device__ inline real inner_loss_grad(const Batch &batch, Gates &gates, int t) {
    int lane = threadIdx.x % 32, width = batch.last().columns, row = t * width;
    const real *z = batch.buffer(Z) + row, *v = batch.v + row, *k = batch.k + row, *gamma = batch.gamma;
    real *error = batch.buffer(ERROR) + row, *unit = batch.buffer(UNIT) + row;
    real *delta = batch.buffer(DELTA, batch.depth - 1) + row;
    real root = batch.norm ? standardise(z, unit, width) : 1;
    if (lane == 0) gates.root[t] = root;
    for (int j = lane; j < width; j += 32)
        error[j] = batch.norm ? k[j] + gamma[j] * unit[j] + batch.beta[j] - v[j] : z[j] - v[j];
    if (batch.norm) {
        Projected onto = projected(width, unit, [&](int j) { return gamma[j] * error[j]; });
        for (int j = lane; j < width; j += 32) delta[j] = onto(gamma[j] * error[j], unit[j]) / root;
    } else {
        for (int j = lane; j < width; j += 32) delta[j] = error[j];
    }
    return row_sum(width, [&](int j) { return error[j] * error[j]; });
}

// Forward and backward of the inner model at W; on_loss(t, Σ e²) is called with the inner loss of every token.
template <class OnLoss>
__device__ inline void inner_model(Tile (&tiles)[2], const Batch &batch, Gates &gates, OnLoss on_loss) {
    for (int l = 0; l < batch.depth; l++) {
        int width = batch.layers[l].columns;
        bool inner = l + 1 < batch.depth;
        real *x = inner ? batch.buffer(X, l + 1) : batch.buffer(Z), *slope = batch.buffer(SLOPE, l + 1);
        real *curve = batch.buffer(CURVE, l + 1);
        multiply(tiles, [&](int t, int j, real z) {
            Gelu activation = inner ? gelu(z) : Gelu{z};
            x[t * width + j] = activation.value;
            if (inner) slope[t * width + j] = activation.slope, curve[t * width + j] = activation.curve;
        }, times(batch.x(l), batch.layer(batch.W, l)));
    }
    along_rows(batch.count, [&](int t) { on_loss(t, inner_loss_grad(batch, gates, t)); });
    for (int l = batch.depth - 1; l; l--) {
        int width = batch.layers[l].features;
        real *u = batch.buffer(U, l), *slope = batch.buffer(SLOPE, l), *delta = batch.buffer(DELTA, l - 1);
        multiply(tiles, [&](int t, int j, real sum) {
            u[t * width + j] = sum, delta[t * width + j] = sum * slope[t * width + j];
        }, times(batch.outputs(DELTA, l), transposed(batch.unbiased(batch.W, l))));
    }
}

// The outputs of the memory at every token.
__device__ inline void read(Tile (&tiles)[2], const Batch &batch, const Gates &gates) {
    for (int l = 0; l < batch.depth; l++) {
        int width = batch.layers[l].columns;
        bool inner = l + 1 < batch.depth;
        real *scores = batch.buffer(SCORES, l), *weights = batch.buffer(WEIGHTS, l);
        multiply(tiles, [&](int t, int s, real score) {
            scores[t * batch.count + s] = score, weights[t * batch.count + s] = -gates.mix[t][s] * score;
        }, times(batch.r(l), transposed(batch.x(l))));
        real *r = inner ? batch.buffer(R, l + 1) : batch.buffer(READ), *read_slope = batch.buffer(READ_SLOPE, l + 1);
        multiply(tiles, [&](int t, int j, real y) {
            Gelu activation = inner ? gelu(y) : Gelu{y};
            r[t * width + j] = activation.value;
            if (inner) read_slope[t * width + j] = activation.slope;
        }, times(Scaled{gates.gamma, batch.r(l)}, batch.layer(batch.M, l)),
           times(Scaled{gates.p, batch.if_momentum(batch.r(l))}, batch.layer(batch.S, l)),
           times(batch.token_pairs(WEIGHTS, l), batch.outputs(DELTA, l)));
    }
}

// M and S after the batch.
__device__ inline void write(Tile (&tiles)[2], const Batch &batch, const Gates &gates, real *next_M, real *next_S) {
    int end = batch.count - 1;
    for (int l = 0; l < batch.depth; l++) {
        Layer layer = batch.layers[l];
        multiply(tiles, [&](int i, int j, real sum) {
            int at = layer.before + i * layer.columns + j;
            next_M[at] = gates.gamma[end] * batch.M[at] + (batch.momentum ? gates.p[end] * batch.S[at] : 0) - sum;
        }, times(transposed(Scaled{gates.into_M, batch.x(l)}), batch.outputs(DELTA, l)));
        if (!batch.momentum) continue;
        multiply(tiles, [&](int i, int j, real sum) {
            int at = layer.before + i * layer.columns + j;
            next_S[at] = gates.h[end] * batch.S[at] - sum;
        }, times(transposed(Scaled{gates.into_S, batch.x(l)}), batch.outputs(DELTA, l)));
    }
}
