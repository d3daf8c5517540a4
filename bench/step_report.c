/* step_report.c - what was measured, as a table and as JSON. */
#include "backend/open.h"
#include "bench/step.h"

#include <stdlib.h>
#include <string.h>

/* Mean seconds of a part; STEP_PARTS: between steps. */
static double part_mean(const step_result *r, int part)
{
    double sum = 0.0;
    for (int64_t i = 0; i < r->steps; i++)
        sum += part == STEP_PARTS ? r->times[i].between : r->times[i].part[part];
    return sum / (double)r->steps;
}

static const char *name_of(int part)
{
    return part == STEP_PARTS ? "between steps" : part_name((step_part)part);
}

/* Operations per second that useful ones are a share of. */
static double peak(const step_result *r)
{
    return r->peak > 0.0 ? r->peak : r->product;
}

/* Of what so many ranks could do. */
static double share(const step_result *r, double of)
{
    return r->useful / r->total / (of * (double)r->ranks.place.size);
}

static cudpo_status useful_line(buffer *out, const step_result *r)
{
    CUDPO_TRY(buffer_printf(out, "useful  %.4g TFLOP/s: ", r->useful / r->total * 1e-12));
    if (r->peak > 0.0)
        CUDPO_TRY(buffer_printf(out, "%.1f %% of the %.4g of the data sheet, ",
                                share(r, r->peak) * 100.0, r->peak * 1e-12));
    else if (strcmp(r->backend, "cpu") != 0)
        CUDPO_TRY(buffer_printf(out, "what the data sheet says of this device is not known, "));
    return buffer_printf(out, "%.1f %% of the %.4g of a product of %lld x %lld x %lld\n",
                         share(r, r->product) * 100.0, r->product * 1e-12,
                         (long long)r->product_size, (long long)r->product_size,
                         (long long)r->product_size);
}

static cudpo_status lengths_line(buffer *out, const step_result *r)
{
    const step_lengths *l = &r->lengths;
    CUDPO_TRY(buffer_printf(
        out,
        "%.6g %s a step, in packs of %lld tokens at most: ", (double)r->units / (double)r->steps,
        r->pairs ? "pairs" : "completions with their prompts", (long long)r->memory.limits.tokens));
    if (l->file == NULL)
        return buffer_printf(out, "%.0f tokens of prompt, %.0f of each completion\n", l->prompt,
                             l->completion);
    return buffer_printf(out,
                         "lengths of %s (%lld of %lld examples), %.1f and %.1f tokens on average, "
                         "by %s\n",
                         l->file, (long long)l->taken, (long long)l->examples, l->prompt,
                         l->completion,
                         l->tokenizer != NULL ? l->tokenizer : "the rule of 4 bytes a token");
}

static cudpo_status table_of_parts(buffer *out, const step_result *r)
{
    const double step = r->total / (double)r->steps;
    CUDPO_TRY(buffer_printf(out, "\n  %-20s %10s %7s\n", "part", "ms", "%"));
    for (int p = 0; p <= STEP_PARTS; p++) {
        const double seconds = part_mean(r, p);
        if (seconds == 0.0) continue;
        CUDPO_TRY(buffer_printf(out, "  %-20s %10.3f %7.2f\n", name_of(p), seconds * 1e3,
                                seconds / step * 100.0));
    }
    return buffer_printf(out, "  %-20s %10.3f %7.2f\n", "step", step * 1e3, 100.0);
}

enum { MEMORY_PARTS = 7 };

/* A part of memory: as tables call it, as JSON does. */
typedef struct memory_line {
    const char *name, *key;
    size_t bytes;
} memory_line;

static void memory_lines(memory_line out[MEMORY_PARTS], const step_result *r)
{
    const memory_parts *p = &r->memory.parts;
    const memory_line lines[MEMORY_PARTS] = {
        {"weights", "weights", p->weights},
        {"master weights", "master_weights", p->master},
        {r->memory.offload ? "streamed reference" : "reference", "reference", p->reference},
        {"gradients", "gradients", p->gradients},
        {"moments", "moments", p->moments},
        {"packs", "packs", p->pack},
        {"working memory", "working_memory", p->backend}};
    memcpy(out, lines, sizeof lines);
}

static cudpo_status table_of_memory(buffer *out, const step_result *r)
{
    memory_line lines[MEMORY_PARTS];
    memory_lines(lines, r);
    CUDPO_TRY(buffer_printf(out, "\n  %-20s %10s\n", "memory", "GB"));
    for (int i = 0; i < MEMORY_PARTS; i++)
        if (lines[i].bytes > 0)
            CUDPO_TRY(buffer_printf(out, "  %-20s %10.4f\n", lines[i].name,
                                    (double)lines[i].bytes * 1e-9));
    return buffer_printf(out, "  %-20s %10.4f\n  %-20s %10.4f\n", "all, by forecast",
                         (double)r->memory.bytes * 1e-9, "measured", (double)r->measured * 1e-9);
}

