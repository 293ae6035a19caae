// The scheduler. A seed determines the schedule: in which order blocks, warps and lanes run.
//
// One of four policies is drawn: one warp as far as it gets before the next, round robin, at random, or by a rank drawn
// for each thread, so that some threads are always late (Burckhardt et al. 2010). Up to four blocks are resident at a
// time, and they start in a random order.
#pragma once
#include "fibers.hpp"

namespace emulator {

static std::vector<int> permutation(int count) {
    std::vector<int> order(count);
    for (int i = 0; i < count; i++) order[i] = i;
    grid->random.shuffle(order);
    return order;
}

static __noinline__ void prepare(Fiber *f) {  // not inlined: to the compiler, getcontext may return twice
    ucontext_t &context = f->context.ucontext;
    getcontext(&context);
    context.uc_stack.ss_sp = f->stack, context.uc_stack.ss_size = STACK, context.uc_link = nullptr;
    makecontext(&context, run_fiber, 0);
    f->context.started = false;
}

static Block *start(uint3 index) {
    auto *block = new Block(grid->threads, grid->dynamic);
    block->index = index;
    std::vector<int> warps = permutation(int(grid->threads / 32)), lanes;
    for (unsigned i = 0; i < grid->threads; i++) {
        if (i % 32 == 0) lanes = permutation(32);
        if (free_fibers.empty()) free_fibers.push_back(new Fiber);
        Fiber *f = free_fibers.back();
        free_fibers.pop_back();
        unsigned x = blockDim.x, y = blockDim.y;
        f->index = {i % x, i / x % y, i / x / y};
        f->block = block, f->warp = int(i / 32), f->lane = int(i % 32), f->done = false, f->sanitizer = nullptr;
        f->rank = grid->policy == BY_RANK ? long(grid->random() >> 2) : warps[f->warp] * 32 + lanes[f->lane];
        f->copies.clear();
        prepare(f);
        block->threads.push_back(f);
    }
    for (int i : permutation(int(grid->threads))) make_ready(block->threads[i]);
    return block;
}

static void resume(Fiber *f) {
    if (grid->current != f->block) {  // static shared memory belongs to one block at a time
        if (grid->current) copy_shared(grid->current->shared.data(), false);
        copy_shared(f->block->shared.data(), true);
        grid->current = f->block;
    }
    grid->fiber = f;
    threadIdx = f->index, blockIdx = f->block->index;
    switch_to(grid->scheduler, f->context, &grid->sanitizer, f->stack, STACK);
}

static void describe_deadlock(const Block &block) {
    for (const Exchange &warp : block.warps)
        if (warp.arrived) {
            snprintf(message, sizeof message, "%s: lanes %08x of a warp wait for the others", warp.call, warp.arrived);
            return;
        }
    snprintf(message, sizeof message, "line %d: %zu of %zu threads wait at a barrier", block.line, block.waiting.size(),
             block.threads.size());
}

// Return the resident block whose next fiber has the highest rank; a block without one first, as it has ended or hangs.
static size_t highest_ranked(const std::vector<Block *> &resident) {
    size_t best = 0;
    for (size_t i = 0; i < resident.size(); i++) {
        if (resident[i]->ready.empty()) return i;
        if (resident[i]->ready.top().first > resident[best]->ready.top().first) best = i;
    }
    return best;
}

// Run the grid; an error is left in `message`.
static void run(const Launch &launch, void (*body)(void *const *), void *const *arguments) {
    Grid state;
    grid = &state;
    state.random.state = launch.seed, state.skipped_barrier = launch.skipped_barrier;
    state.policy = int(state.random() % 4);
    size_t most_resident = 1 + state.random() % 4;
    state.threads = size_t(blockDim.x) * blockDim.y * blockDim.z, state.dynamic = launch.dynamic;
    state.body = body, state.arguments = arguments;
    std::vector<uint3> pending;
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x; x++) pending.push_back({x, y, z});
    state.random.shuffle(pending);
    std::vector<Block *> resident;
    size_t chosen = 0;
    while (!message[0] && (resident.size() || pending.size())) {
        while (resident.size() < most_resident && pending.size())
            resident.push_back(start(pending.back())), pending.pop_back();
        if (state.policy == RANDOM && state.random() % 8 == 0) state.switch_block = true;
        if (state.policy == BY_RANK) chosen = highest_ranked(resident), state.switch_block = false;
        if (state.switch_block) chosen = state.random() % resident.size(), state.switch_block = false;
        chosen = std::min(chosen, resident.size() - 1);
        Block *block = resident[chosen];
        if (block->ready.empty()) {
            if (block->running) {
                describe_deadlock(*block);
                break;
            }
            free_fibers.insert(free_fibers.end(), block->threads.begin(), block->threads.end());
            if (state.current == block) state.current = nullptr;
            if (!block->dynamic.margins_intact())
                snprintf(message, sizeof message, "dynamic shared memory: written outside");
            delete block;
            resident.erase(resident.begin() + long(chosen));
            state.switch_block = true, state.idle_yields = 0;
            if (resident.empty()) chosen = 0, state.switch_block = false;
            continue;
        }
        Fiber *f = block->ready.top().second;
        block->ready.pop();
        resume(f);
    }
    if (!message[0] && state.exceptions)
        snprintf(message, sizeof message, "an invalid operation: on what was never written, or ∞ − ∞, 0 · ∞");
}

}  // namespace emulator
