/* failure.h - a failure that waits: its message is put by, and is this thread's again later, or another process's. */
#ifndef CUDPO_BASE_FAILURE_H
#define CUDPO_BASE_FAILURE_H

#include "cudpo/status.h"

/* Plain data.  {0} is none. */
typedef struct failure {
    cudpo_status status;
    char message[1024];
} failure;

/* What just failed, or CUDPO_OK; the thread has no message then. */
failure failure_take(cudpo_status status);

/** Fail in the same words.  Returns: its status. */
CUDPO_MUST_USE cudpo_status failure_give(const failure *f);

#endif /* CUDPO_BASE_FAILURE_H */
