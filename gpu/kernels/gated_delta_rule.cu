// The gated delta rule in chunks, each a unit lower triangular system, and the first half of its adjoint.
//
//     eₜ = vₜ − αₜ kₜ Sₜ₋₁          Sₜ = αₜ Sₜ₋₁ + βₜ kₜᵀ eₜ          yₜ = qₜ Sₜ          Yang et al. 2025, eq. 10
//     (I + N) E = V − γ K S         N[t, s] = Γ[t, s] (kₜ · kₛ) βₛ for s < t               section 3.3, solved for E
//     Y = γ Q S + (Q Kᵀ ∘ Γ ∘ M) βE          S′ = γ_C S + (Kᵀ ∘ Γ[C]) βE
//
// backward, with dSₜ the cotangent of Sₜ, in reverse: the cotangents wₜ of the corrections βₜ eₜ. (The second half,
// which needs them, is in gated_delta_rule_keys.cu.)
//
//     dSₜ = αₜ₊₁ (dSₜ₊₁ − kₜ₊₁ᵀ dvₜ₊₁) + qₜᵀ dyₜ          wₜ = kₜ dSₜ          dvₜ = βₜ wₜ          dβₜ = wₜ eₜᵀ
//     (I + N′) W = γ′ K dS + (K Qᵀ ∘ Γ′ ∘ M) dY           a chunk in reverse, with the gates of the next tokens
//
// Γ[t, s] = αₛ₊₁ ⋯ αₜ, and γ the decay since the chunk's start: each is the exponential of its own sum of log α, as a
// difference of cumulative sums would be −∞ − (−∞) after a gate of 0. With α = 1 this is the delta rule.
//
// q, k are (batch, T, K), v, y, e and w (batch, T, V), S (batch, K, V), beta and log α (batch, T).
//
// Block    32 columns of v of one sequence, chunk by chunk of 32 tokens; their part of S stays in shared memory.
// Thread   4 elements of every tile, in the layout of product.cuh: of scores and outputs, in registers, and of S, which
//          no other thread writes.
// Warp     4 tokens in the solution of the system by forward substitution: each warp in turn finishes its 4 rows, and
//          the later ones subtract them.
//
// Memory traffic   per token forward: v is read, y, e and 1/32 of S are written; q and k are read twice per 32 columns,
//                  from the L2 cache after the first time: 4 · (2 K + 3 V + K V / 32) bytes at float32. Backward reads
//                  dy, writes w.
// FLOPs            per token forward: 6 K V to read and update S, 4 K V for the scores (recomputed per 32 columns), and
//                  64 V within its chunk. Backward: 6 K V, 4 K V and 64 V too. With OPERAND defined all but the
//                  substitution, 32 V, are on tensor cores, which round q, k, S and what is multiplied by them; S
//                  itself, e, w and sums are float32.
// Bound            compute: at K = V = 128, 170,000 operations forward for 4.5 KB.
#include "gates.cuh"

// Solve (I + N) X = right in place, 4 rows per warp, and store β X in `scaled`; `key_scores` is N without β.
__device__ inline void solve(const Tile &key_scores, const Gates &gates, real (&right)[ROWS], Tile &scaled) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp * ROWS;
    for (int turn = 0; turn < WARPS; turn++) {
        if (warp == turn) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int s = 0; s < r; s++) right[r] -= key_scores[warp_row + r][warp_row + s]
                    * (gates.beta[warp_row + s] * right[s]);
                scaled[warp_row + r][lane] = gates.beta[warp_row + r] * right[r];
            }
        }
        __syncthreads();
        if (warp > turn)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                for (int s = turn * ROWS; s < turn * ROWS + ROWS; s++)
                    right[r] = fma(-key_scores[warp_row + r][s], scaled[s][lane], right[r]);
    }
}

// Multiply each token's row by its decay until the end of the chunk.
__device__ inline void decay_to_chunk_end(Tile &tile, const Gates &gates, real sign) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = Accumulator::row(r);
        tile[t][Accumulator::column(r)] *= sign * gates.omega[t];
    }
}

