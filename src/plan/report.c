/* report.c - a plan for people. */
#include "plan/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NUMBER = 32 };

/* 1,234,567 */
static const char *grouped(char out[NUMBER], int64_t n)
{
    char digits[NUMBER];
    const int length = snprintf(digits, sizeof digits, "%lld", (long long)n);
    int at = 0;
    for (int i = 0; i < length && at + 2 < NUMBER; i++) {
        out[at++] = digits[i];
        if ((length - 1 - i) % 3 == 0 && i + 1 < length && digits[i] != '-') out[at++] = ',';
    }
    out[at] = '\0';
    return out;
}

/* 12.3 ms, 4.56 s, 1 h 02 min, 3 d 04 h */
static const char *duration(char out[NUMBER], double s)
{
    if (s < 1)
        snprintf(out, NUMBER, "%.3g ms", s * 1e3);
    else if (s < 120)
        snprintf(out, NUMBER, "%.3g s", s);
    else if (s < 7200)
        snprintf(out, NUMBER, "%.0f min", s / 60);
    else if (s < 48 * 3600.0)
        snprintf(out, NUMBER, "%d h %02d min", (int)(s / 3600), (int)(fmod(s, 3600) / 60));
    else
        snprintf(out, NUMBER, "%d d %02d h", (int)(s / 86400), (int)(fmod(s, 86400) / 3600));
    return out;
}

static double giga(size_t bytes)
{
    return (double)bytes * 1e-9;
}

static cudpo_status describe(buffer *b, const plan *p)
{
    const cudpo_trainer *t = p->t;
    const dataset *d = t->train.data;
    char n[NUMBER], m[NUMBER];
    CUDPO_TRY(buffer_printf(b, "model    %s, %s parameters, computed in %s\n", t->model.model_type,
                            grouped(n, model_config_parameters(&t->model)), dtype_name(t->type)));
    CUDPO_TRY(buffer_printf(
        b, "data     %s examples, %.0f tokens each on average with the prompt once, %s at most\n",
        grouped(n, dataset_count(d)), (double)dataset_tokens(d) / (double)dataset_count(d),
        grouped(m, dataset_longest(d))));
    return buffer_printf(
        b, "run      %s: %s examples a step, %s steps, on %lld %s %s of %lld, %s\n",
        p->config->loss_type, grouped(n, p->now.pairs), grouped(m, p->now.steps),
        (long long)p->options.gpus, p->gpu->name, p->options.nodes == 1 ? "in a node" : "in nodes",
        (long long)(p->options.gpus / p->options.nodes),
        p->calibrated ? "as calibrated" : "at assumed rates");
}

static cudpo_status part(buffer *b, const char *name, size_t bytes)
{
    return bytes == 0 ? CUDPO_OK : buffer_printf(b, "%s %.2f, ", name, giga(bytes));
}

static cudpo_status memory(buffer *b, const plan *p)
{
    const memory_forecast *m = &p->now.memory;
    const memory_parts *parts = &m->parts;
    char n[NUMBER];
    CUDPO_TRY(buffer_printf(b, "memory   GB of each: "));
    CUDPO_TRY(part(b, "weights", parts->weights));
    CUDPO_TRY(part(b, "master weights", parts->master));
    CUDPO_TRY(part(b, m->offload ? "streamed reference" : "reference", parts->reference));
    CUDPO_TRY(part(b, "gradients", parts->gradients));
    CUDPO_TRY(part(b, "moments", parts->moments));
    CUDPO_TRY(part(b, "packs", parts->pack));
    CUDPO_TRY(part(b, "working memory", parts->backend));
    CUDPO_TRY(part(b, "program and data", p->program));
    CUDPO_TRY(buffer_printf(b, "together %.2f of %.2f: %s\n", giga(m->bytes + p->program),
                            giga(m->available + p->program),
                            p->now.fits ? "fits" : "DOES NOT FIT"));
    CUDPO_TRY(buffer_printf(b, "         packs of up to %s tokens, %.0f %% full; %.1f a step\n",
                            grouped(n, m->limits.tokens), 100 * p->now.fill, p->now.packs));
    for (int i = 0; i < p->remedies; i++) {
        const plan_remedy *r = &p->remedy[i];
        CUDPO_TRY(buffer_printf(b, "         %s %.2f GB with %s\n",
                                r->fits ? "fits:    " : "too much:", giga(r->bytes), r->settings));
    }
    return CUDPO_OK;
}

static cudpo_status share(buffer *b, const char *name, double seconds, double all)
{
    char text[NUMBER];
    return seconds <= 0 ? CUDPO_OK
                        : buffer_printf(b, "         %-22s %9s %5.1f %%\n", name,
                                        duration(text, seconds), 100 * seconds / all);
}

