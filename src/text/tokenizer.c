/* tokenizer.c - the path of a text: added tokens, normalizer, added tokens again, words, BPE, post-processor. */
#include "text/tokenizer.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"
#include "text/word_cache.h"

#include <stdlib.h>
#include <string.h>

/* What one call of tokenizer_encode() works with, so that the tokenizer itself stays as it is. */
typedef struct encoder {
    const tokenizer *t;
    token_list *out;
    regex_scratch match;
    bpe_scratch merge;
    word_cache cache;
    buffer section, spare_section; /* between two added tokens, normalised */
    pieces words, spare_words;
} encoder;

static cudpo_status encode_part(encoder *e, const char *word, size_t n)
{
    word_entry *entry = word_cache_find(&e->cache, word, n);
    if (entry != NULL && entry->length > 0) {
        for (int64_t i = 0; i < entry->count; i++)
            CUDPO_TRY(token_list_add(e->out, e->out->ids[entry->ids + i]));
        return CUDPO_OK;
    }
    const int64_t before = e->out->n;
    CUDPO_TRY(bpe_encode(&e->t->model, &e->merge, e->out, word, n));
    if (entry != NULL) word_cache_put(&e->cache, entry, word, n, before, e->out->n - before);
    return CUDPO_OK;
}

/* A "word" may be a whole text, where no pre-tokenizer cuts it: its parts repeat, the whole does not. */
static cudpo_status encode_word(encoder *e, const char *word, size_t n)
{
    if (n <= WORD_CACHE_MAX_BYTES) return encode_part(e, word, n);
    while (n > 0) {
        const size_t part = bpe_cut(&e->t->model, word, n);
        CUDPO_TRY(encode_part(e, word, part));
        word += part;
        n -= part;
    }
    return CUDPO_OK;
}

/* A stretch without added tokens. */
static cudpo_status encode_plain(encoder *e, const char *text, size_t n, bool at_origin)
{
    if (n == 0) return CUDPO_OK;
    pieces_clear(&e->words);
    CUDPO_TRY(buffer_append(&e->words.text, text, n));
    CUDPO_TRY(pieces_add(&e->words, 0, n, at_origin));
    CUDPO_TRY(pre_tokenizer_run(&e->t->pre, &e->words, &e->spare_words, &e->match));
    for (int64_t i = 0; i < e->words.n; i++) {
        const piece *word = &e->words.list[i];
        CUDPO_TRY(encode_word(e, e->words.text.data + word->begin, word->end - word->begin));
    }
    return CUDPO_OK;
}

/* What stands between two tokens that are looked for in the raw text. */
static cudpo_status encode_section(encoder *e, const char *text, size_t n, bool at_origin)
{
    if (n == 0) return CUDPO_OK;
    buffer_clear(&e->section);
    CUDPO_TRY(buffer_append(&e->section, text, n));
    CUDPO_TRY(normalizer_run(&e->t->normal, &e->section, &e->spare_section, &e->match));
    token_walk walk = token_walk_over(&e->t->added, &e->t->added.normalized, &e->match,
                                      e->section.data, e->section.size);
    for (;;) {
        bool more;
        CUDPO_TRY(token_walk_next(&walk, &more));
        if (!more) return CUDPO_OK;
        CUDPO_TRY(walk.id >= 0 ? token_list_add(e->out, walk.id)
                               : encode_plain(e, e->section.data + walk.begin,
                                              walk.end - walk.begin, at_origin && walk.begin == 0));
    }
}

static cudpo_status encode_text(encoder *e, const char *text, size_t n)
{
    token_walk walk = token_walk_over(&e->t->added, &e->t->added.raw, &e->match, text, n);
    for (;;) {
        bool more;
        CUDPO_TRY(token_walk_next(&walk, &more));
        if (!more) return CUDPO_OK;
        CUDPO_TRY(walk.id >= 0 ? token_list_add(e->out, walk.id)
                               : encode_section(e, text + walk.begin, walk.end - walk.begin,
                                                walk.begin == 0));
    }
}

static cudpo_status encode_all(encoder *e, const char *text, size_t n, bool add_special)
{
    if (!add_special) return encode_text(e, text, n);
    for (int64_t i = 0; i < e->t->post.n; i++) {
        const int32_t id = e->t->post.ids[i];
        CUDPO_TRY(id == POST_TEXT ? encode_text(e, text, n) : token_list_add(e->out, id));
    }
    return CUDPO_OK;
}

cudpo_status tokenizer_encode(const tokenizer *t, token_list *out, const char *text, size_t n,
                              bool add_special)
{
    size_t bad;
    if (!utf8_valid(text, n, &bad))
        return cudpo_fail(CUDPO_EDATA, "text", "invalid UTF-8 at byte %zu of %zu", bad, n);
    encoder e = {.t = t, .out = out, .match = {.bytes = n}};
    const int64_t before = out->n;
    const cudpo_status status = encode_all(&e, text, n, add_special);
    if (status != CUDPO_OK) out->n = before;
    pieces_free(&e.spare_words);
    pieces_free(&e.words);
    buffer_free(&e.spare_section);
    buffer_free(&e.section);
    word_cache_free(&e.cache);
    bpe_scratch_free(&e.merge);
    regex_scratch_free(&e.match);
    return status;
}

/* The texts of ids as pieces. */
static cudpo_status collect(const tokenizer *t, pieces *tokens, const int32_t *ids, int64_t n,
                            bool skip_special)
{
    for (int64_t i = 0; i < n; i++) {
        size_t length;
        const char *text = vocab_text(&t->tokens, ids[i], &length);
        if (text == NULL || (skip_special && t->added.is_special[ids[i]])) continue;
        const size_t begin = tokens->text.size;
        CUDPO_TRY(buffer_append(&tokens->text, text, length));
        CUDPO_TRY(pieces_add(tokens, begin, begin + length, false));
    }
    return CUDPO_OK;
}

static cudpo_status join(buffer *out, const pieces *parts)
{
    size_t total = 0;
    for (int64_t i = 0; i < parts->n; i++)
        total += parts->list[i].end - parts->list[i].begin;
    CUDPO_TRY(buffer_reserve(out, total)); /* so that all is appended, or nothing */
    for (int64_t i = 0; i < parts->n; i++) {
        const piece *p = &parts->list[i];
        CUDPO_TRY(buffer_append(out, parts->text.data + p->begin, p->end - p->begin));
    }
    return CUDPO_OK;
}

cudpo_status tokenizer_decode(const tokenizer *t, buffer *out, const int32_t *ids, int64_t n,
                              bool skip_special)
{
    pieces tokens = {0}, spare = {0};
    cudpo_status status = collect(t, &tokens, ids, n, skip_special);
    regex_scratch match = {.bytes = tokens.text.size};
    if (status == CUDPO_OK && tokens.n > 0)
        status = decoder_run(&t->decode, &tokens, &spare, &match);
    if (status == CUDPO_OK) status = join(out, &tokens);
    regex_scratch_free(&match);
    pieces_free(&spare);
    pieces_free(&tokens);
    return status;
}

int64_t tokenizer_size(const tokenizer *t)
{
    return t->tokens.size;
}

int32_t tokenizer_bos(const tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_pad(const tokenizer *t)
{
    return t->pad;
}

const char *tokenizer_eos_text(const tokenizer *t)
{
    size_t n;
    return vocab_text(&t->tokens, t->eos, &n);
}

hash128 tokenizer_fingerprint(const tokenizer *t)
{
    return t->fingerprint;
}

void token_list_free(token_list *list)
{
    free(list->ids);
    *list = (token_list){0};
}
