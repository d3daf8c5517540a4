/* work.c - the formulas of work.h: one line an op, in the order of the code that calls it. */
#include "plan/work.h"
#include "backend/backend.h"

#define F32 4.0 /* bytes of log-probs, statistics, logits, moments */

/* Widths of a model, and the walk over a pack's ops. */
typedef struct walk {
    double L, C, Q, KV, F, V, H, K, T, U, R;
    double full, window; /* layers but the last, by what they see */
    bool last_window, wanted;
    double e, g; /* bytes of an activation, of a gradient */
    const model_config *c;
    const work_counts *n;
    work_pass pass;
    work_sink sink;
    void *context;
} walk;

static walk walk_of(const model_config *c, const work_counts *n, const work_types *types,
                    work_sink sink, void *context)
{
    const int64_t last = c->num_hidden_layers - 1;
    walk w = {.L = (double)c->num_hidden_layers,
              .C = (double)c->hidden_size,
              .Q = (double)(c->num_attention_heads * c->head_dim),
              .KV = (double)(c->num_key_value_heads * c->head_dim),
              .F = (double)c->intermediate_size,
              .V = (double)c->vocab_size,
              .H = (double)c->num_attention_heads,
              .K = (double)c->num_key_value_heads,
              .T = (double)n->tokens,
              .U = (double)(n->wanted > 0 ? n->wanted : n->tokens),
              .R = (double)n->rows,
              .last_window = model_config_window(c, last) > 0,
              .wanted = n->wanted > 0,
              .e = types->activation,
              .g = types->gradient,
              .c = c,
              .n = n,
              .sink = sink,
              .context = context};
    for (int64_t l = 0; l < last; l++) {
        const bool narrow = model_config_window(c, l) > 0;
        w.full += !narrow;
        w.window += narrow;
    }
    return w;
}

static void emit(const walk *w, work_kind kind, double times, double operations, double bytes)
{
    const work_item item = {
        .pass = w->pass, .kind = kind, .times = times, .operations = operations, .bytes = bytes};
    if (times > 0 && (operations > 0 || bytes > 0)) w->sink(w->context, &item);
}

static void moves(const walk *w, double times, double bytes)
{
    emit(w, WORK_ELEMENTWISE, times, 0, bytes);
}

/* c [M,N] = a [M,K] b [K,N], where c has elements of `size` bytes, which are added to with `beta`. */
static void product(const walk *w, work_kind kind, double times, double M, double N, double K,
                    double size, double beta)
{
    const work_item item = {.pass = w->pass,
                            .kind = kind,
                            .times = times,
                            .operations = 2 * M * N * K,
                            .bytes = w->e * (M * K + K * N) + size * M * N * (1 + beta),
                            .m = M,
                            .n = N,
                            .k = K};
    if (times > 0 && item.operations > 0) w->sink(w->context, &item);
}

static void gemm(const walk *w, double times, double M, double N, double K)
{
    product(w, WORK_GEMM, times, M, N, K, w->e, 0);
}

/* dw [M,N] += over K rows */
static void gradient(const walk *w, double times, double M, double N, double K)
{
    product(w, WORK_GEMM, times, M, N, K, w->g, 1);
}

static void bias(const walk *w, double times, bool present, double rows, double N)
{
    if (present) moves(w, times, 2 * rows * N * w->e);
}

static void bias_gradient(const walk *w, double times, bool present, double rows, double N)
{
    if (present) moves(w, times, rows * N * w->e);
}

/* add_rmsnorm: x, branch, sum, y; where there is no branch, the sum is x in place. */
static void norm(const walk *w, double times, double rows, bool branch)
{
    moves(w, times, rows * ((branch ? 4 : 2) * w->C * w->e + F32));
}

/* rmsnorm_again, and rmsnorm_backward: dx read and written, dy, x. */
static void norm_again(const walk *w, double times, double rows)
{
    moves(w, times, rows * (2 * w->C * w->e + F32));
}

