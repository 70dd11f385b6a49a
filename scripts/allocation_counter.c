/* Counts what torch requests for tensors on a CPU: loaded before the C library (LD_PRELOAD), it sees every thread.

   torch's allocator, in libc10, calls posix_memalign. So do kernels of oneDNN, for memory that is not a tensor's: only
   calls out of libc10 count. Blocks are in a table with open addressing; what is freed leaves a tombstone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ENTRIES (1u << 22)
#define TOMBSTONE ((void *)1)

static void *addresses[ENTRIES];
static size_t sizes[ENTRIES];
static long long current, peak;
static atomic_flag lock = ATOMIC_FLAG_INIT;

static int (*next_memalign)(void **, size_t, size_t);
static void (*next_free)(void *);
static _Thread_local void *torch_caller, *other_caller; /* where the last calls came from: there are few places */

static uint32_t hash(void *address) { return (uint32_t)(((uintptr_t)address >> 6) * 2654435761u) & (ENTRIES - 1); }
static void enter(void) { while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)); }
static void leave(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }

static int is_torch(void *caller) {
    if (caller == torch_caller) return 1;
    if (caller == other_caller) return 0;
    Dl_info found;
    int torch = dladdr(caller, &found) && found.dli_fname && strstr(found.dli_fname, "libc10.so");
    *(torch ? &torch_caller : &other_caller) = caller;
    return torch;
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    if (!next_memalign) next_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    int failed = next_memalign(result, alignment, size);
    if (failed || !is_torch(__builtin_return_address(0))) return failed;
    enter();
    uint32_t place = hash(*result);
    while (addresses[place] > TOMBSTONE) place = (place + 1) & (ENTRIES - 1);
    addresses[place] = *result;
    sizes[place] = size;
    current += size;
    if (current > peak) peak = current;
    leave();
    return 0;
}

void free(void *address) {
    if (!next_free) next_free = dlsym(RTLD_NEXT, "free");
    /* torch aligns tensors to 64 bytes: most other blocks are passed on without a look. */
    if (address && ((uintptr_t)address & 63) == 0) {
        enter();
        for (uint32_t place = hash(address); addresses[place]; place = (place + 1) & (ENTRIES - 1))
            if (addresses[place] == address) {
                addresses[place] = TOMBSTONE;
                current -= sizes[place];
                break;
            }
        leave();
    }
    next_free(address);
}

long long counted_bytes(void) { return current; }
long long counted_peak(void) { return peak; }
void restart_peak(void) { peak = current; }
