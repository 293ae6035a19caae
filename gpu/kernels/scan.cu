// The linear recurrence along time, real or complex, as a single-pass parallel scan, and its adjoint.
//
//     hₜ = aₜ hₜ₋₁ + xₜ,  h₋₁ = 0                                                 Blelloch 1990, section 1.4
//     λₜ = gₜ + conj(aₜ₊₁) λₜ₊₁      dx = λ      da = λ conj(hₜ₋₁)                backward: the same scan in reverse
//
// The scan operator is the composition of affine maps h → a h + x: (a₂, x₂) ∘ (a₁, x₁) = (a₂ a₁, a₂ x₁ + x₂).
//
// Arrays are (rows, time, channels), channels contiguous. A line is WIDTH ≤ 32 neighbouring channels of a row.
// Block    a tile of STEPS · 256 elements: 256 · STEPS / WIDTH tokens of a line. Tiles are assigned by an atomic
//          counter, the first tiles of all lines before the second ones, so that every tile a block waits for is
//          already assigned.
// Thread   STEPS consecutive tokens of one channel: it reduces their maps to one, and later applies them in turn.
// Warp     a scan over the maps of its threads by shuffles; the block combines its warps in shared memory.
// Between tiles: decoupled look-back (Merrill and Garland 2016). A block publishes the aggregate of its tile, looks
// back to
//          the nearest tile with a published prefix (its last state), and applies the aggregates in between, in order.
//          Products and sums are the same wherever that tile is: the result does not depend on timing.
//
// Memory traffic   forward reads a, x and writes h: 3 elements per step. Backward reads a, h, g, writes da, dx: 5.
// FLOPs            per step 3 fused multiply-adds forward (complex: 12), 4 backward. Compiled for sm_90, a float32 step
//                  has 49 instructions forward and 70 backward, most of them for addresses.
// Bound            memory: 12 bytes per float32 step for 3 operations.
#include "common.cuh"

#ifdef COMPLEX
typedef Complex Number;
#else
typedef real Number;
#endif

#ifndef WIDTH
#define WIDTH 32  // or a smaller power of 2: -DWIDTH=16
#endif

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int STEPS = 32 / sizeof(Number);  // the same number of bytes for every type
constexpr int APART = THREADS / WIDTH, TOKENS = STEPS * APART;  // of a tile
constexpr int BLOCKS = sizeof(Number) < 16 ? 5 : 4;  // per multiprocessor: others load while one waits
enum TileStatus { INVALID, AGGREGATE, PREFIX };  // of a tile: nothing published, its aggregate, its prefix

struct Map {
    Number a, x;
};

// Offset of an element in a tile, padded after every STEPS tokens against bank conflicts.
__device__ constexpr int tile_offset(int t, int column) { return (t + t / STEPS) * WIDTH + column; }

struct Shared {
    Number a[tile_offset(TOKENS, 0)], x[tile_offset(TOKENS, 0)];
    Map warps[WARPS][WIDTH];
    Number carry[WIDTH];
    int line, tile, row, strip;
};

// Sizes, and the global memory through which blocks communicate.
struct Lines {
    int length, channels;
    int lines, tiles;
    int reverse;      // whether the scan runs from the last token to the first
    Number *partials;  // (lines, tiles, 3, WIDTH): a and x of a tile's aggregate, and its prefix
    int *status;    // (lines, tiles), followed by the counter of assigned tiles
};

__device__ inline Complex shfl(Complex x, int lane) { return {shfl(x.re, lane), shfl(x.im, lane)}; }
__device__ inline real step(real a, real h, real x) { return fma(a, h, x); }
__device__ inline Complex step(Complex a, Complex h, Complex x) {
    return {fma(a.re, h.re, fma(-a.im, h.im, x.re)), fma(a.re, h.im, fma(a.im, h.re, x.im))};
}
__device__ inline Map compose(Map later, Map earlier) {
    return {later.a * earlier.a, step(later.a, earlier.x, later.x)};
}

