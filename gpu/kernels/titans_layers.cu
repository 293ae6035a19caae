// Titans with a memory of any number of layers, in a norm or in none (Behrouz et al. 2025, eq. 12–15), or, without S,
// test-time training (Sun et al. 2024, eq. 4–8). The equations are in titans_batch.cuh, the adjoint is in
// titans_layers_backward.cu.
//
// q, k are (batch, T, K), v and y (batch, T, V), theta, log η and log α (batch, T). Of a model all layers lie side by side,
// each (I, O) by rows, the last row its bias if it has one: start, M and S are (batch, entries), N entries in all. norm is γ
// and β, (batch, 2, V). Batches of tokens have at most 32 of them.
//
// A block owns one sequence, whose batches it takes one after the other: gelu and the norm couple all columns of the memory.
// A thread owns 4 numbers of every 32 × 32 of a product, as product.cuh deals them out, and the same ones of each product. M
//         and S are in device memory as the tokens' rows are: they pass through tiles, and stay in the second-level cache.
// A warp owns whole rows where a norm is taken, and the first one makes the gates, a lane for each token that has written.
//
// Bytes   a batch of C tokens reads W twice, M twice, S three times, and writes M and S: 9 N numbers, from the second-level
//         cache if 4 N of every sequence find room there. From device memory a token reads q, k, v, writes y, and of every
//         8th batch M and S: at float32 4 · (2 K + 2 V + N / (4 C)).
// Work    a token 12 N operations, for z and u 4 N, for what is read 4 N, for M and S 4 N, and 2 C for each feature that
//         enters or leaves a layer.
// Floor   at K = V = 64 with 128 inside and C = 16: 210,000 operations for 37 KB from the second-level cache, which is what
//         sets it. It is far off where sequences are few: a batch is some 100 steps of 32 × 32 × 32, one after the other, with
//         two barriers around what each loads.
#include "titans_batch.cuh"

// kept (batch, segments, parts, entries): M and S, or in test-time training, of one part, M, before every so many batches of
// tokens; passing (batch, 2, parts, entries): before the others, in turn, and behind the last. losses (batch, T).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
titans_layers(const real *q, const real *k, const real *v, const real *theta, const real *log_eta,
              const real *log_alpha, const real *start, const real *norm, const Layer *layers, real *boundary_states,
              real *passing, real *y, real *losses, real *workspace, int length, int left, int batch_size, int depth,
              int entries, int widest, int segment, int parts, int normed) {
    __shared__ Tile tiles[2];
    __shared__ Gates gates;
    __shared__ Batch batch;
    int batches = 1 + (length > left ? (length - left + batch_size - 1) / batch_size : 0);
    int keys = layers[0].features, values = layers[depth - 1].columns;
    long long sequence = blockIdx.x, model = (long long)parts * entries;
    q += sequence * length * keys, k += sequence * length * keys, v += sequence * length * values;
    theta += sequence * length, log_eta += sequence * length, log_alpha += sequence * length;
    y += sequence * length * values, losses += sequence * length;
    start += sequence * entries, boundary_states += sequence * ((batches + segment - 1) / segment) * model;
    passing += sequence * 2 * model, workspace += sequence * depth * FIELDS * SIDE * widest;
    const real *gamma = normed ? norm + sequence * 2 * values : nullptr, *beta = normed ? gamma + values : nullptr;

    const real *W = start;
    for (int i = 0; i < batches; i++) {
        int first = i ? left + (i - 1) * batch_size : 0, count = min(left + i * batch_size, length) - first;
        real *current = i % segment ? passing + i % 2 * model : boundary_states + i / segment * model;
        bool at_boundary = (i + 1) % segment == 0 && i + 1 < batches;
        real *next = at_boundary ? boundary_states + (i + 1) / segment * model : passing + (i + 1) % 2 * model;
        if (i) W = current;
        __syncthreads();  // the batch before is done with
        if (threadIdx.x == 0)
            batch = {layers, depth, widest, count, normed != 0, parts > 1,
                     q + (long long)first * keys, k + (long long)first * keys, v + (long long)first * values,
                     theta + first, log_eta + first, log_alpha + first, gamma, beta,
                     W, current, parts > 1 ? current + entries : nullptr, workspace};
        __syncthreads();
        compute_gates(gates, batch);
        inner_model(tiles, batch, gates, [&](int t, real loss) {
            if (threadIdx.x % 32 == 0) losses[first + t] = loss;
        });
        read(tiles, batch, gates);
        along_rows(count, [&](int t) {
            const real *z = batch.buffer(READ) + t * values;
            real *unit = batch.buffer(UNIT) + t * values, *out = y + (first + t) * (long long)values;
            if (normed) standardise(z, unit, values);
            for (int j = threadIdx.x % 32; j < values; j += 32)
                out[j] = normed ? batch.q[t * keys + j] + gamma[j] * unit[j] + beta[j] : z[j];
        });
        write(tiles, batch, gates, next, next + entries);
    }
}
