// The gated delta rule in chunks, a triangular system solved in each; and the first half of its adjoint.
//
//     eₜ = vₜ − αₜ kₜ Sₜ₋₁          Sₜ = αₜ Sₜ₋₁ + βₜ kₜᵀ eₜ          yₜ = qₜ Sₜ          Yang et al. 2025, eq. 10
//     (I + N) E = V − γ K S         N[t, s] = Γ[t, s] (kₜ · kₛ) βₛ for s < t               section 3.3, solved for E
//     Y = γ Q S + (Q Kᵀ ∘ Γ ∘ M) βE          S′ = γ_C S + (Kᵀ ∘ Γ[C]) βE
//
// backward, with dSₜ the cotangent of Sₜ, from the last token to the first: what each correction gets. (The second half, once
// these are known, is in gated_delta_rule_keys.cu.)
//
//     dSₜ = αₜ₊₁ (dSₜ₊₁ − kₜ₊₁ᵀ dvₜ₊₁) + qₜᵀ dyₜ          wₜ = kₜ dSₜ          dvₜ = βₜ wₜ          dβₜ = wₜ eₜᵀ
//     (I + N′) W = γ′ K dS + (K Qᵀ ∘ Γ′ ∘ M) dY           a chunk in the other order of time, with the gates of the tokens after
//
// Γ[t, s] = αₛ₊₁ ⋯ αₜ, and γ what is left since the chunk's start: exponentials of sums of log α that are added up on their
// own, as a difference of running sums would be −∞ − (−∞) after a gate of 0. With all gates open this is the delta rule.
//
// q, k are (batch, T, K), v, y, e and w (batch, T, V), S (batch, K, V), beta and log α (batch, T).
//
// A block owns 32 columns of v of one sequence, and walks along T in chunks of 32 tokens, their part of S in shared memory.
// A thread owns 4 numbers of every tile, as product.cuh deals them out: of a chunk's scores and results, in registers, and of
//         S, where no other thread writes.
// A warp owns 4 tokens while the system is solved, by substitution: each warp in turn finishes its 4 rows, and the later ones
//         take these off theirs.
//
// Bytes   a token forward reads v, writes y and e and 1/32 of S; q and k, twice for every 32 columns, come from the
//         second-level cache after the first time: 4 · (2 K + 3 V + K V / 32) at float32. Backward reads dy and writes w.
// Work    a token forward: 6 K V operations to read and write S, 4 K V for the scores (made anew for every 32 columns), and
//         64 V inside its chunk. Backward: 6 K V, 4 K V and 64 V too. With OPERAND defined all of them but the solving, 32 V,
//         are on tensor cores, which round q, k, S and what is multiplied with them where it enters a product; S itself,
//         e, w and all sums stay float32.
// Floor   at K = V = 128, 170,000 operations forward for 4.5 KB: arithmetic.
#include "gates.cuh"

// X of (I + N) X = right, 4 rows to a warp, and β X in `scaled`; `overlaps` is N without β.
__device__ inline void solve(const Tile &overlaps, const Gates &gates, real (&right)[ROWS], Tile &scaled) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, mine = warp * ROWS;
    for (int turn = 0; turn < WARPS; turn++) {
        if (warp == turn) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int s = 0; s < r; s++) right[r] -= overlaps[mine + r][mine + s] * (gates.beta[mine + s] * right[s]);
                scaled[mine + r][lane] = gates.beta[mine + r] * right[r];
            }
        }
        __syncthreads();
        if (warp > turn)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                for (int s = turn * ROWS; s < turn * ROWS + ROWS; s++)
                    right[r] = fma(-overlaps[mine + r][s], scaled[s][lane], right[r]);
    }
}

// What tokens wrote, as it is at the chunk's end.
__device__ inline void fade_to_end(Tile &tile, const Gates &gates, real sign) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) tile[Own::row(r)][Own::column(r)] *= sign * gates.omega[Own::row(r)];
}

