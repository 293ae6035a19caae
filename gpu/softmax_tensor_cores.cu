// Softmax attention and its adjoint on tensor cores: what softmax.cu computes, and its letters. What is multiplied is
// rounded to tf32, or to bf16 with -DOPERAND=Bf16; sums, maxima, exponentials and all that is read and written are float32.
//
//     |ỹ − y| ≤ Σ p |v| (e²ᵟ (1 + u)² − 1)          δ = scale · max Σ |q| |k| (2 u + u²), over the keys that are seen
//
// where u is 2⁻¹¹ for tf32 and 2⁻⁸ for bf16, and where the rounding of float32 itself comes on top.
//
// A block owns 64 queries (for K̄ and V̄: 64 keys) of one sequence and up to 128 columns of the result. Its own rows lie in
//         shared memory for good, the other side's pass through it 32 at a time, all at their full width.
// A warp owns 16 of its block's 64 rows: a strip of 16 × 32 scores, which become weights where they are made and are the
//         left operand of the next product without leaving their registers.
// A thread owns 16 of the strip's scores, 8 in each of 2 rows, and every fourth pair of columns of those rows of the result.
//
// Bytes   q, y once; k and v once for every 64 queries, from the second-level cache after the first time.
// Work    as softmax.cu, on tensor cores but for the exponential; scores are made again for every 128 columns of the result.
// Floor   at T = S, arithmetic. A multiplication of 16 × 8 × 8 reads its right operand from shared memory, 64 numbers, and a
//         quarter (scores) or none (results) of its left one: 3 or 2 words a lane for 8 clocks of tensor cores on sm_80.
#include "mma.cuh"

constexpr int WARPS = 4, THREADS = 32 * WARPS, OWN = 16 * WARPS, OTHER = 32, EIGHTS = OTHER / 8, COLUMNS = 128;
constexpr int BY_ROWS = 8, BY_COLUMNS = 4;  // the gap behind a tile's rows, for how it is read
constexpr float HIDDEN = -1e30f;            // the score of a key that must not be seen: its exponential is 0

struct Rows {  // of a matrix: count of them, of so many columns
    const float *from;
    int count, columns;
};

struct Tile {  // of such rows, in shared memory: 0 outside
    float *at;
    int stride, columns;
};

__device__ inline int padded(int columns) { return (columns + 31) / 32 * 32; }

__device__ inline Tile tile(float *&room, int count, int columns, int gap) {
    Tile made = {room, padded(columns) + gap, columns};
    room += count * made.stride;
    return made;
}

__device__ inline void fill(Tile tile, int count, Rows x, int first) {
    for (int row = threadIdx.x / 32; row < count; row += WARPS)
        for (int c = threadIdx.x % 32; c < padded(x.columns); c += 32) {
            bool inside = first + row < x.count && c < x.columns;
            tile.at[row * tile.stride + c] = inside ? x.from[(long long)(first + row) * x.columns + c] : 0;
        }
}

// This warp's rows of x times the 32 of y.
__device__ inline void products(Tile x, Tile y, Sums (&scores)[EIGHTS]) {
    Left<OPERAND> left;
    Right<OPERAND> right;
#pragma unroll
    for (int n = 0; n < EIGHTS; n++) scores[n] = {};
    for (int d = 0; d < x.columns; d += OPERAND::DEPTH) {
        rows(left, &x.at[threadIdx.x / 32 * 16 * x.stride + d], x.stride);
#pragma unroll
        for (int n = 0; n < EIGHTS; n++) {
            rows(right, &y.at[8 * n * y.stride + d], y.stride);
            multiply(scores[n], left, right);
        }
    }
}

// sums += weights times the 32 rows of x, from a column on.
__device__ inline void add(const Sums (&weights)[EIGHTS], Tile x, int column, Sums (&sums)[COLUMNS / 8]) {
    Left<OPERAND> left;
    Right<OPERAND> right;
#pragma unroll
    for (int d = 0; d < OTHER; d += OPERAND::DEPTH) {
        results(left, &weights[d / 8]);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
            if (column + 8 * n < x.columns) {
                columns(right, &x.at[d * x.stride + column + 8 * n], x.stride);
                multiply(sums[n], left, right);
            }
    }
}