// boundary_states (batch, chunks, K, V): S at the start of every chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                 const real *__restrict__ beta, const real *__restrict__ g, const real *__restrict__ S,
                 Number *__restrict__ y, real *__restrict__ e, real *__restrict__ last,
                 real *__restrict__ boundary_states, int length, int keys, int values) {
    __shared__ Tile query_tile, key_tile, scores, key_scores;
    __shared__ Gates gates;
    DYNAMIC_SHARED(Tile, state);  // one for every 32 keys
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, slices = (keys + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    v += sequence * length * values, y += sequence * length * values, e += sequence * length * values;
    S += sequence * entries, last += sequence * entries, boundary_states += sequence * chunks * entries;

    for (int slice = 0; slice < slices; slice++) load_tile(state[slice], S, slice * SIDE, column, keys, values);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        Accumulator score = {}, key_score = {}, read = {}, prediction = {}, sum;
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the previous tiles have been read
            load_tile(query_tile, q, first, slice * SIDE, length, keys);
            load_tile(key_tile, k, first, slice * SIDE, length, keys);
            if (slice == 0) load_gates(gates, g, beta, first, length, false);
            __syncthreads();
            products(Rows{query_tile}, into(score, Rows{key_tile}), into(read, Columns{state[slice]}));
            products(Rows{key_tile}, into(key_score, Rows{key_tile}), into(prediction, Columns{state[slice]}));
        }
        real decay[ROWS], error[ROWS];
        chunk_decays(gates.logs, decay);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + Accumulator::row(r), c = column + Accumulator::column(r);
            score.at[r] *= Accumulator::column(r) <= Accumulator::row(r) ? decay[r] : 0;
            key_score.at[r] *= decay[r], read.at[r] *= gates.gamma[Accumulator::row(r)];
            real value = t < length && c < values ? widen(v[t * (long long)values + c]) : 0;
            prediction.at[r] = value - gates.gamma[Accumulator::row(r)] * prediction.at[r];
        }
        store(score, scores), store(key_score, key_scores);
        __syncwarp();  // rows are either written by the warp that reads them, or to_row_layout has a barrier
        Tile &corrections = query_tile;  // β E
        to_row_layout(prediction, corrections, error);
        solve(key_scores, gates, error, corrections);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r, c = column + lane;
            if (t < length && c < values) e[t * (long long)values + c] = error[r];
        }
        products(lower(), Rows{scores}, into(read, Columns{corrections}));
        store(read, y, first, column, length, values);
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the previous keys have been read
            if (slice == 0) decay_to_chunk_end(corrections, gates, 1);
            load_tile(key_tile, k, first, slice * SIDE, length, keys);
            load(sum, state[slice]);
            store(sum, boundary_states + chunk * entries, slice * SIDE, column, keys, values);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gates.gamma[SIDE - 1];
            __syncthreads();
            products(Columns{key_tile}, into(sum, Columns{corrections}));
            store(sum, state[slice]);
        }
    }
    for (int slice = 0; slice < slices; slice++) {
        Accumulator sum;
        load(sum, state[slice]);
        store(sum, last, slice * SIDE, column, keys, values);
    }
}

// W, with tokens, and so chunks, in reverse order.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule_backward(const Number *__restrict__ q, const Number *__restrict__ k, const real *__restrict__ beta,
                          const real *__restrict__ g, const Number *__restrict__ dy, const real *__restrict__ dlast,
                          real *__restrict__ w, int length, int keys, int values) {
    __shared__ Tile query_tile, key_tile, scores, key_scores, dys;
    __shared__ Gates gates;
    DYNAMIC_SHARED(Tile, state);  // one for every 32 keys: dS
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, slices = (keys + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    dy += sequence * length * values, w += sequence * length * values, dlast += sequence * keys * values;

    for (int slice = 0; slice < slices; slice++) load_tile(state[slice], dlast, slice * SIDE, column, keys, values);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        Accumulator score = {}, key_score = {}, prediction = {}, sum;
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the previous tiles have been read
            load_tile(query_tile, q, first, slice * SIDE, length, keys, true);
            load_tile(key_tile, k, first, slice * SIDE, length, keys, true);
            if (slice == 0) {
                load_gates(gates, g, beta, first, length, true);
                load_tile(dys, dy, first, column, length, values, true);
            }
            __syncthreads();
            products(Rows{key_tile}, into(score, Rows{query_tile}), into(key_score, Rows{key_tile}),
                     into(prediction, Columns{state[slice]}));
        }
        real decay[ROWS], solved[ROWS];
        chunk_decays(gates.logs, decay);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            score.at[r] *= Accumulator::column(r) <= Accumulator::row(r) ? decay[r] : 0;
            key_score.at[r] *= decay[r], prediction.at[r] *= gates.gamma[Accumulator::row(r)];
        }
        store(score, scores), store(key_score, key_scores);
        __syncthreads();
        products(lower(), Rows{scores}, into(prediction, Columns{dys}));
        __syncwarp();  // all lanes have read their scores, where a warp has whole rows
        Tile &corrections = scores;  // β W
        to_row_layout(prediction, corrections, solved);
        solve(key_scores, gates, solved, corrections);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r, c = column + lane;
            if (t < length && c < values) w[(length - 1 - t) * (long long)values + c] = solved[r];
        }
        decay_to_chunk_end(corrections, gates, -1), decay_to_chunk_end(dys, gates, 1);
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the previous keys have been read
            load_tile(query_tile, q, first, slice * SIDE, length, keys, true);
            load_tile(key_tile, k, first, slice * SIDE, length, keys, true);
            load(sum, state[slice]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gates.gamma[SIDE - 1];
            __syncthreads();
            products(Columns{query_tile}, into(sum, Columns{dys}));
            products(Columns{key_tile}, into(sum, Columns{corrections}));
            store(sum, state[slice]);
        }
    }
}
