// The threads of a grid as fibers in one thread of the host. A fiber runs until it meets others (a barrier, a shuffle, a
// vote) or waits for another block (__nanosleep); only there does another one take over. Which one, `schedule.cuh` draws.
#pragma once
#include <algorithm>
#include <cfenv>
#include <csetjmp>
#include <cstdio>
#include <queue>
#include <source_location>
#include <ucontext.h>
#include <vector>
#include "language.cuh"
#include "memory.cuh"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

constexpr size_t STACK = 1 << 17;
constexpr int PATIENCE = 1000000;  // rests without a step forward before a grid counts as stuck

struct Context {
    ucontext_t whole;
    jmp_buf place;
    bool runs = false;
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
    std::vector<std::pair<uint4 *, const uint4 *>> copies;  // to shared memory, which it has yet to wait for
};

// The draws of a schedule: alike on every machine, whatever its library. Steele et al. 2014 (SplitMix64).
struct Draw {
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

struct Meeting {  // of all lanes of a warp, in one call
    unsigned arrived = 0;
    const char *call = nullptr;
    int round = 0;
    alignas(16) unsigned char values[2][32][24];
};

struct Block {
    uint3 index;
    std::vector<Fiber *> threads;
    std::vector<Meeting> warps;
    std::priority_queue<std::pair<long, Fiber *>> ready;
    std::vector<Fiber *> waiting;  // at the barrier
    int line = 0;                  // where that barrier is
    size_t running;
    std::vector<uint32_t> shared;  // static shared memory, while another block runs
    Guarded dynamic;
    Block(size_t threads, size_t bytes)
        : warps(threads / 32), running(threads), shared(shared_size() / 4), dynamic(bytes) {
        poison(shared.data(), shared_size());
    }
};

struct Grid {
    Draw draw;
    int kind = 0;  // 0: a warp at a time, 1: in turn, 2: at random, 3: by rank
    long clock = 0, rests = 0;
    int raised = 0;       // floating-point exceptions
    bool change = false;  // another block should run
    size_t threads = 0, dynamic = 0;
    int without = 0;  // the line of a barrier that is passed over, to see what it is for
    void (*body)(void *) = nullptr;
    void *arguments = nullptr;
    Block *current = nullptr;
    Fiber *fiber = nullptr;
    Context scheduler;
    void *sanitizer = nullptr;
    const void *stack = nullptr;
    size_t stack_size = 0;
};

static Grid *grid;
static std::vector<Fiber *> spare;  // with their stacks, from one launch to the next

inline void *dynamic_shared() { return grid->current->dynamic.data; }

// From one stack to another: by ucontext into a new one, and between those that run by jumps, which ask no system call.
// The sanitizer is told whose stack comes next; `keep` is where it notes the one that is left, if it will be back.
static __noinline__ void switch_to(Context &from, Context &to, void **keep, const void *stack, size_t size) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(keep, stack, size);
    swapcontext(&from.whole, &to.whole);
    __sanitizer_finish_switch_fiber(keep ? *keep : nullptr, nullptr, nullptr);
#else
    (void)keep, (void)stack, (void)size;
    from.runs = true;
    if (_setjmp(from.place)) return;
    if (to.runs) _longjmp(to.place, 1);
    setcontext(&to.whole);
#endif
}

inline void pause() {  // back to the scheduler
    Fiber *self = grid->fiber;
    grid->raised |= std::fetestexcept(FE_INVALID);  // each context has flags of its own
    switch_to(self->context, grid->scheduler, self->done ? nullptr : &self->sanitizer, grid->stack, grid->stack_size);
}

[[noreturn]] inline void fail(const char *format, auto... values) {
    snprintf(message, sizeof message, format, values...);
    grid->fiber->done = true;  // this fiber is never resumed
    pause();
    __builtin_unreachable();
}

inline void wake(Fiber *f) {
    long key = grid->kind == 1 ? -grid->clock++ : grid->kind == 2 ? long(grid->draw() >> 2) : f->rank;
    f->block->ready.push({key, f});
}

inline void rest() {  // somebody else first: this thread waits for another block
    if (++grid->rests > PATIENCE) fail("the grid is stuck: threads wait for a block that does not come");
    grid->change = true;
    // In kinds 2 and 3 anywhere, and now and then so late that even the thread of lowest rank comes between.
    long key = std::numeric_limits<long>::min() / 2 - grid->clock++;
    if (grid->kind >= 2) key = long(grid->draw() >> (grid->draw() % 256 ? 2 : 40));
    grid->fiber->block->ready.push({key, grid->fiber});
    pause();
}

// All lanes of a warp meet, each with a value; afterwards each may read those of the others.
template <class T> const T *meet(const char *call, unsigned mask, T value) {
    static_assert(sizeof(T) <= 24);
    Fiber *self = grid->fiber;
    Block *block = self->block;
    Meeting &meeting = block->warps[self->warp];
    if (mask != 0xffffffffu) fail("%s: mask %08x, expected all 32 lanes", call, mask);
    if (meeting.arrived && strcmp(meeting.call, call))
        fail("thread %d is in %s, others of its warp in %s", self->warp * 32 + self->lane, call, meeting.call);
    int round = meeting.round;
    auto *values = reinterpret_cast<T *>(meeting.values[round & 1]);
    memcpy(&values[self->lane], &value, sizeof value);
    meeting.call = call;
    meeting.arrived |= 1u << self->lane;
    if (meeting.arrived == mask) {
        meeting.arrived = 0;
        meeting.round++;
        for (int lane = 0; lane < 32; lane++) wake(block->threads[self->warp * 32 + lane]);
    }
    pause();
    return values;
}

// All threads of a block meet, at one place in the source.
inline void barrier(int line) {
    if (line == grid->without) return;
    Block *block = grid->fiber->block;
    if (block->waiting.size() && block->line != line)
        fail("threads of a block wait at different barriers, lines %d and %d", block->line, line);
    if (block->running < block->threads.size()) fail("line %d: a thread waits for those that have ended", line);
    block->line = line;
    block->waiting.push_back(grid->fiber);
    if (block->waiting.size() == block->running) {
        for (Fiber *f : block->waiting) wake(f);
        block->waiting.clear();
    }
    pause();
}

inline void enter() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &grid->stack, &grid->stack_size);
#endif
    grid->body(grid->arguments);
    Fiber *self = grid->fiber;
    if (self->copies.size()) fail("a thread ends that has not waited for what it copies");
    self->done = true;
    self->block->running--;
    if (self->block->waiting.size()) fail("line %d: a thread has ended, others wait for it", self->block->line);
    pause();
}

}  // namespace emulator
