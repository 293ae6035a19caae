// Linear attention whose memory fades, each row of it by as much as each token says, and its adjoint.
//
//     Sₜ = Diag(αₜ) Sₜ₋₁ + kₜᵀ vₜ          yₜ = qₜ Sₜ                                 Yang et al. 2024 (GLA), section 4.1
//
// backward, with dSₜ = Diag(αₜ₊₁) dSₜ₊₁ + qₜᵀ dyₜ the cotangent of Sₜ, from the last token to the first:
//
//     dvₜ = kₜ dSₜ: the same kernel, in the other direction and with the gate of the token after
//     dqₜ = dyₜ Sₜᵀ          dkₜ = vₜ dSₜᵀ          dlog αₜ = αₜ ⊙ Σᵥ (dSₜ ⊙ Sₜ₋₁)
//
// In a chunk that starts with S and ends with dS, Γ[t, s] = αₛ₊₁ ⋯ αₜ in each channel, start γₜ and end ωₜ of it alike:
//
//     dqₜ = γₜ (dyₜ Sᵀ) + Σₛ≤ₜ Γ[t, s] (dyₜ · vₛ) kₛ          dkₛ = ωₛ (vₛ dSᵀ) + Σₜ≥ₛ Γ[t, s] (dyₜ · vₛ) qₜ
//     dlog αₜ = what dk sums from one side of the gate to the other: Σ over s < t ≤ r of kₛ Γ[r, s] (dyᵣ · vₛ) qᵣ, and the
//              same with S in the place of a token before, and with dS in that of one after
//
// Every Γ is a product of gates between two tokens, multiplied out on the way from one to the other: nothing is divided by
// what may be 0, and each term of dlog αₜ holds αₜ, so that a shut gate gets 0 and not the rounding errors of others.
//
// q, k are (batch, T, K), v and y (batch, T, V), S (batch, K, V), log α (batch, T, K) or (batch, T, 1).
//
// Forward a block owns 32 columns of v of one sequence, and walks along T in chunks of 32 tokens. A warp owns 4 keys of
//         each 32, a thread their 4 numbers of S in its column: it takes them through the chunk, token by token, and sums
//         what its keys add to each token's output. The warps' sums are added in one order.
// Backward a block owns 32 keys of one sequence, and walks from the last chunk to the first, each from the S that forward
//         kept at its start. A thread owns 4 numbers of dy Vᵀ, dy Sᵀ, v dSᵀ and dS, as product.cuh deals them out. A warp owns
//         4 tokens once these are there, a lane one key: it follows its key from each of its tokens to the chunk's end and
//         back.
//
// Bytes   a token forward reads q, k, log α once for every 32 columns (from the second-level cache after the first time)
//         and v, writes y and 1/32 of S: 4 · (3 K + 2 V + K V / 32) at float32. Backward twice as much.
// Work    a token forward: 5 K V operations. (Scores as in linear attention would be no fewer: with a decay for each channel
//         every one is a sum with gates of its own.) Backward: 5 K V for dv, 8 K V for the rest, and 150 K inside its chunk.
//         These 8 K V are in products of tiles: with OPERAND defined, on tensor cores, which round what enters them. (What
//         goes forward, and dv, are then left to gated_linear_attention_forward_tensor_cores.cu.)
// Floor   at K = V = 128, 82,000 operations for 4.6 KB: arithmetic.
#include "gates.cuh"

