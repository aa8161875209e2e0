/* Products with matrices of 8 or 4 bits.
 *
 *     weights = [n / 16][k / 4][16 outputs][4 elements]      8 bits, signed
 *     weights = [n / 16][k / 8][16 outputs][4 elements]      4 bits: value + 8; the high halves are the next 4 elements
 *     scales  = [n / 16][k / group][16 outputs]              bf16; a group has 64 elements at 8 bits, 32 at 4
 *
 * n is padded to 16 and k to 128. Activations are rounded to 8 bits too, with a scale per row and group, so products and
 * their sums within a group are exact integers. The vector instructions want one side unsigned, so they see weights with
 * an offset; what that adds is the sum of a group's activations times the offset, and is known beforehand.
 */
#include "kernels.h"

#include <math.h>

typedef struct {
    int8_t *values;  /* [m rounded up to 16][k padded] */
    float *scales;   /* [m rounded up to 16][groups] */
    int32_t *starts; /* likewise: what a group's sum starts from */
    long k, groups, rows;
} activations;

INLINE long group_of(long bits) { return bits == 8 ? 64 : 32; }

static activations lay_out(const product *job)
{
    activations a = {.k = (job->w.k + 127) / 128 * 128, .rows = (job->m + 15) / 16 * 16};
    a.groups = a.k / group_of(job->w.bits);
    a.values = job->packed;
    a.scales = (float *)(a.values + a.rows * a.k);
    a.starts = (int32_t *)(a.scales + a.rows * a.groups);
    return a;
}

size_t packed_room(const product *job)
{
    const activations a = lay_out(job);
    return (size_t)(a.rows * a.k + a.rows * a.groups * 8);
}

/* One group of `count` elements, zeros after them. What is not finite makes the scale so. */
static void round_group(const bf16 *x, long count, long group, int8_t *values, float *scale, int32_t *sum)
{
    float largest = 0, taint = 0;
    for (long i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(widen(x[i])));
        taint += widen(x[i]) * 0;
    }
    const float inverse = largest > 0 && taint == 0 ? 127 / largest : 0;
    *scale = largest / 127 + taint;
    *sum = 0;
    memset(values, 0, (size_t)group);
    for (long i = 0; i < count && inverse > 0; i++) {
        values[i] = (int8_t)lrintf(widen(x[i]) * inverse);
        *sum += values[i];
    }
}

#ifdef X86
VECTOR static void round_group_vector(const bf16 *x, long count, long group, int8_t *values, float *scale, int32_t *sum)
{
    __m512 found[4], largest = _mm512_setzero_ps(), taint = largest;
    for (long i = 0; i < group; i += 16) {
        const long left = count - i;
        found[i / 16] = widen16(x + i, left >= 16 ? 0xffff : left > 0 ? (1u << left) - 1 : 0);
        largest = _mm512_max_ps(largest, _mm512_abs_ps(found[i / 16]));
        taint = _mm512_fmadd_ps(found[i / 16], _mm512_setzero_ps(), taint);
    }
    const float top = _mm512_reduce_max_ps(largest);
    const __m512 inverse = _mm512_set1_ps(top > 0 ? 127 / top : 0);
    __m512i total = _mm512_setzero_si512();
    for (long i = 0; i < group; i += 16) {
        const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(found[i / 16], inverse));
        _mm_storeu_si128((__m128i *)(values + i), _mm512_cvtsepi32_epi8(rounded));
        total = _mm512_add_epi32(total, rounded);
    }
    *scale = top / 127 + _mm512_reduce_add_ps(taint);
    *sum = _mm512_reduce_add_epi32(total);
}
#endif

/* Units are groups of the activations. */
static void pack_groups(const void *argument, long first, long last)
{
    const product *job = argument;
    const activations a = lay_out(job);
    const long k = job->w.k, group = group_of(job->w.bits), offset = job->w.bits == 8 ? 128 : 8;
    for (long unit = first; unit < last; unit++) {
        const long row = unit / a.groups, at = unit % a.groups * group, count = least(group, k - at < 0 ? 0 : k - at);
        const bf16 *x = job->x + row * k + (count ? at : 0);
        int8_t *values = a.values + row * a.k + at;
        int32_t sum;
#ifdef X86
        if (job->isa >= AVX512)
            round_group_vector(x, count, group, values, a.scales + unit, &sum);
        else
#endif
            round_group(x, count, group, values, a.scales + unit, &sum);
        a.starts[unit] = (int32_t)(-offset * sum);
    }
}

void packed_pack(const machine *machine, product *job)
{
    const activations a = lay_out(job);
    const size_t unused = (size_t)(a.rows - job->m), groups = unused * (size_t)a.groups;
    memset(a.values + job->m * a.k, 0, unused * (size_t)a.k);
    memset(a.scales + job->m * a.groups, 0, groups * sizeof(float));
    memset(a.starts + job->m * a.groups, 0, groups * sizeof(int32_t));
    if (job->m * a.k < 1 << 14)
        pack_groups(job, 0, job->m * a.groups);
    else
        share(machine, pack_groups, job, job->m * a.groups);
}

