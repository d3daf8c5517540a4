/* secret.h - what ranks of one run know and nobody else. */
#ifndef CUDPO_LAUNCH_SECRET_H
#define CUDPO_LAUNCH_SECRET_H

#include "cudpo/status.h"

enum { SECRET_BYTES = 32, SECRET_PATH = 64, SECRET_ID = 17 };

/** A fresh secret of SECRET_BYTES, in hexadecimal digits, in an open file without a name.
 *  Out:     fd    to be closed; programs that are executed don't inherit it;
 *           path  by which processes of this user can open it as long as it is open here.
 *  Returns: CUDPO_OK; CUDPO_EWRITE. */
CUDPO_MUST_USE cudpo_status secret_create(int *fd, char path[SECRET_PATH]);

/** 16 random hexadecimal digits: a name that no other run has.
 *  Returns: CUDPO_OK; CUDPO_EINVAL without random numbers. */
CUDPO_MUST_USE cudpo_status secret_id(char id[SECRET_ID]);

#endif /* CUDPO_LAUNCH_SECRET_H */