static cudpo_status step(buffer *b, const plan *p)
{
    const plan_point *s = &p->now;
    char text[NUMBER];
    const double peak = p->t->type == DTYPE_F32 ? p->gpu->f32 : p->gpu->bf16;
    CUDPO_TRY(buffer_printf(b, "step     %s: %.4g examples/s, %.4g tokens/s",
                            duration(text, s->step), (double)s->taken / s->step,
                            s->tokens / s->step));
    if (peak > 0)
        CUDPO_TRY(buffer_printf(b, ", useful MFU %.1f %%",
                                100 * s->useful / s->step / (peak * (double)s->net.gpus)));
    if (s->net.gpus > 1) CUDPO_TRY(buffer_printf(b, ", efficiency %.0f %%", 100 * s->efficiency));
    if (s->limit != LIMIT_NONE)
        CUDPO_TRY(buffer_printf(b, ", limit %s", plan_limit_name(s->limit)));
    CUDPO_TRY(buffer_printf(b, "\n"));
    const double *of = s->slowest.pass;
    CUDPO_TRY(share(b, "reference forward", of[WORK_REFERENCE], s->step));
    CUDPO_TRY(share(b, "forward", of[WORK_FORWARD], s->step));
    CUDPO_TRY(share(b, "head and loss", of[WORK_HEAD], s->step));
    CUDPO_TRY(share(b, "recomputation", of[WORK_RECOMPUTE], s->step));
    CUDPO_TRY(share(b, "backward", of[WORK_BACKWARD], s->step));
    CUDPO_TRY(share(b, "update", of[WORK_OPTIMIZER], s->step));
    CUDPO_TRY(share(b, "all-reduce, not hidden", s->network.exposed, s->step));
    CUDPO_TRY(share(b, "all-reduce, beside", s->network.tax, s->step));
    return buffer_printf(b,
                         "         %.0f %% in products and attention, the rest bound by memory or "
                         "launches%s\n",
                         100 * fmax(0, 1 - s->slowest.memory / cost_total(&s->slowest)),
                         s->net.gpus > 1 ? "; times are the slowest GPU's" : "");
}

static cudpo_status whole_run(buffer *b, const plan *p)
{
    char text[NUMBER], more[NUMBER];
    CUDPO_TRY(buffer_printf(b, "run time %s, %.4g %s-hours: steps %s", duration(text, p->now.total),
                            p->now.total / 3600 * (double)plan_devices(p, &p->now.net),
                            p->gpu->memory == 0 ? "machine" : "GPU",
                            duration(more, p->now.seconds)));
    if (p->now.precompute > 0)
        CUDPO_TRY(buffer_printf(b, ", the reference's log-probs once %s",
                                duration(text, p->now.precompute)));
    if (p->now.evaluation > 0)
        CUDPO_TRY(buffer_printf(b, ", evaluations %s", duration(text, p->now.evaluation)));
    return buffer_printf(b, "; without tokenisation, checkpoints and start\n");
}

static cudpo_status cell(buffer *b, const plan_point *point)
{
    char text[NUMBER], total[NUMBER];
    if (point->steps == 0)
        return buffer_printf(b, " | %9s %9s %6s %4s %s", "-", "-", "-", "-",
                             plan_limit_name(point->limit));
    return buffer_printf(b, " | %9s %9s %4.0f %% %4.2f %s", duration(text, point->step),
                         duration(total, point->total), 100 * point->efficiency, point->imbalance,
                         point->limit == LIMIT_NONE ? "-" : plan_limit_name(point->limit));
}

/* What is to be known of rows that have no run, and of those that have the same. */
static cudpo_status notes(buffer *b, const plan *p)
{
    const plan_point *last = &p->growing[PLAN_SIZES - 1];
    char n[NUMBER], m[NUMBER];
    if (p->same[PLAN_SIZES - 1].limit == LIMIT_RANKS)
        CUDPO_TRY(buffer_printf(b, "ranks: more than can share out moments, as zero_stage 1 does, "
                                   "and train refuses them\n"));
    if (last->limit == LIMIT_DATA)
        return buffer_printf(b,
                             "data: the data has %s examples, less than one batch, which "
                             "dataloader_drop_last drops\n",
                             grouped(n, dataset_count(p->t->train.data)));
    while (last->steps == 0 && last > p->growing)
        last--;
    if (last->taken == last->pairs) return CUDPO_OK;
    return buffer_printf(b,
                         "the data has %s examples: steps of more than that (%s for %lld GPUs) "
                         "take all of them\n",
                         grouped(n, last->taken), grouped(m, last->pairs),
                         (long long)last->net.gpus);
}

static cudpo_status table(buffer *b, const plan *p)
{
    CUDPO_TRY(buffer_printf(b,
                            "\nscaling, nodes of %lld; run: with the reference's log-probs and "
                            "evaluations, where run time has them;\nefficiency against one GPU; "
                            "imbalance: most tokens of a GPU over the mean, dealt by "
                            "tokens;\nlimit: batch (too few examples for each), network "
                            "(all-reduce not hidden), memory%s\n",
                            (long long)p->node,
                            p->gpu->memory == 0 ? ", cores (ranks of a machine share them)" : ""));
    CUDPO_TRY(buffer_printf(b, "     | %-47s | %s\n", "as many examples a step as above",
                            "as many for each GPU as above"));
    CUDPO_TRY(buffer_printf(b, "GPUs |      step       run  eff.  imb. limit    |      step       "
                               "run  eff.  imb. limit\n"));
    for (int i = 0; i < PLAN_SIZES; i++) {
        buffer line = {0};
        cudpo_status status = buffer_printf(&line, "%4lld", (long long)1 << i);
        if (status == CUDPO_OK) status = cell(&line, &p->same[i]);
        while (status == CUDPO_OK && line.size < 52)
            status = buffer_append(&line, " ", 1);
        if (status == CUDPO_OK) status = cell(&line, &p->growing[i]);
        if (status == CUDPO_OK) status = buffer_printf(b, "%s\n", line.data);
        buffer_free(&line);
        CUDPO_TRY(status);
    }
    return notes(b, p);
}

cudpo_status plan_text(buffer *b, const plan *p)
{
    CUDPO_TRY(describe(b, p));
    CUDPO_TRY(memory(b, p));
    CUDPO_TRY(step(b, p));
    CUDPO_TRY(whole_run(b, p));
    CUDPO_TRY(table(b, p));
    CUDPO_TRY(buffer_printf(b, "\n%s\n",
                            p->calibrated ? "assumed of what the calibration lacks:" : "assumed:"));
    for (int i = 0; i < p->assumptions; i++)
        CUDPO_TRY(buffer_printf(b, "- %s\n", p->assumption[i]));
    return CUDPO_OK;
}
