/* score.c - implicit rewards of a preference file, and its token ids. */
#include "cudpo/score.h"
#include "base/buffer.h"
#include "base/file.h"
#include "train/cache_folder.h"
#include "train/device.h"
#include "train/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PACK_TOKENS = 2048, PACK_GROUPS = 64 };

/* JSONL to a file that appears when it is complete, or to standard output. */
typedef struct rows_out {
    file_writer file;
    bool to_file;
} rows_out;

static cudpo_status rows_open(rows_out *o, const char *path, const char *input)
{
    if (path != NULL && file_is_same(path, input))
        return cudpo_fail(CUDPO_ECONFIG, path, "is the file that is read: choose another output");
    *o = (rows_out){.to_file = path != NULL && strcmp(path, "-") != 0};
    return o->to_file ? file_writer_open(&o->file, path) : CUDPO_OK;
}

static cudpo_status rows_put(rows_out *o, const buffer *line)
{
    if (o->to_file) return file_writer_put(&o->file, line->data, line->size);
    if (fwrite(line->data, 1, line->size, stdout) != line->size)
        return file_fail("standard output", "write", true);
    return CUDPO_OK;
}

static cudpo_status rows_close(rows_out *o)
{
    if (o->to_file) return file_writer_commit(&o->file);
    return fflush(stdout) == 0 ? CUDPO_OK : file_fail("standard output", "write", true);
}

typedef struct scorer {
    const char *path; /* of the data */
    backend *be;
    model_config config;
    tokenizer *tokenizer;
    dataset *data;
    model_weights policy, reference;
    pass pass;
    float policy_score[PACK_GROUPS * MAX_COMPLETIONS];
} scorer;

static void scorer_close(scorer *s)
{
    pass_destroy(&s->pass);
    model_weights_destroy(&s->reference);
    model_weights_destroy(&s->policy);
    dataset_close(s->data);
    tokenizer_free(s->tokenizer);
    if (s->be != NULL) s->be->close(s->be);
}

static cudpo_status load_model(scorer *s, model_weights *w, const char *folder)
{
    model_config c;
    CUDPO_TRY(model_config_load(&c, folder));
    if (w == &s->policy) s->config = c;
    CUDPO_TRY(model_config_same(&c, &s->config, folder));
    CUDPO_TRY(model_weights_create(w, s->be, &c, DTYPE_F32));
    return model_weights_load(w, &c, folder);
}

static cudpo_status open_data(dataset **out, const tokenizer *t, const char *path,
                              int64_t max_length)
{
    char *folder = NULL;
    CUDPO_TRY(cache_folder(&folder, "."));
    const dataset_options options = {
        .kind = ROW_PAIR, .max_length = max_length, .cache_dir = folder};
    const cudpo_status status = dataset_open(out, path, t, &options);
    free(folder);
    return status;
}

static cudpo_status scorer_open(scorer *s, const cudpo_score_options *o)
{
    s->path = o->data;
    CUDPO_TRY(device_open(&s->be, o->device, 0, "."));
    CUDPO_TRY(load_model(s, &s->policy, o->model_name_or_path));
    CUDPO_TRY(load_model(s, &s->reference, o->ref_model_name_or_path));
    CUDPO_TRY(tokenizer_load(&s->tokenizer, o->model_name_or_path));
    if (tokenizer_size(s->tokenizer) > s->config.vocab_size)
        return cudpo_fail(CUDPO_EDATA, o->model_name_or_path,
                          "the tokenizer has more ids than vocab_size %lld",
                          (long long)s->config.vocab_size);
    CUDPO_TRY(open_data(&s->data, s->tokenizer, o->data, o->max_length));
    const int64_t largest = dataset_longest(s->data);
    const pass_limits limits = {.tokens = largest > PACK_TOKENS ? largest : PACK_TOKENS,
                                .groups = PACK_GROUPS,
                                .largest_group = largest,
                                .positions = dataset_longest_sequence(s->data),
                                .completions = 2,
                                .kind = WORKSPACE_SCORE};
    return pass_create(&s->pass, s->be, &s->config, &limits);
}

static cudpo_status named(buffer *line, const char *name, double value)
{
    CUDPO_TRY(buffer_printf(line, ", \"%s\": ", name));
    return buffer_json_number(line, value);
}

