// The gated delta rule in chunks, a triangular system solved in each; and the first half of its adjoint.
//
//     eₜ = vₜ − αₜ kₜ Sₜ₋₁          Sₜ = αₜ Sₜ₋₁ + βₜ kₜᵀ eₜ          yₜ = qₜ Sₜ          Yang et al. 2025, eq. 10
//     (I + N) E = V − γ K S         N[t, s] = Γ[t, s] (kₜ · kₛ) βₛ for s < t               section 3.3, solved for E
//     Y = γ Q S + (Q Kᵀ ∘ Γ ∘ M) βE          S′ = γ_C S + (Kᵀ ∘ Γ[C]) βE
//
// backward, with S̄ₜ the cotangent of Sₜ, from the last token to the first: what each correction gets. (The second half, once
// these are known, is in gated_delta_rule_keys.cu.)
//
//     S̄ₜ = αₜ₊₁ (S̄ₜ₊₁ − kₜ₊₁ᵀ v̄ₜ₊₁) + qₜᵀ ȳₜ          wₜ = kₜ S̄ₜ          v̄ₜ = βₜ wₜ          β̄ₜ = wₜ eₜᵀ
//     (I + N′) W = γ′ K S̄ + (K Qᵀ ∘ Γ′ ∘ M) Ȳ           a chunk in the other order of time, with the gates of the tokens after
//
// Γ[t, s] = αₛ₊₁ ⋯ αₜ, and γ what is left since the chunk's start: exponentials of sums of log α that are added up on their
// own, as a difference of running sums would be −∞ − (−∞) after a gate of 0. With all gates open this is the delta rule.
//
// q, k are (batch, T, K), v, y, e and w (batch, T, V), S (batch, K, V), beta and log α (batch, T).
//
// A block owns 32 columns of v of one sequence, and walks along T in chunks of 32 tokens, their part of S in shared memory.
// A warp owns 4 tokens, and 4 keys of each 32 when S is written. The system is solved by substitution: each warp in turn
//         finishes its 4 rows, and the later ones take these off theirs.
// A thread owns one column of its warp's tokens, and of their scores.
//
// Bytes   a token forward reads v, writes y and e and 1/32 of S; q and k, twice for every 32 columns, come from the
//         second-level cache after the first time: 4 · (2 K + 3 V + K V / 32) at float32. Backward reads ȳ and writes w.
// Work    a token forward: 7 K V operations to read and write S, 4 K V for the scores (made anew for every 32 columns), and
//         64 V inside its chunk. Backward: as many.
// Floor   at K = V = 128, 190,000 operations forward for 4.5 KB: arithmetic.
#include "gates.cuh"

// X of (I + N) X = right, and β X in `scaled`, of which its own warp wrote each row of `overlaps`, N without β.
__device__ inline void solve(const Square &overlaps, const Gates &gates, real (&right)[ROWS], Square &scaled) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, mine = warp * ROWS;
    for (int turn = 0; turn < WARPS; turn++) {
        if (warp == turn) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int s = 0; s < r; s++) right[r] -= overlaps[mine + r][mine + s] * (gates.beta[mine + s] * right[s]);
                scaled[mine + r][lane] = gates.beta[mine + r] * right[r];
            }
        }
        __syncthreads();
        if (warp > turn)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                for (int s = turn * ROWS; s < turn * ROWS + ROWS; s++)
                    right[r] = fma(-overlaps[mine + r][s], scaled[s][lane], right[r]);
    }
}

