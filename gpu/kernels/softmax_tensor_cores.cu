// Softmax attention and its adjoint on tensor cores: what softmax.cu computes, and its letters. What is multiplied is
// rounded to tf32, or to bf16 with -DOPERAND=Bf16; sums, maxima and exponentials are float32. So are the arrays, or, with
// -DARRAY=Bfloat16 too, q, k, v, y and their cotangents are bf16.
//
//     |ỹ − y| ≤ Σ p |v| (e²ᵟ (1 + u)² − 1)          δ = scale · max Σ |q| |k| (2 u + u²), over the keys that are seen
//
// where u is 2⁻¹¹ for tf32 and 2⁻⁸ for bf16, and where the rounding of float32 itself comes on top, and that of y to bf16.
//
// A block owns 128 queries (backward 64, or for dK and dV 64 keys) of one sequence and up to 128 columns of the result. Its own
//         rows lie in shared memory for good, the other side's pass through it 32 at a time, all at their full width: while 32
//         are worked on, the next are on their way.
// A warp owns 32 of its block's rows (backward 16), in strips of 16: of 16 × 32 scores, which become weights where they are
//         made and are the left operand of the next product without leaving their registers.
// A thread owns 16 of a strip's scores, 8 in each of 2 rows, and every fourth pair of columns of those rows of the result.
//
// Bytes   q, y once; k and v once for every 128 queries, from the second-level cache after the first time; backward 64.
// Work    as softmax.cu, on tensor cores but for the exponential; scores are made again for every 128 columns of the result.
// Floor   at T = S, arithmetic, or what is read from shared memory. 32 × 16 sums of depth 16 (in tf32 8) take a warp's tensor
//         cores 32 clocks on sm_80 and 16 on sm_90, four warps at once; they read 16 rows of a right operand, 512 bytes, and
//         for scores as much of the left one: 4 or 8 clocks of shared memory, four warps in turn. Backward it is 16 × 16 sums,
//         16 clocks or 8, and 4 or 6.
#include "operands.cuh"

#ifndef COLUMNS
#define COLUMNS 128  // of a block's result; -DCOLUMNS=64 where there are no more
#endif

constexpr int BLOCKS = COLUMNS == 64 ? 3 : 2;  // on a multiprocessor, as far as registers go
constexpr int STRIPS = 2, OWN = 16 * WARPS, OTHER = 32, EIGHTS = OTHER / 8;
constexpr float HIDDEN = -1e30f;  // the score of a key that must not be seen: its exponential is 0
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

// This warp's strips of x times 32 rows of y, from a row on.
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

// sums += weights times 32 rows of x, from a row and a column on. Where all columns are there, no branch keeps the reading of
// one operand from overlapping with the product before.
template <bool WHOLE, int STRIPS>
__device__ inline void add_some(const Sums (&weights)[STRIPS][EIGHTS], Tile x, int row, int column,
                                Sums (&sums)[STRIPS][COLUMNS / 8]) {
    const unsigned *from = right_columns(x, row, column);
    Left<OPERAND> left[STRIPS];
    Rights right;
#pragma unroll
    for (int d = 0; d < OTHER; d += OPERAND::DEPTH) {
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
__device__ inline void add(const Sums (&weights)[STRIPS][EIGHTS], Tile x, int row, int column,
                           Sums (&sums)[STRIPS][COLUMNS / 8]) {
    if (column + COLUMNS <= x.columns) add_some<true>(weights, x, row, column, sums);
    else add_some<false>(weights, x, row, column, sums);
}

__device__ inline void give(Number *to, const Sums (&sums)[COLUMNS / 8], int first, int count, int column, int columns,
                            const float (&by)[2]) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = first + Sums::row(i), c = column + 8 * n + Sums::column(i);
            if (row < count && c < columns) narrow(to[(long long)row * columns + c], sums[n].at[i] * by[i / 2]);
        }
}

// Over the four lanes that hold a row of sums.
__device__ inline float four_max(float x) { return x = fmax(x, shfl_xor(x, 1)), fmax(x, shfl_xor(x, 2)); }
__device__ inline float four_sum(float x) { return x += shfl_xor(x, 1), x + shfl_xor(x, 2); }

struct Seen {  // of a strip's two rows: the maximum so far and the sum of the exponentials, which are of base 2
    float top[2], total[2];
};

