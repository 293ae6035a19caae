// The second half of the adjoint of the gated delta rule: given the errors e and their cotangents dv, S and dS are
// those of a linear attention whose values are u = βe and whose outputs have cotangents dy and dv.
//
//     dqₜ = dyₜ Sₜᵀ          dkₜ = βₜ eₜ dSₜᵀ − αₜ dvₜ Sₜ₋₁ᵀ                                     from eq. 10
//     dlog αₜ = αₜ Σ (dSₜ − kₜᵀ dvₜ) ⊙ Sₜ₋₁
//
// In a chunk with initial state S and final cotangent dS, with Γ[t, s] = αₛ₊₁ ⋯ αₜ, and γ, ω the decays from its start
// and to its end:
//
//     dqₜ = γₜ dyₜ Sᵀ + Σₛ≤ₜ Γ[t, s] (dyₜ · uₛ) kₛ
//     dkₜ = ωₜ uₜ dSᵀ − γₜ dvₜ Sᵀ + Σₛ≥ₜ Γ[s, t] (dyₛ · uₜ) qₛ − Σₛ>ₜ Γ[s, t] (dvₛ · uₜ) kₛ
//           − Σₛ<ₜ Γ[t, s] (dvₜ · uₛ) kₛ
//     dlog αₜ = Σ over s < t ≤ r of Γ[r, s] ((dyᵣ · uₛ) (qᵣ · kₛ) − (dvᵣ · uₛ) (kᵣ · kₛ)), all pairs on both sides, and
//              the same with S as an earlier token, and with dS as a later one
//
// Each term of dlog αₜ has the factor αₜ, so that it is exactly 0 at a gate of 0. The shorter difference of cumulative
// sums of q ⊙ dq and k ⊙ dk would leave rounding errors of other terms there.
//
// q, k are (batch, T, K), u, dy and dv (batch, T, V), S (batch, K, V), log α (batch, T); dlog α is a partial sum per 32
// keys.
//
// Block    32 keys of one sequence, their part of dSᵀ in shared memory, chunk by chunk in reverse, each from its
//          boundary state.
// Thread   4 elements of every tile, in the layout of product.cuh: of scores and outputs, in registers, and of dS,
//          which no other thread writes.
// Warp     4 tokens for sums along the rows of a tile: a lane has one score of the token, or one key.
//
// Memory traffic   per token: dy, dv, u are read per 32 keys (dy and dv twice), from the L2 cache after the first time;
//                  q, k and 1/32 of S are read and dq, dk written: 4 · (4 K + 3 V + K V / 32) bytes at float32.
// FLOPs            per token: 6 K V for products with S and dS, 4 K V for those of dy and dv with u (recomputed per 32
//                  keys), 4 K V for dS, and about 260 K within its chunk. With OPERAND defined all these products are
//                  on tensor cores, which round their operands; dS itself and all sums are float32.
// Bound            compute: at K = V = 128, 260,000 operations for 5.6 KB.
#include "gates.cuh"

// Return the exclusive prefix sum over the lanes of a warp.
__device__ inline real sum_before(real x) {
    int lane = threadIdx.x % 32;
    for (int by = 1; by < 32; by *= 2) {
        real earlier = shfl_up(x, by);
        if (lane >= by) x += earlier;
    }
    x = shfl_up(x, 1);
    return lane ? x : 0;
}

// Multiply each token's row by its decay since the start of the chunk.
__device__ inline void decay_from_chunk_start(Tile &tile, const Gates &gates, real sign) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = Accumulator::row(r);
        tile[t][Accumulator::column(r)] *= sign * gates.gamma[t];
    }
}

