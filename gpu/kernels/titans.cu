// Titans with a matrix as memory: two nested decay scans within each batch, of one gradient's tokens; and the first half of
// its adjoint.
//
//     eₜ = kₜ W − vₜ          Sₜ = ηₜ Sₜ₋₁ − θₜ kₜᵀ eₜ          Mₜ = αₜ Mₜ₋₁ + Sₜ          yₜ = qₜ Mₜ
//                                                                Behrouz et al. 2025, eq. 12–15; α here is their 1 − α
// W is the memory where the batch began, at which all its gradients are taken. Backward, from the last token to the first:
//
//     dMₜ = αₜ₊₁ dMₜ₊₁ + qₜᵀ dyₜ          dSₜ = ηₜ₊₁ dSₜ₊₁ + dMₜ          duₜ = kₜ dSₜ: what the write uₜ = −θₜ eₜ gets
//     deₜ = −θₜ duₜ          dvₜ = −deₜ          dθₜ = −duₜ eₜᵀ          dW = Σ kₜᵀ deₜ, into dM where the batch began
//
// (The second half, once these are known, is in titans_keys.cu.)
//
// q, k are (batch, T, K), v, y, e and du (batch, T, V), W, S and M (batch, K, V), theta, log η and log α (batch, T). Batches of
// tokens are cut into chunks of at most 32: chunk c is tokens cuts[c] to cuts[c + 1] − 1, and its batch began with chunk
// begun[c], or before the first where that is −1.
//
// A block owns 32 columns of v of one sequence, their part of W, S and M in shared memory, and walks along T by chunks.
// A warp owns 4 keys of each 32: it takes their rows of S and M through the chunk, token by token, and sums what these add to
//         each token's output. The warps' sums are added in one order. Of the errors e, which need all keys at once and no
//         order of time, it owns 4 tokens.
// A thread owns one column.
//
// Bytes   a token forward: q once, k twice for every 32 columns, from the second-level cache after the first time; v is read,
//         y and e are written, and of every chunk S and M: at 32 tokens, 4 · (3 K + 3 V + K V / 16) at float32. Backward as much.
// Work    a token forward 9 K V operations, 2 of them for e; backward 9 K V, 2 of them for dW.
// Floor   at K = V = 128, 150,000 operations for 7 KB: arithmetic. Batches of fewer than 32 tokens leave tiles part empty,
//         which costs the time of whole ones only for e.
#include "tiles.cuh"

struct Rates {  // of a chunk's tokens
    real theta[SIDE], eta[SIDE], alpha[SIDE];
};

__device__ inline void fill(Rates &rates, const real *theta, const real *h, const real *g, int first, int stop) {
    int i = threadIdx.x;
    if (i >= SIDE || first + i >= stop) return;
    rates.theta[i] = theta[first + i], rates.eta[i] = exp(h[first + i]), rates.alpha[i] = exp(g[first + i]);
}

// 32 columns of a matrix, its rows rounded up to whole slices; each warp has rows of its own.
__device__ inline void bring(real *state, const real *from, int keys, int values, bool inside) {
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS;
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + mine; row < slice + mine + ROWS; row++)
            state[row * SIDE + lane] = inside && row < keys ? from[(long long)row * values + lane] : 0;
}

__device__ inline void give(const real *state, real *to, int keys, int values, bool inside) {
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS;
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + mine; row < slice + mine + ROWS; row++)
            if (inside && row < keys) to[(long long)row * values + lane] = state[row * SIDE + lane];
}

__device__ inline int padded(int keys) { return (keys + SIDE - 1) / SIDE * SIDE; }

// kept (batch, chunks, 2, K, V): S and M at the start of every chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_forward(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
               const real *__restrict__ theta, const real *__restrict__ h, const real *__restrict__ g,
               const real *__restrict__ W, const real *__restrict__ M, const real *__restrict__ S,
               const int *__restrict__ cuts, const int *__restrict__ begun, real *__restrict__ y, real *__restrict__ e,
               real *__restrict__ last_W, real *__restrict__ last_M, real *__restrict__ last_S, real *__restrict__ kept,
               int length, int keys, int values, int chunks) {
    __shared__ Square tiles[4];
    __shared__ Rates rates;
    Square &queries = tiles[0], &written = tiles[1], &columns = tiles[2];
    DYNAMIC_SHARED(real, start);  // W, S and M, each (keys, rounded up to whole slices, SIDE)
    real *surprise = start + padded(keys) * SIDE, *memory = surprise + padded(keys) * SIDE;
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values, own = sequence * entries + column;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys, v += sequence * length * values + column;
    theta += sequence * length, h += sequence * length, g += sequence * length;
    y += sequence * length * values + column, e += sequence * length * values + column;
    kept += 2 * sequence * chunks * entries + column;
    bring(start, W + own, keys, values, inside);
    bring(surprise, S + own, keys, values, inside);
    bring(memory, M + own, keys, values, inside);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = cuts[chunk], stop = cuts[chunk + 1];
        give(surprise, kept + 2 * chunk * entries, keys, values, inside);
        give(memory, kept + (2 * chunk + 1) * entries, keys, values, inside);
        if (begun[chunk] == chunk)
            for (int slice = 0; slice < keys; slice += SIDE)
                for (int row = slice + mine; row < slice + mine + ROWS; row++)
                    start[row * SIDE + lane] = memory[row * SIDE + lane];
        real error[ROWS] = {}, part[SIDE] = {}, out[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the tiles before are done with
            fill(written, k, first, slice, stop, keys);
            if (slice == 0) fill(rates, theta, h, g, first, stop);
            __syncthreads();
            for (int j = 0; j < SIDE; j++)
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    error[r] = fma(written[mine + r][j], start[(slice + j) * SIDE + lane], error[r]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + mine + r;
            if (t >= stop) break;
            if (inside) e[t * (long long)values + lane] = error[r] -= v[t * (long long)values + lane];
            columns[mine + r][lane] = -rates.theta[mine + r] * error[r];
        }
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the keys before are done with
            fill(queries, q, first, slice, stop, keys);
            fill(written, k, first, slice, stop, keys);
            __syncthreads();
            real *s = &surprise[(slice + mine) * SIDE + lane], *m = &memory[(slice + mine) * SIDE + lane];
            real past[ROWS], held[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) past[r] = s[r * SIDE], held[r] = m[r * SIDE];
#pragma unroll
            for (int t = 0; t < SIDE; t++)
                if (first + t < stop)
#pragma unroll
                    for (int r = 0; r < ROWS; r++) {
                        past[r] = fma(written[t][mine + r], columns[t][lane], rates.eta[t] * past[r]);
                        held[r] = fma(rates.alpha[t], held[r], past[r]);
                        part[t] = fma(queries[t][mine + r], held[r], part[t]);
                    }
#pragma unroll
            for (int r = 0; r < ROWS; r++) s[r * SIDE] = past[r], m[r * SIDE] = held[r];
        }
        over_warps(tiles, part, out);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + mine + r;
            if (inside && t < stop) y[t * (long long)values + lane] = out[r];
        }
    }
    give(start, last_W + own, keys, values, inside);
    give(surprise, last_S + own, keys, values, inside);
    give(memory, last_M + own, keys, values, inside);
}

