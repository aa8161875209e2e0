/* Attention on tiles (AMX), straight from the paged pool: of a slice of many queries, and of slices of one each.
 *
 * A unit of work is one key head and up to 16 tiles of 16 queries, of all heads that share it; of slices of one, a tile is
 * these heads at one position. It takes the keys 64 at a time: packs them and their values once, and for each tile
 * multiplies, updates a running softmax, and multiplies again. Scores and sums are in fp32; weights are rounded to bf16.
 * Head sizes are multiples of 32.
 */
#include "heads.h"
#include "tiles.h"

enum { KEYS = 64, SIDE = 16, MAX_TILES = 16 };

#ifdef X86
typedef struct {
    const attention *attention;
    long slice, tiles_per_head; /* tiles of each head that a unit has */
} prompt;

/* Sixteen queries: of one head at the positions first, first + 1, ..., or of several heads at one. */
typedef struct {
    long count, first, last;
    bf16 *y;       /* of the first; that of the next one is `stride` further */
    long stride;
    bf16 query[MAX_HEAD_DIM / 32][SIDE][32] __attribute__((aligned(64)));
    float sums[MAX_HEAD_DIM / SIDE][SIDE][SIDE] __attribute__((aligned(64)));
    __m512 total[SIDE]; /* of exponentials, still by lane */
    float top[SIDE];
} tile;

typedef struct {
    bf16 keys[KEYS / SIDE][MAX_HEAD_DIM / 32][SIDE][32] __attribute__((aligned(64)));
    bf16 values[KEYS / 32][MAX_HEAD_DIM / SIDE][SIDE][32] __attribute__((aligned(64)));
} packed;

VECTOR INLINE void turn_query(const attention *a, long position, bf16 *query)
{
    float turned[MAX_HEAD_DIM];
    normalise_and_turn(a->model, a->model->layers[a->layer].q_norm, position, query, turned);
    for (long j = 0; j < a->model->head_dim; j++)
        query[j] = narrow(turned[j]);
}

VECTOR static void place_rows(const void *argument, long first, long last)
{
    const prompt *job = argument;
    const attention *a = job->attention;
    const model *m = a->model;
    const long dim = m->head_dim, begin = a->batch->begins[job->slice];
    const int64_t *table = a->batch->tables + job->slice * a->batch->table_width;
    for (long i = first; i < last; i++) {
        const long position = a->batch->starts[job->slice] + i;
        bf16 *heads = a->heads + (begin + i) * (m->heads + 2 * m->kv_heads) * dim;
        for (long h = 0; h < m->kv_heads; h++)
            keep(a, table, position, heads, h);
        for (long h = 0; h < m->heads; h++)
            turn_query(a, position, heads + h * dim);
    }
}

/* Queries that are `apart` from each other. */
VECTOR static void load_tile(const bf16 *from, long apart, long dim, tile *t)
{
    for (long part = 0; part < dim / 32; part++)
        for (long q = 0; q < SIDE; q++)
            _mm512_store_si512(t->query[part][q], q < t->count ? _mm512_loadu_si512(from + q * apart + part * 32)
                                                               : _mm512_setzero_si512());
    memset(t->sums, 0, (size_t)dim * SIDE * sizeof(float));
    for (long q = 0; q < SIDE; q++) {
        t->total[q] = _mm512_setzero_ps();
        t->top[q] = -1e30f;
    }
}

/* Keys and values of `count` positions from `first` on; the rest of KEYS is zero. */
VECTOR static void pack_keys(const attention *a, const int64_t *table, long kv_head, long first, long count, packed *to)
{
    const long dim = a->model->head_dim;
    const bf16 *keys[KEYS], *values[KEYS];
    for (long k = 0; k < count; k++) {
        keys[k] = place_of(a, table, first + k, 0, kv_head);
        values[k] = place_of(a, table, first + k, 1, kv_head);
    }
    for (long group = 0; group < KEYS / SIDE; group++)
        for (long part = 0; part < dim / 32; part++) {
            __m512i words[SIDE];
            for (long k = 0; k < SIDE; k++)
                words[k] = group * SIDE + k < count ? _mm512_loadu_si512(keys[group * SIDE + k] + part * 32)
                                                    : _mm512_setzero_si512();
            transpose(words);
            for (long pair = 0; pair < SIDE; pair++)
                _mm512_store_si512(to->keys[group][part][pair], words[pair]);
        }
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (long k = 0; k < KEYS; k += 2)
        for (long part = 0; part < dim / 32; part++) {
            const __m512i a0 = k < count ? _mm512_loadu_si512(values[k] + part * 32) : _mm512_setzero_si512();
            const __m512i a1 = k + 1 < count ? _mm512_loadu_si512(values[k + 1] + part * 32) : _mm512_setzero_si512();
            _mm512_store_si512(to->values[k / 32][part * 2][k % 32 / 2], _mm512_permutex2var_epi16(a0, low, a1));
            _mm512_store_si512(to->values[k / 32][part * 2 + 1][k % 32 / 2], _mm512_permutex2var_epi16(a0, high, a1));
        }
}

