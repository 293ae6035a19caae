// The selective scan and its adjoint: discretisation, scan and output in one kernel forward and one backward.
//
//     hₜ = exp(Δₜ A) ⊙ hₜ₋₁ + Δₜ uₜ Bₜ          yₜ = Cₜ hₜ + D uₜ          Gu and Dao 2023 (Mamba), eq. 2, 4
//
// backward, with cₜ the cotangent that token t passes to the state before it:
//
//     dhₜ = dyₜ Cₜ + cₜ₊₁          cₜ = exp(Δₜ A) ⊙ dhₜ          q = cₜ ⊙ hₜ₋₁          r = Σₙ dhₜₙ Bₜₙ
//     duₜ = Δₜ r + D dyₜ           dΔₜ = Σₙ qₙ Aₙ + uₜ r
//     dA = Σₜ Δₜ q                dBₜ = Σ_d Δₜ uₜ dhₜ            dCₜ = Σ_d dyₜ hₜ           dD = Σₜ dyₜ uₜ
//
// u, delta, y are (batch, T, D), A (D, N), B, C (batch, T, N), the state (batch, D, N).
//
// Block    CHANNELS neighbouring channels of one sequence, token after token.
// Thread   OWN_STATES states of one channel, in registers. LANES neighbouring threads share a channel and reduce y, du
//          and dΔ by shuffles: for N = 16, 4 threads of 4 states each.
// Shared memory holds B and C of a tile of tokens. Each thread loads u and Δ itself, STEPS tokens ahead.
// Backward takes the tiles in reverse, each from its boundary state: a first pass recomputes the states and stores a
//          checkpoint every STEPS tokens; then these parts are taken in reverse with their states and decays in
//          registers. Terms of dB and dC are summed over the block's channels in shared memory, in a fixed order.
//
// Memory traffic   forward reads u, Δ and writes y: 12 bytes per token and channel (float32), and 1/TILE of the states;
//                  B and C, 2 N, are read again for every CHANNELS channels. Backward reads u, Δ, dy, writes du, dΔ: 20
//                  bytes; per CHANNELS channels it reads 2 N and writes 2 N, which the caller reads once more to sum.
// FLOPs            per token, channel and state: forward an exponential and 6 operations, backward two exponentials and
//                  22. Compiled for sm_90, N = 16, they are 11 instructions forward and 34 backward.
// Bound            exponentials, at N = 16 forward: 16 of them per 12 bytes. A multiprocessor computes 16 per cycle, in
//                  which 3.3 TB/s brings 14 bytes to each of 132 at 1.8 GHz; it takes enough sequences and channels to
//                  fill the device: 132 · 12 warps of 8 channels each.
#include "common.cuh"

#ifndef STATES
#define STATES 16  // N rounded up to a power of 2, at least 4: -DSTATES=64
#endif

constexpr int OWN_STATES = STATES > 128 ? STATES / 32 : 4, LANES = STATES / OWN_STATES;
constexpr int THREADS = 512 / sizeof(real), CHANNELS = THREADS / LANES;
constexpr int STEPS = 32 / sizeof(real), TILE = 256 / sizeof(real);
constexpr real LOG2E = real(1.4426950408889634), LN2 = real(0.6931471805599453);

struct __align__(16) ThreadStates {  // a value for each of a thread's states
    real of[OWN_STATES];
};
typedef ThreadStates Rows[TILE][LANES];  // B or C of a tile

__device__ inline double exp2_approx(double x) { return exp2(x); }

// The channel of a thread, and its place among the LANES threads of that channel.
struct Position {
    int sequence, d, lane;
    bool inside;
};
__device__ inline Position position(int channels) {
    int slabs = (channels + CHANNELS - 1) / CHANNELS, d = blockIdx.x % slabs * CHANNELS + threadIdx.x / LANES;
    return {int(blockIdx.x / slabs), d, int(threadIdx.x % LANES), d < channels};
}

// Load this thread's states of a row of an array (…, D, N); 0 outside.
__device__ inline ThreadStates load(const real *from, long long row, int states, const Position &at) {
    ThreadStates own;
#pragma unroll
    for (int k = 0; k < OWN_STATES; k++) {
        int n = at.lane * OWN_STATES + k;
        own.of[k] = at.inside && n < states ? from[row * states + n] : 0;
    }
    return own;
}

