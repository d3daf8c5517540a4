/* safetensors_header.c - the header trusts nothing: every number is checked against the file before a tensor is
 * visible, in the order of huggingface/safetensors' own checks (safetensors/src/tensor.rs, 0.8).
 *
 * The JSON is walked in place rather than parsed into a tree, because it may be 100 MB and because a tree of
 * doubles can't tell 1 from 1.0, which the format refuses. */
#include "model/safetensors_header.h"
#include "base/json_scan.h"
#include "base/json_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_DEPTH = 64 };

/* Every type of the format.  That the 4- and 6-bit ones must fill whole bytes is checked per tensor. */
static const struct element_type {
    const char *name;
    uint64_t bits;
    bool supported;
    dtype type;
} element_types[] = {
    {"F32", 32, true, DTYPE_F32}, {"BF16", 16, true, DTYPE_BF16},
    {"F16", 16, true, DTYPE_F16}, {"BOOL", 8, false, 0},
    {"U8", 8, false, 0},          {"I8", 8, false, 0},
    {"U16", 16, false, 0},        {"I16", 16, false, 0},
    {"U32", 32, false, 0},        {"I32", 32, false, 0},
    {"U64", 64, false, 0},        {"I64", 64, false, 0},
    {"F64", 64, false, 0},        {"C64", 64, false, 0},
    {"F8_E5M2", 8, false, 0},     {"F8_E4M3", 8, false, 0},
    {"F8_E8M0", 8, false, 0},     {"F8_E4M3FNUZ", 8, false, 0},
    {"F8_E5M2FNUZ", 8, false, 0}, {"F6_E2M3", 6, false, 0},
    {"F6_E3M2", 6, false, 0},     {"F4", 4, false, 0},
};

static const struct element_type *find_type(const char *name)
{
    for (size_t i = 0; i < sizeof element_types / sizeof element_types[0]; i++) {
        if (strcmp(element_types[i].name, name) == 0) return &element_types[i];
    }
    return NULL;
}

cudpo_status safetensors_bad(const safetensors *st, const char *tensor_name, const char *fmt, ...)
{
    char where[700], reason[300];
    snprintf(where, sizeof where, tensor_name == NULL ? "%.500s" : "%.500s: %.120s", st->path,
             tensor_name);
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason, sizeof reason, fmt, args);
    va_end(args);
    return cudpo_fail(CUDPO_EDATA, where, "%s", reason);
}

/* A non-negative integer without sign, fraction or exponent, within 64 bits. */
static bool parse_count(char **p, uint64_t *out)
{
    const char *at = *p;
    uint64_t value = 0;
    if (*at < '0' || *at > '9') return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        const uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10) return false;
        value = 10 * value + digit;
    }
    if (strchr(" \t\r\n,]}", *at) == NULL) return false;
    *out = value;
    *p += at - *p;
    return true;
}

/* A list of at most `max` counts at *p; *n is how many there are. */
static cudpo_status parse_counts(const safetensors *st, const char *name, const char *field,
                                 char **p, uint64_t *out, int max, int *n)
{
    if (**p != '[') return safetensors_bad(st, name, "\"%s\" must be a list", field);
    *n = 0;
    *p = json_text_open(*p);
    while (json_text_next(p)) {
        if (*n == max)
            return safetensors_bad(st, name, "\"%s\" has more than %d numbers", field, max);
        if (!parse_count(p, &out[*n]))
            return safetensors_bad(st, name, "\"%s\" must hold integers of at least 0", field);
        ++*n;
    }
    return CUDPO_OK;
}

