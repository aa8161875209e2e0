/* What this machine has, and how its threads share work. */
#include "kernels.h"

#include <stdatomic.h>
#ifdef X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { RANGES_PER_THREAD = 8 };

#ifdef X86
static int may_use_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    const unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25; /* bf16, tile, int8 */
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted)
        return 0;
#ifdef __linux__
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#else
    return 0;
#endif
}
#endif

/* The best instruction set that this process may use. */
API int twinfer_isa(void)
{
#ifdef X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16"))
        return may_use_tiles() ? AMX : AVX512;
#endif
    return PORTABLE;
}

typedef struct {
    void (*work)(const void *, long, long);
    const void *job;
    long units, range;
    atomic_long next;
} sharing;

static void take_part(void *argument)
{
    sharing *all = argument;
    long first;
    while ((first = atomic_fetch_add(&all->next, all->range)) < all->units)
        all->work(all->job, first, least(first + all->range, all->units));
}

void share(const machine *machine, void (*work)(const void *, long, long), const void *job, long units)
{
    const long threads = least(machine->threads, units);
    if (threads <= 1 || !machine->parallel) {
        work(job, 0, units);
        return;
    }
    sharing all = {work, job, units, 1 + units / (threads * RANGES_PER_THREAD), 0};
    machine->parallel(take_part, &all, (unsigned)threads, 0);
}
