// Who runs next is drawn: a seed is a schedule, and the same seed is the same schedule.
//
// Four kinds are drawn from: one warp as far as it can go before the next, all in turn, anyone at random, and everyone by
// a rank of their own, so that some threads are always late (Burckhardt et al. 2010). A few blocks are in flight at a
// time; they start in an order that is drawn too.
#pragma once
#include "fibers.cuh"

namespace emulator {

inline std::vector<int> shuffled(int count) {
    std::vector<int> order(count);
    for (int i = 0; i < count; i++) order[i] = i;
    grid->draw.shuffle(order);
    return order;
}

static __noinline__ void prepare(Fiber *f) {  // apart: getcontext may return twice, as far as the compiler knows
    ucontext_t &whole = f->context.whole;
    getcontext(&whole);
    whole.uc_stack.ss_sp = f->stack, whole.uc_stack.ss_size = STACK, whole.uc_link = nullptr;
    makecontext(&whole, enter, 0);
    f->context.runs = false;
}

inline Block *start(uint3 index) {
    auto *block = new Block(grid->threads, grid->dynamic);
    block->index = index;
    std::vector<int> warps = shuffled(int(grid->threads / 32)), lanes;
    for (unsigned i = 0; i < grid->threads; i++) {
        if (i % 32 == 0) lanes = shuffled(32);
        if (spare.empty()) spare.push_back(new Fiber);
        Fiber *f = spare.back();
        spare.pop_back();
        unsigned x = blockDim.x, y = blockDim.y;
        f->index = {i % x, i / x % y, i / x / y};
        f->block = block, f->warp = int(i / 32), f->lane = int(i % 32), f->done = false, f->sanitizer = nullptr;
        f->rank = grid->kind == 3 ? long(grid->draw() >> 2) : warps[f->warp] * 32 + lanes[f->lane];
        f->copies.clear();
        prepare(f);
        block->threads.push_back(f);
    }
    for (int i : shuffled(int(grid->threads))) wake(block->threads[i]);
    return block;
}

inline void resume(Fiber *f) {
    if (grid->current != f->block) {  // static shared memory belongs to one block at a time
        if (grid->current) copy_shared(grid->current->shared.data(), false);
        copy_shared(f->block->shared.data(), true);
        grid->current = f->block;
    }
    grid->fiber = f;
    threadIdx = f->index, blockIdx = f->block->index;
    switch_to(grid->scheduler, f->context, &grid->sanitizer, f->stack, STACK);
}

inline void stuck(const Block &block) {
    for (const Meeting &m : block.warps)
        if (m.arrived) {
            snprintf(message, sizeof message, "%s: lanes %08x of a warp wait for the others", m.call, m.arrived);
            return;
        }
    snprintf(message, sizeof message, "line %d: %zu of %zu threads wait at a barrier", block.line, block.waiting.size(),
             block.threads.size());
}

// The block with the thread of highest rank among those that can run.
inline size_t foremost(const std::vector<Block *> &flying) {
    size_t best = 0;
    for (size_t i = 0; i < flying.size(); i++) {
        if (flying[i]->ready.empty()) return i;  // which has ended, or hangs
        if (flying[i]->ready.top().first > flying[best]->ready.top().first) best = i;
    }
    return best;
}

// Run the grid; what went wrong is in `message`.
inline void run(uint64_t seed, int without, dim3 blocks, size_t dynamic, void (*body)(void *), void *arguments) {
    Grid state;
    grid = &state;
    state.draw.state = seed, state.without = without;
    state.kind = int(state.draw() % 4);
    size_t at_once = 1 + state.draw() % 4;
    state.threads = size_t(blockDim.x) * blockDim.y * blockDim.z, state.dynamic = dynamic;
    state.body = body, state.arguments = arguments;
    std::vector<uint3> coming;
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++) coming.push_back({x, y, z});
    state.draw.shuffle(coming);
    std::vector<Block *> flying;
    size_t chosen = 0;
    while (!message[0] && (flying.size() || coming.size())) {
        while (flying.size() < at_once && coming.size()) flying.push_back(start(coming.back())), coming.pop_back();
        if (state.kind == 2 && state.draw() % 8 == 0) state.change = true;
        if (state.kind == 3) chosen = foremost(flying), state.change = false;
        if (state.change) chosen = state.draw() % flying.size(), state.change = false;
        chosen = std::min(chosen, flying.size() - 1);
        Block *block = flying[chosen];
        if (block->ready.empty()) {
            if (block->running) {
                stuck(*block);
                break;
            }
            spare.insert(spare.end(), block->threads.begin(), block->threads.end());
            if (state.current == block) state.current = nullptr;
            if (!block->dynamic.intact()) snprintf(message, sizeof message, "dynamic shared memory: written outside");
            delete block;
            flying.erase(flying.begin() + long(chosen));
            state.change = true, state.rests = 0;
            if (flying.empty()) chosen = 0, state.change = false;
            continue;
        }
        Fiber *f = block->ready.top().second;
        block->ready.pop();
        resume(f);
    }
    if (!message[0] && state.raised)
        snprintf(message, sizeof message, "an invalid operation: on what was never written, or ∞ − ∞, 0 · ∞");
}

}  // namespace emulator