// Load from the L2 cache: the L1 cache does not see writes of other blocks.
__device__ inline real load_volatile(const real *address) { return *static_cast<const volatile real *>(address); }
__device__ inline Complex load_volatile(const Complex *address) {
    return {load_volatile(&address->re), load_volatile(&address->im)};
}

// Return the composition of the maps of earlier threads with this channel; `total` is that of the whole block.
__device__ inline Map exclusive_scan(Map own, Shared &shared, Map &total) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = lane % WIDTH;
    for (int by = WIDTH; by < 32; by *= 2) {
        Map earlier = {shfl_up(own.a, by), shfl_up(own.x, by)};
        if (lane >= by) own = compose(own, earlier);
    }
    if (lane >= 32 - WIDTH) shared.warps[warp][channel] = own;
    Map inside = {shfl_up(own.a, WIDTH), shfl_up(own.x, WIDTH)};
    __syncthreads();
    Map outside = {Constants<Number>::one(), Constants<Number>::zero()};
    total = outside;
    for (int w = 0; w < WARPS; w++) {
        if (w == warp) outside = total;
        total = w ? compose(shared.warps[w][channel], total) : shared.warps[w][channel];
    }
    return lane < WIDTH ? outside : warp ? compose(inside, outside) : inside;
}

// Return the state at the start of a tile, by one warp: lane l < WIDTH has that of channel l.
__device__ inline Number look_back(int line, int tile, Map total, const Lines &of) {
    int lane = threadIdx.x % 32, channel = lane % WIDTH;
    Number *partials = of.partials + (long long)line * of.tiles * 3 * WIDTH + channel;
    int *status = of.status + (long long)line * of.tiles;
    Number *own_partials = partials + (long long)tile * 3 * WIDTH;
    if (lane < WIDTH) own_partials[0] = total.a, own_partials[WIDTH] = total.x;
    __threadfence();
    __syncwarp();
    Number h = Constants<Number>::zero();
    if (tile) {
        if (lane == 0) atomicExch(&status[tile], AGGREGATE);
        int nearest = tile - 1;
        for (;;) {
            int at = nearest - lane;
            int flag = at < 0 ? AGGREGATE : *static_cast<volatile int *>(&status[at]);
            unsigned prefixes = __ballot_sync(ALL, flag == PREFIX), invalid = __ballot_sync(ALL, flag == INVALID);
            int distance = __ffs(prefixes) - 1;
            if (prefixes && !(invalid & ((1u << distance) - 1))) {
                nearest -= distance;
                break;
            }
            if (!prefixes && !invalid) nearest -= 32;
            else __nanosleep(20);
        }
        __threadfence();
        const Number *from = partials + (long long)nearest * 3 * WIDTH;
        h = load_volatile(&from[2 * WIDTH]);
        // maps per load of a warp, and loads in flight
        constexpr int MAPS_PER_LOAD = 32 / WIDTH, LOADS = STEPS / 2;
        for (from += 3 * WIDTH; from < own_partials; from += LOADS * MAPS_PER_LOAD * 3 * WIDTH) {
            Map maps[LOADS];
#pragma unroll
            for (int i = 0; i < LOADS; i++) {
                const Number *own = from + (i * MAPS_PER_LOAD + lane / WIDTH) * 3 * WIDTH;
                maps[i] = {Constants<Number>::one(), Constants<Number>::zero()};
                if (own < own_partials) maps[i] = {load_volatile(&own[0]), load_volatile(&own[WIDTH])};
            }
#pragma unroll
            for (int i = 0; i < LOADS; i++)
#pragma unroll 4
                for (int j = 0; j < MAPS_PER_LOAD && from + (i * MAPS_PER_LOAD + j) * 3 * WIDTH < own_partials; j++)
                    h = step(shfl(maps[i].a, j * WIDTH + channel), h, shfl(maps[i].x, j * WIDTH + channel));
        }
    }
    if (lane < WIDTH) own_partials[2 * WIDTH] = step(total.a, h, total.x);
    __threadfence();
    __syncwarp();
    if (lane == 0) atomicExch(&status[tile], PREFIX);
    return h;
}

