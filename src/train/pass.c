/* pass.c - one allocation for all that a pack needs, and the calls into model and head. */
#include "train/pass.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOGITS_BUDGET = 64 << 20
}; /* bytes of logits at a time: enough rows for GEMMs at full speed */

static tensor ints(arena *a, int64_t rows, int64_t cols)
{
    return tensor_matrix(arena_take(a, (size_t)(rows * cols) * sizeof(int32_t)), DTYPE_I32, rows,
                         cols);
}

static tensor floats(arena *a, int64_t n)
{
    return tensor_vector(arena_take(a, (size_t)n * sizeof(float)), DTYPE_F32, n);
}

int64_t pass_chunk_rows(const model_config *c, const pass_limits *l)
{
    return head_chunk_rows(LOGITS_BUDGET, c->vocab_size,
                           l->largest_group + l->completions + l->prompt);
}

/* Cut all tensors; counts only while the arena has no memory. */
static cudpo_status cut(pass *p, arena *a)
{
    const pass_limits *l = &p->limits;
    const int64_t T = l->tokens, G = l->groups, S = G * p->sequences, V = p->config->vocab_size;
    const int64_t R =
        T + S; /* every completion may score one row more than it has hidden rows of its own */
    model_workspace_free(&p->ws);
    CUDPO_TRY(model_workspace_cut(&p->ws, a, p->config, l->kind, l->type, T, l->positions));
    head_workspace_cut(&p->head, a, l->type, R, S, G, p->config->hidden_size, V,
                       pass_chunk_rows(p->config, l));
    p->all_token = ints(a, T, 1);
    p->all_position = ints(a, T, 1);
    p->all_segments = ints(a, G * (l->completions * 2 + 1), SEGMENT_FIELDS);
    p->all_wanted = ints(a, T, 1);
    p->all_row_hidden = ints(a, R, 1);
    p->all_row_label = ints(a, R, 1);
    p->all_row_sequence = ints(a, R, 1);
    p->all_sequence_begin = ints(a, S + 1, 1);
    p->all_tokens = ints(a, S, 1);
    p->reference = floats(a, S);
    p->label = ints(a, G, 1);
    return CUDPO_OK;
}

cudpo_status pass_bytes(size_t *bytes, const model_config *c, const pass_limits *limits)
{
    pass p = {.config = c, .limits = *limits, .sequences = limits->completions + limits->prompt};
    arena a = {0};
    const cudpo_status status = cut(&p, &a);
    model_workspace_free(&p.ws);
    *bytes = a.used;
    return status;
}

workload pass_workload(const model_config *c, const pass_limits *l)
{
    const int64_t Q = c->num_attention_heads * c->head_dim,
                  KV = c->num_key_value_heads * c->head_dim;
    int64_t width = 2 * c->intermediate_size;
    if (width < Q + 2 * KV) width = Q + 2 * KV;
    if (width < c->hidden_size) width = c->hidden_size;
    return (workload){.tokens = l->tokens,
                      .segments = l->groups * (l->completions * 2 + 1),
                      .rows = l->tokens + l->groups * (l->completions + l->prompt),
                      .width = width,
                      .attention = {.heads = (int)c->num_attention_heads,
                                    .kv_heads = (int)c->num_key_value_heads,
                                    .head_dim = (int)c->head_dim,
                                    .scale = 1.0f},
                      .type = l->type,
                      .backward = l->kind != WORKSPACE_SCORE};
}

