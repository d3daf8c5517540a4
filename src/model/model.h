/* model.h - the decoder: hidden states of a pack, and gradients of the weights from gradients of hidden states.
 *
 * The layers are pre-norm: x += attention(norm(x)), x += mlp(norm(x)).  hidden = norm(x) after the last one; the LM
 * head is not here, because only score rows go through it (preference/head.h). */
#ifndef CUDPO_MODEL_MODEL_H
#define CUDPO_MODEL_MODEL_H

#include "backend/backend.h"
#include "base/arena.h"
#include "cudpo/status.h"
#include "model/config.h"
#include "model/weights.h"

#include <stdbool.h>
#include <stdint.h>

/* The tokens of a pack in backend memory.  See data/pack.h. */
typedef struct model_batch {
    tensor token;    /* [T] i32 */
    tensor position; /* [T] i32 */
    tensor segments; /* [N,4] i32 */
    tensor wanted;   /* [U] i32 ascending: tokens whose hidden states are wanted; absent: all */
} model_batch;

/* What one layer's backward pass needs of its forward pass.  Norm outputs and activations are computed again. */
typedef struct layer_state {
    tensor x_attention;    /* [T,C] residual stream before attention */
    tensor rstd_attention; /* [T] */
    tensor qk_plain;       /* [T,Q+KV] q and k before their norms; none without qk_norm */
    tensor rstd_q, rstd_k; /* [T,H], [T,K] */
    tensor qkv;            /* [T,Q+2KV] after norms and rotation */
    tensor attended;       /* [T,Q] */
    tensor lse;            /* [T,H] */
    tensor
        x_mlp; /* [T,C] residual stream before the MLP; this and below: [U,..] in the last layer */
    tensor rstd_mlp; /* [T] */
    tensor gate_up;  /* [T,2F] */
} layer_state;

typedef enum workspace_kind {
    WORKSPACE_SCORE,      /* forward only: layers share one state */
    WORKSPACE_TRAIN,      /* every layer keeps its state */
    WORKSPACE_CHECKPOINT, /* every layer keeps x_attention; the backward pass computes the rest again */
} workspace_kind;

/* Who is told, while a backward pass is enqueued, that gradients of all weights from element `first` of their block on are
 * complete: layer by layer from the last to the first, and at the end 0. */
typedef struct gradient_follower {
    cudpo_status (*ready)(void *context, int64_t first); /* NULL: nobody */
    void *context;
} gradient_follower;

/* All memory that a forward and backward pass touch, for up to `capacity` tokens. */
typedef struct model_workspace {
    workspace_kind kind;
    int64_t capacity;
    layer_state *layer;  /* [L] views; many share memory, depending on kind */
    tensor cosine, sine; /* [positions, D/2] */
    tensor y;            /* [T,C] output of a norm */
    tensor branch;       /* [T,C] output of attention or MLP */
    tensor act;          /* [T,F] */
    tensor gathered;     /* [U,Q] q, attention output or dq of the wanted tokens */
    tensor x_final;      /* [U,C] */
    tensor rstd_final;   /* [U] */
    tensor hidden;       /* [U,C]; in the backward pass, the gradient of x_final, then scratch */
    tensor dx, dy;       /* [T,C] */
    tensor dqkv;         /* [T,Q+2KV] */
    tensor dattended;    /* [T,Q] */
    tensor dact;         /* [T,F] */
    tensor dgate_up;     /* [T,2F] */
    gradient_follower follower;
} model_workspace;

/** Cut a workspace from an arena (a dry run of it counts bytes).
 *  In:   type  of activations and their gradients, as the weights';  capacity   tokens of the largest pack;  positions  of the longest sequence.
 *  The caller frees `layer` with model_workspace_free(); the tensors belong to the arena. */
CUDPO_MUST_USE cudpo_status model_workspace_cut(model_workspace *ws, arena *a,
                                                const model_config *c, workspace_kind kind,
                                                dtype type, int64_t capacity, int64_t positions);
void model_workspace_free(model_workspace *ws);

/** Fill the rotation tables; once, after the arena has memory. */
CUDPO_MUST_USE cudpo_status model_workspace_rotations(model_workspace *ws, backend *be,
                                                      const model_config *c);

/** Forward pass.  Of tokens that are not wanted, only what others attend to is computed: in the last layer that is
 *  their keys and values, which in a pack of pairs saves about half of that layer.
 *  Out:     hidden  view of ws, [U,C] (U = T where all are wanted): valid until the next call on this workspace.
 *  In/Out:  ws      of any kind; of WORKSPACE_TRAIN or _CHECKPOINT it then holds what model_backward() needs.
 *  Returns: CUDPO_OK; the backend's failures. */
CUDPO_MUST_USE cudpo_status model_forward(tensor *hidden, model_workspace *ws,
                                          const model_weights *w, const model_config *c,
                                          const model_batch *b);

/** Backward pass of the last model_forward() on this workspace.
 *  In/Out:  dw  gradient of every weight but the head's, accumulated.  Of a head of its own it was complete before.
 *  In:      dhidden  [U,C] gradient of hidden; may be ws->dy, is destroyed. */
CUDPO_MUST_USE cudpo_status model_backward(model_weights *dw, model_workspace *ws,
                                           const model_weights *w, const model_config *c,
                                           const model_batch *b, tensor dhidden);

/* Keys and values of decoded sequences: slot = sequence * capacity + position. */
typedef struct model_cache {
    tensor *k, *v; /* [L] each [sequences * capacity, KV] */
    int64_t sequences, capacity;
} model_cache;

/** Forward pass of one new token for each of B sequences, whose keys and values join the cache.
 *  In:      token, position, slot, first, length  [B] i32; see backend.h, attention_cached. */
CUDPO_MUST_USE cudpo_status model_decode(tensor *hidden, model_workspace *ws, model_cache *cache,
                                         const model_weights *w, const model_config *c,
                                         tensor token, tensor position, tensor slot, tensor first,
                                         tensor length);

/** Forward pass of prompts (a pack of groups without completions) that fills the cache; slot [T] i32. */
CUDPO_MUST_USE cudpo_status model_prefill(tensor *hidden, model_workspace *ws, model_cache *cache,
                                          const model_weights *w, const model_config *c,
                                          const model_batch *b, tensor slot);

#endif /* CUDPO_MODEL_MODEL_H */
