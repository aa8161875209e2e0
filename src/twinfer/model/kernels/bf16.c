/* Products with bf16 matrices as checkpoints store them: rows of k elements.
 *
 * One row of activations: a dot product per output, which memory bounds. More: tiles whose rows are 16 outputs and whose
 * columns are up to 16 activations, so weights are read once. Sums are in fp32.
 */
#include "tiles.h"

enum { STEP = 32, AHEAD = 3072 }; /* elements of a tile's row; bytes that are prefetched ahead */

static int has_tiles(const product *job) { return job->isa == AMX && job->m > 1 && job->w.k % STEP == 0; }

size_t bf16_room(const product *job)
{
    return has_tiles(job) ? (size_t)((job->m + 15) / 16 * 16 * job->w.k) * sizeof(bf16) : 0;
}

static void portable(const product *job, long panel)
{
    const long k = job->w.k, first = panel * PANEL, width = least(PANEL, job->w.n - first);
    for (long row = 0; row < job->m; row++) {
        float sums[1][PANEL] = {{0}};
        for (long i = 0; i < width; i++) {
            const bf16 *w = (const bf16 *)job->w.weights + (first + i) * k, *x = job->x + row * k;
            float parts[8] = {0};
            long at = 0;
            for (; at + 8 <= k; at += 8)
                for (int j = 0; j < 8; j++)
                    parts[j] += widen(w[at + j]) * widen(x[at + j]);
            for (; at < k; at++)
                parts[0] += widen(w[at]) * widen(x[at]);
            for (int j = 0; j < 8; j++)
                sums[0][i] += parts[j];
        }
        emit(job, panel, row, 1, sums);
    }
}

#ifdef X86
VECTOR INLINE __m512bh load(const bf16 *from) { return (__m512bh)_mm512_loadu_si512(from); }

/* One row of weights times `rows` rows of activations. */
VECTOR INLINE void dots(const bf16 *w, const bf16 *x, long k, const int rows, float (*sums)[PANEL], long at)
{
    __m512 even[4], odd[4];
    for (int r = 0; r < rows; r++)
        even[r] = odd[r] = _mm512_setzero_ps();
    long i = 0;
    for (; i + 64 <= k; i += 64) {
        _mm_prefetch((const char *)(w + i) + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)(w + i) + AHEAD + 64, _MM_HINT_T0);
        const __m512bh first = load(w + i), second = load(w + i + 32);
        for (int r = 0; r < rows; r++) {
            even[r] = _mm512_dpbf16_ps(even[r], first, load(x + r * k + i));
            odd[r] = _mm512_dpbf16_ps(odd[r], second, load(x + r * k + i + 32));
        }
    }
    for (; i < k; i += 32) {
        const __mmask32 mask = k - i < 32 ? (1u << (k - i)) - 1 : ~0u;
        const __m512bh rest = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + i);
        for (int r = 0; r < rows; r++)
            even[r] = _mm512_dpbf16_ps(even[r], rest, (__m512bh)_mm512_maskz_loadu_epi16(mask, x + r * k + i));
    }
    for (int r = 0; r < rows; r++)
        sums[r][at] = _mm512_reduce_add_ps(_mm512_add_ps(even[r], odd[r]));
}

VECTOR static void vector(const product *job, long panel)
{
    const long k = job->w.k, first = panel * PANEL, width = least(PANEL, job->w.n - first);
    const bf16 *weights = (const bf16 *)job->w.weights + first * k;
    for (long row = 0; row < job->m;) {
        const long rows = job->m - row >= 4 ? 4 : 1;
        float sums[4][PANEL];
        for (long i = 0; i < width; i++)
            if (rows == 4)
                dots(weights + i * k, job->x + row * k, k, 4, sums, i);
            else
                dots(weights + i * k, job->x + row * k, k, 1, sums, i);
        for (long r = 0; r < rows; r++)
            emit16(job, panel, row + r, _mm512_loadu_ps(sums[r]));
        row += rows;
    }
}

/* Activations as tiles [16 pairs of k][16 rows]: the transpose of pairs. Units are rows of tiles. */
VECTOR static void pack(const void *argument, long first, long last)
{
    const product *job = argument;
    const long k = job->w.k;
    const __m512i rows = _mm512_mullo_epi32(_mm512_set1_epi32((int)(k / 2)),
                                            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    for (long unit = first; unit < last; unit++) {
        const long row = unit / (k / 2) * 16, pair = unit % (k / 2), count = least(16, job->m - row);
        const __m512i found = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), (1u << count) - 1, rows,
                                                          job->x + row * k + pair * 2, 4);
        _mm512_storeu_si512((char *)job->packed + unit * 64, found);
    }
}

#define SUMS_A 0 /* the instructions want literals */
#define SUMS_B 1
#define WEIGHTS_A 2
#define WEIGHTS_B 3
#define ACTIVATIONS 4

/* Sixteen outputs times up to sixteen rows. Meanwhile the next panel is fetched in its order in memory. */
TILES static void tiles(const product *job, long panel)
{
    const long k = job->w.k, stride = k * (long)sizeof(bf16);
    const char *w = (const char *)job->w.weights + panel * PANEL * stride, *next = w + PANEL * stride;
    const __m512i lanes = _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80, 64, 48, 32, 16, 0);
    for (long row = 0; row < job->m; row += 16) {
        const char *x = (const char *)job->packed + row * stride;
        float sums[2][256];
        _tile_zero(SUMS_A);
        _tile_zero(SUMS_B);
        for (long at = 0; at < k; at += STEP) {
            if (row == 0)
                for (int line = 0; line < 16; line++)
                    _mm_prefetch(next + at * 32 + line * 64, _MM_HINT_T1);
            _tile_loadd(ACTIVATIONS, x + at * 32, 64);
            if (at / STEP % 2 == 0) {
                _tile_loadd(WEIGHTS_A, w + at * 2, stride);
                _tile_dpbf16ps(SUMS_A, WEIGHTS_A, ACTIVATIONS);
            } else {
                _tile_loadd(WEIGHTS_B, w + at * 2, stride);
                _tile_dpbf16ps(SUMS_B, WEIGHTS_B, ACTIVATIONS);
            }
        }
        _tile_stored(SUMS_A, sums[0], 64);
        _tile_stored(SUMS_B, sums[1], 64);
        for (long r = 0; r < least(16, job->m - row); r++)
            emit16(job, panel, row + r, _mm512_add_ps(_mm512_i32gather_ps(lanes, sums[0] + r, 4),
                                                      _mm512_i32gather_ps(lanes, sums[1] + r, 4)));
    }
}

TILES static void tile_panels(const product *job, long first, long last)
{
    const long whole = least(last, job->w.n / PANEL);
    use_tiles();
    for (long panel = first; panel < whole; panel++)
        tiles(job, panel);
    leave_tiles();
    if (whole < last)
        vector(job, whole);
}
#endif

void bf16_pack(const machine *machine, product *job)
{
#ifdef X86
    if (has_tiles(job))
        share(machine, pack, job, (job->m + 15) / 16 * job->w.k / 2);
#else
    (void)machine, (void)job;
#endif
}

void bf16_panels(const void *argument, long first, long last)
{
    const product *job = argument;
#ifdef X86
    if (has_tiles(job)) {
        tile_panels(job, first, last);
        return;
    }
    if (job->isa >= AVX512) {
        for (long panel = first; panel < last; panel++)
            vector(job, panel);
        return;
    }
#endif
    for (long panel = first; panel < last; panel++)
        portable(job, panel);
}
