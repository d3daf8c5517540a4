/* layer.h - one layer's forward pass, shared by training, scoring, decoding and recomputation. */
#ifndef CUDPO_MODEL_LAYER_H
#define CUDPO_MODEL_LAYER_H

#include "model/model.h"

/* The first T rows of every buffer that a layer uses. */
layer_state layer_state_rows(layer_state s, int64_t T);

/* What layer l is computed with. */
typedef struct layer_call {
    backend *be;
    const model_config *config;
    const layer_weights *w;
    int64_t l;
    tensor y, branch,
        act; /* [T,..] scratch; branch carries the layer's output, to be added to x_mlp, and before that y's wanted rows */
    tensor cosine, sine, position;
    tensor wanted;   /* [U] i32: the tokens that attention and what follows are for; absent: all */
    tensor gathered; /* [U,Q] scratch, where wanted is present */
} layer_call;

attention_shape layer_attention_shape(const model_config *c, int64_t l);

/* From the residual stream in s->x_attention to q, k, v in s->qkv. */
CUDPO_MUST_USE cudpo_status layer_qkv(const layer_call *call, layer_state *s);

/* From s->attended to call->branch: every token. */
CUDPO_MUST_USE cudpo_status layer_after_attention(const layer_call *call, layer_state *s);

/* From x (+ branch, where present) to call->branch: the whole layer over a pack.  x may be s->x_attention.  Of the
 * wanted tokens alone, where there is such a list: then s->x_mlp and call->branch are filled up to row U. */
CUDPO_MUST_USE cudpo_status layer_forward(const layer_call *call, layer_state *s, tensor x,
                                          tensor branch, tensor segments);

#endif /* CUDPO_MODEL_LAYER_H */