/* Two to the power of x <= 0, to 4e-6 of itself. */
VECTOR INLINE __m512 power_of_two(__m512 x)
{
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(9.6181291e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

TILES static void score(const tile *t, const packed *keys, long parts, float (*scores)[SIDE][SIDE])
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long part = 0; part < parts; part++) {
        _tile_loadd(4, t->query[part], 64);
        _tile_loadd(5, keys->keys[0][part], 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, keys->keys[1][part], 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, keys->keys[2][part], 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, keys->keys[3][part], 64);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, scores[0], 64);
    _tile_stored(1, scores[1], 64);
    _tile_stored(2, scores[2], 64);
    _tile_stored(3, scores[3], 64);
}

/* Which of the 16 keys from `key` on a query sees. */
INLINE unsigned seen(long query, long window, long key)
{
    const long last = query - key, first = window ? last - window + 1 : 0;
    const unsigned up_to = last < 0 ? 0 : last >= 15 ? 0xffff : (2u << last) - 1;
    return first <= 0 ? up_to : first > 15 ? 0 : up_to & ~((1u << first) - 1);
}

/* Scores of one query become weights, and what it has summed fades if a larger score came. */
VECTOR INLINE void weigh(tile *t, long q, long key, long window, float scale, long dim, float (*scores)[SIDE][SIDE],
                         bf16 (*weights)[SIDE][32])
{
    __m512 s[KEYS / SIDE], largest = _mm512_set1_ps(-3e38f);
    for (int g = 0; g < KEYS / SIDE; g++) {
        const unsigned mask = seen(least(t->first + q, t->last), window, key + g * SIDE);
        s[g] = _mm512_mask_mul_ps(_mm512_set1_ps(-3e38f), mask, _mm512_load_ps(scores[g][q]), _mm512_set1_ps(scale));
        largest = _mm512_max_ps(s[g], largest); /* of two, the second where one is not a number */
    }
    const float top = _mm512_reduce_max_ps(largest);
    if (top > t->top[q]) {
        const __m512 fade = power_of_two(_mm512_set1_ps(t->top[q] - top));
        for (long part = 0; part < dim / SIDE; part++)
            _mm512_store_ps(t->sums[part][q], _mm512_mul_ps(_mm512_load_ps(t->sums[part][q]), fade));
        t->total[q] = _mm512_mul_ps(t->total[q], fade);
        t->top[q] = top;
    }
    for (int g = 0; g < KEYS / SIDE; g++) {
        s[g] = power_of_two(_mm512_sub_ps(s[g], _mm512_set1_ps(t->top[q])));
        t->total[q] = _mm512_add_ps(t->total[q], s[g]);
    }
    _mm512_store_si512(weights[0][q], (__m512i)_mm512_cvtne2ps_pbh(s[1], s[0]));
    _mm512_store_si512(weights[1][q], (__m512i)_mm512_cvtne2ps_pbh(s[3], s[2]));
}

