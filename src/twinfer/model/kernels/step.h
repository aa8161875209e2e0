/* A step of a dense decoder: what the model is, and the tokens of several sequences. */
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

/* Slice s is the tokens [begins[s], begins[s + 1]) at consecutive positions of a sequence whose blocks are
 * tables[s * table_width ...]; its first is at starts[s]. */
typedef struct {
    int64_t rows, num_slices, table_width;
    const int64_t *tokens, *begins, *starts, *tables;
    int64_t num_drawn;
    const int64_t *drawn; /* rows whose logits are wanted */
} batch;

/* One layer's attention: heads[row][heads + 2 * kv_heads][head_dim], as the product gave them, and y[row][heads][head_dim]. */
typedef struct {
    const model *model;
    const batch *batch;
    int64_t layer;
    bf16 *heads, *y;
    int64_t isa;
} attention;

void norm_rows(const machine *machine, const bf16 *x, int64_t rows, int64_t width, const bf16 *weight, double eps, bf16 *y);
void gate_rows(const machine *machine, const bf16 *gate_up, int64_t rows, int64_t inner, bf16 *y);

/* Both normalise and turn queries and keys and store keys and values in the pool: for a slice of one token, where
 * `count` such slices follow each other, and for one of many. */
void attend_tokens(const machine *machine, const attention *job, int64_t slice, int64_t count);
void attend_prompt(const machine *machine, const attention *job, int64_t slice);
/* How slices of one are done where heads have the right sizes, once their keys and values are stored. */
int tokens_fit_tiles(const attention *job);
void attend_tokens_on_tiles(const machine *machine, const attention *job, int64_t slice, int64_t count);

int multiply(const machine *machine, const matrix *w, const bf16 *x, int64_t m, const bf16 *bias, const bf16 *residual,
             void *y, int32_t wide);
