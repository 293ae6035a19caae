// The selective scan and its adjoint: discretisation, scan and read in one kernel each way.
//
//     hₜ = exp(Δₜ A) ⊙ hₜ₋₁ + Δₜ uₜ Bₜ          yₜ = Cₜ hₜ + D uₜ          Gu and Dao 2023 (Mamba), eq. 2, 4
//
// backward, with dhₜ the cotangent of hₜ and cₜ what it passes to the token before:
//
//     dhₜ = dyₜ Cₜ + cₜ₊₁          cₜ = exp(Δₜ A) ⊙ dhₜ          q = cₜ ⊙ hₜ₋₁          r = Σₙ dhₜₙ Bₜₙ
//     duₜ = Δₜ r + D dyₜ           dΔₜ = Σₙ qₙ Aₙ + uₜ r
//     dA = Σₜ Δₜ q                dBₜ = Σ_d Δₜ uₜ dhₜ            dCₜ = Σ_d dyₜ hₜ           dD = Σₜ dyₜ uₜ
//
// u, delta, y are (batch, T, D), A (D, N), B, C (batch, T, N), the state (batch, D, N).
//
// A block owns CHANNELS neighbouring channels of one sequence, and walks along time, token after token.
// A thread owns OWN states of one channel, in registers. LANES threads next to each other share a channel, and add by
//         shuffles what its states give to y, du and dΔ: for N = 16 they are 4, of 4 states each.
// B and C of a tile of tokens lie in shared memory, where all channels read them. Each thread reads u and Δ itself, the
//         next STEPS tokens' before it works on the present ones.
// Backward takes the tiles from the last to the first, each from the state that forward kept at its start: it walks
//         through once and marks the state at every STEPS-th token, and then takes these parts from the last to the
//         first, with a part's states and decays in registers. What dB and dC get from its channels a block adds in
//         shared memory, in their order, and leaves one sum.
//
// Bytes   forward reads u, Δ, writes y: 12 a token and channel (float32), and 1/TILE of the states; for CHANNELS of
//         them B and C are read again, 2 N. Backward reads u, Δ, dy, writes du, dΔ: 20; for CHANNELS it reads 2 N and
//         writes 2 N, which the caller reads once more.
// Work    a token, channel and state: forward an exponential and 6 operations, backward two exponentials and 22. For
//         N = 16 the compiler makes 11 instructions of them forward and 34 backward (sm_90).
// Floor   at N = 16, forward 16 exponentials for 12 bytes: a multiprocessor makes 16 a clock, and in that clock the
//         memory of a device with 3.3 TB/s, 132 of them at 1.8 GHz brings each 14 bytes: exponentials decide, where
//         sequences and channels are enough to fill it: 132 · 12 warps of 8 channels each.
#include "common.cuh"

#ifndef STATES
#define STATES 16  // N rounded up to a power of 2, at least 4: -DSTATES=64
#endif

constexpr int OWN = STATES > 128 ? STATES / 32 : 4, LANES = STATES / OWN;
constexpr int THREADS = 512 / sizeof(real), CHANNELS = THREADS / LANES;
constexpr int STEPS = 32 / sizeof(real), TILE = 256 / sizeof(real);
constexpr real LOG2E = real(1.4426950408889634), LN2 = real(0.6931471805599453);

struct __align__(16) Own {  // a number for each of a thread's states
    real of[OWN];
};
typedef Own Rows[TILE][LANES];  // B or C of a tile

#ifdef __CUDACC__
// One instruction where exp2 takes four, to be right below 2⁻¹²⁶: there this gives 0.
__device__ inline float power_of_2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
#else
__device__ inline float power_of_2(float x) { return exp2(x); }
#endif
__device__ inline double power_of_2(double x) { return exp2(x); }

