// Common to all kernels: the number type, complex numbers, warp shuffles and reductions. Includes nothing.
#pragma once

#ifndef REAL
#define REAL float  // or double: -DREAL=double
#endif
typedef REAL real;

#ifndef DYNAMIC_SHARED  // shared memory whose size is given at launch
#define DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char name##_memory[]; \
    type *name = reinterpret_cast<type *>(name##_memory)
#endif

#ifdef __CUDACC__  // on the host, emulator/language.cuh has it
// 2ˣ by one instruction, with a relative error below 2⁻²²; results below 2⁻¹²⁶ are flushed to 0.
__device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

constexpr unsigned ALL = 0xffffffffu;  // lanes of a warp

// A complex number with the layout of NumPy and CuPy.
struct __align__(2 * sizeof(real)) Complex {
    real re, im;
};
__device__ inline Complex operator+(Complex x, Complex y) { return {x.re + y.re, x.im + y.im}; }
__device__ inline Complex operator-(Complex x, Complex y) { return {x.re - y.re, x.im - y.im}; }
__device__ inline Complex operator*(Complex x, Complex y) {
    return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}
__device__ inline Complex operator*(real x, Complex y) { return {x * y.re, x * y.im}; }
__device__ inline Complex conj(Complex x) { return {x.re, -x.im}; }
__device__ inline real conj(real x) { return x; }

template <class Number> struct Constants;
template <> struct Constants<real> {
    static __device__ real zero() { return 0; }
    static __device__ real one() { return 1; }
};
template <> struct Constants<Complex> {
    static __device__ Complex zero() { return {0, 0}; }
    static __device__ Complex one() { return {1, 0}; }
};

// The value of the lane `by` places before (up) or after (down); of the lane itself where there is none.
__device__ inline real shfl_up(real x, int by) { return __shfl_up_sync(ALL, x, by); }
__device__ inline real shfl_down(real x, int by) { return __shfl_down_sync(ALL, x, by); }
__device__ inline real shfl(real x, int lane) { return __shfl_sync(ALL, x, lane); }
__device__ inline real shfl_xor(real x, int bits) { return __shfl_xor_sync(ALL, x, bits); }
__device__ inline Complex shfl_up(Complex x, int by) { return {shfl_up(x.re, by), shfl_up(x.im, by)}; }
__device__ inline Complex shfl_xor(Complex x, int bits) { return {shfl_xor(x.re, bits), shfl_xor(x.im, bits)}; }

// Return the sum over a warp, in all lanes.
template <class Number> __device__ inline Number warp_sum(Number x) {
    for (int bits = 16; bits; bits /= 2) x = x + shfl_xor(x, bits);
    return x;
}

// Return the sum over a block, in its first thread; `warps` is shared memory for a value per warp.
template <class Number> __device__ inline Number block_sum(Number x, Number *warps) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (unsigned w = 1; w < blockDim.x / 32; w++) x = x + warps[w];
    return x;
}
