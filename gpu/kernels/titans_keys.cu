// The second half of the adjoint of Titans' matrix memory: given the updates u = −θ e and their cotangents, all chunks
// of a sequence in parallel.
//
// In a chunk with initial S and M, last token c and final cotangents dS and dM, with Γ[t, s] = αₛ₊₁ ⋯ αₜ and
// H[t, s] = ηₛ₊₁ ⋯ ηₜ for s ≤ t, γ and h the same since the chunk's start, and P = Γ H, p = Γ h (eq. 13–14 unrolled):
//
//     yₜ = γₜ qₜ M + pₜ qₜ S + Σₛ P[t, s] (qₜ · kₛ) uₛ
//     dqₜ = γₜ dyₜ Mᵀ + pₜ dyₜ Sᵀ + Σₛ P[t, s] (dyₜ · uₛ) kₛ
//     dkₛ = Σₜ P[t, s] (dyₜ · uₛ) qₜ + P[c, s] uₛ dMᵀ + H[c, s] uₛ dSᵀ + deₛ Wᵀ
//
// The cotangent of a gate sums over pairs on both sides of it. With w[t, s] = (dyₜ · uₛ)(qₜ · kₛ), and the terms of dM
// counted as if they were of the last token:
//
//     dlog αₜ = Σ_{r ≥ t} Γ[r, t−1] (Σ_{s<t} P[t−1, s] w[r, s] + pₜ₋₁ d[r]) + Σ_{r ≥ t} γᵣ c[r]
//     dlog ηₜ = Σ_{s<t} H[t, s] (Σ_{r ≥ t} P[r, t] w[r, s] + H[c, t] (uₛ · (kₛ dS))) + hₜ (…)
//     c[r] = dyᵣ · (qᵣ M)          d[r] = dyᵣ · (qᵣ S)
//
// (… the same with S in place of token s). Every term has the gate as a factor: at a gate of 0 it is exactly 0.
//
// q, k are (batch, T, K), u, de and dy (batch, T, V), memories (batch, K, V); dlog η and dlog α are partial sums per 32
// keys.
//
// Block    32 keys of one chunk. Warp: 4 tokens. Thread: one key of them, and one pair of each with another token.
//
// Memory traffic   per chunk S, M, dS, dM and W are read: 5 K V elements; dy, u and de per 32 keys, from the L2 cache
//                  after the first time; q, k are read, dq, dk written. With 32 tokens 4 · (5 K V / 32 + 4 K + 3 V)
//                  bytes per token.
// FLOPs            per token: 10 K V for products with memories, 2 K V for dy · u (recomputed per 32 keys), 1.5 K V for
//                  inner products of memories (by every warp), and about 230 K within its chunk.
// Bound            compute: at K = V = 128, 250,000 operations for 14 KB.
#include "tiles.cuh"

// Decays at this warp's tokens: since token `lane` (1 if that is later), and since the start of the chunk.
__device__ inline void chunk_decays(const real (&logs)[SIDE], real (&decay)[ROWS], real (&gamma)[ROWS]) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
    real after = 0, shared = 0;
    for (int t = 0; t < warp_row; t++) shared += logs[t], after += t > lane ? logs[t] : 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        shared += logs[warp_row + r], after += warp_row + r > lane ? logs[warp_row + r] : 0;
        decay[r] = exp(after), gamma[r] = exp(shared);
    }
}

