/* ranks.c - from the launcher's environment to a company of ranks, and out of it. */
#include "train/ranks.h"
#include "base/file.h"
#include "base/log.h"
#include "dist/pmix.h"
#include "train/signals.h"

#include <cblas.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    JOIN_SECONDS = 300,
    GRACE_SECONDS = 3, /* between a failure and the end of the process */
    TOKEN_BYTES = 1024
};

run_ranks ranks_alone(const cudpo_config *c)
{
    return (run_ranks){.place = {.size = 1, .local_size = 1, .node = -1, .source = "one process"},
                       .config = c};
}

/* Ranks of one host share its processors, where the launcher has not shared them out. */
static void share_processors(const placement *p)
{
    if (p->local_size <= 1 || getenv("OMP_NUM_THREADS") != NULL) return;
    const int all = (int)sysconf(_SC_NPROCESSORS_ONLN), mine = omp_get_num_procs();
    if (mine < all) return; /* bound to some of them */
    const int threads = mine / p->local_size > 1 ? mine / p->local_size : 1;
    omp_set_num_threads(threads);
    openblas_set_num_threads(threads);
}

/* A secret from a file, whose last line end does not count.  Out: token in new memory; NULL where no file is named. */
static cudpo_status read_token(char **token, const char *path)
{
    size_t n = 0;
    *token = NULL;
    if (path == NULL || *path == '\0') return CUDPO_OK;
    CUDPO_TRY(file_read(token, &n, path, TOKEN_BYTES));
    while (n > 0 && strchr("\r\n", (*token)[n - 1]) != NULL)
        (*token)[--n] = '\0';
    if (n > 0 && strlen(*token) == n) return CUDPO_OK;
    free(*token);
    *token = NULL;
    return cudpo_fail(CUDPO_ERENDEZVOUS, path, "holds no token: a line of text is expected");
}

static cudpo_status join(run_ranks *r, const cudpo_ranks *given, pmix *session)
{
    const char *path = given->rdzv_token_file;
    char *token = NULL;
    CUDPO_TRY(read_token(&token, path != NULL ? path : getenv("CUDPO_RDZV_TOKEN_FILE")));
    const control_options options = {.place = &r->place,
                                     .build = CUDPO_VERSION " " CUDPO_INTERFACE,
                                     .token = token,
                                     .open = given->rdzv_insecure,
                                     .join_timeout = JOIN_SECONDS,
                                     .peer_timeout = r->config->ddp_timeout,
                                     .grace = GRACE_SECONDS,
                                     .stopped = signals_stop_wanted,
                                     .session = session};
    const cudpo_status status = control_open(&r->company, &options);
    free(token);
    return status;
}

/* Those that stay as long as what they started, but leave it behind when they are killed: whoever starts the run again then
 * would find it still running.  `cudpo launch` and Slurm see to that themselves. */
static bool is_left_behind(const placement *p)
{
    return (p->launcher == LAUNCHER_TORCHRUN && getenv("TORCHELASTIC_RUN_ID") != NULL) ||
           ((p->launcher == LAUNCHER_MPI || p->launcher == LAUNCHER_PMIX) &&
            getenv("OMPI_COMM_WORLD_RANK") != NULL);
}

cudpo_status ranks_open(run_ranks *r, const cudpo_config *c, const cudpo_ranks *given)
{
    static const cudpo_ranks automatic = CUDPO_RANKS_AUTO;
    if (given == NULL) given = &automatic;
    const placement_wish wish = placement_wish_of(given);
    const pid_t parent = getppid();
    pmix *session;
    *r = ranks_alone(c);
    CUDPO_TRY(placement_find(&r->place, &wish, placement_getenv, NULL));
    if (is_left_behind(&r->place)) signals_follow(parent);
    CUDPO_TRY(pmix_complete(&r->place, &session));
    if (r->place.size == 1) {
        pmix_close(session);
        return CUDPO_OK;
    }
    CUDPO_TRY(join(r, given, session));
    share_processors(&r->place);
    log_as_rank(r->place.rank);
    log_info("%d ranks (%s)", (int)r->place.size, r->place.source);
    return CUDPO_OK;
}

