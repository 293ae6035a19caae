// Tensor core instructions: the lanes of a warp exchange their fragments, and each computes its own four accumulators.
//
// The PTX ISA leaves the arithmetic open: here products are exact in float32, and are added in order, each sum rounded.
#pragma once
#include <bit>
#include "runtime.cuh"

inline unsigned to_tf32(float x) {  // 11 bits of significand, to nearest, ties away from zero
    auto word = std::bit_cast<uint32_t>(x);
    return x != x ? word : (word + 0x1000u) & ~0x1fffu;
}

inline unsigned to_bf16(float low, float high) {  // 8 bits each, to nearest, ties to even
    unsigned both = 0;
    for (float x : {high, low}) {
        auto word = std::bit_cast<uint32_t>(x);
        both = both << 16 | (x != x ? word >> 16 | 0x40u : (word + 0x7fffu + (word >> 16 & 1)) >> 16);
    }
    return both;
}

namespace emulator {

struct Fragments {
    unsigned a[4], b[2];
};

inline float tf32(unsigned word, int) { return std::bit_cast<float>(word & ~0x1fffu); }
inline float bf16(unsigned word, int upper) { return std::bit_cast<float>(upper ? word & 0xffff0000u : word << 16); }

// Four lanes hold a row of an operand, in two words each, at the same positions in the left and the right operand.
template <class Number>
void mma(const char *call, float (&d)[4], const Fragments &own, int in_a_word, Number number) {
    const Fragments *lanes = warp_exchange(call, 0xffffffffu, own);
    int g = emulator::lane() / 4, t = emulator::lane() % 4;
    for (int i = 0; i < 4; i++) {
        const Fragments *left = &lanes[4 * g], *right = &lanes[4 * (2 * t + i % 2)];
        for (int word = 0; word < 2; word++)
            for (int lane = 0; lane < 4; lane++)
                for (int part = 0; part < in_a_word; part++)
                    d[i] += number(left[lane].a[2 * word + i / 2], part) * number(right[lane].b[word], part);
    }
}

// Four matrices of 8 rows of 16 bytes: lane l passes the address of row l % 8 of matrix l / 8.
inline const unsigned *const *rows(const char *call, const unsigned *row) {
    return warp_exchange(call, 0xffffffffu, row);
}

inline unsigned half(const unsigned *row, int i) { return row[i / 2] >> 16 * (i % 2) & 0xffffu; }

}  // namespace emulator

inline void ldmatrix(unsigned (&words)[4], const unsigned *row) {
    const unsigned *const *rows = emulator::rows("ldmatrix", row);
    int g = emulator::lane() / 4, t = emulator::lane() % 4;
    for (int matrix = 0; matrix < 4; matrix++) words[matrix] = rows[8 * matrix + g][t];
}
inline void ldmatrix_trans(unsigned (&words)[4], const unsigned *row) {
    const unsigned *const *rows = emulator::rows("ldmatrix_trans", row);
    int g = emulator::lane() / 4, t = emulator::lane() % 4;
    for (int matrix = 0; matrix < 4; matrix++) {
        const unsigned *const *pair = &rows[8 * matrix + 2 * t];
        words[matrix] = emulator::half(pair[0], g) | emulator::half(pair[1], g) << 16;
    }
}

// Copies take place when they are waited for.
inline void copy_async(uint4 *to, const uint4 *from, bool inside) { emulator::copy_async(to, inside ? from : nullptr); }
inline void copy_wait() { emulator::copy_wait(); }

inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::mma("mma_tf32", d, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, 1, emulator::tf32);
}
inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::mma("mma_bf16", d, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, 2, emulator::bf16);
}
