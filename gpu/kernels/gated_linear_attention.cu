// Gated linear attention, whose state decays row by row, and its adjoint.
//
//     Sₜ = Diag(αₜ) Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ                       Yang et al. 2024 (GLA), section 4.1
//
// backward, with dSₜ = Diag(αₜ₊₁) dSₜ₊₁ + qₜᵀ dyₜ the cotangent of Sₜ:
//
//     dvₜ = kₜ dSₜ: the same kernel in reverse, with the gate of the next token
//     dqₜ = dyₜ Sₜᵀ          dkₜ = vₜ dSₜᵀ          dlog αₜ = αₜ ⊙ Σᵥ (dSₜ ⊙ Sₜ₋₁)
//
// In a chunk with initial state S and final cotangent dS, with Γ[t, s] = αₛ₊₁ ⋯ αₜ per channel, and γ, ω the decays
// from its start and to its end:
//
//     dqₜ = γₜ (dyₜ Sᵀ) + Σₛ≤ₜ Γ[t, s] (dyₜ · vₛ) kₛ          dkₛ = ωₛ (vₛ dSᵀ) + Σₜ≥ₛ Γ[t, s] (dyₜ · vₛ) qₜ
//     dlog αₜ = Σ over s < t ≤ r of kₛ Γ[r, s] (dyᵣ · vₛ) qᵣ, all pairs on both sides of the gate; the same with S as
//              an earlier token, and with dS as a later one
//
// Every Γ is the product of the gates between two tokens: there is no division, whose divisor could be 0, and each term
// of dlog αₜ has the factor αₜ, so that it is exactly 0 at a gate of 0, free of rounding errors of other terms.
//
// q, k are (batch, T, K), v and y (batch, T, V), S (batch, K, V), log α (batch, T, K) or (batch, T, 1).
//
// Forward   a block has 32 columns of v of one sequence, chunk by chunk of 32 tokens; a warp 4 keys of each 32, a
//           thread their 4 elements of S in its column. It advances them token by token, and accumulates its keys'
//           terms of each token's output; the sums of the warps are added in a fixed order.
// Backward  a block has 32 keys of one sequence, chunk by chunk in reverse, each from its boundary state. A thread has
//           4 elements of dy Vᵀ, dy Sᵀ, v dSᵀ and dS, in the layout of product.cuh; after these a warp has 4 tokens, a
//           lane one key, which it follows from each of its tokens to both ends of the chunk.
//
// Memory traffic   per token forward: q, k, log α are read per 32 columns (from the L2 cache after the first time), v
//                  once, y and 1/32 of S are written: 4 · (3 K + 2 V + K V / 32) bytes at float32. Backward twice as
//                  much.
// FLOPs            per token forward: 5 K V. (Scores as in linear attention would need as many: with a decay per
//                  channel each is a sum with its own gates.) Backward: 5 K V for dv, 8 K V for the rest, and 150 K
//                  within its chunk. These 8 K V are products of tiles: with OPERAND defined they are on tensor cores,
//                  which round their operands. (Forward and dv are then by
//                  gated_linear_attention_forward_tensor_cores.cu.)
// Bound            compute: at K = V = 128, 82,000 operations for 4.6 KB.
#include "gates.cuh"