/* Rank 0 empties the folder first: records of an earlier attempt say nothing of this one. */
cudpo_status ranks_record(run_ranks *r)
{
    if (r->place.size == 1) return CUDPO_OK;
    char *folder = path_join(r->config->output_dir, "flight");
    if (folder == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    cudpo_status status = ranks_first(r) ? file_remove_folder(folder) : CUDPO_OK;
    if (status == CUDPO_OK && ranks_first(r)) status = file_make_folder(folder);
    if (status == CUDPO_OK) status = control_barrier(r->company, "start");
    if (status == CUDPO_OK)
        status = file_make_folder(folder); /* of a host that has one of its own */
    if (status == CUDPO_OK)
        status = flight_open(&r->record, folder, r->place.rank, r->place.size, r->place.run_id);
    free(folder);
    return status;
}

cudpo_status ranks_connect(communicator **out, const run_ranks *r, backend *be)
{
    const char *wanted = r->config->ddp_backend;
    *out = NULL;
    if (r->place.size == 1) return communicator_self(out, be);
    if (wanted == NULL) wanted = be->on_device ? "nccl" : "tcp";
    const bool nccl = strcmp(wanted, "nccl") == 0;
    if (nccl != be->on_device)
        return cudpo_fail(CUDPO_ECONFIG, "ddp_backend", "%s can't be used on a %s: take %s", wanted,
                          be->on_device ? "GPU" : "CPU", be->on_device ? "nccl" : "tcp or mpi");
    CUDPO_TRY(nccl                         ? communicator_nccl(out, be, r->company)
              : strcmp(wanted, "mpi") == 0 ? communicator_mpi(out, be, r->company)
                                           : communicator_tcp(out, be, r->company));
    (*out)->record = r->record;
    log_info("gradients of %d ranks are added up by %s", (int)r->place.size, (*out)->name);
    return CUDPO_OK;
}

cudpo_status ranks_share(const run_ranks *r, void *data, size_t bytes, const char *what)
{
    return r->place.size == 1 ? CUDPO_OK : control_broadcast(r->company, data, bytes, what);
}

cudpo_status ranks_exchange(const run_ranks *r, void *all, const void *mine, size_t bytes,
                            const char *what)
{
    if (r->place.size > 1) return control_exchange(r->company, all, mine, bytes, what);
    memcpy(all, mine, bytes);
    return CUDPO_OK;
}

cudpo_status ranks_meet(const run_ranks *r, const char *what)
{
    return r->place.size == 1 ? CUDPO_OK : control_barrier(r->company, what);
}

cudpo_status ranks_status(const run_ranks *r)
{
    return r->company == NULL ? CUDPO_OK : control_status(r->company);
}

void ranks_fail(run_ranks *r, cudpo_status status)
{
    char rank[48], own[1024], message[1024];
    if (r->company == NULL || r->told != CUDPO_OK) return;
    snprintf(own, sizeof own, "%s", cudpo_error_message());
    cudpo_error_clear();
    /* Where the others failed first, what happened here followed from it. */
    const cudpo_status company = control_status(r->company);
    r->told = company != CUDPO_OK ? company : status;
    snprintf(message, sizeof message, "%s", company != CUDPO_OK ? cudpo_error_message() : own);
    flight_note(r->record, message);
    control_abort(r->company, r->told, message);
    snprintf(rank, sizeof rank, "rank %d, step %lld", (int)r->place.rank, (long long)r->step);
    cudpo_error_clear();
    (void)cudpo_fail(r->told, rank, "%s", message);
}

cudpo_status ranks_close(run_ranks *r, cudpo_status status)
{
    if (r->company == NULL) return status;
    if (status != CUDPO_OK && !r->agreed) {
        ranks_fail(r, status);
        status = r->told;
    }
    flight_close(r->record);
    control_close(r->company);
    *r = ranks_alone(r->config);
    return status;
}
