/* dataset.h - a preference file as token ids, in TRL's tokenisation, cached on disk and mapped into memory. */
#ifndef CUDPO_DATA_DATASET_H
#define CUDPO_DATA_DATASET_H

#include "base/hash.h"
#include "cudpo/status.h"
#include "data/row.h"
#include "text/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

enum { MAX_COMPLETIONS = 2 };

/* One tokenised example: a prompt and one or two completions, already truncated.  Views into the dataset. */
typedef struct example {
    int64_t row; /* 0-based row of the file that it comes from */
    const int32_t *prompt;
    int32_t prompt_length;
    int32_t
        completions; /* 2: chosen, rejected.  1: the completion of a labelled or supervised row */
    const int32_t *completion[MAX_COMPLETIONS];
    int32_t completion_length[MAX_COMPLETIONS];
    bool label; /* of a labelled row: desirable */
} example;

/* How rows become examples; part of the cache's key. */
typedef struct dataset_options {
    row_kind
        kind; /* what the loss takes; a file of the other kind is an error that names the losses for it,
                            * except that pairs serve as labelled rows: all chosen first, then all rejected, as TRL */
    bool chosen_only;      /* drop rejected: supervised training */
    int64_t max_length;    /* of prompt + completion, in tokens; 0: no limit */
    bool keep_end;         /* truncation_mode "keep_end" instead of "keep_start" */
    const char *cache_dir; /* folder for caches; NULL: none, a temporary file serves */
} dataset_options;

typedef struct dataset dataset;

/** Tokenise a file, or map the cache of an earlier run on the same bytes, tokenizer and options.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT, CUDPO_EDATA ("path:line: reason"; also where no example is left);
 *           CUDPO_EWRITE, CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status dataset_open(dataset **out, const char *path, const tokenizer *t,
                                         const dataset_options *options);
void dataset_close(dataset *d);

int64_t dataset_count(const dataset *d);
example dataset_get(const dataset *d, int64_t i); /* i in 0 .. count-1 */
int64_t dataset_dropped(const dataset *d); /* rows left out because the prompt fills max_length */
int64_t dataset_longest(
    const dataset *d); /* tokens of the largest group: prompt + all completions */
hash128 dataset_fingerprint(const dataset *d); /* of all ids in order: keys the reference cache */

#endif /* CUDPO_DATA_DATASET_H */