cudpo_status step_table(buffer *out, const step_result *r)
{
    const cudpo_config *c = r->config;
    CUDPO_TRY(buffer_printf(out, "%s, %.4g million parameters, %s, loss %s%s\n%s\n", r->name,
                            (double)r->parameters * 1e-6, dtype_name(r->type), c->loss_type,
                            c->gradient_checkpointing ? ", gradient checkpointing" : "",
                            r->device));
    if (r->ranks.place.size > 1)
        CUDPO_TRY(
            buffer_printf(out, "%d ranks (%s)\n", (int)r->ranks.place.size, r->ranks.place.source));
    CUDPO_TRY(lengths_line(out, r));
    CUDPO_TRY(
        buffer_printf(out, "step    %.3f ms median, %.3f ms least of %lld, after %lld to warm up",
                      r->median * 1e3, r->least * 1e3, (long long)r->steps, (long long)r->warm_up));
    if (strcmp(r->backend, "cpu") != 0)
        CUDPO_TRY(buffer_printf(out, "; the host enqueues one in %.3f ms", r->host_median * 1e3));
    CUDPO_TRY(buffer_printf(out, "\nrate    %.3f %s/s, %.0f tokens/s\n",
                            (double)r->units / r->total, r->pairs ? "pairs" : "completions",
                            (double)r->tokens / r->total));
    CUDPO_TRY(useful_line(out, r));
    CUDPO_TRY(buffer_printf(out, "losses "));
    for (int i = 0; i < r->losses; i++)
        CUDPO_TRY(buffer_printf(out, " %.6f", r->loss[i]));
    CUDPO_TRY(buffer_printf(out, "\n"));
    CUDPO_TRY(table_of_parts(out, r));
    return table_of_memory(out, r);
}

/* ---- JSON ---- */

/* An object under way: members are put with a comma between them. */
typedef struct object {
    buffer *out;
    const char *indent;
    bool any;
    cudpo_status status; /* the first failure: nothing is put after it */
} object;

static bool key(object *o, const char *name)
{
    if (o->status != CUDPO_OK) return false;
    o->status = buffer_printf(o->out, "%s\n%s", o->any ? "," : "", o->indent);
    if (o->status == CUDPO_OK) o->status = buffer_json_string(o->out, name, strlen(name));
    if (o->status == CUDPO_OK) o->status = buffer_append(o->out, ": ", 2);
    o->any = true;
    return o->status == CUDPO_OK;
}

static void number(object *o, const char *name, double value)
{
    if (key(o, name)) o->status = buffer_json_number(o->out, value);
}

static void text(object *o, const char *name, const char *value)
{
    if (!key(o, name)) return;
    o->status = value != NULL ? buffer_json_string(o->out, value, strlen(value))
                              : buffer_append(o->out, "null", 4);
}

static void flag(object *o, const char *name, bool value)
{
    if (key(o, name)) o->status = buffer_printf(o->out, value ? "true" : "false");
}

static object begin(object *o, const char *name)
{
    if (key(o, name)) o->status = buffer_append(o->out, "{", 1);
    return (object){.out = o->out, .indent = "    ", .status = o->status};
}

static void end(object *o, object *inner)
{
    o->status = inner->status;
    if (o->status == CUDPO_OK) o->status = buffer_printf(o->out, "\n%s}", o->indent);
}

static void list(object *o, const char *name, const double *values, int64_t n)
{
    if (!key(o, name)) return;
    o->status = buffer_append(o->out, "[", 1);
    for (int64_t i = 0; i < n && o->status == CUDPO_OK; i++) {
        if (i > 0) o->status = buffer_append(o->out, ", ", 2);
        if (o->status == CUDPO_OK) o->status = buffer_json_number(o->out, values[i]);
    }
    if (o->status == CUDPO_OK) o->status = buffer_append(o->out, "]", 1);
}

static void put_version(void *context, const char *name, const char *value)
{
    text(context, name, value);
}

static void put_lengths(object *o, const step_lengths *l)
{
    object in = begin(o, "lengths");
    text(&in, "file", l->file);
    text(&in, "counted_by",
         l->file == NULL        ? NULL
         : l->tokenizer != NULL ? l->tokenizer
                                : "bytes/4");
    number(&in, "examples_of_file", (double)l->examples);
    number(&in, "dropped", (double)l->dropped);
    number(&in, "examples", (double)l->taken);
    number(&in, "prompt_mean", l->prompt);
    number(&in, "completion_mean", l->completion);
    number(&in, "prompt_longest", (double)l->longest_prompt);
    number(&in, "completion_longest", (double)l->longest_completion);
    end(o, &in);
}

