// Gates of a chunk of 32 tokens: what decays leave within it, since it began and until it ends.
#pragma once
#include "product.cuh"

// α; 1 outside. `gates` is K, or 1 where one number stands for all channels.
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

struct Gates {  // one a token; outside, logs are 0
    real logs[SIDE], beta[SIDE];
    real gamma[SIDE], omega[SIDE];  // what is left at a token of what was before all, and at the end of what it wrote
};

// In the other direction (`back`) a token has the gate of the one after it.
__device__ inline void load_gates(Gates &gates, const real *g, const real *beta, int first, int length, bool reverse) {
    int i = threadIdx.x, t = first + i, before = t - reverse;
    if (i >= SIDE) return;
    real log = 0 <= before && t < length ? g[reverse ? length - 1 - before : t] : 0, prefix = log, suffix = log;
    for (int by = 1; by < SIDE; by *= 2) {  // both are sums of logs: a difference of sums would be −∞ − (−∞)
        real earlier = shfl_up(prefix, by), later = shfl_down(suffix, by);
        if (i >= by) prefix += earlier;
        if (i + by < SIDE) suffix += later;
    }
    suffix = shfl_down(suffix, 1);
    gates.logs[i] = log, gates.gamma[i] = exp(prefix), gates.omega[i] = i < SIDE - 1 ? exp(suffix) : 1;
    gates.beta[i] = t < length ? beta[reverse ? length - 1 - t : t] : 0;
}

// Γ: what is left at each of this thread's rows, a token, of what its column, another, wrote; 1 if that comes later.
__device__ inline void chunk_decays(const real (&logs)[SIDE], real (&prefix)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        real sum = 0;
        for (int t = Accumulator::column(r) + 1; t <= Accumulator::row(r); t++) sum += logs[t];
        prefix[r] = exp(sum);
    }
}
