// Linear attention on tensor cores, with the names of linear_attention.cu. One kernel computes the state at the start
// of every chunk of 64 tokens, chunk after chunk; another the outputs of all chunks, in any order.
//
//     S′ = S + Kᵀ V               Y = Q S + (Q Kᵀ ∘ M) V                       per chunk; M[t, s] = 1 for s ≤ t, else 0
//
// backward, by the same kernels, with dS the cotangent of the state after a chunk, in reverse, and S the boundary
// states:
//
//     dS′ = dS + Qᵀ dY               dQ = dY Sᵀ + (dY Vᵀ ∘ M) K
//     dK = V dSᵀ + (V dYᵀ ∘ Mᵀ) Q    dV = K dS + (K Qᵀ ∘ Mᵀ) dY
//
// Operands of products are rounded to tf32, or to bf16 with -DOPERAND=Bf16; sums are float32, and so is S while it is
// carried from chunk to chunk. Arrays are float32, or with -DARRAY=Bfloat16 too, q, k, v, y, their cotangents and the
// boundary states, which are operands only, are bf16.
//
// Block    states: 64 × 32 elements of one sequence's S, chunk after chunk, the next one prefetched. Outputs: one chunk
//          and up to 128 columns; q stays in shared memory, beside it first S, 128 keys at a time, and then k and v.
// Warp     16 rows of S, or 16 tokens of a chunk. It computes their scores 32 keys at a time, skipping those where M is
//          0; scores are the left operand of the next product without leaving registers.
// Thread   2 elements of every 8 × 8, in the layout of mma.cuh.
//
// Memory traffic   per token, in elements: q, k, v and y, k and v once more for the states, and K V / 64 for a state
//                  written and read: 3 K + 3 V + K V / 32; backward 7 K + 7 V + K V / 16. After the first time they
//                  come from the L2 cache: for states k per 32 columns of v, and v per 64 of k; for outputs q and k per
//                  128 columns.
// FLOPs            per token 2 K V for the state, 2 K V + 96 (K + V) for the output: 48 keys are scored, of which 32.5
//                  are not masked; backward one state and three outputs. All are in products.
// Bound            memory: at K = V = 128, 90,000 operations for 5 KB, or 2.5 KB.
#include "parts.cuh"

#ifndef COLUMNS
#define COLUMNS 128  // of the output, per block; -DCOLUMNS=64 if it has no more
#endif

constexpr int BLOCKS = COLUMNS == 64 ? 5 : 3;  // per multiprocessor, as registers permit
constexpr int CHUNK = 16 * WARPS, KEYS = 16 * WARPS, VALUES = 32, KEY_BLOCK = 32, SLAB_KEYS = 128;

// A left operand whose rows are columns of a tile; operands.cuh has the right ones.
__device__ inline const unsigned *left_columns(Tile tile, int row, int column) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    tile.at += column / 8 * OPERAND::EIGHT;
    return OPERAND::EIGHT == 4 ? right_rows(tile, row) : tile.at + (row + 2 * t) * tile.stride + g % 2 * 4 + g / 2;
}
__device__ inline void columns(Left<OPERAND> &x, const unsigned *from, int stride) {
    if (OPERAND::EIGHT == 4) ldmatrix_trans(x.words, from);
    else
#pragma unroll
        for (int i = 0; i < 4; i++) x.words[i] = from[i / 2 * stride + i % 2 * 8];
}

// sums += left times a right operand, of the depth of one mma: `count` rows of a tile, or columns. WHOLE: all exist, so
// that without a branch loads of an operand overlap with the previous product.
template <bool BY_ROWS, bool WHOLE, int EIGHTS>
__device__ inline void mma_columns(Sums (&sums)[EIGHTS], const Left<OPERAND> &left, const unsigned *from, int stride,
                                   int count) {
    Rights right;
#pragma unroll
    for (int n = 0; n < EIGHTS; n += 2)
        if (WHOLE || 8 * n < count) {
            if (BY_ROWS) rows(right, from + 8 * n * stride);
            else columns(right, from + n * OPERAND::EIGHT, stride);
            multiply(sums[n], sums[n + 1], left, right);
        }
}
template <bool BY_ROWS, int EIGHTS>
__device__ inline void mma_step(Sums (&sums)[EIGHTS], const Left<OPERAND> &left, const unsigned *from, int stride,
                                int count) {
    if (8 * EIGHTS <= count) mma_columns<BY_ROWS, true>(sums, left, from, stride, count);
    else mma_columns<BY_ROWS, false>(sums, left, from, stride, count);
}

