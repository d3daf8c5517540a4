/* doctor.h - what of this machine cudpo can use. */
#ifndef CUDPO_DOCTOR_H
#define CUDPO_DOCTOR_H

#ifdef __cplusplus
extern "C" {
#endif

/** Call `line` for each fact about this machine: cudpo itself, CPU, memory, limits of the process, CUDA backend, driver,
 *  libraries, each GPU with its memory and peers; and which rank of how many this process is, by what started it, or how that
 *  contradicts itself.  Nothing of it is an error.
 *  In:      name   "GPU 0 memory" and the like;  value  in words, with what to do about it where there is something. */
void cudpo_doctor(void (*line)(void *context, const char *name, const char *value), void *context);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_DOCTOR_H */
