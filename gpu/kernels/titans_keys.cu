// The second half of the adjoint of Titans' matrix memory: once the writes u = −θ e and what they get are known, all chunks of
// a sequence at once.
//
// In a chunk that starts with S and M and whose last token c gets dS and dM from after it, with Γ[t, s] = αₛ₊₁ ⋯ αₜ and
// H[t, s] = ηₛ₊₁ ⋯ ηₜ for s ≤ t, γ and h the same since the chunk began, and P = Γ H, p = Γ h (eq. 13–14 unrolled):
//
//     yₜ = γₜ qₜ M + pₜ qₜ S + Σₛ P[t, s] (qₜ · kₛ) uₛ
//     dqₜ = γₜ dyₜ Mᵀ + pₜ dyₜ Sᵀ + Σₛ P[t, s] (dyₜ · uₛ) kₛ
//     dkₛ = Σₜ P[t, s] (dyₜ · uₛ) qₜ + P[c, s] uₛ dMᵀ + H[c, s] uₛ dSᵀ + deₛ Wᵀ
//
// A gate gets what crosses it. With w[t, s] = (dyₜ · uₛ)(qₜ · kₛ), and what goes to dM counted as told to the last token:
//
//     dlog αₜ = Σ_{r ≥ t} Γ[r, t−1] (Σ_{s<t} P[t−1, s] w[r, s] + pₜ₋₁ d[r]) + Σ_{r ≥ t} γᵣ c[r]        d[r] = dyᵣ · (qᵣ S)
//     dlog ηₜ = Σ_{s<t} H[t, s] (Σ_{r ≥ t} P[r, t] w[r, s] + H[c, t] (uₛ · (kₛ dS))) + hₜ (…)           c[r] = dyᵣ · (qᵣ M)
//
// (… the same with S in the place of the token s). Every term holds the gate: a shut one gets 0.
//
// q, k are (batch, T, K), u, de and dy (batch, T, V), memories (batch, K, V); what gates get is left as a sum for every 32 keys.
//
// A block owns 32 keys of one chunk. A warp owns 4 tokens, a thread one key of them, and one pair of each with another token.
//
// Bytes   a chunk reads S, M, dS, dM and W: 5 K V numbers; for every 32 keys dy, u and de, from the second-level cache after
//         the first time; q, k, and writes dq, dk. At 32 tokens, 4 · (5 K V / 32 + 4 K + 3 V) a token at float32.
// Work    a token: 10 K V operations with memories, 2 K V for dy · u (made anew for every 32 keys), 1.5 K V for what memories
//         are to each other (which every warp sums), and some 230 K inside its chunk.
// Floor   at K = V = 128, 250,000 operations for 14 KB: arithmetic.
#include "tiles.cuh"

// What is left at this warp's tokens of what token `lane` wrote (1 if that comes later), and of what was before all.
__device__ inline void fade(const real (&logs)[SIDE], real (&since)[ROWS], real (&gamma)[ROWS]) {
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS;
    real after = 0, all = 0;
    for (int t = 0; t < mine; t++) all += logs[t], after += t > lane ? logs[t] : 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        all += logs[mine + r], after += mine + r > lane ? logs[mine + r] : 0;
        since[r] = exp(after), gamma[r] = exp(all);
    }
}