// Where a thread is.
struct Place {
    int sequence, d, lane;
    bool inside;
};
__device__ inline Place place(int channels) {
    int slabs = (channels + CHANNELS - 1) / CHANNELS, d = blockIdx.x % slabs * CHANNELS + threadIdx.x / LANES;
    return {int(blockIdx.x / slabs), d, int(threadIdx.x % LANES), d < channels};
}

// This thread's states of `row`, one of an array (…, D, N); 0 outside.
__device__ inline Own take(const real *from, long long row, int states, const Place &at) {
    Own own;
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        int n = at.lane * OWN + k;
        own.of[k] = at.inside && n < states ? from[row * states + n] : 0;
    }
    return own;
}

// A log₂ e, for powers of 2.
__device__ inline Own take_rates(const real *A, const Place &at, int states) {
    Own rates = take(A, at.d, states, at);
#pragma unroll
    for (int k = 0; k < OWN; k++) rates.of[k] *= LOG2E;
    return rates;
}

__device__ inline void give(real *to, long long row, int states, const Place &at, const Own &own) {
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        int n = at.lane * OWN + k;
        if (at.inside && n < states) to[row * states + n] = own.of[k];
    }
}

// A channel's numbers of the next STEPS tokens, of which so many are there; 0 outside. Mostly all are: then an address
// is one addition, and a load has no condition.
__device__ inline void take(real (&own)[STEPS], const real *from, int tokens, long long channels) {
    if (tokens >= STEPS)
#pragma unroll
        for (int i = 0; i < STEPS; i++) own[i] = from[i * channels];
    else
#pragma unroll
        for (int i = 0; i < STEPS; i++) own[i] = i < tokens ? from[i * channels] : 0;
}

// Rows of an array (…, T, N), of which so many are there; 0 outside.
__device__ inline void fill(Rows &rows, const real *from, int tokens, int states) {
#pragma unroll 8
    for (int i = 0; i < TILE * STATES / THREADS; i++) {
        int t = (threadIdx.x + i * THREADS) / STATES, n = (threadIdx.x + i * THREADS) % STATES;
        rows[t][n / OWN].of[n % OWN] = t < tokens && n < states ? from[t * states + n] : 0;
    }
}

// One token: h ← a ⊙ h + Δ u B with a = exp(Δ A).
__device__ inline void advance(Own &h, Own &a, const Own &rates, const Own &b, real delta, real u) {
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        a.of[k] = power_of_2(delta * rates.of[k]);
        h.of[k] = fma(a.of[k], h.of[k], delta * u * b.of[k]);
    }
}

// The sums over a channel's threads, in all of them.
__device__ inline void add_up(real (&own)[STEPS]) {
#pragma unroll
    for (int by = 1; by < LANES; by *= 2)
#pragma unroll
        for (int i = 0; i < STEPS; i++) own[i] += shfl_xor(own[i], by);
}