// kept (batch, chunks, K, V): S at the start of every chunk. In the other direction (`back`) nothing is kept.
extern "C" __global__ void __launch_bounds__(THREADS)
gated_linear_attention(const Number *__restrict__ q, const Number *__restrict__ k, const Number *__restrict__ v,
                       const real *__restrict__ g, const real *__restrict__ S, Number *__restrict__ y,
                       real *__restrict__ last, real *__restrict__ boundary_states, int length, int keys, int values,
                       int gates, int reverse) {
    __shared__ Square tiles[4];
    Square &query_tile = tiles[0], &key_tile = tiles[1], &alpha = tiles[2], &columns = tiles[3];
    DYNAMIC_SHARED(real, state);  // (keys, rounded up to whole slices, SIDE and a gap)
    constexpr int WIDTH = SIDE + 1;
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys, g += sequence * length * gates;
    v += sequence * length * values, y += sequence * length * values + column;
    S += sequence * entries + column, last += sequence * entries + column,
        boundary_states += sequence * chunks * entries + column;

    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + warp_row; row < slice + warp_row + ROWS; row++)
            state[row * WIDTH + lane] = inside && row < keys ? S[(long long)row * values + lane] : 0;

    for (int first = 0; first < length; first += SIDE) {
        real part[SIDE] = {}, out[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the slice before is done with
            if (slice == 0) load_tile(columns, v, first, column, length, values, reverse);
            load_tile(query_tile, q, first, slice, length, keys, reverse);
            load_tile(key_tile, k, first, slice, length, keys, reverse);
            load_gate_tile(alpha, g, first - reverse, slice, length, keys, gates, reverse);
            __syncthreads();  // the slice is there
            real *state_rows = &state[(slice + warp_row) * WIDTH + lane], sum[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                sum[r] = state_rows[r * WIDTH];
                if (!reverse && inside && slice + warp_row + r < keys)
                    boundary_states[first / SIDE * entries + (long long)(slice + warp_row + r) * values + lane] =
                        sum[r];
            }
#pragma unroll
            for (int t = 0; t < SIDE; t++)
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    sum[r] = fma(key_tile[t][warp_row + r], columns[t][lane], alpha[t][warp_row + r] * sum[r]);
                    part[t] = fma(query_tile[t][warp_row + r], sum[r], part[t]);
                }
#pragma unroll
            for (int r = 0; r < ROWS; r++) state_rows[r * WIDTH] = sum[r];
        }
        sum_over_warps(tiles, part, out);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r;
            if (inside && t < length) narrow(y[(long long)(reverse ? length - 1 - t : t) * values + lane], out[r]);
        }
    }
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + warp_row; row < slice + warp_row + ROWS; row++)
            if (inside && row < keys) last[(long long)row * values + lane] = state[row * WIDTH + lane];
}

// Of token s and this thread's key: what the tokens after it say of the key, from `sum` at the chunk's end; and in `part`
// what passes each gate on the way. pairs[t] is dyₜ · vₛ.
__device__ inline real propagate_to_chunk_end(const Tile &query_tile, const Tile &alpha, int s, const real *pairs,
                                              real sum, real key, real (&part)[SIDE]) {
    int lane = threadIdx.x % 32;
    real passing[SIDE];
#pragma unroll
    for (int t = SIDE - 1; t >= 0; t--)
        if (t > s) passing[t] = sum = alpha[t][lane] * fma(pairs[t * PITCH], query_tile[t][lane], sum);
#pragma unroll
    for (int t = 0; t < SIDE; t++)
        if (t > s) part[t] = fma(key, passing[t], part[t]), key *= alpha[t][lane];
    return sum;
}

// What tokens read, as it was at the chunk's start; and in gamma what the whole chunk leaves.
__device__ inline void decay_from_chunk_start(Tile &query_tile, const Tile &alpha, real *gamma) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
    real decay = 1;
    for (int t = 0; t < warp_row; t++) decay *= alpha[t][lane];
