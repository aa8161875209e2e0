/* Attention of one query of each sequence, straight from the paged pool.
 *
 * All keys and values are stored first, because a guess sees those of the guesses before it. Then a unit of work is one
 * row and one key head: it normalises and turns the queries that share it, and reads the sequence's blocks once with a
 * running softmax. Sums are in fp32.
 */
#include "heads.h"
#include "vectors.h"

enum { TILE = 16, QUERIES = 4 }; /* positions and queries at once */

typedef struct {
    const attention *attention;
    long first; /* slice */
} run;

/* Queries that share a key head: largest scores, sums of exponentials, and their sums of values. */
typedef struct {
    float top[QUERIES], total[QUERIES];
    float query[QUERIES][MAX_HEAD_DIM], sum[QUERIES][MAX_HEAD_DIM];
} state;

INLINE lanes at16(const float *from)
{
    lanes found;
    memcpy(&found, from, sizeof found);
    return found;
}

/* `count` positions, at most TILE. */
INLINE void see(state *s, const bf16 *keys, const bf16 *values, long count, long dim, float scale)
{
    lanes dots[QUERIES][TILE];
    float weight[QUERIES][TILE] __attribute__((aligned(64)));
    float fade[QUERIES];
    for (long t = 0; t < TILE; t++) {
        for (int q = 0; q < QUERIES; q++)
            dots[q][t] = (lanes){0};
        for (long i = 0; i < dim && t < count; i += 16) {
            const lanes key = load16(keys + t * dim + i);
            for (int q = 0; q < QUERIES; q++)
                dots[q][t] += at16(s->query[q] + i) * key;
        }
    }
    for (int q = 0; q < QUERIES; q++) {
        const lanes scores = sums16(dots[q]) * scale;
        float top = s->top[q], total = 0;
        for (long t = 0; t < count; t++)
            top = scores[t] > top || scores[t] != scores[t] ? scores[t] : top;
        const lanes found = exp16(scores - top);
        memcpy(weight[q], &found, sizeof found);
        for (long t = 0; t < count; t++)
            total += weight[q][t];
        fade[q] = expf(s->top[q] - top);
        s->top[q] = top;
        s->total[q] = s->total[q] * fade[q] + total;
    }
    for (long i = 0; i < dim; i += 16) {
        lanes sums[QUERIES];
        for (int q = 0; q < QUERIES; q++)
            sums[q] = at16(s->sum[q] + i) * fade[q];
        for (long t = 0; t < count; t++) {
            const lanes value = load16(values + t * dim + i);
            for (int q = 0; q < QUERIES; q++)
                sums[q] += weight[q][t] * value;
        }
        for (int q = 0; q < QUERIES; q++)
            memcpy(s->sum[q] + i, sums + q, sizeof sums[q]);
    }
}

INLINE void attend_unit(const attention *job, long slice, long kv_head)
{
    const model *m = job->model;
    const layer *weights = m->layers + job->layer;
    const long dim = m->head_dim, share = m->heads / m->kv_heads;
    const long row = job->batch->begins[slice], position = job->batch->starts[slice];
    const int64_t *table = job->batch->tables + slice * job->batch->table_width;
    const bf16 *heads = job->heads + row * (m->heads + 2 * m->kv_heads) * dim;
    const float scale = 1 / sqrtf((float)dim);

    const long first = weights->window && position >= weights->window ? position - weights->window + 1 : 0;
    for (long h = 0; h < share; h += QUERIES) {
        const long count = least(QUERIES, share - h);
        state s = {.top = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
        for (long q = 0; q < count; q++)
            normalise_and_turn(m, weights->q_norm, position, heads + (kv_head * share + h + q) * dim, s.query[q]);
        for (long at = first, next; at <= position; at = next) {
            next = least(least(at + TILE, position + 1), at - at % m->block_tokens + m->block_tokens);
            see(&s, place_of(job, table, at, 0, kv_head), place_of(job, table, at, 1, kv_head), next - at, dim, scale);
        }
        for (long q = 0; q < count; q++)
            for (long i = 0; i < dim; i++)
                job->y[(row * m->heads + kv_head * share + h + q) * dim + i] = narrow(s.sum[q][i] / s.total[q]);
    }
}

/* Units are slices. */
INLINE void keep_units(const run *job, long first, long last)
{
    const model *m = job->attention->model;
    const batch *b = job->attention->batch;
    for (long slice = job->first + first; slice < job->first + last; slice++)
        for (long h = 0; h < m->kv_heads; h++)
            keep(job->attention, b->tables + slice * b->table_width, b->starts[slice],
                 job->attention->heads + b->begins[slice] * (m->heads + 2 * m->kv_heads) * m->head_dim, h);
}

INLINE void attend_units(const run *job, long first, long last)
{
    const long kv_heads = job->attention->model->kv_heads;
    for (long unit = first; unit < last; unit++)
        attend_unit(job->attention, job->first + unit / kv_heads, unit % kv_heads);
}

static void portable(const run *job, long first, long last) { attend_units(job, first, last); }
VECTOR static void vector(const run *job, long first, long last) { attend_units(job, first, last); }
static void portable_keep(const run *job, long first, long last) { keep_units(job, first, last); }
VECTOR static void vector_keep(const run *job, long first, long last) { keep_units(job, first, last); }

static void kept(const void *argument, long first, long last)
{
    const run *job = argument;
    (job->attention->isa >= AVX512 ? vector_keep : portable_keep)(job, first, last);
}

static void units(const void *argument, long first, long last)
{
    const run *job = argument;
    (job->attention->isa >= AVX512 ? vector : portable)(job, first, last);
}

void attend_tokens(const machine *machine, const attention *job, int64_t slice, int64_t count)
{
    const run all = {job, slice};
    share(machine, kept, &all, count);
    if (tokens_fit_tiles(job)) {
        attend_tokens_on_tiles(machine, job, slice, count);
        return;
    }
    share(machine, units, &all, count * job->model->kv_heads);
}
