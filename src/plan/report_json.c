/* report_json.c - a plan as a JSON object: seconds, bytes, tokens.  The manual page of `cudpo plan` says what there is. */
#include "plan/plan.h"

#include <string.h>

/* "key": number, with a comma before all but the first of an object. */
static cudpo_status number(buffer *b, const char *key, double value)
{
    const char last = b->size > 0 ? b->data[b->size - 1] : '{';
    CUDPO_TRY(buffer_printf(b, "%s\"%s\": ", last == '{' ? "" : ", ", key));
    return buffer_json_number(b, value);
}

static cudpo_status text(buffer *b, const char *key, const char *value)
{
    const char last = b->size > 0 ? b->data[b->size - 1] : '{';
    CUDPO_TRY(buffer_printf(b, "%s\"%s\": ", last == '{' ? "" : ", ", key));
    return buffer_json_string(b, value, strlen(value));
}

static cudpo_status truth(buffer *b, const char *key, bool value)
{
    return buffer_printf(b, ", \"%s\": %s", key, value ? "true" : "false");
}

static cudpo_status memory(buffer *b, const plan_point *s, size_t program)
{
    const memory_forecast *m = &s->memory;
    const memory_parts *p = &m->parts;
    CUDPO_TRY(buffer_printf(b, "{"));
    CUDPO_TRY(number(b, "weights", (double)p->weights));
    CUDPO_TRY(number(b, "master_weights", (double)p->master));
    CUDPO_TRY(number(b, "reference", (double)p->reference));
    CUDPO_TRY(number(b, "gradients", (double)p->gradients));
    CUDPO_TRY(number(b, "moments", (double)p->moments));
    CUDPO_TRY(number(b, "packs", (double)p->pack));
    CUDPO_TRY(number(b, "working_memory", (double)p->backend));
    CUDPO_TRY(number(b, "program", (double)program));
    CUDPO_TRY(number(b, "total", (double)(m->bytes + program)));
    CUDPO_TRY(number(b, "available", (double)(m->available + program)));
    CUDPO_TRY(number(b, "pack_tokens", (double)m->limits.tokens));
    CUDPO_TRY(truth(b, "reference_streamed", m->offload));
    CUDPO_TRY(truth(b, "fits", s->fits));
    return buffer_printf(b, "}");
}

static cudpo_status parts(buffer *b, const plan_point *s)
{
    const double *of = s->slowest.pass;
    CUDPO_TRY(buffer_printf(b, "{"));
    CUDPO_TRY(number(b, "reference_forward", of[WORK_REFERENCE]));
    CUDPO_TRY(number(b, "forward", of[WORK_FORWARD]));
    CUDPO_TRY(number(b, "head", of[WORK_HEAD]));
    CUDPO_TRY(number(b, "recomputation", of[WORK_RECOMPUTE]));
    CUDPO_TRY(number(b, "backward", of[WORK_BACKWARD]));
    CUDPO_TRY(number(b, "update", of[WORK_OPTIMIZER]));
    CUDPO_TRY(number(b, "all_reduce_exposed", s->network.exposed));
    CUDPO_TRY(number(b, "all_reduce_beside", s->network.tax));
    return buffer_printf(b, "}");
}

static cudpo_status point(buffer *b, const plan_point *s, size_t program)
{
    const double each = s->step > 0 ? 1 / s->step : 0;
    CUDPO_TRY(buffer_printf(b, "{"));
    CUDPO_TRY(number(b, "gpus", (double)s->net.gpus));
    CUDPO_TRY(number(b, "nodes", (double)s->net.nodes));
    CUDPO_TRY(number(b, "examples", (double)s->taken));
    CUDPO_TRY(number(b, "steps", (double)s->steps));
    CUDPO_TRY(number(b, "step_seconds", s->step));
    CUDPO_TRY(number(b, "run_seconds", s->seconds));
    CUDPO_TRY(number(b, "total_seconds", s->total));
    CUDPO_TRY(number(b, "examples_per_second", (double)s->taken * each));
    CUDPO_TRY(number(b, "tokens_per_second", s->tokens * each));
    CUDPO_TRY(number(b, "packs", s->packs));
    CUDPO_TRY(number(b, "pack_fill", s->fill));
    CUDPO_TRY(number(b, "imbalance", s->imbalance));
    CUDPO_TRY(number(b, "efficiency", s->efficiency));
    CUDPO_TRY(number(b, "memory_bytes", (double)(s->memory.bytes + program)));
    CUDPO_TRY(truth(b, "fits", s->fits));
    CUDPO_TRY(text(b, "limit", plan_limit_name(s->limit)));
    CUDPO_TRY(buffer_printf(b, ", \"parts\": "));
    CUDPO_TRY(parts(b, s));
    return buffer_printf(b, "}");
}

