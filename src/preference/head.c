/* head.c - chunks of whole units through logits, log-probs, loss and back. */
#include "preference/head.h"

/* A run of whole units whose score rows fit the logits buffer. */
typedef struct chunk {
    int64_t unit, units;
    int64_t sequence, sequences;
    int64_t row, rows;
} chunk;

static tensor rows_of(tensor t, int64_t begin, int64_t n)
{
    return tensor_present(t) ? tensor_rows(t, begin, n) : t;
}

static int64_t unit_rows(const head_batch *b, int64_t unit)
{
    return b->host_sequence_begin[(unit + 1) * b->sequences] -
           b->host_sequence_begin[unit * b->sequences];
}

static chunk chunk_after(const head_batch *b, int64_t unit, int64_t units, int64_t max_rows)
{
    chunk c = {.unit = unit, .sequence = unit * b->sequences};
    c.row = b->host_sequence_begin[c.sequence];
    while (unit + c.units < units) {
        const int64_t more = unit_rows(b, unit + c.units);
        if (c.units > 0 && c.rows + more > max_rows) break;
        c.rows += more;
        c.units++;
    }
    c.sequences = c.units * b->sequences;
    return c;
}

int64_t head_chunk_rows(int64_t budget, int64_t vocab, int64_t largest_unit)
{
    const int64_t rows = budget / (vocab * (int64_t)sizeof(float));
    return rows > largest_unit ? rows : largest_unit;
}

int64_t head_chunks(const int32_t *sequence_begin, int64_t units, int sequences, int64_t rows)
{
    const head_batch b = {.host_sequence_begin = sequence_begin, .sequences = sequences};
    int64_t n = 0;
    for (int64_t unit = 0; unit < units; n++)
        unit += chunk_after(&b, unit, units, rows).units;
    return n;
}

static tensor cut_as(arena *a, dtype type, int64_t rows, int64_t cols)
{
    return tensor_matrix(arena_take(a, (size_t)(rows * cols) * dtype_size(type)), type, rows, cols);
}

static tensor cut(arena *a, int64_t rows, int64_t cols)
{
    return cut_as(a, DTYPE_F32, rows, cols);
}

void head_workspace_cut(head_workspace *ws, arena *a, dtype type, int64_t R, int64_t S, int64_t G,
                        int64_t C, int64_t V, int64_t chunk_rows)
{
    *ws = (head_workspace){.rows = cut_as(a, type, R, C),
                           .drows = cut_as(a, type, R, C),
                           .logits = cut(a, chunk_rows < R ? chunk_rows : R, V),
                           .logp = cut(a, R, 1),
                           .stats = cut(a, R, ROW_STATS),
                           .scores = cut(a, S, 1),
                           .sums = cut(a, S, ROW_STATS),
                           .coefficient = cut(a, S, 1),
                           .row_scale = cut(a, R, 1),
                           .row_coefficient = cut(a, R, 1),
                           .columns = cut(a, G, LOSS_COLUMNS)};
}

static cudpo_status begin(head_workspace *ws, backend *be, const head_batch *b, tensor hidden)
{
    const int64_t R = b->row_label.rows, S = b->tokens.rows;
    CUDPO_REQUIRE(b->sequences >= 1 && S % b->sequences == 0 && S >= 1 && S <= ws->scores.rows);
    CUDPO_REQUIRE(R <= ws->rows.rows);
    return R == 0 ? CUDPO_OK
                  : be->gather_rows(be, tensor_rows(ws->rows, 0, R), hidden, b->row_hidden);
}

/* Log-probs of one chunk, and their sums.  The op could take the reference's logits in the same pass; they have a pass of
 * their own, because a second chunk of logits would take as much memory, and each row is read once either way. */
static cudpo_status score_chunk(head_workspace *ws, backend *be, const head_batch *b,
                                const chunk *c, tensor head, bool gradient)
{
    CUDPO_REQUIRE(c->rows <= ws->logits.rows);
    if (c->rows > 0) {
        const tensor logits = tensor_rows(ws->logits, 0, c->rows);
        CUDPO_TRY(
            be->gemm(be, logits, tensor_rows(ws->rows, c->row, c->rows), false, head, true, 0.0f));
        const logprob_tensors rows = {
            .logp = tensor_rows(ws->logp, c->row, c->rows),
            .stats = tensor_rows(ws->stats, c->row, c->rows),
            .scale = gradient ? tensor_rows(ws->row_scale, c->row, c->rows) : (tensor){0},
            .logits = logits,
            .label = tensor_rows(b->row_label, c->row, c->rows),
            .gradient_type = ws->rows.type};
        CUDPO_TRY(be->token_logprob(be, &rows, gradient));
    }
    const tensor range = tensor_rows(b->sequence_begin, c->sequence, c->sequences + 1);
    CUDPO_TRY(
        be->segment_sum(be, tensor_rows(ws->scores, c->sequence, c->sequences), ws->logp, range));
    return be->segment_sum(be, tensor_rows(ws->sums, c->sequence, c->sequences), ws->stats, range);
}

