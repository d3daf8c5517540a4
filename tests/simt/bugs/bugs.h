/* bugs.h - kernels and calls with one mistake each, and the same without it.
 *
 * The emulator's checks are code that can break too: the suite runs each bug in a process of its own and fails where one
 * that used to be caught is not, or where its corrected twin is not silent in every schedule. */
#ifndef CUDPO_SIMT_BUGS_H
#define CUDPO_SIMT_BUGS_H

#include <cuda_runtime_api.h>

/* The builds of the suite.  Caught: the process ends with a message, or the result is not that of the correct twin under
 * one of the schedules at least, so that a test of the kernel would fail. */
enum Build { PLAIN = 1, RACES = 2, SANITIZED = 4, EVERYWHERE = 7 };

enum { BUG_THREADS = 256, BUG_INPUTS = 2048, BUG_OUTPUTS = 1024 };

/* out [BUG_OUTPUTS] is 0, in [BUG_INPUTS] has in[i] = i % 7; both in device memory. */
typedef void BugRun(bool correct, float *out, const float *in);

struct Bug {
    const char *name;
    BugRun *run;
    int caught; /* the builds that must catch it */
    /* What a message of the emulator must say, alternatives separated by '|'; NULL: it may say anything, or nothing */
    const char *says;
};

struct BugList {
    const Bug *bugs;
    int count;
};
extern const BugList barrier_bugs, warp_bugs, memory_bugs, async_bugs, block_bugs, host_bugs;

/* A BugRun that launches one of the two instances of a kernel, template <bool CORRECT> with parameters (out, in). */
#define BUG_RUN(kernel, grid, block, shared)                          \
    [](bool correct, float *out, const float *in) {                   \
        if (correct)                                                  \
            LAUNCH((kernel<true>), grid, block, shared, 0, out, in);  \
        else                                                          \
            LAUNCH((kernel<false>), grid, block, shared, 0, out, in); \
    }

#endif /* CUDPO_SIMT_BUGS_H */
