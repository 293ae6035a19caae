// A warp's matrix product on tensor cores: 16 × 8 accumulators in float32, operands rounded to tf32 or bf16.
//
//     sums[i][j] += Σ_d left[i][d] right[j][d]          i < 16, j < 8, d < DEPTH: 8 (tf32) or 16 (bf16)
//
// by mma.sync, sm_80 and later: m16n8k8 and m16n8k16 of the PTX ISA, whose matrix B is rightᵀ. Both operands are given
// by rows, along which the sum runs. Lane l, with g = l / 4 and t = l % 4, holds
//
//     sums     word i             sums[g + 8 (i / 2)][2 t + i % 2]                                    i < 4
//     left     word h + 2 j       row g + 8 h;  tf32: d = t + 4 j     bf16: d = 8 j + 2 t, 2 t + 1    h, j < 2
//     right    word j             row g;        and d as in left                                      j < 2
//
// The order of the summed axis is arbitrary if both operands have the same: instead of d = t + 4 j a lane holds d = 2 t
// + j. So for tf32 too it holds pairs of neighbours, which one load reads, and the accumulators of one product have the
// layout of the left operand of the next.
//
// Reads of a tile have no bank conflicts if its stride is 8 mod 32 (`rows`) or 4 mod 32 (`columns`).
#pragma once
#include "numbers.cuh"

#ifndef OPERAND
#define OPERAND Tf32  // or Bf16: -DOPERAND=Bf16
#endif

#ifdef __CUDACC__  // on the host, these are in emulator/tensor_cores.cuh
__device__ inline unsigned to_tf32(float x) {  // 11 bits of significand, to nearest, ties away from zero
    unsigned word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
    return word;
}
__device__ inline unsigned to_bf16(float low, float high) {  // 8 bits each, to nearest, ties to even
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
__device__ inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

__device__ inline void narrow(Bfloat16 &to, float x) { to.bits = (unsigned short)to_bf16(x, 0); }

struct Sums {
    float at[4];
    static __device__ int row(int i) { return threadIdx.x % 32 / 4 + 8 * (i / 2); }
    static __device__ int column(int i) { return threadIdx.x % 4 * 2 + i % 2; }
};

template <class Kind, int HALVES> struct Operand {  // of 8 rows each
    unsigned words[2 * HALVES];
};
template <class Kind> using Left = Operand<Kind, 2>;
template <class Kind> using Right = Operand<Kind, 1>;

struct Tf32 {
    static constexpr int DEPTH = 8, EIGHT = 8;  // EIGHT: words of eight neighbours in a tile of operands.cuh
    static __device__ void round(unsigned (&words)[EIGHT], const float (&numbers)[8]) {
#pragma unroll
        for (int i = 0; i < 8; i++) words[i % 2 * 4 + i / 2] = to_tf32(numbers[i]);
    }
    template <int HALVES> static __device__ void store(Operand<Tf32, HALVES> &x, int half, int, float2 pair) {
        x.words[half] = to_tf32(pair.x), x.words[half + HALVES] = to_tf32(pair.y);
    }
    static __device__ void multiply(Sums &sums, const Left<Tf32> &left, const Right<Tf32> &right) {
        mma_tf32(sums.at, left.words, right.words);
    }
};
struct Bf16 {
    static constexpr int DEPTH = 16, EIGHT = 4;
    static __device__ void round(unsigned (&words)[EIGHT], const float (&numbers)[8]) {
#pragma unroll
        for (int i = 0; i < 4; i++) words[i] = to_bf16(numbers[2 * i], numbers[2 * i + 1]);
    }
    template <int HALVES> static __device__ void store(Operand<Bf16, HALVES> &x, int half, int eight, float2 pair) {
        x.words[half + HALVES * eight] = to_bf16(pair.x, pair.y);
    }
    static __device__ void multiply(Sums &sums, const Left<Bf16> &left, const Right<Bf16> &right) {
        mma_bf16(sums.at, left.words, right.words);
    }
};

// sums += left rightᵀ.
template <class Kind> __device__ inline void multiply(Sums &sums, const Left<Kind> &left, const Right<Kind> &right) {
    Kind::multiply(sums, left, right);
}

// An operand whose rows are rows of a tile: [i][d] is from[i · stride + d]. `from` and `stride` are even.
template <class Kind, int HALVES>
__device__ inline void rows(Operand<Kind, HALVES> &x, const float *from, int stride) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < HALVES; half++)
#pragma unroll
        for (int eight = 0; eight < Kind::DEPTH / 8; eight++)
            Kind::store(x, half, eight,
                      *reinterpret_cast<const float2 *>(&from[(8 * half + g) * stride + 8 * eight + 2 * t]));
}

// An operand whose rows are columns of a tile: [i][d] is from[d · stride + i].
template <class Kind, int HALVES>
__device__ inline void columns(Operand<Kind, HALVES> &x, const float *from, int stride) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < HALVES; half++)
#pragma unroll
        for (int eight = 0; eight < Kind::DEPTH / 8; eight++) {
            const float *place = &from[(8 * eight + 2 * t) * stride + 8 * half + g];
            Kind::store(x, half, eight, {place[0], place[stride]});
        }
}

// A left operand that is the sums of products before: side by side, as many as it is deep.
template <class Kind> __device__ inline void results(Left<Kind> &x, const Sums *sums) {
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int eight = 0; eight < Kind::DEPTH / 8; eight++)
            Kind::store(x, half, eight, {sums[eight].at[2 * half], sums[eight].at[2 * half + 1]});
}
