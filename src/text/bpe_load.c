/* bpe_load.c - the "model" object of tokenizer.json. */
#include "text/bpe.h"
#include "text/load.h"
#include "text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Merges stand as "a b" in older files, as ["a", "b"] since tokens may hold spaces. */
typedef struct merge_texts {
    const char *left, *right;
    size_t left_length, right_length;
} merge_texts;

static cudpo_status merge_parts(merge_texts *m, const json *merge, json_kind kind, int64_t rank,
                                const char *where)
{
    if (json_type(merge) != kind)
        return cudpo_fail(CUDPO_EDATA, where, "merge %lld is %s where others are %s",
                          (long long)rank, json_kind_name(json_type(merge)), json_kind_name(kind));
    if (kind == JSON_STRING) {
        m->left = json_string(merge);
        const char *space = strchr(m->left, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL)
            return cudpo_fail(CUDPO_EDATA, where, "merge %lld, \"%.60s\", is not two tokens",
                              (long long)rank, m->left);
        m->left_length = (size_t)(space - m->left);
        m->right = space + 1;
    } else {
        const json *left = json_first(merge), *right = left != NULL ? json_next(left) : NULL;
        if (right == NULL || json_next(right) != NULL || json_type(left) != JSON_STRING ||
            json_type(right) != JSON_STRING)
            return cudpo_fail(CUDPO_EDATA, where, "merge %lld is not a list of two strings",
                              (long long)rank);
        m->left = json_string(left);
        m->left_length = strlen(m->left);
        m->right = json_string(right);
    }
    m->right_length = strlen(m->right);
    return CUDPO_OK;
}

static cudpo_status unknown_part(const char *text, size_t n, int64_t rank, const char *where)
{
    return cudpo_fail(CUDPO_EDATA, where,
                      "merge %lld needs \"%.*s\", which is not in the vocabulary", (long long)rank,
                      (int)(n < 60 ? n : 60), text);
}

/* The ids of the two parts and of their joint. */
static cudpo_status merge_ids(bpe_merge *out, const merge_texts *m, const vocab *v, int64_t rank,
                              const char *where)
{
    out->rank = (int32_t)rank;
    out->left = vocab_find(v, m->left, m->left_length);
    if (out->left < 0) return unknown_part(m->left, m->left_length, rank, where);
    out->right = vocab_find(v, m->right, m->right_length);
    if (out->right < 0) return unknown_part(m->right, m->right_length, rank, where);
    /* Both are in the vocabulary, so that their lengths are bounded. */
    char joint[2 * VOCAB_MAX_TOKEN_BYTES];
    memcpy(joint, m->left, m->left_length);
    memcpy(joint + m->left_length, m->right, m->right_length);
    out->id = vocab_find(v, joint, m->left_length + m->right_length);
    if (out->id < 0) return unknown_part(joint, m->left_length + m->right_length, rank, where);
    return CUDPO_OK;
}

/* The characters that meet where a merge joins its parts. */
static void add_joint(bpe *b, const merge_texts *m)
{
    if (m->left_length == 0 || m->right_length == 0) return; /* no word has such a part */
    size_t length;
    const uint32_t left = utf8_decode_before(m->left + m->left_length, &length);
    const uint32_t right = utf8_decode(m->right, &length);
    uint64_t *joint = bpe_joint(b, left, right);
    *joint = (uint64_t)left << 32 | right;
}