/* The row of group g of the pack that was scored. */
static cudpo_status score_line(buffer *line, const scorer *s, int64_t g, double beta)
{
    const example e = dataset_get(s->data, s->pass.pack.group_example[g]);
    const double chosen = s->policy_score[2 * g], rejected = s->policy_score[2 * g + 1];
    const double ref_chosen = s->pass.score[2 * g], ref_rejected = s->pass.score[2 * g + 1];
    const double won = beta * (chosen - ref_chosen), lost = beta * (rejected - ref_rejected);
    if (!isfinite(won) || !isfinite(lost))
        return cudpo_fail(CUDPO_ENUMERIC, s->path,
                          "row %lld: log-probs %g and %g, under the reference %g and %g: they must "
                          "be finite",
                          (long long)e.row, chosen, rejected, ref_chosen, ref_rejected);
    buffer_clear(line);
    CUDPO_TRY(buffer_printf(line, "{\"row\": %lld", (long long)e.row));
    CUDPO_TRY(named(line, "logps/chosen", chosen));
    CUDPO_TRY(named(line, "logps/rejected", rejected));
    CUDPO_TRY(named(line, "ref_logps/chosen", ref_chosen));
    CUDPO_TRY(named(line, "ref_logps/rejected", ref_rejected));
    CUDPO_TRY(named(line, "rewards/chosen", won));
    CUDPO_TRY(named(line, "rewards/rejected", lost));
    CUDPO_TRY(named(line, "rewards/margin", won - lost));
    return buffer_printf(
        line, ", \"tokens/prompt\": %d, \"tokens/chosen\": %d, \"tokens/rejected\": %d}\n",
        (int)e.prompt_length, (int)e.completion_length[0], (int)e.completion_length[1]);
}

/* Rows that truncation leaves nothing of keep their place in the output. */
static cudpo_status null_lines(rows_out *out, buffer *line, int64_t *next, int64_t until)
{
    for (; *next < until; (*next)++) {
        buffer_clear(line);
        CUDPO_TRY(buffer_printf(
            line,
            "{\"row\": %lld, \"logps/chosen\": null, \"logps/rejected\": null, "
            "\"ref_logps/chosen\": "
            "null, \"ref_logps/rejected\": null, \"rewards/chosen\": null, \"rewards/rejected\": "
            "null, "
            "\"rewards/margin\": null, \"tokens/prompt\": null, \"tokens/chosen\": null, "
            "\"tokens/rejected\": null}\n",
            (long long)*next));
        CUDPO_TRY(rows_put(out, line));
    }
    return CUDPO_OK;
}

static cudpo_status score_pack(scorer *s)
{
    CUDPO_TRY(pass_upload(&s->pass));
    CUDPO_TRY(pass_score(&s->pass, &s->policy));
    memcpy(s->policy_score, s->pass.score, (size_t)s->pass.pack.S * sizeof(float));
    return pass_score(&s->pass, &s->reference);
}

static cudpo_status score_rows(scorer *s, rows_out *out, buffer *line, double beta)
{
    const int64_t count = dataset_count(s->data);
    int64_t next_row = 0;
    for (int64_t i = 0; i < count;) {
        pack_clear(&s->pass.pack);
        for (; i < count && s->pass.pack.G < PACK_GROUPS; i++) {
            const example e = dataset_get(s->data, i);
            if (!pack_add(&s->pass.pack, &e, i)) break;
        }
        CUDPO_TRY(score_pack(s));
        for (int64_t g = 0; g < s->pass.pack.G; g++) {
            CUDPO_TRY(null_lines(out, line, &next_row,
                                 dataset_get(s->data, s->pass.pack.group_example[g]).row));
            CUDPO_TRY(score_line(line, s, g, beta));
            CUDPO_TRY(rows_put(out, line));
            next_row++;
        }
    }
    return null_lines(out, line, &next_row, count + dataset_dropped(s->data));
}

