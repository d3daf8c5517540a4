/* row.c - what stands in a row: TRL's pairs, pairs with an implicit prompt, and labelled completions. */
#include "data/row.h"
#include "base/buffer.h"
#include "base/json.h"
#include "data/split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The forms of a row.  A file holds one of them: its first row decides. */
typedef enum row_form {
    FORM_NONE,
    FORM_PAIR,
    FORM_IMPLICIT,
    FORM_LABELLED,
    FORM_COMPLETION,
} row_form;

static const char *const form_names[] = {
    "nothing",
    "prompt, chosen and rejected",
    "chosen and rejected with the prompt inside",
    "prompt, completion and label",
    "prompt and completion",
};

struct row_reader {
    row_splitter *splitter;
    char *path;
    char *where; /* "path:line" of the row in hand, in an array "path:line: row N" */
    size_t where_size;
    json *tree;    /* of the row in hand: its strings live here */
    buffer prompt; /* of an implicit prompt */
    row_form form;
    int64_t rows, bytes; /* of rows that were read or passed over; bytes of their text */
};

/* The members of a row that mean something to us; NULL where absent. */
typedef struct row_fields {
    const json *prompt, *chosen, *rejected, *completion, *label, *messages;
} row_fields;

cudpo_status row_reader_open(row_reader **out, const char *path)
{
    *out = NULL;
    row_reader *r = calloc(1, sizeof *r);
    if (r == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "row reader");
    r->where_size = strlen(path) + 64;
    r->where = malloc(r->where_size);
    r->path = strdup(path);
    cudpo_status status = CUDPO_OK;
    if (r->where == NULL || r->path == NULL) status = cudpo_fail(CUDPO_ENOMEM, path, "path");
    if (status == CUDPO_OK) status = row_splitter_open(&r->splitter, path);
    if (status == CUDPO_OK) {
        *out = r;
        return CUDPO_OK;
    }
    row_reader_close(r);
    return status;
}

void row_reader_close(row_reader *r)
{
    if (r == NULL) return;
    row_splitter_close(r->splitter);
    json_free(r->tree);
    buffer_free(&r->prompt);
    free(r->path);
    free(r->where);
    free(r);
}

static row_fields find_fields(const json *row)
{
    return (row_fields){
        .prompt = json_get(row, "prompt"),
        .chosen = json_get(row, "chosen"),
        .rejected = json_get(row, "rejected"),
        .completion = json_get(row, "completion"),
        .label = json_get(row, "label"),
        .messages = json_get(row, json_get(row, "messages") != NULL ? "messages" : "conversations"),
    };
}

/* Fails, naming the first few keys that the row has instead. */
static cudpo_status fail_keys(const json *row, const char *where)
{
    char keys[160] = "";
    size_t used = 0;
    int shown = 0;
    for (const json *m = json_first(row); m != NULL && shown < 5; m = json_next(m), shown++) {
        const int k = snprintf(keys + used, sizeof keys - used, "%s%.24s", shown > 0 ? ", " : "",
                               json_key(m));
        if (k > 0) used += (size_t)k;
    }
    return cudpo_fail(CUDPO_EDATA, where,
                      "a row needs prompt, chosen and rejected, or chosen and rejected, or prompt, "
                      "completion and label; this one has %s: rename its columns",
                      shown > 0 ? keys : "no keys");
}

static cudpo_status find_form(row_form *form, const row_fields *f, const json *row,
                              const char *where)
{
    if (f->chosen != NULL && f->rejected != NULL) {
        *form = f->prompt != NULL ? FORM_PAIR : FORM_IMPLICIT;
    } else if (f->completion != NULL && f->prompt != NULL) {
        *form = f->label != NULL ? FORM_LABELLED : FORM_COMPLETION;
    } else if (f->chosen != NULL || f->rejected != NULL) {
        return cudpo_fail(CUDPO_EDATA, where, "%s without %s: a pair needs both",
                          f->chosen != NULL ? "chosen" : "rejected",
                          f->chosen != NULL ? "rejected" : "chosen");
    } else if (f->completion != NULL) {
        return cudpo_fail(CUDPO_EDATA, where,
                          "completion without prompt: a labelled row needs prompt, completion and "
                          "label (\"prompt\": \"\" where there is none)");
    } else {
        return fail_keys(row, where);
    }
    return CUDPO_OK;
}

/* Messages are told apart from strings before the form is judged, so that their users learn what to do. */
static cudpo_status refuse_messages(const row_fields *f, const char *where)
{
    const json *const values[] = {f->prompt, f->chosen, f->rejected, f->completion};
    bool found = f->messages != NULL && f->chosen == NULL && f->completion == NULL;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        found = found || (values[i] != NULL && json_type(values[i]) == JSON_ARRAY);
    if (!found) return CUDPO_OK;
    return cudpo_fail(
        CUDPO_EDATA, where,
        "conversational rows (lists of messages) are not supported yet: render them to "
        "strings with the model's chat template first, prompt with "
        "tokenizer.apply_chat_template(messages, tokenize=False, "
        "add_generation_prompt=True), and give prompt, chosen and rejected as strings");
}

static cudpo_status get_string(const char **out, const json *value, const char *name,
                               const char *where)
{
    const json_kind kind = json_type(value);
    if (kind != JSON_STRING)
        return cudpo_fail(CUDPO_EDATA, where, "%s must be a string, not %s", name,
                          json_kind_name(kind));
    *out = json_string(value);
    return CUDPO_OK;
}

