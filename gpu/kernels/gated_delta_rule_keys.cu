// The second half of the gated delta rule's adjoint: once its corrections e and their cotangents dv are known, S and dS are
// those of a linear attention that wrote βe and was told dy and dv.
//
//     dqₜ = dyₜ Sₜᵀ          dkₜ = βₜ eₜ dSₜᵀ − αₜ dvₜ Sₜ₋₁ᵀ          dlog αₜ = αₜ Σ (dSₜ − kₜᵀ dvₜ) ⊙ Sₜ₋₁     from eq. 10
//
// In a chunk that starts with S and ends with dS, Γ[t, s] = αₛ₊₁ ⋯ αₜ, γ and ω from its start and to its end, u = βe:
//
//     dqₜ = γₜ dyₜ Sᵀ + Σₛ≤ₜ Γ[t, s] (dyₜ · uₛ) kₛ
//     dkₜ = ωₜ uₜ dSᵀ − γₜ dvₜ Sᵀ + Σₛ≥ₜ Γ[s, t] (dyₛ · uₜ) qₛ − Σₛ>ₜ Γ[s, t] (dvₛ · uₜ) kₛ − Σₛ<ₜ Γ[t, s] (dvₜ · uₛ) kₛ
//     dlog αₜ = what crosses its gate: Σ over s < t ≤ r of Γ[r, s] ((dyᵣ · uₛ) (qᵣ · kₛ) − (dvᵣ · uₛ) (kᵣ · kₛ)), and the same
//              with S in the place of a token before, and with dS in that of one after
//
// Each term of dlog αₜ holds αₜ, so that a shut gate gets 0; a difference of the sums of q ⊙ dq and k ⊙ dk over time would be
// shorter, but where gates shut it leaves the rounding errors of others.
//
// q, k are (batch, T, K), u, dy and dv (batch, T, V), S (batch, K, V), log α (batch, T); dlog α is left as a sum for every 32 keys.
//
// A block owns 32 keys of one sequence, their part of dSᵀ in shared memory, and walks from the last chunk to the first, each
//         from the S that forward kept at its start.
// A thread owns 4 numbers of every tile, as product.cuh deals them out: of a chunk's scores and results, in registers, and of
//         dS, where no other thread writes.
// A warp owns 4 tokens where sums along a row of a tile are wanted: each lane has one score of the token, or one key.
//
// Bytes   a token: dy, dv, u are read for every 32 keys, from the second-level cache after the first time, and dy, dv twice;
//         q, k and 1/32 of S are read and dq, dk written: 4 · (4 K + 3 V + K V / 32) at float32.
// Work    a token: 6 K V operations for products with S and dS, 4 K V for those of dy and dv with u (made anew for every 32
//         keys), 4 K V for dS, and some 260 K inside its chunk. With OPERAND defined all these products are on tensor cores,
//         which round what enters them; dS itself and all sums stay float32.
// Floor   at K = V = 128, 260,000 operations for 5.6 KB: arithmetic.
#include "gates.cuh"

// Over the lanes of a warp, the sum of what those before this one have.
__device__ inline real sum_before(real x) {
    int lane = threadIdx.x % 32;
    for (int by = 1; by < 32; by *= 2) {
        real earlier = shfl_up(x, by);
        if (lane >= by) x += earlier;
    }
    x = shfl_up(x, 1);
    return lane ? x : 0;
}

// What tokens read or wrote, as it was at the chunk's start.
__device__ inline void fade_from_start(Tile &tile, const Gates &gates, real sign) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) tile[Own::row(r)][Own::column(r)] *= sign * gates.gamma[Own::row(r)];
}

