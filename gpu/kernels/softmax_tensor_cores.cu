// Softmax attention and its adjoint on tensor cores: the equations and names of softmax.cu. Operands of products are
// rounded to tf32, or to bf16 with -DOPERAND=Bf16; sums, maxima and exponentials are float32. Arrays are float32, or
// with -DARRAY=Bfloat16 too, q, k, v, y and their cotangents are bf16.
//
//     |ỹ − y| ≤ Σ p |v| (e²ᵟ (1 + u)² − 1)     δ = scale · max Σ |q| |k| (2 u + u²), over the keys that are not masked
//
// with unit roundoff u = 2⁻¹¹ for tf32 and 2⁻⁸ for bf16; the rounding of float32, and of y to bf16, comes on top.
//
// Block    128 queries of one sequence (backward 64, or 64 keys for dK and dV) and up to 128 columns of the output. Its
//          own rows stay in shared memory; those of the other side pass through it 32 at a time, double buffered by
//          cp.async.
// Warp     32 of the block's rows (backward 16), as strips of 16. It computes 16 × 32 scores, which become weights in
//          registers and are the left operand of the next product without passing through shared memory.
// Thread   16 scores of a strip, 8 in each of 2 rows, and every fourth pair of columns of those output rows.
//
// Memory traffic   q and y once; k and v once per 128 queries (backward 64), from the L2 cache after the first time.
// FLOPs            as in softmax.cu, on tensor cores except for exponentials; scores are recomputed per 128 output
//                  columns.
// Bound            compute at T = S, or reads of shared memory. 32 × 16 sums of depth 16 (tf32: 8) take the tensor
//                  cores of a warp 32 cycles on sm_80 and 16 on sm_90, four warps at once; they read 16 rows of a right
//                  operand, 512 bytes, and for scores as much of the left one: 4 or 8 cycles of shared memory, four
//                  warps in turn. Backward 16 × 16 sums take 16 or 8 cycles, and 4 or 6 of shared memory.
#include "operands.cuh"

#ifndef COLUMNS
#define COLUMNS 128  // of the output, per block; -DCOLUMNS=64 if it has no more
#endif

constexpr int BLOCKS = COLUMNS == 64 ? 3 : 2;  // per multiprocessor, as registers permit
constexpr int STRIPS = 2, WARP_ROWS = 16 * WARPS, PASSING = 32, EIGHTS = PASSING / 8;
constexpr float HIDDEN = -1e30f;  // the score of a masked key: its exponential is 0
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

// scores = this warp's strips of x times 32 rows of y, from `row` on.
template <int STRIPS> __device__ inline void products(Tile x, Tile y, int row, Sums (&scores)[STRIPS][EIGHTS]) {
    const unsigned *x_from = left_rows(x, threadIdx.x / 32 * 16 * STRIPS), *y_from = right_rows(y, row);
    Left<OPERAND> left[STRIPS];
    Rights right;
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
        for (int n = 0; n < EIGHTS; n++) scores[strip][n] = {};
    for (int d = 0; d < x.columns; d += OPERAND::DEPTH, x_from += 8, y_from += 8) {
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) rows(left[strip], x_from + 16 * strip * x.stride);
#pragma unroll
        for (int n = 0; n < EIGHTS; n += 2) {
            rows(right, y_from + 8 * n * y.stride);
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++)
                multiply(scores[strip][n], scores[strip][n + 1], left[strip], right);
        }
    }
}

