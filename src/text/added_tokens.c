/* added_tokens.c - the leftmost and there the longest match, as the Aho-Corasick automaton of the original. */
#include "text/added_tokens.h"
#include "text/load.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* \w of Rust's regex crate (UTS 18). */
static const char WORD_CHAR[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]";

cudpo_status added_tokens_measure(int64_t *count, int64_t *size, const json *list,
                                  const char *where)
{
    *count = *size = 0;
    for (const json *token = json_first(list); token != NULL; token = json_next(token)) {
        if (json_type(token) != JSON_OBJECT)
            return cudpo_fail(CUDPO_EDATA, where, "entry %lld must be an object, not %s",
                              (long long)*count, json_kind_name(json_type(token)));
        int64_t id;
        CUDPO_TRY(load_integer(&id, token, "id", 0, INT32_MAX - 1, where));
        if (id >= *size) *size = id + 1;
        ++*count;
    }
    return CUDPO_OK;
}

static cudpo_status add(token_set *set, const added_token *token, const char *where)
{
    if (set->n == set->capacity) {
        const int64_t capacity = set->capacity < 16 ? 16 : 2 * set->capacity;
        added_token *list = realloc(set->list, (size_t)capacity * sizeof *list);
        if (list == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
        set->list = list;
        set->capacity = capacity;
    }
    set->list[set->n] = *token;
    char *text = malloc(token->n + 1);
    if (text == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
    memcpy(text, token->text, token->n);
    text[token->n] = '\0';
    set->list[set->n++].text = text;
    set->any_single_word |= token->single_word;
    return CUDPO_OK;
}

/* The id of a token is that of the model's vocabulary, or the one given. */
static cudpo_status enter(vocab *tokens, const char *content, int64_t id, const char *where)
{
    const size_t n = strlen(content);
    const int32_t known = vocab_find(tokens, content, n);
    if (known >= 0 && known != id)
        return cudpo_fail(CUDPO_EDATA, where, "\"%.60s\" has id %lld here and %d in the vocabulary",
                          content, (long long)id, known);
    if (known >= 0) return CUDPO_OK;
    size_t taken_length;
    const char *taken = vocab_text(tokens, (int32_t)id, &taken_length);
    if (taken != NULL)
        return cudpo_fail(CUDPO_EDATA, where, "\"%.60s\" and \"%.60s\" have the same id %lld",
                          content, taken, (long long)id);
    tokens->n++;
    return vocab_add(tokens, (int32_t)id, content, n);
}

static cudpo_status load_one_token(added_tokens *out, const json *entry, vocab *tokens,
                                   const normalizer *z, buffer text[2], const char *where)
{
    const json *content_value;
    int64_t id;
    bool special, normalized;
    added_token token = {0};
    CUDPO_TRY(load_member(&content_value, entry, "content", JSON_STRING, where));
    CUDPO_TRY(load_integer(&id, entry, "id", 0, tokens->size - 1, where));
    CUDPO_TRY(load_bool(&special, entry, "special", false, where));
    CUDPO_TRY(load_bool(&normalized, entry, "normalized", !special, where));
    CUDPO_TRY(load_bool(&token.single_word, entry, "single_word", false, where));
    CUDPO_TRY(load_bool(&token.lstrip, entry, "lstrip", false, where));
    CUDPO_TRY(load_bool(&token.rstrip, entry, "rstrip", false, where));
    const char *content = json_string(content_value);
    const size_t n = strlen(content);
    if (n == 0 || n > ADDED_TOKEN_MAX_BYTES)
        return cudpo_fail(CUDPO_EDATA, where,
                          "id %lld has a text of %zu bytes; 1 to %d are possible", (long long)id, n,
                          ADDED_TOKEN_MAX_BYTES);
    CUDPO_TRY(enter(tokens, content, id, where));
    if (special) out->is_special[id] = 1;

    buffer_clear(&text[0]);
    CUDPO_TRY(buffer_append(&text[0], content, n));
    if (normalized) {
        regex_scratch scratch = {.bytes = n};
        const cudpo_status status = normalizer_run(z, &text[0], &text[1], &scratch);
        regex_scratch_free(&scratch);
        CUDPO_TRY(status);
    }
    token.text = text[0].data;
    token.n = text[0].size;
    token.id = (int32_t)id;
    if (token.n == 0) return CUDPO_OK; /* normalised away: it can't match */
    return add(normalized ? &out->normalized : &out->raw, &token, where);
}

static int compare(const void *a, const void *b)
{
    const added_token *x = a, *y = b;
    const int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order != 0 ? order : (x->n > y->n) - (x->n < y->n);
}

static cudpo_status sort(token_set *set, const char *where)
{
    if (set->n > 0) qsort(set->list, (size_t)set->n, sizeof *set->list, compare);
    for (int64_t i = 1; i < set->n; i++) {
        if (compare(&set->list[i - 1], &set->list[i]) == 0)
            return cudpo_fail(CUDPO_EDATA, where, "\"%.60s\" stands twice", set->list[i].text);
    }
    int64_t i = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (i < set->n && (unsigned char)set->list[i].text[0] < byte)
            i++;
        set->first[byte] = (int32_t)i;
    }
    return CUDPO_OK;
}

cudpo_status added_tokens_load(added_tokens *out, const json *list, vocab *tokens,
                               const normalizer *z, const char *where)
{
    out->is_special = calloc((size_t)tokens->size, 1);
    if (out->is_special == NULL) return cudpo_fail(CUDPO_ENOMEM, where, "no memory");
    buffer text[2] = {{0}, {0}};
    cudpo_status status = CUDPO_OK;
    for (const json *entry = list != NULL ? json_first(list) : NULL;
         entry != NULL && status == CUDPO_OK; entry = json_next(entry))
        status = load_one_token(out, entry, tokens, z, text, where);
    buffer_free(&text[0]);
    buffer_free(&text[1]);
    if (status == CUDPO_OK) status = sort(&out->raw, where);
    if (status == CUDPO_OK) status = sort(&out->normalized, where);
    if (status == CUDPO_OK && (out->raw.any_single_word || out->normalized.any_single_word))
        status = regex_compile(&out->word_char, WORD_CHAR, where);
    return status;
}

static void set_free(token_set *set)
{
    for (int64_t i = 0; i < set->n; i++)
        free(set->list[i].text);
    free(set->list);
}

void added_tokens_free(added_tokens *a)
{
    set_free(&a->raw);
    set_free(&a->normalized);
    free(a->is_special);
    regex_free(a->word_char);
    *a = (added_tokens){0};
}

/* The first of list[low .. high - 1] whose byte `depth` is not below `byte`; all are longer than `depth`. */
static int32_t lower_bound(const token_set *set, int32_t low, int32_t high, size_t depth, int byte)
{
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if ((unsigned char)set->list[middle].text[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token that begins at text[0], or NULL.  In sorted order, those that share the first bytes of the text
 * are neighbours, the shortest first. */
static const added_token *longest_at(const token_set *set, const char *text, size_t n)
{
    const added_token *best = NULL;
    int32_t low = set->first[(unsigned char)text[0]], high = set->first[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (set->list[low].n == depth) best = &set->list[low++];
        if (depth == n) break;
        const int byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

/* True where the character before (or behind) text[at] is one of a word. */
static cudpo_status touches_word(bool *yes, token_walk *walk, size_t at, bool before)
{
    *yes = false;
    if (at == (before ? 0 : walk->n)) return CUDPO_OK;
    size_t length;
    if (before) {
        (void)utf8_decode_before(walk->text + at, &length);
        at -= length;
    } else {
        (void)utf8_decode(walk->text + at, &length);
    }
    regex_walk one =
        regex_walk_over(walk->added->word_char, walk->scratch, walk->text + at, length);
    return regex_next(&one, yes);
}

token_walk token_walk_over(const added_tokens *added, const token_set *set, regex_scratch *scratch,
                           const char *text, size_t n)
{
    return (token_walk){.added = added, .set = set, .scratch = scratch, .text = text, .n = n};
}

/* The next token that stands at a place where it counts; NULL: none. */
static cudpo_status find(token_walk *walk, const added_token **out, size_t *begin)
{
    *out = NULL;
    while (walk->at < walk->n) {
        const unsigned char byte = (unsigned char)walk->text[walk->at];
        const added_token *token = NULL;
        if (walk->set->first[byte] < walk->set->first[byte + 1])
            token = longest_at(walk->set, walk->text + walk->at, walk->n - walk->at);
        if (token == NULL) {
            walk->at++;
            continue;
        }
        const size_t end = walk->at + token->n;
        bool left = false, right = false;
        if (token->single_word) {
            CUDPO_TRY(touches_word(&left, walk, walk->at, true));
            CUDPO_TRY(touches_word(&right, walk, end, false));
        }
        *begin = walk->at;
        walk->at = end;
        if (left || right) continue;
        *out = token;
        return CUDPO_OK;
    }
    return CUDPO_OK;
}

/* Moves a match's edges over the spaces that it takes in. */
static void strip(const token_walk *walk, const added_token *token, size_t *begin, size_t *end)
{
    size_t length;
    while (token->lstrip && *begin > 0 &&
           unicode_is_space(utf8_decode_before(walk->text + *begin, &length)))
        *begin -= length;
    if (*begin < walk->done) *begin = walk->done;
    while (token->rstrip && *end < walk->n &&
           unicode_is_space(utf8_decode(walk->text + *end, &length)))
        *end += length;
}

cudpo_status token_walk_next(token_walk *walk, bool *more)
{
    *more = true;
    if (!walk->held) {
        const added_token *token;
        size_t begin = walk->n, end;
        CUDPO_TRY(find(walk, &token, &begin));
        if (token == NULL) {
            *more = walk->done != walk->n;
            walk->begin = walk->done;
            walk->end = walk->done = walk->n;
            walk->id = -1;
            return CUDPO_OK;
        }
        end = begin + token->n;
        strip(walk, token, &begin, &end);
        walk->held_id = token->id;
        walk->held_end = end;
        if (walk->done < begin) { /* the plain part before it first */
            walk->held = true;
            walk->begin = walk->done;
            walk->end = walk->done = begin;
            walk->id = -1;
            return CUDPO_OK;
        }
    }
    walk->held = false;
    walk->begin = walk->done;
    walk->end = walk->done = walk->held_end;
    walk->id = walk->held_id;
    return CUDPO_OK;
}
