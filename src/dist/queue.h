/* queue.h - a thread that runs collectives one after another, beside whoever asks for them. */
#ifndef CUDPO_DIST_QUEUE_H
#define CUDPO_DIST_QUEUE_H

#include "cudpo/status.h"
#include "dist/control.h"
#include "tensor/tensor.h"

#include <stdint.h>

typedef enum queue_op {
    QUEUE_ALL_REDUCE,
    QUEUE_REDUCE,
    QUEUE_ALL_GATHER,
    QUEUE_BROADCAST,
    QUEUE_OPS
} queue_op;
extern const char *const queue_op_names[QUEUE_OPS]; /* "all_reduce", ... */

typedef struct queue_job {
    queue_op op;
    tensor x;
    int32_t root; /* of a reduce */
    int64_t sequence, step;
} queue_job;

enum { QUEUE_JOBS = 1024 }; /* that wait at the same time */

typedef struct queue queue;

/** Start the thread.
 *  In:      work  does one job, in the thread.  It ends soon after the company has failed.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM, also where the system gives no thread. */
CUDPO_MUST_USE cudpo_status queue_open(queue **out,
                                       cudpo_status (*work)(void *context, const queue_job *job),
                                       void *context);

/** Put a job behind those that wait.  Where there are QUEUE_JOBS it waits for all of them, as queue_wait() does.
 *  Returns: CUDPO_OK; as queue_wait(), and then the job is dropped, as are all that waited. */
CUDPO_MUST_USE cudpo_status queue_push(queue *q, control *company, const queue_job *job);

/** Wait until all jobs are done, telling `company` (NULL: nobody) which one is waited for.
 *  Returns: CUDPO_OK; the first failure of a job; control_status(), and then jobs that waited are dropped, and the one that
 *           ran had a few seconds to end. */
CUDPO_MUST_USE cudpo_status queue_wait(queue *q, control *company);

typedef enum queue_end {
    QUEUE_DONE,   /* all jobs */
    QUEUE_FAILED, /* a job failed, or was dropped */
    QUEUE_STUCK, /* a job did not end in a few seconds: the thread goes on with it, so nothing that it uses may be freed */
} queue_end;

/** Drop jobs that wait and end the thread.  NULL is fine. */
queue_end queue_close(queue *q);

#endif /* CUDPO_DIST_QUEUE_H */