// boundary_states (batch, chunks, K, V): S at the start of every chunk; not written in reverse.
extern "C" __global__ void __launch_bounds__(THREADS)
gated_linear_attention(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                       const real *__restrict__ g, const real *__restrict__ S, Number *__restrict__ y,
                       real *__restrict__ last, real *__restrict__ boundary_states, int length, int keys, int values,
                       int gates, int reverse) {
    __shared__ Square tiles[4];
    Square &query_tile = tiles[0], &key_tile = tiles[1], &alpha = tiles[2], &columns = tiles[3];
    DYNAMIC_SHARED(real, state);  // (keys, rounded up to whole slices, SIDE and a gap)
    constexpr int WIDTH = SIDE + 1;
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys, g += sequence * length * gates;
    v += sequence * length * values, y += sequence * length * values + column;
    S += sequence * entries + column, last += sequence * entries + column,
        boundary_states += sequence * chunks * entries + column;

    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + warp_row; row < slice + warp_row + ROWS; row++)
            state[row * WIDTH + lane] = inside && row < keys ? S[(long long)row * values + lane] : 0;

    for (int first = 0; first < length; first += SIDE) {
        real part[SIDE] = {}, out[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the slice before has been read
            if (slice == 0) load_tile(columns, v, first, column, length, values, reverse);
            load_tile(query_tile, q, first, slice, length, keys, reverse);
            load_tile(key_tile, k, first, slice, length, keys, reverse);
            load_gate_tile(alpha, g, first - reverse, slice, length, keys, gates, reverse);
            __syncthreads();  // the slice is there
            real *state_rows = &state[(slice + warp_row) * WIDTH + lane], sum[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                sum[r] = state_rows[r * WIDTH];
                if (!reverse && inside && slice + warp_row + r < keys)
                    boundary_states[first / SIDE * entries + (long long)(slice + warp_row + r) * values + lane] =
                        sum[r];
            }
#pragma unroll
            for (int t = 0; t < SIDE; t++)
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    sum[r] = fma(key_tile[t][warp_row + r], columns[t][lane], alpha[t][warp_row + r] * sum[r]);
                    part[t] = fma(query_tile[t][warp_row + r], sum[r], part[t]);
                }
#pragma unroll
            for (int r = 0; r < ROWS; r++) state_rows[r * WIDTH] = sum[r];
        }
        sum_over_warps(tiles, part, out);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r;
            if (inside && t < length) narrow(y[(long long)(reverse ? length - 1 - t : t) * values + lane], out[r]);
        }
    }
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + warp_row; row < slice + warp_row + ROWS; row++)
            if (inside && row < keys) last[(long long)row * values + lane] = state[row * WIDTH + lane];
}

// Return the terms of dk for token s and this thread's key from the later tokens of the chunk and from `sum`, the term
// at its end; add to part[t] the terms that pass gate t. pairs[t · PITCH] is dyₜ · vₛ.
__device__ inline real propagate_to_chunk_end(const Tile &query_tile, const Tile &alpha, int s, const real *pairs,
                                              real sum, real key, real (&part)[SIDE]) {
    int lane = threadIdx.x % 32;
    real passing[SIDE];
#pragma unroll
    for (int t = SIDE - 1; t >= 0; t--)
        if (t > s) passing[t] = sum = alpha[t][lane] * fma(pairs[t * PITCH], query_tile[t][lane], sum);
#pragma unroll
    for (int t = 0; t < SIDE; t++)
        if (t > s) part[t] = fma(key, passing[t], part[t]), key *= alpha[t][lane];
    return sum;
}

// Multiply each token's row by its decay since the start of the chunk; set gamma to the decay over the whole chunk.
__device__ inline void decay_from_chunk_start(Tile &query_tile, const Tile &alpha, real *gamma) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
    real decay = 1;
    for (int t = 0; t < warp_row; t++) decay *= alpha[t][lane];
