// Titans with a memory of any number of layers, inside a norm or not (Behrouz et al. 2025, eq. 12–15), or, without
// momentum S, test-time training (Sun et al. 2024, eq. 4–8). The equations are in titans_batch.cuh, the adjoint is in
// titans_layers_backward.cu.
//
// q, k are (batch, T, K), v and y (batch, T, V), theta, log η and log α (batch, T). The layers of a model are
// concatenated, each (I, O) row-major, the last row its bias if it has one: start, M and S are (batch, entries), N
// entries in all. norm is γ and β, (batch, 2, V). Batches have at most 32 tokens.
//
// Block    one sequence, batch by batch: gelu and the norm couple all columns of the memory.
// Thread   4 elements of every 32 × 32 tile of a product, in the layout of product.cuh, the same ones in each product.
//          M, S and the workspace are in global memory, pass through shared tiles, and stay in the L2 cache.
// Warp     whole rows where a norm is taken; the first warp computes the gates, a lane for each token s.
//
// Memory traffic   a batch of C tokens reads W twice, M twice, S three times, and writes M and S: 9 N elements, from
//                  the L2 cache if 4 N of every sequence fit in it. From device memory a token reads q, k, v and writes
//                  y, and every 8th batch writes M and S: 4 · (2 K + 2 V + N / (4 C)) bytes at float32.
// FLOPs            per token 12 N: 4 N for z and u, 4 N for the output, 4 N for M and S; and 2 C for each feature that
//                  enters or leaves a layer.
// Bound            at K = V = 64 with 128 inside and C = 16: 210,000 operations for 37 KB from the L2 cache, whose
//                  bandwidth is the limit. With few sequences it is latency: a batch is about 100 dependent steps of 32
//                  × 32 × 32, with two barriers around the loads of each.
#include "titans_batch.cuh"

// boundary_states (batch, segments, parts, entries): M and S (2 parts), or M alone without momentum (1 part), before
// the first batch of every segment; passing (batch, 2, parts, entries): those before the other batches, in alternating
// buffers, and after the last. losses (batch, T).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_layers(const real *q, const real *k, const real *v, const real *theta, const real *log_eta,
              const real *log_alpha, const real *tau, const real *start, const real *norm, const Layer *layers,
              real *boundary_states, real *passing, real *y, real *losses, real *workspace,
              int length, int left, int batch_size, int depth, int entries, int widest,
              int segment, int momentum, int normed) {
    __shared__ Tile tiles[2];
    __shared__ Gates gates;
    __shared__ Batch batch;
    int batches = 1 + (length > left ? (length - left + batch_size - 1) / batch_size : 0);
    int keys = layers[0].features, values = layers[depth - 1].columns;
    long long sequence = blockIdx.x, from = sequence * length, model = (momentum ? 2LL : 1LL) * entries;
    start += sequence * entries, boundary_states += sequence * ((batches + segment - 1) / segment) * model;
    passing += sequence * 2 * model, workspace += sequence * depth * FIELDS * SIDE * widest;
    const real *gamma = normed ? norm + sequence * 2 * values : nullptr, *beta = normed ? gamma + values : nullptr;

    const real *W = start;
    for (int i = 0; i < batches; i++) {
        int first = i ? left + (i - 1) * batch_size : 0, count = min(left + i * batch_size, length) - first;
        long long at = from + first;
        real *current = i % segment ? passing + i % 2 * model : boundary_states + i / segment * model;
        if (i) W = current;
        __syncthreads();  // all threads have finished the previous batch
        if (threadIdx.x == 0)
            batch = {layers, depth, widest, count, normed != 0, momentum != 0,
                     q + at * keys, k + at * keys, v + at * values,
                     theta + at, log_eta + at, log_alpha + at, tau + at, gamma, beta,
                     W, current, momentum ? current + entries : nullptr, workspace};
        __syncthreads();
        compute_gates(gates, batch);
        inner_model(tiles, batch, gates, [&](int t, real loss) {
            if (threadIdx.x % 32 == 0) losses[at + t] = loss;
        });
        read(tiles, batch, gates);
        along_rows(count, [&](int t) {
            const real *z = batch.buffer(READ) + t * values;
            real *unit = batch.buffer(UNIT) + t * values, *out = y + (at + t) * values;
            if (normed) standardise(z, unit, values);
            for (int j = threadIdx.x % 32; j < values; j += 32)
                out[j] = normed ? batch.q[t * keys + j] + gamma[j] * unit[j] + beta[j] : z[j];
        });
        bool at_boundary = (i + 1) % segment == 0 && i + 1 < batches;
        real *next = at_boundary ? boundary_states + (i + 1) / segment * model : passing + (i + 1) % 2 * model;
        write(tiles, batch, gates, next, next + entries);
    }
}
