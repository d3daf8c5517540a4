/* measure.h - the time of an op, whether it computes what it should, and what the machine can do at most. */
#ifndef CUDPO_BENCH_MEASURE_H
#define CUDPO_BENCH_MEASURE_H

#include "bench/bench.h"

typedef struct bench_settings {
    double seconds; /* of timed calls, about, of each op and of its baseline */
    bool baseline;  /* measure plain() too */
    bool check;     /* count wrong elements */
    double memory;  /* bytes that a rank may take for a collective; 0: what it can get */
} bench_settings;

/* What the device reaches in this run. */
typedef struct bench_ceilings {
    double copy_gbps;               /* bytes read and bytes written */
    double f32_tflops, bf16_tflops; /* of a large product; bf16 0: the device has none */
    int32_t ranks;                  /* that measure together; 0 and 1: one */
    const char *communicator;       /* what they add up gradients with; NULL: one rank */
    double link_gbps;               /* from one rank to the next; 0: not known */
} bench_ceilings;

typedef struct bench_time {
    double median, least,
        spread; /* seconds; spread: half of what lies between the tenth and the ninetieth of a hundred */
    int64_t calls;
} bench_time;

typedef struct bench_result {
    bench_time time, plain; /* plain.calls 0: not measured */
    int64_t sets;           /* of operands, used in turn */
    bool
        cached; /* all of them are not twice as large as the largest cache: the time says little of memory */
    int64_t wrong; /* elements of the outputs of all sets; -1: not looked at */
} bench_result;

#define BENCH_SETTLED 0.02 /* times count as settled where one is that near the one before */

/* Out: t  of n times of a call, which are sorted then. */
void bench_summarise(bench_time *t, double *sample, int64_t n);

/** Measure one case on an open backend: warm up until times settle, call it on one set of operands after the other, and
 *  look at the outputs of the last round: against the CPU's op in float32, or on the CPU against plain().
 *  Out:     r  all of it.
 *  Returns: CUDPO_OK; what an op or an allocation failed with. */
CUDPO_MUST_USE cudpo_status bench_measure(bench_result *r, backend *be, const bench_case *c,
                                          const bench_settings *settings);

/** What a large copy and, where `products`, a large product reach; else that is 0, for collectives have none. */
CUDPO_MUST_USE cudpo_status bench_measure_ceilings(bench_ceilings *out, backend *be,
                                                   const bench_settings *settings, bool products);

/** Out: seconds  of an op with next to no work: what any op takes at least. */
CUDPO_MUST_USE cudpo_status bench_measure_launch(double *seconds, backend *be,
                                                 const bench_settings *settings);

/* The least time that a case can take: its bytes at the speed of a copy, or its operations at that of a product; a collective's
 * bytes at the speed of a link.  0: not known. */
double bench_least_seconds(const bench_case *c, const bench_ceilings *ceilings);

/* ---- sets.c ---- */

enum { BENCH_SETS = 64 };

/* The operands in a backend's memory. */
typedef struct bench_sets {
    backend *be;
    const bench_case *c;
    int64_t count;
    bench_run run[BENCH_SETS];
    tensor before[BENCH_OPERANDS]; /* of those that a call changes */
    void *memory[BENCH_SETS + 2];  /* of each set; of `before`; of what plain() works on */
} bench_sets;

/** Operands as often as it takes for more than twice the largest cache, BENCH_SETS at most.
 *  In:      most  sets, at most.
 *  Returns: CUDPO_OK, to be closed by bench_sets_close(), as after a failure. */
CUDPO_MUST_USE cudpo_status bench_sets_open(bench_sets *s, backend *be, const bench_case *c,
                                            int64_t most);
void bench_sets_close(bench_sets *s);
/** What calls change, as it was. */
CUDPO_MUST_USE cudpo_status bench_sets_restore(bench_sets *s);
/** An output as floats, in new memory. */
CUDPO_MUST_USE cudpo_status bench_sets_read(float **out, const bench_sets *s, int64_t set,
                                            int operand);
/* Bytes of one set. */
size_t bench_set_bytes(const bench_case *c, bool on_device);

#endif /* CUDPO_BENCH_MEASURE_H */
