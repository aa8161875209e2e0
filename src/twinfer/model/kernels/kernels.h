/* What the kernels share: numbers, the machine, and the job of a matrix product. */
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#define VECTOR __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")))
#define TILES __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-int8,amx-bf16")))
#else
#define VECTOR
#endif
#define INLINE static inline __attribute__((always_inline))
#define API __attribute__((visibility("default")))

enum { PORTABLE, AVX512, AMX }; /* instruction sets; each includes those before it */
enum { PANEL = 16 };            /* outputs that are computed together */

typedef uint16_t bf16;

/* The best instruction set that this process may use. */
API int twinfer_isa(void);

typedef struct {
    int32_t threads;
    int32_t isa;
} machine;

/* W[n][k]. bits 16: bf16 rows. bits 8 or 4: panels as packed.c has them, with a scale per output and group. */
typedef struct {
    const uint8_t *weights;
    const bf16 *scales;
    int64_t n, k;
    int64_t bits;
} matrix;

/* y[m][n] = x[m][k] W^T + bias[n] + residual[m][n]; bias and residual may be null, y is float where wide. */
typedef struct {
    matrix w;
    const bf16 *x, *bias, *residual;
    void *y;
    int64_t m;
    int32_t wide;
    int32_t isa;
    void *packed; /* the activations as the kernel wants them */
} product;

/* Calls work(job, first, last) for ranges that cover [0, units) once, on as many threads as there are free. */
void share(const machine *machine, void (*work)(const void *, long, long), const void *job, long units);

/* Room for the activations in bytes, their packing, and panels [first, last) of the result. */
size_t bf16_room(const product *job);
void bf16_pack(const machine *machine, product *job);
void bf16_panels(const void *job, long first, long last);
/* Whether tall.c does it, and that; it returns 0, or -1 where there is no memory. */
int is_tall(const product *job);
int tall_product(const machine *machine, const product *job);
size_t packed_room(const product *job);
void packed_pack(const machine *machine, product *job);
void packed_panels(const void *job, long first, long last);

INLINE float widen(bf16 value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

INLINE bf16 narrow(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value)
        return 0x7fc0;
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE long least(long a, long b) { return a < b ? a : b; }

/* Finishes sums[m][PANEL] of one panel for the rows [row, row + rows) of the result. */
INLINE void emit(const product *job, long panel, long row, long rows, float (*sums)[PANEL])
{
    const long n = job->w.n, at = panel * PANEL, width = least(PANEL, n - at);
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < width; i++) {
            const long place = (row + r) * n + at + i;
            float value = sums[r][i];
            value += job->bias ? widen(job->bias[at + i]) : 0;
            value += job->residual ? widen(job->residual[place]) : 0;
            if (job->wide)
                ((float *)job->y)[place] = value;
            else
                ((bf16 *)job->y)[place] = narrow(value);
        }
}

#ifdef X86
VECTOR INLINE __m512 widen16(const bf16 *values, __mmask16 mask)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, values)), 16));
}

VECTOR INLINE void narrow16(bf16 *values, __mmask16 mask, __m512 sums)
{
    _mm256_mask_storeu_epi16(values, mask, (__m256i)_mm512_cvtneps_pbh(sums));
}

VECTOR INLINE void emit16(const product *job, long panel, long row, __m512 sums)
{
    const long n = job->w.n, at = panel * PANEL, place = row * n + at;
    const __mmask16 mask = n - at < PANEL ? (1u << (n - at)) - 1 : 0xffff;
    if (job->bias)
        sums = _mm512_add_ps(sums, widen16(job->bias + at, mask));
    if (job->residual)
        sums = _mm512_add_ps(sums, widen16(job->residual + place, mask));
    if (job->wide)
        _mm512_mask_storeu_ps((float *)job->y + place, mask, sums);
    else
        narrow16((bf16 *)job->y + place, mask, sums);
}
#endif