// Load A log₂ e: decays are computed as powers of 2.
__device__ inline ThreadStates load_rates(const real *A, const Position &at, int states) {
    ThreadStates rates = load(A, at.d, states, at);
#pragma unroll
    for (int k = 0; k < OWN_STATES; k++) rates.of[k] *= LOG2E;
    return rates;
}

__device__ inline void store(real *to, long long row, int states, const Position &at, const ThreadStates &own) {
#pragma unroll
    for (int k = 0; k < OWN_STATES; k++) {
        int n = at.lane * OWN_STATES + k;
        if (at.inside && n < states) to[row * states + n] = own.of[k];
    }
}

// Load a channel's values of the next STEPS tokens, of which `tokens` exist; 0 outside. If all exist, which is the
// rule, loads are unconditional and an address is one addition.
__device__ inline void load(real (&own)[STEPS], const real *from, int tokens, long long channels) {
    if (tokens >= STEPS)
#pragma unroll
        for (int i = 0; i < STEPS; i++) own[i] = from[i * channels];
    else
#pragma unroll
        for (int i = 0; i < STEPS; i++) own[i] = i < tokens ? from[i * channels] : 0;
}

// Load rows of an array (…, T, N), of which `tokens` exist; 0 outside.
__device__ inline void load_tile(Rows &rows, const real *from, int tokens, int states) {
#pragma unroll 8
    for (int i = 0; i < TILE * STATES / THREADS; i++) {
        int t = (threadIdx.x + i * THREADS) / STATES, n = (threadIdx.x + i * THREADS) % STATES;
        rows[t][n / OWN_STATES].of[n % OWN_STATES] = t < tokens && n < states ? from[t * states + n] : 0;
    }
}

// Advance the state by one token: h ← a ⊙ h + Δ u B with a = exp(Δ A).
__device__ inline void step_state(ThreadStates &h, ThreadStates &a, const ThreadStates &rates, const ThreadStates &b,
                                  real delta, real u) {
#pragma unroll
    for (int k = 0; k < OWN_STATES; k++) {
        a.of[k] = exp2_approx(delta * rates.of[k]);
        h.of[k] = fma(a.of[k], h.of[k], delta * u * b.of[k]);
    }
}

// Sum over the LANES threads of a channel, in all of them.
__device__ inline void sum_over_lanes(real (&own)[STEPS]) {
#pragma unroll
    for (int by = 1; by < LANES; by *= 2)
#pragma unroll
        for (int i = 0; i < STEPS; i++) own[i] += shfl_xor(own[i], by);
}