// sums += weights times 32 rows of x, from `row` and `column` on. WHOLE: all COLUMNS exist, so that without a branch
// loads of an operand overlap with the previous product.
template <bool WHOLE, int STRIPS>
__device__ inline void accumulate_columns(const Sums (&weights)[STRIPS][EIGHTS], Tile x, int row, int column,
                                          Sums (&sums)[STRIPS][COLUMNS / 8]) {
    const unsigned *from = right_columns(x, row, column);
    Left<OPERAND> left[STRIPS];
    Rights right;
#pragma unroll
    for (int d = 0; d < PASSING; d += OPERAND::DEPTH) {
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) results(left[strip], &weights[strip][d / 8]);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n += 2)
            if (WHOLE || column + 8 * n < x.columns) {
                columns(right, from + d * x.stride + n * OPERAND::EIGHT, x.stride);
#pragma unroll
                for (int strip = 0; strip < STRIPS; strip++)
                    multiply(sums[strip][n], sums[strip][n + 1], left[strip], right);
            }
    }
}
template <int STRIPS>
__device__ inline void accumulate(const Sums (&weights)[STRIPS][EIGHTS], Tile x, int row, int column,
                                  Sums (&sums)[STRIPS][COLUMNS / 8]) {
    if (column + COLUMNS <= x.columns) accumulate_columns<true>(weights, x, row, column, sums);
    else accumulate_columns<false>(weights, x, row, column, sums);
}

__device__ inline void store(Number *to, const Sums (&sums)[COLUMNS / 8], int first, int count, int column, int columns,
                             const float (&by)[2]) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = first + Sums::row(i), c = column + 8 * n + Sums::column(i);
            if (row < count && c < columns) narrow(to[(long long)row * columns + c], sums[n].at[i] * by[i / 2]);
        }
}

// Reductions over the four lanes that hold a row of accumulators.
__device__ inline float four_max(float x) { return x = fmax(x, shfl_xor(x, 1)), fmax(x, shfl_xor(x, 2)); }
__device__ inline float four_sum(float x) { return x += shfl_xor(x, 1), x + shfl_xor(x, 2); }

// of a strip's two rows: the maximum so far and the sum of the exponentials, which are of base 2
struct RowStatistics {  // of the two rows of a strip: maximum and sum of exponentials (base 2) so far
    float row_max[2], row_sum[2];
};

// Turn a tile of scores into weights, and rescale the output accumulated so far to the new maxima.
__device__ inline void online_softmax_tile(Sums (&scores)[EIGHTS], RowStatistics &statistics,
                                           Sums (&sums)[COLUMNS / 8]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float new_max = statistics.row_max[half];
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) new_max = fmax(new_max, scores[n].at[i]);
        new_max = four_max(new_max);
        float rescale = exp2_approx(statistics.row_max[half] - new_max);
        statistics.row_max[half] = new_max, statistics.row_sum[half] *= rescale;
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++)
                statistics.row_sum[half] += scores[n].at[i] = exp2_approx(scores[n].at[i] - new_max);
        if (__any_sync(ALL, rescale < 1))  // rare after many keys
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++) sums[n].at[2 * half] *= rescale, sums[n].at[2 * half + 1] *= rescale;
    }
}