// sums += 16 rows of x times y: dot products with its rows, or with its columns.
template <bool BY_ROWS, int EIGHTS>
__device__ inline void accumulate(Sums (&sums)[EIGHTS], Tile x, int row, Tile y, int count) {
    const unsigned *from = left_rows(x, row), *right = BY_ROWS ? right_rows(y, 0) : right_columns(y, 0, 0);
    Left<OPERAND> left;
    for (int d = 0; d < x.columns; d += OPERAND::DEPTH) {
        rows(left, from), mma_step<BY_ROWS>(sums, left, right, y.stride, count);
        from += 8, right += BY_ROWS ? 8 : OPERAND::DEPTH * y.stride;
    }
}

__device__ inline void store_pair(float *to, float x, float y) { *reinterpret_cast<float2 *>(to) = {x, y}; }
__device__ inline void store_pair(Bfloat16 *to, float x, float y) { *reinterpret_cast<unsigned *>(to) = to_bf16(x, y); }

// Store 16 rows of a matrix from a column on; pairs of neighbours at once where they are aligned.
template <class To, int EIGHTS>
__device__ inline void store(To *to, const Sums (&sums)[EIGHTS], int first, int count, int column, int columns) {
#pragma unroll
    for (int n = 0; n < EIGHTS; n++)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            int row = first + Sums::row(i), c = column + 8 * n + Sums::column(i);
            To *place = to + (long long)row * columns + c;
            if (row >= count || c >= columns) continue;
            if (columns % 2 == 0) store_pair(place, sums[n].at[i], sums[n].at[i + 1]);
            else {
                narrow(place[0], sums[n].at[i]);
                if (c + 1 < columns) narrow(place[1], sums[n].at[i + 1]);
            }
        }
}

// boundary_states (batch, chunks, K, V): S at the start of every chunk, or in reverse at its end.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
linear_attention_states(const Number *__restrict__ k, const Number *__restrict__ v, const float *__restrict__ S,
                        Number *__restrict__ boundary_states, float *__restrict__ last, int length, int keys,
                        int values, int reverse) {
    DYNAMIC_SHARED(unsigned, shared);
    int chunks = (length + CHUNK - 1) / CHUNK, key = blockIdx.y * KEYS, column = blockIdx.z * VALUES;
    int warp_row = threadIdx.x / 32 * 16;
    long long sequence = blockIdx.x, size = (long long)keys * values;
    Rows K = {k + sequence * length * keys, length, keys}, V = {v + sequence * length * values, length, values};
    Tile k_tile(shared, 2 * CHUNK, KEYS), v_tile(shared, 2 * CHUNK, VALUES);
    S += sequence * size, last += sequence * size, boundary_states += sequence * chunks * size;

    Sums sums[VALUES / 8];
#pragma unroll
    for (int n = 0; n < VALUES / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = key + warp_row + Sums::row(i), c = column + 8 * n + Sums::column(i);
            sums[n].at[i] = row < keys && c < values ? S[(long long)row * values + c] : 0;
        }
    int start = reverse ? chunks - 1 : 0, on = reverse ? -1 : 1;
    StagedTile<CHUNK, KEYS> k_staged;
    StagedTile<CHUNK, VALUES> v_staged;
    k_staged.load(k_tile, K, start * CHUNK, key), v_staged.load(v_tile, V, start * CHUNK, column);
    k_staged.store(k_tile), v_staged.store(v_tile);
    for (int i = 0, stage = 0; i < chunks; i++, stage = CHUNK - stage) {
        int chunk = start + i * on, next = (chunk + on) * CHUNK;
        bool more = i + 1 < chunks;
        Tile k_next = subtile(k_tile, CHUNK - stage, 0), v_next = subtile(v_tile, CHUNK - stage, 0);
        copy_wait();
        __syncthreads();  // the current chunk has arrived, the previous one has been read
        if (more) k_staged.load(k_next, K, next, key), v_staged.load(v_next, V, next, column);
        store(boundary_states + chunk * size, sums, key + warp_row, keys, column, values);
        const unsigned *k_from = left_columns(k_tile, stage, warp_row), *v_from = right_columns(v_tile, stage, 0);
        Left<OPERAND> left;
#pragma unroll
        for (int d = 0; d < CHUNK; d += OPERAND::DEPTH) {
            columns(left, k_from + d * k_tile.stride, k_tile.stride);
            mma_step<false>(sums, left, v_from + d * v_tile.stride, v_tile.stride, VALUES);
        }
        if (more) k_staged.store(k_next), v_staged.store(v_next);
    }
    store(last, sums, key + warp_row, keys, column, values);
}

