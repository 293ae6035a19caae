// Where threads meet: CUDA's barriers, shuffles, votes and atomic operations, between fibers.
#pragma once
#include "fibers.cuh"

inline void __syncthreads(std::source_location here = std::source_location::current()) {
    emulator::barrier(int(here.line()));
}
inline void __syncwarp(unsigned mask = 0xffffffffu, std::source_location here = std::source_location::current()) {
    if (int(here.line()) != emulator::grid->without) emulator::meet("__syncwarp", mask, 0);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { emulator::rest(); }

template <class T> T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
    int lane = emulator::grid->fiber->lane;
    return emulator::meet("__shfl_sync", mask, x)[(lane & ~(width - 1)) | (from & (width - 1))];
}
template <class T> T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
    int lane = emulator::grid->fiber->lane;
    return emulator::meet("__shfl_up_sync", mask, x)[(lane & (width - 1)) < int(by) ? lane : lane - int(by)];
}
template <class T> T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
    int lane = emulator::grid->fiber->lane;
    return emulator::meet("__shfl_down_sync", mask, x)[(lane & (width - 1)) + int(by) >= width ? lane : lane + int(by)];
}
template <class T> T __shfl_xor_sync(unsigned mask, T x, int with, int = 32) {
    int lane = emulator::grid->fiber->lane;
    return emulator::meet("__shfl_xor_sync", mask, x)[lane ^ with];
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
    const int *votes = emulator::meet("__ballot_sync", mask, yes);
    unsigned all = 0;
    for (int lane = 0; lane < 32; lane++) all |= unsigned(votes[lane] != 0) << lane;
    return all;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) == 0xffffffffu; }

// Fibers are one thread of the host: nothing comes between reading and writing.
template <class T> T atomicAdd(T *place, std::type_identity_t<T> x) { T old = *place; *place = old + x; return old; }
template <class T> T atomicMax(T *place, std::type_identity_t<T> x) { T old = *place; *place = std::max(old, x); return old; }
template <class T> T atomicMin(T *place, std::type_identity_t<T> x) { T old = *place; *place = std::min(old, x); return old; }
template <class T> T atomicExch(T *place, std::type_identity_t<T> x) { T old = *place; *place = x; return old; }
template <class T> T atomicCAS(T *place, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
    T old = *place;
    if (old == expected) *place = x;
    return old;
}
