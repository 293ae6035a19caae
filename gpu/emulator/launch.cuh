// The entry point of a kernel: its parameters described for the runtime, and a call with arguments that lie in memory.
#pragma once
#include <utility>
#include "intrinsics.cuh"
#include "tensor_cores.cuh"

namespace emulator {

template <class T> constexpr Parameter parameter() {
    using Element = std::remove_pointer_t<T>;
    return {std::is_pointer_v<T>, std::is_const_v<Element>, sizeof(Element)};
}

template <auto KERNEL> struct Entry;
template <class... Types, void (*KERNEL)(Types...)> struct Entry<KERNEL> {
    static constexpr Parameter PARAMETERS[] = {parameter<Types>()...};

    template <size_t... I> static void call(void *const *arguments, std::index_sequence<I...>) {
        KERNEL(*static_cast<Types *>(arguments[I])...);
    }
    static void body(void *const *arguments) { call(arguments, std::index_sequence_for<Types...>{}); }
};

}  // namespace emulator

#define EMULATED_KERNEL(name)                                                                                          \
    extern "C" __attribute__((visibility("default"))) const char *emulated_##name(                                     \
        const emulator::Argument *arguments, size_t count, uint64_t seed, int skipped_barrier, const unsigned *shape,  \
        size_t dynamic) {                                                                                              \
        using Entry = emulator::Entry<name>;                                                                           \
        return emulator::launch(Entry::PARAMETERS, sizeof Entry::PARAMETERS / sizeof *Entry::PARAMETERS, arguments,    \
                                count, {seed, skipped_barrier, shape, dynamic, sizeof(REAL)}, Entry::body);            \
    }