// A channel's numbers of STEPS tokens, which all its threads have; each writes every LANES-th.
__device__ inline void give(real *to, int tokens, int channels, int own_lane, const real (&own)[STEPS]) {
#pragma unroll
    for (int i = 0; i < STEPS; i += LANES) {
        real mine = own[i];
#pragma unroll
        for (int lane = 1; lane < LANES && i + lane < STEPS; lane++) mine = lane == own_lane ? own[i + lane] : mine;
        int t = i + own_lane;
        if (t < STEPS && t < tokens) to[t * channels] = mine;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
selective_scan_forward(const real *__restrict__ u, const real *__restrict__ delta, const real *__restrict__ A,
                       const real *__restrict__ B, const real *__restrict__ C, const real *__restrict__ skip,
                       const real *__restrict__ h, real *__restrict__ y, real *__restrict__ last, real *__restrict__ kept,
                       int length, int channels, int states) {
    DYNAMIC_SHARED(Rows, shared);  // of B and of C
    Rows &enters = shared[0], &reads = shared[1];
    Place at = place(channels);
    long long first = (long long)at.sequence * length, row = (long long)at.sequence * channels + at.d;
    Own rates = take_rates(A, at, states), state = take(h, row, states, at), decays;
    real own_skip = at.inside ? skip[at.d] : 0, x[STEPS], step[STEPS], next_x[STEPS], next_step[STEPS];
    const real *from_u = u + first * channels + at.d, *from_delta = delta + first * channels + at.d;
    int tokens = at.inside ? length : 0, tiles = (length + TILE - 1) / TILE;
    take(next_x, from_u, tokens, channels), take(next_step, from_delta, tokens, channels);

    for (int t = 0; t < length; t += STEPS) {
        if (t % TILE == 0) {
            __syncthreads();
            fill(enters, B + (first + t) * states, length - t, states);
            fill(reads, C + (first + t) * states, length - t, states);
            __syncthreads();
            give(kept, ((long long)at.sequence * tiles + t / TILE) * channels + at.d, states, at, state);
        }
#pragma unroll
        for (int i = 0; i < STEPS; i++) x[i] = next_x[i], step[i] = next_step[i];
        from_u += (long long)STEPS * channels, from_delta += (long long)STEPS * channels;
        take(next_x, from_u, tokens - t - STEPS, channels), take(next_step, from_delta, tokens - t - STEPS, channels);
        real out[STEPS];
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            Own b = enters[t % TILE + i][at.lane], c = reads[t % TILE + i][at.lane];
            advance(state, decays, rates, b, step[i], x[i]);
            out[i] = 0;
#pragma unroll
            for (int k = 0; k < OWN; k++) out[i] = fma(c.of[k], state.of[k], out[i]);
        }
        add_up(out);
#pragma unroll
        for (int i = 0; i < STEPS; i++) out[i] = fma(own_skip, x[i], out[i]);
        give(y + (first + t) * channels + at.d, tokens - t, channels, at.lane, out);
    }
    give(last, row, states, at, state);  // tokens past the end have Δ = 0, and pass it on
}

struct Shared {  // of a block backward
    Rows enters, reads;
    Own marks[TILE / STEPS][THREADS];
    Own to_B[STEPS][CHANNELS + 1][LANES], to_C[STEPS][CHANNELS + 1][LANES];  // a gap, for lanes to meet different banks
};

// dA (batch, D, N), dB and dC (slabs, batch, T, N), dskip (batch, D): sums over batch and slabs are left to the caller.
extern "C" __global__ void __launch_bounds__(THREADS, OWN > 4 ? 1 : 3)
selective_scan_backward(const real *__restrict__ u, const real *__restrict__ delta, const real *__restrict__ A,
                        const real *__restrict__ B, const real *__restrict__ C, const real *__restrict__ skip,
                        const real *__restrict__ kept, const real *__restrict__ dy, const real *__restrict__ dlast,
                        real *__restrict__ du, real *__restrict__ ddelta, real *__restrict__ dA, real *__restrict__ dB,
                        real *__restrict__ dC, real *__restrict__ dskip, real *__restrict__ dh,
                        int length, int channels, int states) {
    DYNAMIC_SHARED(Shared, memory);
    Shared &shared = *memory;
    Place at = place(channels);
    int first = at.sequence * length, row = at.sequence * channels + at.d;  // there are less than 2³¹ tokens
    int slabs = (channels + CHANNELS - 1) / CHANNELS, slab = blockIdx.x % slabs, tiles = (length + TILE - 1) / TILE;
    int sums = (slab * (gridDim.x / slabs) + at.sequence) * length;
    Own rates = take_rates(A, at, states), passed = take(dlast, row, states, at), to_A = {};
    real own_skip = at.inside ? skip[at.d] : 0, to_skip = 0, x[STEPS], step[STEPS], g[STEPS];
    int tokens = at.inside ? length : 0;

    for (int from = (tiles - 1) * TILE; from >= 0; from -= TILE) {
        int t = from;
        fill(shared.enters, B + (long long)(first + from) * states, length - from, states);
        fill(shared.reads, C + (long long)(first + from) * states, length - from, states);
        __syncthreads();
        Own state = take(kept, ((long long)at.sequence * tiles + from / TILE) * channels + at.d, states, at);
        for (;; t += STEPS) {  // through the tile once, to mark its states
            long long place = (long long)(first + t) * channels + at.d;
            take(x, u + place, tokens - t, channels), take(step, delta + place, tokens - t, channels);
            shared.marks[(t - from) / STEPS][threadIdx.x] = state;
            if (t + STEPS >= min(length, from + TILE)) break;
            Own unused;
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                advance(state, unused, rates, shared.enters[t - from + i][at.lane], step[i], x[i]);
        }
        take(g, dy + (long long)(first + t) * channels + at.d, tokens - t, channels);

        for (; t >= from; t -= STEPS) {  // through each part and back
            state = shared.marks[(t - from) / STEPS][threadIdx.x];
            Own decays[STEPS], h[STEPS];
            real by_entry[STEPS], by_rate[STEPS];
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                h[i] = state;
                advance(state, decays[i], rates, shared.enters[t - from + i][at.lane], step[i], x[i]);
                Own to_C;
#pragma unroll
                for (int k = 0; k < OWN; k++) to_C.of[k] = g[i] * state.of[k];
                shared.to_C[i][threadIdx.x / LANES][at.lane] = to_C;
            }
#pragma unroll
            for (int i = STEPS - 1; i >= 0; i--) {
                Own b = shared.enters[t - from + i][at.lane], c = shared.reads[t - from + i][at.lane];
                Own to_B;
                by_entry[i] = by_rate[i] = 0;
#pragma unroll
                for (int k = 0; k < OWN; k++) {
                    real dh_state = fma(g[i], c.of[k], passed.of[k]);
                    passed.of[k] = decays[i].of[k] * dh_state;
                    real q = passed.of[k] * h[i].of[k];
                    to_A.of[k] = fma(q, step[i], to_A.of[k]);
                    by_rate[i] = fma(q, rates.of[k], by_rate[i]);
                    by_entry[i] = fma(dh_state, b.of[k], by_entry[i]);
                    to_B.of[k] = dh_state * (step[i] * x[i]);
                }
                shared.to_B[i][threadIdx.x / LANES][at.lane] = to_B;
            }
            add_up(by_entry), add_up(by_rate);
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                to_skip = fma(g[i], x[i], to_skip);
                by_rate[i] = fma(x[i], by_entry[i], by_rate[i] * LN2);
                by_entry[i] = fma(step[i], by_entry[i], own_skip * g[i]);
            }
            long long place = (long long)(first + t) * channels + at.d;
            give(du + place, tokens - t, channels, at.lane, by_entry);
            give(ddelta + place, tokens - t, channels, at.lane, by_rate);
            __syncthreads();
            if (t > from) {  // the part before is on its way while the sums are made
                place -= (long long)STEPS * channels;
                take(x, u + place, tokens, channels), take(step, delta + place, tokens, channels);
                take(g, dy + place, tokens, channels);
            }
            for (unsigned i = threadIdx.x; i < STEPS * STATES; i += THREADS) {
                unsigned n = i % STATES, after = i / STATES;
                real to_B = 0, to_C = 0;
                for (int c = 0; c < CHANNELS; c++) {
                    to_B += shared.to_B[after][c][n / OWN].of[n % OWN];
                    to_C += shared.to_C[after][c][n / OWN].of[n % OWN];
                }
                long long to = (long long)(sums + t + after) * states + n;
                if (t + after < length && n < states) dB[to] = to_B, dC[to] = to_C;
            }
            __syncthreads();
        }
    }
    if (at.inside && at.lane == 0) dskip[row] = to_skip;
    give(dh, row, states, at, passed), give(dA, row, states, at, to_A);
}
