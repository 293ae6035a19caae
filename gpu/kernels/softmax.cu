// Softmax attention by tiles with an online softmax, and its adjoint, in O(T) memory: no T × S array is stored.
//
//     Y = softmax(Q Kᵀ · scale) V                                                 Vaswani et al. 2017, eq. 1
//     m′ = max(m, max s)     l′ = exp(m − m′) l + Σ exp(s − m′)                   one tile: Milakov and Gimelshein 2018
//     y′ = exp(m − m′) y + Σ exp(s − m′) v                                        Rabe and Staats 2021, section 2
//     P = exp(Q Kᵀ · scale − lse)     dP = dY Vᵀ     dS = P ∘ (dP − rowsum(dY ∘ Y)) · scale          lse = m + log l
//     dQ = dS K          dK = dSᵀ Q          dV = Pᵀ dY                                Dao et al. 2022, algorithm 4
//
// q, y are (batch, T, K) and (batch, T, V), k (batch, S, K), v (batch, S, V); the T queries are the last of S
// positions.
//
// Block    32 queries of one sequence (for dK and dV: 32 keys); it iterates over tiles of 32 rows of the other side.
// Warp     4 of the block's 32 rows. A lane is a row of the other side for scores, a column for the output.
// Thread   4 scores, and every 32nd column of 4 output rows, which are accumulated in shared memory.
//
// Memory traffic   q and y once; k and v once per 32 queries, from the L2 cache after the first time.
// FLOPs            per query and key 2 (K + V) and an exponential forward; 2 (3 K + 2 V) for dQ, dK and dV, where the
//                  scores and dP are computed twice, once for each side. Half of it if causal.
// Bound            compute, at T = S.
#include "tiles.cuh"

constexpr real HIDDEN = real(-1e30);  // the score of a masked key: its exponential is 0

__device__ inline int padded(int columns) { return (columns + SIDE - 1) / SIDE * SIDE; }

__device__ inline real warp_max(real x) {
    for (int bits = 16; bits; bits /= 2) x = fmax(x, shfl_xor(x, bits));
    return x;
}

struct Rows {  // a row-major matrix of count rows
    const real *from;
    int count, columns;
};

// Set out[r] to the dot product of this warp's row r of x and this lane's row of y.
__device__ inline void products(Square (&tiles)[2], Rows x, int x_first, Rows y, int y_first, real (&out)[ROWS]) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
    for (int r = 0; r < ROWS; r++) out[r] = 0;
    for (int slice = 0; slice < x.columns; slice += SIDE) {
        __syncthreads();  // the previous tiles have been read
        load_tile(tiles[0], x.from, x_first, slice, x.count, x.columns);
        load_tile(tiles[1], y.from, y_first, slice, y.count, y.columns);
        __syncthreads();
        for (int j = 0; j < SIDE; j++)
#pragma unroll
            for (int r = 0; r < ROWS; r++) out[r] = fma(tiles[0][warp_row + r][j], tiles[1][lane][j], out[r]);
    }
}

// sums = rescale · sums + weights times rows first, first + 1, … of x; a thread updates its own columns.
__device__ inline void accumulate(Square (&tiles)[2], const real (&weights)[ROWS], Rows x, int first,
                                  const real (&rescale)[ROWS], real *sums) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, width = padded(x.columns);
    for (int slab = 0; slab < width; slab += SIDE) {
        __syncthreads();  // the previous tiles have been read
        if (slab == 0)
            for (int r = 0; r < ROWS; r++) tiles[0][warp_row + r][lane] = weights[r];
        load_tile(tiles[1], x.from, first, slab, x.count, x.columns);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            real *sum = &sums[(warp_row + r) * width + slab + lane], made = rescale[r] * *sum;
            for (int s = 0; s < SIDE; s++) made = fma(tiles[0][warp_row + r][s], tiles[1][s][lane], made);
            *sum = made;
        }
    }
}

__device__ inline void clear(real *sums, int columns) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, width = padded(columns);
    for (int r = 0; r < ROWS; r++)
        for (int c = lane; c < width; c += 32) sums[(warp_row + r) * width + c] = 0;
}

__device__ inline void store(real *to, const real *sums, int first, int count, int columns, const real (&by)[ROWS]) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, width = padded(columns);
    for (int r = 0; r < ROWS; r++)
        for (int c = lane; c < columns && first + warp_row + r < count; c += 32)
            to[(long long)(first + warp_row + r) * columns + c] = sums[(warp_row + r) * width + c] * by[r];
}

