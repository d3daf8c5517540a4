/* demo.c - `cudpo demo`: a tiny model learns facts, then manners, through the same code as `cudpo train`. */
#include "cli/cli.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "cudpo/model.h"
#include "cudpo/score.h"
#include "cudpo/train.h"
#include "cli/demo_task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SEED = 1,
    STREAM_PHRASE = 2,
    DRAWS = 8,   /* answers sampled to each held-out question */
    SAMPLES = 3, /* of them shown */
};

/* Written first: where it lies, a demo has been. */
static const char MARK[] = "exam.jsonl";

/* What the exam says of a model. */
typedef struct exam {
    double preferred; /* share of pairs whose polite completion is the likelier one */
    double polite;    /* share of sampled answers in the polite manner */
    double right;     /* share of sampled answers that are right */
    double kl; /* nats per answer: mean log-ratio to the reference of the model's own samples */
    const char *question[SAMPLES];
    char *sample[SAMPLES];
} exam;

typedef struct demo {
    const char *folder;
    demo_question questions[DEMO_QUESTIONS];
    const demo_question *asked[DEMO_QUESTIONS]; /* held out */
    int64_t asked_count;
} demo;

static cudpo_status write_text(const demo *d, const char *name, const char *text)
{
    char *path = path_join(d->folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = file_write(path, text, strlen(text));
    free(path);
    return status;
}

static cudpo_status field(buffer *b, const char *name, const char *value, const char *before)
{
    CUDPO_TRY(buffer_printf(b, "%s\"%s\": ", before, name));
    return buffer_json_string(b, value, strlen(value));
}

static cudpo_status pair(buffer *b, const char *prompt, const char *chosen, const char *rejected)
{
    CUDPO_TRY(field(b, "prompt", prompt, "{"));
    CUDPO_TRY(field(b, "chosen", chosen, ", "));
    CUDPO_TRY(field(b, "rejected", rejected, ", "));
    return buffer_append(b, "}\n", 2);
}

/* The polite and the rude answer in the same phrase. */
static cudpo_status phrase_pair(buffer *b, const demo_question *q, uint64_t phrase)
{
    char polite[64], rude[64];
    demo_completion(polite, sizeof polite, q, true, phrase);
    demo_completion(rude, sizeof rude, q, false, phrase);
    return pair(b, q->prompt, polite, rude);
}

/* Both manners, each in both phrases. */
static cudpo_status supervised_rows(buffer *b, const demo_question *q)
{
    for (uint64_t i = 0; i < 4; i++) {
        char text[64];
        demo_completion(text, sizeof text, q, i < 2, i);
        CUDPO_TRY(field(b, "prompt", q->prompt, "{"));
        CUDPO_TRY(field(b, "completion", text, ", "));
        CUDPO_TRY(buffer_append(b, "}\n", 2));
    }
    return CUDPO_OK;
}

/* sft.jsonl: both manners of every trained question.  dpo.jsonl: one pair of each; exam.jsonl: both of the others. */
static cudpo_status write_data(demo *d)
{
    buffer sft = {0}, dpo = {0}, held_out = {0};
    cudpo_status status = CUDPO_OK;
    for (int i = 0; i < DEMO_QUESTIONS && status == CUDPO_OK; i++) {
        const demo_question *q = &d->questions[i];
        if (q->held_out) {
            d->asked[d->asked_count++] = q;
            status = phrase_pair(&held_out, q, 0);
            if (status == CUDPO_OK) status = phrase_pair(&held_out, q, 1);
        } else {
            status = phrase_pair(&dpo, q, rng_bits(SEED, STREAM_PHRASE, (uint64_t)i));
            if (status == CUDPO_OK) status = supervised_rows(&sft, q);
        }
    }
    if (status == CUDPO_OK) status = write_text(d, MARK, held_out.data);
    if (status == CUDPO_OK) status = write_text(d, "sft.jsonl", sft.data);
    if (status == CUDPO_OK) status = write_text(d, "dpo.jsonl", dpo.data);
    buffer_free(&held_out);
    buffer_free(&dpo);
    buffer_free(&sft);
    return status;
}

/* A model folder with random weights. */
static cudpo_status write_model(const demo *d)
{
    buffer tokenizer = {0};
    char *folder = path_join(d->folder, "start");
    cudpo_status status = CUDPO_OK;
    if (folder == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    if (status == CUDPO_OK) status = file_make_folder(folder);
    if (status == CUDPO_OK) status = demo_tokenizer(&tokenizer);
    if (status == CUDPO_OK) status = write_text(d, "start/tokenizer.json", tokenizer.data);
    if (status == CUDPO_OK)
        status = write_text(d, "start/tokenizer_config.json", demo_tokenizer_config());
    if (status == CUDPO_OK) status = write_text(d, "start/config.json", demo_model_config());
    if (status == CUDPO_OK) status = cudpo_model_randomise(folder, SEED);
    buffer_free(&tokenizer);
    free(folder);
    return status;
}

/* Write FOLDER/name.json, a configuration like any other, and run it. */
static cudpo_status run(const demo *d, const char *name, const char *model, const char *settings)
{
    buffer text = {0};
    char file[32];
    cudpo_config config;
    snprintf(file, sizeof file, "%s.json", name);
    char *path = path_join(d->folder, file);
    cudpo_status status = cudpo_config_create(&config);
    if (status == CUDPO_OK && path == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    if (status == CUDPO_OK)
        status = buffer_printf(
            &text,
            "{\n  \"model_name_or_path\": \"%s/%s\",\n  \"train_dataset\": \"%s/%s.jsonl\",\n  "
            "\"output_dir\": \"%s/%s\",\n  \"overwrite_output_dir\": true,\n%s}\n",
            d->folder, model, d->folder, name, d->folder, name, settings);
    if (status == CUDPO_OK) status = file_write(path, text.data, text.size);
    if (status == CUDPO_OK) status = cudpo_config_load(&config, path);
    if (status == CUDPO_OK) status = cudpo_train(&config);
    cudpo_config_free(&config);
    free(path);
    buffer_free(&text);
    return status;
}

/* The member of a row of scores. */
static double value_of(const json *row, const char *name)
{
    return json_number(json_get(row, name));
}

/* Score FOLDER/data under a model against the reference; means over rows of: chosen likelier; log-ratio of chosen. */
static cudpo_status score(const demo *d, const char *model, const char *data, double *likelier,
                          double *ratio)
{
    char *folder = path_join(d->folder, model), *reference = path_join(d->folder, "sft");
    char *in = path_join(d->folder, data), *out = path_join(d->folder, "scores.jsonl"),
         *text = NULL;
    size_t n = 0;
    double rows = 0.0;
    const cudpo_score_options options = {.model_name_or_path = folder,
                                         .ref_model_name_or_path = reference,
                                         .data = in,
                                         .output = out,
                                         .beta = 0.1};
    cudpo_status status = folder == NULL || reference == NULL || in == NULL || out == NULL
                              ? cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path")
                              : cudpo_score(&options);
    if (status == CUDPO_OK) status = file_read(&text, &n, out, (size_t)1 << 26);
    *likelier = *ratio = 0.0;
    for (char *line = text; status == CUDPO_OK && line < text + n; rows += 1.0) {
        char *end = memchr(line, '\n', (size_t)(text + n - line));
        json *row = NULL;
        if (end == NULL) break;
        status = json_parse(&row, line, (size_t)(end - line), out);
        if (status == CUDPO_OK) {
            *likelier += value_of(row, "logps/chosen") > value_of(row, "logps/rejected");
            *ratio += value_of(row, "logps/chosen") - value_of(row, "ref_logps/chosen");
        }
        json_free(row);
        line = end + 1;
    }
    *likelier /= rows;
    *ratio /= rows;
    free(text);
    free(out);
    free(in);
    free(reference);
    free(folder);
    return status;
}

/* DRAWS sampled answers to every held-out question: to question i, those at i, i + n, i + 2n, ... of n questions. */
static cudpo_status answers(const demo *d, const char *model, char ***texts)
{
    char *folder = path_join(d->folder, model);
    const int64_t n = d->asked_count;
    const char **prompts = calloc((size_t)(DRAWS * n), sizeof *prompts);
    cudpo_status status = CUDPO_OK;
    if (folder == NULL || prompts == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "prompts");
    for (int64_t i = 0; i < DRAWS * n && status == CUDPO_OK; i++)
        prompts[i] = d->asked[i % n]->prompt;
    const cudpo_generate_options options = {.model_name_or_path = folder,
                                            .prompts = prompts,
                                            .prompt_count = DRAWS * n,
                                            .max_new_tokens = 40,
                                            .temperature = 1.0,
                                            .top_p = 1.0,
                                            .seed = SEED,
                                            .batch_size = 256};
    if (status == CUDPO_OK) status = cudpo_generate(texts, &options);
    free(prompts);
    free(folder);
    return status;
}

/* Marks of the answers, which are freed but for the samples shown. */
static cudpo_status mark(const demo *d, exam *e, char **texts)
{
    const int64_t n = d->asked_count, step = n / SAMPLES;
    buffer sampled = {0};
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < DRAWS * n; i++) {
        const demo_question *q = d->asked[i % n];
        e->polite += demo_is_polite(texts[i]) / (double)(DRAWS * n);
        e->right += demo_is_right(q, texts[i]) / (double)(DRAWS * n);
        /* The scorer wants pairs; only the sample's own log-ratio is used. */
        if (status == CUDPO_OK) status = pair(&sampled, q->prompt, texts[i], " ");
        if (i < SAMPLES * step && i % step == 0) {
            e->question[i / step] = q->prompt;
            e->sample[i / step] = texts[i];
        } else {
            free(texts[i]);
        }
    }
    if (status == CUDPO_OK) status = write_text(d, "samples.jsonl", sampled.data);
    buffer_free(&sampled);
    return status;
}

static cudpo_status hold_exam(const demo *d, const char *model, exam *e)
{
    char **texts = NULL;
    double unused = 0.0;
    CUDPO_TRY(answers(d, model, &texts));
    const cudpo_status status = mark(d, e, texts);
    free(texts);
    CUDPO_TRY(status);
    CUDPO_TRY(score(d, model, MARK, &e->preferred, &unused));
    return score(d, model, "samples.jsonl", &unused, &e->kl);
}

static void report(const demo *d, const exam *before, const exam *after, double seconds)
{
    printf("\n%-44s %10s %10s\n", "held out", "before", "after");
    printf("%-44s %9.1f%% %9.1f%%\n", "preference accuracy (polite is likelier)",
           100 * before->preferred, 100 * after->preferred);
    printf("%-44s %9.1f%% %9.1f%%\n", "sampled answers in the preferred manner",
           100 * before->polite, 100 * after->polite);
    printf("%-44s %9.1f%% %9.1f%%\n", "right answers", 100 * before->right, 100 * after->right);
    printf("%-44s %10.3f %10.3f\n\n", "mean KL to the reference, nats per answer", before->kl,
           after->kl);
    for (int64_t i = 0; i < SAMPLES; i++)
        printf("%-28s before:%-24s after:%s\n", before->question[i], before->sample[i],
               after->sample[i]);
    printf("\n%.0f s.  %s/dpo is a model folder.  To go on:\n", seconds, d->folder);
    printf("  cudpo generate --model_name_or_path %s/dpo --prompt \"What is 3+4?\"\n", d->folder);
    printf("  cudpo train %s/dpo.json --beta 1 --output_dir %s/beta1\n", d->folder, d->folder);
}

static cudpo_status judge(const exam *before, const exam *after)
{
    if (after->preferred >= 0.95 && after->polite >= 0.90 && after->right >= before->right - 0.02)
        return CUDPO_OK;
    return cudpo_fail(CUDPO_ENUMERIC, "demo",
                      "the model did not become what it should: at least 95 %% preference "
                      "accuracy, 90 %% preferred manner, "
                      "right answers down by at most 2 points");
}

/* adam_epsilon: as large as the gradients, so that what a pair hardly touches hardly moves.  With the usual one, AdamW
 * steps as far along tiny gradients as along large ones, and the words that follow a rude beginning fall apart. */
static cudpo_status teach(const demo *d, exam *before, exam *after)
{
    fprintf(stderr, "1. supervised training: right answers, polite and rude in equal parts\n");
    CUDPO_TRY(run(d, "sft", "start",
                  "  \"loss_type\": \"sft\",\n  \"learning_rate\": 3e-3,\n  \"lr_scheduler_type\": "
                  "\"cosine\",\n  \"warmup_steps\": 20,\n  \"num_train_epochs\": 18,\n  "
                  "\"per_device_train_batch_size\": 32,\n  \"gradient_checkpointing\": false,\n  "
                  "\"save_strategy\": \"no\",\n  \"logging_steps\": 100\n"));
    CUDPO_TRY(hold_exam(d, "sft", before));
    fprintf(stderr, "2. DPO: polite is preferred to rude\n");
    CUDPO_TRY(run(d, "dpo", "sft",
                  "  \"loss_type\": \"sigmoid\",\n  \"beta\": 0.5,\n  \"learning_rate\": 1e-3,\n  "
                  "\"adam_epsilon\": 1e-2,\n  \"warmup_steps\": 5,\n  \"num_train_epochs\": 4,\n  "
                  "\"per_device_train_batch_size\": 32,\n  \"gradient_checkpointing\": false,\n  "
                  "\"save_strategy\": \"no\",\n  \"logging_steps\": 10\n"));
    return hold_exam(d, "dpo", after);
}

/* A folder with things of someone else stays as it is. */
static cudpo_status check_folder(const demo *d)
{
    char *mark = path_join(d->folder, MARK), *half = path_join(d->folder, "exam.jsonl.tmp");
    if (mark == NULL || half == NULL) {
        free(mark);
        free(half);
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    }
    const bool ours = file_is_regular(mark) || file_is_regular(half); /* half: it was killed */
    free(half);
    free(mark);
    if (ours || !file_is_folder(d->folder) || file_folder_is_empty(d->folder)) return CUDPO_OK;
    return cudpo_fail(CUDPO_EWRITE, d->folder,
                      "holds other things than a demo: choose another folder with --output_dir");
}

static cudpo_status run_demo(demo *d)
{
    const time_t begin = time(NULL);
    exam before = {0}, after = {0};
    demo_questions(d->questions, SEED);
    CUDPO_TRY(check_folder(d));
    CUDPO_TRY(file_make_folder(d->folder));
    CUDPO_TRY(write_data(d));
    CUDPO_TRY(write_model(d));
    cudpo_status status = teach(d, &before, &after);
    if (status == CUDPO_OK) {
        report(d, &before, &after, difftime(time(NULL), begin));
        status = judge(&before, &after);
    }
    for (int i = 0; i < SAMPLES; i++) {
        free(before.sample[i]);
        free(after.sample[i]);
    }
    return status;
}

static const cli_page page = {
    "demo",
    "see it work: a tiny model learns manners, in under a minute",
    "cudpo demo [--output_dir DIR]",
    "Needs no input and no network. Makes a byte-level Llama of about a third of a million random "
    "parameters, teaches it sums and "
    "facts that are answered politely and rudely in equal parts (loss_type sft), then aligns it by "
    "DPO on pairs that prefer the "
    "polite answer. Prints, for questions in wordings that it was not trained on: preference "
    "accuracy, share of answers in "
    "the preferred manner, share of right answers, mean KL to the reference and three samples, "
    "before and after. Everything goes "
    "through the code of `cudpo train`, `generate` and `score`; the run's files stay for you to "
    "look at.",
    "DIR/sft.json, dpo.json: the two configurations\n"
    "DIR/sft.jsonl, dpo.jsonl, exam.jsonl: what is learned, and what is held out\n"
    "DIR/start, sft, dpo: model folders before, between and after",
    "  cudpo demo\n"
    "  cudpo train cudpo-demo/dpo.json --beta 1 --output_dir cudpo-demo/beta1"};

cudpo_status cli_demo(int argc, char **argv)
{
    const char *folder = "cudpo-demo";
    const cli_option options[] = {
        {"--output_dir", CLI_TEXT, "DIR (cudpo-demo)",
         "where everything goes; an earlier demo there is replaced", &folder},
    };
    bool help;
    CUDPO_TRY(cli_parse(options, 1, NULL, 0, &help, argc, argv));
    if (help) {
        cli_print_page(&page, options, 1, false);
        return CUDPO_OK;
    }
    demo *d = calloc(1, sizeof *d);
    if (d == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "demo");
    d->folder = folder;
    cudpo_status status = run_demo(d);
    if (status == CUDPO_ESTOPPED) {
        cudpo_error_clear();
        status = cudpo_fail(CUDPO_ESTOPPED, "demo", "stopped by a signal: run it again");
    }
    free(d);
    return status;
}