#pragma unroll
    for (int r = 0; r < ROWS; r++) decay *= alpha[warp_row + r][lane], query_tile[warp_row + r][lane] *= decay;
    if (warp_row == SIDE - ROWS) gamma[lane] = decay;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gated_linear_attention_backward(const Number *__restrict__ q, const Number *__restrict__ k,
                                const Number *__restrict__ v, const real *__restrict__ g,
                                const real *__restrict__ boundary_states, const Number *__restrict__ dy,
                                const real *__restrict__ dlast, Number *__restrict__ dq, Number *__restrict__ dk,
                                real *__restrict__ dlog_decay, real *__restrict__ dS, int length, int keys, int values,
                                int gates) {
    __shared__ Tile tiles[5];
    __shared__ real gamma[SIDE];  // decay of each key over the chunk
    Tile &query_tile = tiles[0], &key_tile = tiles[1], &alpha = tiles[2], &pairs = tiles[3], &dy_S = tiles[4];
    DYNAMIC_SHARED(Tile, state);  // one for every 32 values: dSᵀ
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slices = (keys + SIDE - 1) / SIDE;
    int column = blockIdx.x % slices * SIDE, slabs = (values + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slices, entries = (long long)keys * values, key = column + lane;
    bool inside = key < keys;
    q += sequence * length * keys, k += sequence * length * keys, g += sequence * length * gates;
    dq += sequence * length * keys, dk += sequence * length * keys, dlog_decay += sequence * length * keys;
    v += sequence * length * values, dy += sequence * length * values, boundary_states += sequence * chunks * entries;
    dlast += sequence * entries, dS += sequence * entries;

    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + warp_row + r;
            state[slab][warp_row + r][lane] = inside && value < values ? dlast[key * values + value] : 0;
        }

    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int first = chunk * SIDE;
        Accumulator pair = {}, dy_S_sum = {}, v_dS_sum = {}, sum;
        real v_dS[ROWS], state_rows[ROWS], S_dS = 0, part[SIDE] = {};
        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the previous tiles have been read
            load_tile(query_tile, dy, first, slab * SIDE, length, values);
            load_tile(key_tile, v, first, slab * SIDE, length, values);
            load_tile(alpha, boundary_states + chunk * entries, column, slab * SIDE, keys, values);
            __syncthreads();
            products(Rows{query_tile}, into(pair, Rows{key_tile}), into(dy_S_sum, Rows{alpha}));
            products(Rows{key_tile}, into(v_dS_sum, Columns{state[slab]}));
            if (warp_row == SIDE - ROWS)
                for (int j = 0; j < SIDE; j++) S_dS = fma(alpha[lane][j], state[slab][j][lane], S_dS);
        }
        to_row_layout(v_dS_sum, query_tile, v_dS);
        __syncthreads();  // the last slab has been read
        store(pair, pairs), store(dy_S_sum, dy_S);
        load_tile(query_tile, q, first, column, length, keys);
        load_tile(key_tile, k, first, column, length, keys);
        load_gate_tile(alpha, g, first, column, length, keys, gates, false);
        __syncthreads();
#pragma unroll 1
        for (int r = 0; r < ROWS; r++) {
            int t = warp_row + r;
            real sum = dy_S[t][lane];
            for (int s = 0; s <= t; s++) sum = fma(pairs[t][s], key_tile[s][lane], alpha[s][lane] * sum);
            if (inside && first + t < length) narrow(dq[(first + t) * (long long)keys + key], sum);
            sum = propagate_to_chunk_end(query_tile, alpha, t, &pairs[0][t], v_dS[r], key_tile[t][lane], part);
            if (inside && first + t < length)
                narrow(dk[(first + t) * (long long)keys + key], fma(pairs[t][t], query_tile[t][lane], sum));
        }
        if (warp_row == SIDE - ROWS) propagate_to_chunk_end(query_tile, alpha, -1, &dy_S[0][lane], S_dS, 1, part);

        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the keys, or the previous slab, have been read
            if (slab == 0) decay_from_chunk_start(query_tile, alpha, gamma);
            load_tile(key_tile, dy, first, slab * SIDE, length, values);
            __syncthreads();
            load(sum, state[slab]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gamma[Accumulator::column(r)];
            products(Columns{key_tile}, into(sum, Columns{query_tile}));
            store(sum, state[slab]);
        }
        sum_over_warps(tiles, part, state_rows);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (inside && first + warp_row + r < length) dlog_decay[(first + warp_row + r) * (long long)keys + key] =
                state_rows[r];
    }
    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + Accumulator::row(r), own_key = column + Accumulator::column(r);
            if (own_key < keys && value < values)
                dS[(long long)own_key * values + value] = state[slab][Accumulator::row(r)][Accumulator::column(r)];
        }
}
