/* What happens to single rows between products. Sizes are multiples of 16. */
#include "step.h"
#include "vectors.h"

#include <math.h>

enum { FEW = 64 }; /* rows that are not worth sharing */

INLINE void norm_row(const bf16 *x, long width, const bf16 *weight, double eps, bf16 *y)
{
    lanes squares = {0};
    for (long i = 0; i < width; i += 16)
        squares += load16(x + i) * load16(x + i);
    const float factor = (float)(1 / sqrt(sum16(squares) / (double)width + eps));
    for (long i = 0; i < width; i += 16)
        store16(y + i, load16(x + i) * factor * load16(weight + i));
}

typedef struct {
    const bf16 *gate_up;
    bf16 *y;
    long inner;
    int isa;
} gating;

/* Units are 16 elements of one row: a product of the gate's SiLU and the other half. */
INLINE void gate_units(const gating *job, long first, long last)
{
    const long per_row = job->inner / 16;
    for (long unit = first; unit < last; unit++) {
        const bf16 *gate = job->gate_up + unit / per_row * 2 * job->inner + unit % per_row * 16;
        const lanes x = load16(gate);
        store16(job->y + unit * 16, x / (1 + exp16(-x)) * load16(gate + job->inner));
    }
}

/* Units are rows. */
typedef struct {
    const bf16 *x, *weight;
    bf16 *y;
    long width;
    double eps;
    int isa;
} normalising;

INLINE void norm_units(const normalising *job, long first, long last)
{
    for (long r = first; r < last; r++)
        norm_row(job->x + r * job->width, job->width, job->weight, job->eps, job->y + r * job->width);
}

static void gate_portable(const gating *job, long first, long last) { gate_units(job, first, last); }
static void norm_portable(const normalising *job, long first, long last) { norm_units(job, first, last); }
VECTOR static void gate_vector(const gating *job, long first, long last) { gate_units(job, first, last); }
VECTOR static void norm_vector(const normalising *job, long first, long last) { norm_units(job, first, last); }

static void norm_part(const void *argument, long first, long last)
{
    const normalising *job = argument;
    (job->isa >= AVX512 ? norm_vector : norm_portable)(job, first, last);
}

void norm_rows(const machine *machine, const bf16 *x, int64_t rows, int64_t width, const bf16 *weight, double eps, bf16 *y)
{
    const normalising job = {x, weight, y, width, eps, machine->isa};
    if (rows <= FEW)
        norm_part(&job, 0, rows);
    else
        share(machine, norm_part, &job, rows);
}

static void gate_part(const void *argument, long first, long last)
{
    const gating *job = argument;
    (job->isa >= AVX512 ? gate_vector : gate_portable)(job, first, last);
}

void gate_rows(const machine *machine, const bf16 *gate_up, int64_t rows, int64_t inner, bf16 *y)
{
    const gating job = {gate_up, y, inner, machine->isa};
    if (rows == 1)
        gate_part(&job, 0, inner / 16);
    else
        share(machine, gate_part, &job, rows * inner / 16);
}