/* The description of one tensor, at *p. */
static cudpo_status parse_tensor(const safetensors *st, safetensors_entry *e, char **p)
{
    enum { HAS_TYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4 };
    uint64_t shape[SAFETENSORS_MAX_RANK], offsets[2];
    int seen = 0, pairs = 0;
    if (**p != '{') return safetensors_bad(st, e->name, "must be an object");
    *p = json_text_open(*p);
    while (json_text_next(p)) {
        char *key = NULL;
        *p = json_text_value(json_text_string(*p, &key));
        int field = 0;
        if (strcmp(key, "dtype") == 0) {
            field = HAS_TYPE;
            if (**p != '"') return safetensors_bad(st, e->name, "\"dtype\" must be a string");
            char *type_name = NULL;
            *p = json_text_string(*p, &type_name);
            const struct element_type *type = find_type(type_name);
            if (type == NULL)
                return safetensors_bad(st, e->name, "unknown dtype \"%.40s\"", type_name);
            e->type_name = type->name;
            e->supported = type->supported;
            e->type = type->type;
        } else if (strcmp(key, "shape") == 0) {
            field = HAS_SHAPE;
            CUDPO_TRY(parse_counts(st, e->name, key, p, shape, SAFETENSORS_MAX_RANK, &e->rank));
        } else if (strcmp(key, "data_offsets") == 0) {
            field = HAS_OFFSETS;
            CUDPO_TRY(parse_counts(st, e->name, key, p, offsets, 2, &pairs));
            if (pairs != 2)
                return safetensors_bad(st, e->name, "\"data_offsets\" must be two numbers");
        } else {
            *p = json_text_skip(*p); /* the crate lets other fields pass */
        }
        if ((seen & field) != 0) return safetensors_bad(st, e->name, "\"%s\" stands twice", key);
        seen |= field;
    }
    if (seen != (HAS_TYPE | HAS_SHAPE | HAS_OFFSETS))
        return safetensors_bad(st, e->name, "needs \"dtype\", \"shape\" and \"data_offsets\"");
    for (int i = 0; i < e->rank; i++) {
        if (shape[i] > INT64_MAX)
            return safetensors_bad(st, e->name, "a dimension overflows 63 bits");
        e->shape[i] = (int64_t)shape[i];
    }
    e->begin = offsets[0];
    e->end = offsets[1];
    return CUDPO_OK;
}

static int by_key(const void *pa, const void *pb)
{
    char *const *a = pa, *const *b = pb;
    return strcmp(*a, *b);
}

static cudpo_status parse_metadata(safetensors *st, char **p)
{
    if (strncmp(*p, "null", 4) == 0) { /* as good as absent */
        *p += 4;
        return CUDPO_OK;
    }
    if (**p != '{') return safetensors_bad(st, "__metadata__", "must be an object of strings");
    size_t count = 0;
    for (char *q = json_text_open(*p); json_text_next(&q); count++)
        q = json_text_skip(json_text_value(json_text_skip(q)));
    st->metadata = calloc(2 * count + 1, sizeof *st->metadata);
    if (st->metadata == NULL) return cudpo_fail(CUDPO_ENOMEM, st->path, "%zu metadata", count);
    *p = json_text_open(*p);
    while (json_text_next(p)) {
        char **pair = &st->metadata[2 * st->metadata_count++];
        *p = json_text_value(json_text_string(*p, &pair[0]));
        if (**p != '"')
            return safetensors_bad(st, "__metadata__", "\"%.60s\" must be a string", pair[0]);
        *p = json_text_string(*p, &pair[1]);
    }
    qsort(st->metadata, count, 2 * sizeof *st->metadata, by_key);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(st->metadata[2 * i - 2], st->metadata[2 * i]) == 0)
            return safetensors_bad(st, "__metadata__", "\"%.60s\" stands twice",
                                   st->metadata[2 * i]);
    }
    return CUDPO_OK;
}

/* Fill entries and metadata, the entries in the header's order. */
static cudpo_status parse_header(safetensors *st)
{
    char *p = json_text_space(st->header);
    if (*p != '{') return safetensors_bad(st, NULL, "the header must be an object");
    size_t members = 0;
    for (char *q = json_text_open(p); json_text_next(&q); members++)
        q = json_text_skip(json_text_value(json_text_skip(q)));
    st->entries = calloc(members + 1, sizeof *st->entries);
    st->by_name = calloc(members + 1, sizeof(safetensors_entry *));
    if (st->entries == NULL || st->by_name == NULL)
        return cudpo_fail(CUDPO_ENOMEM, st->path, "%zu tensors", members);
    bool metadata = false;
    p = json_text_open(p);
    while (json_text_next(&p)) {
        char *name = NULL;
        p = json_text_value(json_text_string(p, &name));
        if (strcmp(name, "__metadata__") == 0) {
            if (metadata) return safetensors_bad(st, name, "stands twice");
            metadata = true;
            CUDPO_TRY(parse_metadata(st, &p));
        } else {
            safetensors_entry *e = &st->entries[st->count++];
            e->name = name;
            CUDPO_TRY(parse_tensor(st, e, &p));
        }
    }
    return CUDPO_OK;
}

