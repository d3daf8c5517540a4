/* memory.c - parts of memory, their sum, and what would make it smaller. */
#include "train/memory.h"
#include "base/buffer.h"
#include "base/log.h"
#include "model/offload.h"

#include <stdio.h>
#include <string.h>

#define SOMEBODY ((size_t)2 << 30) /* bytes */
#define SPARE ((size_t)1 << 30)    /* bytes */

enum {
    CPU_PACK_TOKENS = 2048,      /* enough rows for GEMMs at full speed; more only takes memory */
    GPU_PACK_TOKENS = 132 * 128, /* a wave of 128-row tiles on the 132 SMs of an H100 or H200 */
    PACK_STEP = 128
};

static size_t total(const memory_parts *p)
{
    return p->weights + p->master + p->reference + p->gradients + p->moments + p->pack + p->backend;
}

static int64_t longer(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t shorter(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Limits that follow from data and configuration, with packs of `tokens`: more where a group is longer, fewer where all
 * groups of a pack are. */
static pass_limits limits_of(const cudpo_trainer *t, bool train, int64_t tokens)
{
    int64_t largest = dataset_longest(t->train.data);
    int64_t positions = dataset_longest_sequence(t->train.data);
    if (t->eval.data != NULL) {
        largest = longer(largest, dataset_longest(t->eval.data));
        positions = longer(positions, dataset_longest_sequence(t->eval.data));
    }
    if (t->traits->kl) {
        largest = longer(largest, dataset_longest_mismatch(t->train.data));
        if (t->eval.data != NULL) largest = longer(largest, dataset_longest_mismatch(t->eval.data));
        positions =
            longer(positions, largest); /* groups of one completion: a group is a sequence */
    }
    /* Packs do not end where micro-batches do: that changes no result, and fills the device.  Room for twice as many groups
     * as fill one on average: where they are shorter, it is less full. */
    const int64_t mean = dataset_tokens(t->train.data) / dataset_count(t->train.data);
    const int64_t groups = shorter(trainer_most_units(t), longer(2 * tokens / longer(mean, 1), 1));
    return (pass_limits){.tokens = longer(shorter(tokens, groups * largest), largest),
                         .groups = groups,
                         .largest_group = largest,
                         .positions = positions,
                         .completions = t->completions,
                         .prompt = t->traits->prompt,
                         .type = t->type,
                         .kind = !train                              ? WORKSPACE_SCORE
                                 : t->config->gradient_checkpointing ? WORKSPACE_CHECKPOINT
                                                                     : WORKSPACE_TRAIN};
}

static bool has_master(const cudpo_trainer *t, bool train)
{
    return train && t->type != DTYPE_F32 && t->config->master_weights;
}

/* One that is cached has left the device before gradients and moments take its place. */
static bool has_reference(const cudpo_trainer *t, bool train)
{
    return t->rewards && !(train && t->config->precompute_ref_log_probs);
}

/* Of this run; of one that is not made, those whose batches make a step. */
static int64_t ranks_of(const cudpo_trainer *t)
{
    return t->dry ? t->batch_ranks : t->ranks->place.size;
}

/* A reference whose layers are in the host's memory; of a CPU that is the device's. */
static size_t offloaded_bytes(const cudpo_trainer *t)
{
    return model_offload_bytes(&t->model, t->type) +
           (t->be->on_device ? 0 : model_offload_host_bytes(&t->model, t->type));
}

/* Out: bytes of m, and by part.  In: limits and offload of m. */
static cudpo_status count(memory_forecast *m, const cudpo_trainer *t, bool train)
{
    const size_t n = (size_t)model_config_parameters(&t->model), size = dtype_size(t->type);
    const int32_t shards = t->config->zero_stage > 0 ? (int32_t)ranks_of(t) : 1;
    const rank_share largest = communicator_share((int64_t)n, shards, shards - 1);
    const size_t share = (size_t)(largest.end - largest.begin);
    const bool half = t->type == DTYPE_BF16 && strcmp(t->config->gradient_dtype, "bfloat16") == 0;
    memory_parts *p = &m->parts;
    *p = (memory_parts){.weights = n * size,
                        .master = has_master(t, train) ? share * sizeof(float) : 0,
                        .reference = !has_reference(t, train) ? 0
                                     : m->offload             ? offloaded_bytes(t)
                                                              : n * size,
                        .gradients = train ? n * (half ? 2 : sizeof(float)) : 0,
                        .moments = train ? 2 * share * sizeof(float) : 0};
    const workload most = pass_workload(&t->model, &m->limits);
    p->backend = t->be->working_memory(t->be, &most);
    CUDPO_TRY(pass_bytes(&p->pack, &t->model, &m->limits));
    p->pack += trainer_kl_bytes(t);
    m->bytes = total(p);
    return CUDPO_OK;
}

static cudpo_status name_part(buffer *b, const char *name, size_t bytes)
{
    if (bytes == 0) return CUDPO_OK;
    return buffer_printf(b, "%s%s %.2f", b->size > 0 ? ", " : "", name, (double)bytes * 1e-9);
}

static void add_remedy(memory_remedy *list, int64_t *n, const char *key, const char *value)
{
    list[*n].key = key;
    snprintf(list[*n].value, sizeof list[*n].value, "%s", value);
    ++*n;
}

int64_t memory_remedies(memory_remedy out[MEMORY_REMEDIES], const cudpo_trainer *t,
                        const memory_forecast *m)
{
    const memory_parts *p = &m->parts;
    const pass_limits *limits = &m->limits;
    char tokens[24];
    int64_t n = 0;
    const int64_t ranks = ranks_of(t);
    if (p->moments > 0 && ranks > 1 && trainer_can_share(ranks) && t->config->zero_stage == 0)
        add_remedy(out, &n, "zero_stage", "1");
    snprintf(tokens, sizeof tokens, "%lld", (long long)limits->largest_group);
    if (limits->tokens > limits->largest_group) add_remedy(out, &n, "max_tokens_per_pack", tokens);
    if (limits->kind == WORKSPACE_TRAIN) add_remedy(out, &n, "gradient_checkpointing", "true");
    if (p->reference > offloaded_bytes(t)) add_remedy(out, &n, "ref_model_offload", "true");
    if (p->reference > 0) add_remedy(out, &n, "precompute_ref_log_probs", "true");
    if (t->type == DTYPE_F32 && t->be->on_device) add_remedy(out, &n, "bf16", "true");
    if (t->type == DTYPE_BF16 && strcmp(t->config->gradient_dtype, "bfloat16") != 0)
        add_remedy(out, &n, "gradient_dtype", "bfloat16");
    if (p->master > 0) add_remedy(out, &n, "master_weights", "false");
    return n;
}

/* What would help, as it stands on a command line. */
static cudpo_status name_remedies(buffer *b, const cudpo_trainer *t, const memory_forecast *m)
{
    memory_remedy list[MEMORY_REMEDIES];
    const int64_t n = memory_remedies(list, t, m);
    for (int64_t i = 0; i < n; i++)
        CUDPO_TRY(buffer_printf(b, " --%s %s", list[i].key, list[i].value));
    return buffer_printf(b, " --max_length N");
}

static cudpo_status refuse(const cudpo_trainer *t, const memory_forecast *m)
{
    /* More than a context and code take: somebody else is there. */
    const size_t available = m->available;
    const bool shared = t->be->memory > available && t->be->memory - available > SOMEBODY;
    const memory_parts *p = &m->parts;
    buffer list = {0}, remedies = {0};
    cudpo_status status = name_part(&list, "weights", p->weights);
    if (status == CUDPO_OK) status = name_part(&list, "master weights", p->master);
    if (status == CUDPO_OK)
        status = name_part(&list, m->offload ? "streamed reference" : "reference", p->reference);
    if (status == CUDPO_OK) status = name_part(&list, "gradients", p->gradients);
    if (status == CUDPO_OK) status = name_part(&list, "moments", p->moments);
    if (status == CUDPO_OK) status = name_part(&list, "packs", p->pack);
    if (status == CUDPO_OK) status = name_part(&list, "working memory", p->backend);
    if (status == CUDPO_OK) status = name_remedies(&remedies, t, m);
    if (status == CUDPO_OK)
        status =
            cudpo_fail(CUDPO_ENOMEM, t->be->description,
                       "this run needs %.2f GB and %.2f can be had%s: %s (packs of %lld tokens); "
                       "each of these makes it smaller:%s",
                       (double)m->bytes * 1e-9, (double)available * 1e-9,
                       shared ? ", others hold the rest (nvidia-smi)" : "", list.data,
                       (long long)m->limits.tokens, remedies.data);
    buffer_free(&remedies);
    buffer_free(&list);
    return status;
}

/* The limits of packs and what the run then takes: where nobody asked for a size, of the largest packs that fit. */
static cudpo_status fit(memory_forecast *m, const cudpo_trainer *t, bool train)
{
    const int64_t asked = t->config->max_tokens_per_pack;
    int64_t tokens = asked > 0 ? asked : t->be->on_device ? GPU_PACK_TOKENS : CPU_PACK_TOKENS;
    m->limits = limits_of(t, train, tokens);
    m->reduced = false;
    CUDPO_TRY(count(m, t, train));
    while (asked == 0 && m->bytes > m->available && m->limits.tokens > m->limits.largest_group) {
        tokens -= PACK_STEP;
        m->reduced = true;
        m->limits = limits_of(t, train, tokens);
        CUDPO_TRY(count(m, t, train));
    }
    return CUDPO_OK;
}

/* What stays free: code is loaded when a kernel is first launched, and memory is given in pieces of 2 MB. */
static size_t spare_of(const backend *be)
{
    if (!be->on_device) return 0;
    return be->memory / 32 < SPARE ? be->memory / 32 : SPARE;
}

cudpo_status memory_plan(memory_forecast *out, const cudpo_trainer *t, bool train)
{
    const int64_t asked = t->config->ref_model_offload;
    size_t available = 0;
    *out = (memory_forecast){.offload = asked > 0 && has_reference(t, train)};
    CUDPO_TRY(t->be->available_memory(t->be, &available));
    if (available == 0)
        available = SIZE_MAX; /* the system does not say */
    else
        available -= available < spare_of(t->be) ? available : spare_of(t->be);
    out->available = available;
    CUDPO_TRY(fit(out, t, train));
    if (out->bytes <= available) return CUDPO_OK;

    const size_t resident = out->parts.reference;
    const size_t offloaded = offloaded_bytes(t);
    if (asked < 0 && t->be->on_device && resident > offloaded) {
        out->offload = true;
        CUDPO_TRY(fit(out, t, train));
        if (out->bytes <= available && !t->dry)
            log_info("ref_model_offload: %.2f GB of reference do not fit on the device: its layers "
                     "are streamed from the host's memory, and it takes %.2f GB",
                     (double)resident * 1e-9, (double)offloaded * 1e-9);
    }
    return out->bytes <= available ? CUDPO_OK : refuse(t, out);
}