struct Chunk {
    Square tiles[8];
    real eta[SIDE], alpha[SIDE];  // logarithms; 0 past the chunk's end
    real h[SIDE], gamma[SIDE], p[SIDE], c[SIDE], d[SIDE], x[SIDE], z[SIDE];  // of each token: see below
    real parts[WARPS][SIDE];
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
titans_keys(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ u,
            const real *__restrict__ h, const real *__restrict__ g, const real *__restrict__ W,
            const real *__restrict__ kept, const real *__restrict__ dstates, const real *__restrict__ dy,
            const real *__restrict__ ge, const int *__restrict__ cuts, const int *__restrict__ begun,
            real *__restrict__ dq, real *__restrict__ dk, real *__restrict__ dlog_eta, real *__restrict__ dlog_decay, int length, int keys,
            int values, int chunks) {
    DYNAMIC_SHARED(Chunk, all);
    Square *tiles = all->tiles;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, mine = warp * ROWS, slices = (keys + SIDE - 1) / SIDE;
    int column = blockIdx.x % slices * SIDE, chunk = blockIdx.x / slices % chunks;
    int first = cuts[chunk], stop = cuts[chunk + 1], end = stop - first - 1;
    long long sequence = blockIdx.x / slices / chunks, entries = (long long)keys * values, key = column + lane;
    bool inside = key < keys;
    q += sequence * length * keys, k += sequence * length * keys, dq += sequence * length * keys;
    dk += sequence * length * keys, h += sequence * length, g += sequence * length;
    u += sequence * length * values, dy += sequence * length * values, ge += sequence * length * values;
    kept += 2 * sequence * chunks * entries, dstates += 2 * (sequence * chunks + chunk) * entries;
    W = begun[chunk] < 0 ? W + sequence * entries : kept + (2 * begun[chunk] + 1) * entries;
    kept += 2 * chunk * entries;
    long long part = (blockIdx.x % slices * (gridDim.x / slices / chunks) + sequence) * length;
    dlog_eta += part, dlog_decay += part;

    real pair[ROWS] = {}, from_S[ROWS] = {}, from_M[ROWS] = {}, to_S[ROWS] = {}, to_M[ROWS] = {}, to_W[ROWS] = {};
    real M_to_M = 0, S_to_M = 0, S_to_S = 0;
    for (int slab = 0; slab < values; slab += SIDE) {
        __syncthreads();  // the tiles before are done with
        const real *by_token[] = {dy, u, ge}, *by_key[] = {kept, kept + entries, dstates, dstates + entries, W};
        for (int i = 0; i < 3; i++) fill(tiles[i], by_token[i], first, slab, stop, values);
        for (int i = 0; i < 5; i++) fill(tiles[3 + i], by_key[i], column, slab, keys, values);
        __syncthreads();
        for (int j = 0; j < SIDE; j++) {
            real value = tiles[1][lane][j], S = tiles[3][lane][j], M = tiles[4][lane][j], S_gets = tiles[5][lane][j];
            real M_gets = tiles[6][lane][j], W_j = tiles[7][lane][j];
            M_to_M = fma(M, M_gets, M_to_M), S_to_M = fma(S, M_gets, S_to_M), S_to_S = fma(S, S_gets, S_to_S);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                real dy_t = tiles[0][mine + r][j], wrote = tiles[1][mine + r][j];
                pair[r] = fma(dy_t, value, pair[r]);
                from_S[r] = fma(dy_t, S, from_S[r]), from_M[r] = fma(dy_t, M, from_M[r]);
                to_S[r] = fma(wrote, S_gets, to_S[r]), to_M[r] = fma(wrote, M_gets, to_M[r]);
                to_W[r] = fma(tiles[2][mine + r][j], W_j, to_W[r]);
            }
        }
    }
    __syncthreads();  // the last slab is done with
    Square &queries = tiles[0], &written = tiles[1], &Gamma = tiles[2], &H = tiles[3], &P = tiles[4], &pairs = tiles[5];
    Square &w = tiles[6];
    fill(queries, q, first, column, stop, keys);
    fill(written, k, first, column, stop, keys);
    if (warp == 0) all->eta[lane] = first + lane < stop ? h[first + lane] : 0;
    if (warp == 1) all->alpha[lane] = first + lane < stop ? g[first + lane] : 0;
    __syncthreads();
    real since[ROWS], before[ROWS];
    fade(all->eta, since, before);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        H[mine + r][lane] = lane <= mine + r ? since[r] : 0;
        if (lane == 0) all->h[mine + r] = before[r];
    }
    fade(all->alpha, since, before);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        Gamma[mine + r][lane] = lane <= mine + r ? since[r] : 0;
        if (lane == 0) all->gamma[mine + r] = before[r];
    }
    __syncthreads();
    M_to_M = warp_sum(M_to_M), S_to_M = warp_sum(S_to_M), S_to_S = warp_sum(S_to_S);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = mine + r;
        real sum = 0, product = 0;
        for (int s = 0; s <= t; s++) sum = fma(Gamma[t][s], H[s][lane], sum);
        P[t][lane] = sum;
        for (int j = 0; j < SIDE; j++) product = fma(queries[t][j], written[lane][j], product);
        pairs[t][lane] = sum * pair[r];
        w[t][lane] = lane <= t ? product * pair[r] : 0;
        real p = warp_sum(Gamma[t][lane] * all->h[lane]);
        real c = warp_sum(queries[t][lane] * from_M[r]), d = warp_sum(queries[t][lane] * from_S[r]);
        real z = warp_sum(written[t][lane] * to_S[r]), x = warp_sum(written[t][lane] * to_M[r]);
        if (lane == 0) {
            all->p[t] = p, all->x[t] = x, all->z[t] = z;
            all->c[t] = t == end ? c + M_to_M : c, all->d[t] = t == end ? d + S_to_M : d;
        }
    }
    __syncthreads();
    if (warp == end / ROWS) w[end][lane] += lane <= end ? all->x[lane] : 0;
    __syncthreads();
    real crossing = 0;  // of this warp's tokens, to the gate α after token `lane`
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = mine + r;
        real to_q = fma(all->gamma[t], from_M[r], all->p[t] * from_S[r]);
        for (int s = 0; s <= t; s++) to_q = fma(pairs[t][s], written[s][lane], to_q);
        real to_k = fma(P[end][t], to_M[r], fma(H[end][t], to_S[r], to_W[r]));
        for (int s = t; s < SIDE; s++) to_k = fma(pairs[s][t], queries[s][lane], to_k);
        long long at = (first + t) * (long long)keys + key;
        if (inside && t <= end) dq[at] = to_q, dk[at] = to_k;

        real earlier = all->p[lane] * all->d[t], later = 0;
        for (int s = 0; s < t; s++) earlier = fma(w[t][s], P[lane][s], earlier);
        if (lane < t) crossing = fma(Gamma[t][lane], earlier, crossing);
        for (int s = t; s < SIDE; s++) later = fma(P[s][t], w[s][lane], later);
        real term = P[lane][t] * all->d[lane] * all->h[t];
        if (lane < t) term = fma(H[t][lane], later, fma(H[end][lane], all->z[lane], term));
        term = warp_sum(term);
        if (lane == 0 && t <= end) dlog_eta[first + t] = fma(all->h[end], S_to_S, term);
    }
    all->parts[warp][lane] = crossing;
    __syncthreads();
    if (warp == 0 && lane <= end) {
        real sum = 0;
        for (int other = 0; lane && other < WARPS; other++) sum += all->parts[other][lane - 1];
        for (int t = lane; t < SIDE; t++) sum = fma(all->gamma[t], all->c[t], sum);
        dlog_decay[first + lane] = sum;
    }
}
