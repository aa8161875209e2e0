/* Attention of one query per sequence, straight from the paged pool.
 *
 * A unit of work is one row and one key head: it normalises and turns the key and the queries that share it, stores key
 * and value in the pool, and reads the sequence's blocks once with a running softmax. Sums are in fp32.
 */
#include "decode.h"
#include "vectors.h"

#include <math.h>

enum { TILE = 16, QUERIES = 4, MAX_HEAD_DIM = 256 }; /* positions and queries at once */

typedef struct {
    const model *model;
    const batch *batch;
    long layer;
    bf16 *heads, *y;
    int isa;
} attention;

INLINE void normalise_and_turn(const model *model, const bf16 *weight, long position, const bf16 *from, float *to)
{
    const long dim = model->head_dim, half = dim / 2;
    float scale = 1;
    if (weight) {
        float squares = 0;
        for (long i = 0; i < dim; i++)
            squares += widen(from[i]) * widen(from[i]);
        scale = (float)(1 / sqrt(squares / (double)dim + model->eps));
    }
    const float *cos = model->cos + position * half, *sin = model->sin + position * half;
    for (long i = 0; i < half; i++) {
        float a = widen(from[i]), b = widen(from[half + i]);
        if (weight) {
            a = widen(narrow(a * scale * widen(weight[i])));
            b = widen(narrow(b * scale * widen(weight[half + i])));
        }
        to[i] = widen(narrow(a * cos[i] - b * sin[i]));
        to[half + i] = widen(narrow(b * cos[i] + a * sin[i]));
    }
}

INLINE bf16 *run_of(const attention *job, long block, long which, long kv_head)
{
    const model *m = job->model;
    return m->pool + (((block * m->num_layers + job->layer) * 2 + which) * m->kv_heads + kv_head) * m->block_tokens * m->head_dim;
}

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

INLINE void attend_unit(const attention *job, long row, long kv_head)
{
    const model *m = job->model;
    const layer *weights = m->layers + job->layer;
    const long dim = m->head_dim, share = m->heads / m->kv_heads, position = job->batch->positions[row];
    const int64_t *table = job->batch->tables + row * job->batch->table_width;
    const bf16 *heads = job->heads + row * (m->heads + 2 * m->kv_heads) * dim;
    const float scale = 1 / sqrtf((float)dim);
    const long own = table[position / m->block_tokens], offset = position % m->block_tokens * dim;

    float key[MAX_HEAD_DIM];
    normalise_and_turn(m, weights->k_norm, position, heads + (m->heads + kv_head) * dim, key);
    bf16 *own_key = run_of(job, own, 0, kv_head) + offset;
    for (long i = 0; i < dim; i++)
        own_key[i] = narrow(key[i]);
    memcpy(run_of(job, own, 1, kv_head) + offset, heads + (m->heads + m->kv_heads + kv_head) * dim, dim * sizeof(bf16));

    const long first = weights->window && position >= weights->window ? position - weights->window + 1 : 0;
    for (long h = 0; h < share; h += QUERIES) {
        const long count = least(QUERIES, share - h);
        state s = {.top = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
        for (long q = 0; q < count; q++)
            normalise_and_turn(m, weights->q_norm, position, heads + (kv_head * share + h + q) * dim, s.query[q]);
        for (long at = first, next; at <= position; at = next) {
            const long inside = at % m->block_tokens, block = table[at / m->block_tokens];
            next = least(least(at + TILE, position + 1), at - inside + m->block_tokens);
            see(&s, run_of(job, block, 0, kv_head) + inside * dim, run_of(job, block, 1, kv_head) + inside * dim,
                next - at, dim, scale);
        }
        for (long q = 0; q < count; q++)
            for (long i = 0; i < dim; i++)
                job->y[(row * m->heads + kv_head * share + h + q) * dim + i] = narrow(s.sum[q][i] / s.total[q]);
    }
}

static void portable(const attention *job, long unit)
{
    attend_unit(job, unit / job->model->kv_heads, unit % job->model->kv_heads);
}

#ifdef X86
VECTOR static void vector(const attention *job, long unit)
{
    attend_unit(job, unit / job->model->kv_heads, unit % job->model->kv_heads);
}
#else
#define vector portable
#endif

static void units(const void *argument, long first, long last)
{
    const attention *job = argument;
    for (long unit = first; unit < last; unit++)
        (job->isa >= AVX512 ? vector : portable)(job, unit);
}

void attend(const machine *machine, const model *model, const batch *batch, long layer, bf16 *heads, bf16 *y)
{
    const attention job = {model, batch, layer, heads, y, machine->isa};
    share(machine, units, &job, batch->rows * model->kv_heads);
}
