/* workspace.c - cuts the memory of a forward and backward pass. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

static tensor matrix(arena *a, dtype type, int64_t rows, int64_t cols)
{
    return tensor_matrix(arena_take(a, (size_t)(rows * cols) * dtype_size(type)), type, rows, cols);
}

static tensor vector(arena *a, int64_t n)
{
    return tensor_vector(arena_take(a, (size_t)n * sizeof(float)), DTYPE_F32, n);
}

/* Everything of a layer's state but x_attention. */
static layer_state cut_layer(arena *a, const model_config *c, dtype type, int64_t T)
{
    const int64_t C = c->hidden_size, H = c->num_attention_heads, K = c->num_key_value_heads;
    const int64_t Q = H * c->head_dim, KV = K * c->head_dim;
    layer_state s = {0};
    s.rstd_attention = vector(a, T);
    if (c->qk_norm) {
        s.qk_plain = matrix(a, type, T, Q + KV);
        s.rstd_q = matrix(a, DTYPE_F32, T, H);
        s.rstd_k = matrix(a, DTYPE_F32, T, K);
    }
    s.qkv = matrix(a, type, T, Q + 2 * KV);
    s.attended = matrix(a, type, T, Q);
    s.lse = matrix(a, DTYPE_F32, T, H);
    s.x_mlp = matrix(a, type, T, C);
    s.rstd_mlp = vector(a, T);
    s.gate_up = matrix(a, type, T, 2 * c->intermediate_size);
    return s;
}

cudpo_status model_workspace_cut(model_workspace *ws, arena *a, const model_config *c,
                                 workspace_kind kind, dtype type, int64_t capacity,
                                 int64_t positions)
{
    const int64_t T = capacity, C = c->hidden_size, F = c->intermediate_size,
                  L = c->num_hidden_layers;
    const int64_t Q = c->num_attention_heads * c->head_dim,
                  KV = c->num_key_value_heads * c->head_dim;
    *ws = (model_workspace){.kind = kind, .capacity = capacity};
    ws->layer = calloc((size_t)L, sizeof *ws->layer);
    if (ws->layer == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld layers", (long long)L);

    for (int64_t l = 0; l < L; l++) {
        const bool own_state = l == 0 || kind == WORKSPACE_TRAIN;
        const bool own_x = l == 0 || kind != WORKSPACE_SCORE;
        ws->layer[l] = own_state ? cut_layer(a, c, type, T) : ws->layer[0];
        if (own_x) ws->layer[l].x_attention = matrix(a, type, T, C);
    }
    ws->cosine = matrix(a, DTYPE_F32, positions, c->head_dim / 2);
    ws->sine = matrix(a, DTYPE_F32, positions, c->head_dim / 2);
    ws->y = matrix(a, type, T, C);
    ws->branch = matrix(a, type, T, C);
    ws->act = matrix(a, type, T, F);
    ws->gathered = matrix(a, type, T, Q);
    ws->x_final = matrix(a, type, T, C);
    ws->rstd_final = vector(a, T);
    ws->hidden = matrix(a, type, T, C);
    if (kind == WORKSPACE_SCORE) return CUDPO_OK;
    ws->dx = matrix(a, type, T, C);
    ws->dy = matrix(a, type, T, C);
    ws->dqkv = matrix(a, type, T, Q + 2 * KV);
    ws->dattended = matrix(a, type, T, Q);
    ws->dact = matrix(a, type, T, F);
    ws->dgate_up = matrix(a, type, T, 2 * F);
    return CUDPO_OK;
}

void model_workspace_free(model_workspace *ws)
{
    free(ws->layer);
    *ws = (model_workspace){0};
}

cudpo_status model_workspace_rotations(model_workspace *ws, backend *be, const model_config *c)
{
    const int64_t half = c->head_dim / 2, positions = ws->cosine.rows;
    const size_t n = (size_t)(positions * half);
    double *frequency = malloc((size_t)half * sizeof *frequency);
    float *cosine = malloc(n * sizeof *cosine), *sine = malloc(n * sizeof *sine);
    cudpo_status status = CUDPO_OK;
    if (frequency == NULL || cosine == NULL || sine == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "rotations of %lld positions",
                            (long long)positions);
        goto out;
    }
    model_config_frequencies(c, frequency);
    for (int64_t p = 0; p < positions; p++) {
        for (int64_t j = 0; j < half; j++) {
            /* transformers multiplies in float32; the rounded angle is part of the model that was trained. */
            const float angle = (float)p * (float)frequency[j];
            cosine[p * half + j] = (float)cos((double)angle);
            sine[p * half + j] = (float)sin((double)angle);
        }
    }
    status = be->copy_in(be, ws->cosine.data, cosine, n * sizeof *cosine);
    if (status == CUDPO_OK) status = be->copy_in(be, ws->sine.data, sine, n * sizeof *sine);
    if (status == CUDPO_OK) status = be->sync(be);
out:
    free(frequency);
    free(cosine);
    free(sine);
    return status;
}
