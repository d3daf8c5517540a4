/* sink.h - where metrics go: metrics.jsonl (the source of truth), TensorBoard event files, and a line for a person. */
#ifndef CUDPO_TRAIN_SINK_H
#define CUDPO_TRAIN_SINK_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct metric {
    const char *name; /* TRL's: "loss", "rewards/margins", "eval_loss" */
    double value;
} metric;

typedef struct metric_sink metric_sink;

/** Open the sinks of a run in output_dir (which exists): metrics.jsonl and runs/events.out.tfevents.*.
 *  In:      resume_step  a resumed run keeps lines of metrics.jsonl up to this step and drops the rest, also half a
 *                        line that a killed run left; 0: start an empty file.
 *           total_steps  for the progress line. */
CUDPO_MUST_USE cudpo_status metric_sink_open(metric_sink **out, const char *output_dir,
                                             int64_t resume_step, int64_t total_steps);

/** Record metrics of a step: one JSON object {"step": .., metrics in order, .., "time": unix seconds} flushed at once,
 *  the same scalars in the event file ("train/loss", "eval/loss": the eval_ prefix becomes the folder), and a plain line
 *  on stderr where that is no terminal.  Everything but "time" and members named *_per_second, *_runtime is a function
 *  of the run. */
CUDPO_MUST_USE cudpo_status metric_sink_log(metric_sink *s, int64_t step, const metric *metrics,
                                            int64_t n);

/** Say that a step is done: redraws the live line on a terminal (step, total, loss, accuracy, rate, time left), at most
 *  ten times a second; nothing elsewhere.
 *  In:      units  pairs or rows done by this step;  accuracy  NaN where the loss has none. */
void metric_sink_progress(metric_sink *s, int64_t step, double loss, double accuracy,
                          int64_t units);

/** Flush and sync to disk: before a checkpoint becomes visible. */
CUDPO_MUST_USE cudpo_status metric_sink_sync(metric_sink *s);
void metric_sink_close(metric_sink *s);

#endif /* CUDPO_TRAIN_SINK_H */
