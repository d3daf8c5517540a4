/* test_launch.h - stand-ins for ranks: scripts of sh. */
#ifndef CUDPO_TESTS_LAUNCH_H
#define CUDPO_TESTS_LAUNCH_H

#include "program.h"

#define SH(nproc, script) "launch", "--nproc", nproc, "--program", "sh", "--", "-c", script

#endif /* CUDPO_TESTS_LAUNCH_H */
