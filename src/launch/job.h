/* job.h - one kind of job file each; what they get is checked, and every number is set. */
#ifndef CUDPO_LAUNCH_JOB_H
#define CUDPO_LAUNCH_JOB_H

#include "base/buffer.h"
#include "cudpo/launch.h"

#include <stdbool.h>

enum { JOB_NAME = 58, JOB_PORT = 29500, JOB_SAVE_SECONDS = 120 };

typedef struct job {
    cudpo_job ask;      /* with no number and neither name nor program missing */
    const char *folder; /* of ask.config */
    const char *text;   /* of ask.config */
    bool resumes;       /* the arguments say what resume_from_checkpoint is */
} job;

CUDPO_MUST_USE cudpo_status job_slurm(buffer *b, const job *j);
CUDPO_MUST_USE cudpo_status job_kubernetes(buffer *b, const job *j);
CUDPO_MUST_USE cudpo_status job_torchrun(buffer *b, const job *j);

/* " train CONFIG ARGUMENTS", and that the run goes on from its last checkpoint, as words for a shell. */
CUDPO_MUST_USE cudpo_status job_command(buffer *b, const job *j);

/* A shell's commands that make a secret; it stands in no command line. */
extern const char job_make_secret[];

#endif /* CUDPO_LAUNCH_JOB_H */