__device__ inline void give(float *to, const Sums (&sums)[COLUMNS / 8], int first, int count, int column, int columns,
                            const float (&by)[2]) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = first + Sums::row(i), c = column + 8 * n + Sums::column(i);
            if (row < count && c < columns) to[(long long)row * columns + c] = sums[n].at[i] * by[i / 2];
        }
}

// Over the four lanes that hold a row of sums.
__device__ inline float four_max(float x) { return x = fmax(x, from_across(x, 1)), fmax(x, from_across(x, 2)); }
__device__ inline float four_sum(float x) { return x += from_across(x, 1), x + from_across(x, 2); }

extern "C" __global__ void __launch_bounds__(THREADS)
softmax_forward(const float *__restrict__ q, const float *__restrict__ k, const float *__restrict__ v, float *__restrict__ y,
                float *__restrict__ logs, float scale, int queries, int keys, int width, int values, int causal) {
    DYNAMIC_SHARED(float, room);
    int blocks = (queries + OWN - 1) / OWN, first = blockIdx.x % blocks * OWN, column = blockIdx.y * COLUMNS;
    int mine = first + threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values};
    Tile q_tile = tile(room, OWN, width, BY_ROWS), k_tile = tile(room, OTHER, width, BY_ROWS);
    Tile v_tile = tile(room, OTHER, values, BY_COLUMNS);
    int end = causal ? min(keys, first + OWN + keys - queries) : keys;
    float top[2] = {HIDDEN, HIDDEN}, total[2] = {};
    Sums scores[EIGHTS], sums[COLUMNS / 8] = {};
    fill(q_tile, OWN, Q, first);
    for (int key = 0; key < end; key += OTHER) {
        __syncthreads();  // the tiles before are done with
        fill(k_tile, OTHER, K, key), fill(v_tile, OTHER, V, key);
        __syncthreads();
        products(q_tile, k_tile, scores);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int last = causal ? min(keys - 1, mine + Sums::row(2 * half) + keys - queries) : keys - 1;
            float higher = top[half];
#pragma unroll
            for (int n = 0; n < EIGHTS; n++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    float *score = &scores[n].at[i];
                    *score = key + 8 * n + Sums::column(i) <= last ? *score * scale : HIDDEN;
                    higher = fmax(higher, *score);
                }
            higher = four_max(higher);
            float fade = exp(top[half] - higher);
            top[half] = higher, total[half] *= fade;
#pragma unroll
            for (int n = 0; n < EIGHTS; n++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++)
                    total[half] += scores[n].at[i] = exp(scores[n].at[i] - higher);
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++) sums[n].at[2 * half] *= fade, sums[n].at[2 * half + 1] *= fade;
        }
        add(scores, v_tile, column, sums);
    }
    for (int half = 0; half < 2; half++) {
        int t = mine + Sums::row(2 * half);
        total[half] = four_sum(total[half]);
        if (threadIdx.x % 4 == 0 && column == 0 && t < queries)
            logs[sequence * queries + t] = top[half] + log(total[half]);
        total[half] = 1 / total[half];
    }
    give(y + sequence * queries * values, sums, mine, queries, column, values, total);
}

