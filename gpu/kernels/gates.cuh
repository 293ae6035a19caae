// Decays within a chunk of 32 tokens: since its start, until its end, and between two tokens.
#pragma once
#include "product.cuh"

// Load α, 1 outside. `gates` is K, or 1 for one decay for all channels.
template <int PITCH>
__device__ inline void load_gate_tile(real (&square)[SIDE][PITCH], const real *from, int first, int column, int length,
                                      int keys, int gates, bool reverse) {
    for (int row = threadIdx.x / SIDE; row < SIDE; row += WARPS) {
        int t = first + row, c = column + threadIdx.x % SIDE;
        bool inside = 0 <= t && t < length && c < keys;
        long long at = (long long)(reverse ? length - 1 - t : t) * gates + (gates > 1 ? c : 0);
        square[row][threadIdx.x % SIDE] = inside ? exp(from[at]) : 1;
    }
}

struct Gates {  // one per token; 0 outside for logs
    real logs[SIDE], beta[SIDE];
    real gamma[SIDE], omega[SIDE];  // decay since the start of the chunk, and until its end
};

// Load the gates and compute their products. In reverse a token has the gate of its successor.
__device__ inline void load_gates(Gates &gates, const real *g, const real *beta, int first, int length, bool reverse) {
    int i = threadIdx.x, t = first + i, before = t - reverse;
    if (i >= SIDE) return;
    real log = 0 <= before && t < length ? g[reverse ? length - 1 - before : t] : 0, prefix = log, suffix = log;
    for (int by = 1; by < SIDE; by *= 2) {  // both are sums: a difference of sums would be −∞ − (−∞)
        real earlier = shfl_up(prefix, by), later = shfl_down(suffix, by);
        if (i >= by) prefix += earlier;
        if (i + by < SIDE) suffix += later;
    }
    suffix = shfl_down(suffix, 1);
    gates.logs[i] = log, gates.gamma[i] = exp(prefix), gates.omega[i] = i < SIDE - 1 ? exp(suffix) : 1;
    gates.beta[i] = t < length ? beta[reverse ? length - 1 - t : t] : 0;
}

// Compute Γ[t, s] for the rows t and the column s of this thread; 1 for s > t.
__device__ inline void chunk_decays(const real (&logs)[SIDE], real (&prefix)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        real sum = 0;
        for (int t = Accumulator::column(r) + 1; t <= Accumulator::row(r); t++) sum += logs[t];
        prefix[r] = exp(sum);
    }
}
