// Tiles of operands.cuh filled in two steps: what is read of an array waits in registers while something else is done, or
// while more is read, so that many words are on their way at once.
#pragma once
#include "operands.cuh"

__device__ inline Tile cut(Tile tile, int row, int column) {  // what begins there
    return tile.at += row * tile.stride + column / 8 * OPERAND::EIGHT, tile;
}

// Eight neighbours, or zeros, on their way to a tile: to registers first, or past them, as operands.cuh has it.
__device__ inline void read(float (&numbers)[8], unsigned *, const float *from, bool inside) {
    float4 low = {}, high = {};
    if (inside) low = reinterpret_cast<const float4 *>(from)[0], high = reinterpret_cast<const float4 *>(from)[1];
    numbers[0] = low.x, numbers[1] = low.y, numbers[2] = low.z, numbers[3] = low.w;
    numbers[4] = high.x, numbers[5] = high.y, numbers[6] = high.z, numbers[7] = high.w;
}
__device__ inline void read(float (&)[8], unsigned *to, const Bfloat16 *from, bool inside) { keep(to, from, inside); }

// COUNT rows and WIDTH columns on their way to a tile. A thread reads all that it brings when they begin, and rounds it and
// writes it when they end; what goes past the registers is there when each has called `copy_wait`.
template <int COUNT, int WIDTH> struct Part {
    static constexpr int ACROSS = WIDTH / 8, DOWN = THREADS / ACROSS;
    float numbers[COUNT / DOWN][8];
    bool past;  // the registers

    static __device__ int row() { return threadIdx.x / ACROSS; }
    static __device__ int column() { return threadIdx.x % ACROSS * 8; }
    // Of x, from row `first` and column `at` on; 0 outside.
    __device__ void begin(Tile tile, Rows x, int first, int at) {
        int t = first + row(), c = at + column();
        const Number *mine = x.from + (long long)t * x.columns + c;
        bool whole = x.columns % 8 == 0 && (size_t)x.from % 16 == 0;
        unsigned *to = cut(tile, row(), column()).at;
        past = whole && sizeof(Number) == 2;
        if (whole)
#pragma unroll
            for (int i = 0; i < COUNT / DOWN; i++)
                read(numbers[i], to + i * DOWN * tile.stride, mine + i * DOWN * x.columns,
                     t + i * DOWN < x.count && c < x.columns);
        else
#pragma unroll
            for (int i = 0; i < COUNT / DOWN; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    bool inside = t + i * DOWN < x.count && c + j < x.columns;
                    numbers[i][j] = inside ? wide(mine[i * DOWN * x.columns + j]) : 0;
                }
    }
    __device__ void end(Tile tile) const {
        if (past) return;
#pragma unroll
        for (int i = 0; i < COUNT / DOWN; i++) keep(cut(tile, row() + i * DOWN, column()).at, numbers[i]);
    }
};

// So many rows of a tile and all its columns, from x as `begin` takes it.
template <int WIDTH> __device__ inline void fill(Tile tile, int count, Rows x, int first, int at) {
    Part<32, WIDTH> part;
    for (int row = 0; row < count; row += 32)
        for (int column = 0; column + part.column() < padded(tile.columns); column += WIDTH) {
            Tile to = cut(tile, row, column);
            part.begin(to, x, first + row, at + column), part.end(to);
        }
}
