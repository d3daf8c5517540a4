/* test_cuda_job.h - runs of `cudpo train` that a test compares with one another, on the CPU and on the CUDA backend. */
#ifndef CUDPO_TEST_CUDA_JOB_H
#define CUDPO_TEST_CUDA_JOB_H

#include "plugin.h"
#include "program.h"

enum { JOB_SETTINGS = 40 };

typedef struct job {
    const char *name, *model;
    const char *settings[JOB_SETTINGS]; /* --key value ..., NULL; the last of a key counts */
} job;

/* With $CUDPO_TEST_PART a few jobs of a few steps: for builds that are slow. */
static inline bool job_part(void)
{
    return getenv("CUDPO_TEST_PART") != NULL;
}

/* The job with more settings, which NULL ends. */
static inline job job_with(const job *j, const char *const *more)
{
    job with = *j;
    int n = 0;
    while (with.settings[n] != NULL)
        n++;
    for (; *more != NULL; n++) {
        assert_true(n + 1 < JOB_SETTINGS);
        with.settings[n] = *more++;
    }
    return with;
}
#define JOB_WITH(j, ...) job_with(j, (const char *const[]){__VA_ARGS__, NULL})

/* Run a job on a device into a folder of the scratch folder. */
static inline void job_run(const job *j, const char *device, const char *output)
{
    char folder[640], model[256];
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    snprintf(model, sizeof model, "tests/golden/models/%s", j->model);
    const char *arguments[PROGRAM_ARGUMENTS + 1] = {"train", "--model_name_or_path",
                                                    model,   "--device",
                                                    device,  "--output_dir",
                                                    folder,  "--max_length",
                                                    "48",    "--per_device_train_batch_size",
                                                    "2",     "--logging_steps",
                                                    "1",     "--bf16",
                                                    "false", "--learning_rate",
                                                    "1e-4"};
    int n = 0;
    while (arguments[n] != NULL)
        n++;
    for (int i = 0; j->settings[i] != NULL; i++)
        arguments[n++] = j->settings[i];
    program_finish(program_start(arguments), 0);
}

/* The same where the device's work comes as late ("1") or, of two streams, as early ("ahead") as may be. */
static inline void job_run_lazily(const job *j, const char *output, const char *lazy)
{
    assert_int_equal(setenv("SIMT_LAZY", lazy, 1), 0);
    job_run(j, "cuda", output);
    assert_int_equal(unsetenv("SIMT_LAZY"), 0);
}

#endif /* CUDPO_TEST_CUDA_JOB_H */
