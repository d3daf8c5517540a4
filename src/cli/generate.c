/* generate.c - `cudpo generate`. */
#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_scan.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cudpo/score.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_page page = {
    "generate",
    "continue prompts",
    "cudpo generate --model_name_or_path DIR (--prompt TEXT ... | --prompts FILE) "
    "[--max_new_tokens N] [--temperature T]",
    "Prints the continuation of each prompt: as text for one prompt, as JSON lines with prompt and "
    "completion for more. Greedy "
    "unless temperature is set. A sample is a function of seed, prompt and position: batches do "
    "not change it.",
    NULL,
    "  cudpo generate --model_name_or_path out --prompt \"Once upon a time\"\n"
    "  cudpo generate --model_name_or_path out --prompts questions.jsonl --temperature 0.7 --top_p "
    "0.9"};

/* Prompts of a file: lines of text, or of JSON with a member "prompt". */
typedef struct prompt_file {
    char *text;
    char **prompts; /* [n] */
    int64_t n;
} prompt_file;

static void prompt_file_free(prompt_file *p)
{
    for (int64_t i = 0; i < p->n; i++)
        free(p->prompts[i]);
    free(p->prompts);
    free(p->text);
}

static cudpo_status read_prompt(char **out, const char *line, const char *path, int64_t number)
{
    char where[4200];
    json *row = NULL;
    const size_t length = strlen(line);
    *out = NULL;
    snprintf(where, sizeof where, "%s:%lld", path, (long long)number);
    for (size_t at = 0, n; at < length; at += n) {
        n = utf8_length(line + at, length - at);
        if (n == 0) return cudpo_fail(CUDPO_EDATA, where, "invalid UTF-8 at byte %zu", at + 1);
    }
    if (line[strspn(line, " \t")] != '{') {
        *out = strdup(line);
    } else {
        CUDPO_TRY(json_parse(&row, line, strlen(line), where));
        const json *prompt = json_get(row, "prompt");
        const bool text = prompt != NULL && json_type(prompt) == JSON_STRING;
        if (text) *out = strdup(json_string(prompt));
        json_free(row);
        if (!text)
            return cudpo_fail(CUDPO_EDATA, where, "needs a member \"prompt\" that is a string");
    }
    return *out != NULL ? CUDPO_OK : cudpo_fail(CUDPO_ENOMEM, where, "prompt");
}

/* A whole file of JSON, not text that begins with a bracket. */
static bool is_array(const char *text)
{
    size_t offset;
    const char *reason;
    return text[strspn(text, " \t\r\n")] == '[' &&
           json_scan(text, strlen(text), JSON_MAX_DEPTH, &offset, &reason);
}

static cudpo_status read_prompts(prompt_file *p, const char *path)
{
    size_t size = 0;
    int64_t number = 0, lines = 1;
    CUDPO_TRY(file_read(&p->text, &size, path, (size_t)1 << 30));
    if (size >= 2 && memcmp(p->text, "\x1f\x8b", 2) == 0)
        return cudpo_fail(CUDPO_EDATA, path, "is gzip: unpack it (gunzip)");
    if (strlen(p->text) != size) return cudpo_fail(CUDPO_EDATA, path, "holds a NUL byte");
    char *begin = p->text + (strncmp(p->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0);
    if (is_array(begin))
        return cudpo_fail(CUDPO_EDATA, path,
                          "is an array of JSON: give one object a line (jq -c '.[]')");
    for (size_t i = 0; i < size; i++)
        lines += p->text[i] == '\n';
    p->prompts = calloc((size_t)lines, sizeof *p->prompts);
    if (p->prompts == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "%lld prompts", (long long)lines);
    for (char *line = begin; line != NULL;) {
        char *end = strchr(line, '\n');
        if (end != NULL) *end = '\0';
        const size_t length = strlen(line);
        if (length > 0 && line[length - 1] == '\r') line[length - 1] = '\0';
        number++;
        if (*line != '\0') {
            CUDPO_TRY(read_prompt(&p->prompts[p->n], line, path, number));
            p->n++;
        }
        line = end == NULL ? NULL : end + 1;
    }
    if (p->n == 0) return cudpo_fail(CUDPO_EDATA, path, "holds no prompt");
    return CUDPO_OK;
}

static cudpo_status print_text(const char *prompt, const char *text, bool as_json)
{
    if (!as_json) {
        puts(text);
        return CUDPO_OK;
    }
    buffer b = {0};
    cudpo_status status = buffer_append(&b, "{\"prompt\": ", 11);
    if (status == CUDPO_OK) status = buffer_json_string(&b, prompt, strlen(prompt));
    if (status == CUDPO_OK) status = buffer_append(&b, ", \"completion\": ", 16);
    if (status == CUDPO_OK) status = buffer_json_string(&b, text, strlen(text));
    if (status == CUDPO_OK) printf("%s}\n", b.data);
    buffer_free(&b);
    return status;
}

static cudpo_status run(const cudpo_generate_options *o)
{
    char **texts = NULL;
    CUDPO_TRY(cudpo_generate(&texts, o));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < o->prompt_count; i++) {
        if (status == CUDPO_OK) status = print_text(o->prompts[i], texts[i], o->prompt_count > 1);
        free(texts[i]);
    }
    free(texts);
    return status;
}

