/* offload.c - weights whose layers live in the host's memory and pass through two slots of the device.
 *
 * Layers go round in a circle: while one computes, the next is copied into the other slot, and the first follows the last,
 * so that the next pass finds it there.  Every weight stands where its original stands, modulo ALIGNMENT: ops choose by that
 * how they compute, and the bits are to be the same. */
#include "model/offload.h"

#include <assert.h>
#include <stdlib.h>

enum { SLOTS = FETCHES, ALIGNMENT = 256 /* cudaMalloc's: nobody looks further */ };

struct offload {
    char *host;         /* [L * bytes] layers one behind the other, as in the original's block */
    char *memory;       /* of the device: embedding, norm, head, slots */
    char *slot[SLOTS];  /* [bytes], and room to place a layer */
    size_t bytes;       /* of a layer */
    uintptr_t original; /* where the first layer is there */
    int64_t layers;
    int64_t coming; /* the layer that is in slot `turn`, or on its way there; -1: none */
    int turn;
};

size_t model_offload_host_bytes(const model_config *c, dtype type)
{
    const int64_t table = c->vocab_size * c->hidden_size;
    const int64_t rest = table * (c->tie_word_embeddings ? 1 : 2) + c->hidden_size;
    return (size_t)(model_config_parameters(c) - rest) * dtype_size(type);
}

size_t model_offload_bytes(const model_config *c, dtype type)
{
    const size_t layers = model_offload_host_bytes(c, type);
    const size_t rest = (size_t)model_config_parameters(c) * dtype_size(type) - layers;
    return rest + SLOTS * (layers / (size_t)c->num_hidden_layers) + (size_t)(3 + SLOTS) * ALIGNMENT;
}

/* The first address from p on that is `like` modulo ALIGNMENT. */
static char *place(char *p, uintptr_t like)
{
    return p + (like - (uintptr_t)p) % ALIGNMENT;
}

static char *end_of(tensor t)
{
    return (char *)t.data + (size_t)tensor_elements(t) * dtype_size(t.type);
}

/* The views of a layer whose memory is at `from`, where it is at `to`. */
static layer_weights moved(layer_weights w, const char *from, char *to)
{
    tensor *const views[] = {
        &w.attention_norm, &w.qkv,      &w.qkv_bias, &w.q_norm,       &w.k_norm, &w.o,
        &w.o_bias,         &w.mlp_norm, &w.gate_up,  &w.gate_up_bias, &w.down,   &w.down_bias};
    static_assert(sizeof views / sizeof views[0] == sizeof w / sizeof(tensor), "every view");
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        if (tensor_present(*views[i])) views[i]->data = to + ((char *)views[i]->data - from);
    }
    return w;
}

static char *host_layer(const struct offload *o, int64_t l)
{
    return o->host + (size_t)l * o->bytes;
}

/* Where layer l stands in the slot whose turn it is. */
static char *device_layer(const struct offload *o, int64_t l)
{
    return place(o->slot[o->turn], o->original + (size_t)l * o->bytes);
}

/* A copy of one of the original's tensors, from *at on. */
static cudpo_status keep(tensor *out, char **at, backend *be, tensor from)
{
    *out = from;
    out->data = place(*at, (uintptr_t)from.data);
    *at = end_of(*out);
    return be->copy(be, *out, from);
}

static cudpo_status offload(model_weights *w, const model_weights *from, const model_config *c)
{
    struct offload *o = w->offload;
    backend *be = w->be;
    void *host = NULL, *memory = NULL;
    char *const first = end_of(from->embed); /* see weights.c: embedding, layers, norm, head */
    o->layers = c->num_hidden_layers;
    o->bytes = (size_t)((char *)from->norm.data - first) / (size_t)o->layers;
    o->original = (uintptr_t)first;
    o->coming = -1;
    CUDPO_TRY(be->host_alloc(be, &host, (size_t)o->layers * o->bytes));
    o->host = host;
    CUDPO_TRY(be->copy_out(be, o->host, first, (size_t)o->layers * o->bytes));
    for (int64_t l = 0; l < o->layers; l++) {
        w->layer[l] = moved(from->layer[l], first, o->host);
    }

    CUDPO_TRY(be->alloc(be, &memory, model_offload_bytes(c, from->all.type)));
    char *at = o->memory = memory;
    CUDPO_TRY(keep(&w->embed, &at, be, from->embed));
    CUDPO_TRY(keep(&w->norm, &at, be, from->norm));
    w->head = w->embed;
    if (!c->tie_word_embeddings) CUDPO_TRY(keep(&w->head, &at, be, from->head));
    for (int i = 0; i < SLOTS; i++) {
        o->slot[i] = at;
        at += o->bytes + ALIGNMENT;
    }
    return CUDPO_OK;
}

cudpo_status model_weights_offload(model_weights *out, const model_weights *from,
                                   const model_config *c)
{
    CUDPO_REQUIRE(from->offload == NULL);
    *out = (model_weights){.be = from->be};
    out->layer = calloc((size_t)c->num_hidden_layers, sizeof *out->layer);
    out->offload = calloc(1, sizeof *out->offload);
    cudpo_status status = CUDPO_OK;
    if (out->layer == NULL || out->offload == NULL)
        status =
            cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld layers", (long long)c->num_hidden_layers);
    if (status == CUDPO_OK) status = offload(out, from, c);
    if (status != CUDPO_OK) model_weights_destroy(out);
    return status;
}

static cudpo_status fetch(struct offload *o, backend *be, int64_t l)
{
    o->coming = -1;
    CUDPO_TRY(be->fetch(be, o->turn, device_layer(o, l), host_layer(o, l), o->bytes));
    o->coming = l;
    return CUDPO_OK;
}

cudpo_status model_weights_layer(layer_weights *out, const model_weights *w, int64_t l)
{
    struct offload *o = w->offload;
    backend *be = w->be;
    *out = w->layer[l];
    if (o == NULL) return CUDPO_OK;
    if (o->coming != l)
        CUDPO_TRY(fetch(o, be, l)); /* in the first pass, or after one that failed */
    CUDPO_TRY(be->arrived(be, o->turn));
    *out = moved(w->layer[l], host_layer(o, l), device_layer(o, l));
    o->turn = (o->turn + 1) % SLOTS;
    return fetch(o, be, (l + 1) % o->layers);
}

/* The first layer of a next pass may be on its way. */
void model_offload_free(struct offload *o, backend *be)
{
    if (o == NULL) return;
    for (int i = 0; i < SLOTS; i++) {
        (void)be->arrived(be, i);
    }
    (void)be->sync(be);
    be->free(be, o->memory);
    be->host_free(be, o->host);
    free(o);
}
