/* test.h - what every test file shares: cmocka, and checks in our own terms. */
#ifndef CUDPO_TEST_H
#define CUDPO_TEST_H

#include "cudpo/status.h"

/* cmocka wants these four before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The call succeeds; its message is printed where it does not. */
#define CHECK_OK(call)                                                                        \
    do {                                                                                      \
        const cudpo_status check_status_ = (call);                                            \
        if (check_status_ != CUDPO_OK)                                                        \
            fail_msg("%s failed (%d): %s", #call, (int)check_status_, cudpo_error_message()); \
    } while (0)

/* The call fails with that status and its message holds `text`. */
#define CHECK_FAILS(call, want, text)                                                              \
    do {                                                                                           \
        cudpo_error_clear();                                                                       \
        const cudpo_status check_status_ = (call);                                                 \
        if (check_status_ != (want))                                                               \
            fail_msg("%s gave status %d, not %s: %s", #call, (int)check_status_, #want,            \
                     cudpo_error_message());                                                       \
        if (strstr(cudpo_error_message(), (text)) == NULL)                                         \
            fail_msg("%s: message is \"%s\", without \"%s\"", #call, cudpo_error_message(), text); \
        cudpo_error_clear();                                                                       \
    } while (0)

/* Written as !(error <= tol), so that a NaN on either side fails. */
#define CHECK_NEAR(got, want, tol)                                                    \
    do {                                                                              \
        const double check_got_ = (got), check_want_ = (want);                        \
        if (!(fabs(check_got_ - check_want_) <= (tol)))                               \
            fail_msg("%s = %.9g, want %.9g within %g", #got, check_got_, check_want_, \
                     (double)(tol));                                                  \
    } while (0)

enum { TEST_SKIPPED = 77 };

/* Path of something in the folder of real inputs, $CUDPO_TEST_DATA or ../shared/data beside the checkout (tests
 * run in the top folder of the project).  NULL, having said so, where the folder is absent. */
static inline const char *test_data(const char *name)
{
    static char path[4096];
    const char *folder = getenv("CUDPO_TEST_DATA");
    snprintf(path, sizeof path, "%s/%s", folder != NULL ? folder : "../shared/data", name);
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        printf("skipped: no %s (set CUDPO_TEST_DATA)\n", path);
        return NULL;
    }
    fclose(f);
    return path;
}

#endif /* CUDPO_TEST_H */
