/* weights.h - the parameters of a decoder as one block of memory with named views, and the folders they live in.
 *
 * Weights, their gradient and the two moments of AdamW are four values of this one type, and so is the reference. */
#ifndef CUDPO_MODEL_WEIGHTS_H
#define CUDPO_MODEL_WEIGHTS_H

#include "backend/backend.h"
#include "base/hash.h"
#include "cudpo/status.h"
#include "model/config.h"

#include <stdbool.h>
#include <stdint.h>

/* Linear weights are [out,in], as in the files; what is used together is one matrix (q, k, v; gate, up). */
typedef struct layer_weights {
    tensor attention_norm; /* [1,C] input_layernorm */
    tensor qkv;            /* [Q+2KV,C] q_proj, k_proj, v_proj */
    tensor qkv_bias;       /* [1,Q+2KV] or none */
    tensor q_norm, k_norm; /* [1,D] or none */
    tensor o;              /* [C,Q] o_proj */
    tensor o_bias;         /* [1,C] or none */
    tensor mlp_norm;       /* [1,C] post_attention_layernorm */
    tensor gate_up;        /* [2F,C] gate_proj, up_proj */
    tensor gate_up_bias;   /* [1,2F] or none */
    tensor down;           /* [C,F] down_proj */
    tensor down_bias;      /* [1,C] or none */
} layer_weights;

/* One parameter as transformers names it: a view of the block. */
typedef struct weight_name {
    char name[96];
    tensor view;   /* 2D; vectors are [1,n] */
    int rank;      /* in the file: 1 or 2 */
    bool no_decay; /* biases and norms: the parameter group without weight decay */
} weight_name;

/* Where the values of weights are that are not, or not exactly, in their own memory.  Elements are counted in the block of all
 * parameters. */
typedef struct weights_store {
    cudpo_status (*put)(void *context, const float *host, int64_t first, int64_t n);
    cudpo_status (*get)(void *context, float *host, int64_t first, int64_t n);
    void *context;
} weights_store;

typedef struct model_weights {
    backend *be;
    tensor all;   /* [n] f32 or bf16: every parameter, in the order of `names` and without gaps */
    tensor embed; /* [V,C] */
    tensor head;  /* [V,C]; the same view as embed where tied */
    tensor norm;  /* [1,C] */
    layer_weights *layer; /* [L] */
    weight_name
        *names; /* [count] in transformers' order, but for the biases of fused matrices, which
                             follow them together; each tensor once: tied heads are not repeated */
    int64_t count;
    hash128 fingerprint; /* of the values that model_weights_load() read, before it rounded them */
    struct offload *offload;    /* NULL; else see offload.h: there is neither `all` nor `names` */
    const weights_store *store; /* of loading and saving; NULL: `all` */
} model_weights;

/** Allocate weights of a shape, content undefined.  In: type  float32, or bfloat16 where the backend computes in it. */
CUDPO_MUST_USE cudpo_status model_weights_create(model_weights *out, backend *be,
                                                 const model_config *c, dtype type);
void model_weights_destroy(model_weights *w);

/** Read model.safetensors, rounding to the weights' own type, or the shards that model.safetensors.index.json names, of a folder;
 *  and take the fingerprint of what they hold, which is the same whatever that type is.
 *  Every parameter must be there with its shape; other tensors of the files are named in a warning.  A file that
 *  has lm_head.weight though the config ties it must hold the same values.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EDATA as "file: tensor: reason"; .bin and .pt files are refused by name. */
CUDPO_MUST_USE cudpo_status model_weights_load(model_weights *w, const model_config *c,
                                               const char *folder);

/** Write the weights as `file` (model.safetensors, or the moments of a checkpoint) in the given element type. */
CUDPO_MUST_USE cudpo_status model_weights_save(const model_weights *w, const char *path,
                                               dtype type);

/** Get all values from w->store in the order in which model_weights_save() does, and drop them. */
CUDPO_MUST_USE cudpo_status model_weights_pass(const model_weights *w);

/** Read a file that model_weights_save() wrote in float32, bit for bit. */
CUDPO_MUST_USE cudpo_status model_weights_restore(model_weights *w, const char *path);

/** Of such a file, elements `begin` and following of the block of all parameters.
 *  Out:     run     dense: as many elements, in the backend's memory.
 *  In:      layout  names and shapes. */
CUDPO_MUST_USE cudpo_status model_weights_restore_run(tensor run, int64_t begin,
                                                      const model_weights *layout,
                                                      const char *path);

/* Names of all files that model_folder_save() may write, NULL at the end. */
extern const char *const model_folder_files[];

/** Write a complete model folder: model.safetensors in `type`; of the folder `from`, config.json with its dtype set to
 *  `type`, and generation_config.json and the tokenizer's files as they are.
 *  Returns: CUDPO_OK; CUDPO_EWRITE; CUDPO_ENUMERIC naming a tensor whose values `type` can't hold. */
CUDPO_MUST_USE cudpo_status model_folder_save(const model_weights *w, const char *to,
                                              const char *from, dtype type);

/** Random weights: normal with deviation config.initializer_range, norms 1, biases 0; a function of the seed and of the
 *  tensor's name and element alone. */
CUDPO_MUST_USE cudpo_status model_weights_randomise(model_weights *w, const model_config *c,
                                                    uint64_t seed);

/** The same, but that a tensor's values repeat after the first million: where values do not matter, 8e9 of them take seconds. */
CUDPO_MUST_USE cudpo_status model_weights_repeat(model_weights *w, const model_config *c,
                                                 uint64_t seed);

#endif /* CUDPO_MODEL_WEIGHTS_H */