// Y and lse, with a block for every 128 queries.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
softmax_forward(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                Number *__restrict__ y, float *__restrict__ lse, float scale, int queries, int keys, int width,
                int values, int causal) {
    DYNAMIC_SHARED(unsigned, shared);
    constexpr int ROWS = STRIPS * WARP_ROWS;
    int blocks = (queries + ROWS - 1) / ROWS, first = blockIdx.x % blocks * ROWS, column = blockIdx.y * COLUMNS;
    int warp_row = first + threadIdx.x / 32 * 16 * STRIPS, offset = keys - queries;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values};
    Tile q_tile(shared, ROWS, width), k_tile(shared, 2 * PASSING, width), v_tile(shared, 2 * PASSING, values);
    int end = causal ? min(keys, first + ROWS + offset) : keys;
    Sums scores[STRIPS][EIGHTS], sums[STRIPS][COLUMNS / 8] = {};
    RowStatistics statistics[STRIPS];
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) statistics[strip] = {{HIDDEN, HIDDEN}, {0, 0}};
    load_tile<ROWS>(q_tile, 0, Q, first), load_tile<PASSING>(k_tile, 0, K, 0), load_tile<PASSING>(v_tile, 0, V, 0);
    for (int key = 0, stage = 0; key < end; key += PASSING, stage = PASSING - stage) {
        copy_wait();
        __syncthreads();  // the current tiles have arrived, the previous ones have been read
        if (key + PASSING < end) {
            load_tile<PASSING>(k_tile, PASSING - stage, K, key + PASSING);
            load_tile<PASSING>(v_tile, PASSING - stage, V, key + PASSING);
        }
        if (causal && key >= warp_row + 16 * STRIPS + offset) continue;  // masked for all of this warp's queries
        products(q_tile, k_tile, stage, scores);
        bool unmasked = key + PASSING <= (causal ? min(keys, warp_row + offset + 1) : keys);
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int t = warp_row + 16 * strip + Sums::row(i), last = causal ? min(keys - 1, t + offset) : keys - 1;
#pragma unroll
                for (int n = 0; n < EIGHTS; n++) {
                    float *score = &scores[strip][n].at[i];
                    *score = unmasked || key + 8 * n + Sums::column(i) <= last ? *score * (scale * LOG2_E) : HIDDEN;
                }
            }
            online_softmax_tile(scores[strip], statistics[strip], sums[strip]);
        }
        accumulate(scores, v_tile, stage, column, sums);
    }
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) {
        float by[2];
        for (int half = 0; half < 2; half++) {
            int t = warp_row + 16 * strip + Sums::row(2 * half);
            float row_sum = four_sum(statistics[strip].row_sum[half]);
            if (threadIdx.x % 4 == 0 && column == 0 && t < queries)
                lse[sequence * queries + t] = statistics[strip].row_max[half] * LN_2 + log(row_sum);
            by[half] = 1 / row_sum;
        }
        store(y + sequence * queries * values, sums[strip], warp_row + 16 * strip, queries, column, values, by);
    }
}

// row_dot = rowsum(dY ∘ Y), with a warp for every row.
extern "C" __global__ void __launch_bounds__(THREADS)
softmax_row_dot(const Number *__restrict__ dy, const Number *__restrict__ y, float *__restrict__ row_dot, int rows,
                int values) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    float sum = 0;
    if (row >= rows) return;
    for (int c = threadIdx.x % 32; c < values; c += 32)
        sum += widen(dy[(long long)row * values + c]) * widen(y[(long long)row * values + c]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) row_dot[row] = sum;
}

// dQ, with a block for every 64 queries.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
softmax_backward_queries(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                         const Number *__restrict__ dy, const float *__restrict__ lse,
                         const float *__restrict__ row_dot, Number *__restrict__ dq, float scale, int queries, int keys,
                         int width, int values, int causal) {
    DYNAMIC_SHARED(unsigned, shared);
    int blocks = (queries + WARP_ROWS - 1) / WARP_ROWS, first = blockIdx.x % blocks * WARP_ROWS,
        column = blockIdx.y * COLUMNS;
    int warp_row = first + threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {dy + sequence * queries * values, queries, values};
    Tile q_tile(shared, WARP_ROWS, width), dy_tile(shared, WARP_ROWS, values);
    Tile k_tile(shared, 2 * PASSING, width), v_tile(shared, 2 * PASSING, values);
    int end = causal ? min(keys, first + WARP_ROWS + keys - queries) : keys;
    float sum[2], mean[2];
    for (int half = 0; half < 2; half++) {
        long long row = sequence * queries + min(warp_row + Sums::row(2 * half), queries - 1);
        sum[half] = lse[row] * LOG2_E, mean[half] = row_dot[row];
    }
    Sums scores[1][EIGHTS], dP[1][EIGHTS], sums[1][COLUMNS / 8] = {};
    load_tile<WARP_ROWS>(q_tile, 0, Q, first), load_tile<WARP_ROWS>(dy_tile, 0, G, first);
    load_tile<PASSING>(k_tile, 0, K, 0), load_tile<PASSING>(v_tile, 0, V, 0);
    for (int key = 0, stage = 0; key < end; key += PASSING, stage = PASSING - stage) {
        copy_wait();
        __syncthreads();  // the current tiles have arrived, the previous ones have been read
        if (key + PASSING < end) {
            load_tile<PASSING>(k_tile, PASSING - stage, K, key + PASSING);
            load_tile<PASSING>(v_tile, PASSING - stage, V, key + PASSING);
        }
        products(q_tile, k_tile, stage, scores), products(dy_tile, v_tile, stage, dP);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int t = warp_row + Sums::row(i), last = t >= queries ? -1 : causal ? t + keys - queries : keys - 1;
#pragma unroll
            for (int n = 0; n < EIGHTS; n++) {
                bool seen = key + 8 * n + Sums::column(i) <= last;
                float weight = seen ? exp2_approx(scores[0][n].at[i] * (scale * LOG2_E) - sum[i / 2]) : 0;
                scores[0][n].at[i] = weight * (dP[0][n].at[i] - mean[i / 2]);
            }
        }
        accumulate(scores, k_tile, stage, column, sums);
    }
    store(dq + sequence * queries * width, sums[0], warp_row, queries, column, width, {scale, scale});
}