cudpo_status pass_create(pass *p, backend *be, const model_config *c, const pass_limits *limits)
{
    *p = (pass){.be = be,
                .config = c,
                .limits = *limits,
                .sequences = limits->completions + limits->prompt};
    /* The last token of a sequence is a label only. */
    if (limits->positions - 1 > c->max_position_embeddings)
        log_warn("sequences of up to %lld tokens, but the model was made for %lld: set max_length",
                 (long long)limits->positions, (long long)c->max_position_embeddings);
    arena a = {0};
    cudpo_status status = cut(p, &a);
    if (status != CUDPO_OK) goto out;
    p->bytes = a.used;
    status = be->alloc(be, &p->memory, a.used);
    if (status != CUDPO_OK) {
        char why[256];
        snprintf(why, sizeof why, "%s", cudpo_error_message());
        cudpo_error_clear();
        status = cudpo_fail(status, "memory",
                            "%.2f GB for packs of %lld tokens are not there; lower "
                            "max_tokens_per_pack or max_length, "
                            "or set gradient_checkpointing (%s)",
                            (double)a.used * 1e-9, (long long)limits->tokens, why);
        goto out;
    }
    a = (arena){.base = p->memory, .size = a.used};
    status = cut(p, &a);
    if (status == CUDPO_OK) status = model_workspace_rotations(&p->ws, be, c);
    const workload most = pass_workload(c, limits);
    if (status == CUDPO_OK) status = be->reserve(be, &most);
    if (status == CUDPO_OK)
        status =
            pack_create(&p->pack, limits->groups, limits->tokens, limits->plain, limits->prompt);
    const size_t S = (size_t)(limits->groups * p->sequences), R = (size_t)limits->tokens + S;
    p->logp = malloc(R * sizeof *p->logp);
    p->score = malloc(S * sizeof *p->score);
    p->sums = malloc(S * ROW_STATS * sizeof *p->sums);
    p->columns = malloc((size_t)limits->groups * LOSS_COLUMNS * sizeof *p->columns);
    p->wanted = malloc((size_t)limits->tokens * sizeof *p->wanted);
    p->place = malloc((size_t)limits->tokens * sizeof *p->place);
    p->row_hidden = malloc(R * sizeof *p->row_hidden);
    if (status == CUDPO_OK &&
        (p->wanted == NULL || p->place == NULL || p->row_hidden == NULL || p->logp == NULL ||
         p->score == NULL || p->sums == NULL || p->columns == NULL))
        status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "results of %zu rows", R);
out:
    if (status != CUDPO_OK) pass_destroy(p);
    return status;
}

void pass_destroy(pass *p)
{
    if (p->be == NULL) return;
    free(p->row_hidden);
    free(p->place);
    free(p->wanted);
    free(p->columns);
    free(p->sums);
    free(p->score);
    free(p->logp);
    pack_free(&p->pack);
    model_workspace_free(&p->ws);
    p->be->free(p->be, p->memory);
    *p = (pass){0};
}

/* The first n rows of a device array, filled from the host. */
static cudpo_status upload(pass *p, tensor *view, tensor all, const void *host, int64_t n)
{
    *view = tensor_rows(all, 0, n);
    if (n == 0) return CUDPO_OK;
    return p->be->copy_in(p->be, view->data, host, (size_t)(n * all.cols) * dtype_size(all.type));
}

/* The tokens that score rows read, in order, and each row's place among them: only these go through the whole of the
 * last layer.  Returns how many. */
static int64_t list_wanted(pass *p)
{
    const pack *k = &p->pack;
    int32_t U = 0;
    memset(p->place, 0, (size_t)k->T * sizeof *p->place);
    for (int64_t r = 0; r < k->R; r++)
        p->place[k->row_hidden[r]] = 1;
    for (int32_t t = 0; t < k->T; t++) {
        if (!p->place[t]) continue;
        p->wanted[U] = t;
        p->place[t] = U++;
    }
    for (int64_t r = 0; r < k->R; r++)
        p->row_hidden[r] = p->place[k->row_hidden[r]];
    return U;
}

cudpo_status pass_upload(pass *p)
{
    const pack *k = &p->pack;
    head_batch *s = &p->scores;
    CUDPO_REQUIRE(k->G >= 1 && k->T >= 1 && k->S == k->G * p->sequences);
    CUDPO_TRY(upload(p, &p->batch.token, p->all_token, k->token, k->T));
    CUDPO_TRY(upload(p, &p->batch.position, p->all_position, k->position, k->T));
    CUDPO_TRY(upload(p, &p->batch.segments, p->all_segments, k->segment, k->N));
    p->batch.wanted = (tensor){0}; /* where nothing is scored, there is no such list */
    const int64_t U = list_wanted(p);
    if (U > 0) CUDPO_TRY(upload(p, &p->batch.wanted, p->all_wanted, p->wanted, U));
    CUDPO_TRY(upload(p, &s->row_hidden, p->all_row_hidden, p->row_hidden, k->R));
    CUDPO_TRY(upload(p, &s->row_label, p->all_row_label, k->row_label, k->R));
    CUDPO_TRY(upload(p, &s->row_sequence, p->all_row_sequence, k->row_sequence, k->R));
    CUDPO_TRY(upload(p, &s->sequence_begin, p->all_sequence_begin, k->sequence_begin, k->S + 1));
    CUDPO_TRY(upload(p, &s->tokens, p->all_tokens, k->sequence_tokens, k->S));
    s->host_sequence_begin = k->sequence_begin;
    s->completions = p->limits.completions;
    s->sequences = p->sequences;
    return CUDPO_OK;
}

static cudpo_status download_scores(pass *p)
{
    const size_t S = (size_t)p->pack.S;
    CUDPO_TRY(p->be->copy_out(p->be, p->score, p->head.scores.data, S * sizeof *p->score));
    return p->be->copy_out(p->be, p->sums, p->head.sums.data, S * ROW_STATS * sizeof *p->sums);
}

