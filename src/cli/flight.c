/* flight.c - `cudpo flight`. */
#include "cudpo/flight.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

static const cli_page page = {
    "flight",
    "where the ranks of a run that hung or failed parted",
    "cudpo flight DIR",
    "Every rank of a run of several keeps a record of its last 4096 collectives (sums and copies "
    "over all ranks), which outlives it however it ends. Reads the records of all ranks in DIR, "
    "also while they run, and says what the first mismatch is: a collective that is not the same "
    "everywhere, one that some ranks wait in and others never came to, or one that did not end; "
    "whom to look at first; and what each rank scheduled, started and completed last.",
    "  DIR/rank-NNNNN.bin      record of a rank; a run keeps them in OUTPUT_DIR/flight",
    "  cudpo flight out/flight"};

cudpo_status cli_flight(int argc, char **argv)
{
    const char *folder = NULL;
    bool help;
    CUDPO_TRY(cli_parse(NULL, 0, &folder, 1, &help, argc, argv));
    if (help) {
        cli_print_page(&page, NULL, 0, false);
        return CUDPO_OK;
    }
    if (folder == NULL)
        return cudpo_fail(CUDPO_EUSAGE, "flight", "needs the folder of the records; see --help");
    char *text = NULL;
    CUDPO_TRY(cudpo_flight(&text, folder));
    fputs(text, stdout);
    free(text);
    return CUDPO_OK;
}
