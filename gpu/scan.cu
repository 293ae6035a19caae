// The linear recurrence along time, real or complex, in a single pass over memory, and its adjoint.
//
//     hₜ = aₜ hₜ₋₁ + xₜ,  h₋₁ = 0                                                 Blelloch 1990, section 1.4
//     λₜ = gₜ + conj(aₜ₊₁) λₜ₊₁      dx = λ      da = λ conj(hₜ₋₁)                backward: the same scan from the end
//
// One step is the map h → a h + x, and the maps (a₂, x₂) ∘ (a₁, x₁) = (a₂ a₁, a₂ x₁ + x₂) compose in any grouping.
//
// Arrays are (rows, time, channels), channels next to each other. A line is a row's strip of `width` ≤ 32 channels.
// A block owns a tile, STEPS · 256 numbers: 256 · STEPS / width tokens of a line. It takes its tile by a ticket, all
//         lines' first tiles before the second ones, so that every tile it waits for is already somebody's.
// A thread owns STEPS tokens of one channel: it folds their maps into one, and later walks through them.
// A warp composes its threads' maps by shuffles; the block composes its warps' in shared memory.
// Between tiles (decoupled look-back, Merrill and Garland 2016): a block tells its tile's map as soon as it has it, looks
//         back to the nearest tile whose last state is known, and takes that state through the maps since, in order.
//         Whoever is found, the same products are added in the same order: the result never depends on timing.
//
// Bytes   forward reads a, x and writes h: 3 numbers a step. Backward reads a, h, g and writes da, dx: 5.
// Work    3 fused multiply-adds a step forward (complex: 12), 4 backward.
// Floor   memory: 12 bytes a float32 step, at 3 operations: bandwidth decides on every device there is.
#include "common.cuh"

#ifdef COMPLEX
typedef Complex Number;
#else
typedef real Number;
#endif

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int STEPS = 32 / sizeof(Number);  // as many bytes of every number type
constexpr int TILE = THREADS * STEPS;
enum Known { NOTHING, MAP, STATE };  // of a tile, to the tiles after it

struct Map {
    Number a, x;
};

struct Shared {
    Number a[TILE + TILE / 32], x[TILE + TILE / 32];  // a gap every 32, for lanes STEPS apart to meet different banks
    Map warps[WARPS][32];
    Number carry[32];
    int ticket;
};

// Of a call: sizes, and what blocks tell each other.
struct Lines {
    int length, channels, shift;  // width = 1 << shift
    int lines, tiles;
    Number *told;  // (lines, tiles, 3, width): a and x of a tile's map, and its last state
    int *known;    // (lines, tiles), and behind them the ticket
};

__device__ inline int place(int i) { return i + i / 32; }

__device__ inline real step(real a, real h, real x) { return fma(a, h, x); }
__device__ inline Complex step(Complex a, Complex h, Complex x) {
    return {fma(a.re, h.re, fma(-a.im, h.im, x.re)), fma(a.re, h.im, fma(a.im, h.re, x.im))};
}
__device__ inline Map compose(Map later, Map earlier) {
    return {later.a * earlier.a, step(later.a, earlier.x, later.x)};
}

// Past the first-level cache, which does not see what other blocks write.
__device__ inline real fresh(const real *place) { return *static_cast<const volatile real *>(place); }
__device__ inline Complex fresh(const Complex *place) { return {fresh(&place->re), fresh(&place->im)}; }

// What the earlier threads of this channel do; `total` is what all of the block do.
__device__ inline Map before(Map own, Shared &shared, int width, Map &total) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = lane % width;
    for (int by = width; by < 32; by *= 2) {
        Map earlier = {from_earlier(own.a, by), from_earlier(own.x, by)};
        if (lane >= by) own = compose(own, earlier);
    }
    if (lane >= 32 - width) shared.warps[warp][channel] = own;
    Map inside = {from_earlier(own.a, width), from_earlier(own.x, width)};
    __syncthreads();
    Map outside = {Constants<Number>::one(), Constants<Number>::zero()};
    total = outside;
    for (int w = 0; w < WARPS; w++) {
        if (w == warp) outside = total;
        total = w ? compose(shared.warps[w][channel], total) : shared.warps[w][channel];
    }
    return lane < width ? outside : warp ? compose(inside, outside) : inside;
}

