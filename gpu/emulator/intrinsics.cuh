// CUDA's barriers, shuffles, votes and atomic operations.
#pragma once
#include <source_location>
#include "runtime.cuh"

inline void __syncthreads(std::source_location here = std::source_location::current()) {
    emulator::syncthreads(int(here.line()));
}
inline void __syncwarp(unsigned mask = 0xffffffffu, std::source_location here = std::source_location::current()) {
    emulator::syncwarp(mask, int(here.line()));
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { emulator::yield_to_other_blocks(); }

template <class T> T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
    int lane = emulator::lane();
    return emulator::warp_exchange("__shfl_sync", mask, x)[(lane & ~(width - 1)) | (from & (width - 1))];
}
template <class T> T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
    int lane = emulator::lane();
    return emulator::warp_exchange("__shfl_up_sync", mask, x)[(lane & (width - 1)) < int(by) ? lane : lane - int(by)];
}
template <class T> T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
    int lane = emulator::lane();
    return emulator::warp_exchange("__shfl_down_sync", mask,
                                   x)[(lane & (width - 1)) + int(by) >= width ? lane : lane + int(by)];
}
template <class T> T __shfl_xor_sync(unsigned mask, T x, int bits, int = 32) {
    int lane = emulator::lane();
    return emulator::warp_exchange("__shfl_xor_sync", mask, x)[lane ^ bits];
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
    const int *votes = emulator::warp_exchange("__ballot_sync", mask, vote);
    unsigned all = 0;
    for (int lane = 0; lane < 32; lane++) all |= unsigned(votes[lane] != 0) << lane;
    return all;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) == 0xffffffffu; }

// All fibers run in one host thread, so a read-modify-write needs no lock.
template <class T> T atomicAdd(T *place, std::type_identity_t<T> x) { T old = *place; *place = old + x; return old; }
template <class T> T atomicMax(T *place, std::type_identity_t<T> x) {
    T old = *place;
    *place = old < x ? x : old;
    return old;
}
template <class T> T atomicMin(T *place, std::type_identity_t<T> x) {
    T old = *place;
    *place = x < old ? x : old;
    return old;
}
template <class T> T atomicExch(T *place, std::type_identity_t<T> x) { T old = *place; *place = x; return old; }
template <class T> T atomicCAS(T *place, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
    T old = *place;
    if (old == expected) *place = x;
    return old;
}
