// Products of matrices in global memory by a block of 8 warps, tile by tile through shared memory, and reductions of
// rows.
#pragma once
#include "product.cuh"

// Load 32 rows and columns of a view of a matrix; 0 outside.
template <class View> __device__ inline void load_tile(Tile &tile, const View &from, int row, int column) {
    int j = threadIdx.x % SIDE;
    for (int i = threadIdx.x / SIDE; i < SIDE; i += WARPS)
        tile[i][j] = row + i < from.rows() && column + j < from.columns() ? from.at(row + i, column + j) : 0;
}

// The operands of products. `one` appends a column of ones, which is not stored: the feature of a bias.
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

struct Scaled {  // diag(by) of
    typedef Rows Left;
    typedef Columns Right;
    const real *by;
    Matrix of;
    __device__ int rows() const { return of.rows(); }
    __device__ int columns() const { return of.columns(); }
    __device__ real at(int i, int j) const { return by[i] * of.at(i, j); }
    __device__ void load(Tile &tile, int row, int column) const { load_tile(tile, *this, row, column); }
};

// its tiles are loaded as those of the original, and multiplied transposed
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

// Add the tile of left × right that begins with this row and column to the accumulators.
template <class First, class Second>
__device__ inline void accumulate(Tile (&tiles)[2], Accumulator &sums, int row, int column,
                                  const Times<First, Second> &pair) {
    for (int slice = 0; slice < pair.left.columns(); slice += SIDE) {
        __syncthreads();  // the previous tiles have been read, and operands written before are complete
        pair.left.load(tiles[0], row, slice), pair.right.load(tiles[1], slice, column);
        __syncthreads();
        if (row + Accumulator::first_row() >= pair.left.rows()) continue;
        int count = min(SIDE, pair.left.columns() - slice);
#pragma unroll 4
        for (int d = 0; d < count; d += DEPTH)
            Factors(typename First::Left{tiles[0]}, d).times(typename Second::Right{tiles[1]}, d, sums);
    }
}

// Call then(i, j, sum) for every element of a sum of products. An element (i, j) belongs to the same thread in every
// call. `then` may write to memory that the next call reads; it must not overwrite the operands.
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

// Call then(t) for every row, by one warp; a lane has every 32nd element.
template <class Then> __device__ inline void along_rows(int rows, Then then) {
    __syncthreads();  // the rows have been written
    for (int t = threadIdx.x / 32; t < rows; t += WARPS) then(t);
}

// Return Σ value(j) over a row, in all lanes.
template <class Value> __device__ inline real row_sum(int width, Value value) {
    real sum = 0;
    for (int j = threadIdx.x % 32; j < width; j += 32) sum += value(j);
    return warp_sum(sum);
}
