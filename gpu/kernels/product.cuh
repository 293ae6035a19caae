// Products of tiles of 32 × 32 numbers by a block of 8 warps, where each thread makes 4 of the 1024 sums: one multiply-add
// at a time, or, with OPERAND defined, on tensor cores, which round what they multiply (mma.cuh). A kernel's text is the
// same for both, as long as it asks where a thread's numbers are:
//
//              one at a time                       on tensor cores
//     a warp   4 rows, each lane a column          16 rows and 8 columns, as mma.cuh has them
//     PITCH    33: lanes read down a column        36: lanes read 8 numbers across and 4 down
//
// Arrays that numbers.cuh has as Bfloat16 are wide in a tile.
#pragma once
#include "tiles.cuh"

#ifdef OPERAND  // Tf32 or Bf16
#include "mma.cuh"
constexpr int PITCH = SIDE + 4;

struct Accumulator : Sums {  // a thread's numbers of a tile
    // the first row of its warp, and one past the last
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

// An operand's [i][d], where products are summed over d: the tile's rows, or its columns.
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
constexpr int DEPTH = OPERAND::DEPTH, AHEAD = 1;  // steps in flight: with more, registers spill
struct Factors {  // of a left operand: a warp's rows, the next of the summed axis
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

// sums[i][j] += Σ_d left[i][d] right[j][d], of one left operand with each of the right ones.
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
// where rows of a lower triangle are not 0, in this warp
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

// The same numbers dealt out anew: 4 rows to a warp, a column to each lane. They pass through the tile, where they must.
__device__ inline void to_row_layout(const Accumulator &own, Tile &tile, real (&rows)[ROWS]) {
#ifdef OPERAND
    __syncthreads();  // what the tile held is done with
    store(own, tile);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = tile[threadIdx.x / 32 * ROWS + r][threadIdx.x % 32];
#else
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = own.at[r];
#endif
}

// To rows first, first + 1, … of a matrix and 32 of its columns, as `fill` takes them.
template <class To>
__device__ inline void store(const Accumulator &own, To *to, int first, int column, int count, int columns,
                             bool reverse = false) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int t = first + Accumulator::row(r), c = column + Accumulator::column(r);
        if (t < count && c < columns) narrow(to[(long long)(reverse ? count - 1 - t : t) * columns + c], own.at[r]);
    }
}