static cudpo_status check(const cudpo_generate_options *o)
{
    if (o->model_name_or_path == NULL)
        return cudpo_fail(CUDPO_EUSAGE, "--model_name_or_path", "is needed; see --help");
    if (o->max_new_tokens < 1 || o->max_new_tokens > 1 << 20)
        return cudpo_fail(CUDPO_EUSAGE, "--max_new_tokens", "is not in 1 .. 1048576");
    if (o->temperature < 0.0) return cudpo_fail(CUDPO_EUSAGE, "--temperature", "is below 0");
    if (!(o->top_p > 0.0 && o->top_p <= 1.0))
        return cudpo_fail(CUDPO_EUSAGE, "--top_p", "is not in (0, 1]");
    if (o->temperature == 0.0 && (o->top_k > 0 || o->top_p < 1.0))
        log_warn("without --temperature the likeliest token is taken: --top_k and --top_p have no "
                 "effect");
    return CUDPO_OK;
}

cudpo_status cli_generate(int argc, char **argv)
{
    cudpo_generate_options o = {.max_new_tokens = 128, .top_p = 1.0};
    cli_list prompts = {0};
    prompt_file file = {0};
    const char *path = NULL;
    int64_t seed = 42;
    bool help;
    const cli_option options[] = {
        {"--model_name_or_path", CLI_TEXT, "DIR", "a model folder", &o.model_name_or_path},
        {"--prompt", CLI_LIST, "TEXT", "a prompt; may stand several times", &prompts},
        {"--prompts", CLI_TEXT, "FILE",
         "prompts, one a line: an object of JSON with a member prompt; where it does not begin "
         "with {, "
         "the text as it stands",
         &path},
        {"--max_new_tokens", CLI_INTEGER, "N (128)", "length of the continuation at most",
         &o.max_new_tokens},
        {"--temperature", CLI_REAL, "T (0)", "0: the likeliest token; 1: as the model says",
         &o.temperature},
        {"--top_k", CLI_INTEGER, "K (0)", "sample among the K likeliest; 0: all", &o.top_k},
        {"--top_p", CLI_REAL, "P (1)", "sample among the likeliest that hold this probability",
         &o.top_p},
        {"--seed", CLI_INTEGER, "N (42)", "of the samples", &seed},
        {"--batch_size", CLI_INTEGER, "N (64)", "prompts continued together", &o.batch_size},
        {"--device", CLI_TEXT, "auto|cpu|cuda (auto)", "where it is computed", &o.device},
    };
    const int64_t n = sizeof options / sizeof options[0];
    prompts.values = calloc((size_t)argc + 1, sizeof *prompts.values);
    if (prompts.values == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "prompts");
    cudpo_status status = cli_parse(options, n, NULL, 0, &help, argc, argv);
    if (status == CUDPO_OK && help) {
        cli_print_page(&page, options, n, false);
        goto out;
    }
    if (status == CUDPO_OK) status = check(&o);
    if (status == CUDPO_OK && (prompts.n > 0) == (path != NULL))
        status = cudpo_fail(CUDPO_EUSAGE, "generate", "needs --prompt or --prompts, one of them");
    if (status == CUDPO_OK && path != NULL) status = read_prompts(&file, path);
    o.seed = (uint64_t)seed;
    o.prompts = path != NULL ? (const char *const *)file.prompts : prompts.values;
    o.prompt_count = path != NULL ? file.n : prompts.n;
    if (status == CUDPO_OK) status = run(&o);
out:
    prompt_file_free(&file);
    free(prompts.values);
    return status;
}
