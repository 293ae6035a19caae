// The threads of a grid as fibers in one host thread. A fiber runs until it waits for others at a barrier, shuffle or
// vote, or yields to other blocks (__nanosleep); only there does another fiber take over. `schedule.hpp` draws which
// one.
#pragma once
#include <algorithm>
#include <cfenv>
#include <csetjmp>
#include <cstdio>
#include <limits>
#include <queue>
#include <ucontext.h>
#include <vector>
#include "memory.hpp"
#include "runtime.cuh"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

constexpr size_t STACK = 1 << 17;
constexpr int MAX_IDLE_YIELDS = 1000000;  // yields without progress before a grid counts as stuck

struct Context {
    ucontext_t ucontext;
    jmp_buf resume_point;
    bool started = false;
};

struct Fiber {
    Context context;
    void *sanitizer = nullptr;
    char *stack = new char[STACK];
    uint3 index;
    struct Block *block;
    int warp, lane;
    long rank;
    bool done;
    std::vector<std::pair<uint4 *, const uint4 *>> copies;  // to shared memory, not yet waited for
};

// The random numbers of a schedule, the same on every platform: SplitMix64 (Steele et al. 2014).
struct Random {
    uint64_t state = 0;
    uint64_t operator()() {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    template <class T> void shuffle(std::vector<T> &of) {
        for (size_t i = of.size(); i > 1; i--) std::swap(of[i - 1], of[(*this)() % i]);
    }
};

struct Exchange {  // of values between the lanes of a warp, in one call
    unsigned arrived = 0;
    const char *call = nullptr;
    int round = 0;
    alignas(16) unsigned char values[2][32][24];
};

struct Block {
    uint3 index;
    std::vector<Fiber *> threads;
    std::vector<Exchange> warps;
    std::priority_queue<std::pair<long, Fiber *>> ready;
    std::vector<Fiber *> waiting;  // at the barrier
    int line = 0;                  // of that barrier
    size_t running;
    std::vector<uint32_t> shared;  // static shared memory, while another block runs
    Guarded dynamic;
    Block(size_t threads, size_t bytes)
        : warps(threads / 32), running(threads), shared(shared_size() / 4), dynamic(bytes) {
        poison(shared.data(), shared_size());
    }
};

enum Policy { WARP_BY_WARP, ROUND_ROBIN, RANDOM, BY_RANK };

struct Grid {
    Random random;
    int policy = WARP_BY_WARP;
    long clock = 0, idle_yields = 0;
    int exceptions = 0;         // of floating-point arithmetic
    bool switch_block = false;  // before the next fiber is resumed
    size_t threads = 0, dynamic = 0;
    int skipped_barrier = 0;  // its source line
    void (*body)(void *const *) = nullptr;
    void *const *arguments = nullptr;
    Block *current = nullptr;
    Fiber *fiber = nullptr;
    Context scheduler;
    void *sanitizer = nullptr;
    const void *stack = nullptr;
    size_t stack_size = 0;
};

static Grid *grid;
static std::vector<Fiber *> free_fibers;  // with their stacks, reused by later blocks and launches

// Switch stacks: by ucontext to a new fiber, and by jumps, which make no system call, to one that has started.
// The sanitizer is told which stack comes next; `keep` is where it stores the old one, unless that fiber has ended.
static __noinline__ void switch_to(Context &from, Context &to, void **keep, const void *stack, size_t size) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(keep, stack, size);
    swapcontext(&from.ucontext, &to.ucontext);
    __sanitizer_finish_switch_fiber(keep ? *keep : nullptr, nullptr, nullptr);
#else
    (void)keep, (void)stack, (void)size;
    from.started = true;
    if (_setjmp(from.resume_point)) return;
    if (to.started) _longjmp(to.resume_point, 1);
    setcontext(&to.ucontext);
#endif
}

static void suspend() {  // back to the scheduler
    Fiber *self = grid->fiber;
    grid->exceptions |= std::fetestexcept(FE_INVALID);  // each context has flags of its own
    switch_to(self->context, grid->scheduler, self->done ? nullptr : &self->sanitizer, grid->stack, grid->stack_size);
}

[[noreturn]] static void fail(const char *format, auto... values) {
    snprintf(message, sizeof message, format, values...);
    grid->fiber->done = true;  // this fiber is never resumed
    suspend();
    __builtin_unreachable();
}

static void make_ready(Fiber *f) {
    long key = grid->policy == ROUND_ROBIN ? -grid->clock++ : grid->policy == RANDOM
        ? long(grid->random() >> 2) : f->rank;
    f->block->ready.push({key, f});
}

int lane() { return grid->fiber->lane; }

void *dynamic_shared() { return grid->current->dynamic.data; }

void yield_to_other_blocks() {
    if (++grid->idle_yields > MAX_IDLE_YIELDS) fail("the grid is stuck: threads wait for a block that does not come");
    grid->switch_block = true;
    // By the last two policies at a random place, and now and then so late that even the lowest rank comes before.
    long key = std::numeric_limits<long>::min() / 2 - grid->clock++;
    if (grid->policy >= RANDOM) key = long(grid->random() >> (grid->random() % 256 ? 2 : 40));
    grid->fiber->block->ready.push({key, grid->fiber});
    suspend();
}

const void *exchange(const char *call, unsigned mask, const void *value, size_t size) {
    Fiber *self = grid->fiber;
    Block *block = self->block;
    Exchange &warp = block->warps[self->warp];
    if (mask != 0xffffffffu) fail("%s: mask %08x, expected all 32 lanes", call, mask);
    if (warp.arrived && strcmp(warp.call, call))
        fail("thread %d is in %s, others of its warp in %s", self->warp * 32 + self->lane, call, warp.call);
    unsigned char *values = warp.values[warp.round & 1][0];
    memcpy(values + size_t(self->lane) * size, value, size);
    warp.call = call;
    warp.arrived |= 1u << self->lane;
    if (warp.arrived == mask) {
        warp.arrived = 0;
        warp.round++;
        for (int lane = 0; lane < 32; lane++) make_ready(block->threads[self->warp * 32 + lane]);
    }
    suspend();
    return values;
}

void syncwarp(unsigned mask, int line) {
    int none = 0;
    if (line != grid->skipped_barrier) exchange("__syncwarp", mask, &none, sizeof none);
}

void syncthreads(int line) {
    if (line == grid->skipped_barrier) return;
    Block *block = grid->fiber->block;
    if (block->waiting.size() && block->line != line)
        fail("threads of a block wait at different barriers, lines %d and %d", block->line, line);
    if (block->running < block->threads.size()) fail("line %d: a thread waits for those that have ended", line);
    block->line = line;
    block->waiting.push_back(grid->fiber);
    if (block->waiting.size() == block->running) {
        for (Fiber *f : block->waiting) make_ready(f);
        block->waiting.clear();
    }
    suspend();
}

void copy_async(uint4 *to, const uint4 *from) { grid->fiber->copies.push_back({to, from}); }

void copy_wait() {
    for (auto [to, from] : grid->fiber->copies) *to = from ? *from : uint4{};
    grid->fiber->copies.clear();
}

static void run_fiber() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &grid->stack, &grid->stack_size);
#endif
    grid->body(grid->arguments);
    Fiber *self = grid->fiber;
    if (self->copies.size()) fail("a thread ends without waiting for its asynchronous copies");
    self->done = true;
    self->block->running--;
    if (self->block->waiting.size()) fail("line %d: a thread has ended, others wait for it", self->block->line);
    suspend();
}

}  // namespace emulator
