/* weights.c - one block of memory, and the views that name its parts.
 *
 * The block is laid out in the order of transformers' state_dict with one exception: the biases of matrices that
 * are used as one follow those matrices together, so that every fused view is contiguous.  There is no padding:
 * what sums over the block sums over parameters. */
#include "model/weights.h"
#include "base/rng.h"
#include "model/offload.h"
#include "model/safetensors.h"
#include "model/weights_file.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Cuts named views off the block, one behind the other. */
typedef struct cutter {
    model_weights *w;
    int64_t capacity; /* of names */
    int64_t used;     /* elements */
} cutter;

static tensor cut(cutter *k, int rank, int64_t rows, int64_t cols, bool no_decay, const char *fmt,
                  ...) CUDPO_PRINTF(6, 7);
static tensor cut(cutter *k, int rank, int64_t rows, int64_t cols, bool no_decay, const char *fmt,
                  ...)
{
    assert(k->w->count < k->capacity);
    weight_name *n = &k->w->names[k->w->count++];
    va_list args;
    va_start(args, fmt);
    vsnprintf(n->name, sizeof n->name, fmt, args);
    va_end(args);
    const tensor all = k->w->all;
    n->view = tensor_matrix((char *)all.data + (size_t)k->used * dtype_size(all.type), all.type,
                            rows, cols);
    n->rank = rank;
    n->no_decay = no_decay;
    k->used += rows * cols;
    return n->view;
}

static tensor cut_matrix(cutter *k, int64_t layer, const char *name, int64_t rows, int64_t cols)
{
    return cut(k, 2, rows, cols, false, "model.layers.%lld.%s.weight", (long long)layer, name);
}

static tensor cut_norm(cutter *k, int64_t layer, const char *name, int64_t cols)
{
    return cut(k, 1, 1, cols, true, "model.layers.%lld.%s.weight", (long long)layer, name);
}

static tensor cut_bias(cutter *k, int64_t layer, const char *name, int64_t cols)
{
    return cut(k, 1, 1, cols, true, "model.layers.%lld.%s.bias", (long long)layer, name);
}

/* The view that begins with `first` and goes on over what was cut right behind it. */
static tensor fuse(tensor first, int64_t rows, int64_t cols)
{
    return tensor_matrix(first.data, first.type, rows, cols);
}

static void cut_attention(cutter *k, layer_weights *lw, const model_config *c, int64_t l)
{
    const int64_t q = c->num_attention_heads * c->head_dim, hidden = c->hidden_size;
    const int64_t kv = c->num_key_value_heads * c->head_dim;
    lw->qkv = fuse(cut_matrix(k, l, "self_attn.q_proj", q, hidden), q + 2 * kv, hidden);
    (void)cut_matrix(k, l, "self_attn.k_proj", kv, hidden);
    (void)cut_matrix(k, l, "self_attn.v_proj", kv, hidden);
    if (c->qkv_bias) {
        lw->qkv_bias = fuse(cut_bias(k, l, "self_attn.q_proj", q), 1, q + 2 * kv);
        (void)cut_bias(k, l, "self_attn.k_proj", kv);
        (void)cut_bias(k, l, "self_attn.v_proj", kv);
    }
    lw->o = cut_matrix(k, l, "self_attn.o_proj", hidden, q);
    if (c->o_bias) lw->o_bias = cut_bias(k, l, "self_attn.o_proj", hidden);
    if (c->qk_norm) {
        lw->q_norm = cut_norm(k, l, "self_attn.q_norm", c->head_dim);
        lw->k_norm = cut_norm(k, l, "self_attn.k_norm", c->head_dim);
    }
}

static void cut_mlp(cutter *k, layer_weights *lw, const model_config *c, int64_t l)
{
    const int64_t hidden = c->hidden_size, ffn = c->intermediate_size;
    lw->gate_up = fuse(cut_matrix(k, l, "mlp.gate_proj", ffn, hidden), 2 * ffn, hidden);
    (void)cut_matrix(k, l, "mlp.up_proj", ffn, hidden);
    if (c->mlp_bias) {
        lw->gate_up_bias = fuse(cut_bias(k, l, "mlp.gate_proj", ffn), 1, 2 * ffn);
        (void)cut_bias(k, l, "mlp.up_proj", ffn);
    }
    lw->down = cut_matrix(k, l, "mlp.down_proj", hidden, ffn);
    if (c->mlp_bias) lw->down_bias = cut_bias(k, l, "mlp.down_proj", hidden);
}