// sums += (Q Kᵀ ∘ M) V for the tokens of a warp, within their chunk.
__device__ inline void add_intra_chunk(Sums (&sums)[COLUMNS / 8], Tile q, Tile k, Tile v, int warp_row, int count,
                                       int reverse) {
    for (int key_block = 0; key_block < CHUNK; key_block += KEY_BLOCK) {
        // M is 0
        if (reverse ? key_block + KEY_BLOCK <= warp_row : key_block > warp_row) continue;
        Sums scores[KEY_BLOCK / 8] = {};
        accumulate<true>(scores, q, warp_row, subtile(k, key_block, 0), KEY_BLOCK);
#pragma unroll
        for (int n = 0; n < KEY_BLOCK / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int age = warp_row + Sums::row(i) - key_block - 8 * n - Sums::column(i);
                if (reverse ? age > 0 : age < 0) scores[n].at[i] = 0;
            }
        const unsigned *from = right_columns(v, key_block, 0);
        Left<OPERAND> left;
#pragma unroll
        for (int d = 0; d < KEY_BLOCK; d += OPERAND::DEPTH)
            results(left, &scores[d / 8]), mma_step<false>(sums, left, from + d * v.stride, v.stride, count);
    }
}

// boundary_states (batch, chunks, K, V), or `transposed` (batch, chunks, V, K). In reverse, tokens attend to later
// ones.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
linear_attention_outputs(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                         const Number *__restrict__ boundary_states, Number *__restrict__ y, int length, int keys,
                         int values, int transposed, int reverse) {
    DYNAMIC_SHARED(unsigned, shared);
    int chunks = (length + CHUNK - 1) / CHUNK, first = blockIdx.x % chunks * CHUNK, column = blockIdx.y * COLUMNS;
    int warp_row = threadIdx.x / 32 * 16, slab_columns = min(COLUMNS, values - column);
    int slab_keys = min(SLAB_KEYS, keys);
    long long sequence = blockIdx.x / chunks;
    Rows Q = {q + sequence * length * keys, length, keys}, K = {k + sequence * length * keys, length, keys};
    Rows V = {v + sequence * length * values, length, values};
    Rows S = {boundary_states + (long long)blockIdx.x * keys * values, transposed ? values : keys,
              transposed ? keys : values};
    Tile q_tile(shared, CHUNK, keys);
    unsigned *same = shared;
    Tile s_tile(same, padded(transposed ? slab_columns : slab_keys), transposed ? slab_keys : slab_columns);
    Tile k_tile(shared, CHUNK, keys), v_tile(shared, CHUNK, slab_columns);
    Sums sums[COLUMNS / 8] = {};
    load_tile<COLUMNS>(q_tile, CHUNK, Q, first, 0);
    for (int key = 0; key < keys; key += slab_keys) {
        if (transposed) load_tile<COLUMNS>(s_tile, slab_columns, S, column, key);
        else load_tile<COLUMNS>(s_tile, slab_keys, S, key, column);
        copy_wait();
        __syncthreads();
        Tile slab = subtile(q_tile, 0, key);
        slab.columns = min(slab_keys, keys - key);
        if (transposed) accumulate<true>(sums, slab, warp_row, s_tile, slab_columns);
        else accumulate<false>(sums, slab, warp_row, s_tile, slab_columns);
        __syncthreads();  // this slab of the state has been read
    }
    load_tile<COLUMNS>(k_tile, CHUNK, K, first, 0), load_tile<COLUMNS>(v_tile, CHUNK, V, first, column);
    copy_wait();
    __syncthreads();
    add_intra_chunk(sums, q_tile, k_tile, v_tile, warp_row, slab_columns, reverse);
    store(y + sequence * length * values, sums, first + warp_row, length, column, values);
}
