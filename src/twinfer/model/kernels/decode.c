/* A whole decode step in one call: nothing between the products but what they need. */
#include "decode.h"

#include <stdlib.h>

/* Logits of the drawn rows, [num_drawn][n of head] in fp32. Returns 0, or -1 where there is no memory. */
API int twinfer_decode(const machine *machine, const model *m, const batch *b, float *logits)
{
    const long rows = b->rows, hidden = m->hidden, queries = m->heads * m->head_dim;
    const long all_heads = (m->heads + 2 * m->kv_heads) * m->head_dim;
    bf16 *room = malloc((size_t)(rows * (2 * hidden + all_heads + queries + 3 * m->inner)) * sizeof(bf16));
    if (!room)
        return -1;
    bf16 *x = room, *normed = x + rows * hidden, *heads = normed + rows * hidden, *attended = heads + rows * all_heads;
    bf16 *gate_up = attended + rows * queries, *gated = gate_up + rows * 2 * m->inner;
    int failed = 0;
    for (long r = 0; r < rows; r++)
        memcpy(x + r * hidden, m->embedding + b->tokens[r] * hidden, (size_t)hidden * sizeof(bf16));
    for (long l = 0; l < m->num_layers && !failed; l++) {
        const layer *w = m->layers + l;
        norm_rows(machine->isa, x, rows, hidden, w->attention_norm, m->eps, normed);
        failed |= multiply(machine, &w->qkv, normed, rows, w->qkv_bias, NULL, heads, 0);
        attend(machine, m, b, l, heads, attended);
        failed |= multiply(machine, &w->out, attended, rows, w->out_bias, x, x, 0);
        norm_rows(machine->isa, x, rows, hidden, w->mlp_norm, m->eps, normed);
        failed |= multiply(machine, &w->gate_up, normed, rows, NULL, NULL, gate_up, 0);
        gate_rows(machine, gate_up, rows, m->inner, gated);
        failed |= multiply(machine, &w->down, gated, rows, NULL, x, x, 0);
    }
    for (long r = 0; r < b->num_drawn; r++)
        norm_rows(machine->isa, x + b->drawn[r] * hidden, 1, hidden, m->final_norm, m->eps, normed + r * hidden);
    if (b->num_drawn)
        failed |= multiply(machine, &m->head, normed, b->num_drawn, NULL, NULL, logits, 1);
    free(room);
    return failed;
}