/* no_decay is that of transformers' Trainer.get_decay_parameter_names: every norm and every bias. */
static void cut_all(cutter *k, const model_config *c)
{
    model_weights *w = k->w;
    w->embed = cut(k, 2, c->vocab_size, c->hidden_size, false, "model.embed_tokens.weight");
    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        layer_weights *lw = &w->layer[l];
        cut_attention(k, lw, c, l);
        cut_mlp(k, lw, c, l);
        lw->attention_norm = cut_norm(k, l, "input_layernorm", c->hidden_size);
        lw->mlp_norm = cut_norm(k, l, "post_attention_layernorm", c->hidden_size);
    }
    w->norm = cut(k, 1, 1, c->hidden_size, true, "model.norm.weight");
    w->head = w->embed;
    if (!c->tie_word_embeddings)
        w->head = cut(k, 2, c->vocab_size, c->hidden_size, false, "lm_head.weight");
}

cudpo_status model_weights_create(model_weights *out, backend *be, const model_config *c,
                                  dtype type)
{
    *out = (model_weights){.be = be};
    const int64_t per_layer = 9 + 3 * c->qkv_bias + c->o_bias + 3 * c->mlp_bias + 2 * c->qk_norm;
    cutter k = {out, per_layer * c->num_hidden_layers + 3, 0};
    const int64_t total = model_config_parameters(c);
    out->layer = calloc((size_t)c->num_hidden_layers, sizeof *out->layer);
    out->names = calloc((size_t)k.capacity, sizeof *out->names);
    cudpo_status status = CUDPO_OK;
    void *memory = NULL;
    if (out->layer == NULL || out->names == NULL)
        status =
            cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld layers", (long long)c->num_hidden_layers);
    if (status == CUDPO_OK) status = be->alloc(be, &memory, (size_t)total * dtype_size(type));
    if (status != CUDPO_OK) {
        model_weights_destroy(out);
        return status;
    }
    out->all = tensor_vector(memory, type, total);
    cut_all(&k, c);
    assert(k.used == total);
    return CUDPO_OK;
}

void model_weights_destroy(model_weights *w)
{
    model_offload_free(w->offload, w->be);
    if (w->be != NULL) w->be->free(w->be, w->all.data);
    free(w->names);
    free(w->layer);
    *w = (model_weights){0};
}

/* Fill `n` elements of one parameter, whose first is element `first`, with their initial values. */
static void initial_values(float *out, const weight_name *name, double deviation, uint64_t seed,
                           int64_t first, int64_t n)
{
    const size_t length = strlen(name->name);
    if (name->rank == 1) {
        const bool bias = length > 5 && strcmp(name->name + length - 5, ".bias") == 0;
        for (int64_t i = 0; i < n; i++)
            out[i] = bias ? 0.0f : 1.0f;
        return;
    }
    const uint64_t stream = hash64_bytes(name->name, length);
#pragma omp parallel for if (n > 65536)
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(deviation * rng_normal(seed, stream, (uint64_t)(first + i)));
}

/* Elements first .. first+n-1 of a dense view. */
static tensor piece(tensor view, int64_t first, int64_t n)
{
    return tensor_matrix((char *)view.data + (size_t)first * dtype_size(view.type), view.type, 1,
                         n);
}

/* Chunk after chunk of each tensor; or its first one, and copies of it, which need not come from the host. */
static cudpo_status randomise(model_weights *w, const model_config *c, uint64_t seed, bool repeat)
{
    CUDPO_REQUIRE(w->offload == NULL);
    float *chunk = malloc(WEIGHTS_CHUNK * sizeof *chunk);
    if (chunk == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "chunk");
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < w->count && status == CUDPO_OK; i++) {
        const tensor view = w->names[i].view;
        const int64_t total = tensor_elements(view);
        for (int64_t at = 0; at < total && status == CUDPO_OK; at += WEIGHTS_CHUNK) {
            const int64_t n = total - at < WEIGHTS_CHUNK ? total - at : WEIGHTS_CHUNK;
            if (repeat && at > 0) {
                status = w->be->copy(w->be, piece(view, at, n), piece(view, 0, n));
                continue;
            }
            initial_values(chunk, &w->names[i], c->initializer_range, seed, at, n);
            status = weights_upload(w, view, at, chunk, n);
        }
    }
    free(chunk);
    return status;
}

cudpo_status model_weights_randomise(model_weights *w, const model_config *c, uint64_t seed)
{
    return randomise(w, c, seed, false);
}

cudpo_status model_weights_repeat(model_weights *w, const model_config *c, uint64_t seed)
{
    return randomise(w, c, seed, true);
}
