/* doctor.c - `cudpo doctor`. */
#include "cudpo/doctor.h"
#include "cli/cli.h"

#include <stdio.h>

static const cli_page page = {
    "doctor",
    "what of this machine cudpo can use",
    "cudpo doctor",
    "Prints a line for each fact: memory and limits of this process, where caches are, the CUDA "
    "backend and where it was found, the NVIDIA driver, library versions, and each GPU with its "
    "memory and the other GPUs that it reaches. Started as `cudpo train` would be (by torchrun, "
    "srun, mpirun, Kubernetes), it says which rank of how many the process is, why, and which GPU "
    "is that rank's; or what contradicts itself in the environment. Changes nothing; exit status 0 "
    "whatever it finds.",
    NULL,
    "  cudpo doctor\n"
    "  srun -N2 --ntasks-per-node=8 cudpo doctor\n"
    "  CUDPO_PLUGIN=build-cuda/libcudpo_cuda.so cudpo doctor"};

static void print_line(void *context, const char *name, const char *value)
{
    (void)context;
    printf("%-22s %s\n", name, value);
}

cudpo_status cli_doctor(int argc, char **argv)
{
    bool help;
    CUDPO_TRY(cli_parse(NULL, 0, NULL, 0, &help, argc, argv));
    if (help)
        cli_print_page(&page, NULL, 0, false);
    else
        cudpo_doctor(print_line, NULL);
    return CUDPO_OK;
}
