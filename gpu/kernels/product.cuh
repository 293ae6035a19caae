// Products of tiles of 32 × 32 elements by a block of 8 warps, with 4 accumulators per thread: by multiply-adds or,
// with OPERAND defined, on tensor cores, which round the operands (mma.cuh). A kernel is written once for both layouts:
//
//              multiply-adds                       tensor cores
//     a warp   4 rows, each lane a column          16 rows and 8 columns, in the layout of mma.cuh
//     PITCH    33: lanes read down a column        36: lanes read 8 elements across and 4 down
//
// Tiles of bf16 arrays (numbers.cuh) hold floats.
#pragma once
#include "tiles.cuh"

#ifdef OPERAND  // Tf32 or Bf16
#include "mma.cuh"
constexpr int PITCH = SIDE + 4;

struct Accumulator : Sums {  // a thread's elements of a tile
    // first row of the warp; end_row is one past its last
    static __device__ int first_row() { return threadIdx.x / 128 * 16; }
    static __device__ int end_row() { return first_row() + 16; }
    static __device__ int first_column() { return threadIdx.x / 32 % 4 * 8; }
    static __device__ int row(int r) { return first_row() + Sums::row(r); }
    static __device__ int column(int r) { return first_column() + Sums::column(r); }
};
#else
constexpr int PITCH = SIDE + 1;

struct Accumulator {
    real at[ROWS];
    static __device__ int first_row() { return threadIdx.x / 32 * ROWS; }
    static __device__ int end_row() { return first_row() + ROWS; }
    static __device__ int row(int r) { return first_row() + r; }
    static __device__ int column(int) { return threadIdx.x % 32; }
};
#endif

typedef __align__(16) real Tile[SIDE][PITCH];

// An operand [i][d] of a product that sums over d: the rows of a tile, or its columns.
struct Rows {
    const Tile &tile;
    __device__ real at(int i, int d) const { return tile[i][d]; }
#ifdef OPERAND
    template <class Fragment> __device__ void load(Fragment &x, int i, int d) const { rows(x, &tile[i][d], PITCH); }
#endif
};
struct Columns {
    const Tile &tile;
    __device__ real at(int i, int d) const { return tile[d][i]; }
#ifdef OPERAND
    template <class Fragment> __device__ void load(Fragment &x, int i, int d) const { columns(x, &tile[d][i], PITCH); }
#endif
};

#ifdef OPERAND
constexpr int DEPTH = OPERAND::DEPTH, AHEAD = 1;  // unrolled steps: with more, registers spill
struct Factors {  // of a left operand: a warp's rows, DEPTH steps of the summed axis
    Left<OPERAND> x;
    template <class From> __device__ Factors(From left, int d) { left.load(x, Accumulator::first_row(), d); }
    template <class From> __device__ void times(From right, int d, Accumulator &sums) const {
        Right<OPERAND> y;
        right.load(y, Accumulator::first_column(), d);
        multiply(sums, x, y);
    }
};
#else
constexpr int DEPTH = 1, AHEAD = 4;  // with 8, nvcc spills for sm_100
struct Factors {
    real x[ROWS];
    template <class From> __device__ Factors(From left, int d) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) x[r] = left.at(Accumulator::row(r), d);
    }
    template <class From> __device__ void times(From right, int d, Accumulator &sums) const {
        real y = right.at(Accumulator::column(0), d);
#pragma unroll
        for (int r = 0; r < ROWS; r++) sums.at[r] = fma(x[r], y, sums.at[r]);
    }
};
#endif

template <class From> struct Into {
    Accumulator &sums;
    From right;
};
template <class From> __device__ inline Into<From> into(Accumulator &sums, From right) { return {sums, right}; }

// sums[i][j] += Σ_d left[i][d] right[j][d], for one left operand and several right ones.
template <class Left, class... Rights> __device__ inline void products(Left left, Into<Rights>... all) {
#pragma unroll AHEAD
    for (int d = 0; d < SIDE; d += DEPTH) {
        Factors x(left, d);
        (x.times(all.right, d, all.sums), ...);
    }
}

struct Range {  // of d
    int from, to;
};
// the range of d in which this warp's rows of a lower (upper) triangular left operand are not 0
__device__ inline Range lower() { return {0, Accumulator::end_row()}; }
__device__ inline Range upper() { return {Accumulator::first_row(), SIDE}; }

template <class Left, class Right> __device__ inline void products(Range over, Left left, Into<Right> one) {
#pragma unroll 1
    for (int d = over.from; d < over.to; d += DEPTH) Factors(left, d).times(one.right, d, one.sums);
}

__device__ inline void load(Accumulator &own, const Tile &tile) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) own.at[r] = tile[Accumulator::row(r)][Accumulator::column(r)];
}
__device__ inline void store(const Accumulator &own, Tile &tile) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) tile[Accumulator::row(r)][Accumulator::column(r)] = own.at[r];
}

// Convert accumulators to the layout of 4 rows per warp and a column per lane, by way of `tile` where layouts differ.
__device__ inline void to_row_layout(const Accumulator &own, Tile &tile, real (&rows)[ROWS]) {
#ifdef OPERAND
    __syncthreads();  // the tile has been read
    store(own, tile);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = tile[threadIdx.x / 32 * ROWS + r][threadIdx.x % 32];
#else
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = own.at[r];
#endif
}

// Store rows first, first + 1, … of a matrix and 32 of its columns, as `load_tile` loads them.
template <class To>
__device__ inline void store(const Accumulator &own, To *to, int first, int column, int count, int columns,
                             bool reverse = false) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = first + Accumulator::row(r), c = column + Accumulator::column(r);
        if (t < count && c < columns) narrow(to[(long long)(reverse ? count - 1 - t : t) * columns + c], own.at[r]);
    }
}