// Store a channel's values of STEPS tokens, which all its threads have; each stores every LANES-th.
__device__ inline void store(real *to, int tokens, int channels, int own_lane, const real (&own)[STEPS]) {
#pragma unroll
    for (int i = 0; i < STEPS; i += LANES) {
        real own_value = own[i];
#pragma unroll
        for (int lane = 1; lane < LANES && i + lane < STEPS; lane++) own_value = lane == own_lane
            ? own[i + lane] : own_value;
        int t = i + own_lane;
        if (t < STEPS && t < tokens) to[t * channels] = own_value;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
selective_scan_forward(const real *__restrict__ u, const real *__restrict__ delta, const real *__restrict__ A,
                       const real *__restrict__ B, const real *__restrict__ C, const real *__restrict__ skip,
                       const real *__restrict__ h, real *__restrict__ y, real *__restrict__ last,
                       real *__restrict__ boundary_states, int length, int channels, int states) {
    DYNAMIC_SHARED(Rows, shared);  // of B and of C
    Rows &B_tile = shared[0], &C_tile = shared[1];
    Position at = position(channels);
    long long first = (long long)at.sequence * length, row = (long long)at.sequence * channels + at.d;
    ThreadStates rates = load_rates(A, at, states), state = load(h, row, states, at), decays;
    real own_skip = at.inside ? skip[at.d] : 0, x[STEPS], step[STEPS], next_x[STEPS], next_step[STEPS];
    const real *u_source = u + first * channels + at.d, *delta_source = delta + first * channels + at.d;
    int tokens = at.inside ? length : 0, tiles = (length + TILE - 1) / TILE;
    load(next_x, u_source, tokens, channels), load(next_step, delta_source, tokens, channels);

    for (int t = 0; t < length; t += STEPS) {
        if (t % TILE == 0) {
            __syncthreads();
            load_tile(B_tile, B + (first + t) * states, length - t, states);
            load_tile(C_tile, C + (first + t) * states, length - t, states);
            __syncthreads();
            store(boundary_states, ((long long)at.sequence * tiles + t / TILE) * channels + at.d, states, at, state);
        }
#pragma unroll
        for (int i = 0; i < STEPS; i++) x[i] = next_x[i], step[i] = next_step[i];
        u_source += (long long)STEPS * channels, delta_source += (long long)STEPS * channels;
        load(next_x, u_source, tokens - t - STEPS, channels);
        load(next_step, delta_source, tokens - t - STEPS, channels);
        real out[STEPS];
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            ThreadStates b = B_tile[t % TILE + i][at.lane], c = C_tile[t % TILE + i][at.lane];
            step_state(state, decays, rates, b, step[i], x[i]);
            out[i] = 0;
#pragma unroll
            for (int k = 0; k < OWN_STATES; k++) out[i] = fma(c.of[k], state.of[k], out[i]);
        }
        sum_over_lanes(out);
#pragma unroll
        for (int i = 0; i < STEPS; i++) out[i] = fma(own_skip, x[i], out[i]);
        store(y + (first + t) * channels + at.d, tokens - t, channels, at.lane, out);
    }
    store(last, row, states, at, state);  // tokens past the end have Δ = 0 and leave it unchanged
}

struct Shared {  // of a block backward
    Rows B_tile, C_tile;
    ThreadStates checkpoints[TILE / STEPS][THREADS];
    // padded against bank conflicts
    ThreadStates dB_terms[STEPS][CHANNELS + 1][LANES], dC_terms[STEPS][CHANNELS + 1][LANES];
};

// dA (batch, D, N), dB and dC (slabs, batch, T, N), dskip (batch, D): sums over batch and slabs are left to the caller.
extern "C" __global__ void __launch_bounds__(THREADS, OWN_STATES > 4 ? 1 : 3)
selective_scan_backward(const real *__restrict__ u, const real *__restrict__ delta, const real *__restrict__ A,
                        const real *__restrict__ B, const real *__restrict__ C, const real *__restrict__ skip,
                        const real *__restrict__ boundary_states, const real *__restrict__ dy,
                        const real *__restrict__ dlast, real *__restrict__ du, real *__restrict__ ddelta,
                        real *__restrict__ dA, real *__restrict__ dB, real *__restrict__ dC, real *__restrict__ dskip,
                        real *__restrict__ dh, int length, int channels, int states) {
    DYNAMIC_SHARED(Shared, memory);
    Shared &shared = *memory;
    Position at = position(channels);
    int first = at.sequence * length, row = at.sequence * channels + at.d;  // fewer than 2³¹ tokens
    int slabs = (channels + CHANNELS - 1) / CHANNELS, slab = blockIdx.x % slabs, tiles = (length + TILE - 1) / TILE;
    int sums = (slab * (gridDim.x / slabs) + at.sequence) * length;
    ThreadStates rates = load_rates(A, at, states), dh_passed = load(dlast, row, states, at), dA_sums = {};
    real own_skip = at.inside ? skip[at.d] : 0, dskip_sum = 0, x[STEPS], step[STEPS], dy_t[STEPS];
    int tokens = at.inside ? length : 0;

    for (int from = (tiles - 1) * TILE; from >= 0; from -= TILE) {
        int t = from;
        load_tile(shared.B_tile, B + (long long)(first + from) * states, length - from, states);
        load_tile(shared.C_tile, C + (long long)(first + from) * states, length - from, states);
        __syncthreads();
        ThreadStates state = load(boundary_states, ((long long)at.sequence * tiles + from / TILE) * channels + at.d,
                                  states, at);
        for (;; t += STEPS) {  // recompute the states, and store checkpoints
            long long place = (long long)(first + t) * channels + at.d;
            load(x, u + place, tokens - t, channels), load(step, delta + place, tokens - t, channels);
            shared.checkpoints[(t - from) / STEPS][threadIdx.x] = state;
            if (t + STEPS >= min(length, from + TILE)) break;
            ThreadStates unused;
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                step_state(state, unused, rates, shared.B_tile[t - from + i][at.lane], step[i], x[i]);
        }
        load(dy_t, dy + (long long)(first + t) * channels + at.d, tokens - t, channels);

        for (; t >= from; t -= STEPS) {  // each part: forward, then backward
            state = shared.checkpoints[(t - from) / STEPS][threadIdx.x];
            ThreadStates decays[STEPS], h[STEPS];
            real du_terms[STEPS], ddelta_terms[STEPS];
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                h[i] = state;
                step_state(state, decays[i], rates, shared.B_tile[t - from + i][at.lane], step[i], x[i]);
                ThreadStates dC_terms;
#pragma unroll
                for (int k = 0; k < OWN_STATES; k++) dC_terms.of[k] = dy_t[i] * state.of[k];
                shared.dC_terms[i][threadIdx.x / LANES][at.lane] = dC_terms;
            }
#pragma unroll
            for (int i = STEPS - 1; i >= 0; i--) {
                ThreadStates b = shared.B_tile[t - from + i][at.lane], c = shared.C_tile[t - from + i][at.lane];
                ThreadStates dB_terms;
                du_terms[i] = ddelta_terms[i] = 0;
#pragma unroll
                for (int k = 0; k < OWN_STATES; k++) {
                    real dh_state = fma(dy_t[i], c.of[k], dh_passed.of[k]);
                    dh_passed.of[k] = decays[i].of[k] * dh_state;
                    real q = dh_passed.of[k] * h[i].of[k];
                    dA_sums.of[k] = fma(q, step[i], dA_sums.of[k]);
                    ddelta_terms[i] = fma(q, rates.of[k], ddelta_terms[i]);
                    du_terms[i] = fma(dh_state, b.of[k], du_terms[i]);
                    dB_terms.of[k] = dh_state * (step[i] * x[i]);
                }
                shared.dB_terms[i][threadIdx.x / LANES][at.lane] = dB_terms;
            }
            sum_over_lanes(du_terms), sum_over_lanes(ddelta_terms);
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                dskip_sum = fma(dy_t[i], x[i], dskip_sum);
                ddelta_terms[i] = fma(x[i], du_terms[i], ddelta_terms[i] * LN2);
                du_terms[i] = fma(step[i], du_terms[i], own_skip * dy_t[i]);
            }
            long long place = (long long)(first + t) * channels + at.d;
            store(du + place, tokens - t, channels, at.lane, du_terms);
            store(ddelta + place, tokens - t, channels, at.lane, ddelta_terms);
            __syncthreads();
            if (t > from) {  // prefetch the previous part
                place -= (long long)STEPS * channels;
                load(x, u + place, tokens, channels), load(step, delta + place, tokens, channels);
                load(dy_t, dy + place, tokens, channels);
            }
            for (unsigned i = threadIdx.x; i < STEPS * STATES; i += THREADS) {
                unsigned n = i % STATES, after = i / STATES;
                real dB_terms = 0, dC_terms = 0;
                for (int c = 0; c < CHANNELS; c++) {
                    dB_terms += shared.dB_terms[after][c][n / OWN_STATES].of[n % OWN_STATES];
                    dC_terms += shared.dC_terms[after][c][n / OWN_STATES].of[n % OWN_STATES];
                }
                long long to = (long long)(sums + t + after) * states + n;
                if (t + after < length && n < states) dB[to] = dB_terms, dC[to] = dC_terms;
            }
            __syncthreads();
        }
    }
    if (at.inside && at.lane == 0) dskip[row] = dskip_sum;
    store(dh, row, states, at, dh_passed), store(dA, row, states, at, dA_sums);
}
