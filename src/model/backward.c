/* backward.c - from gradients of hidden states to gradients of weights.
 *
 * dx is the gradient of the residual stream: it passes every layer and each branch adds to it. */
#include "model/layer.h"

typedef struct backward_call {
    backend *be;
    const model_config *config;
    const layer_weights *w;
    layer_weights *dw;
    int64_t l;
    tensor y, dx, dy, dqkv, dattended, act, dact, dgate_up; /* [T,..] */
    tensor cosine, sine, position, segments;
} backward_call;

/* Gradients of y = x w^T (+ bias): dw += dy^T x, dbias += sum of dy; dx = dy w where dx is wanted. */
static cudpo_status linear_backward(backend *be, tensor dx, tensor dw, tensor dbias, tensor dy,
                                    tensor x, tensor w)
{
    CUDPO_TRY(be->gemm(be, dw, dy, true, x, false, 1.0f));
    if (tensor_present(dbias)) CUDPO_TRY(be->bias_backward(be, dbias, dy));
    return be->gemm(be, dx, dy, false, w, false, 0.0f);
}

static cudpo_status mlp_backward(const backward_call *call, const layer_state *s)
{
    backend *be = call->be;
    const layer_weights *w = call->w;
    layer_weights *dw = call->dw;
    CUDPO_TRY(be->gemm(be, call->dact, call->dx, false, w->down, false, 0.0f));
    CUDPO_TRY(be->swiglu_backward(be, call->dgate_up, call->act, call->dact, s->gate_up));
    CUDPO_TRY(be->gemm(be, dw->down, call->dx, true, call->act, false, 1.0f));
    if (tensor_present(dw->down_bias)) CUDPO_TRY(be->bias_backward(be, dw->down_bias, call->dx));
    CUDPO_TRY(be->rmsnorm_again(be, call->y, s->x_mlp, s->rstd_mlp, w->mlp_norm));
    CUDPO_TRY(linear_backward(be, call->dy, dw->gate_up, dw->gate_up_bias, call->dgate_up, call->y,
                              w->gate_up));
    return be->rmsnorm_backward(be, call->dx, dw->mlp_norm, call->dy, s->x_mlp, s->rstd_mlp,
                                w->mlp_norm);
}

static cudpo_status output_backward(const backward_call *call, const layer_state *s)
{
    return linear_backward(call->be, call->dattended, call->dw->o, call->dw->o_bias, call->dx,
                           s->attended, call->w->o);
}

/* The last layer down to attention, where only the wanted tokens have gone past it. */
static cudpo_status wanted_backward(const backward_call *call, const layer_state *s,
                                    const model_workspace *ws, tensor wanted)
{
    backend *be = call->be;
    const int64_t U = wanted.rows;
    layer_state part = layer_state_rows(*s, U);
    part.attended = tensor_rows(ws->gathered, 0, U); /* as the forward pass left it */
    backward_call narrow = *call;
    narrow.y = tensor_rows(call->y, 0, U);
    narrow.dx = tensor_rows(ws->hidden, 0, U);
    narrow.dy = tensor_rows(call->dy, 0, U);
    narrow.act = tensor_rows(call->act, 0, U);
    narrow.dact = tensor_rows(call->dact, 0, U);
    narrow.dgate_up = tensor_rows(call->dgate_up, 0, U);
    /* dqkv is not in use yet, and wide enough. */
    narrow.dattended = tensor_cols(tensor_rows(call->dqkv, 0, U), 0, call->dattended.cols);
    CUDPO_TRY(mlp_backward(&narrow, &part));
    CUDPO_TRY(output_backward(&narrow, &part));
    CUDPO_TRY(be->scatter_rows(be, call->dattended, narrow.dattended, wanted, (tensor){0}));
    return be->scatter_rows(be, call->dx, narrow.dx, wanted, (tensor){0});
}

