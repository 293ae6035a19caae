// Memory that detects misuse: filled with signalling NaNs before it is written, and guarded at both ends.
#pragma once
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include "language.cuh"

extern unsigned char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

namespace emulator {

static char message[512];  // of the first error of this launch; empty while there is none

// A signalling NaN of the kernel's number type, as words: arithmetic on it raises the invalid flag, and propagates it.
static uint32_t poison_word;
inline void set_poison(size_t element) { poison_word = element == 4 ? 0x7fa0deadu : 0x7ff4deadu; }

__attribute__((no_sanitize_address)) inline void poison(void *data, size_t bytes) {
    auto *to = static_cast<volatile uint32_t *>(data);
    for (size_t i = 0; i < bytes / 4; i++) to[i] = poison_word;
}

inline size_t shared_size() { return size_t(__stop_shared_memory - __start_shared_memory); }

// Copy static shared memory into the block's own copy, or back (`restore`) before the block runs again.
__attribute__((no_sanitize_address)) inline void copy_shared(uint32_t *copy, bool restore) {
    auto *shared = reinterpret_cast<uint32_t *>(__start_shared_memory);
    if (restore) std::swap(shared, copy);
#ifdef __SANITIZE_ADDRESS__  // its memcpy would report the gaps between variables
    for (size_t i = 0; i < shared_size() / 4; i++) static_cast<volatile uint32_t *>(copy)[i] = shared[i];
#else
    memcpy(copy, shared, shared_size());
#endif
}

// An array of bytes, followed by an inaccessible page and preceded by a poisoned margin.
struct Guarded {
    size_t bytes, whole, page;
    unsigned char *base, *data, *end;

    explicit Guarded(size_t bytes) : bytes(bytes), page(size_t(sysconf(_SC_PAGESIZE))) {
#ifdef __SANITIZE_ADDRESS__
        base = data = new unsigned char[bytes];  // the sanitizer guards it to the byte
        poison(data, bytes);
#else
        size_t rounded = (bytes + 15) / 16 * 16, inner = (rounded + 64 + page - 1) / page * page;
        whole = inner + 2 * page;
        base = static_cast<unsigned char *>(mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(base + page, inner, PROT_READ | PROT_WRITE);
        end = base + page + inner;
        data = end - rounded;
        poison(base + page, inner);
#endif
    }
    Guarded(const Guarded &) = delete;
    Guarded &operator=(const Guarded &) = delete;

    ~Guarded() {
#ifdef __SANITIZE_ADDRESS__
        delete[] base;
#else
        munmap(base, whole);
#endif
    }

    bool margins_intact() const {  // before the data, and between it and the page behind
#ifndef __SANITIZE_ADDRESS__
        for (unsigned char *p = base + page; p < end; p++) {
            if (p == data) p += bytes;
            if (p >= end) break;
            if (*p != static_cast<unsigned char>(poison_word >> 8 * ((p - base) % 4))) return false;
        }
#endif
        return true;
    }

    bool contains(const void *address) const {  // with its guard pages
        auto *p = static_cast<const unsigned char *>(address);
        return p >= base && p < base + whole;
    }
};

}  // namespace emulator