static cudpo_status download_columns(pass *p)
{
    return p->be->copy_out(p->be, p->columns, p->head.columns.data,
                           (size_t)p->pack.G * LOSS_COLUMNS * sizeof *p->columns);
}

cudpo_status pass_score(pass *p, const model_weights *w)
{
    tensor hidden;
    CUDPO_TRY(model_forward(&hidden, &p->ws, w, p->config, &p->batch));
    CUDPO_TRY(head_score(&p->head, p->be, &p->scores, hidden, w->head));
    if (p->pack.R > 0)
        CUDPO_TRY(p->be->copy_out(p->be, p->logp, p->head.logp.data,
                                  (size_t)p->pack.R * sizeof *p->logp));
    return download_scores(p);
}

cudpo_status pass_set_reference(pass *p, const float *score)
{
    return p->be->copy_in(p->be, p->reference.data, score, (size_t)p->pack.S * sizeof *score);
}

cudpo_status pass_set_labels(pass *p, const int32_t *label, tensor kl)
{
    p->kl = kl;
    return p->be->copy_in(p->be, p->label.data, label, (size_t)p->pack.G * sizeof *label);
}

static tensor first_rows(tensor t, int64_t n, bool present)
{
    return present ? tensor_rows(t, 0, n) : (tensor){0};
}

static cudpo_status run(pass *p, model_weights *dw, const model_weights *w,
                        const loss_parameters *parameters, bool use_reference, bool use_labels)
{
    const int64_t S = p->pack.S, G = p->pack.G;
    tensor hidden;
    CUDPO_TRY(backend_part(p->be, PART_FORWARD));
    CUDPO_TRY(model_forward(&hidden, &p->ws, w, p->config, &p->batch));
    CUDPO_TRY(backend_part(p->be, PART_HEAD));
    const tensor dhidden = tensor_rows(p->ws.dy, 0, hidden.rows);
    CUDPO_TRY(head_loss(&p->head, dhidden, dw->head, p->be, &p->scores, hidden, w->head,
                        first_rows(p->reference, S, use_reference),
                        first_rows(p->label, G, use_labels), first_rows(p->kl, G, use_labels),
                        parameters));
    CUDPO_TRY(backend_part(p->be, PART_BACKWARD));
    return model_backward(dw, &p->ws, w, p->config, &p->batch, dhidden);
}

cudpo_status pass_train(pass *p, model_weights *dw, const model_weights *w,
                        const loss_parameters *parameters, bool use_reference, bool use_labels)
{
    CUDPO_TRY(run(p, dw, w, parameters, use_reference, use_labels));
    CUDPO_TRY(download_scores(p));
    return download_columns(p);
}

cudpo_status pass_train_later(pass *p, const pass_results *results, model_weights *dw,
                              const model_weights *w, const loss_parameters *parameters,
                              bool use_reference, bool use_labels)
{
    backend *be = p->be;
    const size_t S = (size_t)p->pack.S, G = (size_t)p->pack.G;
    CUDPO_TRY(run(p, dw, w, parameters, use_reference, use_labels));
    for (size_t s = 0; s < S; s++)
        results->rows[s] = p->pack.sequence_begin[s + 1] - p->pack.sequence_begin[s];
    CUDPO_TRY(be->copy_out_later(be, results->score, p->head.scores.data, S * sizeof(float)));
    CUDPO_TRY(
        be->copy_out_later(be, results->sums, p->head.sums.data, S * ROW_STATS * sizeof(float)));
    return be->copy_out_later(be, results->columns, p->head.columns.data,
                              G * LOSS_COLUMNS * sizeof(float));
}

cudpo_status pass_score_later(pass *p, tensor score, const model_weights *w)
{
    const int64_t S = p->pack.S;
    tensor hidden;
    CUDPO_TRY(model_forward(&hidden, &p->ws, w, p->config, &p->batch));
    CUDPO_TRY(head_score(&p->head, p->be, &p->scores, hidden, w->head));
    return p->be->copy(p->be, tensor_rows(score, 0, S), tensor_rows(p->head.scores, 0, S));
}

cudpo_status pass_evaluate(pass *p, const loss_parameters *parameters, bool use_reference,
                           bool use_labels)
{
    const int64_t S = p->pack.S, G = p->pack.G;
    CUDPO_TRY(head_evaluate(&p->head, p->be, &p->scores, first_rows(p->reference, S, use_reference),
                            first_rows(p->label, G, use_labels), first_rows(p->kl, G, use_labels),
                            parameters));
    return download_columns(p);
}