/* Gradients of q, k, v = y w^T + bias, where dq is zero but for the wanted tokens.  call->y is the norm's output until dw
 * has been computed, and memory for the wanted rows of dy after. */
static cudpo_status wanted_qkv_backward(const backward_call *call, const model_workspace *ws,
                                        tensor wanted)
{
    backend *be = call->be;
    const tensor w = call->w->qkv, dw = call->dw->qkv;
    const int64_t U = wanted.rows, Q = call->dattended.cols, KV2 = call->dqkv.cols - Q;
    const tensor dq = tensor_rows(ws->gathered, 0, U), dkv = tensor_cols(call->dqkv, Q, KV2);
    const tensor y = tensor_rows(ws->hidden, 0, U), dy = tensor_rows(call->y, 0, U);
    if (tensor_present(call->dw->qkv_bias))
        CUDPO_TRY(be->bias_backward(be, call->dw->qkv_bias, call->dqkv));
    CUDPO_TRY(be->gather_rows(be, dq, tensor_cols(call->dqkv, 0, Q), wanted));
    CUDPO_TRY(be->gather_rows(be, y, call->y, wanted));
    CUDPO_TRY(be->gemm(be, tensor_rows(dw, 0, Q), dq, true, y, false, 1.0f));
    CUDPO_TRY(be->gemm(be, tensor_rows(dw, Q, KV2), dkv, true, call->y, false, 1.0f));
    CUDPO_TRY(be->gemm(be, dy, dq, false, tensor_rows(w, 0, Q), false, 0.0f));
    CUDPO_TRY(be->scatter_rows(be, call->dy, dy, wanted, (tensor){0}));
    return be->gemm(be, call->dy, dkv, false, tensor_rows(w, Q, KV2), false, 1.0f);
}

/* From dattended down. */
static cudpo_status attention_block_backward(const backward_call *call, const layer_state *s,
                                             const model_workspace *ws, tensor wanted)
{
    backend *be = call->be;
    const model_config *c = call->config;
    const layer_weights *w = call->w;
    layer_weights *dw = call->dw;
    const int64_t Q = c->num_attention_heads * c->head_dim,
                  KV = c->num_key_value_heads * c->head_dim;
    const tensor dq = tensor_cols(call->dqkv, 0, Q), dk = tensor_cols(call->dqkv, Q, KV);

    CUDPO_TRY(be->attention_backward(be, call->dqkv, call->dattended, s->qkv, s->attended, s->lse,
                                     call->segments, wanted, layer_attention_shape(c, call->l)));
    CUDPO_TRY(be->rope(be, dq, call->cosine, call->sine, call->position, (int)c->head_dim, true));
    CUDPO_TRY(be->rope(be, dk, call->cosine, call->sine, call->position, (int)c->head_dim, true));
    if (c->qk_norm) {
        const tensor q_plain = tensor_cols(s->qk_plain, 0, Q),
                     k_plain = tensor_cols(s->qk_plain, Q, KV);
        CUDPO_TRY(be->head_norm_backward(be, dq, dw->q_norm, dq, q_plain, s->rstd_q, w->q_norm));
        CUDPO_TRY(be->head_norm_backward(be, dk, dw->k_norm, dk, k_plain, s->rstd_k, w->k_norm));
    }
    CUDPO_TRY(be->rmsnorm_again(be, call->y, s->x_attention, s->rstd_attention, w->attention_norm));
    CUDPO_TRY(tensor_present(wanted) ? wanted_qkv_backward(call, ws, wanted)
                                     : linear_backward(be, call->dy, dw->qkv, dw->qkv_bias,
                                                       call->dqkv, call->y, w->qkv));
    return be->rmsnorm_backward(be, call->dx, dw->attention_norm, call->dy, s->x_attention,
                                s->rstd_attention, w->attention_norm);
}

