/* generate.c - continues prompts: one packed pass over the prompts, then token by token with cached keys and values. */
#include "base/arena.h"
#include "base/rng.h"
#include "cudpo/score.h"
#include "model/model.h"
#include "text/tokenizer.h"
#include "train/device.h"
#include "train/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64 }; /* sequences decoded together, unless told otherwise */

/* One sequence that is being continued. */
typedef struct sequence {
    token_list ids; /* prompt, then new tokens */
    int64_t prompt; /* tokens of the prompt */
    int64_t index;  /* among all prompts: keys its random numbers */
    bool done;
} sequence;

typedef struct generator {
    backend *be;
    model_config config;
    tokenizer *tokenizer;
    model_weights weights;
    const cudpo_generate_options *options;
    int64_t capacity; /* positions of a sequence */
    int64_t batch;    /* sequences */
    int64_t tokens;   /* of a prompt pass */

    void *memory;
    model_workspace ws;
    model_cache cache;
    tensor token, position, slot, first, length, segments, row; /* i32, [tokens] or [batch] */
    tensor last, logits;                                        /* [batch,C], [batch,V] */
    int32_t *host;                                              /* [4 * tokens] staging */
    float *host_logits;                                         /* [batch,V] */
    int32_t *order;                                             /* [V] */
} generator;

static tensor ints(arena *a, int64_t rows, int64_t cols)
{
    return tensor_matrix(arena_take(a, (size_t)(rows * cols) * sizeof(int32_t)), DTYPE_I32, rows,
                         cols);
}

static tensor floats(arena *a, int64_t rows, int64_t cols)
{
    return tensor_matrix(arena_take(a, (size_t)(rows * cols) * sizeof(float)), DTYPE_F32, rows,
                         cols);
}

static cudpo_status cut(generator *g, arena *a)
{
    const model_config *c = &g->config;
    const int64_t KV = c->num_key_value_heads * c->head_dim;
    model_workspace_free(&g->ws);
    CUDPO_TRY(
        model_workspace_cut(&g->ws, a, c, WORKSPACE_SCORE, DTYPE_F32, g->tokens, g->capacity));
    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        g->cache.k[l] = floats(a, g->batch * g->capacity, KV);
        g->cache.v[l] = floats(a, g->batch * g->capacity, KV);
    }
    g->token = ints(a, g->tokens, 1);
    g->position = ints(a, g->tokens, 1);
    g->slot = ints(a, g->tokens, 1);
    g->segments = ints(a, g->batch, SEGMENT_FIELDS);
    g->first = ints(a, g->batch, 1);
    g->length = ints(a, g->batch, 1);
    g->row = ints(a, g->batch, 1);
    g->last = floats(a, g->batch, c->hidden_size);
    g->logits = floats(a, g->batch, c->vocab_size);
    return CUDPO_OK;
}

static cudpo_status allocate(generator *g)
{
    const size_t L = (size_t)g->config.num_hidden_layers, V = (size_t)g->config.vocab_size;
    g->cache = (model_cache){.sequences = g->batch, .capacity = g->capacity};
    g->cache.k = calloc(L, sizeof *g->cache.k);
    g->cache.v = calloc(L, sizeof *g->cache.v);
    g->host = malloc((size_t)(g->tokens + SEGMENT_FIELDS * g->batch) * sizeof *g->host);
    g->host_logits = malloc((size_t)g->batch * V * sizeof *g->host_logits);
    g->order = malloc(V * sizeof *g->order);
    if (g->cache.k == NULL || g->cache.v == NULL || g->host == NULL || g->host_logits == NULL ||
        g->order == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "generation of %lld sequences",
                          (long long)g->batch);
    arena a = {0};
    CUDPO_TRY(cut(g, &a));
    CUDPO_TRY(g->be->alloc(g->be, &g->memory, a.used));
    a = (arena){.base = g->memory, .size = a.used};
    CUDPO_TRY(cut(g, &a));
    return model_workspace_rotations(&g->ws, g->be, &g->config);
}

