// S4's kernel, a product with a Cauchy matrix that is never stored, and its adjoint.
//
//     Kₗ = Σₙ wₙ / (zₗ − λₙ)                                                      Gu et al. 2022 (S4), section 3, C.3
//     dwₙ = Σₗ dKₗ conj(1 / (zₗ − λₙ))          dλₙ = Σₗ dKₗ conj(wₙ / (zₗ − λₙ)²)    adjoint, Jᴴ
//     dzₗ = −dKₗ Σₙ conj(wₙ / (zₗ − λₙ)²)
//
// w, lambda are (D, N), z and K (D, L), all complex; no node zₗ is a pole λₙ or at infinity.
//
// Block    forward and for dz: 256 neighbouring nodes of one channel, a thread per node; poles and weights lie in
//          shared memory. For dw and dλ: a pole n of one channel, a thread for every 256th node. Sums over threads have
//          a fixed order: by shuffles, then warp by warp.
//
// Memory traffic   forward reads 8 and writes 8 bytes per node (complex64); backward reads 16 and writes 8, and reads
//                  16 again for each of N poles, from the L2 cache.
// FLOPs            per node and pole: a division and 16 operations forward, a division and 24 for each half of the
//                  adjoint.
// Bound            compute: at N = 32, 512 operations and 32 divisions for 16 bytes.
#include "common.cuh"

constexpr int THREADS = 256;

__device__ inline Complex inverse(Complex x) {
    real scale = 1 / (x.re * x.re + x.im * x.im);
    return {x.re * scale, -x.im * scale};
}

// Load poles and weights of a channel into shared memory.
__device__ inline void load_poles(Complex *poles, const Complex *w, const Complex *lambda, int d, int states) {
    for (int n = threadIdx.x; n < states; n += THREADS) {
        poles[n] = lambda[(long long)d * states + n];
        poles[states + n] = w[(long long)d * states + n];
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS)
cauchy_forward(const Complex *__restrict__ w, const Complex *__restrict__ z, const Complex *__restrict__ lambda,
               Complex *__restrict__ K, int states, int length) {
    DYNAMIC_SHARED(Complex, poles);  // (2, N): λ and w
    int strips = (length + THREADS - 1) / THREADS, d = blockIdx.x / strips;
    int l = blockIdx.x % strips * THREADS + threadIdx.x;
    load_poles(poles, w, lambda, d, states);
    if (l >= length) return;
    Complex node = z[(long long)d * length + l], sum = {0, 0};
    for (int n = 0; n < states; n++) sum = sum + poles[states + n] * inverse(node - poles[n]);
    K[(long long)d * length + l] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
cauchy_backward_nodes(const Complex *__restrict__ w, const Complex *__restrict__ z, const Complex *__restrict__ lambda,
                      const Complex *__restrict__ dK, Complex *__restrict__ dz, int states, int length) {
    DYNAMIC_SHARED(Complex, poles);
    int strips = (length + THREADS - 1) / THREADS, d = blockIdx.x / strips;
    int l = blockIdx.x % strips * THREADS + threadIdx.x;
    load_poles(poles, w, lambda, d, states);
    if (l >= length) return;
    Complex node = z[(long long)d * length + l], sum = {0, 0};
    for (int n = 0; n < states; n++) {
        Complex reciprocal = inverse(node - poles[n]);
        sum = sum + poles[states + n] * (reciprocal * reciprocal);
    }
    dz[(long long)d * length + l] = real(-1) * (dK[(long long)d * length + l] * conj(sum));
}

extern "C" __global__ void __launch_bounds__(THREADS)
cauchy_backward_poles(const Complex *__restrict__ w, const Complex *__restrict__ z, const Complex *__restrict__ lambda,
                      const Complex *__restrict__ dK, Complex *__restrict__ dw, Complex *__restrict__ dlambda,
                      int states, int length) {
    __shared__ Complex first_sums[THREADS / 32], second_sums[THREADS / 32];
    long long row = (long long)(blockIdx.x / states) * length;
    Complex pole = lambda[blockIdx.x], dw_sum = {0, 0}, dpole_sum = {0, 0};
    for (int l = threadIdx.x; l < length; l += THREADS) {
        Complex reciprocal = conj(inverse(z[row + l] - pole)), g = dK[row + l];
        Complex dw_term = g * reciprocal;
        dw_sum = dw_sum + dw_term;
        dpole_sum = dpole_sum + dw_term * reciprocal;
    }
    dw_sum = block_sum(dw_sum, first_sums), dpole_sum = block_sum(dpole_sum, second_sums);
    if (threadIdx.x == 0) dw[blockIdx.x] = dw_sum, dlambda[blockIdx.x] = conj(w[blockIdx.x]) * dpole_sum;
}
