/* Heads of queries, keys and values, and where keys and values are kept. */
#pragma once

#include "step.h"

#include <math.h>

enum { MAX_HEAD_DIM = 256 };

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

/* Keys (0) or values (1) of a block's tokens, [block_tokens][head_dim]. */
INLINE bf16 *run_of(const attention *job, long block, long which, long kv_head)
{
    const model *m = job->model;
    return m->pool + (((block * m->num_layers + job->layer) * 2 + which) * m->kv_heads + kv_head) * m->block_tokens * m->head_dim;
}

INLINE bf16 *place_of(const attention *job, const int64_t *table, long position, long which, long kv_head)
{
    const long tokens = job->model->block_tokens;
    return run_of(job, table[position / tokens], which, kv_head) + position % tokens * job->model->head_dim;
}

/* One position's key, from its row of heads to the pool, and its value. */
INLINE void keep(const attention *job, const int64_t *table, long position, const bf16 *heads, long kv_head)
{
    const model *m = job->model;
    const bf16 *key = heads + (m->heads + kv_head) * m->head_dim;
    float turned[MAX_HEAD_DIM];
    normalise_and_turn(m, m->layers[job->layer].k_norm, position, key, turned);
    bf16 *place = place_of(job, table, position, 0, kv_head);
    for (long i = 0; i < m->head_dim; i++)
        place[i] = narrow(turned[i]);
    memcpy(place_of(job, table, position, 1, kv_head), key + m->kv_heads * m->head_dim, m->head_dim * sizeof(bf16));
}