static void norm_backward(const walk *w, double times, double rows)
{
    moves(w, times, rows * (4 * w->C * w->e + F32));
}

static void gather(const walk *w, double rows, double cols)
{
    moves(w, 1, 2 * rows * cols * w->e);
}

static void scatter(const walk *w, double to, double from, double cols)
{
    moves(w, 1, (to + from) * cols * w->e);
}

static void attention(const walk *w, double times, double queries, double pairs)
{
    const double bytes = w->e * (2 * queries * w->Q + 2 * w->T * w->KV) + F32 * queries * w->H;
    emit(w, WORK_ATTENTION, times, 4 * pairs * w->Q, bytes);
}

/* q, out and dout of the queries, k and v; dq, dk and dv of all. */
static void attention_backward(const walk *w, double times, double queries, double pairs)
{
    const double bytes =
        w->e * (3 * queries * w->Q + 2 * w->T * w->KV + w->T * (w->Q + 2 * w->KV)) +
        F32 * queries * w->H;
    emit(w, WORK_ATTENTION_BACKWARD, times, 10 * pairs * w->Q, bytes);
}

static double pairs(const walk *w, bool window)
{
    return (double)w->n->visible[window ? WORK_WINDOW : WORK_FULL];
}

static double pairs_wanted(const walk *w)
{
    const int view = w->last_window ? WORK_WINDOW : WORK_FULL;
    return (double)(w->wanted ? w->n->visible_wanted[view] : w->n->visible[view]);
}

/* From q, k, v on: norms of heads, rotation. */
static void heads_forward(const walk *w, double times)
{
    const double qk = w->T * (w->Q + w->KV) * w->e, stats = w->T * F32;
    if (w->c->qk_norm) {
        moves(w, times, 2 * qk); /* a copy */
        moves(w, times, 2 * w->T * w->Q * w->e + stats * w->H);
        moves(w, times, 2 * w->T * w->KV * w->e + stats * w->K);
    }
    moves(w, times, 2 * w->T * w->Q * w->e);
    moves(w, times, 2 * w->T * w->KV * w->e);
}

static void heads_backward(const walk *w, double times)
{
    const double stats = w->T * F32;
    moves(w, times, 2 * w->T * w->Q * w->e);
    moves(w, times, 2 * w->T * w->KV * w->e);
    if (w->c->qk_norm) {
        moves(w, times, 3 * w->T * w->Q * w->e + stats * w->H);
        moves(w, times, 3 * w->T * w->KV * w->e + stats * w->K);
    }
}

/* layer_after_attention() */
static void block_forward(const walk *w, double times, double rows)
{
    gemm(w, times, rows, w->C, w->Q);
    bias(w, times, w->c->o_bias, rows, w->C);
    norm(w, times, rows, true);
    gemm(w, times, rows, 2 * w->F, w->C);
    bias(w, times, w->c->mlp_bias, rows, 2 * w->F);
    moves(w, times, 3 * rows * w->F * w->e); /* SwiGLU */
    gemm(w, times, rows, w->C, w->F);
    bias(w, times, w->c->mlp_bias, rows, w->C);
}

/* mlp_backward() and output_backward() */
static void block_backward(const walk *w, double times, double rows)
{
    gemm(w, times, rows, w->F, w->C);
    moves(w, times, 6 * rows * w->F * w->e); /* SwiGLU, and its output once more */
    gradient(w, times, w->C, w->F, rows);
    bias_gradient(w, times, w->c->mlp_bias, rows, w->C);
    norm_again(w, times, rows);
    gradient(w, times, 2 * w->F, w->C, rows);
    bias_gradient(w, times, w->c->mlp_bias, rows, 2 * w->F);
    gemm(w, times, rows, w->C, 2 * w->F);
    norm_backward(w, times, rows);
    gradient(w, times, w->C, w->Q, rows);
    bias_gradient(w, times, w->c->o_bias, rows, w->C);
    gemm(w, times, rows, w->Q, w->C);
}

