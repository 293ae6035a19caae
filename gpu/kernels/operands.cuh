// Operand tiles in shared memory for tensor cores: rounded once, when a tile is loaded, and read as 32-bit words.
//
//     bf16    a word holds two neighbours of a row
//     tf32    a word holds one element, and of eight neighbours the even ones come first
//
// ldmatrix distributes matrices of 8 rows of 4 words: lane l receives word l % 4 of row l / 4, which for both types is
// the element that mma.cuh assigns to it. By columns it transposes 16-bit elements; tf32 is read word by word.
//
// A tile's stride is 4 mod 8 words, so that there are no bank conflicts: 8 rows of 4 words lie in 32 banks, and so do 8
// words of each of 4 rows of which every second is read.
//
// Arrays are float or, with -DARRAY=Bfloat16, bf16. The latter are copied asynchronously to shared memory, bypassing
// registers (cp.async), where the number of columns is a multiple of 8.
#pragma once
#include "mma.cuh"

constexpr int WARPS = 4, THREADS = 32 * WARPS;

#ifdef __CUDACC__  // on the host, these are in emulator/tensor_cores.cuh
__device__ inline unsigned shared_address(const void *place) { return (unsigned)__cvta_generic_to_shared(place); }

// Four matrices of 8 rows of 4 words: lane l passes the address of row l % 8 of matrix l / 8, and receives a word of
// each.
__device__ inline void ldmatrix(unsigned (&words)[4], const unsigned *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row)));
}
__device__ inline void ldmatrix_trans(unsigned (&words)[4], const unsigned *row) {  // rows of 8 elements of 16 bits
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row)));
}
// Copy 16 bytes, or 16 zeros, to shared memory; complete when `copy_wait` returns.
__device__ inline void copy_async(uint4 *to, const uint4 *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(inside ? 16 : 0)
                 : "memory");
}
__device__ inline void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif

struct Rows {  // a row-major matrix of count rows
    const Number *from;
    int count, columns;
};

__device__ inline int padded(int columns) { return (columns + 31) / 32 * 32; }

struct Tile {  // of a matrix, padded with zeros
    unsigned *at;
    int stride, columns;  // in words; in elements

    __device__ Tile(unsigned *&shared, int count, int columns)
        : at(shared), stride(padded(columns) / 8 * OPERAND::EIGHT + 4), columns(columns) {
        shared += count * stride;
    }
};

// Store eight neighbours, or zeros, in a tile.
__device__ inline void store_eight(unsigned *to, const Bfloat16 *from, bool inside) {
    copy_async(reinterpret_cast<uint4 *>(to), reinterpret_cast<const uint4 *>(from), inside);
}
__device__ inline void store_eight(unsigned *to, const float (&numbers)[8]) {
    unsigned words[OPERAND::EIGHT];
    OPERAND::round(words, numbers);
#pragma unroll
    for (int i = 0; i < OPERAND::EIGHT; i += 4)
        *reinterpret_cast<uint4 *>(&to[i]) = {words[i], words[i + 1], words[i + 2], words[i + 3]};
}
__device__ inline void store_eight(unsigned *to, const float *from, bool inside) {
    float4 low = {}, high = {};
    if (inside) low = reinterpret_cast<const float4 *>(from)[0], high = reinterpret_cast<const float4 *>(from)[1];
    store_eight(to, {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w});
}

// Load rows first, first + 1, … of x into rows row, row + 1, … of a tile; eight threads share a row. Complete when
// every thread has called `copy_wait`.
template <int COUNT> __device__ inline void load_tile(Tile tile, int row, Rows x, int first) {
    bool whole = x.columns % 8 == 0 && (size_t)x.from % 16 == 0;
#pragma unroll
    for (int r = threadIdx.x / 8; r < COUNT; r += THREADS / 8) {
        const Number *from = x.from + (long long)(first + r) * x.columns;
        unsigned *to = tile.at + (row + r) * tile.stride;
        int columns = first + r < x.count ? x.columns : 0;
        for (int c = threadIdx.x % 8 * 8; c < padded(x.columns); c += 64)
            if (whole) store_eight(to + c / 8 * OPERAND::EIGHT, from + c, c < columns);
            else {
                float numbers[8];
#pragma unroll
                for (int i = 0; i < 8; i++) numbers[i] = c + i < columns ? widen(from[c + i]) : 0;
                store_eight(to + c / 8 * OPERAND::EIGHT, numbers);
            }
    }
}

struct Rights {  // two right operands, of 8 rows each
    unsigned words[4];
};

// The address from which a lane reads 16 rows, or columns, of a tile; the next step along the summed axis is 8 words,
// or OPERAND::DEPTH rows, further.
__device__ inline const unsigned *left_rows(Tile tile, int row) {
    int lane = threadIdx.x % 32;
    return tile.at + (row + lane % 16) * tile.stride + lane / 16 * 4;
}
__device__ inline const unsigned *right_rows(Tile tile, int row) {
    int lane = threadIdx.x % 32;
    return tile.at + (row + lane / 16 * 8 + lane % 8) * tile.stride + lane / 8 % 2 * 4;
}
__device__ inline const unsigned *right_columns(Tile tile, int row, int column) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    tile.at += column / 8 * OPERAND::EIGHT;
    return OPERAND::EIGHT == 4 ? left_rows(tile, row) : tile.at + (row + 2 * t) * tile.stride + g % 2 * 4 + g / 2;
}

__device__ inline void rows(Left<OPERAND> &x, const unsigned *from) { ldmatrix(x.words, from); }
__device__ inline void rows(Rights &x, const unsigned *from) { ldmatrix(x.words, from); }
__device__ inline void columns(Rights &x, const unsigned *from, int stride) {
    if (OPERAND::EIGHT == 4) ldmatrix_trans(x.words, from);
    else
#pragma unroll
        for (int i = 0; i < 4; i++) x.words[i] = from[i % 2 * stride + i / 2 * 8];
}

// Two products of 16 × 8 accumulators.
__device__ inline void multiply(Sums &low, Sums &high, const Left<OPERAND> &left, const Rights &right) {
    multiply(low, left, Right<OPERAND>{right.words[0], right.words[1]});
    multiply(high, left, Right<OPERAND>{right.words[2], right.words[3]});
}