static cudpo_status load_merges(bpe *b, const json *merges, const char *where)
{
    const int64_t count = json_count(merges);
    if (count > BPE_MAX_MERGES)
        return cudpo_fail(CUDPO_EDATA, where, "%lld merges; the limit is %d", (long long)count,
                          BPE_MAX_MERGES);
    b->slot_count = 16;
    while (b->slot_count < 2 * (size_t)count)
        b->slot_count *= 2;
    b->merges = malloc(b->slot_count * sizeof *b->merges);
    b->joint_count = b->slot_count;
    b->joints = malloc(b->joint_count * sizeof *b->joints);
    if (b->merges == NULL || b->joints == NULL)
        return cudpo_fail(CUDPO_ENOMEM, where, "no memory for %lld merges", (long long)count);
    memset(b->merges, 0xff, b->slot_count * sizeof *b->merges);
    memset(b->joints, 0xff, b->joint_count * sizeof *b->joints);
    const json *first = json_first(merges);
    if (first == NULL) return CUDPO_OK;
    const json_kind kind = json_type(first);
    if (kind != JSON_STRING && kind != JSON_ARRAY)
        return cudpo_fail(CUDPO_EDATA, where, "merge 0 must be a string or a list, not %s",
                          json_kind_name(kind));

    int64_t rank = 0;
    for (const json *merge = first; merge != NULL; merge = json_next(merge)) {
        /* The first line of a merges.txt, as the original skips it. */
        if (kind == JSON_STRING && json_type(merge) == JSON_STRING &&
            strncmp(json_string(merge), "#version", 8) == 0)
            continue;
        merge_texts parts;
        bpe_merge entry;
        CUDPO_TRY(merge_parts(&parts, merge, kind, rank, where));
        CUDPO_TRY(merge_ids(&entry, &parts, b->tokens, rank, where));
        size_t slot = bpe_merge_slot(entry.left, entry.right) & (b->slot_count - 1);
        while (b->merges[slot].left >= 0 &&
               (b->merges[slot].left != entry.left || b->merges[slot].right != entry.right))
            slot = (slot + 1) & (b->slot_count - 1);
        b->merges[slot] = entry; /* of two alike the last counts, as in the original */
        add_joint(b, &parts);
        rank++;
    }
    return CUDPO_OK;
}

/* Options of the original that change ids and that no decoder-only model uses. */
static cudpo_status refuse_options(const json *model, const char *where)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const char *text;
        CUDPO_TRY(load_string(&text, model, affixes[i], "", where));
        if (text[0] != '\0')
            return cudpo_fail(CUDPO_EDATA, where, "%s \"%.20s\" is not supported", affixes[i],
                              text);
    }
    const json *dropout = json_get(model, "dropout");
    if (dropout != NULL && json_type(dropout) != JSON_NULL &&
        !(json_type(dropout) == JSON_NUMBER && json_number(dropout) == 0))
        return cudpo_fail(CUDPO_EDATA, where, "dropout is not supported: ids would be random");
    return CUDPO_OK;
}

static void find_chars(bpe *b)
{
    for (uint32_t c = 0; c < BPE_DIRECT; c++) {
        char text[UTF8_MAX];
        b->direct[c] = vocab_find(b->tokens, text, utf8_encode(text, c));
    }
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        const int n = snprintf(text, sizeof text, "<0x%02X>", byte);
        b->byte_ids[byte] = vocab_find(b->tokens, text, (size_t)n);
    }
}

cudpo_status bpe_load(bpe *b, const json *model, const vocab *tokens, const char *where)
{
    b->tokens = tokens;
    CUDPO_TRY(refuse_options(model, where));
    CUDPO_TRY(load_bool(&b->byte_fallback, model, "byte_fallback", false, where));
    CUDPO_TRY(load_bool(&b->fuse_unk, model, "fuse_unk", false, where));
    CUDPO_TRY(load_bool(&b->ignore_merges, model, "ignore_merges", false, where));
    const char *unk;
    CUDPO_TRY(load_string(&unk, model, "unk_token", NULL, where));
    b->unk = unk != NULL ? vocab_find(tokens, unk, strlen(unk)) : -1;
    b->unk_missing = unk != NULL && b->unk < 0;
    find_chars(b);
    const json *merges;
    CUDPO_TRY(load_member(&merges, model, "merges", JSON_ARRAY, where));
    return load_merges(b, merges, where);
}

void bpe_free(bpe *b)
{
    free(b->joints);
    free(b->merges);
    *b = (bpe){0};
}
