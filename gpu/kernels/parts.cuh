// Tiles of operands.cuh loaded in two stages: global memory to registers, and registers to shared memory, so that many
// loads are in flight at once and overlap with computation in between.
#pragma once
#include "operands.cuh"

__device__ inline Tile subtile(Tile tile, int row, int column) {  // the part that begins there
    return tile.at += row * tile.stride + column / 8 * OPERAND::EIGHT, tile;
}

// Start to load eight neighbours, or zeros: into registers, or for bf16 by an asynchronous copy to shared memory.
__device__ inline void load_eight(float (&numbers)[8], unsigned *, const float *from, bool inside) {
    float4 low = {}, high = {};
    if (inside) low = reinterpret_cast<const float4 *>(from)[0], high = reinterpret_cast<const float4 *>(from)[1];
    numbers[0] = low.x, numbers[1] = low.y, numbers[2] = low.z, numbers[3] = low.w;
    numbers[4] = high.x, numbers[5] = high.y, numbers[6] = high.z, numbers[7] = high.w;
}
__device__ inline void load_eight(float (&)[8], unsigned *to, const Bfloat16 *from, bool inside) {
    store_eight(to, from, inside);
}

// COUNT rows and WIDTH columns on the way to a tile: `load` reads them into registers, `store` rounds them and writes
// them to the tile. What was copied asynchronously is complete when every thread has called `copy_wait`.
template <int COUNT, int WIDTH> struct StagedTile {
    static constexpr int ACROSS = WIDTH / 8, DOWN = THREADS / ACROSS;
    float numbers[COUNT / DOWN][8];
    bool asynchronous;  // the registers

    static __device__ int row() { return threadIdx.x / ACROSS; }
    static __device__ int column() { return threadIdx.x % ACROSS * 8; }
    // From row `first` and column `at` of x on; 0 outside.
    __device__ void load(Tile tile, Rows x, int first, int at) {
        int t = first + row(), c = at + column();
        const Number *source = x.from + (long long)t * x.columns + c;
        bool whole = x.columns % 8 == 0 && (size_t)x.from % 16 == 0;
        unsigned *to = subtile(tile, row(), column()).at;
        asynchronous = whole && sizeof(Number) == 2;
        if (whole)
#pragma unroll
            for (int i = 0; i < COUNT / DOWN; i++)
                load_eight(numbers[i], to + i * DOWN * tile.stride, source + i * DOWN * x.columns,
                     t + i * DOWN < x.count && c < x.columns);
        else
#pragma unroll
            for (int i = 0; i < COUNT / DOWN; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    bool inside = t + i * DOWN < x.count && c + j < x.columns;
                    numbers[i][j] = inside ? widen(source[i * DOWN * x.columns + j]) : 0;
                }
    }
    __device__ void store(Tile tile) const {
        if (asynchronous) return;
#pragma unroll
        for (int i = 0; i < COUNT / DOWN; i++) store_eight(subtile(tile, row() + i * DOWN, column()).at, numbers[i]);
    }
};

// Load `count` rows of a tile and all its columns, from row `first` and column `at` of x on.
template <int WIDTH> __device__ inline void load_tile(Tile tile, int count, Rows x, int first, int at) {
    StagedTile<32, WIDTH> staged;
    for (int row = 0; row < count; row += 32)
        for (int column = 0; column + staged.column() < padded(tile.columns); column += WIDTH) {
            Tile to = subtile(tile, row, column);
            staged.load(to, x, first + row, at + column), staged.store(to);
        }
}
