/* sink.c - metrics.jsonl, event files and the terminal. */
#include "train/sink.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "train/progress.h"
#include "train/tensorboard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct metric_sink {
    FILE *lines;
    char *path;
    event_file *events;
    progress progress;
    buffer line;
};

/* Bytes of the file that hold whole lines of steps up to `step`.  Steps only grow, so it is a beginning of the file. */
static size_t kept_bytes(const char *text, size_t n, int64_t step, const char *path)
{
    size_t kept = 0;
    for (const char *line = text; line < text + n;) {
        const char *end = memchr(line, '\n', (size_t)(text + n - line));
        json *row = NULL;
        int64_t at = 0;
        if (end == NULL || json_parse(&row, line, (size_t)(end - line), path) != CUDPO_OK) break;
        const json *member = json_type(row) == JSON_OBJECT ? json_get(row, "step") : NULL;
        const bool keep = member != NULL && json_integer(member, &at) && at <= step;
        json_free(row);
        if (!keep) break;
        kept = (size_t)(end - text) + 1;
        line = end + 1;
    }
    cudpo_error_clear(); /* half a line is what a killed run leaves, no failure of this one */
    return kept;
}

/* Cut what a later or killed attempt wrote behind the step that is gone on from. */
static cudpo_status cut_lines(const char *path, int64_t step)
{
    char *text = NULL;
    size_t n = 0;
    if (step <= 0 || !file_is_regular(path)) return file_write(path, "", 0);
    CUDPO_TRY(file_read(&text, &n, path, SIZE_MAX / 2));
    const size_t kept = kept_bytes(text, n, step, path);
    free(text);
    if (kept < n && truncate(path, (off_t)kept) != 0) return file_fail(path, "shorten", true);
    return CUDPO_OK;
}

cudpo_status metric_sink_open(metric_sink **out, const char *output_dir, int64_t resume_step,
                              int64_t total_steps)
{
    *out = NULL;
    metric_sink *s = calloc(1, sizeof *s);
    char *runs = path_join(output_dir, "runs");
    cudpo_status status = CUDPO_OK;
    if (s != NULL) s->path = path_join(output_dir, "metrics.jsonl");
    if (s == NULL || runs == NULL || s->path == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "sinks");
    if (status == CUDPO_OK) status = cut_lines(s->path, resume_step);
    if (status == CUDPO_OK) {
        s->lines = fopen(s->path, "ab");
        if (s->lines == NULL) status = file_fail(s->path, "open", true);
    }
    if (status == CUDPO_OK) status = event_file_open(&s->events, runs);
    free(runs);
    if (status != CUDPO_OK) {
        metric_sink_close(s);
        return status;
    }
    progress_begin(&s->progress, resume_step, total_steps);
    *out = s;
    return CUDPO_OK;
}

static cudpo_status put_number(buffer *b, const char *name, double value)
{
    CUDPO_TRY(buffer_printf(b, ", \"%s\": ", name));
    return buffer_json_number(b, value);
}

static cudpo_status put_line(metric_sink *s, int64_t step, const metric *metrics, int64_t n)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    buffer_clear(&s->line);
    CUDPO_TRY(buffer_printf(&s->line, "{\"step\": %lld", (long long)step));
    for (int64_t i = 0; i < n; i++)
        CUDPO_TRY(put_number(&s->line, metrics[i].name, metrics[i].value));
    CUDPO_TRY(put_number(&s->line, "units_per_second", progress_rate(&s->progress)));
    CUDPO_TRY(buffer_printf(&s->line, ", \"time\": %lld.%03ld}\n", (long long)now.tv_sec,
                            now.tv_nsec / 1000000));
    if (fwrite(s->line.data, 1, s->line.size, s->lines) != s->line.size || fflush(s->lines) != 0)
        return file_fail(s->path, "write", true);
    return CUDPO_OK;
}

static cudpo_status put_events(metric_sink *s, int64_t step, const metric *metrics, int64_t n)
{
    char tag[128];
    for (int64_t i = 0; i < n; i++) {
        const bool eval = strncmp(metrics[i].name, "eval_", 5) == 0;
        snprintf(tag, sizeof tag, "%s/%s", eval ? "eval" : "train",
                 metrics[i].name + (eval ? 5 : 0));
        CUDPO_TRY(event_file_scalar(s->events, step, tag, metrics[i].value));
    }
    return event_file_flush(s->events);
}

/* The few numbers that a person looks at. */
static void print_line(const metric_sink *s, int64_t step, const metric *metrics, int64_t n)
{
    static const char *const shown[] = {"loss",
                                        "eval_loss",
                                        "rewards/accuracies",
                                        "eval_rewards/accuracies",
                                        "rewards/margins",
                                        "eval_rewards/margins",
                                        "grad_norm",
                                        "learning_rate"};
    fprintf(stderr, "step %lld/%lld", (long long)step, (long long)s->progress.total_steps);
    for (int64_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof shown / sizeof shown[0]; k++)
            if (strcmp(metrics[i].name, shown[k]) == 0)
                fprintf(stderr, "  %s %.4g", shown[k], metrics[i].value);
    fputc('\n', stderr);
}

cudpo_status metric_sink_log(metric_sink *s, int64_t step, const metric *metrics, int64_t n)
{
    progress_clear(&s->progress);
    print_line(s, step, metrics, n);
    CUDPO_TRY(put_line(s, step, metrics, n));
    return put_events(s, step, metrics, n);
}

void metric_sink_progress(metric_sink *s, int64_t step, double loss, double accuracy, int64_t units)
{
    progress_step(&s->progress, step, loss, accuracy, units);
}

cudpo_status metric_sink_sync(metric_sink *s)
{
    if (fflush(s->lines) != 0 || fsync(fileno(s->lines)) != 0)
        return file_fail(s->path, "write", true);
    return event_file_flush(s->events);
}

void metric_sink_close(metric_sink *s)
{
    if (s == NULL) return;
    progress_clear(&s->progress);
    event_file_close(s->events);
    if (s->lines != NULL) fclose(s->lines);
    buffer_free(&s->line);
    free(s->path);
    free(s);
}