// Scores to weights; what was summed before fades as maxima grow.
__device__ inline void weigh(Sums (&scores)[EIGHTS], Seen &seen, Sums (&sums)[COLUMNS / 8]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float higher = seen.top[half];
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) higher = fmax(higher, scores[n].at[i]);
        higher = four_max(higher);
        float fade = two_to(seen.top[half] - higher);
        seen.top[half] = higher, seen.total[half] *= fade;
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++)
                seen.total[half] += scores[n].at[i] = two_to(scores[n].at[i] - higher);
        if (__any_sync(ALL, fade < 1))  // seldom, once many keys are seen
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++) sums[n].at[2 * half] *= fade, sums[n].at[2 * half + 1] *= fade;
    }
}

// The block's rows are queries, two strips of each warp's.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
softmax_forward(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                Number *__restrict__ y, float *__restrict__ lse, float scale, int queries, int keys, int width, int values,
                int causal) {
    DYNAMIC_SHARED(unsigned, room);
    constexpr int ROWS = STRIPS * OWN;
    int blocks = (queries + ROWS - 1) / ROWS, first = blockIdx.x % blocks * ROWS, column = blockIdx.y * COLUMNS;
    int mine = first + threadIdx.x / 32 * 16 * STRIPS, later = keys - queries;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values};
    Tile q_tile(room, ROWS, width), k_tile(room, 2 * OTHER, width), v_tile(room, 2 * OTHER, values);
    int end = causal ? min(keys, first + ROWS + later) : keys;
    Sums scores[STRIPS][EIGHTS], sums[STRIPS][COLUMNS / 8] = {};
    Seen seen[STRIPS];
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) seen[strip] = {{HIDDEN, HIDDEN}, {0, 0}};
    fill<ROWS>(q_tile, 0, Q, first), fill<OTHER>(k_tile, 0, K, 0), fill<OTHER>(v_tile, 0, V, 0);
    for (int key = 0, here = 0; key < end; key += OTHER, here = OTHER - here) {
        copy_wait();
        __syncthreads();  // these rows are there, and those before are done with
        if (key + OTHER < end)
            fill<OTHER>(k_tile, OTHER - here, K, key + OTHER), fill<OTHER>(v_tile, OTHER - here, V, key + OTHER);
        if (causal && key >= mine + 16 * STRIPS + later) continue;  // this warp's queries see none of them
        products(q_tile, k_tile, here, scores);
        bool all = key + OTHER <= (causal ? min(keys, mine + later + 1) : keys);  // are seen
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int t = mine + 16 * strip + Sums::row(i), last = causal ? min(keys - 1, t + later) : keys - 1;
#pragma unroll
                for (int n = 0; n < EIGHTS; n++) {
                    float *score = &scores[strip][n].at[i];
                    *score = all || key + 8 * n + Sums::column(i) <= last ? *score * (scale * LOG2_E) : HIDDEN;
                }
            }
            weigh(scores[strip], seen[strip], sums[strip]);
        }
        add(scores, v_tile, here, column, sums);
    }
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) {
        float by[2];
        for (int half = 0; half < 2; half++) {
            int t = mine + 16 * strip + Sums::row(2 * half);
            float total = four_sum(seen[strip].total[half]);
            if (threadIdx.x % 4 == 0 && column == 0 && t < queries)
                lse[sequence * queries + t] = seen[strip].top[half] * LN_2 + log(total);
            by[half] = 1 / total;
        }
        give(y + sequence * queries * values, sums[strip], mine + 16 * strip, queries, column, values, by);
    }
}

// rowsum(dY ∘ Y): a warp owns a row.
extern "C" __global__ void __launch_bounds__(THREADS)
softmax_row_dot(const Number *__restrict__ dy, const Number *__restrict__ y, float *__restrict__ row_dot, int rows, int values) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    float sum = 0;
    if (row >= rows) return;
    for (int c = threadIdx.x % 32; c < values; c += 32)
        sum += wide(dy[(long long)row * values + c]) * wide(y[(long long)row * values + c]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) row_dot[row] = sum;
}

