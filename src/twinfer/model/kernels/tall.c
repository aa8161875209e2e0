/* Products of bf16 matrices with many rows, on tiles (AMX).
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

int is_tall(const product *job) { return job->isa == AMX && job->m > 64 && job->w.bits == 16 && job->w.k % TILE == 0; }

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

/* Weights of SIDE outputs, `tiles` tiles wide, in the order in which they are used. */
VECTOR static void copy(const product *job, long output, long tile, long tiles, char *to)
{
    for (long i = 0; i < SIDE; i++) {
        const char *from = (const char *)job->w.weights + ((output + i) * job->w.k + tile * TILE) * (long)sizeof(bf16);
        for (long t = 0; t < tiles; t++)
            _mm512_store_si512(to + t * BLOCK_BYTES + i * 64,
                               output + i < job->w.n ? _mm512_loadu_si512(from + t * 64) : _mm512_setzero_si512());
    }
}

/* One line in `of` of the weights that are copied next. */
INLINE void fetch(const product *job, long output, long tile, long tiles, long turn, long turns)
{
    const long lines = SIDE * tiles, each = (lines + turns - 1) / turns;
    for (long line = turn * each; line < least((turn + 1) * each, lines); line++)
        __builtin_prefetch(job->w.weights + ((output + line / tiles) * job->w.k + (tile + line % tiles) * TILE) * 2, 0, 2);
}

TILES static void multiply_block(const char *w, const char *x, long tiles, int fresh, float *sums)
{
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + 256, 64);
        _tile_loadd(2, sums + 512, 64);
        _tile_loadd(3, sums + 768, 64);
    }
    for (const char *end = w + tiles * BLOCK_BYTES; w < end; w += BLOCK_BYTES, x += BLOCK_BYTES) {
        _tile_loadd(WEIGHTS_A, w, 64);
        _tile_loadd(ROWS_A, x, 64);
        _tile_dpbf16ps(0, WEIGHTS_A, ROWS_A);
        _tile_loadd(ROWS_B, x + BLOCK_BYTES / 2, 64);
        _tile_dpbf16ps(1, WEIGHTS_A, ROWS_B);
        _tile_loadd(WEIGHTS_B, w + BLOCK_BYTES / 2, 64);
        _tile_dpbf16ps(2, WEIGHTS_B, ROWS_A);
        _tile_dpbf16ps(3, WEIGHTS_B, ROWS_B);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
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

static void outputs(const stretch *part, long unit, char *weights, float *spare)
{
    const product *job = part->job;
    const long blocks = part->rows / SIDE, tiles = part->last - part->first, steps = (tiles + INNER - 1) / INNER;
    const long width = (tiles + steps - 1) / steps, all = job->w.k / TILE;
    float *sums = part->sums ? part->sums + unit * blocks * BLOCK_SUMS : spare;
    for (long step = 0; step < steps; step++) {
        const long first = part->first + step * width, last = least(first + width, part->last);
        const long next = last < part->last ? last : part->first, next_unit = last < part->last ? unit : unit + 1;
        const int fetches = next_unit * SIDE < job->w.n - SIDE;
        copy(job, unit * SIDE, first, last - first, weights);
        for (long block = 0; block < blocks; block++) {
            float *here = sums + block * BLOCK_SUMS;
            const char *x = part->x + (block * tiles + first - part->first) * BLOCK_BYTES;
            if (fetches)
                fetch(job, next_unit * SIDE, next, least(width, part->last - next), block, blocks);
            multiply_block(weights, x, last - first, first == 0, here);
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
