/* What happens to single rows between products. Sizes are multiples of 16. */
#include "decode.h"
#include "vectors.h"

#include <math.h>

INLINE void norm_row(const bf16 *x, long width, const bf16 *weight, double eps, bf16 *y)
{
    lanes squares = {0};
    for (long i = 0; i < width; i += 16)
        squares += load16(x + i) * load16(x + i);
    const float factor = (float)(1 / sqrt(sum16(squares) / (double)width + eps));
    for (long i = 0; i < width; i += 16)
        store16(y + i, load16(x + i) * factor * load16(weight + i));
}

static void norm_portable(const bf16 *x, long rows, long width, const bf16 *weight, double eps, bf16 *y)
{
    for (long r = 0; r < rows; r++)
        norm_row(x + r * width, width, weight, eps, y + r * width);
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

static void gate_portable(const gating *job, long first, long last) { gate_units(job, first, last); }

#ifdef X86
VECTOR static void norm_vector(const bf16 *x, long rows, long width, const bf16 *weight, double eps, bf16 *y)
{
    for (long r = 0; r < rows; r++)
        norm_row(x + r * width, width, weight, eps, y + r * width);
}

VECTOR static void gate_vector(const gating *job, long first, long last) { gate_units(job, first, last); }
#else
#define norm_vector norm_portable
#define gate_vector gate_portable
#endif

void norm_rows(int isa, const bf16 *x, long rows, long width, const bf16 *weight, double eps, bf16 *y)
{
    (isa >= AVX512 ? norm_vector : norm_portable)(x, rows, width, weight, eps, y);
}

static void gate_part(const void *argument, long first, long last)
{
    const gating *job = argument;
    (job->isa >= AVX512 ? gate_vector : gate_portable)(job, first, last);
}

void gate_rows(const machine *machine, const bf16 *gate_up, long rows, long inner, bf16 *y)
{
    const gating job = {gate_up, y, inner, machine->isa};
    if (rows == 1)
        gate_part(&job, 0, inner / 16);
    else
        share(machine, gate_part, &job, rows * inner / 16);
}