// The block's rows are queries.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
softmax_backward_queries(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                         const Number *__restrict__ dy, const float *__restrict__ lse, const float *__restrict__ row_dot,
                         Number *__restrict__ dq, float scale, int queries, int keys, int width, int values, int causal) {
    DYNAMIC_SHARED(unsigned, room);
    int blocks = (queries + OWN - 1) / OWN, first = blockIdx.x % blocks * OWN, column = blockIdx.y * COLUMNS;
    int mine = first + threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {dy + sequence * queries * values, queries, values};
    Tile q_tile(room, OWN, width), dy_tile(room, OWN, values);
    Tile k_tile(room, 2 * OTHER, width), v_tile(room, 2 * OTHER, values);
    int end = causal ? min(keys, first + OWN + keys - queries) : keys;
    float sum[2], mean[2];
    for (int half = 0; half < 2; half++) {
        long long row = sequence * queries + min(mine + Sums::row(2 * half), queries - 1);
        sum[half] = lse[row] * LOG2_E, mean[half] = row_dot[row];
    }
    Sums scores[1][EIGHTS], dP[1][EIGHTS], sums[1][COLUMNS / 8] = {};
    fill<OWN>(q_tile, 0, Q, first), fill<OWN>(dy_tile, 0, G, first);
    fill<OTHER>(k_tile, 0, K, 0), fill<OTHER>(v_tile, 0, V, 0);
    for (int key = 0, here = 0; key < end; key += OTHER, here = OTHER - here) {
        copy_wait();
        __syncthreads();  // these rows are there, and those before are done with
        if (key + OTHER < end)
            fill<OTHER>(k_tile, OTHER - here, K, key + OTHER), fill<OTHER>(v_tile, OTHER - here, V, key + OTHER);
        products(q_tile, k_tile, here, scores), products(dy_tile, v_tile, here, dP);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int t = mine + Sums::row(i), last = t >= queries ? -1 : causal ? t + keys - queries : keys - 1;
#pragma unroll
            for (int n = 0; n < EIGHTS; n++) {
                bool seen = key + 8 * n + Sums::column(i) <= last;
                float weight = seen ? two_to(scores[0][n].at[i] * (scale * LOG2_E) - sum[i / 2]) : 0;
                scores[0][n].at[i] = weight * (dP[0][n].at[i] - mean[i / 2]);
            }
        }
        add(scores, k_tile, here, column, sums);
    }
    give(dq + sequence * queries * width, sums[0], mine, queries, column, width, {scale, scale});
}

// The block's rows are keys.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
softmax_backward_keys(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                      const Number *__restrict__ dy, const float *__restrict__ lse, const float *__restrict__ row_dot,
                      Number *__restrict__ dk, Number *__restrict__ dv, float scale, int queries, int keys, int width,
                      int values, int causal) {
    DYNAMIC_SHARED(unsigned, room);
    int blocks = (keys + OWN - 1) / OWN, first = blockIdx.x % blocks * OWN, column = blockIdx.y * COLUMNS;
    int mine = first + threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {dy + sequence * queries * values, queries, values};
    lse += sequence * queries, row_dot += sequence * queries;
    Tile k_tile(room, OWN, width), v_tile(room, OWN, values);
    Tile q_tile(room, 2 * OTHER, width), dy_tile(room, 2 * OTHER, values);
    int start = causal ? max(0, first - (keys - queries)) / OTHER * OTHER : 0;
    Sums scores[1][EIGHTS], dP[1][EIGHTS], sums[1][COLUMNS / 8] = {}, to_v[1][COLUMNS / 8] = {};
    fill<OWN>(k_tile, 0, K, first), fill<OWN>(v_tile, 0, V, first);
    fill<OTHER>(q_tile, 0, Q, start), fill<OTHER>(dy_tile, 0, G, start);
    for (int query = start, here = 0; query < queries; query += OTHER, here = OTHER - here) {
        copy_wait();
        __syncthreads();  // these rows are there, and those before are done with
        if (query + OTHER < queries)
            fill<OTHER>(q_tile, OTHER - here, Q, query + OTHER), fill<OTHER>(dy_tile, OTHER - here, G, query + OTHER);
        products(k_tile, q_tile, here, scores), products(v_tile, dy_tile, here, dP);
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int t = query + 8 * n + Sums::column(j), last = t >= queries ? -1 : causal ? t + keys - queries : keys - 1;
                float sum = lse[min(t, queries - 1)] * LOG2_E, mean = row_dot[min(t, queries - 1)];
#pragma unroll
                for (int i = j; i < 4; i += 2) {
                    float *score = &scores[0][n].at[i];
                    *score = mine + Sums::row(i) <= last ? two_to(*score * (scale * LOG2_E) - sum) : 0;
                    dP[0][n].at[i] = *score * (dP[0][n].at[i] - mean);
                }
            }
        add(scores, dy_tile, here, column, to_v), add(dP, q_tile, here, column, sums);
    }
    give(dk + sequence * keys * width, sums[0], mine, keys, column, width, {scale, scale});
    give(dv + sequence * keys * values, to_v[0], mine, keys, column, values, {1, 1});
}
