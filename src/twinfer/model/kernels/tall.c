/* Products with many rows, on tiles (AMX) of bf16; packed matrices are unpacked on the way.
 *
 * A stretch is as many rows and elements of k as fit the second-level cache, packed as tiles. A thread takes 32 outputs
 * at a time, copies so much of their weights as fits the first-level cache, and goes through all rows of the stretch.
 * Both operands are read in order of address: tiles whose rows lie apart come from the second-level cache at a third of
 * the speed, since no prefetcher follows them.
 */
#include "tiles.h"

#include <stdlib.h>

enum { SIDE = 32, TILE = 32, ROWS = 512 };  /* rows and outputs of a block; elements of k in a tile; rows of a stretch */
enum { OUTER = 32, INNER = 8 };             /* tiles of k: of a stretch, and of the weights that are copied */
enum { BLOCK_BYTES = SIDE * TILE * sizeof(bf16), BLOCK_SUMS = SIDE * SIDE };

/* Fewer rows than these do not pay for copied weights; at 8 bits packed.c is faster for some more. */
int is_tall(const product *job)
{
    return job->isa == AMX && job->m > (job->w.bits == 8 ? 160 : 64) && job->w.k % TILE == 0;
}

#ifdef X86
typedef struct {
    const product *job;
    long row, rows, first, last; /* rows, and tiles of k */
    char *x;                     /* [rows / SIDE][tile][2][16 pairs of k][16 rows] */
    float *sums;                 /* [outputs / SIDE][rows / SIDE][BLOCK_SUMS] between stretches of k; null if there is one */
} stretch;

/* Units are tiles of sixteen rows. */
VECTOR static void pack(const void *argument, long first, long last)
{
    const stretch *part = argument;
    const product *job = part->job;
    const long tiles = part->last - part->first;
    for (long unit = first; unit < last; unit++) {
        const long half = unit % 2, tile = unit / 2 % tiles, row = part->row + unit / 2 / tiles * SIDE + half * 16;
        const bf16 *x = job->x + row * job->w.k + (part->first + tile) * TILE;
        __m512i words[16];
        for (int i = 0; i < 16; i++)
            words[i] = row + i < job->m ? _mm512_loadu_si512(x + i * job->w.k) : _mm512_setzero_si512();
        transpose(words);
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(part->x + unit * BLOCK_BYTES / 2 + i * 64, words[i]);
    }
}

#define WEIGHTS_A 4 /* after the four sums; the instructions want literals */
#define WEIGHTS_B 5
#define ROWS_A 6
#define ROWS_B 7

INLINE long padded(long k) { return (k + 127) / 128 * 128; } /* of packed weights; see packed.c */

/* Of sixteen outputs four elements of 8 bits each, from `shift` on two of them: pairs of bf16 with their scales. */
VECTOR INLINE __m512i pair_of(__m512i bytes, int shift, __m512 scales)
{
    const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(bytes, 24 - shift), 24);
    const __m512i high = _mm512_srai_epi32(_mm512_slli_epi32(bytes, 16 - shift), 24);
    const __m256i first = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_cvtepi32_ps(low), scales));
    const __m256i second = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_cvtepi32_ps(high), scales));
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

/* A tile of a packed matrix, [16 outputs][TILE elements of k]. */
VECTOR static void unpack(const matrix *w, long panel, long tile, char *to)
{
    const long group = w->bits == 8 ? 64 : 32, bytes = TILE * PANEL * w->bits / 8;
    const uint8_t *from = w->weights + panel * PANEL * padded(w->k) * w->bits / 8 + tile * bytes;
    const __m512 scales = widen16(w->scales + (panel * (padded(w->k) / group) + tile * TILE / group) * PANEL, 0xffff);
    __m512i pairs[16];
    for (int i = 0; i < 16; i += 2) {
        __m512i four = _mm512_loadu_si512(from + (w->bits == 8 ? i / 2 : i / 4) * 64);
        if (w->bits == 4) {
            four = i % 4 ? _mm512_srli_epi32(four, 4) : four;
            four = _mm512_sub_epi8(_mm512_and_si512(four, _mm512_set1_epi8(15)), _mm512_set1_epi8(8));
        }
        pairs[i] = pair_of(four, 0, scales);
        pairs[i + 1] = pair_of(four, 16, scales);
    }
    transpose(pairs);
    for (int i = 0; i < 16; i++)
        _mm512_store_si512(to + i * 64, pairs[i]);
}