static void generator_close(generator *g)
{
    free(g->order);
    free(g->host_logits);
    free(g->host);
    free(g->cache.v);
    free(g->cache.k);
    model_workspace_free(&g->ws);
    if (g->be != NULL) g->be->free(g->be, g->memory);
    model_weights_destroy(&g->weights);
    tokenizer_free(g->tokenizer);
    if (g->be != NULL) g->be->close(g->be);
}

static cudpo_status put(generator *g, tensor *view, tensor all, int64_t rows)
{
    *view = tensor_rows(all, 0, rows);
    return g->be->copy_in(g->be, view->data, g->host, (size_t)(rows * all.cols) * sizeof(int32_t));
}

static bool is_eos(const generator *g, int32_t token)
{
    for (int i = 0; i < g->config.eos_count; i++)
        if (g->config.eos_token_id[i] == token) return true;
    return token == tokenizer_eos(g->tokenizer);
}

/* From the hidden rows of n sequences to their next tokens. */
static cudpo_status choose(generator *g, tensor hidden, sequence **s, int64_t n)
{
    const int64_t V = g->config.vocab_size;
    const tensor logits = tensor_rows(g->logits, 0, n);
    const sample_settings settings = {g->options->temperature, g->options->top_k,
                                      g->options->top_p};
    CUDPO_TRY(g->be->gemm(g->be, logits, hidden, false, g->weights.head, true, 0.0f));
    CUDPO_TRY(g->be->copy_out(g->be, g->host_logits, logits.data, (size_t)(n * V) * sizeof(float)));
    for (int64_t i = 0; i < n; i++) {
        const int64_t made = s[i]->ids.n - s[i]->prompt;
        const double u = rng_uniform(g->options->seed, (uint64_t)s[i]->index, (uint64_t)made);
        int32_t next;
        CUDPO_TRY(sample_token(&next, g->order, g->host_logits + i * V, V, &settings, u));
        if (is_eos(g, next)) {
            s[i]->done = true;
            continue;
        }
        s[i]->ids.ids[s[i]->ids.n++] = next; /* room was made for max_new_tokens */
        s[i]->done = made + 1 >= g->options->max_new_tokens || s[i]->ids.n >= g->capacity;
    }
    return CUDPO_OK;
}

/* The prompts of n sequences, whose places in the cache are begin .. begin+n-1, in one pack; then their first new token. */
static cudpo_status prefill(generator *g, sequence **s, int64_t begin, int64_t n)
{
    model_batch b = {0};
    tensor slot, row, hidden;
    int64_t T = 0;
    for (int64_t i = 0; i < n; i++) {
        memcpy(g->host + T, s[i]->ids.ids, (size_t)s[i]->prompt * sizeof(int32_t));
        T += s[i]->prompt;
    }
    CUDPO_TRY(put(g, &b.token, g->token, T));
    for (int64_t i = 0, t = 0; i < n; i++)
        for (int64_t p = 0; p < s[i]->prompt; p++)
            g->host[t++] = (int32_t)p;
    CUDPO_TRY(put(g, &b.position, g->position, T));
    for (int64_t i = 0, t = 0; i < n; i++)
        for (int64_t p = 0; p < s[i]->prompt; p++)
            g->host[t++] = (int32_t)((begin + i) * g->capacity + p);
    CUDPO_TRY(put(g, &slot, g->slot, T));
    for (int64_t i = 0, t = 0; i < n; t += s[i++]->prompt) {
        const int32_t segment[SEGMENT_FIELDS] = {(int32_t)t, (int32_t)s[i]->prompt, (int32_t)t, 0};
        memcpy(g->host + i * SEGMENT_FIELDS, segment, sizeof segment);
    }
    CUDPO_TRY(put(g, &b.segments, g->segments, n));
    for (int64_t i = 0, t = 0; i < n; i++) {
        t += s[i]->prompt;
        g->host[i] = (int32_t)(t - 1);
    }
    CUDPO_TRY(put(g, &row, g->row, n));
    CUDPO_TRY(model_prefill(&hidden, &g->ws, &g->cache, &g->weights, &g->config, &b, slot));
    const tensor last = tensor_rows(g->last, 0, n);
    CUDPO_TRY(g->be->gather_rows(g->be, last, hidden, row));
    return choose(g, last, s, n);
}

