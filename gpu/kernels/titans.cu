// Titans with a matrix as memory: within each batch, whose gradients are taken at one point, two nested scans with
// decay; and the first half of its adjoint.
//
//     eₜ = kₜ W − vₜ          Sₜ = ηₜ Sₜ₋₁ − θₜ kₜᵀ eₜ          Mₜ = αₜ Mₜ₋₁ + Sₜ          yₜ = qₜ Mₜ
//                                                                Behrouz et al. 2025, eq. 12–15; α here is their 1 − α
// W is the memory at the start of the batch, where all its gradients are taken. Backward, in reverse:
//
//     dMₜ = αₜ₊₁ dMₜ₊₁ + qₜᵀ dyₜ          dSₜ = ηₜ₊₁ dSₜ₊₁ + dMₜ          duₜ = kₜ dSₜ for the update uₜ = −θₜ eₜ
//     deₜ = −θₜ duₜ       dvₜ = −deₜ       dθₜ = −duₜ eₜᵀ       dW = Σ kₜᵀ deₜ, added to dM at the start of the batch
//
// (The second half, which needs these, is in titans_keys.cu.)
//
// q, k are (batch, T, K), v, y, e and du (batch, T, V), W, S and M (batch, K, V), theta, log η and log α (batch, T).
// Batches of tokens are split into chunks of at most 32: chunk c is tokens chunk_starts[c] to chunk_starts[c + 1] − 1,
// and the first chunk of its batch is batch_first_chunk[c], or −1 if the batch began before the first token.
//
// Block    32 columns of v of one sequence, chunk by chunk; their part of W, S and M stays in shared memory.
// Warp     4 keys of each 32: it advances their rows of S and M token by token, and accumulates their terms of each
//          token's output; the sums of the warps are added in a fixed order. For the errors e, which sum over all keys,
//          4 tokens.
// Thread   one column.
//
// Memory traffic   per token forward: q once, k twice per 32 columns, from the L2 cache after the first time; v is
//                  read, y and e are written, and S and M of every chunk: with 32 tokens 4 · (3 K + 3 V + K V / 16)
//                  bytes at float32. Backward as much.
// FLOPs            per token 9 K V forward, 2 of them for e; 9 K V backward, 2 of them for dW.
// Bound            compute: at K = V = 128, 150,000 operations for 7 KB. Batches of fewer than 32 tokens leave tiles
//                  partly empty, which costs only the time of e.
#include "tiles.cuh"

struct Rates {  // of the tokens of a chunk
    real theta[SIDE], eta[SIDE], alpha[SIDE];
};

__device__ inline void load_rates(Rates &rates, const real *theta, const real *log_eta, const real *log_alpha,
                                  int first, int stop) {
    int i = threadIdx.x;
    if (i >= SIDE || first + i >= stop) return;
    rates.theta[i] = theta[first + i], rates.eta[i] = exp(log_eta[first + i]),
        rates.alpha[i] = exp(log_alpha[first + i]);
}

// Load 32 columns of a matrix, its rows padded to whole slices; each warp has its own rows.
__device__ inline void load_state(real *state, const real *from, int keys, int values, bool inside) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + warp_row; row < slice + warp_row + ROWS; row++)
            state[row * SIDE + lane] = inside && row < keys ? from[(long long)row * values + lane] : 0;
}

__device__ inline void store(const real *state, real *to, int keys, int values, bool inside) {
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS;
    for (int slice = 0; slice < keys; slice += SIDE)
        for (int row = slice + warp_row; row < slice + warp_row + ROWS; row++)
            if (inside && row < keys) to[(long long)row * values + lane] = state[row * SIDE + lane];
}

__device__ inline int padded(int keys) { return (keys + SIDE - 1) / SIDE * SIDE; }