// The state at the start of a tile, by one warp: each lane below `width` returns its channel's.
__device__ inline Number state_before(int line, int tile, Map total, const Lines &of) {
    int lane = threadIdx.x % 32, width = 1 << of.shift, channel = lane % width;
    Number *told = of.told + (long long)line * of.tiles * 3 * width + channel;
    int *known = of.known + (long long)line * of.tiles;
    Number *mine = told + (long long)tile * 3 * width;
    if (lane < width) mine[0] = total.a, mine[width] = total.x;
    __threadfence();
    __syncwarp();
    Number h = Constants<Number>::zero();
    if (tile) {
        if (lane == 0) atomicExch(&known[tile], MAP);
        int nearest = tile - 1;
        for (;;) {
            int at = nearest - lane;
            int found = at < 0 ? MAP : *static_cast<volatile int *>(&known[at]);
            unsigned states = __ballot_sync(ALL, found == STATE), nothing = __ballot_sync(ALL, found == NOTHING);
            int back = __ffs(states) - 1;
            if (states && !(nothing & ((1u << back) - 1))) {
                nearest -= back;
                break;
            }
            if (!states && !nothing) nearest -= 32;
            else __nanosleep(20);
        }
        __threadfence();
        if (lane < width) {
            const Number *from = told + (long long)nearest * 3 * width;
            h = fresh(&from[2 * width]);
            for (from += 3 * width; from < mine; from += 3 * width) h = step(fresh(&from[0]), h, fresh(&from[width]));
        }
    }
    if (lane < width) mine[2 * width] = step(total.a, h, total.x);
    __threadfence();
    __syncwarp();
    if (lane == 0) atomicExch(&known[tile], STATE);
    return h;
}

// The tile this block takes: read(offset, t) gives the map at time t, write(offset, t, h) takes the state.
template <class Read, class Write> __device__ inline void scan(Shared &shared, const Lines &of, Read read, Write write) {
    if (threadIdx.x == 0) shared.ticket = atomicAdd(&of.known[(long long)of.lines * of.tiles], 1);
    __syncthreads();
    int line = shared.ticket % of.lines, tile = shared.ticket / of.lines;
    int width = 1 << of.shift, strips = (of.channels + width - 1) >> of.shift;
    int row = line / strips, first = line % strips * width, start = tile * (TILE >> of.shift);

    for (int i = threadIdx.x; i < TILE; i += THREADS) {
        int t = start + (i >> of.shift), channel = first + i % width;
        Map map = {Constants<Number>::one(), Constants<Number>::zero()};  // outside, nothing happens
        if (t < of.length && channel < of.channels) map = read((long long)row * of.length * of.channels + channel, t);
        shared.a[place(i)] = map.a, shared.x[place(i)] = map.x;
    }
    __syncthreads();

    int own = threadIdx.x / width * STEPS * width + threadIdx.x % width;  // this thread's first token
    Map folded = {shared.a[place(own)], shared.x[place(own)]};
#pragma unroll
    for (int i = 1; i < STEPS; i++) {
        int at = place(own + i * width);
        folded = compose({shared.a[at], shared.x[at]}, folded);
    }
    Map total, earlier = before(folded, shared, width, total);
    if (threadIdx.x < 32) {
        Number h = state_before(line, tile, total, of);
        if (threadIdx.x < width) shared.carry[threadIdx.x] = h;
    }
    __syncthreads();

    Number h = step(earlier.a, shared.carry[threadIdx.x % width], earlier.x);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        int at = place(own + i * width);
        h = step(shared.a[at], h, shared.x[at]);
        shared.x[at] = h;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
        int t = start + (i >> of.shift), channel = first + i % width;
        if (t < of.length && channel < of.channels)
            write((long long)row * of.length * of.channels + channel, t, shared.x[place(i)]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
scan_forward(const Number *__restrict__ a, const Number *__restrict__ x, Number *__restrict__ h, Number *told, int *known,
             int length, int channels, int shift, int lines, int tiles, int back) {
    __shared__ Shared shared;
    long long stride = channels, begin = back ? (length - 1) * stride : 0;  // `back`: from the last token to the first
    if (back) stride = -stride;
    scan(
        shared, {length, channels, shift, lines, tiles, told, known},
        [=](long long at, int t) -> Map { return {a[at + begin + t * stride], x[at + begin + t * stride]}; },
        [=](long long at, int t, Number state) { h[at + begin + t * stride] = state; });
}

extern "C" __global__ void __launch_bounds__(THREADS)
scan_backward(const Number *__restrict__ a, const Number *__restrict__ h, const Number *__restrict__ g,
              Number *__restrict__ da, Number *__restrict__ dx, Number *told, int *known,
              int length, int channels, int shift, int lines, int tiles) {
    __shared__ Shared shared;
    long long stride = channels;
    scan(
        shared, {length, channels, shift, lines, tiles, told, known},
        [=](long long at, int back) -> Map {
            at += (length - 1 - back) * stride;
            return {back ? conj(a[at + stride]) : Constants<Number>::zero(), g[at]};
        },
        [=](long long at, int back, Number lambda) {
            at += (length - 1 - back) * stride;
            dx[at] = lambda;
            da[at] = back < length - 1 ? lambda * conj(h[at - stride]) : Constants<Number>::zero();
        });
}