static void put_seconds(object *o, const step_result *r, double *each)
{
    object in = begin(o, "seconds");
    number(&in, "median", r->median);
    number(&in, "least", r->least);
    number(&in, "total", r->total);
    number(&in, "wall", r->wall);
    number(&in, "host_median", r->host_median);
    for (int64_t i = 0; i < r->steps; i++)
        each[i] = step_seconds(&r->times[i]);
    list(&in, "each", each, r->steps);
    end(o, &in);
}

static void put_parts(object *o, const step_result *r)
{
    object in = begin(o, "parts");
    for (int p = 0; p <= STEP_PARTS; p++)
        number(&in, name_of(p), part_mean(r, p));
    end(o, &in);
}

static void put_model(object *o, const step_result *r)
{
    const model_config *c = &r->model;
    object in = begin(o, "model");
    text(&in, "name", r->name);
    text(&in, "model_type", c->model_type);
    number(&in, "parameters", (double)r->parameters);
    number(&in, "vocab_size", (double)c->vocab_size);
    number(&in, "hidden_size", (double)c->hidden_size);
    number(&in, "intermediate_size", (double)c->intermediate_size);
    number(&in, "num_hidden_layers", (double)c->num_hidden_layers);
    number(&in, "num_attention_heads", (double)c->num_attention_heads);
    number(&in, "num_key_value_heads", (double)c->num_key_value_heads);
    number(&in, "head_dim", (double)c->head_dim);
    end(o, &in);
}

static void put_memory(object *o, const step_result *r)
{
    memory_line lines[MEMORY_PARTS];
    memory_lines(lines, r);
    object in = begin(o, "memory");
    for (int i = 0; i < MEMORY_PARTS; i++)
        number(&in, lines[i].key, (double)lines[i].bytes);
    number(&in, "forecast", (double)r->memory.bytes);
    number(&in, "measured", (double)r->measured);
    end(o, &in);
}

static void put_work(object *o, const step_result *r)
{
    const double steps = (double)r->steps;
    number(o, r->pairs ? "pairs_per_step" : "completions_per_step", (double)r->units / steps);
    number(o, r->pairs ? "pairs_per_second" : "completions_per_second",
           (double)r->units / r->total);
    number(o, "tokens_per_second", (double)r->tokens / r->total);
    number(o, "tokens_per_step", (double)r->tokens / steps);
    number(o, "pack_tokens_per_step", (double)r->trunk_tokens / steps);
    number(o, "score_rows_per_step", (double)r->rows / steps);
    number(o, "useful_flop_per_step", r->useful / steps);
    number(o, "product_flop_per_second", r->product);
    number(o, "product_size", (double)r->product_size);
    number(o, "peak_flop_per_second", peak(r));
    text(o, "peak_source", r->peak > 0.0 ? "data sheet" : "product");
    number(o, "mfu", share(r, peak(r)));
}

cudpo_status step_json(buffer *out, const step_result *r)
{
    object o = {.out = out, .indent = "  "};
    char *config = cudpo_config_print(r->config);
    double *each = malloc((size_t)r->steps * sizeof *each);
    if (config == NULL || each == NULL) o.status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "JSON");
    if (o.status == CUDPO_OK) o.status = buffer_append(out, "{", 1);
    text(&o, "benchmark", "step");
    text(&o, "device", r->device);
    number(&o, "ranks", (double)r->ranks.place.size);
    text(&o, "dtype", dtype_name(r->type));
    put_model(&o, r);
    put_lengths(&o, &r->lengths);
    number(&o, "max_tokens_per_pack", (double)r->memory.limits.tokens);
    flag(&o, "reference_forward", r->reference);
    number(&o, "warm_up", (double)r->warm_up);
    number(&o, "steps", (double)r->steps);
    if (o.status == CUDPO_OK) put_seconds(&o, r, each);
    put_work(&o, r);
    put_parts(&o, r);
    put_memory(&o, r);
    list(&o, "losses", r->loss, r->losses);
    object versions = begin(&o, "versions");
    text(&versions, "cudpo", CUDPO_VERSION);
    backend_report(put_version, &versions);
    end(&o, &versions);
    if (key(&o, "config")) o.status = buffer_printf(out, "%s", config);
    if (o.status == CUDPO_OK) o.status = buffer_append(out, "\n}\n", 3);
    free(each);
    free(config);
    return o.status;
}
