/* safetensors_header.h - what the two halves of the reader share: header checks and file access. */
#ifndef CUDPO_MODEL_SAFETENSORS_HEADER_H
#define CUDPO_MODEL_SAFETENSORS_HEADER_H

#include "model/safetensors.h"

struct safetensors {
    char *path;
    int fd;
    uint64_t size; /* of the file */
    char *header;  /* NUL behind it; strings are decoded in place: names point into it */
    safetensors_entry *entries;  /* in file order */
    safetensors_entry **by_name; /* sorted */
    int64_t count;
    char **metadata; /* key, value, key, value, ... */
    int64_t metadata_count;
};

/** Fill entries, by_name and metadata from the header's `n` bytes; data begins at byte data_begin of the file.
 *  Returns: CUDPO_OK; CUDPO_EDATA if any claim of it is wrong; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status safetensors_parse(safetensors *st, size_t n, uint64_t data_begin);

/* CUDPO_EDATA as "file: tensor: reason"; without a tensor where its name is NULL. */
cudpo_status safetensors_bad(const safetensors *st, const char *tensor_name, const char *fmt, ...)
    CUDPO_PRINTF(3, 4);

#endif /* CUDPO_MODEL_SAFETENSORS_HEADER_H */
