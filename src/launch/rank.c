/* rank.c - starts a rank so that it can't outlive this process, and buries it. */
#include "launch/rank.h"
#include "launch/environment.h"
#include "launch/forward.h"
#include "launch/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* What torchrun would say besides, and has said where this process was started by it.  What is left of the launchers that
 * start nodes, such as srun, is told apart by the ranks (dist/placement.h). */
static const char *const stale[] = {"ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE",
                                    "TORCHELASTIC_USE_AGENT_STORE", "CUDPO_RDZV_TOKEN_FILE"};

static cudpo_status describe(environment *e, const attempt_plan *p, int64_t local)
{
    const layout *where = p->where;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"RANK", where->node * where->ranks + local},
                   {"WORLD_SIZE", where->nodes * where->ranks},
                   {"LOCAL_RANK", local},
                   {"LOCAL_WORLD_SIZE", where->ranks},
                   {"GROUP_RANK", where->node},
                   {"GROUP_WORLD_SIZE", where->nodes},
                   {"MASTER_PORT", p->port},
                   {"TORCHELASTIC_RESTART_COUNT", p->restart}};
    CUDPO_TRY(environment_copy(e));
    for (size_t i = 0; i < sizeof stale / sizeof stale[0]; i++)
        environment_remove(e, stale[i]);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        CUDPO_TRY(environment_set(e, numbers[i].name, "%lld", (long long)numbers[i].value));
    CUDPO_TRY(environment_set(e, "MASTER_ADDR", "%s", p->address));
    CUDPO_TRY(environment_set(e, "TORCHELASTIC_RUN_ID", "%s", p->id));
    if (p->token_file != NULL)
        CUDPO_TRY(environment_set(e, "CUDPO_RDZV_TOKEN_FILE", "%s", p->token_file));
    if (getenv("OMP_NUM_THREADS") == NULL) {
        const int64_t each = machine_cores() / where->ranks;
        CUDPO_TRY(environment_set(e, "OMP_NUM_THREADS", "%lld", (long long)(each < 1 ? 1 : each)));
    }
    return CUDPO_OK;
}

/* The new process: only what is safe in a copy of a process that had several threads. */
static _Noreturn void become(const attempt_plan *p, char **variables, pid_t parent, const int *to)
{
    static const char message[] = "cudpo launch: can't start the program\n";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(128 + SIGKILL); /* it was gone before */
    setpgid(0, 0);
    for (int i = 0; i < 3; i++)
        if (to[i] >= 0 && dup2(to[i], i) < 0) _exit(126);
    signal(SIGPIPE, SIG_DFL);
    forward_leave();
    execve(p->program, (char *const *)p->argv, variables);
    if (p->fallback != NULL) execve(p->fallback, (char *const *)p->argv, variables);
    const int missing = errno == ENOENT;
    if (write(2, message, sizeof message - 1) < 0) _exit(126);
    _exit(missing ? 127 : 126);
}

/* A pipe whose ends no other program inherits. */
static bool open_pipe(int ends[2])
{
    if (pipe(ends) != 0) {
        ends[0] = ends[1] = -1;
        return false;
    }
    return fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0 &&
           fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0;
}

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0) close(fds[i]);
}

static void relay(lines *l, int from, int to, int64_t index)
{
    l->from = from;
    l->to = to;
    l->held = 0;
    l->lost = false;
    snprintf(l->prefix, sizeof l->prefix, "[rank %lld] ", (long long)index);
}

cudpo_status rank_start(rank *r, const attempt_plan *p, int64_t local)
{
    environment e = {0};
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    const bool piped = p->where->ranks > 1; /* one rank alone may have the terminal */
    const pid_t parent = getpid();
    r->index = p->where->node * p->where->ranks + local;
    r->pid = 0;
    r->made_to = false;
    r->out.from = r->err.from = -1;
    r->out.held = r->err.held = 0;
    CUDPO_TRY(describe(&e, p, local));
    const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const bool ready = in >= 0 && (!piped || (open_pipe(out) && open_pipe(err)));
    const pid_t pid = ready ? fork() : -1;
    const int to[3] = {in, out[1], err[1]};
    if (pid == 0) become(p, e.variables, parent, to);
    const int error = errno;
    close_all(to, 3);
    environment_free(&e);
    if (pid < 0) {
        close_all((const int[]){out[0], err[0]}, 2);
        return cudpo_fail(CUDPO_ENOMEM, "launch", "can't start rank %lld: %s", (long long)r->index,
                          strerror(error));
    }
    setpgid(pid, pid); /* the child does so, too: whoever comes first */
    r->pid = pid;
    if (piped) relay(&r->out, out[0], STDOUT_FILENO, r->index);
    if (piped) relay(&r->err, err[0], STDERR_FILENO, r->index);
    return CUDPO_OK;
}

void rank_end(rank *r, pid_t *group)
{
    int status = 0;
    /* Until it is waited for, no other group can have its number. */
    forward_hold();
    kill(-r->pid, SIGKILL);
    while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR) {
    }
    *group = 0;
    forward_release();
    r->pid = 0;
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    lines_finish(&r->out);
    lines_finish(&r->err);
}
