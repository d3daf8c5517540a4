/* launch.c - what all attempts have in common, and whether there is another. */
#include "cudpo/launch.h"
#include "base/log.h"
#include "launch/attempt.h"
#include "launch/forward.h"
#include "launch/secret.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* Where this program is.  A program that was replaced since it was started has no path any more, but still this link. */
static const char self[] = "/proc/self/exe";

/* A path, or a name in $PATH as execvp() would look for it. */
static cudpo_status find_program(char out[PATH_BYTES], const char *program)
{
    if (program == NULL) {
        const ssize_t n = readlink(self, out, PATH_BYTES - 1);
        out[n < 0 ? 0 : n] = '\0';
        return CUDPO_OK;
    }
    const bool is_path = strchr(program, '/') != NULL;
    const char *folders = is_path ? "" : getenv("PATH");
    if (folders == NULL) folders = "/usr/bin:/bin";
    while (*program != '\0') {
        const int length = (int)strcspn(folders, ":");
        const int n = is_path ? snprintf(out, PATH_BYTES, "%s", program)
                              : snprintf(out, PATH_BYTES, "%.*s/%s", length == 0 ? 1 : length,
                                         length == 0 ? "." : folders, program);
        if (n < PATH_BYTES && access(out, X_OK) == 0) return CUDPO_OK;
        if (folders[length] == '\0') break;
        folders += length + 1;
    }
    return cudpo_fail(CUDPO_ENOINPUT, "--program", "%s is no program%s", program,
                      is_path ? " that can be run" : " in a folder of $PATH");
}

/* A port of this host that nobody uses now. */
static cudpo_status free_port(int64_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const bool found = fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
                       getsockname(fd, (struct sockaddr *)&address, &size) == 0;
    const int error = errno;
    if (fd >= 0) close(fd);
    if (!found) return cudpo_fail(CUDPO_EPERM, "127.0.0.1", "no free port: %s", strerror(error));
    *port = ntohs(address.sin_port);
    return CUDPO_OK;
}

/* Would another attempt fare better?  One that was told to stop, or was asked for what makes no sense, would not. */
static bool is_final(int status)
{
    return status == 0 || status == 64 || status == 65 || status == 66 || status == 78 ||
           status == 79 || forward_stopped();
}

/* Restarts of several nodes are not in step, as when one of them was replaced: to meet again, all keep their one id. */
static cudpo_status name_attempt(char id[LAYOUT_TEXT], const layout *where)
{
    if (where->id == NULL && where->nodes == 1) return secret_id(id);
    snprintf(id, LAYOUT_TEXT, "%s", where->id != NULL ? where->id : where->address);
    return CUDPO_OK;
}

static cudpo_status run_attempts(int *exit_status, attempt_plan *p, int64_t max_restarts)
{
    char id[LAYOUT_TEXT];
    p->id = id;
    for (;; p->restart++) {
        CUDPO_TRY(name_attempt(id, p->where));
        if (p->where->address[0] == '\0') CUDPO_TRY(free_port(&p->port));
        CUDPO_TRY(attempt_run(exit_status, p));
        if (p->restart == max_restarts || is_final(*exit_status)) return CUDPO_OK;
        log_info("starting all ranks of this node again: restart %lld of %lld",
                 (long long)p->restart + 1, (long long)max_restarts);
    }
}

static cudpo_status run(int *exit_status, attempt_plan *p, const cudpo_launch_options *o,
                        const layout *where)
{
    int secret = -1;
    char token[SECRET_PATH];
    p->token_file = where->token_file;
    if (p->token_file == NULL && where->nodes == 1) {
        CUDPO_TRY(secret_create(&secret, token));
        p->token_file = token;
    }
    cudpo_status status = CUDPO_OK;
    p->groups = calloc((size_t)where->ranks, sizeof *p->groups);
    if (p->groups == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, "launch", "%lld ranks", (long long)where->ranks);
    if (status == CUDPO_OK) status = forward_install(&p->wake, p->groups, (size_t)where->ranks);
    if (status == CUDPO_OK) {
        status = run_attempts(exit_status, p, o->max_restarts);
        forward_restore();
    }
    free(p->groups);
    if (secret >= 0) close(secret);
    return status;
}

cudpo_status cudpo_launch(int *exit_status, const cudpo_launch_options *o)
{
    CUDPO_REQUIRE(exit_status != NULL && o != NULL && o->arguments != NULL);
    CUDPO_REQUIRE(o->max_restarts >= 0 && o->grace >= 0.0);
    layout where;
    char program[PATH_BYTES];
    CUDPO_TRY(layout_find(&where, o));
    CUDPO_TRY(find_program(program, o->program));
    size_t n = 0;
    while (o->arguments[n] != NULL)
        n++;
    const char **argv = calloc(n + 2, sizeof *argv);
    if (argv == NULL) return cudpo_fail(CUDPO_ENOMEM, "launch", "%zu arguments", n);
    argv[0] = o->program != NULL ? o->program : "cudpo";
    memcpy(argv + 1, o->arguments, n * sizeof *argv);
    attempt_plan p = {.where = &where,
                      .program = program,
                      .fallback = o->program == NULL ? self : NULL,
                      .argv = argv,
                      .grace = o->grace,
                      .address = where.address[0] != '\0' ? where.address : "127.0.0.1",
                      .port = where.port};
    const cudpo_status status = run(exit_status, &p, o, &where);
    free(argv);
    return status;
}