#pragma unroll
    for (int r = 0; r < ROWS; r++) decay *= alpha[warp_row + r][lane], query_tile[warp_row + r][lane] *= decay;
    if (warp_row == SIDE - ROWS) gamma[lane] = decay;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gated_linear_attention_backward(const Number *__restrict__ q, const Number *__restrict__ k,
                                const Number *__restrict__ v, const real *__restrict__ g,
                                const real *__restrict__ boundary_states, const Number *__restrict__ dy,
                                const real *__restrict__ dlast, Number *__restrict__ dq, Number *__restrict__ dk,
                                real *__restrict__ dlog_decay, real *__restrict__ dS, int length, int keys, int values,
                                int gates) {
    __shared__ Tile tiles[5];
    __shared__ real gamma[SIDE];  // of each key, what the chunk leaves
    Tile &query_tile = tiles[0], &key_tile = tiles[1], &alpha = tiles[2], &pairs = tiles[3], &dy_S = tiles[4];
    DYNAMIC_SHARED(Tile, state);  // one for every 32 values: dSᵀ
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slices = (keys + SIDE - 1) / SIDE;
    int column = blockIdx.x % slices * SIDE, slabs = (values + SIDE - 1) / SIDE, chunks = (length + SIDE - 1) / SIDE;
    long long sequence = blockIdx.x / slices, entries = (long long)keys * values, key = column + lane;
    bool inside = key < keys;
    q += sequence * length * keys, k += sequence * length * keys, g += sequence * length * gates;
    dq += sequence * length * keys, dk += sequence * length * keys, dlog_decay += sequence * length * keys;
    v += sequence * length * values, dy += sequence * length * values, boundary_states += sequence * chunks * entries;
    dlast += sequence * entries, dS += sequence * entries;

    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + warp_row + r;
            state[slab][warp_row + r][lane] = inside && value < values ? dlast[key * values + value] : 0;
        }

    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int first = chunk * SIDE;
        Accumulator pair = {}, dy_S_sum = {}, v_dS_sum = {}, sum;
        real v_dS[ROWS], state_rows[ROWS], S_dS = 0, part[SIDE] = {};
        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the tiles before are done with
            load_tile(query_tile, dy, first, slab * SIDE, length, values);
            load_tile(key_tile, v, first, slab * SIDE, length, values);
            load_tile(alpha, boundary_states + chunk * entries, column, slab * SIDE, keys, values);
            __syncthreads();
            products(Rows{query_tile}, into(pair, Rows{key_tile}), into(dy_S_sum, Rows{alpha}));
            products(Rows{key_tile}, into(v_dS_sum, Columns{state[slab]}));
            if (warp_row == SIDE - ROWS)
                for (int j = 0; j < SIDE; j++) S_dS = fma(alpha[lane][j], state[slab][j][lane], S_dS);
        }
        to_row_layout(v_dS_sum, query_tile, v_dS);
        __syncthreads();  // the last slab is done with
        store(pair, pairs), store(dy_S_sum, dy_S);
        load_tile(query_tile, q, first, column, length, keys);
        load_tile(key_tile, k, first, column, length, keys);
        load_gate_tile(alpha, g, first, column, length, keys, gates, false);
        __syncthreads();
#pragma unroll 1
        for (int r = 0; r < ROWS; r++) {
            int t = warp_row + r;
            real sum = dy_S[t][lane];
            for (int s = 0; s <= t; s++) sum = fma(pairs[t][s], key_tile[s][lane], alpha[s][lane] * sum);
            if (inside && first + t < length) narrow(dq[(first + t) * (long long)keys + key], sum);
            sum = propagate_to_chunk_end(query_tile, alpha, t, &pairs[0][t], v_dS[r], key_tile[t][lane], part);
            if (inside && first + t < length)
                narrow(dk[(first + t) * (long long)keys + key], fma(pairs[t][t], query_tile[t][lane], sum));
        }
        if (warp_row == SIDE - ROWS) propagate_to_chunk_end(query_tile, alpha, -1, &dy_S[0][lane], S_dS, 1, part);

        for (int slab = 0; slab < slabs; slab++) {
            __syncthreads();  // the keys, or the slab before, are done with
            if (slab == 0) decay_from_chunk_start(query_tile, alpha, gamma);
            load_tile(key_tile, dy, first, slab * SIDE, length, values);
            __syncthreads();
            load(sum, state[slab]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum.at[r] *= gamma[Accumulator::column(r)];
            products(Columns{key_tile}, into(sum, Columns{query_tile}));
            store(sum, state[slab]);
        }
        sum_over_warps(tiles, part, state_rows);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (inside && first + warp_row + r < length) dlog_decay[(first + warp_row + r) * (long long)keys + key] =
                state_rows[r];
    }
    for (int slab = 0; slab < slabs; slab++)
        for (int r = 0; r < ROWS; r++) {
            int value = slab * SIDE + Accumulator::row(r), own_key = column + Accumulator::column(r);
            if (own_key < keys && value < values)
                dS[(long long)own_key * values + value] = state[slab][Accumulator::row(r)][Accumulator::column(r)];
        }
}