static void qkv_forward(const walk *w, double times)
{
    gemm(w, times, w->T, w->Q + 2 * w->KV, w->C);
    bias(w, times, w->c->qkv_bias, w->T, w->Q + 2 * w->KV);
}

/* layer_forward() of all layers, from where their inputs are. */
static void layers_forward(const walk *w)
{
    const double inner = w->L - 1;
    qkv_forward(w, inner);
    heads_forward(w, inner);
    attention(w, w->full, w->T, pairs(w, false));
    attention(w, w->window, w->T, pairs(w, true));
    block_forward(w, inner, w->T);

    if (w->wanted) {
        gather(w, w->U, w->C);
        gemm(w, 1, w->U, w->Q, w->C);
        scatter(w, w->T, w->U, w->Q);
        gemm(w, 1, w->T, 2 * w->KV, w->C);
        bias(w, 1, w->c->qkv_bias, w->T, w->Q + 2 * w->KV);
    } else {
        qkv_forward(w, 1);
    }
    heads_forward(w, 1);
    attention(w, 1, w->U, pairs_wanted(w));
    if (w->wanted) {
        gather(w, w->U, w->Q);
        gather(w, w->U, w->C);
    }
    block_forward(w, 1, w->U);
}

/* model_forward() */
static void trunk_forward(const walk *w)
{
    moves(w, 1, 2 * w->T * w->C * w->e); /* embedding */
    norm(w, 1, w->T, false);
    norm(w, w->L - 1, w->T, true);
    layers_forward(w);
    norm(w, 1, w->U, true);
}

static void recompute(const walk *w)
{
    norm(w, w->L, w->T, false);
    layers_forward(w);
}

static void qkv_backward(const walk *w, double times)
{
    gradient(w, times, w->Q + 2 * w->KV, w->C, w->T);
    bias_gradient(w, times, w->c->qkv_bias, w->T, w->Q + 2 * w->KV);
    gemm(w, times, w->T, w->C, w->Q + 2 * w->KV);
}

/* wanted_qkv_backward() */
static void wanted_qkv_backward(const walk *w)
{
    bias_gradient(w, 1, w->c->qkv_bias, w->T, w->Q + 2 * w->KV);
    gather(w, w->U, w->Q);
    gather(w, w->U, w->C);
    gradient(w, 1, w->Q, w->C, w->U);
    gradient(w, 1, 2 * w->KV, w->C, w->T);
    gemm(w, 1, w->U, w->C, w->Q);
    scatter(w, w->T, w->U, w->C);
    product(w, WORK_GEMM, 1, w->T, w->C, 2 * w->KV, w->e, 1);
}

/* model_backward() */
static void trunk_backward(const walk *w)
{
    const double inner = w->L - 1;
    moves(w, 1, w->U * w->C * w->e); /* zeros */
    norm_backward(w, 1, w->U);
    block_backward(w, 1, w->U);
    if (w->wanted) {
        scatter(w, w->T, w->U, w->Q);
        scatter(w, w->T, w->U, w->C);
    }
    attention_backward(w, 1, w->U, pairs_wanted(w));
    heads_backward(w, 1);
    norm_again(w, 1, w->T);
    if (w->wanted)
        wanted_qkv_backward(w);
    else
        qkv_backward(w, 1);
    norm_backward(w, 1, w->T);

    block_backward(w, inner, w->T);
    attention_backward(w, w->full, w->T, pairs(w, false));
    attention_backward(w, w->window, w->T, pairs(w, true));
    heads_backward(w, inner);
    norm_again(w, inner, w->T);
    qkv_backward(w, inner);
    norm_backward(w, inner, w->T);
    moves(w, 1, w->T * w->C * (w->e + 2 * w->g)); /* embedding: rows are read and added to */
}

