// The second half of the gated delta rule's adjoint: once its corrections e and their cotangents v̄ are known, S and S̄ are
// those of a linear attention that wrote βe and was told ȳ and v̄.
//
//     q̄ₜ = ȳₜ Sₜᵀ          k̄ₜ = βₜ eₜ S̄ₜᵀ − αₜ v̄ₜ Sₜ₋₁ᵀ          log ᾱₜ = αₜ Σ (S̄ₜ − kₜᵀ v̄ₜ) ⊙ Sₜ₋₁     from eq. 10
//
// In a chunk that starts with S and ends with S̄, Γ[t, s] = αₛ₊₁ ⋯ αₜ, γ and ω from its start and to its end, u = βe:
//
//     q̄ₜ = γₜ ȳₜ Sᵀ + Σₛ≤ₜ Γ[t, s] (ȳₜ · uₛ) kₛ
//     k̄ₜ = ωₜ uₜ S̄ᵀ − γₜ v̄ₜ Sᵀ + Σₛ≥ₜ Γ[s, t] (ȳₛ · uₜ) qₛ − Σₛ>ₜ Γ[s, t] (v̄ₛ · uₜ) kₛ − Σₛ<ₜ Γ[t, s] (v̄ₜ · uₛ) kₛ
//     log ᾱₜ = what crosses its gate: Σ over s < t ≤ r of Γ[r, s] ((ȳᵣ · uₛ) (qᵣ · kₛ) − (v̄ᵣ · uₛ) (kᵣ · kₛ)), and the same
//              with S in the place of a token before, and with S̄ in that of one after
//
// Each term of log ᾱₜ holds αₜ, so that a shut gate gets 0; a difference of the sums of q ⊙ q̄ and k ⊙ k̄ over time would be
// shorter, but where gates shut it leaves the rounding errors of others.
//
// q, k are (batch, T, K), u, ȳ and v̄ (batch, T, V), S (batch, K, V), log α (batch, T); log ᾱ is left as a sum for every 32 keys.
//
// A block owns 32 keys of one sequence, their part of S̄ᵀ in shared memory, and walks from the last chunk to the first, each
//         from the S that forward kept at its start.
// A warp owns 4 tokens, and 4 columns of S̄ of each 32; a thread owns one key of them, and one score of each token.
//
// Bytes   a token: ȳ, v̄, u are read for every 32 keys, from the second-level cache after the first time, and ȳ, v̄ twice;
//         q, k and 1/32 of S are read and q̄, k̄ written: 4 · (4 K + 3 V + K V / 32) at float32.
// Work    a token: 6 K V operations for products with S and S̄, 4 K V for those of ȳ and v̄ with u (made anew for every 32
//         keys), 5 K V for S̄, and some 260 K inside its chunk.
// Floor   at K = V = 128, 280,000 operations for 5.6 KB: arithmetic.
#include "gates.cuh"