struct Chunk {
    Square tiles[8];
    real eta[SIDE], alpha[SIDE];  // logarithms; 0 past the end of the chunk
    real h[SIDE], gamma[SIDE], p[SIDE], c[SIDE], d[SIDE], x[SIDE], z[SIDE];  // of each token: as in the equations
    real parts[WARPS][SIDE];
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
titans_keys(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ u,
            const real *__restrict__ log_eta, const real *__restrict__ log_alpha, const real *__restrict__ W,
            const real *__restrict__ boundary_states, const real *__restrict__ dstates, const real *__restrict__ dy,
            const real *__restrict__ de, const int *__restrict__ chunk_starts,
            const int *__restrict__ batch_first_chunk, real *__restrict__ dq, real *__restrict__ dk,
            real *__restrict__ dlog_eta, real *__restrict__ dlog_decay, int length, int keys, int values, int chunks) {
    DYNAMIC_SHARED(Chunk, shared);
    Square *tiles = shared->tiles;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp * ROWS, slices = (keys + SIDE - 1) / SIDE;
    int column = blockIdx.x % slices * SIDE, chunk = blockIdx.x / slices % chunks;
    int first = chunk_starts[chunk], stop = chunk_starts[chunk + 1], end = stop - first - 1;
    long long sequence = blockIdx.x / slices / chunks, entries = (long long)keys * values, key = column + lane;
    bool inside = key < keys;
    q += sequence * length * keys, k += sequence * length * keys, dq += sequence * length * keys;
    dk += sequence * length * keys, log_eta += sequence * length, log_alpha += sequence * length;
    u += sequence * length * values, dy += sequence * length * values, de += sequence * length * values;
    boundary_states += 2 * sequence * chunks * entries, dstates += 2 * (sequence * chunks + chunk) * entries;
    int opening = batch_first_chunk[chunk];
    W = opening < 0 ? W + sequence * entries : boundary_states + (2 * opening + 1) * entries;
    boundary_states += 2 * chunk * entries;
    long long part = (blockIdx.x % slices * (gridDim.x / slices / chunks) + sequence) * length;
    dlog_eta += part, dlog_decay += part;

    real pair[ROWS] = {}, dy_S[ROWS] = {}, dy_M[ROWS] = {}, u_dS[ROWS] = {}, u_dM[ROWS] = {}, de_W[ROWS] = {};
    real M_dM = 0, S_dM = 0, S_dS = 0;
    for (int slab = 0; slab < values; slab += SIDE) {
        __syncthreads();  // the previous tiles have been read
        const real *by_token[] = {dy, u, de};
        const real *by_key[] = {boundary_states, boundary_states + entries, dstates, dstates + entries, W};
        for (int i = 0; i < 3; i++) load_tile(tiles[i], by_token[i], first, slab, stop, values);
        for (int i = 0; i < 5; i++) load_tile(tiles[3 + i], by_key[i], column, slab, keys, values);
        __syncthreads();
        for (int j = 0; j < SIDE; j++) {
            real value = tiles[1][lane][j], S = tiles[3][lane][j], M = tiles[4][lane][j], dS_j = tiles[5][lane][j];
            real dM_j = tiles[6][lane][j], W_j = tiles[7][lane][j];
            M_dM = fma(M, dM_j, M_dM), S_dM = fma(S, dM_j, S_dM), S_dS = fma(S, dS_j, S_dS);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                real dy_t = tiles[0][warp_row + r][j], u_t = tiles[1][warp_row + r][j];
                pair[r] = fma(dy_t, value, pair[r]);
                dy_S[r] = fma(dy_t, S, dy_S[r]), dy_M[r] = fma(dy_t, M, dy_M[r]);
                u_dS[r] = fma(u_t, dS_j, u_dS[r]), u_dM[r] = fma(u_t, dM_j, u_dM[r]);
                de_W[r] = fma(tiles[2][warp_row + r][j], W_j, de_W[r]);
            }
        }
    }
    __syncthreads();  // the last slab has been read
    Square &query_tile = tiles[0], &key_tile = tiles[1], &Gamma = tiles[2], &H = tiles[3], &P = tiles[4],
        &pairs = tiles[5];
    Square &w = tiles[6];
    load_tile(query_tile, q, first, column, stop, keys);
    load_tile(key_tile, k, first, column, stop, keys);
    if (warp == 0) shared->eta[lane] = first + lane < stop ? log_eta[first + lane] : 0;
    if (warp == 1) shared->alpha[lane] = first + lane < stop ? log_alpha[first + lane] : 0;
    __syncthreads();
    real decay[ROWS], decay_from_start[ROWS];
    chunk_decays(shared->eta, decay, decay_from_start);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        H[warp_row + r][lane] = lane <= warp_row + r ? decay[r] : 0;
        if (lane == 0) shared->h[warp_row + r] = decay_from_start[r];
    }
    chunk_decays(shared->alpha, decay, decay_from_start);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        Gamma[warp_row + r][lane] = lane <= warp_row + r ? decay[r] : 0;
        if (lane == 0) shared->gamma[warp_row + r] = decay_from_start[r];
    }
    __syncthreads();
    M_dM = warp_sum(M_dM), S_dM = warp_sum(S_dM), S_dS = warp_sum(S_dS);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = warp_row + r;
        real sum = 0, product = 0;
        for (int s = 0; s <= t; s++) sum = fma(Gamma[t][s], H[s][lane], sum);
        P[t][lane] = sum;
        for (int j = 0; j < SIDE; j++) product = fma(query_tile[t][j], key_tile[lane][j], product);
        pairs[t][lane] = sum * pair[r];
        w[t][lane] = lane <= t ? product * pair[r] : 0;
        real p = warp_sum(Gamma[t][lane] * shared->h[lane]);
        real c = warp_sum(query_tile[t][lane] * dy_M[r]), d = warp_sum(query_tile[t][lane] * dy_S[r]);
        real z = warp_sum(key_tile[t][lane] * u_dS[r]), x = warp_sum(key_tile[t][lane] * u_dM[r]);
        if (lane == 0) {
            shared->p[t] = p, shared->x[t] = x, shared->z[t] = z;
            shared->c[t] = t == end ? c + M_dM : c, shared->d[t] = t == end ? d + S_dM : d;
        }
    }
    __syncthreads();
    if (warp == end / ROWS) w[end][lane] += lane <= end ? shared->x[lane] : 0;
    __syncthreads();
    real gate_terms = 0;  // of this warp's tokens, for the gate α after token `lane`
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = warp_row + r;
        real dq_t = fma(shared->gamma[t], dy_M[r], shared->p[t] * dy_S[r]);
        for (int s = 0; s <= t; s++) dq_t = fma(pairs[t][s], key_tile[s][lane], dq_t);
        real dk_t = fma(P[end][t], u_dM[r], fma(H[end][t], u_dS[r], de_W[r]));
        for (int s = t; s < SIDE; s++) dk_t = fma(pairs[s][t], query_tile[s][lane], dk_t);
        long long at = (first + t) * (long long)keys + key;
        if (inside && t <= end) dq[at] = dq_t, dk[at] = dk_t;

        real earlier = shared->p[lane] * shared->d[t], later = 0;
        for (int s = 0; s < t; s++) earlier = fma(w[t][s], P[lane][s], earlier);
        if (lane < t) gate_terms = fma(Gamma[t][lane], earlier, gate_terms);
        for (int s = t; s < SIDE; s++) later = fma(P[s][t], w[s][lane], later);
        real term = P[lane][t] * shared->d[lane] * shared->h[t];
        if (lane < t) term = fma(H[t][lane], later, fma(H[end][lane], shared->z[lane], term));
        term = warp_sum(term);
        if (lane == 0 && t <= end) dlog_eta[first + t] = fma(shared->h[end], S_dS, term);
    }
    shared->parts[warp][lane] = gate_terms;
    __syncthreads();
    if (warp == 0 && lane <= end) {
        real sum = 0;
        for (int other = 0; lane && other < WARPS; other++) sum += shared->parts[other][lane - 1];
        for (int t = lane; t < SIDE; t++) sum = fma(shared->gamma[t], shared->c[t], sum);
        dlog_decay[first + lane] = sum;
    }
}