/* head_score(), and head_loss() with `gradient`. */
static void head(const walk *w, bool with_gradient)
{
    const double chunks = (double)w->n->chunks, rows = chunks > 0 ? w->R / chunks : 0;
    if (w->R > 0) gather(w, w->R, w->C);
    product(w, WORK_HEAD_GEMM, chunks, rows, w->V, w->C, F32, 0);
    emit(w, WORK_LOGITS, chunks, 0, rows * w->V * (F32 + (with_gradient ? w->e : 0)));
    moves(w, chunks, rows * F32);             /* sums of log-probs */
    moves(w, chunks, rows * F32 * ROW_STATS); /* and of statistics */
    if (!with_gradient) return;
    product(w, WORK_HEAD_GEMM, chunks, rows, w->C, w->V, w->e, 0);
    moves(w, chunks, 2 * rows * w->C * w->e);
    product(w, WORK_HEAD_GEMM, chunks, w->V, w->C, rows, w->g, 1);
    scatter(w, w->U, w->R, w->C);
}

void work_score(const model_config *c, const work_counts *n, const work_types *types,
                work_sink sink, void *context)
{
    walk w = walk_of(c, n, types, sink, context);
    w.pass = WORK_REFERENCE;
    trunk_forward(&w);
    head(&w, false);
}

void work_train(const model_config *c, const work_counts *n, const work_types *types,
                bool reference, work_sink sink, void *context)
{
    walk w = walk_of(c, n, types, sink, context);
    if (reference) work_score(c, n, types, sink, context);
    w.pass = WORK_FORWARD;
    trunk_forward(&w);
    w.pass = WORK_HEAD;
    head(&w, true);
    w.pass = WORK_RECOMPUTE;
    if (types->checkpoint) recompute(&w);
    w.pass = WORK_BACKWARD;
    trunk_backward(&w);
}

double work_gradient_bytes(const model_config *c, const work_types *types)
{
    return (double)model_config_parameters(c) * types->gradient;
}

void work_update(const model_config *c, const work_types *types, int64_t shards, work_sink sink,
                 void *context)
{
    const work_counts none = {0};
    walk w = walk_of(c, &none, types, sink, context);
    const double n = (double)model_config_parameters(c) / (double)shards;
    const double gradients = work_gradient_bytes(c, types);
    w.pass = WORK_OPTIMIZER;
    moves(&w, 1, gradients);                  /* zeros */
    moves(&w, 1, gradients / (double)shards); /* norm */
    /* Weights (master weights and their rounding) and moments are read and written, the gradient is read. */
    const double weight = types->master ? 2 * F32 + w.e : 2 * w.e;
    emit(&w, WORK_ADAMW, 1, 0, n * (weight + 4 * F32 + w.g));
}

int64_t work_trunk_weights(const model_config *c)
{
    const int64_t Q = c->num_attention_heads * c->head_dim,
                  KV = c->num_key_value_heads * c->head_dim;
    return c->num_hidden_layers * c->hidden_size * (Q + 2 * KV + Q + 3 * c->intermediate_size);
}

int64_t work_head_weights(const model_config *c)
{
    return c->vocab_size * c->hidden_size;
}

double work_useful(const model_config *c, const work_counts *n, double reference)
{
    const double Q = (double)(c->num_attention_heads * c->head_dim);
    double visible = 0;
    for (int64_t l = 0; l < c->num_hidden_layers; l++)
        visible += (double)n->visible[model_config_window(c, l) > 0 ? WORK_WINDOW : WORK_FULL];
    return 2 * (double)work_trunk_weights(c) * (double)n->tokens * (3 + reference) +
           2 * (double)work_head_weights(c) * (double)n->rows * (3 + reference) +
           4 * visible * Q * (3.5 + reference);
}

void work_add(void *table, const work_item *item)
{
    work_sum *s = &((work_table *)table)->total[item->pass][item->kind];
    s->operations += item->times * item->operations;
    s->bytes += item->times * item->bytes;
    s->calls += item->times;
}
