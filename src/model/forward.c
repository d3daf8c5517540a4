/* forward.c - from tokens to hidden states. */
#include "model/layer.h"
#include "model/offload.h"

#include <math.h>

attention_shape layer_attention_shape(const model_config *c, int64_t l)
{
    return (attention_shape){.heads = (int)c->num_attention_heads,
                             .kv_heads = (int)c->num_key_value_heads,
                             .head_dim = (int)c->head_dim,
                             .window = (int)model_config_window(c, l),
                             .scale = 1.0f / sqrtf((float)c->head_dim)};
}

static tensor rows(tensor t, int64_t T)
{
    return tensor_present(t) ? tensor_rows(t, 0, T) : t;
}

layer_state layer_state_rows(layer_state s, int64_t T)
{
    return (layer_state){.x_attention = rows(s.x_attention, T),
                         .rstd_attention = rows(s.rstd_attention, T),
                         .qk_plain = rows(s.qk_plain, T),
                         .rstd_q = rows(s.rstd_q, T),
                         .rstd_k = rows(s.rstd_k, T),
                         .qkv = rows(s.qkv, T),
                         .attended = rows(s.attended, T),
                         .lse = rows(s.lse, T),
                         .x_mlp = rows(s.x_mlp, T),
                         .rstd_mlp = rows(s.rstd_mlp, T),
                         .gate_up = rows(s.gate_up, T)};
}

/* y = x w^T (+ bias) */
static cudpo_status linear(backend *be, tensor y, tensor x, tensor w, tensor bias)
{
    CUDPO_TRY(be->gemm(be, y, x, false, w, true, 0.0f));
    return tensor_present(bias) ? be->bias_add(be, y, bias) : CUDPO_OK;
}

/* q, k, v = y w^T + bias; of q, the rows of the wanted tokens alone, where there is such a list: others are the
 * bias, which the norm and the rotation of heads leave finite, and no one reads. */
static cudpo_status project_qkv(const layer_call *call, const layer_state *s)
{
    backend *be = call->be;
    const layer_weights *w = call->w;
    if (!tensor_present(call->wanted)) return linear(be, s->qkv, call->y, w->qkv, w->qkv_bias);
    const int64_t U = call->wanted.rows, Q = s->attended.cols, KV2 = s->qkv.cols - Q;
    const tensor y = tensor_rows(call->branch, 0, U), q = tensor_rows(call->gathered, 0, U);
    CUDPO_TRY(be->gather_rows(be, y, call->y, call->wanted));
    CUDPO_TRY(be->gemm(be, q, y, false, tensor_rows(w->qkv, 0, Q), true, 0.0f));
    CUDPO_TRY(be->scatter_rows(be, tensor_cols(s->qkv, 0, Q), q, call->wanted, (tensor){0}));
    CUDPO_TRY(be->gemm(be, tensor_cols(s->qkv, Q, KV2), call->y, false, tensor_rows(w->qkv, Q, KV2),
                       true, 0.0f));
    return tensor_present(w->qkv_bias) ? be->bias_add(be, s->qkv, w->qkv_bias) : CUDPO_OK;
}

cudpo_status layer_qkv(const layer_call *call, layer_state *s)
{
    backend *be = call->be;
    const model_config *c = call->config;
    const layer_weights *w = call->w;
    const int64_t Q = c->num_attention_heads * c->head_dim,
                  KV = c->num_key_value_heads * c->head_dim;
    const tensor q = tensor_cols(s->qkv, 0, Q), k = tensor_cols(s->qkv, Q, KV);

    CUDPO_TRY(project_qkv(call, s));
    if (c->qk_norm) {
        const tensor q_plain = tensor_cols(s->qk_plain, 0, Q),
                     k_plain = tensor_cols(s->qk_plain, Q, KV);
        CUDPO_TRY(be->copy(be, s->qk_plain, tensor_cols(s->qkv, 0, Q + KV)));
        CUDPO_TRY(be->head_norm(be, q, s->rstd_q, q_plain, w->q_norm, c->rms_norm_eps));
        CUDPO_TRY(be->head_norm(be, k, s->rstd_k, k_plain, w->k_norm, c->rms_norm_eps));
    }
    CUDPO_TRY(be->rope(be, q, call->cosine, call->sine, call->position, (int)c->head_dim, false));
    return be->rope(be, k, call->cosine, call->sine, call->position, (int)c->head_dim, false);
}

cudpo_status layer_after_attention(const layer_call *call, layer_state *s)
{
    backend *be = call->be;
    const layer_weights *w = call->w;
    CUDPO_TRY(linear(be, call->branch, s->attended, w->o, w->o_bias));
    CUDPO_TRY(be->add_rmsnorm(be, call->y, s->rstd_mlp, s->x_mlp, s->x_attention, call->branch,
                              w->mlp_norm, call->config->rms_norm_eps));
    CUDPO_TRY(linear(be, s->gate_up, call->y, w->gate_up, w->gate_up_bias));
    CUDPO_TRY(be->swiglu(be, call->act, s->gate_up));
    return linear(be, call->branch, call->act, w->down, w->down_bias);
}

/* The same for the wanted tokens alone, in the first rows of every buffer. */
static cudpo_status wanted_after_attention(const layer_call *call, const layer_state *s)
{
    const int64_t U = call->wanted.rows;
    layer_state part = layer_state_rows(*s, U);
    part.attended = tensor_rows(call->gathered, 0, U);
    part.x_attention = part.x_mlp; /* the branch is added in place */
    CUDPO_TRY(call->be->gather_rows(call->be, part.attended, s->attended, call->wanted));
    CUDPO_TRY(call->be->gather_rows(call->be, part.x_attention, s->x_attention, call->wanted));
    layer_call narrow = *call;
    narrow.y = tensor_rows(call->y, 0, U);
    narrow.branch = tensor_rows(call->branch, 0, U);
    narrow.act = tensor_rows(call->act, 0, U);
    return layer_after_attention(&narrow, &part);
}

