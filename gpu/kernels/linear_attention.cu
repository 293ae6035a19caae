// Linear attention in chunks, the state carried from one to the next; its adjoint is three more linear attentions.
//
//     Sₜ = Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ                               Katharopoulos et al. 2020, eq. 16–20
//     Y = Q S + (Q Kᵀ ∘ M) V      S′ = S + Kᵀ V                            per chunk; M[t, s] = 1 for s ≤ t, else 0
//
// backward, with dSₜ = dSₜ₊₁ + qₜᵀ dyₜ the cotangent of Sₜ: the same kernel with these arrays in place of (q, k, v, S),
//
//     dqₜ = dyₜ Sₜᵀ: (dy, v, k, Sᵀ)          and in reverse          dvₜ = kₜ dSₜ: (k, q, dy, dS)
//                                                                   dkₜ = vₜ dSₜᵀ: (v, dy, q, dSᵀ)
//
// q, k are (batch, T, K), v and y (batch, T, V), S (batch, K, V).
//
// Block    32 columns of v of one sequence, chunk by chunk of 32 tokens; their part of S stays in shared memory. Keys
//          are taken 32 at a time: a 32 × 32 slice of q and k serves the scores, the output and the update.
// Thread   4 elements of every tile, in the layout of product.cuh: of scores and outputs, in registers, and of S, which
//          no other thread writes.
//
// Memory traffic   v is read and y written once; q and k are read per 32 columns, from the L2 cache after the first
//                  time: 4 · (2 K + 2 V) bytes per token at float32.
// FLOPs            per token 4 K V for output and update, 64 (K + V) for the scores within its chunk (2 K of these per
//                  32 columns), all in products of tiles. linear_attention_tensor_cores.cu has them on tensor cores.
// Bound            compute: at K = V = 128, 82,000 operations for 2 KB.
#include "product.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 3)
linear_attention(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                 const real *__restrict__ S, Number *__restrict__ y, real *__restrict__ last, int length, int keys,
                 int values, int reverse) {
    __shared__ Tile query_tile, key_tile, value_tile, scores;
    DYNAMIC_SHARED(Tile, state);  // one for every 32 keys
    int slabs = (values + SIDE - 1) / SIDE, slices = (keys + SIDE - 1) / SIDE;
    int sequence = blockIdx.x / slabs, column = blockIdx.x % slabs * SIDE;
    q += (long long)sequence * length * keys, k += (long long)sequence * length * keys;
    v += (long long)sequence * length * values, y += (long long)sequence * length * values;
    S += (long long)sequence * keys * values, last += (long long)sequence * keys * values;

    for (int slice = 0; slice < slices; slice++) load_tile(state[slice], S, slice * SIDE, column, keys, values);

    for (int first = 0; first < length; first += SIDE) {
        Accumulator score = {}, out = {}, sum;
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the previous slice has been read
            if (slice == 0) load_tile(value_tile, v, first, column, length, values, reverse);
            load_tile(query_tile, q, first, slice * SIDE, length, keys, reverse);
            load_tile(key_tile, k, first, slice * SIDE, length, keys, reverse);
            __syncthreads();
            products(Rows{query_tile}, into(score, Rows{key_tile}), into(out, Columns{state[slice]}));
            load(sum, state[slice]);
            products(Columns{key_tile}, into(sum, Columns{value_tile}));
            __syncthreads();  // all have read the state
            store(sum, state[slice]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) score.at[r] = Accumulator::column(r) <= Accumulator::row(r) ? score.at[r] : 0;
        store(score, scores);
        __syncthreads();
        products(lower(), Rows{scores}, into(out, Columns{value_tile}));
        store(out, y, first, column, length, values, reverse);
    }
    for (int slice = 0; slice < slices; slice++) {
        Accumulator sum;
        load(sum, state[slice]);
        store(sum, last, slice * SIDE, column, keys, values);
    }
}
