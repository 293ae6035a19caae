// Memory that shows misuse: poisoned before it is written, and guarded at both ends.
#pragma once
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include "language.cuh"

extern unsigned char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

namespace emulator {

static char message[512];  // what went wrong in this launch; empty while nothing has

// A signalling NaN of the kernel's number type, as words: arithmetic on it raises the invalid flag, and spreads.
constexpr uint32_t POISON = sizeof(REAL) == 4 ? 0x7fa0deadu : 0x7ff4deadu;

__attribute__((no_sanitize_address)) inline void poison(void *data, size_t bytes) {
    auto *to = static_cast<volatile uint32_t *>(data);
    for (size_t i = 0; i < bytes / 4; i++) to[i] = POISON;
}

inline size_t shared_size() { return size_t(__stop_shared_memory - __start_shared_memory); }

// Between static shared memory and where a block keeps its own while another block runs.
__attribute__((no_sanitize_address)) inline void copy_shared(uint32_t *kept, bool in) {
    auto *own = reinterpret_cast<uint32_t *>(__start_shared_memory);
    if (in) std::swap(own, kept);
#ifdef __SANITIZE_ADDRESS__  // whose memcpy would look at the gaps between variables
    for (size_t i = 0; i < shared_size() / 4; i++) static_cast<volatile uint32_t *>(kept)[i] = own[i];
#else
    memcpy(kept, own, shared_size());
#endif
}

// So many bytes, with a page behind them that cannot be touched and a poisoned margin before them.
struct Guarded {
    size_t bytes, whole, page;
    unsigned char *base, *data, *end;

    explicit Guarded(size_t bytes) : bytes(bytes), page(size_t(sysconf(_SC_PAGESIZE))) {
#ifdef __SANITIZE_ADDRESS__
        base = data = new unsigned char[bytes];  // which the sanitizer guards to the byte
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

    bool intact() const {  // nobody wrote before the data, or between it and the page behind
#ifndef __SANITIZE_ADDRESS__
        for (unsigned char *p = base + page; p < end; p++) {
            if (p == data) p += bytes;
            if (p >= end) break;
            if (*p != static_cast<unsigned char>(POISON >> 8 * ((p - base) % 4))) return false;
        }
#endif
        return true;
    }

    bool guards(const void *place) const {  // a fault there is ours
        auto *p = static_cast<const unsigned char *>(place);
        return p >= base && p < base + whole;
    }
};

}  // namespace emulator