// boundary_states (batch, chunks, 2, K, V): S and M at the start of every chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_forward(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ v,
               const real *__restrict__ theta, const real *__restrict__ log_eta, const real *__restrict__ log_alpha,
               const real *__restrict__ W, const real *__restrict__ M, const real *__restrict__ S,
               const int *__restrict__ chunk_starts, const int *__restrict__ batch_first_chunk, real *__restrict__ y,
               real *__restrict__ e, real *__restrict__ last_W, real *__restrict__ last_M, real *__restrict__ last_S,
               real *__restrict__ boundary_states, int length, int keys, int values, int chunks) {
    __shared__ Square tiles[4];
    __shared__ Rates rates;
    Square &query_tile = tiles[0], &key_tile = tiles[1], &columns = tiles[2];
    DYNAMIC_SHARED(real, start);  // W, S and M, each (keys, rounded up to whole slices, SIDE)
    real *surprise = start + padded(keys) * SIDE, *memory = surprise + padded(keys) * SIDE;
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values, own = sequence * entries + column;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys, v += sequence * length * values + column;
    theta += sequence * length, log_eta += sequence * length, log_alpha += sequence * length;
    y += sequence * length * values + column, e += sequence * length * values + column;
    boundary_states += 2 * sequence * chunks * entries + column;
    load_state(start, W + own, keys, values, inside);
    load_state(surprise, S + own, keys, values, inside);
    load_state(memory, M + own, keys, values, inside);

    for (int chunk = 0; chunk < chunks; chunk++) {
        int first = chunk_starts[chunk], stop = chunk_starts[chunk + 1];
        store(surprise, boundary_states + 2 * chunk * entries, keys, values, inside);
        store(memory, boundary_states + (2 * chunk + 1) * entries, keys, values, inside);
        if (batch_first_chunk[chunk] == chunk)
            for (int slice = 0; slice < keys; slice += SIDE)
                for (int row = slice + warp_row; row < slice + warp_row + ROWS; row++)
                    start[row * SIDE + lane] = memory[row * SIDE + lane];
        real error[ROWS] = {}, part[SIDE] = {}, out[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the previous tiles have been read
            load_tile(key_tile, k, first, slice, stop, keys);
            if (slice == 0) load_rates(rates, theta, log_eta, log_alpha, first, stop);
            __syncthreads();
            for (int j = 0; j < SIDE; j++)
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    error[r] = fma(key_tile[warp_row + r][j], start[(slice + j) * SIDE + lane], error[r]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r;
            if (t >= stop) break;
            if (inside) e[t * (long long)values + lane] = error[r] -= v[t * (long long)values + lane];
            columns[warp_row + r][lane] = -rates.theta[warp_row + r] * error[r];
        }
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the previous keys have been read
            load_tile(query_tile, q, first, slice, stop, keys);
            load_tile(key_tile, k, first, slice, stop, keys);
            __syncthreads();
            real *s = &surprise[(slice + warp_row) * SIDE + lane], *m = &memory[(slice + warp_row) * SIDE + lane];
            real S_rows[ROWS], M_rows[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) S_rows[r] = s[r * SIDE], M_rows[r] = m[r * SIDE];
#pragma unroll
            for (int t = 0; t < SIDE; t++)
                if (first + t < stop)
#pragma unroll
                    for (int r = 0; r < ROWS; r++) {
                        S_rows[r] = fma(key_tile[t][warp_row + r], columns[t][lane], rates.eta[t] * S_rows[r]);
                        M_rows[r] = fma(rates.alpha[t], M_rows[r], S_rows[r]);
                        part[t] = fma(query_tile[t][warp_row + r], M_rows[r], part[t]);
                    }
#pragma unroll
            for (int r = 0; r < ROWS; r++) s[r * SIDE] = S_rows[r], m[r * SIDE] = M_rows[r];
        }
        sum_over_warps(tiles, part, out);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r;
            if (inside && t < stop) y[t * (long long)values + lane] = out[r];
        }
    }
    store(start, last_W + own, keys, values, inside);
    store(surprise, last_S + own, keys, values, inside);
    store(memory, last_M + own, keys, values, inside);
}

