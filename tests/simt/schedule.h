/* schedule.h - for tests that compare schedules within one program. */
#ifndef CUDPO_SIMT_SCHEDULE_H
#define CUDPO_SIMT_SCHEDULE_H

#ifdef __cplusplus
extern "C" {
#endif

/* From the next launch on: what SIMT_SCHED names.  NULL: the environment's. */
void simt_set_schedule(const char *schedule);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_SIMT_SCHEDULE_H */