/* One more token for each sequence that is not done; `place` is where its keys and values stand. */
static cudpo_status decode(generator *g, sequence **s, const int64_t *place, int64_t n)
{
    tensor token, position, slot, first, length, hidden;
    for (int64_t i = 0; i < n; i++)
        g->host[i] = s[i]->ids.ids[s[i]->ids.n - 1];
    CUDPO_TRY(put(g, &token, g->token, n));
    for (int64_t i = 0; i < n; i++)
        g->host[i] = (int32_t)(s[i]->ids.n - 1);
    CUDPO_TRY(put(g, &position, g->position, n));
    for (int64_t i = 0; i < n; i++)
        g->host[i] = (int32_t)(place[i] * g->capacity + s[i]->ids.n - 1);
    CUDPO_TRY(put(g, &slot, g->slot, n));
    for (int64_t i = 0; i < n; i++)
        g->host[i] = (int32_t)(place[i] * g->capacity);
    CUDPO_TRY(put(g, &first, g->first, n));
    for (int64_t i = 0; i < n; i++)
        g->host[i] = (int32_t)s[i]->ids.n;
    CUDPO_TRY(put(g, &length, g->length, n));
    CUDPO_TRY(model_decode(&hidden, &g->ws, &g->cache, &g->weights, &g->config, token, position,
                           slot, first, length));
    return choose(g, hidden, s, n);
}

/* All tokens of up to `batch` sequences. */
static cudpo_status run_batch(generator *g, sequence *s, int64_t n)
{
    sequence **active = calloc((size_t)n, sizeof(sequence *));
    int64_t *place = calloc((size_t)n, sizeof *place);
    cudpo_status status = CUDPO_OK;
    if (active == NULL || place == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "batch");
    for (int64_t begin = 0; status == CUDPO_OK && begin < n;) {
        int64_t T = 0, count = 0;
        while (begin + count < n && T + s[begin + count].prompt <= g->tokens) {
            active[count] = &s[begin + count];
            T += s[begin + count].prompt;
            count++;
        }
        status = prefill(g, active, begin, count);
        begin += count;
    }
    while (status == CUDPO_OK) {
        int64_t count = 0;
        for (int64_t i = 0; i < n; i++) {
            if (s[i].done) continue;
            active[count] = &s[i];
            place[count++] = i;
        }
        if (count == 0) break;
        status = decode(g, active, place, count);
    }
    free(place);
    free(active);
    return status;
}

static cudpo_status encode(generator *g, sequence *s)
{
    const cudpo_generate_options *o = g->options;
    int64_t longest = 0;
    for (int64_t i = 0; i < o->prompt_count; i++) {
        char where[48];
        snprintf(where, sizeof where, "prompt %lld", (long long)i + 1);
        s[i].index = i;
        CUDPO_TRY(
            tokenizer_encode(g->tokenizer, &s[i].ids, o->prompts[i], strlen(o->prompts[i]), true));
        s[i].prompt = s[i].ids.n;
        if (s[i].prompt == 0)
            return cudpo_fail(CUDPO_EDATA, where,
                              "has no tokens, and this tokenizer adds none: give it some text");
        if (s[i].prompt >= g->config.max_position_embeddings)
            return cudpo_fail(CUDPO_EDATA, where, "%lld tokens, and the model sees %lld at most",
                              (long long)s[i].prompt, (long long)g->config.max_position_embeddings);
        int32_t *ids =
            realloc(s[i].ids.ids, (size_t)(s[i].prompt + o->max_new_tokens) * sizeof *ids);
        if (ids == NULL)
            return cudpo_fail(CUDPO_ENOMEM, where, "%lld tokens", (long long)o->max_new_tokens);
        s[i].ids.ids = ids;
        longest = s[i].prompt > longest ? s[i].prompt : longest;
    }
    const int64_t wanted = longest + o->max_new_tokens, limit = g->config.max_position_embeddings;
    g->capacity = wanted < limit ? wanted : limit;
    g->batch = o->batch_size > 0 ? o->batch_size : BATCH;
    if (g->batch > o->prompt_count) g->batch = o->prompt_count;
    g->tokens = longest > 2048 ? longest : 2048;
    g->tokens = g->tokens > g->batch ? g->tokens : g->batch;
    return CUDPO_OK;
}