/* Cut the prompt off both texts, as TRL's extract_prompt does: it is what they have in common, counted in code
 * points, less a space at its end, so that the completions begin with it.  Where one text begins with the whole
 * other, the last character in common stays with the completions.
 * TRL looks at the last character of `chosen` where not even the first is shared, and stops at an empty text; here
 * both have an empty prompt. */
static cudpo_status extract_prompt(row_reader *r, preference_row *row)
{
    const char *a = row->chosen, *b = row->rejected;
    size_t i = 0;
    while (a[i] != '\0' && a[i] == b[i])
        i++;
    const bool prefix = a[i] == '\0' || b[i] == '\0';
    if (prefix && i > 0) i--;
    /* A difference inside a character begins where the character does; so does its last byte. */
    while (i > 0 && ((unsigned char)a[i] & 0xc0) == 0x80)
        i--;
    if (!prefix && i > 0 && a[i - 1] == ' ') i--;
    buffer_clear(&r->prompt);
    CUDPO_TRY(buffer_append(&r->prompt, a, i));
    row->prompt = r->prompt.data;
    row->chosen = a + i;
    row->rejected = b + i;
    return CUDPO_OK;
}

static cudpo_status read_fields(row_reader *r, preference_row *row, const row_fields *f)
{
    const char *where = r->where;
    if (f->prompt != NULL) CUDPO_TRY(get_string(&row->prompt, f->prompt, "prompt", where));
    if (r->form == FORM_PAIR || r->form == FORM_IMPLICIT) {
        row->kind = ROW_PAIR;
        CUDPO_TRY(get_string(&row->chosen, f->chosen, "chosen", where));
        CUDPO_TRY(get_string(&row->rejected, f->rejected, "rejected", where));
        return r->form == FORM_IMPLICIT ? extract_prompt(r, row) : CUDPO_OK;
    }
    row->kind = ROW_LABEL;
    CUDPO_TRY(get_string(&row->chosen, f->completion, "completion", where));
    if (r->form == FORM_COMPLETION) return CUDPO_OK;
    if (json_type(f->label) != JSON_BOOL)
        return cudpo_fail(CUDPO_EDATA, where, "label must be true or false, not %s",
                          json_kind_name(json_type(f->label)));
    row->labelled = true;
    row->label = json_bool(f->label);
    return CUDPO_OK;
}

/* True for a line that is nothing but "{": how pretty-printed JSON begins. */
static bool opens_object_only(const char *text, size_t n)
{
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t' || text[n - 1] == '\r'))
        n--;
    return n == 1 && text[0] == '{';
}

static cudpo_status next_text(row_reader *r, const char **text, size_t *n, int64_t *line,
                              bool *done)
{
    json_free(r->tree);
    r->tree = NULL;
    CUDPO_TRY(row_splitter_next(r->splitter, text, n, line, done));
    if (*done && r->rows == 0) return cudpo_fail(CUDPO_EDATA, r->path, "holds no row");
    return CUDPO_OK;
}

cudpo_status row_reader_skip(row_reader *r, bool *done)
{
    const char *text = NULL;
    size_t n = 0;
    int64_t line = 0;
    CUDPO_REQUIRE(r->rows > 0);
    CUDPO_TRY(next_text(r, &text, &n, &line, done));
    if (*done) return CUDPO_OK;
    r->rows++;
    r->bytes += (int64_t)n;
    return CUDPO_OK;
}

row_progress row_reader_progress(const row_reader *r)
{
    return (row_progress){r->rows, r->bytes, row_splitter_share(r->splitter)};
}

cudpo_status row_reader_next(row_reader *r, preference_row *row, bool *done)
{
    *row = (preference_row){.index = r->rows};
    const char *text = NULL;
    size_t n = 0;
    CUDPO_TRY(next_text(r, &text, &n, &row->line, done));
    if (*done) return CUDPO_OK;
    const int used = snprintf(r->where, r->where_size, "%s:%lld", r->path, (long long)row->line);
    if (row_splitter_array(r->splitter))
        snprintf(r->where + used, r->where_size - (size_t)used, ": row %lld",
                 (long long)r->rows + 1);
    if (opens_object_only(text, n))
        return cudpo_fail(CUDPO_EDATA, r->where,
                          "an object over several lines: give one object a line (jq -c . IN.json > "
                          "OUT.jsonl), or one array of objects");
    CUDPO_TRY(json_parse(&r->tree, text, n, r->where));
    if (json_type(r->tree) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, r->where,
                          "a row must be an object like {\"prompt\": ..., \"chosen\": ..., "
                          "\"rejected\": ...}, not %s",
                          json_kind_name(json_type(r->tree)));

    const row_fields fields = find_fields(r->tree);
    row_form form = FORM_NONE;
    CUDPO_TRY(refuse_messages(&fields, r->where));
    CUDPO_TRY(find_form(&form, &fields, r->tree, r->where));
    if (r->form == FORM_NONE) r->form = form;
    if (form != r->form)
        return cudpo_fail(CUDPO_EDATA, r->where,
                          "this row has %s, the first one %s: a file holds rows of one form",
                          form_names[form], form_names[r->form]);
    CUDPO_TRY(read_fields(r, row, &fields));
    r->rows++;
    r->bytes += (int64_t)n;
    return CUDPO_OK;
}
