/* The entry points of matrix products, and a read loop to hold them against. */
#include "step.h"

#include <stdlib.h>

int multiply(const machine *machine, const matrix *w, const bf16 *x, int64_t m, const bf16 *bias, const bf16 *residual,
             void *y, int32_t wide)
{
    product job = {*w, x, bias, residual, y, m, wide, machine->isa, NULL};
    if (is_tall(&job))
        return tall_product(machine, &job);
    const int plain = w->bits == 16;
    const size_t room = plain ? bf16_room(&job) : packed_room(&job);
    if (room && !(job.packed = aligned_alloc(64, (room + 63) / 64 * 64)))
        return -1;
    (plain ? bf16_pack : packed_pack)(machine, &job);
    share(machine, plain ? bf16_panels : packed_panels, &job, (w->n + PANEL - 1) / PANEL);
    free(job.packed);
    return 0;
}

/* Returns 0, or -1 where there is no memory for the activations. */
API int twinfer_product(const machine *machine, const matrix *w, const bf16 *x, int64_t m, const bf16 *bias, void *y,
                        int32_t wide)
{
    return multiply(machine, w, x, m, bias, NULL, y, wide);
}

typedef struct {
    const uint64_t *words;
    uint64_t *sum;
    long range;
    int isa;
} reading;

INLINE void read_words(const reading *job, long first, long last)
{
    uint64_t parts[32] = {0};
    for (long at = first * job->range; at < last * job->range; at += 32) {
        for (int line = 0; line < 32; line += 8)
            __builtin_prefetch((const char *)(job->words + at + line) + 16384, 0, 2);
        for (int i = 0; i < 32; i++)
            parts[i] += job->words[at + i];
    }
    for (int i = 0; i < 32; i++)
        __atomic_fetch_add(job->sum, parts[i], __ATOMIC_RELAXED);
}

static void read_portable(const reading *job, long first, long last) { read_words(job, first, last); }

#ifdef X86
VECTOR static void read_vector(const reading *job, long first, long last) { read_words(job, first, last); }
#else
#define read_vector read_portable
#endif

static void read_part(const void *argument, long first, long last)
{
    const reading *job = argument;
    (job->isa >= AVX512 ? read_vector : read_portable)(job, first, last);
}

/* Sums an array of num_bytes, of which whole ranges of 64 KiB count: what reading alone costs. */
API uint64_t twinfer_read(const machine *machine, const void *bytes, int64_t num_bytes)
{
    enum { RANGE_BYTES = 65536 };
    uint64_t sum = 0;
    const reading job = {bytes, &sum, RANGE_BYTES / 8, machine->isa};
    share(machine, read_part, &job, num_bytes / RANGE_BYTES);
    return sum;
}