static cudpo_status evaluate_chunk(head_workspace *ws, backend *be, const head_batch *b,
                                   const chunk *c, tensor reference, tensor label, tensor kl,
                                   const loss_parameters *parameters)
{
    const loss_inputs in = {.policy = tensor_rows(ws->scores, c->sequence, c->sequences),
                            .reference = rows_of(reference, c->sequence, c->sequences),
                            .tokens = tensor_rows(b->tokens, c->sequence, c->sequences),
                            .label = rows_of(label, c->unit, c->units),
                            .kl = rows_of(kl, c->unit, c->units),
                            .completions = b->completions,
                            .sequences = b->sequences};
    const loss_outputs out = {.coefficient =
                                  tensor_rows(ws->coefficient, c->sequence, c->sequences),
                              .columns = tensor_rows(ws->columns, c->unit, c->units)};
    return be->preference_loss(be, &out, &in, parameters);
}

/* (softmax - onehot) / row_scale as token_logprob left it: in bf16 the first half of each row of logits. */
static tensor gradient_of(tensor logits, dtype type, int64_t rows)
{
    tensor t = tensor_rows(logits, 0, rows);
    t.stride = t.stride * (int64_t)dtype_size(logits.type) / (int64_t)dtype_size(type);
    t.type = type;
    return t;
}

cudpo_status head_score(head_workspace *ws, backend *be, const head_batch *b, tensor hidden,
                        tensor head)
{
    CUDPO_TRY(begin(ws, be, b, hidden));
    const int64_t units = b->tokens.rows / b->sequences;
    for (int64_t unit = 0; unit < units;) {
        const chunk c = chunk_after(b, unit, units, ws->logits.rows);
        CUDPO_TRY(score_chunk(ws, be, b, &c, head, false));
        unit += c.units;
    }
    return CUDPO_OK;
}

cudpo_status head_loss(head_workspace *ws, tensor dhidden, tensor dhead, backend *be,
                       const head_batch *b, tensor hidden, tensor head, tensor reference,
                       tensor label, tensor kl, const loss_parameters *parameters)
{
    CUDPO_TRY(begin(ws, be, b, hidden));
    const int64_t units = b->tokens.rows / b->sequences, R = b->row_label.rows;
    for (int64_t unit = 0; unit < units;) {
        const chunk c = chunk_after(b, unit, units, ws->logits.rows);
        unit += c.units;
        CUDPO_TRY(score_chunk(ws, be, b, &c, head, true));
        CUDPO_TRY(backend_part(be, PART_LOSS));
        CUDPO_TRY(evaluate_chunk(ws, be, b, &c, reference, label, kl, parameters));
        CUDPO_TRY(backend_part(be, PART_HEAD));
        if (c.rows == 0) continue;
        const tensor dlogits = gradient_of(ws->logits, ws->rows.type, c.rows);
        const tensor rows = tensor_rows(ws->rows, c.row, c.rows);
        const tensor scale = tensor_rows(ws->row_coefficient, c.row, c.rows);
        CUDPO_TRY(be->row_coefficients(be, scale, tensor_rows(ws->coefficient, 0, b->tokens.rows),
                                       tensor_rows(b->row_sequence, c.row, c.rows),
                                       tensor_rows(ws->row_scale, c.row, c.rows)));
        CUDPO_TRY(
            be->gemm(be, tensor_rows(ws->drows, c.row, c.rows), dlogits, false, head, false, 0.0f));
        CUDPO_TRY(be->scale_rows(be, rows, scale));
        CUDPO_TRY(be->gemm(be, dhead, dlogits, true, rows, false, 1.0f));
    }
    if (R == 0) return be->zero(be, dhidden);
    return be->scatter_rows(be, dhidden, tensor_rows(ws->drows, 0, R), b->row_hidden,
                            tensor_rows(ws->row_coefficient, 0, R));
}

cudpo_status head_evaluate(head_workspace *ws, backend *be, const head_batch *b, tensor reference,
                           tensor label, tensor kl, const loss_parameters *parameters)
{
    const int64_t units = b->tokens.rows / b->sequences;
    const chunk all = {.units = units, .sequences = b->tokens.rows, .rows = b->row_label.rows};
    return evaluate_chunk(ws, be, b, &all, reference, label, kl, parameters);
}
