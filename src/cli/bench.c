/* bench.c - `cudpo bench`. */
#include "cli/cli.h"

#include <string.h>

cudpo_status cli_bench(int argc, char **argv)
{
    char step[] = "step";
    char *help[] = {step, argv[argc - 1], NULL};
    if (argc > 1 && strcmp(argv[1], "step") == 0) return cli_bench_step(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return cli_bench_step(2, help);
    return cudpo_fail(CUDPO_EUSAGE, "bench", "needs what to measure: step");
}