/* The state of layer l once more, from the x_attention that was kept.  Same ops on the same inputs: same bits. */
static cudpo_status recompute(const model_workspace *ws, const backward_call *call, layer_state *s,
                              tensor wanted)
{
    const layer_call again = {.be = call->be,
                              .config = call->config,
                              .w = call->w,
                              .l = call->l,
                              .y = call->y,
                              .branch = tensor_rows(ws->branch, 0, call->y.rows),
                              .act = call->act,
                              .cosine = call->cosine,
                              .sine = call->sine,
                              .position = call->position,
                              .wanted = wanted,
                              .gathered = ws->gathered};
    return layer_forward(&again, s, s->x_attention, (tensor){0}, call->segments);
}

/* Gradients from those of `weight` on are complete. */
static cudpo_status complete(const model_workspace *ws, const model_weights *dw, tensor weight)
{
    const gradient_follower *f = &ws->follower;
    if (f->ready == NULL) return CUDPO_OK;
    const ptrdiff_t bytes = (const char *)weight.data - (const char *)dw->all.data;
    return f->ready(f->context, bytes / (ptrdiff_t)dtype_size(dw->all.type));
}

cudpo_status model_backward(model_weights *dw, model_workspace *ws, const model_weights *w,
                            const model_config *c, const model_batch *b, tensor dhidden)
{
    backend *be = w->be;
    const int64_t T = b->token.rows;
    CUDPO_REQUIRE(T >= 1 && T <= ws->capacity && ws->kind != WORKSPACE_SCORE);
    CUDPO_REQUIRE(w->offload == NULL && dw->offload == NULL);
    backward_call call = {.be = be,
                          .config = c,
                          .y = tensor_rows(ws->y, 0, T),
                          .dx = tensor_rows(ws->dx, 0, T),
                          .dy = tensor_rows(ws->dy, 0, T),
                          .dqkv = tensor_rows(ws->dqkv, 0, T),
                          .dattended = tensor_rows(ws->dattended, 0, T),
                          .act = tensor_rows(ws->act, 0, T),
                          .dact = tensor_rows(ws->dact, 0, T),
                          .dgate_up = tensor_rows(ws->dgate_up, 0, T),
                          .cosine = ws->cosine,
                          .sine = ws->sine,
                          .position = b->position,
                          .segments = b->segments};
    const bool all = !tensor_present(b->wanted);
    const int64_t U = all ? T : b->wanted.rows;
    const tensor dx_final = all ? call.dx : tensor_rows(ws->hidden, 0, U);
    CUDPO_TRY(be->zero(be, dx_final));
    CUDPO_TRY(be->rmsnorm_backward(be, dx_final, dw->norm, dhidden, tensor_rows(ws->x_final, 0, U),
                                   tensor_rows(ws->rstd_final, 0, U), w->norm));
    CUDPO_TRY(complete(ws, dw, dw->norm));
    for (call.l = c->num_hidden_layers - 1; call.l >= 0; call.l--) {
        layer_state s = layer_state_rows(ws->layer[call.l], T);
        call.w = &w->layer[call.l];
        call.dw = &dw->layer[call.l];
        const tensor wanted = call.l + 1 == c->num_hidden_layers ? b->wanted : (tensor){0};
        if (ws->kind == WORKSPACE_CHECKPOINT) CUDPO_TRY(recompute(ws, &call, &s, wanted));
        if (tensor_present(wanted)) {
            CUDPO_TRY(wanted_backward(&call, &s, ws, wanted));
        } else {
            CUDPO_TRY(mlp_backward(&call, &s));
            CUDPO_TRY(output_backward(&call, &s));
        }
        CUDPO_TRY(attention_block_backward(&call, &s, ws, wanted));
        CUDPO_TRY(complete(ws, dw, call.dw->qkv)); /* its first */
    }
    CUDPO_TRY(be->embed_backward(be, dw->embed, call.dx, b->token));
    return complete(ws, dw, dw->embed);
}
