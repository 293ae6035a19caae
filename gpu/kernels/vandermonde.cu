// S4D's kernel, a product with a Vandermonde matrix that is never stored, and its adjoint.
//
//     Kₗ = 2 Re Σₙ wₙ Aₙˡ,  l = 0 … L − 1                                         Gu et al. 2022 (S4D), section 3
//     dwₙ = 2 Σₗ dKₗ conj(Aₙˡ)          dAₙ = 2 Σₗ dKₗ conj(l wₙ Aₙˡ⁻¹)              adjoint, Jᴴ
//
// w, A are (D, N), complex; K is (D, L), real.
//
// Forward: a block per THREADS · STEPS neighbouring l of one channel, a thread for every THREADS-th of them. It raises
// Aₙ to
//          its first l by repeated squaring, and multiplies by Aₙ^THREADS, which the block computes once for each n.
// Backward: a block per n of one channel, a thread for every THREADS-th l. Sums over threads are made in a fixed order:
// by
//          shuffles, then warp by warp.
//
// Memory traffic   forward writes 4 bytes per element of K (float32); backward reads 4 for each of N, from the L2
//                  cache.
// FLOPs            per element of K and n: forward 8, and 2 log₂ L / STEPS complex products; backward 15.
// Bound            compute: at N = 32 and L = 16384, about 600 operations for 4 bytes.
#include "common.cuh"

constexpr int THREADS = 256, STEPS = 16;

__device__ inline Complex power(Complex base, int exponent) {
    Complex result = {1, 0};
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) result = result * base;
        base = base * base;
    }
    return result;
}

extern "C" __global__ void __launch_bounds__(THREADS)
vandermonde_forward(const Complex *__restrict__ w, const Complex *__restrict__ A, real *__restrict__ K, int states,
                    int length) {
    DYNAMIC_SHARED(Complex, stride_power);  // A to the THREADS, (N,)
    int strips = (length + THREADS * STEPS - 1) / (THREADS * STEPS);
    int d = blockIdx.x / strips, first = blockIdx.x % strips * THREADS * STEPS + threadIdx.x;
    w += (long long)d * states, A += (long long)d * states;
    for (int n = threadIdx.x; n < states; n += THREADS) stride_power[n] = power(A[n], THREADS);
    __syncthreads();
    real out[STEPS] = {};
    for (int n = 0; n < states; n++) {
        Complex term = w[n] * power(A[n], first), by = stride_power[n];
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            out[i] += 2 * term.re;
            term = term * by;
        }
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        if (first + i * THREADS < length) K[(long long)d * length + first + i * THREADS] = out[i];
}

extern "C" __global__ void __launch_bounds__(THREADS)
vandermonde_backward(const Complex *__restrict__ w, const Complex *__restrict__ A, const real *__restrict__ dK,
                     Complex *__restrict__ dw, Complex *__restrict__ dA, int states, int length) {
    __shared__ Complex first_sums[THREADS / 32], second_sums[THREADS / 32];
    Complex a = A[blockIdx.x], stride_power = power(a, THREADS), A_power = power(a, threadIdx.x);  // Aˡ⁻¹
    Complex dw_sum = {0, 0}, dA_sum = {0, 0};
    dK += (long long)(blockIdx.x / states) * length;
    for (int l = threadIdx.x + 1; l < length; l += THREADS) {
        dw_sum = dw_sum + dK[l] * A_power;
        dA_sum = dA_sum + (dK[l] * l) * A_power;
        A_power = A_power * stride_power;
    }
    dw_sum = block_sum(dw_sum, first_sums), dA_sum = block_sum(dA_sum, second_sums);
    if (threadIdx.x == 0) {
        dw[blockIdx.x] = real(2) * conj(a * dw_sum + Complex{dK[0], 0});
        dA[blockIdx.x] = real(2) * conj(w[blockIdx.x] * dA_sum);
    }
}