// The block's rows are queries; `means` holds rowsum(Ȳ ∘ Y).
extern "C" __global__ void __launch_bounds__(THREADS)
softmax_backward_queries(const float *__restrict__ q, const float *__restrict__ k, const float *__restrict__ v,
                         const float *__restrict__ gy, const float *__restrict__ logs, const float *__restrict__ means,
                         float *__restrict__ gq, float scale, int queries, int keys, int width, int values, int causal) {
    DYNAMIC_SHARED(float, room);
    int blocks = (queries + OWN - 1) / OWN, first = blockIdx.x % blocks * OWN, column = blockIdx.y * COLUMNS;
    int mine = first + threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {gy + sequence * queries * values, queries, values};
    Tile q_tile = tile(room, OWN, width, BY_ROWS), g_tile = tile(room, OWN, values, BY_ROWS);
    Tile k_tile = tile(room, OTHER, width, BY_ROWS), v_tile = tile(room, OTHER, values, BY_ROWS);
    int end = causal ? min(keys, first + OWN + keys - queries) : keys;
    const float ones[2] = {1, 1};
    Sums scores[EIGHTS], toward[EIGHTS], sums[COLUMNS / 8] = {};
    fill(q_tile, OWN, Q, first), fill(g_tile, OWN, G, first);
    for (int key = 0; key < end; key += OTHER) {
        __syncthreads();  // the tiles before are done with
        fill(k_tile, OTHER, K, key), fill(v_tile, OTHER, V, key);
        __syncthreads();
        products(q_tile, k_tile, scores), products(g_tile, v_tile, toward);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int t = mine + Sums::row(i), last = causal ? min(keys - 1, t + keys - queries) : keys - 1;
            long long row = sequence * queries + min(t, queries - 1);
            float sum = logs[row], mean = means[row];
#pragma unroll
            for (int n = 0; n < EIGHTS; n++) {
                bool seen = t < queries && key + 8 * n + Sums::column(i) <= last;
                float weight = seen ? exp(scores[n].at[i] * scale - sum) : 0;
                scores[n].at[i] = weight * (toward[n].at[i] - mean) * scale;
            }
        }
        add(scores, k_tile, column, sums);
    }
    give(gq + sequence * queries * width, sums, mine, queries, column, width, ones);
}

// The block's rows are keys.
extern "C" __global__ void __launch_bounds__(THREADS)
softmax_backward_keys(const float *__restrict__ q, const float *__restrict__ k, const float *__restrict__ v,
                      const float *__restrict__ gy, const float *__restrict__ logs, const float *__restrict__ means,
                      float *__restrict__ gk, float *__restrict__ gv, float scale, int queries, int keys, int width,
                      int values, int causal) {
    DYNAMIC_SHARED(float, room);
    int blocks = (keys + OWN - 1) / OWN, first = blockIdx.x % blocks * OWN, column = blockIdx.y * COLUMNS;
    int mine = first + threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x / blocks;
    Rows Q = {q + sequence * queries * width, queries, width}, K = {k + sequence * keys * width, keys, width};
    Rows V = {v + sequence * keys * values, keys, values}, G = {gy + sequence * queries * values, queries, values};
    Tile k_tile = tile(room, OWN, width, BY_ROWS), v_tile = tile(room, OWN, values, BY_ROWS);
    Tile q_tile = tile(room, OTHER, width, BY_ROWS), g_tile = tile(room, OTHER, values, BY_ROWS);
    int start = causal ? max(0, first - (keys - queries)) / OTHER * OTHER : 0;
    const float ones[2] = {1, 1};
    Sums scores[EIGHTS], toward[EIGHTS], sums[COLUMNS / 8] = {}, to_v[COLUMNS / 8] = {};
    fill(k_tile, OWN, K, first), fill(v_tile, OWN, V, first);
    for (int query = start; query < queries; query += OTHER) {
        __syncthreads();  // the tiles before are done with
        fill(q_tile, OTHER, Q, query), fill(g_tile, OTHER, G, query);
        __syncthreads();
        products(k_tile, q_tile, scores), products(v_tile, g_tile, toward);
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int t = query + 8 * n + Sums::column(i), last = causal ? min(keys - 1, t + keys - queries) : keys - 1;
                long long row = sequence * queries + min(t, queries - 1);
                bool seen = t < queries && mine + Sums::row(i) <= last;
                scores[n].at[i] = seen ? exp(scores[n].at[i] * scale - logs[row]) : 0;
                toward[n].at[i] = scores[n].at[i] * (toward[n].at[i] - means[row]) * scale;
            }
        add(scores, g_tile, column, to_v), add(toward, q_tile, column, sums);
    }
    give(gk + sequence * keys * width, sums, mine, keys, column, width, ones);
    give(gv + sequence * keys * values, to_v, mine, keys, column, values, ones);
}
