// Matrices in device memory as a block of 8 warps works with them: it multiplies them tile by tile, and goes along their rows.
#pragma once
#include "product.cuh"

// 32 rows and columns of what a matrix reads as; 0 outside.
template <class View> __device__ inline void load_tile(Tile &tile, const View &from, int row, int column) {
    int j = threadIdx.x % SIDE;
    for (int i = threadIdx.x / SIDE; i < SIDE; i += WARPS)
        tile[i][j] = row + i < from.rows() && column + j < from.columns() ? from.at(row + i, column + j) : 0;
}

// What a factor may be. A column of ones that `one` adds at the right is read and not kept: the feature of a bias.
struct Matrix {
    typedef Rows Left;
    typedef Columns Right;
    const real *from;
    int height, width, one = 0;
    __device__ int rows() const { return height; }
    __device__ int columns() const { return width + one; }
    __device__ real at(int i, int j) const { return j < width ? from[(long long)i * width + j] : 1; }
    __device__ void load(Tile &tile, int row, int column) const { load_tile(tile, *this, row, column); }
};

struct Scaled {  // row by row
    typedef Rows Left;
    typedef Columns Right;
    const real *by;
    Matrix of;
    __device__ int rows() const { return of.rows(); }
    __device__ int columns() const { return of.columns(); }
    __device__ real at(int i, int j) const { return by[i] * of.at(i, j); }
    __device__ void load(Tile &tile, int row, int column) const { load_tile(tile, *this, row, column); }
};

// rows for columns; its tiles stay as they are read, and are multiplied the other way
template <class View> struct Transposed {
    typedef Columns Left;
    typedef Rows Right;
    View of;
    __device__ int rows() const { return of.columns(); }
    __device__ int columns() const { return of.rows(); }
    __device__ void load(Tile &tile, int row, int column) const { of.load(tile, column, row); }
};
template <class View> __device__ inline Transposed<View> transposed(View of) { return {of}; }

template <class First, class Second> struct Times {
    First left;
    Second right;
};
template <class First, class Second> __device__ inline Times<First, Second> times(First left, Second right) {
    return {left, right};
}

// The tile of left × right that begins with this row and column, added to the sums.
template <class First, class Second>
__device__ inline void accumulate(Tile (&tiles)[2], Accumulator &sums, int row, int column,
                                  const Times<First, Second> &pair) {
    for (int slice = 0; slice < pair.left.columns(); slice += SIDE) {
        __syncthreads();  // the tiles before are done with, and what these hold has been written
        pair.left.load(tiles[0], row, slice), pair.right.load(tiles[1], slice, column);
        __syncthreads();
        if (row + Accumulator::first_row() >= pair.left.rows()) continue;
        int count = min(SIDE, pair.left.columns() - slice);
#pragma unroll 4
        for (int d = 0; d < count; d += DEPTH)
            Factors(typename First::Left{tiles[0]}, d).times(typename Second::Right{tiles[1]}, d, sums);
    }
}

// then(i, j, sum) for every number of the sum of products. The thread that is given (i, j) here is given it by every call;
// what it writes others may read in the next one, and what the factors are made of nobody may write before.
template <class Then, class First, class... Others>
__device__ inline void multiply(Tile (&tiles)[2], Then then, First first, Others... others) {
    int rows = first.left.rows(), columns = first.right.columns();
    for (int row = 0; row < rows; row += SIDE)
        for (int column = 0; column < columns; column += SIDE) {
            Accumulator sums = {};
            accumulate(tiles, sums, row, column, first);
            (accumulate(tiles, sums, row, column, others), ...);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                int i = row + Accumulator::row(r), j = column + Accumulator::column(r);
                if (i < rows && j < columns) then(i, j, sums.at[r]);
            }
        }
}

// then(t) for every row by one warp, of which a lane owns every 32nd number.
template <class Then> __device__ inline void along_rows(int rows, Then then) {
    __syncthreads();  // the rows are written
    for (int t = threadIdx.x / 32; t < rows; t += WARPS) then(t);
}

// Σ value(j) over a row, in all lanes.
template <class Value> __device__ inline real row_sum(int width, Value value) {
    real sum = 0;
    for (int j = threadIdx.x % 32; j < width; j += 32) sum += value(j);
    return warp_sum(sum);
}
