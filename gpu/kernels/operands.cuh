// Tiles in shared memory of what tensor cores multiply: rounded once, when a tile is filled, and read as words.
//
//     bf16    a word holds two neighbours of a row
//     tf32    a word holds one number, and of eight neighbours the even ones come first
//
// ldmatrix deals out matrices of 8 rows of 4 words: lane l gets word l % 4 of row l / 4. For both kinds these are the numbers
// that mma.cuh gives it. By columns it can transpose what has 16 bits; what is tf32 is read a word at a time.
//
// A tile's stride is 4 mod 8 words, so that no bank is met twice: 8 rows of 4 words lie in 32 banks, and so do 8 words of each
// of 4 rows of which every second is read.
//
// Arrays are of float or, with -DARRAY=Bfloat16, of two bytes a number. Those go to a tile as they are, past the registers and
// while the warp does something else, where 8 divides the columns.
#pragma once
#include "mma.cuh"

constexpr int WARPS = 4, THREADS = 32 * WARPS;

#ifdef __CUDACC__  // on the host, emulator/tensor_cores.cuh does what these do
__device__ inline unsigned shared_address(const void *place) { return (unsigned)__cvta_generic_to_shared(place); }

// Four matrices of 8 rows of 4 words: lane l gives the address of row l % 8 of matrix l / 8, and gets a word of each.
__device__ inline void ldmatrix(unsigned (&words)[4], const unsigned *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row)));
}
__device__ inline void ldmatrix_trans(unsigned (&words)[4], const unsigned *row) {  // of rows of 8 numbers of 16 bits
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row)));
}
// 16 bytes to shared memory, or 16 zeros; done when `copy_wait` returns.
__device__ inline void copy_async(uint4 *to, const uint4 *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
}
__device__ inline void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif

struct Rows {  // of a matrix: count of them, of so many columns
    const Number *from;
    int count, columns;
};

__device__ inline int padded(int columns) { return (columns + 31) / 32 * 32; }

struct Tile {  // of such rows, 0 outside
    unsigned *at;
    int stride, columns;  // of words; of numbers

    __device__ Tile(unsigned *&shared, int count, int columns)
        : at(shared), stride(padded(columns) / 8 * OPERAND::EIGHT + 4), columns(columns) {
        shared += count * stride;
    }
};

// Eight neighbours to a tile, or zeros.
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

// Rows row, row + 1, … of a tile from rows first, first + 1, … of x; eight threads share a row. All is there when each has
// called `copy_wait`.
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

struct Rights {  // two right operands: 8 rows, and the next 8
    unsigned words[4];
};

// Where a lane starts to read 16 rows, or columns, of a tile; the next step along the axis of the sum is 8 words on, or
// OPERAND::DEPTH rows.
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

// Two times 16 × 8 sums.
__device__ inline void multiply(Sums &low, Sums &high, const Left<OPERAND> &left, const Rights &right) {
    multiply(low, left, Right<OPERAND>{right.words[0], right.words[1]});
    multiply(high, left, Right<OPERAND>{right.words[2], right.words[3]});
}