// kept (batch, chunks, K, V): S at the start of every chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                 const real *__restrict__ beta, const real *__restrict__ g, const real *__restrict__ S,
                 Number *__restrict__ y, real *__restrict__ e, real *__restrict__ last, real *__restrict__ kept, int length,
                 int keys, int values) {
    __shared__ Tile queries, written, scores, overlaps;
    __shared__ Gates gates;
    DYNAMIC_SHARED(Tile, state);  // one for every 32 keys
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, slices = (keys + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    v += sequence * length * values, y += sequence * length * values, e += sequence * length * values;
    S += sequence * entries, last += sequence * entries, kept += sequence * chunks * entries;

    for (int slice = 0; slice < slices; slice++) fill(state[slice], S, slice * SIDE, column, keys, values);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        Own score = {}, overlap = {}, read = {}, held = {}, sum;
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the tiles before are done with
            fill(queries, q, first, slice * SIDE, length, keys);
            fill(written, k, first, slice * SIDE, length, keys);
            if (slice == 0) fill(gates, g, beta, first, length, false);
            __syncthreads();
            products(Rows{queries}, into(score, Rows{written}), into(read, Columns{state[slice]}));
            products(Rows{written}, into(overlap, Rows{written}), into(held, Columns{state[slice]}));
        }
        real since[ROWS], error[ROWS];
        fade(gates.logs, since);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + Own::row(r), c = column + Own::column(r);
            score.at[r] *= Own::column(r) <= Own::row(r) ? since[r] : 0;
            overlap.at[r] *= since[r], read.at[r] *= gates.gamma[Own::row(r)];
            real value = t < length && c < values ? wide(v[t * (long long)values + c]) : 0;
            held.at[r] = value - gates.gamma[Own::row(r)] * held.at[r];
        }
        put(score, scores), put(overlap, overlaps);
        __syncwarp();  // either a row is its warp's own, or by_rows waits for all
        Tile &corrections = queries;  // β E
        by_rows(held, corrections, error);
        solve(overlaps, gates, error, corrections);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + mine + r, c = column + lane;
            if (t < length && c < values) e[t * (long long)values + c] = error[r];
        }
        products(lower(), Rows{scores}, into(read, Columns{corrections}));
        give(read, y, first, column, length, values);
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the keys before are done with
            if (slice == 0) fade_to_end(corrections, gates, 1);
            fill(written, k, first, slice * SIDE, length, keys);
            take(sum, state[slice]);
            give(sum, kept + chunk * entries, slice * SIDE, column, keys, values);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gates.gamma[SIDE - 1];
            __syncthreads();
            products(Columns{written}, into(sum, Columns{corrections}));
            put(sum, state[slice]);
        }
    }
    for (int slice = 0; slice < slices; slice++) {
        Own sum;
        take(sum, state[slice]);
        give(sum, last, slice * SIDE, column, keys, values);
    }
}

// W, in chunks of tokens counted from the end.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule_backward(const Number *__restrict__ q, const Number *__restrict__ k, const real *__restrict__ beta,
                          const real *__restrict__ g, const Number *__restrict__ dy, const real *__restrict__ dlast,
                          real *__restrict__ w, int length, int keys, int values) {
    __shared__ Tile queries, written, scores, overlaps, dys;
    __shared__ Gates gates;
    DYNAMIC_SHARED(Tile, state);  // one for every 32 keys: dS
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, slices = (keys + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    dy += sequence * length * values, w += sequence * length * values, dlast += sequence * keys * values;

    for (int slice = 0; slice < slices; slice++) fill(state[slice], dlast, slice * SIDE, column, keys, values);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk * SIDE;
        Own score = {}, overlap = {}, held = {}, sum;
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the tiles before are done with
            fill(queries, q, first, slice * SIDE, length, keys, true);
            fill(written, k, first, slice * SIDE, length, keys, true);
            if (slice == 0) fill(gates, g, beta, first, length, true), fill(dys, dy, first, column, length, values, true);
            __syncthreads();
            products(Rows{written}, into(score, Rows{queries}), into(overlap, Rows{written}),
                     into(held, Columns{state[slice]}));
        }
        real since[ROWS], solved[ROWS];
        fade(gates.logs, since);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            score.at[r] *= Own::column(r) <= Own::row(r) ? since[r] : 0;
            overlap.at[r] *= since[r], held.at[r] *= gates.gamma[Own::row(r)];
        }
        put(score, scores), put(overlap, overlaps);
        __syncthreads();
        products(lower(), Rows{scores}, into(held, Columns{dys}));
        __syncwarp();  // its lanes have read their scores, where rows are a warp's own
        Tile &corrections = scores;  // β W
        by_rows(held, corrections, solved);
        solve(overlaps, gates, solved, corrections);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + mine + r, c = column + lane;
            if (t < length && c < values) w[(length - 1 - t) * (long long)values + c] = solved[r];
        }
        fade_to_end(corrections, gates, -1), fade_to_end(dys, gates, 1);
        for (int slice = 0; slice < slices; slice++) {
            __syncthreads();  // the keys before are done with
            fill(queries, q, first, slice * SIDE, length, keys, true);
            fill(written, k, first, slice * SIDE, length, keys, true);
            take(sum, state[slice]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gates.gamma[SIDE - 1];
            __syncthreads();
            products(Columns{queries}, into(sum, Columns{dys}));
            products(Columns{written}, into(sum, Columns{corrections}));
            put(sum, state[slice]);
        }
    }
}