// dlog_decay is (slices, batch, T).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule_keys(const Number *__restrict__ q, const Number *__restrict__ k, const real *__restrict__ u,
                      const real *__restrict__ beta, const real *__restrict__ g,
                      const real *__restrict__ boundary_states, const Number *__restrict__ dy,
                      const real *__restrict__ dv, const real *__restrict__ dlast, Number *__restrict__ dq,
                      Number *__restrict__ dk, real *__restrict__ dlog_decay, real *__restrict__ dS, int length,
                      int keys, int values) {
    __shared__ Tile query_tile, key_tile, scores, key_scores, gate_terms;
    __shared__ Gates gates;
    __shared__ real end_terms[SIDE], S_dS_of_warp[WARPS];
    DYNAMIC_SHARED(Tile, state);  // one for every 32 values: dSᵀ
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slices = (keys + SIDE - 1) / SIDE;
    int column = blockIdx.x % slices * SIDE, slabs = (values + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slices, entries = (long long)keys * values;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    dq += sequence * length * keys, dk += sequence * length * keys;
    dlog_decay += (blockIdx.x % slices * (gridDim.x / slices) + sequence) * length;
    u += sequence * length * values, dy += sequence * length * values, dv += sequence * length * values;
    boundary_states += sequence * chunks * entries, dlast += sequence * entries, dS += sequence * entries;

    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + warp_row + r, key = column + lane;
            state[slab][warp_row + r][lane] = key < keys && value < values ? dlast[(long long)key * values + value] : 0;
        }

    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int first = chunk * SIDE;
        Accumulator score = {}, key_score = {}, dy_S = {}, dv_S = {}, u_dS = {};
        real S_dS = 0;
        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the previous tiles have been read
            load_tile(query_tile, dy, first, slab * SIDE, length, values);
            load_tile(key_tile, u, first, slab * SIDE, length, values);
            load_tile(scores, dv, first, slab * SIDE, length, values);
            load_tile(key_scores, boundary_states + chunk * entries, column, slab * SIDE, keys, values);
            if (slab == 0) load_gates(gates, g, beta, first, length, false);
            __syncthreads();
            products(Rows{query_tile}, into(score, Rows{key_tile}), into(dy_S, Rows{key_scores}));
            products(Rows{scores}, into(key_score, Rows{key_tile}), into(dv_S, Rows{key_scores}));
            products(Rows{key_tile}, into(u_dS, Columns{state[slab]}));
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                S_dS = fma(key_scores[warp_row + r][lane], state[slab][lane][warp_row + r], S_dS);
        }
        real decay[ROWS];
        chunk_decays(gates.logs, decay);
        S_dS = warp_sum(S_dS);
        __syncthreads();  // the last slab has been read
        if (lane == 0) S_dS_of_warp[threadIdx.x / 32] = S_dS;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = Accumulator::row(r), s = Accumulator::column(r);
            score.at[r] *= s <= t ? decay[r] : 0, key_score.at[r] *= s < t ? decay[r] : 0;
            dy_S.at[r] *= gates.gamma[t], dv_S.at[r] *= gates.gamma[t], u_dS.at[r] *= gates.omega[t];
        }
        store(score, scores), store(key_score, key_scores);
        load_tile(query_tile, q, first, column, length, keys);
        load_tile(key_tile, k, first, column, length, keys);
        __syncthreads();
        Accumulator q_dot_k = {}, k_dot_k = {}, start_products, end_products;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            real query = query_tile[Accumulator::row(r)][Accumulator::column(r)],
                key = key_tile[Accumulator::row(r)][Accumulator::column(r)];
            start_products.at[r] = query * dy_S.at[r] - key * dv_S.at[r], end_products.at[r] = key * u_dS.at[r];
        }
        real start_sums[ROWS], end_sums[ROWS], pair_terms[ROWS];
        to_row_layout(start_products, gate_terms, start_sums), to_row_layout(end_products, gate_terms, end_sums);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            start_sums[r] = warp_sum(start_sums[r]), end_sums[r] = warp_sum(end_sums[r]);
            if (lane == 0) end_terms[warp_row + r] = end_sums[r];
        }
        products(Rows{query_tile}, into(q_dot_k, Rows{key_tile}));  // dot products of keys, in the layout of the scores
        products(Rows{key_tile}, into(k_dot_k, Rows{key_tile}));
#pragma unroll
        for (int r = 0; r < ROWS; r++) q_dot_k.at[r] = score.at[r] * q_dot_k.at[r] - key_score.at[r] * k_dot_k.at[r];
        to_row_layout(q_dot_k, gate_terms, pair_terms);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            real before = sum_before(pair_terms[r]);
            gate_terms[warp_row + r][lane] = lane <= warp_row + r ? start_sums[r] + before : 0;
        }
        products(lower(), Rows{scores}, into(dy_S, Columns{key_tile}));
        store(dy_S, dq, first, column, length, keys);
        Accumulator subtracted = dv_S;
        products(lower(), Rows{key_scores}, into(subtracted, Columns{key_tile}));
        products(upper(), Columns{key_scores}, into(subtracted, Columns{key_tile}));
        products(upper(), Columns{scores}, into(u_dS, Columns{query_tile}));
#pragma unroll
        for (int r = 0; r < ROWS; r++) u_dS.at[r] -= subtracted.at[r];
        store(u_dS, dk, first, column, length, keys);
        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the scores, or the previous slab, have been read
            if (slab == 0) decay_from_chunk_start(query_tile, gates, 1), decay_from_chunk_start(key_tile, gates, -1);
            load_tile(scores, dy, first, slab * SIDE, length, values);
            load_tile(key_scores, dv, first, slab * SIDE, length, values);
            Accumulator sum;
            load(sum, state[slab]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gates.gamma[SIDE - 1];
            __syncthreads();
            products(Columns{scores}, into(sum, Columns{query_tile}));
            products(Columns{key_scores}, into(sum, Columns{key_tile}));
            store(sum, state[slab]);
        }
        if (warp_row == 0) {  // a lane is a token: the sum over pairs on both sides of its gate
            real sum = 0;
            for (int w = 0; w < WARPS; w++) sum += S_dS_of_warp[w];
            sum *= gates.gamma[SIDE - 1];
            for (int s = 0; s < SIDE; s++) sum += (s < lane ? end_terms[s] : 0) + gate_terms[s][lane];
            if (first + lane < length) dlog_decay[first + lane] = sum;
        }
    }
    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + Accumulator::row(r), key = column + Accumulator::column(r);
            if (key < keys && value < values)
                dS[(long long)key * values + value] = state[slab][Accumulator::row(r)][Accumulator::column(r)];
        }
}