static void portable(const product *job, const activations *a, long panel)
{
    const long group = group_of(job->w.bits), bytes = PANEL * group * job->w.bits / 8;
    for (long row = 0; row < job->m; row++) {
        const uint8_t *w = job->w.weights + panel * a->groups * bytes;
        float sums[1][PANEL] = {{0}};
        for (long g = 0; g < a->groups; g++, w += bytes) {
            const int8_t *x = a->values + row * a->k + g * group;
            int32_t part[PANEL];
            for (int i = 0; i < PANEL; i++)
                part[i] = a->starts[row * a->groups + g];
            for (long at = 0; at < bytes; at++) {
                const long i = at % 64 / 4, element = at / 64 * 4 + at % 4;
                if (job->w.bits == 8)
                    part[i] += (w[at] ^ 128) * x[element];
                else {
                    const long low = at / 64 * 8 + at % 4;
                    part[i] += (w[at] & 15) * x[low] + (w[at] >> 4) * x[low + 4];
                }
            }
            const bf16 *scales = job->w.scales + (panel * a->groups + g) * PANEL;
            for (int i = 0; i < PANEL; i++)
                sums[0][i] += (float)part[i] * (widen(scales[i]) * a->scales[row * a->groups + g]);
        }
        emit(job, panel, row, 1, sums);
    }
}

#ifdef X86
/* Asks for weights that come soon; measured. */
INLINE void ahead(const uint8_t *w, const int bits)
{
    if (bits == 8)
        _mm_prefetch((const char *)w + 16384, _MM_HINT_T1);
    else
        _mm_prefetch((const char *)w + 4096, _MM_HINT_T0);
}

VECTOR INLINE __m512i quad(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

/* One panel times `rows` rows, at most 8. */
VECTOR INLINE void rows_of(const product *job, const activations *a, long panel, long row, const int rows, const int bits)
{
    const long group = bits == 8 ? 64 : 32, bytes = PANEL * group * bits / 8;
    const uint8_t *w = job->w.weights + panel * a->groups * bytes;
    const bf16 *scales = job->w.scales + panel * a->groups * PANEL;
    const __m512i low = _mm512_set1_epi8(15);
    __m512 sums[8];
    for (int r = 0; r < rows; r++)
        sums[r] = _mm512_setzero_ps();
    for (long g = 0; g < a->groups; g++, scales += PANEL) {
        const int8_t *x = a->values + row * a->k + g * group;
        __m512i part[8];
        for (int r = 0; r < rows; r++)
            part[r] = _mm512_set1_epi32(a->starts[(row + r) * a->groups + g]);
#pragma GCC unroll 16
        for (long at = 0; at < bytes; at += 64, w += 64) {
            const __m512i found = _mm512_loadu_si512(w);
            ahead(w, bits);
            if (bits == 8) {
                const __m512i raised = _mm512_xor_si512(found, _mm512_set1_epi8(-128));
                for (int r = 0; r < rows; r++)
                    part[r] = _mm512_dpbusd_epi32(part[r], raised, quad(x + r * a->k + at / 16));
            } else {
                const __m512i first = _mm512_and_si512(found, low);
                const __m512i second = _mm512_and_si512(_mm512_srli_epi16(found, 4), low);
                for (int r = 0; r < rows; r++)
                    part[r] = _mm512_dpbusd_epi32(part[r], first, quad(x + r * a->k + at / 8));
                for (int r = 0; r < rows; r++)
                    part[r] = _mm512_dpbusd_epi32(part[r], second, quad(x + r * a->k + at / 8 + 4));
            }
        }
        const __m512 scale = widen16(scales, 0xffff);
        for (int r = 0; r < rows; r++)
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[r]),
                                      _mm512_mul_ps(scale, _mm512_set1_ps(a->scales[(row + r) * a->groups + g])), sums[r]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        if (row + r < job->m)
            emit16(job, panel, row + r, sums[r]);
}

VECTOR static void vector(const product *job, const activations *a, long panel, long row)
{
    const long rows = job->m - row, eight = job->w.bits == 8;
    if (rows == 1)
        eight ? rows_of(job, a, panel, row, 1, 8) : rows_of(job, a, panel, row, 1, 4);
    else if (rows == 2)
        eight ? rows_of(job, a, panel, row, 2, 8) : rows_of(job, a, panel, row, 2, 4);
    else if (rows <= 4)
        eight ? rows_of(job, a, panel, row, 4, 8) : rows_of(job, a, panel, row, 4, 4);
    else
        eight ? rows_of(job, a, panel, row, 8, 8) : rows_of(job, a, panel, row, 8, 4);
}

#define SUMS_A 0 /* the instructions want literals */
#define SUMS_B 1
#define ACTIVATIONS_A 2
#define ACTIVATIONS_B 3
#define WEIGHTS_A 4
#define WEIGHTS_B 5

/* Tiles whose rows are activations or sums, and tiles of a group's weights. */
TILES static void configure(long group)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int tile = SUMS_A; tile <= WEIGHTS_B; tile++) {
        shape.bytes[tile] = tile == ACTIVATIONS_A || tile == ACTIVATIONS_B ? (uint16_t)group : 64;
        shape.rows[tile] = tile >= WEIGHTS_A ? (uint8_t)(group / 4) : 16;
    }
    __asm__ volatile("" : : "r"(&shape) : "memory"); /* see tiles.h */
    _tile_loadconfig(&shape);
}

