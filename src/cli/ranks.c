/* ranks.c - what the command line says of the rank that this process is. */
#include "cli/ranks.h"

void ranks_options(cli_option out[RANKS_OPTIONS], cudpo_ranks *ranks)
{
    int n = 0;
    *ranks = (cudpo_ranks)CUDPO_RANKS_AUTO;
    out[n++] =
        (cli_option){"--launcher", CLI_TEXT, "NAME",
                     "who started this process, and says which of how many ranks it is: auto "
                     "(the default: the first of the following that is there, and an error "
                     "where others contradict it), flags, torchrun, slurm, pmix, mpi, "
                     "kubernetes; none: one process, whatever the environment says",
                     &ranks->launcher};
    out[n++] = (cli_option){"--rank", CLI_INTEGER, "N",
                            "which rank this process is, from 0; goes with --world_size and, for "
                            "more than one, --rdzv_endpoint",
                            &ranks->rank};
    out[n++] = (cli_option){"--world_size", CLI_INTEGER, "N", "how many ranks there are",
                            &ranks->world_size};
    out[n++] = (cli_option){"--local_rank", CLI_INTEGER, "N",
                            "which of this node's ranks it is: it takes the GPU of that number, "
                            "counted round",
                            &ranks->local_rank};
    out[n++] = (cli_option){"--rdzv_endpoint", CLI_TEXT, "HOST:PORT",
                            "where rank 0 listens and the others find it; else MASTER_ADDR and "
                            "MASTER_PORT, or what the launcher knows",
                            &ranks->rdzv_endpoint};
    out[n++] = (cli_option){"--rdzv_id", CLI_TEXT, "ID",
                            "a name of this run and of no other at that place, the same for all "
                            "ranks; else the launcher's",
                            &ranks->rdzv_id};
    out[n++] = (cli_option){"--rdzv_token_file", CLI_TEXT, "FILE",
                            "a secret that all ranks can read and others can't (mode 0600); else "
                            "$CUDPO_RDZV_TOKEN_FILE. Without one, ranks of other hosts are turned "
                            "away",
                            &ranks->rdzv_token_file};
    out[n++] = (cli_option){"--rdzv_insecure", CLI_FLAG, "",
                            "let ranks of other hosts join without a secret: whoever reaches the "
                            "port can join",
                            &ranks->rdzv_insecure};
}