static int by_offset(const void *pa, const void *pb)
{
    const safetensors_entry *a = pa, *b = pb;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) return a->end < b->end ? -1 : 1;
    return strcmp(a->name, b->name); /* tensors of no bytes share an offset */
}

static int by_name(const void *pa, const void *pb)
{
    const safetensors_entry *const *a = pa, *const *b = pb;
    return strcmp((*a)->name, (*b)->name);
}

/* Sorting finds equal names in O(n log n) whatever the names; a hash table would be open to chosen collisions. */
static cudpo_status check_names(safetensors *st)
{
    qsort(st->entries, (size_t)st->count, sizeof *st->entries, by_offset);
    for (int64_t i = 0; i < st->count; i++)
        st->by_name[i] = &st->entries[i];
    qsort(st->by_name, (size_t)st->count, sizeof(safetensors_entry *), by_name);
    for (int64_t i = 1; i < st->count; i++) {
        if (strcmp(st->by_name[i - 1]->name, st->by_name[i]->name) == 0)
            return safetensors_bad(st, st->by_name[i]->name, "duplicate: the name stands twice");
    }
    return CUDPO_OK;
}

static bool multiply(uint64_t *product, uint64_t factor)
{
    if (factor != 0 && *product > UINT64_MAX / factor) return false;
    *product *= factor;
    return true;
}

/* Bytes of a tensor by its shape and type; the products of untrusted numbers are all here. */
static cudpo_status tensor_size(const safetensors *st, const safetensors_entry *e, uint64_t *bytes)
{
    uint64_t size = 1;
    for (int i = 0; i < e->rank; i++) {
        if (!multiply(&size, (uint64_t)e->shape[i]))
            return safetensors_bad(st, e->name, "the product of its shape overflows");
    }
    if (!multiply(&size, find_type(e->type_name)->bits))
        return safetensors_bad(st, e->name, "its size in bits overflows");
    if (size % 8 != 0)
        return safetensors_bad(st, e->name, "its %s elements do not fill bytes", e->type_name);
    *bytes = size / 8;
    return CUDPO_OK;
}

/* The tensors follow each other without holes or overlaps from 0 to the end of the file.  Then offsets become
 * those of the file. */
static cudpo_status check_layout(safetensors *st, uint64_t data_begin)
{
    uint64_t at = 0;
    for (int64_t i = 0; i < st->count; i++) {
        safetensors_entry *e = &st->entries[i];
        if (e->begin != at || e->end < e->begin)
            return safetensors_bad(
                st, e->name, "invalid offsets %llu to %llu: the tensor before it ends at %llu",
                (unsigned long long)e->begin, (unsigned long long)e->end, (unsigned long long)at);
        uint64_t bytes = 0;
        CUDPO_TRY(tensor_size(st, e, &bytes));
        if (e->end - e->begin != bytes)
            return safetensors_bad(st, e->name, "its offsets span %llu bytes, its shape needs %llu",
                                   (unsigned long long)(e->end - e->begin),
                                   (unsigned long long)bytes);
        at = e->end;
    }
    if (at != st->size - data_begin)
        return safetensors_bad(st, NULL, "the tensors take %llu bytes, the file has %llu: %s",
                               (unsigned long long)at, (unsigned long long)(st->size - data_begin),
                               at > st->size - data_begin ? "truncated" : "trailing bytes");
    for (int64_t i = 0; i < st->count; i++) {
        st->entries[i].begin += data_begin;
        st->entries[i].end += data_begin;
    }
    return CUDPO_OK;
}

cudpo_status safetensors_parse(safetensors *st, size_t n, uint64_t data_begin)
{
    size_t offset = 0;
    const char *reason = NULL;
    if (!json_scan(st->header, n, HEADER_DEPTH, &offset, &reason))
        return safetensors_bad(st, NULL, "the header is not valid JSON at byte %zu: %s", offset,
                               reason);
    CUDPO_TRY(parse_header(st));
    CUDPO_TRY(check_names(st));
    return check_layout(st, data_begin);
}