cudpo_status layer_forward(const layer_call *call, layer_state *s, tensor x, tensor branch,
                           tensor segments)
{
    backend *be = call->be;
    CUDPO_TRY(be->add_rmsnorm(be, call->y, s->rstd_attention, s->x_attention, x, branch,
                              call->w->attention_norm, call->config->rms_norm_eps));
    CUDPO_TRY(layer_qkv(call, s));
    CUDPO_TRY(be->attention(be, s->attended, s->lse, s->qkv, segments, call->wanted,
                            layer_attention_shape(call->config, call->l)));
    return tensor_present(call->wanted) ? wanted_after_attention(call, s)
                                        : layer_after_attention(call, s);
}

/* A call on the first T rows of the workspace's scratch. */
static layer_call call_of(const model_workspace *ws, const model_weights *w, const model_config *c,
                          int64_t T, tensor position)
{
    return (layer_call){.be = w->be,
                        .config = c,
                        .y = tensor_rows(ws->y, 0, T),
                        .branch = tensor_rows(ws->branch, 0, T),
                        .act = tensor_rows(ws->act, 0, T),
                        .cosine = ws->cosine,
                        .sine = ws->sine,
                        .position = position,
                        .gathered = ws->gathered};
}

/* hidden = norm(x + branch) */
static cudpo_status finish(tensor *hidden, model_workspace *ws, const model_weights *w,
                           const model_config *c, const layer_call *call, tensor x)
{
    const int64_t U = x.rows;
    *hidden = tensor_rows(ws->hidden, 0, U);
    return w->be->add_rmsnorm(w->be, *hidden, tensor_rows(ws->rstd_final, 0, U),
                              tensor_rows(ws->x_final, 0, U), x, tensor_rows(call->branch, 0, U),
                              w->norm, c->rms_norm_eps);
}

/* The pass over a pack; keys and values join the cache where there is one. */
static cudpo_status forward_pack(tensor *hidden, model_workspace *ws, model_cache *cache,
                                 tensor slot, const model_weights *w, const model_config *c,
                                 const model_batch *b)
{
    const int64_t T = b->token.rows;
    CUDPO_REQUIRE(T >= 1 && T <= ws->capacity && b->wanted.rows <= T);
    layer_call call = call_of(ws, w, c, T, b->position);
    layer_weights weights;
    tensor x = tensor_rows(ws->layer[0].x_attention, 0, T), branch = {0};
    CUDPO_TRY(w->be->embed(w->be, x, w->embed, b->token));
    for (call.l = 0; call.l < c->num_hidden_layers; call.l++) {
        layer_state s = layer_state_rows(ws->layer[call.l], T);
        CUDPO_TRY(model_weights_layer(&weights, w, call.l));
        call.w = &weights;
        if (call.l + 1 == c->num_hidden_layers) call.wanted = b->wanted;
        CUDPO_TRY(layer_forward(&call, &s, x, branch, b->segments));
        if (cache != NULL)
            CUDPO_TRY(w->be->cache_store(w->be, cache->k[call.l], cache->v[call.l], s.qkv, slot,
                                         layer_attention_shape(c, call.l)));
        x = s.x_mlp;
        branch = call.branch;
    }
    if (tensor_present(b->wanted)) x = tensor_rows(x, 0, b->wanted.rows);
    return finish(hidden, ws, w, c, &call, x);
}

cudpo_status model_forward(tensor *hidden, model_workspace *ws, const model_weights *w,
                           const model_config *c, const model_batch *b)
{
    return forward_pack(hidden, ws, NULL, (tensor){0}, w, c, b);
}

cudpo_status model_prefill(tensor *hidden, model_workspace *ws, model_cache *cache,
                           const model_weights *w, const model_config *c, const model_batch *b,
                           tensor slot)
{
    return forward_pack(hidden, ws, cache, slot, w, c, b);
}

cudpo_status model_decode(tensor *hidden, model_workspace *ws, model_cache *cache,
                          const model_weights *w, const model_config *c, tensor token,
                          tensor position, tensor slot, tensor first, tensor length)
{
    backend *be = w->be;
    const int64_t B = token.rows;
    CUDPO_REQUIRE(B >= 1 && B <= ws->capacity);
    layer_call call = call_of(ws, w, c, B, position);
    layer_weights weights;
    tensor x = tensor_rows(ws->layer[0].x_attention, 0, B), branch = {0};
    CUDPO_TRY(be->embed(be, x, w->embed, token));
    for (call.l = 0; call.l < c->num_hidden_layers; call.l++) {
        layer_state s = layer_state_rows(ws->layer[call.l], B);
        const attention_shape shape = layer_attention_shape(c, call.l);
        CUDPO_TRY(model_weights_layer(&weights, w, call.l));
        call.w = &weights;
        CUDPO_TRY(be->add_rmsnorm(be, call.y, s.rstd_attention, s.x_attention, x, branch,
                                  call.w->attention_norm, c->rms_norm_eps));
        CUDPO_TRY(layer_qkv(&call, &s));
        CUDPO_TRY(be->cache_store(be, cache->k[call.l], cache->v[call.l], s.qkv, slot, shape));
        CUDPO_TRY(be->attention_cached(be, s.attended, s.qkv, cache->k[call.l], cache->v[call.l],
                                       first, length, shape));
        CUDPO_TRY(layer_after_attention(&call, &s));
        x = s.x_mlp;
        branch = call.branch;
    }
    return finish(hidden, ws, w, c, &call, x);
}
