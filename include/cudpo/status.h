/* status.h - the one result type of cudpo, and the only macros that hide control flow. */
#ifndef CUDPO_STATUS_H
#define CUDPO_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CUDPO_MUST_USE __attribute__((warn_unused_result))
#define CUDPO_PRINTF(fmt_at, first) __attribute__((format(printf, fmt_at, first)))
#else
#define CUDPO_MUST_USE
#define CUDPO_PRINTF(fmt_at, first)
#endif

/* Each kind of failure is what the caller can do about it; cudpo_exit_code() gives the program's
 * exit status for it. */
typedef enum cudpo_status {
    CUDPO_OK = 0,
    CUDPO_EINVAL,      /* the caller broke a documented contract; nothing was changed */
    CUDPO_EUSAGE,      /* the command line makes no sense */
    CUDPO_ECONFIG,     /* a configuration value is unknown, wrong or impossible */
    CUDPO_ENOINPUT,    /* an input file or folder does not exist or can't be opened */
    CUDPO_EDATA,       /* an input file is malformed: model, tokenizer, preferences, checkpoint */
    CUDPO_EPERM,       /* the system denies access */
    CUDPO_EWRITE,      /* an output could not be created, written or renamed */
    CUDPO_ENOMEM,      /* host or device memory ran out */
    CUDPO_ENUMERIC,    /* NaN or Inf in loss or gradient, or the self-check of step 0 failed */
    CUDPO_EDEVICE,     /* a CUDA, cuBLAS or NCCL call failed; the device may be lost */
    CUDPO_ESTOPPED,    /* stopped by a signal, what was done is saved: run the same command again */
    CUDPO_EPEER,       /* another rank was lost, or stands still */
    CUDPO_ERENDEZVOUS, /* the ranks did not find one another, or are not of one run */
} cudpo_status;

/** Record why a call failed and return `code`, so a function can end with `return cudpo_fail(...)`.
 *
 *  In:      code    the status to report, never CUDPO_OK.
 *           where   what the message is about, printed before it: "data.jsonl:17", "model.safetensors:
 *                   lm_head.weight", or CUDPO_HERE for a failure that no input explains.
 *           fmt     printf-style reason, with the offending value and what to do about it.
 *  Returns: code.
 *
 *  The first failure since cudpo_error_clear() wins: later calls on the way up do not overwrite it.
 *  One message per thread, one line: control characters are escaped.
 */
cudpo_status cudpo_fail(cudpo_status code, const char *where, const char *fmt, ...)
    CUDPO_PRINTF(3, 4);

/** The message recorded by cudpo_fail() in this thread; "" if none.  Owned by the library. */
const char *cudpo_error_message(void);

/** Forget the message of this thread, so that the next failure is recorded. */
void cudpo_error_clear(void);

/** Exit status of the program for a result, after sysexits.h: 0 done, 64 usage, 65 bad data or model
 *  file, 66 missing input, 69 device or another rank, 70 internal, 71 memory, 73 cannot write, 75 saved and
 *  stopped, 76 rendezvous, 77 permission, 78 configuration, 79 numerics. */
int cudpo_exit_code(cudpo_status status);

#define CUDPO_STR_(x) #x
#define CUDPO_STR(x) CUDPO_STR_(x)
#define CUDPO_HERE __FILE__ ":" CUDPO_STR(__LINE__)

/* Return the failure of `call` to our caller. */
#define CUDPO_TRY(call)                                  \
    do {                                                 \
        const cudpo_status try_status_ = (call);         \
        if (try_status_ != CUDPO_OK) return try_status_; \
    } while (0)

/* Reject a broken contract before anything is changed. */
#define CUDPO_REQUIRE(cond)                                                         \
    do {                                                                            \
        if (!(cond)) return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "need %s", #cond); \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_STATUS_H */