extern "C" __global__ void __launch_bounds__(THREADS)
softmax_forward(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
                real *__restrict__ y, real *__restrict__ lse, real scale, int queries, int keys, int width, int values,
                int causal) {
    __shared__ Square tiles[2];
    DYNAMIC_SHARED(real, sums);  // (SIDE, values)
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, blocks = (queries + SIDE - 1) / SIDE;
    int first = blockIdx.x % blocks * SIDE;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values};
    int end = causal ? min(keys, first + SIDE + keys - queries) : keys;
    real row_max[ROWS], row_sum[ROWS], score[ROWS], rescale[ROWS];
    for (int r = 0; r < ROWS; r++) row_max[r] = HIDDEN, row_sum[r] = 0;
    clear(sums, values);
    for (int key = 0; key < end; key += SIDE) {
        products(tiles, Q, first, K, key, score);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int last = causal ? first + warp_row + r + keys - queries : keys - 1;
            real s = key + lane <= last && key + lane < keys ? score[r] * scale : HIDDEN;
            real new_max = fmax(row_max[r], warp_max(s));
            rescale[r] = exp(row_max[r] - new_max), row_max[r] = new_max;
            score[r] = exp(s - new_max);
            row_sum[r] = rescale[r] * row_sum[r] + warp_sum(score[r]);
        }
        accumulate(tiles, score, V, key, rescale, sums);
    }
    for (int r = 0; r < ROWS; r++) {
        if (lane == 0 && first + warp_row + r < queries) lse[sequence * queries + first + warp_row + r] =
            row_max[r] + log(row_sum[r]);
        rescale[r] = 1 / row_sum[r];
    }
    store(y + sequence * queries * values, sums, first, queries, values, rescale);
}

// dQ, with a block for every 32 queries; `row_dot` is rowsum(dY ∘ Y).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
softmax_backward_queries(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
                         const real *__restrict__ dy, const real *__restrict__ lse, const real *__restrict__ row_dot,
                         real *__restrict__ dq, real scale, int queries, int keys, int width, int values, int causal) {
    __shared__ Square tiles[2];
    DYNAMIC_SHARED(real, sums);  // (SIDE, width)
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, blocks = (queries + SIDE - 1) / SIDE;
    int first = blockIdx.x % blocks * SIDE;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {dy + sequence * queries * values, queries, values};
    int end = causal ? min(keys, first + SIDE + keys - queries) : keys;
    real score[ROWS], dP[ROWS], ones[ROWS];
    for (int r = 0; r < ROWS; r++) ones[r] = 1;
    clear(sums, width);
    for (int key = 0; key < end; key += SIDE) {
        products(tiles, Q, first, K, key, score);
        products(tiles, G, first, V, key, dP);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r, last = causal ? t + keys - queries : keys - 1;
            bool seen = t < queries && key + lane <= last && key + lane < keys;
            long long row = sequence * queries + min(t, queries - 1);
            score[r] = seen ? exp(score[r] * scale - lse[row]) * (dP[r] - row_dot[row]) * scale : 0;
        }
        accumulate(tiles, score, K, key, ones, sums);
    }
    store(dq + sequence * queries * width, sums, first, queries, width, ones);
}

// dK and dV, with a block for every 32 keys.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
softmax_backward_keys(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
                      const real *__restrict__ dy, const real *__restrict__ lse, const real *__restrict__ row_dot,
                      real *__restrict__ dk, real *__restrict__ dv, real scale, int queries, int keys, int width,
                      int values, int causal) {
    __shared__ Square tiles[2];
    DYNAMIC_SHARED(real, sums);  // (SIDE, width) and (SIDE, values)
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, blocks = (keys + SIDE - 1) / SIDE;
    int first = blockIdx.x % blocks * SIDE;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {dy + sequence * queries * values, queries, values};
    int start = causal ? max(0, first - (keys - queries)) / SIDE * SIDE : 0;
    real *dv_sums = sums + SIDE * padded(width), score[ROWS], dP[ROWS], ones[ROWS];
    for (int r = 0; r < ROWS; r++) ones[r] = 1;
    clear(sums, width), clear(dv_sums, values);
    for (int query = start; query < queries; query += SIDE) {
        products(tiles, K, first, Q, query, score);
        products(tiles, V, first, G, query, dP);
        int t = query + lane, last = causal ? t + keys - queries : keys - 1;
        long long row = sequence * queries + min(t, queries - 1);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            bool seen = t < queries && first + warp_row + r <= last && first + warp_row + r < keys;
            score[r] = seen ? exp(score[r] * scale - lse[row]) : 0;
            dP[r] = score[r] * (dP[r] - row_dot[row]) * scale;
        }
        accumulate(tiles, score, G, query, ones, dv_sums);
        accumulate(tiles, dP, Q, query, ones, sums);
    }
    store(dk + sequence * keys * width, sums, first, keys, width, ones);
    store(dv + sequence * keys * values, dv_sums, first, keys, values, ones);
}