static cudpo_status points(buffer *b, const char *key, const plan_point *list, size_t program)
{
    CUDPO_TRY(buffer_printf(b, ",\n  \"%s\": [", key));
    for (int i = 0; i < PLAN_SIZES; i++) {
        CUDPO_TRY(buffer_printf(b, "%s\n    ", i == 0 ? "" : ","));
        CUDPO_TRY(point(b, &list[i], program));
    }
    return buffer_printf(b, "]");
}

static cudpo_status rates(buffer *b, const device_rates *r, int64_t head_dim)
{
    const int column = rates_column(head_dim);
    CUDPO_TRY(buffer_printf(b, ",\n  \"rates\": {"));
    CUDPO_TRY(number(b, "copy_gbps", r->copy * 1e-9));
    CUDPO_TRY(number(b, "gemm_bf16_tflops", r->gemm_bf16 * 1e-12));
    CUDPO_TRY(number(b, "gemm_f32_tflops", r->gemm_f32 * 1e-12));
    CUDPO_TRY(number(b, "attention_forward_tflops", r->attention[column] * 1e-12));
    CUDPO_TRY(number(b, "attention_backward_tflops", r->attention_backward[column] * 1e-12));
    CUDPO_TRY(number(b, "elementwise_gbps", r->elementwise * 1e-9));
    CUDPO_TRY(number(b, "head_gbps", r->head * 1e-9));
    CUDPO_TRY(number(b, "adamw_gbps", r->adamw * 1e-9));
    CUDPO_TRY(number(b, "launch_us", r->launch * 1e6));
    CUDPO_TRY(number(b, "network_bus_gbps", r->bus * 1e-9));
    CUDPO_TRY(number(b, "network_nic_gbps", r->nic * 1e-9));
    return buffer_printf(b, "}");
}

static cudpo_status remedies(buffer *b, const plan *p)
{
    CUDPO_TRY(buffer_printf(b, ",\n  \"remedies\": ["));
    for (int i = 0; i < p->remedies; i++) {
        CUDPO_TRY(buffer_printf(b, "%s\n    {", i == 0 ? "" : ","));
        CUDPO_TRY(text(b, "settings", p->remedy[i].settings));
        CUDPO_TRY(number(b, "total", (double)p->remedy[i].bytes));
        CUDPO_TRY(truth(b, "fits", p->remedy[i].fits));
        CUDPO_TRY(buffer_printf(b, "}"));
    }
    return buffer_printf(b, "]");
}

static cudpo_status assumptions(buffer *b, const plan *p)
{
    CUDPO_TRY(buffer_printf(b, ",\n  \"assumptions\": ["));
    for (int i = 0; i < p->assumptions; i++) {
        CUDPO_TRY(buffer_printf(b, "%s\n    ", i == 0 ? "" : ","));
        CUDPO_TRY(buffer_json_string(b, p->assumption[i], strlen(p->assumption[i])));
    }
    return buffer_printf(b, "]");
}

cudpo_status plan_json(buffer *b, const plan *p)
{
    const plan_point *now = &p->now;
    const double peak = p->t->type == DTYPE_F32 ? p->gpu->f32 : p->gpu->bf16;
    CUDPO_TRY(buffer_printf(b, "{"));
    CUDPO_TRY(text(b, "cudpo", CUDPO_VERSION));
    CUDPO_TRY(text(b, "gpu", p->gpu->name));
    CUDPO_TRY(truth(b, "calibrated", p->calibrated));
    CUDPO_TRY(number(b, "parameters", (double)model_config_parameters(&p->t->model)));
    CUDPO_TRY(number(b, "examples", (double)dataset_count(p->t->train.data)));
    CUDPO_TRY(number(b, "total_seconds", now->total));
    CUDPO_TRY(number(b, "gpu_hours", now->total / 3600 * (double)plan_devices(p, &now->net)));
    CUDPO_TRY(number(b, "precompute_seconds", now->precompute));
    CUDPO_TRY(number(b, "evaluation_seconds", now->evaluation));
    if (peak > 0)
        CUDPO_TRY(
            number(b, "useful_mfu", now->useful / now->step / (peak * (double)now->net.gpus)));
    CUDPO_TRY(buffer_printf(b, ",\n  \"memory\": "));
    CUDPO_TRY(memory(b, now, p->program));
    CUDPO_TRY(remedies(b, p));
    CUDPO_TRY(buffer_printf(b, ",\n  \"step\": "));
    CUDPO_TRY(point(b, now, p->program));
    CUDPO_TRY(points(b, "same_batch", p->same, p->program));
    CUDPO_TRY(points(b, "growing_batch", p->growing, p->program));
    CUDPO_TRY(rates(b, &p->rates, p->t->model.head_dim));
    CUDPO_TRY(assumptions(b, p));
    return buffer_printf(b, "\n}\n");
}
