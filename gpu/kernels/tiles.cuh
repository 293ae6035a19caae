// Tiles of 32 × 32 elements in shared memory, and how a block of 8 warps divides them.
#pragma once
#include "numbers.cuh"

constexpr int SIDE = 32, WARPS = 8, THREADS = 32 * WARPS, ROWS = SIDE / WARPS;  // a warp has 4 rows, a lane a column

typedef real Square[SIDE][SIDE + 1];  // padded, so that reading a column has no bank conflicts

// Load rows first, first + 1, … of a matrix (counted from the end in reverse) and 32 of its columns; 0 outside.
template <int PITCH, class From>
__device__ inline void load_tile(real (&square)[SIDE][PITCH], const From *from, int first, int column, int count,
                                 int columns, bool reverse = false) {
    for (int row = threadIdx.x / SIDE; row < SIDE; row += WARPS) {
        int t = first + row, c = column + threadIdx.x % SIDE;
        bool inside = t < count && c < columns;
        square[row][threadIdx.x % SIDE] =
            inside ? widen(from[(long long)(reverse ? count - 1 - t : t) * columns + c]) : 0;
    }
}

// Return in `sum`, for the 4 rows of this warp, the sum of `part` over all warps, by 4 tiles of shared memory.
template <int PITCH>
__device__ inline void sum_over_warps(real (*tiles)[SIDE][PITCH], const real (&part)[SIDE], real (&sum)[ROWS]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // the tiles have been read
    if (warp >= WARPS / 2)
        for (int t = 0; t < SIDE; t++) tiles[warp - WARPS / 2][t][lane] = part[t];
    __syncthreads();
    if (warp < WARPS / 2)
        for (int t = 0; t < SIDE; t++) tiles[warp][t][lane] += part[t];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sum[r] = 0;
        for (int w = 0; w < WARPS / 2; w++) sum[r] += tiles[w][warp * ROWS + r][lane];
    }
}