// kept (batch, chunks, K, V): S at the start of every chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
                 const real *__restrict__ beta, const real *__restrict__ g, const real *__restrict__ S, real *__restrict__ y,
                 real *__restrict__ e, real *__restrict__ last, real *__restrict__ kept, int length, int keys, int values) {
    __shared__ Square queries, written, scores, overlaps;
    __shared__ Gates gates;
    DYNAMIC_SHARED(real, state);  // (keys, rounded up to whole slices, SIDE)
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    v += sequence * length * values + column, y += sequence * length * values + column;
    e += sequence * length * values + column;
    S += sequence * entries + column, last += sequence * entries + column, kept += sequence * chunks * entries + column;

    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + mine; row < slice + mine + ROWS; row++)
            state[row * SIDE + lane] = inside && row < keys ? S[(long long)row * values + lane] : 0;

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        real score[ROWS] = {}, overlap[ROWS] = {}, read[ROWS] = {}, held[ROWS] = {}, since[ROWS], gamma[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the tiles before are done with
            fill(queries, q, first, slice, length, keys);
            fill(written, k, first, slice, length, keys);
            if (slice == 0) fill(gates, g, beta, first, length, false);
            __syncthreads();
            for (int j = 0; j < SIDE; j++) {
                real key = written[lane][j], before = state[(slice + j) * SIDE + lane];
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    score[r] = fma(queries[mine + r][j], key, score[r]);
                    read[r] = fma(queries[mine + r][j], before, read[r]);
                    overlap[r] = fma(written[mine + r][j], key, overlap[r]);
                    held[r] = fma(written[mine + r][j], before, held[r]);
                }
            }
        }
        fade(gates.logs, since, gamma);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = mine + r;
            scores[t][lane] = lane <= t ? since[r] * score[r] : 0;
            overlaps[t][lane] = since[r] * overlap[r];
            held[r] = (inside && first + t < length ? v[(first + t) * (long long)values + lane] : 0) - gamma[r] * held[r];
        }
        __syncwarp();  // a row of any of these squares is its warp's own
        Square &corrections = queries;  // β E
        solve(overlaps, gates, held, corrections);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = mine + r;
            real out = gamma[r] * read[r];
            for (int s = 0; s <= t; s++) out = fma(scores[t][s], corrections[s][lane], out);
            long long at = (first + t) * (long long)values + lane;
            if (inside && first + t < length) y[at] = out, e[at] = held[r];
        }
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the keys before are done with
            fill(written, k, first, slice, length, keys);
            __syncthreads();
            real *own = &state[(slice + mine) * SIDE + lane], sum[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                sum[r] = own[r * SIDE];
                if (inside && slice + mine + r < keys)
                    kept[chunk * entries + (long long)(slice + mine + r) * values + lane] = sum[r];
            }
            for (int t = 0; t < SIDE; t++)
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    sum[r] = fma(written[t][mine + r], corrections[t][lane], gates.alpha[t] * sum[r]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) own[r * SIDE] = sum[r];
        }
    }
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + mine; row < slice + mine + ROWS; row++)
            if (inside && row < keys) last[(long long)row * values + lane] = state[row * SIDE + lane];
}

// W, in chunks of tokens counted from the end.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule_backward(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ beta,
                                 const real *__restrict__ g, const real *__restrict__ gy, const real *__restrict__ glast,
                                 real *__restrict__ w, int length, int keys, int values) {
    __shared__ Square queries, written, scores, overlaps, columns;
    __shared__ Gates gates;
    DYNAMIC_SHARED(real, state);  // (keys, rounded up to whole slices, SIDE): S̄
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    gy += sequence * length * values, w += sequence * length * values + column;
    glast += sequence * keys * values + column;

    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + mine; row < slice + mine + ROWS; row++)
            state[row * SIDE + lane] = inside && row < keys ? glast[(long long)row * values + lane] : 0;

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        real score[ROWS] = {}, overlap[ROWS] = {}, held[ROWS] = {}, since[ROWS], gamma[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the tiles before are done with
            fill(queries, q, first, slice, length, keys, true);
            fill(written, k, first, slice, length, keys, true);
            if (slice == 0) fill(gates, g, beta, first, length, true), fill(columns, gy, first, column, length, values, true);
            __syncthreads();
            for (int j = 0; j < SIDE; j++) {
                real query = queries[lane][j], key = written[lane][j], before = state[(slice + j) * SIDE + lane];
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    score[r] = fma(written[mine + r][j], query, score[r]);
                    overlap[r] = fma(written[mine + r][j], key, overlap[r]);
                    held[r] = fma(written[mine + r][j], before, held[r]);
                }
            }
        }
        fade(gates.logs, since, gamma);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            scores[mine + r][lane] = since[r] * score[r], overlaps[mine + r][lane] = since[r] * overlap[r];
        __syncwarp();
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            held[r] *= gamma[r];
            for (int s = 0; s <= mine + r; s++) held[r] = fma(scores[mine + r][s], columns[s][lane], held[r]);
        }
        __syncwarp();  // its lanes have read their scores
        Square &corrections = scores;  // β W
        solve(overlaps, gates, held, corrections);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + mine + r;
            if (inside && t < length) w[(length - 1 - t) * (long long)values + lane] = held[r];
        }
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the keys before are done with
            fill(queries, q, first, slice, length, keys, true);
            fill(written, k, first, slice, length, keys, true);
            __syncthreads();
            real *own = &state[(slice + mine) * SIDE + lane], sum[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum[r] = own[r * SIDE];
            for (int t = 0; t < SIDE; t++)
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    sum[r] = fma(queries[t][mine + r], columns[t][lane], gates.alpha[t] * sum[r]);
                    sum[r] = fma(-written[t][mine + r], corrections[t][lane], sum[r]);
                }
#pragma unroll
            for (int r = 0; r < ROWS; r++) own[r * SIDE] = sum[r];
        }
    }
}