VECTOR INLINE const uint8_t *unpack(const uint8_t *w, uint8_t *bytes)
{
    const __m512i low = _mm512_set1_epi8(15), offset = _mm512_set1_epi8(8);
    for (int i = 0; i < 4; i++) {
        __m512i found = _mm512_loadu_si512(w + i * 64);
        _mm512_storeu_si512(bytes + i * 128, _mm512_sub_epi8(_mm512_and_si512(found, low), offset));
        found = _mm512_and_si512(_mm512_srli_epi16(found, 4), low);
        _mm512_storeu_si512(bytes + i * 128 + 64, _mm512_sub_epi8(found, offset));
    }
    return bytes;
}

/* One panel times 16 rows. */
TILES INLINE void tile_rows(const product *job, const activations *a, long panel, long row, const int bits)
{
    const long group = bits == 8 ? 64 : 32, bytes = PANEL * group * bits / 8;
    const uint8_t *w = job->w.weights + panel * a->groups * bytes;
    const bf16 *scales = job->w.scales + panel * a->groups * PANEL;
    __m512 sums[PANEL];
#pragma GCC unroll 16
    for (int r = 0; r < PANEL; r++)
        sums[r] = _mm512_setzero_ps();
    const int8_t *x = a->values + row * a->k;
    for (long g = 0; g < a->groups; g += 2, scales += 2 * PANEL, w += 2 * bytes, x += 2 * group) {
        int32_t parts[2][PANEL][PANEL] __attribute__((aligned(64)));
        uint8_t unpacked[2][512] __attribute__((aligned(64)));
        for (long line = 0; line < 2 * bytes; line += 64)
            ahead(w + line, bits);
        _tile_loadd(ACTIVATIONS_A, x, a->k);
        _tile_loadd(WEIGHTS_A, bits == 8 ? w : unpack(w, unpacked[0]), 64);
        _tile_loadd(ACTIVATIONS_B, x + group, a->k);
        _tile_loadd(WEIGHTS_B, bits == 8 ? w + bytes : unpack(w + bytes, unpacked[1]), 64);
        _tile_zero(SUMS_A);
        _tile_zero(SUMS_B);
        _tile_dpbssd(SUMS_A, ACTIVATIONS_A, WEIGHTS_A);
        _tile_dpbssd(SUMS_B, ACTIVATIONS_B, WEIGHTS_B);
        _tile_stored(SUMS_A, parts[0], 64);
        _tile_stored(SUMS_B, parts[1], 64);
        for (int half = 0; half < 2; half++) {
            const __m512 scale = widen16(scales + half * PANEL, 0xffff);
            const long place = row * a->groups + g + half;
#pragma GCC unroll 16
            for (int r = 0; r < PANEL; r++) {
                sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(parts[half][r])),
                                          _mm512_mul_ps(scale, _mm512_set1_ps(a->scales[place + r * a->groups])), sums[r]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < PANEL; r++)
        if (row + r < job->m)
            emit16(job, panel, row + r, sums[r]);
}

TILES static void tile_panels(const product *job, const activations *a, long first, long last)
{
    configure(group_of(job->w.bits));
    for (long panel = first; panel < last; panel++)
        for (long row = 0; row < job->m; row += PANEL)
            if (job->w.bits == 8)
                tile_rows(job, a, panel, row, 8);
            else
                tile_rows(job, a, panel, row, 4);
    _tile_release();
}
#endif

void packed_panels(const void *argument, long first, long last)
{
    const product *job = argument;
    const activations a = lay_out(job);
#ifdef X86
    if (job->isa == AMX && job->m > 8) {
        tile_panels(job, &a, first, last);
        return;
    }
#endif
    for (long panel = first; panel < last; panel++)
#ifdef X86
        if (job->isa >= AVX512)
            for (long row = 0; row < job->m; row += 8)
                vector(job, &a, panel, row);
        else
#endif
            portable(job, &a, panel);
}
