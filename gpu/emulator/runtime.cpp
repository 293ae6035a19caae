// A launch: copy the arguments into guarded memory, run the grid, and copy back what the kernel has written.
#include <csignal>
#include "schedule.hpp"

namespace emulator {

static std::vector<Guarded *> arrays;  // the arguments of this launch; nullptr for a scalar
static size_t element_size;
static sigjmp_buf after_fault;

static void on_fault(int, siginfo_t *info, void *) {
    snprintf(message, sizeof message, "access at %p, outside every array", info->si_addr);
    for (size_t i = 0; i < arrays.size(); i++)
        if (arrays[i] && arrays[i]->contains(info->si_addr)) {
            long element = (static_cast<unsigned char *>(info->si_addr) - arrays[i]->data) / long(element_size);
            snprintf(message, sizeof message, "argument %zu: access to element %ld, of %zu", i, element,
                     arrays[i]->bytes / element_size);
        }
    if (grid && grid->current && grid->current->dynamic.contains(info->si_addr))
        snprintf(message, sizeof message, "dynamic shared memory: access outside");
    siglongjmp(after_fault, 1);
}

// Handles memory and arithmetic faults while a grid runs.
struct FaultHandler {
    static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before[3];
    stack_t before_stack;
    char stack[1 << 16];

    FaultHandler() {
#ifndef __SANITIZE_ADDRESS__
        stack_t own = {stack, 0, sizeof stack};
        sigaltstack(&own, &before_stack);
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &action, &before[i]);
#endif
    }
    ~FaultHandler() {
#ifndef __SANITIZE_ADDRESS__
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &before[i], nullptr);
        sigaltstack(&before_stack, nullptr);
#endif
    }
};

// Return the address of the kernel's argument: of the scalar, or of `pointer`, which points to guarded memory.
static void *copy_in(const Parameter &parameter, const Argument &argument, size_t i, void *&pointer) {
    if (!parameter.pointer) {
        if (argument.array || argument.bytes != parameter.size)
            snprintf(message, sizeof message, "argument %zu has %zu bytes, expected a number of %zu", i, argument.bytes,
                     parameter.size);
        return const_cast<void *>(argument.data);
    }
    if (!argument.array) snprintf(message, sizeof message, "argument %zu is a number, expected an array", i);
    else if (argument.bytes % parameter.size)
        snprintf(message, sizeof message, "argument %zu has %zu bytes, which are no whole elements", i, argument.bytes);
    arrays[i] = new Guarded(argument.bytes);
    memcpy(arrays[i]->data, argument.data, argument.bytes);
    return pointer = arrays[i]->data, &pointer;
}

static void copy_out(const Parameter &parameter, const Argument &argument, size_t i) {
    if (!parameter.constant) memcpy(const_cast<void *>(argument.data), arrays[i]->data, argument.bytes);
    if (!message[0] && !arrays[i]->margins_intact())
        snprintf(message, sizeof message, "argument %zu: written outside", i);
}

static void run_on_copies(const Parameter *parameters, const Argument *arguments, size_t count, const Launch &launch,
                          void (*body)(void *const *)) {
    std::vector<void *> pointers(count), values(count);
    arrays.assign(count, nullptr);
    for (size_t i = 0; i < count; i++) values[i] = copy_in(parameters[i], arguments[i], i, pointers[i]);
    std::feclearexcept(FE_ALL_EXCEPT);
    {
        FaultHandler handler;
        if (!message[0] && !sigsetjmp(after_fault, 1)) run(launch, body, values.data());
        grid = nullptr;
    }
    for (size_t i = 0; i < count; i++)
        if (arrays[i]) copy_out(parameters[i], arguments[i], i);
    for (Guarded *array : arrays) delete array;
}

const char *launch(const Parameter *parameters, size_t expected, const Argument *arguments, size_t count,
                   const Launch &launch, void (*body)(void *const *)) {
    const unsigned *shape = launch.shape;
    message[0] = 0;
    set_poison(launch.element), element_size = launch.element;
    gridDim = {shape[0], shape[1], shape[2]}, blockDim = {shape[3], shape[4], shape[5]};
    size_t threads = size_t(blockDim.x) * blockDim.y * blockDim.z;
    if (count != expected) snprintf(message, sizeof message, "%zu arguments, expected %zu", count, expected);
    else if (threads % 32) snprintf(message, sizeof message, "a block is not whole warps");
    else if (threads > 1024) snprintf(message, sizeof message, "a block has over 1024 threads");
    else run_on_copies(parameters, arguments, count, launch, body);
    return message[0] ? message : nullptr;
}

}  // namespace emulator