/* Weights of SIDE outputs, `tiles` tiles wide, in the order in which they are used; zeros past the last output. */
VECTOR static void copy(const matrix *w, long output, long tile, long tiles, char *to)
{
    if (w->bits != 16) {
        for (long t = 0; t < tiles * 2; t++)
            if (output + t % 2 * PANEL < w->n)
                unpack(w, output / PANEL + t % 2, tile + t / 2, to + t * BLOCK_BYTES / 2);
            else
                memset(to + t * BLOCK_BYTES / 2, 0, BLOCK_BYTES / 2);
        return;
    }
    for (long i = 0; i < SIDE; i++) {
        const uint8_t *from = w->weights + ((output + i) * w->k + tile * TILE) * (long)sizeof(bf16);
        for (long t = 0; t < tiles; t++)
            _mm512_store_si512(to + t * BLOCK_BYTES + i * 64,
                               output + i < w->n ? _mm512_loadu_si512(from + t * 64) : _mm512_setzero_si512());
    }
}

/* What of the weights is read next: runs of lines of 64 bytes. */
typedef struct {
    const uint8_t *run;
    long stride, width, at, lines; /* bytes between runs, in each and done of it; lines that are left */
    long each;                     /* lines with each tile of k */
} reading;

/* Those of a unit, while the one before it takes so many turns. */
INLINE reading ahead(const stretch *part, long unit, long turns)
{
    const matrix *w = &part->job->w;
    const long lanes = w->bits == 16 ? SIDE : SIDE / PANEL, outputs = SIDE / lanes; /* runs, and the outputs in each */
    const long stride = outputs * (w->bits == 16 ? w->k : padded(w->k)) * w->bits / 8;
    const long tile = outputs * TILE * w->bits / 8, width = (part->last - part->first) * tile;
    const long lines = (unit + 1) * SIDE <= w->n ? lanes * width / 64 : 0;
    const uint8_t *run = w->weights + unit * lanes * stride + part->first * tile;
    return (reading){run, stride, width, 0, lines, (lines + turns - 1) / turns};
}

/* Into the second-level cache, a few at a time: memory answers no more at once. */
INLINE void read_ahead(reading *next)
{
    const long lines = least(next->each, next->lines);
    next->lines -= lines;
    for (long line = 0; line < lines; line++) {
        __builtin_prefetch(next->run + next->at, 0, 2);
        next->at += 64;
        if (next->at == next->width) {
            next->run += next->stride;
            next->at = 0;
        }
    }
}

/* `halves`: how many of the block's sixteens of rows there are. */
TILES INLINE void multiply_block(const char *w, const char *x, long tiles, const int halves, int fresh, float *sums,
                                 reading *next)
{
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(2, sums + 512, 64);
        if (halves == 2) {
            _tile_loadd(1, sums + 256, 64);
            _tile_loadd(3, sums + 768, 64);
        }
    }
    for (const char *end = w + tiles * BLOCK_BYTES; w < end; w += BLOCK_BYTES, x += BLOCK_BYTES) {
        _tile_loadd(WEIGHTS_A, w, 64);
        _tile_loadd(ROWS_A, x, 64);
        _tile_dpbf16ps(0, WEIGHTS_A, ROWS_A);
        if (halves == 2) {
            _tile_loadd(ROWS_B, x + BLOCK_BYTES / 2, 64);
            _tile_dpbf16ps(1, WEIGHTS_A, ROWS_B);
        }
        _tile_loadd(WEIGHTS_B, w + BLOCK_BYTES / 2, 64);
        _tile_dpbf16ps(2, WEIGHTS_B, ROWS_A);
        if (halves == 2)
            _tile_dpbf16ps(3, WEIGHTS_B, ROWS_B);
        read_ahead(next);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(2, sums + 512, 64);
    if (halves == 2) {
        _tile_stored(1, sums + 256, 64);
        _tile_stored(3, sums + 768, 64);
    }
}