// dstates (batch, chunks, 2, K, V): what S and M at the end of every chunk get from the tokens after it.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_backward(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ theta,
                const real *__restrict__ h, const real *__restrict__ g, const real *__restrict__ dy,
                const real *__restrict__ dlast_W, const real *__restrict__ dlast_M, const real *__restrict__ dlast_S,
                const int *__restrict__ cuts, const int *__restrict__ begun, real *__restrict__ du, real *__restrict__ dW,
                real *__restrict__ dM, real *__restrict__ dS, real *__restrict__ dstates, int length, int keys, int values,
                int chunks) {
    __shared__ Square tiles[4];
    __shared__ Rates rates;
    Square &queries = tiles[0], &written = tiles[1], &columns = tiles[2];
    DYNAMIC_SHARED(real, start);  // dW, dS and dM, each (keys, rounded up to whole slices, SIDE)
    real *surprise = start + padded(keys) * SIDE, *memory = surprise + padded(keys) * SIDE;
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values, own = sequence * entries + column;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys;
    theta += sequence * length, h += sequence * length, g += sequence * length;
    dy += sequence * length * values, du += sequence * length * values + column;
    dstates += 2 * sequence * chunks * entries + column;
    bring(start, dlast_W + own, keys, values, inside);
    bring(surprise, dlast_S + own, keys, values, inside);
    bring(memory, dlast_M + own, keys, values, inside);

    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int first = cuts[chunk], stop = cuts[chunk + 1];
        give(surprise, dstates + 2 * chunk * entries, keys, values, inside);
        give(memory, dstates + (2 * chunk + 1) * entries, keys, values, inside);
        real part[SIDE] = {}, out[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the tiles before are done with
            fill(queries, q, first, slice, stop, keys);
            fill(written, k, first, slice, stop, keys);
            if (slice == 0) fill(columns, dy, first, column, stop, values), fill(rates, theta, h, g, first, stop);
            __syncthreads();
            real *s = &surprise[(slice + mine) * SIDE + lane], *m = &memory[(slice + mine) * SIDE + lane];
            real past[ROWS], held[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) past[r] = s[r * SIDE], held[r] = m[r * SIDE];
#pragma unroll
            for (int t = SIDE - 1; t >= 0; t--)
                if (first + t < stop)
#pragma unroll
                    for (int r = 0; r < ROWS; r++) {
                        held[r] = fma(queries[t][mine + r], columns[t][lane], held[r]);
                        past[r] += held[r];
                        part[t] = fma(written[t][mine + r], past[r], part[t]);
                        held[r] *= rates.alpha[t], past[r] *= rates.eta[t];
                    }
#pragma unroll
            for (int r = 0; r < ROWS; r++) s[r * SIDE] = past[r], m[r * SIDE] = held[r];
        }
        over_warps(tiles, part, out);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + mine + r;
            if (inside && t < stop) du[t * (long long)values + lane] = out[r];
            columns[mine + r][lane] = t < stop ? -rates.theta[mine + r] * out[r] : 0;
        }
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the keys before are done with
            fill(written, k, first, slice, stop, keys);
            __syncthreads();
            for (int row = mine; row < mine + ROWS; row++) {
                real *w = &start[(slice + row) * SIDE + lane], sum = *w;
                for (int t = 0; t < SIDE; t++) sum = fma(written[t][row], columns[t][lane], sum);
                *w = sum;
                if (begun[chunk] == chunk) memory[(slice + row) * SIDE + lane] += sum, *w = 0;
            }
        }
    }
    give(start, dW + own, keys, values, inside);
    give(surprise, dS + own, keys, values, inside);
    give(memory, dM + own, keys, values, inside);
}
