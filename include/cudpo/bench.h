/* bench.h - how fast each op is on this machine, against what the machine can do; and what changed between two runs. */
#ifndef CUDPO_BENCH_H
#define CUDPO_BENCH_H

#include "cudpo/ranks.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is measured.  {0} but for seconds, groups and length is everything. */
typedef struct cudpo_bench_options {
    const char **ops; /* [op_count] names; none: all */
    int64_t op_count;
    const char **
        shapes; /* [shape_count] models, as `cudpo bench step` takes them; none: those that are known by name on
                            a GPU, the smallest of them on a CPU */
    int64_t shape_count;
    const char *device; /* "auto", "cpu", "cuda" */
    const char *json;   /* file that is written again behind each row; NULL: none */
    const char
        *calibration;    /* file for `cudpo plan`, of the rates that were measured; NULL: none */
    const char *command; /* line that this was started with, for the JSON file; NULL: not known */
    double seconds;      /* of timed calls, of each op, about */
    int64_t groups;      /* of a pack; 0: 11 on a GPU, 1 on a CPU */
    int64_t length;      /* tokens of each prompt and completion */
    bool no_baseline, no_check;
    const cudpo_ranks *ranks; /* which of several this process is; NULL: the environment says */
    const char *ddp_backend; /* "nccl", "mpi", "tcp": of collectives; NULL: what suits the device */
} cudpo_bench_options;

/** Measure ops, one after another: a call of `line` for each, and for what is said before and behind them.  Of several ranks
 *  every one calls it: rank 0 measures ops while the others wait, all of them measure collectives, and rank 0 alone calls `line`
 *  and writes files.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE: no such op or model, sizes that make no sense, or a collective of one rank alone;
 *           CUDPO_ENUMERIC where elements of an output are wrong, after all was measured; CUDPO_EWRITE; the device's failures;
 *           those of ranks: CUDPO_ERENDEZVOUS, CUDPO_EPEER, CUDPO_ECONFIG. */
CUDPO_MUST_USE cudpo_status cudpo_bench(const cudpo_bench_options *options,
                                        void (*line)(void *context, const char *text),
                                        void *context);

/** Rows of two files of cudpo_bench() whose medians differ by more than three of their standard errors and what two processes
 *  differ by (5 % and half of the wider spread; in the cache 30 %), or whose wrong elements differ, or that entered or left the cache.
 *  Out:     text     a line for each, for each row that one file lacks, and where they are of different machines; a summary; in
 *                    new memory;
 *           changed  how many of those that both have.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EDATA naming file and row: of a row that stands there twice, too, and of files
 *           without a common row. */
CUDPO_MUST_USE cudpo_status cudpo_bench_compare(char **text, int64_t *changed, const char *before,
                                                const char *after);

/** Draw a file of cudpo_bench() (roofline, and a bar for each row) or of `cudpo plan --json` (scaling) as SVG.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT, CUDPO_EDATA naming the file; CUDPO_EWRITE. */
CUDPO_MUST_USE cudpo_status cudpo_bench_plot(const char *svg, const char *file);

/** Names of ops and collectives, the i-th of them; NULL behind the last. */
const char *cudpo_bench_op(int64_t i);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_BENCH_H */
