// Gated linear attention on tensor cores, forward, or with other arrays dv of its adjoint: gated_linear_attention.cu goes from
// token to token, here a chunk is products of tiles.
//
//     Y = (Q ∘ γ) S + P V          S′ = Diag(γ_C) S + (K ∘ ω)ᵀ V          P[t, s] = Σ_c q[t, c] Γ[t, s, c] k[s, c] for s ≤ t
//                                                                         Yang et al. 2024 (GLA), section 4.2 and 4.3
// In each channel c, Γ[t, s] = αₛ₊₁ ⋯ αₜ, and γ, ω are what is left since the chunk's start and until its end. No quotient of
// two decays is ever taken. A chunk has two halves of 16 tokens: from one to the other Γ[t, s] is what is left since the
// second began times what was left when the first ended, so that half of P is a product too; within a half it is not, and
// every decay is multiplied out on the way from s to t.
//
// q, k are (batch, T, K), v and y (batch, T, V), S (batch, K, V), log α (batch, T, K) or (batch, T, 1).
//
// A block owns 32 columns of v of one sequence: their part of S lies in shared memory while it walks along T in chunks.
// A thread owns 4 numbers of every tile, as product.cuh deals them out. Within the halves a warp has 4 keys of each 32 and a
//         lane a token s: it takes what that wrote to the half's end, and sums what the keys add to each score on the way. The
//         warps' sums are added in one order.
//
// Bytes   as in gated_linear_attention.cu.
// Work    a token: on tensor cores, which round what enters them, 4 K V operations for read and write, 2 K V for P, of which a
//         quarter is asked for, and 32 V for P V; outside them some K V within the halves. S and all sums stay float32.
#include "mma.cuh"

#include "gates.cuh"

constexpr int HALF = SIDE / 2;

// What tokens of a half ask of its start, and write to its end; in `all`, what each half leaves of each key.
__device__ inline void fade_halves(Tile &queries, Tile &written, const Tile &alpha, real (&all)[2][SIDE]) {
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, from = mine / HALF * HALF;
    real since = 1, after = 1;
    for (int t = from; t < mine; t++) since *= alpha[t][lane];
    for (int t = from + HALF - 1; t >= mine + ROWS; t--) after *= alpha[t][lane];
#pragma unroll
    for (int r = 0; r < ROWS; r++) since *= alpha[mine + r][lane], queries[mine + r][lane] *= since;
#pragma unroll
    for (int r = ROWS - 1; r >= 0; r--) written[mine + r][lane] *= after, after *= alpha[mine + r][lane];
    if (mine == from) all[from / HALF][lane] = after;
}

// What the second half asks of the chunk's start, and the first one writes to its end.
__device__ inline void fade_across(Tile &queries, Tile &written, const real (&all)[2][SIDE]) {
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (mine < HALF) written[mine + r][lane] *= all[1][lane];
        else queries[mine + r][lane] *= all[0][lane];
    }
}

// To part[i], of token `lane` and token i of its half: what this warp's keys say of the two.
__device__ inline void walk(const Tile &queries, const Tile &written, const Tile &alpha, real (&part)[HALF]) {
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, from = lane / HALF * HALF;
    real left[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) left[r] = written[lane][mine + r];
#pragma unroll
    for (int i = 0; i < HALF; i++)
        if (from + i >= lane)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (from + i > lane) left[r] *= alpha[from + i][mine + r];
                part[i] = fma(queries[from + i][mine + r], left[r], part[i]);
            }
}

// kept (batch, chunks, K, V): S at the start of every chunk. In the other direction (`back`) nothing is kept.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_linear_attention_forward(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                               const real *__restrict__ g, const real *__restrict__ S, Number *__restrict__ y,
                               real *__restrict__ last, real *__restrict__ kept, int length, int keys, int values, int gates,
                               int back) {
    __shared__ Tile tiles[4], entries;
    __shared__ real all[2][SIDE];
    Tile &queries = tiles[0], &written = tiles[1], &alpha = tiles[2], &scores = tiles[3];
    DYNAMIC_SHARED(Tile, state);  // one for every 32 keys
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, slices = (keys + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs, size = (long long)keys * values;
    q += sequence * length * keys, k += sequence * length * keys, g += sequence * length * gates;
    v += sequence * length * values, y += sequence * length * values;
    S += sequence * size, last += sequence * size, kept += sequence * chunks * size;

    for (int slice = 0; slice < slices; slice++) fill(state[slice], S, slice * SIDE, column, keys, values);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        Own score = {}, out = {}, sum;
        real part[HALF] = {}, within[SIDE], both[ROWS];
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the tiles before are done with
            if (slice == 0) fill(entries, v, first, column, length, values, back);
            fill(queries, q, first, slice * SIDE, length, keys, back);
            fill(written, k, first, slice * SIDE, length, keys, back);
            fill_gates(alpha, g, first - back, slice * SIDE, length, keys, gates, back);
            __syncthreads();
            walk(queries, written, alpha, part);
            take(sum, state[slice]);
            if (!back) give(sum, kept + chunk * size, slice * SIDE, column, keys, values);
            __syncthreads();  // all have walked
            fade_halves(queries, written, alpha, all);
            __syncthreads();
            products(Rows{queries}, into(score, Rows{written}));
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= all[0][Own::row(r)] * all[1][Own::row(r)];
            __syncthreads();  // the halves have met
            fade_across(queries, written, all);
            __syncthreads();
            products(Rows{queries}, into(out, Columns{state[slice]}));
            products(Columns{written}, into(sum, Columns{entries}));
            __syncthreads();  // all have read the state
            put(sum, state[slice]);
        }
#pragma unroll
        for (int i = 0; i < HALF; i++) within[i] = lane < HALF ? part[i] : 0, within[HALF + i] = lane < HALF ? 0 : part[i];
        over_warps(tiles, within, both);
        __syncthreads();  // the warps' sums are done with
        put(score, scores);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (lane / HALF >= mine / HALF) scores[mine + r][lane] = lane <= mine + r ? both[r] : 0;
        __syncthreads();
        products(lower(), Rows{scores}, into(out, Columns{entries}));
        give(out, y, first, column, length, values, back);
    }
    for (int slice = 0; slice < slices; slice++) {
        Own sum;
        take(sum, state[slice]);
        give(sum, last, slice * SIDE, column, keys, values);
    }
}
