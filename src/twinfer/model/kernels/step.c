/* A whole step in one call: nothing between the products but what they need. */
#include "step.h"

#include <stdlib.h>

/* One thread's room, kept from step to step: fresh pages cost more than what happens in them. */
static void *room_of(size_t bytes)
{
    static _Thread_local struct {
        void *start;
        size_t bytes;
    } room;
    if (bytes > room.bytes) {
        free(room.start);
        room.start = malloc(bytes);
        room.bytes = room.start ? bytes : 0;
    }
    return room.start;
}

static void attend(const machine *machine, const attention *job)
{
    const int64_t *begins = job->batch->begins;
    for (long slice = 0, next; slice < job->batch->num_slices; slice = next) {
        for (next = slice; next < job->batch->num_slices && begins[next + 1] - begins[next] == 1; next++)
            ;
        if (next > slice)
            attend_tokens(machine, job, slice, next - slice);
        else
            attend_prompt(machine, job, next++);
    }
}

/* Logits of the drawn rows, [num_drawn][n of head] in fp32. Returns 0, or -1 where there is no memory. */
API int twinfer_step(const machine *machine, const model *m, const batch *b, float *logits)
{
    const long rows = b->rows, hidden = m->hidden, queries = m->heads * m->head_dim;
    const long all_heads = (m->heads + 2 * m->kv_heads) * m->head_dim;
    bf16 *x = room_of((size_t)(rows * (2 * hidden + all_heads + queries + 3 * m->inner)) * sizeof(bf16));
    if (!x)
        return -1;
    bf16 *normed = x + rows * hidden, *heads = normed + rows * hidden, *attended = heads + rows * all_heads;
    bf16 *gate_up = attended + rows * queries, *gated = gate_up + rows * 2 * m->inner;
    int failed = 0;
    for (long r = 0; r < rows; r++)
        memcpy(x + r * hidden, m->embedding + b->tokens[r] * hidden, (size_t)hidden * sizeof(bf16));
    for (long l = 0; l < m->num_layers && !failed; l++) {
        const layer *w = m->layers + l;
        const attention attention = {m, b, l, heads, attended, machine->isa};
        norm_rows(machine, x, rows, hidden, w->attention_norm, m->eps, normed);
        failed |= multiply(machine, &w->qkv, normed, rows, w->qkv_bias, NULL, heads, 0);
        attend(machine, &attention);
        failed |= multiply(machine, &w->out, attended, rows, w->out_bias, x, x, 0);
        norm_rows(machine, x, rows, hidden, w->mlp_norm, m->eps, normed);
        failed |= multiply(machine, &w->gate_up, normed, rows, NULL, NULL, gate_up, 0);
        gate_rows(machine, gate_up, rows, m->inner, gated);
        failed |= multiply(machine, &w->down, gated, rows, NULL, x, x, 0);
    }
    for (long r = 0; r < b->num_drawn; r++)
        norm_rows(machine, x + b->drawn[r] * hidden, 1, hidden, m->final_norm, m->eps, normed + r * hidden);
    if (b->num_drawn)
        failed |= multiply(machine, &m->head, normed, b->num_drawn, NULL, NULL, logits, 1);
    return failed;
}
