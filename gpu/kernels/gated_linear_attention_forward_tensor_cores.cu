// Gated linear attention forward on tensor cores, and with other arrays dv of its adjoint: gated_linear_attention.cu
// proceeds token by token, here a chunk is products of tiles.
//
//     Y = (Q ∘ γ) S + P V       S′ = Diag(γ_C) S + (K ∘ ω)ᵀ V       P[t, s] = Σ_c q[t, c] Γ[t, s, c] k[s, c] for s ≤ t
//                                                                         Yang et al. 2024 (GLA), section 4.2 and 4.3
// In each channel c, Γ[t, s] = αₛ₊₁ ⋯ αₜ, and γ, ω are the decays since the chunk's start and until its end. Decays are
// never divided. A chunk has two halves of 16 tokens: between them Γ[t, s] is the decay since the start of the second
// times the decay until the end of the first, so that this part of P is a product of matrices; within a half, where it
// is not, decays are multiplied from s to t.
//
// q, k are (batch, T, K), v and y (batch, T, V), S (batch, K, V), log α (batch, T, K) or (batch, T, 1).
//
// Block    32 columns of v of one sequence, chunk by chunk of 32 tokens; their part of S stays in shared memory.
// Thread   4 elements of every tile, in the layout of product.cuh. Within the halves a warp has 4 keys of each 32 and a
//          lane a token s: it decays its key to the end of the half, and accumulates the keys' terms of each score on
//          the way. The sums of the warps are added in a fixed order.
//
// Memory traffic   as in gated_linear_attention.cu.
// FLOPs            per token: on tensor cores, which round their operands, 4 K V for output and update, 2 K V for P, of
//                  which a quarter is needed, and 32 V for P V; outside them a few K V within the halves. S and sums
//                  are float32.
// Bound            compute, as in gated_linear_attention.cu.
#include "mma.cuh"

#include "gates.cuh"

constexpr int HALF = SIDE / 2;

// Decay queries since the start of their half and keys until its end; half_decays is the decay of each key over each
// half.
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

// Extend these decays to the whole chunk: queries of the second half to its start, keys of the first to its end.
__device__ inline void decay_across_halves(Tile &query_tile, Tile &key_tile, const real (&half_decays)[2][SIDE]) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (warp_row < HALF) key_tile[warp_row + r][lane] *= half_decays[1][lane];
        else query_tile[warp_row + r][lane] *= half_decays[0][lane];
    }
}

// Add this warp's keys' terms of the score of token i of the half with token `lane` to part[i].
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

// boundary_states (batch, chunks, K, V): S at the start of every chunk; not written in reverse.
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
            __syncthreads();  // the previous tiles have been read
            if (slice == 0) load_tile(value_tile, v, first, column, length, values, reverse);
            load_tile(query_tile, q, first, slice * SIDE, length, keys, reverse);
            load_tile(key_tile, k, first, slice * SIDE, length, keys, reverse);
            load_gate_tile(alpha, g, first - reverse, slice * SIDE, length, keys, gates, reverse);
            __syncthreads();
            score_within_half(query_tile, key_tile, alpha, part);
            load(sum, state[slice]);
            if (!reverse) store(sum, boundary_states + chunk * size, slice * SIDE, column, keys, values);
            __syncthreads();  // scores within the halves are computed
            decay_within_halves(query_tile, key_tile, alpha, half_decays);
            __syncthreads();
            products(Rows{query_tile}, into(score, Rows{key_tile}));
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= half_decays[0][Accumulator::row(r)]
                * half_decays[1][Accumulator::row(r)];
            __syncthreads();  // the product of the halves is computed
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
        __syncthreads();  // the warps' sums have been read
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
