// Gates of a chunk of 32 tokens: what decays leave within it, since it began and until it ends.
#pragma once
#include "product.cuh"

// α; 1 outside. `gates` is K, or 1 where one number stands for all channels.
template <int PITCH>
__device__ inline void fill_gates(real (&square)[SIDE][PITCH], const real *from, int first, int column, int length,
                                  int keys, int gates, bool back) {
    for (int row = threadIdx.x / SIDE; row < SIDE; row += WARPS) {
        int t = first + row, c = column + threadIdx.x % SIDE;
        bool inside = 0 <= t && t < length && c < keys;
        long long at = (long long)(back ? length - 1 - t : t) * gates + (gates > 1 ? c : 0);
        square[row][threadIdx.x % SIDE] = inside ? exp(from[at]) : 1;
    }
}

struct Gates {  // one a token; outside, logs are 0
    real logs[SIDE], beta[SIDE];
    real gamma[SIDE], omega[SIDE];  // what is left at a token of what was before all, and at the end of what it wrote
};

// In the other direction (`back`) a token has the gate of the one after it.
__device__ inline void fill(Gates &gates, const real *g, const real *beta, int first, int length, bool back) {
    int i = threadIdx.x, t = first + i, before = t - back;
    if (i >= SIDE) return;
    real log = 0 <= before && t < length ? g[back ? length - 1 - before : t] : 0, since = log, after = log;
    for (int by = 1; by < SIDE; by *= 2) {  // both are sums of logs: a difference of sums would be −∞ − (−∞)
        real earlier = shfl_up(since, by), later = from_later(after, by);
        if (i >= by) since += earlier;
        if (i + by < SIDE) after += later;
    }
    after = from_later(after, 1);
    gates.logs[i] = log, gates.gamma[i] = exp(since), gates.omega[i] = i < SIDE - 1 ? exp(after) : 1;
    gates.beta[i] = t < length ? beta[back ? length - 1 - t : t] : 0;
}

// Γ: what is left at each of this thread's rows, a token, of what its column, another, wrote; 1 if that comes later.
__device__ inline void fade(const real (&logs)[SIDE], real (&since)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        real sum = 0;
        for (int t = Own::column(r) + 1; t <= Own::row(r); t++) sum += logs[t];
        since[r] = exp(sum);
    }
}
