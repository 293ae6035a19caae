// Gated linear attention on tensor cores, forward, or with other arrays dv of its adjoint: gated_linear_attention.cu goes from
// token to token, here a chunk is products of tiles.
//
//     Y = (Q ∘ γ) S + P V          S′ = Diag(γ_C) S + (K ∘ ω)ᵀ V          P[t, s] = Σ_c q[t, c] Γ[t, s, c] k[s, c] for s ≤ t
//                                                                         Yang et al. 2024 (GLA), section 4.2 and 4.3
// In each channel c, Γ[t, s] = αₛ₊₁ ⋯ αₜ, and γ, ω are what is left since the chunk's start and until its end. No quotient of
// two decays is ever taken. A chunk has two halves of 16 tokens: from one to the other Γ[t, s] is what is left since the
// second began times what was left when the first ended, so that half of P is a product too; within a half it is not, and
// every decay is multiplied out on the way from s to t.
//
// q, k are (batch, T, K), v and y (batch, T, V), S (batch, K, V), log α (batch, T, K) or (batch, T, 1).
//
// A block owns 32 columns of v of one sequence: their part of S lies in shared memory while it walks along T in chunks.
// A thread owns 4 numbers of every tile, as product.cuh deals them out. Within the halves a warp has 4 keys of each 32 and a
//         lane a token s: it takes what that wrote to the half's end, and sums what the keys add to each score on the way. The
//         warps' sums are added in one order.
//
// Bytes   as in gated_linear_attention.cu.
// Work    a token: on tensor cores, which round what enters them, 4 K V operations for read and write, 2 K V for P, of which a
//         quarter is asked for, and 32 V for P V; outside them some K V within the halves. S and all sums stay float32.
#include "mma.cuh"

#include "gates.cuh"

constexpr int HALF = SIDE / 2;

// What tokens of a half ask of its start, and write to its end; in `all`, what each half leaves of each key.
__device__ inline void decay_within_halves(Tile &query_tile, Tile &key_tile, const Tile &alpha,
                                           real (&half_decays)[2][SIDE]) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, from = warp_row / HALF * HALF;
    real decay = 1, decay_to_end = 1;
    for (int t = from; t < warp_row; t++) decay *= alpha[t][lane];
    for (int t = from + HALF - 1; t >= warp_row + ROWS; t--) decay_to_end *= alpha[t][lane];
#pragma unroll
    for (int r = 0; r < ROWS; r++) decay *= alpha[warp_row + r][lane], query_tile[warp_row + r][lane] *= decay;
#pragma unroll
    for (int r = ROWS - 1; r >= 0; r--) key_tile[warp_row + r][lane] *= decay_to_end,
        decay_to_end *= alpha[warp_row + r][lane];
    if (warp_row == from) half_decays[from / HALF][lane] = decay_to_end;
}

// What the second half asks of the chunk's start, and the first one writes to its end.
__device__ inline void decay_across_halves(Tile &query_tile, Tile &key_tile, const real (&half_decays)[2][SIDE]) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (warp_row < HALF) key_tile[warp_row + r][lane] *= half_decays[1][lane];
        else query_tile[warp_row + r][lane] *= half_decays[0][lane];
    }
}

// To part[i], of token `lane` and token i of its half: what this warp's keys say of the two.
__device__ inline void score_within_half(const Tile &query_tile, const Tile &key_tile, const Tile &alpha,
                                         real (&part)[HALF]) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, from = lane / HALF * HALF;
    real decayed_key[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) decayed_key[r] = key_tile[lane][warp_row + r];
#pragma unroll
    for (int i = 0; i < HALF; i++)
        if (from + i >= lane)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (from + i > lane) decayed_key[r] *= alpha[from + i][warp_row + r];
                part[i] = fma(query_tile[from + i][warp_row + r], decayed_key[r], part[i]);
            }
}

// kept (batch, chunks, K, V): S at the start of every chunk. In the other direction (`back`) nothing is kept.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_linear_attention_forward(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                               const real *__restrict__ g, const real *__restrict__ S, Number *__restrict__ y,
                               real *__restrict__ last, real *__restrict__ boundary_states, int length, int keys,
                               int values, int gates, int reverse) {
    __shared__ Tile tiles[4], value_tile;
    __shared__ real half_decays[2][SIDE];
    Tile &query_tile = tiles[0], &key_tile = tiles[1], &alpha = tiles[2], &scores = tiles[3];
    DYNAMIC_SHARED(Tile, state);  // one for every 32 keys
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, slices = (keys + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs, size = (long long)keys * values;
    q += sequence * length * keys, k += sequence * length * keys, g += sequence * length * gates;
    v += sequence * length * values, y += sequence * length * values;
    S += sequence * size, last += sequence * size, boundary_states += sequence * chunks * size;

    for (int slice = 0; slice < slices; slice++) load_tile(state[slice], S, slice * SIDE, column, keys, values);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        Accumulator score = {}, out = {}, sum;
        real part[HALF] = {}, by_token[SIDE], within_half[ROWS];
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the tiles before are done with
            if (slice == 0) load_tile(value_tile, v, first, column, length, values, reverse);
            load_tile(query_tile, q, first, slice * SIDE, length, keys, reverse);
            load_tile(key_tile, k, first, slice * SIDE, length, keys, reverse);
            load_gate_tile(alpha, g, first - reverse, slice * SIDE, length, keys, gates, reverse);
            __syncthreads();
            score_within_half(query_tile, key_tile, alpha, part);
            load(sum, state[slice]);
            if (!reverse) store(sum, boundary_states + chunk * size, slice * SIDE, column, keys, values);
            __syncthreads();  // all have walked
            decay_within_halves(query_tile, key_tile, alpha, half_decays);
            __syncthreads();
            products(Rows{query_tile}, into(score, Rows{key_tile}));
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= half_decays[0][Accumulator::row(r)]
                * half_decays[1][Accumulator::row(r)];
            __syncthreads();  // the halves have met
            decay_across_halves(query_tile, key_tile, half_decays);
            __syncthreads();
            products(Rows{query_tile}, into(out, Columns{state[slice]}));
            products(Columns{key_tile}, into(sum, Columns{value_tile}));
            __syncthreads();  // all have read the state
            store(sum, state[slice]);
        }
#pragma unroll
        for (int i = 0; i < HALF; i++) by_token[i] = lane < HALF ? part[i] : 0,
            by_token[HALF + i] = lane < HALF ? 0 : part[i];
        sum_over_warps(tiles, by_token, within_half);
        __syncthreads();  // the warps' sums are done with
        store(score, scores);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (lane / HALF >= warp_row / HALF) scores[warp_row + r][lane] = lane <= warp_row + r ? within_half[r] : 0;
        __syncthreads();
        products(lower(), Rows{scores}, into(out, Columns{value_tile}));
        store(out, y, first, column, length, values, reverse);
    }
    for (int slice = 0; slice < slices; slice++) {
        Accumulator sum;
        load(sum, state[slice]);
        store(sum, last, slice * SIDE, column, keys, values);
    }
}