// Scan the next tile. read(at, by, t) returns the map of the element at offset at + by, the t-th of its line in scan
// order, and write(at, by, t, h) stores its state.
template <class Read, class Write>
__device__ inline void scan(Shared &shared, const Lines &of, Read read, Write write) {
    if (threadIdx.x == 0) {
        int ticket = atomicAdd(&of.status[(long long)of.lines * of.tiles], 1);
        int strips = (of.channels + WIDTH - 1) / WIDTH;
        shared.line = ticket % of.lines, shared.tile = ticket / of.lines;
        shared.row = shared.line / strips, shared.strip = shared.line % strips;
    }
    __syncthreads();

    // A thread copies every APART-th token of its channel, of which `inside` exist, to shared memory and back.
    int column = threadIdx.x % WIDTH, group = threadIdx.x / WIDTH;
    int channel = shared.strip * WIDTH + column, early = shared.tile * TOKENS + group;
    int inside = channel < of.channels ? (of.length - early + APART - 1) / APART : 0;
    int loaded = tile_offset(group, column), own = tile_offset(group * STEPS, column);
    int stride = of.reverse ? -of.channels : of.channels;
    long long first = (long long)shared.row * of.length + (of.reverse ? of.length - 1 : 0);
    long long at = first * of.channels + channel + (long long)early * stride;
    Map maps[STEPS];
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        maps[i] = {Constants<Number>::one(), Constants<Number>::zero()};  // outside: the identity
        if (i < inside) maps[i] = read(at, (long long)stride * (i * APART), early + i * APART);
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        int to = loaded + i * tile_offset(APART, 0);
        shared.a[to] = maps[i].a, shared.x[to] = maps[i].x;
    }
    __syncthreads();

    Map folded = {shared.a[own], shared.x[own]};
#pragma unroll
    for (int i = 1; i < STEPS; i++) folded = compose({shared.a[own + i * WIDTH], shared.x[own + i * WIDTH]}, folded);
    Map total, earlier = exclusive_scan(folded, shared, total);
    if (threadIdx.x < 32) {
        Number h = look_back(shared.line, shared.tile, total, of);
        if (threadIdx.x < WIDTH) shared.carry[threadIdx.x] = h;
    }
    __syncthreads();

    Number h = step(earlier.a, shared.carry[column], earlier.x);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        int token = own + i * WIDTH;
        shared.x[token] = h = step(shared.a[token], h, shared.x[token]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        if (i < inside)
            write(at, (long long)stride * (i * APART), early + i * APART, shared.x[loaded + i * tile_offset(APART, 0)]);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
scan_forward(const Number *__restrict__ a, const Number *__restrict__ x, Number *__restrict__ h, Number *partials,
             int *status, int length, int channels, int lines, int tiles, int reverse) {
    __shared__ Shared shared;
    scan(
        shared, {length, channels, lines, tiles, reverse, partials, status},
        [=](long long at, long long by, int) -> Map { return {(a + at)[by], (x + at)[by]}; },
        [=](long long at, long long by, int, Number state) { (h + at)[by] = state; });
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
scan_backward(const Number *__restrict__ a, const Number *__restrict__ h, const Number *__restrict__ g,
              Number *__restrict__ da, Number *__restrict__ dx, Number *partials, int *status, int length, int channels,
              int lines, int tiles) {
    __shared__ Shared shared;
    scan(
        shared, {length, channels, lines, tiles, true, partials, status},
        [=](long long at, long long by, int t) -> Map {
            return {t ? conj((a + at + channels)[by]) : Constants<Number>::zero(), (g + at)[by]};
        },
        [=](long long at, long long by, int t, Number lambda) {
            (dx + at)[by] = lambda;
            (da + at)[by] = t < length - 1 ? lambda * conj((h + at - channels)[by]) : Constants<Number>::zero();
        });
}