cudpo_status cudpo_score(const cudpo_score_options *o)
{
    CUDPO_REQUIRE(o->model_name_or_path != NULL && o->ref_model_name_or_path != NULL &&
                  o->data != NULL);
    CUDPO_REQUIRE(o->beta > 0.0 && o->max_length >= 0);
    scorer s = {0};
    rows_out out = {0};
    buffer line = {0};
    cudpo_status status = scorer_open(&s, o);
    if (status == CUDPO_OK) status = rows_open(&out, o->output, o->data);
    if (status == CUDPO_OK) status = score_rows(&s, &out, &line, o->beta);
    if (status == CUDPO_OK) status = device_check(s.be);
    if (status == CUDPO_OK) status = rows_close(&out);
    file_writer_abandon(&out.file);
    buffer_free(&line);
    scorer_close(&s);
    return status;
}

static cudpo_status put_ids(buffer *b, const int32_t *ids, int64_t n)
{
    CUDPO_TRY(buffer_append(b, "[", 1));
    for (int64_t i = 0; i < n; i++)
        CUDPO_TRY(buffer_printf(b, "%s%d", i == 0 ? "" : ", ", (int)ids[i]));
    return buffer_append(b, "]", 1);
}

cudpo_status cudpo_tokenize_text(char **json, const char *model, const char *text, bool add_special)
{
    *json = NULL;
    tokenizer *t = NULL;
    token_list ids = {0};
    buffer b = {0};
    CUDPO_TRY(tokenizer_load(&t, model));
    cudpo_status status = tokenizer_encode(t, &ids, text, strlen(text), add_special);
    if (status == CUDPO_OK) status = put_ids(&b, ids.ids, ids.n);
    token_list_free(&ids);
    tokenizer_free(t);
    if (status != CUDPO_OK) buffer_free(&b);
    *json = b.data;
    return status;
}

static cudpo_status token_line(buffer *line, const example *e)
{
    static const char *const names[] = {"chosen_ids", "rejected_ids"};
    buffer_clear(line);
    CUDPO_TRY(buffer_printf(line, "{\"row\": %lld, \"prompt_ids\": ", (long long)e->row));
    CUDPO_TRY(put_ids(line, e->prompt, e->prompt_length));
    for (int32_t k = 0; k < e->completions; k++) {
        CUDPO_TRY(
            buffer_printf(line, ", \"%s\": ", e->completions == 1 ? "completion_ids" : names[k]));
        CUDPO_TRY(put_ids(line, e->completion[k], e->completion_length[k]));
    }
    if (e->completions == 1)
        CUDPO_TRY(buffer_printf(line, ", \"label\": %s", e->label ? "true" : "false"));
    return buffer_append(line, "}\n", 2);
}

/* Pairs where the file has pairs, labelled rows where it has those. */
static cudpo_status open_either(dataset **out, const tokenizer *t, const char *path,
                                int64_t max_length)
{
    row_reader *r = NULL;
    preference_row row;
    bool done = false;
    CUDPO_TRY(row_reader_open(&r, path));
    cudpo_status status = row_reader_next(r, &row, &done);
    const row_kind kind = status == CUDPO_OK && !done ? row.kind : ROW_PAIR;
    row_reader_close(r);
    CUDPO_TRY(status);
    if (kind == ROW_PAIR) return open_data(out, t, path, max_length);
    const dataset_options options = {.kind = ROW_LABEL, .max_length = max_length};
    return dataset_open(out, path, t, &options);
}

cudpo_status cudpo_tokenize_data(const char *model, const char *data, const char *output,
                                 int64_t max_length)
{
    tokenizer *t = NULL;
    dataset *d = NULL;
    rows_out out = {0};
    buffer line = {0};
    cudpo_status status = tokenizer_load(&t, model);
    if (status == CUDPO_OK) status = open_either(&d, t, data, max_length);
    if (status == CUDPO_OK) status = rows_open(&out, output, data);
    for (int64_t i = 0; status == CUDPO_OK && i < dataset_count(d); i++) {
        const example e = dataset_get(d, i);
        status = token_line(&line, &e);
        if (status == CUDPO_OK) status = rows_put(&out, &line);
    }
    if (status == CUDPO_OK) status = rows_close(&out);
    file_writer_abandon(&out.file);
    buffer_free(&line);
    dataset_close(d);
    tokenizer_free(t);
    return status;
}