// dK and dV, with a block for every 64 keys.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
softmax_backward_keys(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                      const Number *__restrict__ dy, const float *__restrict__ lse, const float *__restrict__ row_dot,
                      Number *__restrict__ dk, Number *__restrict__ dv, float scale, int queries, int keys, int width,
                      int values, int causal) {
    DYNAMIC_SHARED(unsigned, shared);
    int blocks = (keys + WARP_ROWS - 1) / WARP_ROWS, first = blockIdx.x % blocks * WARP_ROWS,
        column = blockIdx.y * COLUMNS;
    int warp_row = first + threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {dy + sequence * queries * values, queries, values};
    lse += sequence * queries, row_dot += sequence * queries;
    Tile k_tile(shared, WARP_ROWS, width), v_tile(shared, WARP_ROWS, values);
    Tile q_tile(shared, 2 * PASSING, width), dy_tile(shared, 2 * PASSING, values);
    int start = causal ? max(0, first - (keys - queries)) / PASSING * PASSING : 0;
    Sums scores[1][EIGHTS], dP[1][EIGHTS], sums[1][COLUMNS / 8] = {}, dv_sums[1][COLUMNS / 8] = {};
    load_tile<WARP_ROWS>(k_tile, 0, K, first), load_tile<WARP_ROWS>(v_tile, 0, V, first);
    load_tile<PASSING>(q_tile, 0, Q, start), load_tile<PASSING>(dy_tile, 0, G, start);
    for (int query = start, stage = 0; query < queries; query += PASSING, stage = PASSING - stage) {
        copy_wait();
        __syncthreads();  // the current tiles have arrived, the previous ones have been read
        if (query + PASSING < queries) {
            load_tile<PASSING>(q_tile, PASSING - stage, Q, query + PASSING);
            load_tile<PASSING>(dy_tile, PASSING - stage, G, query + PASSING);
        }
        products(k_tile, q_tile, stage, scores), products(v_tile, dy_tile, stage, dP);
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int t = query + 8 * n + Sums::column(j), last = t >= queries ? -1 : causal
                    ? t + keys - queries : keys - 1;
                float sum = lse[min(t, queries - 1)] * LOG2_E, mean = row_dot[min(t, queries - 1)];
#pragma unroll
                for (int i = j; i < 4; i += 2) {
                    float *score = &scores[0][n].at[i];
                    *score = warp_row + Sums::row(i) <= last ? exp2_approx(*score * (scale * LOG2_E) - sum) : 0;
                    dP[0][n].at[i] = *score * (dP[0][n].at[i] - mean);
                }
            }
        accumulate(scores, dy_tile, stage, column, dv_sums), accumulate(dP, q_tile, stage, column, sums);
    }
    store(dk + sequence * keys * width, sums[0], warp_row, keys, column, width, {scale, scale});
    store(dv + sequence * keys * values, dv_sums[0], warp_row, keys, column, values, {1, 1});
}
