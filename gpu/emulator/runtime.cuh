// The interface of the emulator's runtime, which `runtime.cpp` implements. It is compiled once for all kernels.
#pragma once
#include <type_traits>
#include "language.cuh"

namespace emulator {

struct Argument {  // as Python passes it
    const void *data;
    size_t bytes;
    bool array;
};

struct Parameter {  // of a kernel: a pointer, to const or not, or a scalar
    bool pointer, constant;
    size_t size;  // in bytes, of an element or of the scalar
};

struct Launch {
    uint64_t seed;             // of the schedule
    int skipped_barrier;       // the source line of a barrier that is skipped, 0 for none
    const unsigned *shape;     // grid x, y, z and block x, y, z
    size_t dynamic;            // bytes of dynamic shared memory
    size_t element;            // sizeof(REAL), which chooses the signalling NaN
};

// Run the kernel that `body` calls with pointers to its arguments. Return an error message, or nullptr.
const char *launch(const Parameter *parameters, size_t expected, const Argument *arguments, size_t count,
                   const Launch &launch, void (*body)(void *const *));

int lane();                                    // of the running thread in its warp
void *dynamic_shared();                        // of the running block
void syncthreads(int line);
void syncwarp(unsigned mask, int line);
void yield_to_other_blocks();
// Suspend the running thread until all lanes of its warp have made the same call; return the 32 values of the lanes.
const void *exchange(const char *call, unsigned mask, const void *value, size_t size);
void copy_async(uint4 *to, const uint4 *from);  // from nullptr: zeros
void copy_wait();

template <class T> const T *warp_exchange(const char *call, unsigned mask, T value) {
    static_assert(sizeof(T) <= 24);
    return static_cast<const T *>(exchange(call, mask, &value, sizeof value));
}

}  // namespace emulator