TILES static void gather(tile *t, const packed *keys, long parts, bf16 (*weights)[SIDE][32])
{
    _tile_loadd(4, weights[0], 64);
    _tile_loadd(5, weights[1], 64);
    for (long part = 0; part < parts; part += 2) {
        _tile_loadd(0, t->sums[part], 64);
        _tile_loadd(1, t->sums[part + 1], 64);
        _tile_loadd(6, keys->values[0][part], 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, keys->values[0][part + 1], 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(6, keys->values[1][part], 64);
        _tile_dpbf16ps(0, 5, 6);
        _tile_loadd(7, keys->values[1][part + 1], 64);
        _tile_dpbf16ps(1, 5, 7);
        _tile_stored(0, t->sums[part], 64);
        _tile_stored(1, t->sums[part + 1], 64);
    }
}

VECTOR static void see(tile *t, const packed *keys, long key, long window, long dim)
{
    float scores[KEYS / SIDE][SIDE][SIDE] __attribute__((aligned(64)));
    bf16 weights[KEYS / 32][SIDE][32] __attribute__((aligned(64)));
    const float scale = 1.44269504f / sqrtf((float)dim); /* of powers of two */
    score(t, keys, dim / 32, scores);
    for (long q = 0; q < t->count; q++)
        weigh(t, q, key, window, scale, dim, scores, weights);
    gather(t, keys, dim / SIDE, weights);
}

VECTOR static void store_tile(const tile *t, long dim)
{
    for (long q = 0; q < t->count; q++) {
        const __m512 share = _mm512_set1_ps(1 / _mm512_reduce_add_ps(t->total[q]));
        for (long part = 0; part < dim / SIDE; part++)
            narrow16(t->y + q * t->stride + part * SIDE, 0xffff, _mm512_mul_ps(_mm512_load_ps(t->sums[part][q]), share));
    }
}

/* Tiles whose queries are at the positions [start, last] and share a key head; their results are stored. */
static void attend_tiles(const attention *a, const int64_t *table, long kv_head, long start, long last, tile *tiles, long count)
{
    const long window = a->model->layers[a->layer].window, dim = a->model->head_dim;
    packed keys;
    const long earliest = window && start >= window ? start - window + 1 : 0;
    for (long key = earliest; key <= last; key += KEYS) {
        pack_keys(a, table, kv_head, key, least(KEYS, last + 1 - key), &keys);
        for (tile *t = tiles; t < tiles + count; t++)
            if (key <= t->last && (!window || key + KEYS > t->first - window + 1))
                see(t, &keys, key, window, dim);
    }
    for (tile *t = tiles; t < tiles + count; t++)
        store_tile(t, dim);
}

/* The heads [first_head, last_head) of one key head, and of each the queries [query, query + count) of the slice. */
static void attend_some(const prompt *job, long first_head, long last_head, long query, long count, tile *tiles)
{
    const attention *a = job->attention;
    const model *m = a->model;
    const long dim = m->head_dim, width = (m->heads + 2 * m->kv_heads) * dim, stride = m->heads * dim;
    const long start = a->batch->starts[job->slice] + query, row = a->batch->begins[job->slice] + query;
    const int64_t *table = a->batch->tables + job->slice * a->batch->table_width;
    long num_tiles = 0;
    for (long head = first_head; head < last_head; head++)
        for (long at = 0; at < count; at += SIDE) {
            tile *t = tiles + num_tiles++;
            const long queries = least(SIDE, count - at);
            t->count = queries, t->first = start + at, t->last = start + at + queries - 1;
            t->y = a->y + (row + at) * stride + head * dim, t->stride = stride;
            load_tile(a->heads + (row + at) * width + head * dim, width, dim, t);
        }
    attend_tiles(a, table, first_head / (m->heads / m->kv_heads), start, start + count - 1, tiles, num_tiles);
}

static void attend_units(const void *argument, long first, long last)
{
    const prompt *job = argument;
    const model *m = job->attention->model;
    const long rows = job->attention->batch->begins[job->slice + 1] - job->attention->batch->begins[job->slice];
    const long group = m->heads / m->kv_heads, queries = job->tiles_per_head * SIDE, parts = (rows + queries - 1) / queries;
    const long heads_at_once = MAX_TILES / job->tiles_per_head;
    tile tiles[MAX_TILES];
    use_tiles();
    for (long unit = first; unit < last; unit++) {
        const long head = unit / parts * group, query = (parts - 1 - unit % parts) * queries; /* the longest first */
        for (long h = 0; h < group; h += heads_at_once)
            attend_some(job, head + h, head + least(group, h + heads_at_once), query, least(queries, rows - query), tiles);
    }
    leave_tiles();
}

void attend_prompt(const machine *machine, const attention *attention, int64_t slice)
{
    const model *m = attention->model;
    const long rows = attention->batch->begins[slice + 1] - attention->batch->begins[slice];
    const long group = m->heads / m->kv_heads, each = group < MAX_TILES ? MAX_TILES / group : 1;
    const prompt job = {attention, slice, each};
    share(machine, place_rows, &job, rows);
    share(machine, attend_units, &job, m->kv_heads * ((rows + each * SIDE - 1) / (each * SIDE)));
}

/* Units are key heads of slices, whose keys and values are stored already. */
TILES static void token_units(const void *argument, long first, long last)
{
    const prompt *job = argument;
    const attention *a = job->attention;
    const model *m = a->model;
    const long dim = m->head_dim, group = m->heads / m->kv_heads;
    tile t;
    use_tiles();
    for (long unit = first; unit < last; unit++) {
        const long slice = job->slice + unit / m->kv_heads, kv_head = unit % m->kv_heads, head = kv_head * group;
        const long row = a->batch->begins[slice], position = a->batch->starts[slice];
        const int64_t *table = a->batch->tables + slice * a->batch->table_width;
        bf16 *heads = a->heads + row * (m->heads + 2 * m->kv_heads) * dim;
        for (long h = head; h < head + group; h++)
            turn_query(a, position, heads + h * dim);
        t.count = group, t.first = t.last = position;
        t.y = a->y + (row * m->heads + head) * dim, t.stride = dim;
        load_tile(heads + head * dim, dim, dim, &t);
        attend_tiles(a, table, kv_head, position, position, &t, 1);
    }
    leave_tiles();
}

int tokens_fit_tiles(const attention *a)
{
    return a->isa == AMX && a->model->head_dim % 32 == 0 && a->model->heads / a->model->kv_heads <= SIDE;
}

void attend_tokens_on_tiles(const machine *machine, const attention *attention, int64_t slice, int64_t count)
{
    const prompt job = {attention, slice, 1};
    share(machine, token_units, &job, count * attention->model->kv_heads);
}
#else
int tokens_fit_tiles(const attention *a) { return (void)a, 0; }

void attend_tokens_on_tiles(const machine *machine, const attention *attention, int64_t slice, int64_t count)
{
    (void)machine, (void)attention, (void)slice, (void)count; /* never asked for without tiles */
}

void attend_prompt(const machine *machine, const attention *attention, int64_t slice)
{
    (void)machine, (void)attention, (void)slice; /* never asked for without tiles */
}
#endif