/* The text of ids; a NUL, which would end a C string before its time, becomes U+FFFD. */
static cudpo_status decode_text(const generator *g, buffer *out, const int32_t *ids, int64_t n)
{
    buffer text = {0};
    cudpo_status status = tokenizer_decode(g->tokenizer, &text, ids, n, true);
    if (status == CUDPO_OK) status = buffer_append(out, "", 0);
    for (size_t at = 0; at < text.size && status == CUDPO_OK;) {
        const char *nul = memchr(text.data + at, '\0', text.size - at);
        const size_t end = nul == NULL ? text.size : (size_t)(nul - text.data);
        status = buffer_append(out, text.data + at, end - at);
        if (status == CUDPO_OK && nul != NULL) status = buffer_append(out, "\xef\xbf\xbd", 3);
        at = end + 1;
    }
    buffer_free(&text);
    return status;
}

static cudpo_status decode_texts(generator *g, const sequence *s, char **texts)
{
    for (int64_t i = 0; i < g->options->prompt_count; i++) {
        buffer b = {0};
        const cudpo_status status =
            decode_text(g, &b, s[i].ids.ids + s[i].prompt, s[i].ids.n - s[i].prompt);
        if (status != CUDPO_OK) {
            buffer_free(&b);
            return status;
        }
        texts[i] = b.data;
    }
    return CUDPO_OK;
}

cudpo_status cudpo_generate(char ***texts, const cudpo_generate_options *o)
{
    *texts = NULL;
    CUDPO_REQUIRE(o->prompt_count >= 1 && o->max_new_tokens >= 1 && o->max_new_tokens <= 1 << 20);
    CUDPO_REQUIRE(o->temperature >= 0.0 && o->top_k >= 0 && o->top_p > 0.0 && o->batch_size >= 0);
    generator g = {.options = o};
    const size_t n = (size_t)o->prompt_count;
    sequence *s = calloc(n, sizeof *s);
    char **out = calloc(n, sizeof *out);
    cudpo_status status = CUDPO_OK;
    if (s == NULL || out == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu prompts", n);
    if (status == CUDPO_OK) status = device_open(&g.be, o->device, 0, ".");
    if (status == CUDPO_OK) status = model_config_load(&g.config, o->model_name_or_path);
    if (status == CUDPO_OK) status = tokenizer_load(&g.tokenizer, o->model_name_or_path);
    if (status == CUDPO_OK) status = encode(&g, s);
    if (status == CUDPO_OK) status = model_weights_create(&g.weights, g.be, &g.config, DTYPE_F32);
    if (status == CUDPO_OK)
        status = model_weights_load(&g.weights, &g.config, o->model_name_or_path);
    if (status == CUDPO_OK) status = allocate(&g);
    for (int64_t i = 0; status == CUDPO_OK && i < o->prompt_count; i += g.batch)
        status =
            run_batch(&g, s + i, o->prompt_count - i < g.batch ? o->prompt_count - i : g.batch);
    if (status == CUDPO_OK) status = device_check(g.be);
    if (status == CUDPO_OK) status = decode_texts(&g, s, out);
    for (size_t i = 0; i < n && s != NULL; i++)
        token_list_free(&s[i].ids);
    for (size_t i = 0; i < n && out != NULL && status != CUDPO_OK; i++)
        free(out[i]);
    if (status != CUDPO_OK) {
        free(out);
        out = NULL;
    }
    free(s);
    generator_close(&g);
    *texts = out;
    return status;
}
