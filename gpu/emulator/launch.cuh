// A launch: arguments into guarded memory, the grid run, what was written copied back, and a word on what went wrong.
#pragma once
#include <cfenv>
#include <csetjmp>
#include <csignal>
#include <tuple>
#include <utility>
#include "intrinsics.cuh"
#include "schedule.cuh"
#include "tensor_cores.cuh"

namespace emulator {

struct Argument {
    void *data;
    size_t bytes;
    bool array;
};

static std::vector<Guarded *> arrays;  // of the launch in hand; none for a number
static sigjmp_buf out;

inline void on_fault(int, siginfo_t *info, void *) {
    snprintf(message, sizeof message, "access at %p, outside every array", info->si_addr);
    for (size_t i = 0; i < arrays.size(); i++)
        if (arrays[i] && arrays[i]->guards(info->si_addr)) {
            long element = (static_cast<unsigned char *>(info->si_addr) - arrays[i]->data) / long(sizeof(REAL));
            snprintf(message, sizeof message, "argument %zu: access to element %ld, of %zu", i, element,
                     arrays[i]->bytes / sizeof(REAL));
        }
    if (grid && grid->current && grid->current->dynamic.guards(info->si_addr))
        snprintf(message, sizeof message, "dynamic shared memory: access outside");
    siglongjmp(out, 1);
}

// Faults become messages while a grid runs.
struct Watch {
    static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before[3];
    stack_t before_stack;
    char stack[1 << 16];

    Watch() {
#ifndef __SANITIZE_ADDRESS__
        stack_t own = {stack, 0, sizeof stack};
        sigaltstack(&own, &before_stack);
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &action, &before[i]);
#endif
    }
    ~Watch() {
#ifndef __SANITIZE_ADDRESS__
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &before[i], nullptr);
        sigaltstack(&before_stack, nullptr);
#endif
    }
};

template <class T> T taken(const Argument &given, size_t i) {
    if constexpr (std::is_pointer_v<T>) {
        if (!given.array) snprintf(message, sizeof message, "argument %zu is a number, expected an array", i);
        else if (given.bytes % sizeof(std::remove_pointer_t<T>))
            snprintf(message, sizeof message, "argument %zu has %zu bytes, which are no whole elements", i, given.bytes);
        arrays[i] = new Guarded(given.bytes);
        memcpy(arrays[i]->data, given.data, given.bytes);
        return reinterpret_cast<T>(arrays[i]->data);
    } else {
        T value{};
        if (given.array || given.bytes != sizeof(T))
            snprintf(message, sizeof message, "argument %zu has %zu bytes, expected a number of %zu", i, given.bytes, sizeof(T));
        else memcpy(&value, given.data, sizeof value);
        return value;
    }
}

template <class T> void given_back(const Argument &given, size_t i) {
    if constexpr (std::is_pointer_v<T>) {
        if constexpr (!std::is_const_v<std::remove_pointer_t<T>>) memcpy(given.data, arrays[i]->data, given.bytes);
        if (!message[0] && !arrays[i]->intact()) snprintf(message, sizeof message, "argument %zu: written outside", i);
    }
}

template <class... Types, size_t... I>
void launch(void (*kernel)(Types...), const Argument *given, uint64_t seed, int without, dim3 blocks, size_t dynamic,
            std::index_sequence<I...>) {
    arrays.assign(sizeof...(Types), nullptr);
    struct Call {
        void (*kernel)(Types...);
        std::tuple<Types...> arguments;
    } call{kernel, {taken<Types>(given[I], I)...}};
    std::feclearexcept(FE_ALL_EXCEPT);
    {
        Watch watch;
        if (!message[0] && !sigsetjmp(out, 1))
            run(seed, without, blocks, dynamic, [](void *p) {
                auto *c = static_cast<Call *>(p);
                std::apply(c->kernel, c->arguments);
            }, &call);
        grid = nullptr;
    }
    (given_back<Types>(given[I], I), ...);
    for (Guarded *array : arrays) delete array;
}

// Returns what went wrong, or nullptr.
template <class... Types>
const char *launch(void (*kernel)(Types...), const Argument *given, size_t count, uint64_t seed, int without,
                   const unsigned *shape, size_t dynamic) {
    message[0] = 0;
    gridDim = {shape[0], shape[1], shape[2]}, blockDim = {shape[3], shape[4], shape[5]};
    if (count != sizeof...(Types)) snprintf(message, sizeof message, "%zu arguments, expected %zu", count, sizeof...(Types));
    else if (blockDim.x * blockDim.y * blockDim.z % 32) snprintf(message, sizeof message, "a block is not whole warps");
    else if (blockDim.x * blockDim.y * blockDim.z > 1024) snprintf(message, sizeof message, "a block has over 1024 threads");
    else launch(kernel, given, seed, without, gridDim, dynamic, std::index_sequence_for<Types...>{});
    return message[0] ? message : nullptr;
}

}  // namespace emulator

#define EMULATED_KERNEL(name)                                                                                         \
    extern "C" __attribute__((visibility("default"))) const char *emulated_##name(const emulator::Argument *given, size_t count, uint64_t seed, int without,     \
                                       const unsigned *shape, size_t dynamic) {                                   \
        return emulator::launch(name, given, count, seed, without, shape, dynamic);                                            \
    }