// dlog_decay is (slices, batch, T).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gated_delta_rule_keys(const Number *__restrict__ q, const Number *__restrict__ k, const real *__restrict__ u,
                      const real *__restrict__ beta, const real *__restrict__ g, const real *__restrict__ kept,
                      const Number *__restrict__ dy, const real *__restrict__ dv, const real *__restrict__ dlast,
                      Number *__restrict__ dq, Number *__restrict__ dk, real *__restrict__ dlog_decay, real *__restrict__ dS,
                      int length, int keys, int values) {
    __shared__ Tile queries, written, scores, overlaps, through;
    __shared__ Gates gates;
    __shared__ real ends[SIDE], both[WARPS];
    DYNAMIC_SHARED(Tile, state);  // one for every 32 values: dSᵀ
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slices = (keys + SIDE - 1) / SIDE;
    int column = blockIdx.x % slices * SIDE, slabs = (values + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slices, entries = (long long)keys * values;
    q += sequence * length * keys, k += sequence * length * keys, beta += sequence * length, g += sequence * length;
    dq += sequence * length * keys, dk += sequence * length * keys;
    dlog_decay += (blockIdx.x % slices * (gridDim.x / slices) + sequence) * length;
    u += sequence * length * values, dy += sequence * length * values, dv += sequence * length * values;
    kept += sequence * chunks * entries, dlast += sequence * entries, dS += sequence * entries;

    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + mine + r, key = column + lane;
            state[slab][mine + r][lane] = key < keys && value < values ? dlast[(long long)key * values + value] : 0;
        }

    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int first = chunk * SIDE;
        Own score = {}, overlap = {}, start = {}, taken = {}, end = {};
        real all = 0;
        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the tiles before are done with
            fill(queries, dy, first, slab * SIDE, length, values);
            fill(written, u, first, slab * SIDE, length, values);
            fill(scores, dv, first, slab * SIDE, length, values);
            fill(overlaps, kept + chunk * entries, column, slab * SIDE, keys, values);
            if (slab == 0) fill(gates, g, beta, first, length, false);
            __syncthreads();
            products(Rows{queries}, into(score, Rows{written}), into(start, Rows{overlaps}));
            products(Rows{scores}, into(overlap, Rows{written}), into(taken, Rows{overlaps}));
            products(Rows{written}, into(end, Columns{state[slab]}));
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                all = fma(overlaps[mine + r][lane], state[slab][lane][mine + r], all);
        }
        real since[ROWS];
        fade(gates.logs, since);
        all = warp_sum(all);
        __syncthreads();  // the last slab is done with
        if (lane == 0) both[threadIdx.x / 32] = all;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = Own::row(r), s = Own::column(r);
            score.at[r] *= s <= t ? since[r] : 0, overlap.at[r] *= s < t ? since[r] : 0;
            start.at[r] *= gates.gamma[t], taken.at[r] *= gates.gamma[t], end.at[r] *= gates.omega[t];
        }
        put(score, scores), put(overlap, overlaps);
        fill(queries, q, first, column, length, keys);
        fill(written, k, first, column, length, keys);
        __syncthreads();
        Own to_q = {}, to_k = {}, from_start, to_end;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            real query = queries[Own::row(r)][Own::column(r)], key = written[Own::row(r)][Own::column(r)];
            from_start.at[r] = query * start.at[r] - key * taken.at[r], to_end.at[r] = key * end.at[r];
        }
        real begun[ROWS], ended[ROWS], crosses[ROWS];
        by_rows(from_start, through, begun), by_rows(to_end, through, ended);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            begun[r] = warp_sum(begun[r]), ended[r] = warp_sum(ended[r]);
            if (lane == 0) ends[mine + r] = ended[r];
        }
        products(Rows{queries}, into(to_q, Rows{written}));  // of keys, as the scores have them
        products(Rows{written}, into(to_k, Rows{written}));
#pragma unroll
        for (int r = 0; r < ROWS; r++) to_q.at[r] = score.at[r] * to_q.at[r] - overlap.at[r] * to_k.at[r];
        by_rows(to_q, through, crosses);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            real before = sum_before(crosses[r]);
            through[mine + r][lane] = lane <= mine + r ? begun[r] + before : 0;
        }
        products(lower(), Rows{scores}, into(start, Columns{written}));
        give(start, dq, first, column, length, keys);
        Own minus = taken;
        products(lower(), Rows{overlaps}, into(minus, Columns{written}));
        products(upper(), Columns{overlaps}, into(minus, Columns{written}));
        products(upper(), Columns{scores}, into(end, Columns{queries}));
#pragma unroll
        for (int r = 0; r < ROWS; r++) end.at[r] -= minus.at[r];
        give(end, dk, first, column, length, keys);
        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the scores, or the slab before, are done with
            if (slab == 0) fade_from_start(queries, gates, 1), fade_from_start(written, gates, -1);
            fill(scores, dy, first, slab * SIDE, length, values);
            fill(overlaps, dv, first, slab * SIDE, length, values);
            Own sum;
            take(sum, state[slab]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gates.gamma[SIDE - 1];
            __syncthreads();
            products(Columns{scores}, into(sum, Columns{queries}));
            products(Columns{overlaps}, into(sum, Columns{written}));
            put(sum, state[slab]);
        }
        if (mine == 0) {  // a lane is a token: what crosses its gate
            real sum = 0;
            for (int w = 0; w < WARPS; w++) sum += both[w];
            sum *= gates.gamma[SIDE - 1];
            for (int s = 0; s < SIDE; s++) sum += (s < lane ? ends[s] : 0) + through[s][lane];
            if (first + lane < length) dlog_decay[first + lane] = sum;
        }
    }
    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + Own::row(r), key = column + Own::column(r);
            if (key < keys && value < values)
                dS[(long long)key * values + value] = state[slab][Own::row(r)][Own::column(r)];
        }
}