/* A finished block: [2][16 outputs][2][16 rows] becomes rows of outputs. */
VECTOR static void emit_block(const product *job, long output, long row, const float *sums)
{
    for (int quarter = 0; quarter < 4; quarter++) {
        const long at = output + quarter / 2 * 16, top = row + quarter % 2 * 16;
        __m512i words[16];
        for (int i = 0; i < 16; i++)
            words[i] = _mm512_load_si512(sums + quarter * 256 + i * 16);
        transpose(words);
        for (long i = 0; i < least(16, job->m - top) && at < job->w.n; i++)
            emit16(job, at / PANEL, top + i, (__m512)words[i]);
    }
}

TILES static void outputs(const stretch *part, long unit, char *weights, float *spare)
{
    const product *job = part->job;
    const long blocks = part->rows / SIDE, tiles = part->last - part->first, steps = (tiles + INNER - 1) / INNER;
    const long width = (tiles + steps - 1) / steps, all = job->w.k / TILE;
    float *sums = part->sums ? part->sums + unit * blocks * BLOCK_SUMS : spare;
    reading next = ahead(part, unit + 1, blocks * tiles);
    for (long step = 0; step < steps; step++) {
        const long first = part->first + step * width, last = least(first + width, part->last);
        copy(&job->w, unit * SIDE, first, last - first, weights);
        for (long block = 0; block < blocks; block++) {
            float *here = sums + block * BLOCK_SUMS;
            const char *x = part->x + (block * tiles + first - part->first) * BLOCK_BYTES;
            if (part->row + block * SIDE + 16 < job->m)
                multiply_block(weights, x, last - first, 2, first == 0, here, &next);
            else
                multiply_block(weights, x, last - first, 1, first == 0, here, &next);
            if (last == all)
                emit_block(job, unit * SIDE, part->row + block * SIDE, here);
        }
    }
}

/* Units are SIDE outputs. */
TILES static void all_outputs(const void *argument, long first, long last)
{
    char weights[INNER * BLOCK_BYTES] __attribute__((aligned(64)));
    float spare[ROWS * SIDE] __attribute__((aligned(64)));
    use_tiles();
    for (long unit = first; unit < last; unit++)
        outputs(argument, unit, weights, spare);
    leave_tiles();
}

int tall_product(const machine *machine, const product *job)
{
    const long tiles = job->w.k / TILE, units = (job->w.n + SIDE - 1) / SIDE;
    const long outer = (tiles + OUTER - 1) / OUTER, width = (tiles + outer - 1) / outer;
    const size_t x_bytes = (size_t)ROWS / SIDE * width * BLOCK_BYTES;
    const size_t sum_bytes = outer > 1 ? (size_t)units * ROWS * SIDE * sizeof(float) : 0;
    char *room = aligned_alloc(64, x_bytes + sum_bytes);
    if (!room)
        return -1;
    for (long row = 0; row < job->m; row += ROWS)
        for (long first = 0; first < tiles; first += width) {
            const long rows = (least(ROWS, job->m - row) + SIDE - 1) / SIDE * SIDE, last = least(first + width, tiles);
            const stretch part = {job, row, rows, first, last, room, sum_bytes ? (float *)(room + x_bytes) : NULL};
            share(machine, pack, &part, rows / 16 * (last - first));
            share(machine, all_outputs, &part, units);
        }
    free(room);
    return 0;
}
#else
int tall_product(const machine *machine, const product *job) { return (void)machine, (void)job, -1; }
#endif