// gg is (slices, batch, T).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule_keys(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ u,
                               const real *__restrict__ beta, const real *__restrict__ g, const real *__restrict__ kept,
                               const real *__restrict__ gy, const real *__restrict__ gv, const real *__restrict__ glast,
                               real *__restrict__ gq, real *__restrict__ gk, real *__restrict__ gg, real *__restrict__ gS,
                               int length, int keys, int values) {
    __shared__ Square queries, written, scores, overlaps, through;
    __shared__ Gates gates;
    __shared__ real ends[SIDE];
    DYNAMIC_SHARED(real, state);  // (values, rounded up to whole slabs, SIDE): S̄ᵀ
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slices = (keys + SIDE - 1) / SIDE;
    int column = blockIdx.x % slices * SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slices, entries = (long long)keys * values, key = column + lane;
    bool inside = key < keys;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    gq += sequence * length * keys, gk += sequence * length * keys;
    gg += (blockIdx.x % slices * (gridDim.x / slices) + sequence) * length;
    u += sequence * length * values, gy += sequence * length * values, gv += sequence * length * values;
    kept += sequence * chunks * entries, glast += sequence * entries, gS += sequence * entries;

    for (int slab = 0; slab < values; slab += SIDE)
        for (int row = slab + mine; row < slab + mine + ROWS; row++)
            state[row * SIDE + lane] = inside && row < values ? glast[key * values + row] : 0;

    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int first = chunk * SIDE;
        real score[ROWS] = {}, overlap[ROWS] = {}, start[ROWS] = {}, taken[ROWS] = {}, end[ROWS] = {}, all = 0;
        for (int slab = 0; slab < values; slab += SIDE) {
            __syncthreads();  // the tiles before are done with
            fill(queries, gy, first, slab, length, values);
            fill(written, u, first, slab, length, values);
            fill(scores, gv, first, slab, length, values);
            fill(overlaps, kept + chunk * entries, column, slab, keys, values);
            if (slab == 0) fill(gates, g, beta, first, length, false);
            __syncthreads();
            for (int j = 0; j < SIDE; j++) {
                real before = overlaps[lane][j], after = state[(slab + j) * SIDE + lane], value = written[lane][j];
                all = fma(before, after, all);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    score[r] = fma(queries[mine + r][j], value, score[r]);
                    start[r] = fma(queries[mine + r][j], before, start[r]);
                    overlap[r] = fma(scores[mine + r][j], value, overlap[r]);
                    taken[r] = fma(scores[mine + r][j], before, taken[r]);
                    end[r] = fma(written[mine + r][j], after, end[r]);
                }
            }
        }
        real since[ROWS], gamma[ROWS], omega[ROWS];
        fade(gates.logs, since, gamma);
        __syncthreads();  // the last slab is done with
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = mine + r;
            real after = 0;
            for (int s = SIDE - 1; s > t; s--) after += gates.logs[s];
            omega[r] = exp(after);
            scores[t][lane] = lane <= t ? since[r] * score[r] : 0;
            overlaps[t][lane] = lane < t ? since[r] * overlap[r] : 0;
            start[r] *= gamma[r], taken[r] *= gamma[r], end[r] *= omega[r];
        }
        fill(queries, q, first, column, length, keys);
        fill(written, k, first, column, length, keys);
        __syncthreads();
        real to_q[ROWS] = {}, to_k[ROWS] = {};  // products of keys, as the scores have them
        for (int j = 0; j < SIDE; j++)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                to_q[r] = fma(queries[mine + r][j], written[lane][j], to_q[r]);
                to_k[r] = fma(written[mine + r][j], written[lane][j], to_k[r]);
            }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = mine + r;
            real crosses = scores[t][lane] * to_q[r] - overlaps[t][lane] * to_k[r];
            for (int by = 1; by < 32; by *= 2) {
                real earlier = from_earlier(crosses, by);
                if (lane >= by) crosses += earlier;
            }
            crosses = from_earlier(crosses, 1);  // of the tokens before
            real from_start = warp_sum(queries[t][lane] * start[r] - written[t][lane] * taken[r]);
            real to_end = warp_sum(written[t][lane] * end[r]);
            through[t][lane] = lane <= t ? from_start + (lane ? crosses : 0) : 0;
            if (lane == 0) ends[t] = to_end;

            real sum = start[r];
            for (int s = 0; s <= t; s++) sum = fma(scores[t][s], written[s][lane], sum);
            if (inside && first + t < length) gq[(first + t) * (long long)keys + key] = sum;
            sum = end[r] - taken[r];
            for (int s = 0; s < t; s++) sum = fma(-overlaps[t][s], written[s][lane], sum);
            for (int s = t; s < SIDE; s++)
                sum = fma(scores[s][t], queries[s][lane], fma(-overlaps[s][t], written[s][lane], sum));
            if (inside && first + t < length) gk[(first + t) * (long long)keys + key] = sum;
        }
        for (int slab = 0; slab < values; slab += SIDE) {
            __syncthreads();  // the scores, or the slab before, are done with
            fill(scores, gy, first, slab, length, values);
            fill(overlaps, gv, first, slab, length, values);
            __syncthreads();
            real *own = &state[(slab + mine) * SIDE + lane], sum[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum[r] = own[r * SIDE];
            for (int t = SIDE - 1; t >= 0; t--)
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    sum[r] = fma(scores[t][mine + r], queries[t][lane], sum[r]);
                    sum[r] = gates.alpha[t] * fma(-overlaps[t][mine + r], written[t][lane], sum[r]);
                }
#pragma unroll
            for (int r = 0; r < ROWS; r++) own[r * SIDE] = sum[r];
        }
        if (mine == 0) {  // a lane is a token: what crosses its gate
            real sum = warp_sum(all) * omega[0] * gates.alpha[0];
            for (int s = 0; s < SIDE; s++) sum += (s < lane ? ends[s] : 0) + through[s][lane];
            if (first + lane < length) gg[first + lane] = sum;
        }
    }
    for (int slab = 0; slab < values; slab += SIDE)
        for (int row = slab + mine; row < slab + mine + ROWS; row++)
            if (inside && row < values) gS[key * values + row] = state[row * SIDE + lane];
}
