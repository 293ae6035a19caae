// Linear attention in chunks, the state passed from one to the next; its adjoint is three more linear attentions.
//
//     Sₜ = Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ                               Katharopoulos et al. 2020, eq. 16–20
//     Y = Q S + (Q Kᵀ ∘ M) V      S′ = S + Kᵀ V                            a chunk; M[t, s] = 1 for s ≤ t, else 0
//
// backward, with S̄ₜ = S̄ₜ₊₁ + qₜᵀ ȳₜ the cotangent of Sₜ: the same kernel with other arrays in the places of (q, k, v, S),
//
//     q̄ₜ = ȳₜ Sₜᵀ: (ȳ, v, k, Sᵀ)          and from the last token to the first          v̄ₜ = kₜ S̄ₜ: (k, q, ȳ, S̄)
//                                                                                      k̄ₜ = vₜ S̄ₜᵀ: (v, ȳ, q, S̄ᵀ)
//
// q, k are (batch, T, K), v and y (batch, T, V), S (batch, K, V).
//
// A block owns 32 columns of v of one sequence: their part of S lies in shared memory while it walks along T in chunks of
//         32 tokens. It takes the keys 32 at a time: a slice of q and k, 32 × 32, serves the scores, the read and the write.
// A warp owns 4 of a chunk's tokens, and 4 keys of each slice.
// A thread owns one column: its 4 tokens' results and scores are in registers, and no other warp touches its rows of S.
//
// Bytes   v is read and y written once; q and k are read once for every 32 columns, but the first time from the
//         second-level cache: 4 · (2 K + 2 V) a token at float32.
// Work    a token: 4 K V operations for read and write, 64 (K + V) for the scores inside its chunk (2 K of these for each
//         32 columns).
// Floor   at K = V = 128, 82,000 operations for 2 KB: arithmetic.
#include "tiles.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
linear_attention(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
                 const real *__restrict__ S, real *__restrict__ y, real *__restrict__ last, int length, int keys, int values,
                 int back) {
    __shared__ Square queries, written, columns, scores;
    DYNAMIC_SHARED(real, state);  // (keys, rounded up to whole slices, SIDE)
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int sequence = blockIdx.x / slabs, column = blockIdx.x % slabs * SIDE;
    bool inside = column + lane < values;
    q += (long long)sequence * length * keys, k += (long long)sequence * length * keys;
    v += (long long)sequence * length * values, y += (long long)sequence * length * values;
    S += (long long)sequence * keys * values + column, last += (long long)sequence * keys * values + column;

    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + mine; row < slice + mine + ROWS; row++)
            state[row * SIDE + lane] = inside && row < keys ? S[(long long)row * values + lane] : 0;

    for (int first = 0; first < length; first += SIDE) {
        real score[ROWS] = {}, out[ROWS] = {};
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the slice before is done with
            if (slice == 0) fill(columns, v, first, column, length, values, back);
            fill(queries, q, first, slice, length, keys, back);
            fill(written, k, first, slice, length, keys, back);
            __syncthreads();
            for (int j = 0; j < SIDE; j++) {
                real key = written[lane][j], before = state[(slice + j) * SIDE + lane];
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    score[r] = fma(queries[mine + r][j], key, score[r]);
                    out[r] = fma(queries[mine + r][j], before, out[r]);
                }
            }
            __syncthreads();  // all have read the state
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                real sum = state[(slice + mine + r) * SIDE + lane];
                for (int t = 0; t < SIDE; t++) sum = fma(written[t][mine + r], columns[t][lane], sum);
                state[(slice + mine + r) * SIDE + lane] = sum;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) scores[mine + r][lane] = lane <= mine + r ? score[r] : 0;
        __syncwarp();
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            for (int s = 0; s <= mine + r; s++) out[r] = fma(scores[mine + r][s], columns[s][lane], out[r]);
            int t = first + mine + r;
            if (inside && t < length) y[(long long)(back ? length - 1 - t : t) * values + column + lane] = out[r];
        }
    }
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + mine; row < slice + mine + ROWS; row++)
            if (inside && row < keys) last[(long long)row * values + lane] = state[row * SIDE + lane];
}