// dstates (batch, chunks, 2, K, V): cotangents of S and M at the end of every chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_backward(const real *__restrict__ q, const real *__restrict__ k, const real *__restrict__ theta,
                const real *__restrict__ log_eta, const real *__restrict__ log_alpha, const real *__restrict__ dy,
                const real *__restrict__ dlast_W, const real *__restrict__ dlast_M, const real *__restrict__ dlast_S,
                const int *__restrict__ chunk_starts, const int *__restrict__ batch_first_chunk, real *__restrict__ du,
                real *__restrict__ dW, real *__restrict__ dM, real *__restrict__ dS, real *__restrict__ dstates,
                int length, int keys, int values, int chunks) {
    __shared__ Square tiles[4];
    __shared__ Rates rates;
    Square &query_tile = tiles[0], &key_tile = tiles[1], &columns = tiles[2];
    DYNAMIC_SHARED(real, start);  // dW, dS and dM, each (keys, rounded up to whole slices, SIDE)
    real *surprise = start + padded(keys) * SIDE, *memory = surprise + padded(keys) * SIDE;
    int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * ROWS, slabs = (values + SIDE - 1) / SIDE;
    int column = blockIdx.x % slabs * SIDE;
    long long sequence = blockIdx.x / slabs, entries = (long long)keys * values, own = sequence * entries + column;
    bool inside = column + lane < values;
    q += sequence * length * keys, k += sequence * length * keys;
    theta += sequence * length, log_eta += sequence * length, log_alpha += sequence * length;
    dy += sequence * length * values, du += sequence * length * values + column;
    dstates += 2 * sequence * chunks * entries + column;
    load_state(start, dlast_W + own, keys, values, inside);
    load_state(surprise, dlast_S + own, keys, values, inside);
    load_state(memory, dlast_M + own, keys, values, inside);

    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int first = chunk_starts[chunk], stop = chunk_starts[chunk + 1];
        store(surprise, dstates + 2 * chunk * entries, keys, values, inside);
        store(memory, dstates + (2 * chunk + 1) * entries, keys, values, inside);
        real part[SIDE] = {}, out[ROWS];
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the previous tiles have been read
            load_tile(query_tile, q, first, slice, stop, keys);
            load_tile(key_tile, k, first, slice, stop, keys);
            if (slice == 0) {
                load_tile(columns, dy, first, column, stop, values);
                load_rates(rates, theta, log_eta, log_alpha, first, stop);
            }
            __syncthreads();
            real *s = &surprise[(slice + warp_row) * SIDE + lane], *m = &memory[(slice + warp_row) * SIDE + lane];
            real S_rows[ROWS], M_rows[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) S_rows[r] = s[r * SIDE], M_rows[r] = m[r * SIDE];
#pragma unroll
            for (int t = SIDE - 1; t >= 0; t--)
                if (first + t < stop)
#pragma unroll
                    for (int r = 0; r < ROWS; r++) {
                        M_rows[r] = fma(query_tile[t][warp_row + r], columns[t][lane], M_rows[r]);
                        S_rows[r] += M_rows[r];
                        part[t] = fma(key_tile[t][warp_row + r], S_rows[r], part[t]);
                        M_rows[r] *= rates.alpha[t], S_rows[r] *= rates.eta[t];
                    }
#pragma unroll
            for (int r = 0; r < ROWS; r++) s[r * SIDE] = S_rows[r], m[r * SIDE] = M_rows[r];
        }
        sum_over_warps(tiles, part, out);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int t = first + warp_row + r;
            if (inside && t < stop) du[t * (long long)values + lane] = out[r];
            columns[warp_row + r][lane] = t < stop ? -rates.theta[warp_row + r] * out[r] : 0;
        }
        for (int slice = 0; slice < keys; slice += SIDE) {
            __syncthreads();  // the previous keys have been read
            load_tile(key_tile, k, first, slice, stop, keys);
            __syncthreads();
            for (int row = warp_row; row < warp_row + ROWS; row++) {
                real *w = &start[(slice + row) * SIDE + lane], sum = *w;
                for (int t = 0; t < SIDE; t++) sum = fma(key_tile[t][row], columns[t][lane], sum);
                *w = sum;
                if (batch_first_chunk[chunk] == chunk) memory[(slice + row) * SIDE + lane] += sum, *w = 0;
            }
        }
    }
    store(start, dW + own, keys, values, inside);
    store(surprise, dS + own, keys, values, inside);
    store(memory, dM + own, keys, values, inside);
}
