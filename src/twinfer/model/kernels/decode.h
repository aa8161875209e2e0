/* A decode step of a dense decoder: what the model is, and one token of each of several sequences. */
#pragma once

#include "kernels.h"

/* Null where the model has none. qkv makes query, key and value heads in this order; gate_up the gate's rows first. */
typedef struct {
    const bf16 *attention_norm, *qkv_bias, *q_norm, *k_norm, *out_bias, *mlp_norm;
    matrix qkv, out, gate_up, down;
    int64_t window; /* positions up to its own that a query sees; 0 sees all */
} layer;

/* pool[block][layer][K | V][kv_head][token][head_dim]; cos and sin are [position][head_dim / 2]. */
typedef struct {
    int64_t num_layers, hidden, heads, kv_heads, head_dim, inner, block_tokens;
    double eps;
    const layer *layers;
    const bf16 *embedding, *final_norm;
    matrix head;
    const float *cos, *sin;
    bf16 *pool;
} model;

/* Row r is the token at positions[r] of a sequence whose blocks are tables[r * table_width ...]. */
typedef struct {
    int64_t rows, table_width;
    const int64_t *tokens, *positions, *tables;
    int64_t num_drawn;
    const int64_t *drawn; /* rows whose logits are wanted */
} batch;

void norm_rows(int isa, const bf16 *x, long rows, long width, const bf16 *weight, double eps, bf16 *y);
void gate_rows(const machine *machine, const bf16 *gate_up, long rows, long inner, bf16 *y);

/* heads[row][heads + 2 * kv_heads][head_dim] of one layer: keys and values into the pool, attention into y. */
void attend(const machine *machine, const model *model, const batch *batch, long layer, bf16 *heads, bf16 *y);

int multiply(const machine *machine, const matrix *w, const bf16 *x, int64_t m, const bf16 *bias, const bf16 *residual,
             void *y, int32_t wide);
