/* run_record.c - facts of a run as JSON. */
#include "train/run_record.h"
#include "base/buffer.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static cudpo_status text(buffer *b, const char *key, const char *value)
{
    CUDPO_TRY(buffer_printf(b, "  \"%s\": ", key));
    if (value == NULL) return buffer_append(b, "null,\n", 6);
    CUDPO_TRY(buffer_json_string(b, value, strlen(value)));
    return buffer_append(b, ",\n", 2);
}

static cudpo_status number(buffer *b, const char *key, int64_t value)
{
    return buffer_printf(b, "  \"%s\": %lld,\n", key, (long long)value);
}

static cudpo_status fingerprint(buffer *b, const char *key, hash128 h)
{
    char digits[HASH_TEXT];
    hash_text(digits, h);
    return text(b, key, digits);
}

static cudpo_status fill(buffer *b, const cudpo_trainer *t, const char *config)
{
    struct utsname machine;
    char now[32] = "";
    const time_t seconds = time(NULL);
    struct tm utc;
    if (gmtime_r(&seconds, &utc) != NULL) strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
    CUDPO_TRY(buffer_append(b, "{\n", 2));
    CUDPO_TRY(text(b, "cudpo", CUDPO_VERSION));
    CUDPO_TRY(text(b, "started", now));
    CUDPO_TRY(fingerprint(b, "run", trainer_run(t)));
    if (uname(&machine) == 0) {
        CUDPO_TRY(text(b, "host", machine.nodename));
        CUDPO_TRY(text(b, "system", machine.release));
        CUDPO_TRY(text(b, "machine", machine.machine));
    }
    CUDPO_TRY(text(b, "backend", t->be->name));
    CUDPO_TRY(number(b, "processors", sysconf(_SC_NPROCESSORS_ONLN)));
    CUDPO_TRY(text(b, "OMP_NUM_THREADS", getenv("OMP_NUM_THREADS")));
    CUDPO_TRY(text(b, "OPENBLAS_CORETYPE", getenv("OPENBLAS_CORETYPE")));
    CUDPO_TRY(text(b, "CUDPO_GEMM", getenv("CUDPO_GEMM")));
    CUDPO_TRY(text(b, "model_type", t->model.model_type));
    CUDPO_TRY(number(b, "parameters", t->policy.all.rows));
    CUDPO_TRY(fingerprint(b, "weights_at_start", t->policy_fingerprint));
    CUDPO_TRY(fingerprint(b, "tokenizer", tokenizer_fingerprint(t->tokenizer)));
    CUDPO_TRY(fingerprint(b, "train_tokens", dataset_fingerprint(t->train.data)));
    CUDPO_TRY(number(b, "train_examples", dataset_count(t->train.data)));
    CUDPO_TRY(number(b, "train_dropped", dataset_dropped(t->train.data)));
    CUDPO_TRY(number(b, "first_step", t->step));
    CUDPO_TRY(number(b, "steps", t->total_steps));
    CUDPO_TRY(number(b, "activation_bytes", (int64_t)t->pass.bytes));
    return buffer_printf(b, "  \"config\": %s\n}\n", config);
}

cudpo_status run_record_write(const cudpo_trainer *t)
{
    buffer b = {0};
    char *config = cudpo_config_print(t->config),
         *path = path_join(t->config->output_dir, "run.json");
    cudpo_status status = CUDPO_OK;
    if (config == NULL || path == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "run record");
    if (status == CUDPO_OK) status = fill(&b, t, config);
    if (status == CUDPO_OK) status = file_write(path, b.data, b.size);
    buffer_free(&b);
    free(path);
    free(config);
    return status;
}
