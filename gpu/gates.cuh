// One gate a token: what decays leave within a chunk of 32 tokens, and since it began.
#pragma once
#include "tiles.cuh"

struct Gates {  // of a chunk's tokens; outside, logs are 0
    real logs[SIDE], alpha[SIDE], beta[SIDE];
};

// In the other direction (`back`) a token has the gate of the one after it.
__device__ inline void fill(Gates &gates, const real *g, const real *beta, int first, int length, bool back) {
    int i = threadIdx.x, t = first + i, before = t - back;
    if (i >= SIDE) return;
    gates.logs[i] = 0 <= before && t < length ? g[back ? length - 1 - before : t] : 0;
    gates.alpha[i] = exp(gates.logs[i]);
    gates.beta[i] = t < length ? beta[back ? length - 1 - t : t] : 0;
}

// Γ: what is left at this warp's tokens of what token `lane` wrote (1 if that comes later), and γ, of what was before all.
__device__ inline void fade(const real (&logs)[SIDE], real (&since)[ROWS], real (&gamma)[ROWS]) {
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS;
    real after = 0, all = 0;
    for (int t = 0; t < mine; t++) all += logs[t], after += t > lane ? logs[t] : 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        all += logs[mine + r], after += mine + r > lane ? logs[mine + r] : 0;
        since[r] = exp(after), gamma[r] = exp(all);
    }
}
