/* layout.c - options first, then what a Kubeflow pod was given. */
#include "launch/layout.h"
#include "launch/machine.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A variable that says something. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value == NULL || *value == '\0' ? NULL : value;
}

static cudpo_status parse(int64_t *out, const char *text, int64_t least, int64_t most,
                          cudpo_status code, const char *name)
{
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < least || value > most)
        return cudpo_fail(code, name, "\"%s\" is no number from %lld to %lld", text,
                          (long long)least, (long long)most);
    *out = value;
    return CUDPO_OK;
}

/* An option that is a number, or else the variable, or else `standard`. */
static cudpo_status number(int64_t *out, int64_t given, const char *option, const char *name,
                           int64_t least, int64_t most, int64_t standard)
{
    const char *text = variable(name);
    *out = given >= 0 ? given : standard;
    if (given < 0 && text != NULL) return parse(out, text, least, most, CUDPO_ECONFIG, name);
    if (*out < least || *out > most)
        return cudpo_fail(CUDPO_EUSAGE, option, "%lld is not from %lld to %lld", (long long)*out,
                          (long long)least, (long long)most);
    return CUDPO_OK;
}

static cudpo_status find_ranks(int64_t *ranks, const char *given)
{
    const char *pod = variable("PET_NPROC_PER_NODE");
    const char *text = given != NULL ? given : pod != NULL ? pod : "auto";
    const char *name = given == NULL && pod != NULL ? "PET_NPROC_PER_NODE" : "--nproc";
    const cudpo_status code = given == NULL && pod != NULL ? CUDPO_ECONFIG : CUDPO_EUSAGE;
    const bool gpu = strcmp(text, "gpu") == 0, automatic = strcmp(text, "auto") == 0;
    if (strcmp(text, "cpu") == 0) { /* torchrun's word: one rank makes use of all cores */
        *ranks = 1;
        return CUDPO_OK;
    }
    if (!gpu && !automatic) return parse(ranks, text, 1, LAYOUT_NODE_RANKS, code, name);
    *ranks = machine_gpus(getenv("CUDA_VISIBLE_DEVICES"), "/dev");
    if (*ranks == 0 && gpu)
        return cudpo_fail(code, name,
                          "no GPU is visible: no /dev/nvidia0, or CUDA_VISIBLE_DEVICES hides them; "
                          "say how many ranks there are to be");
    if (*ranks == 0) *ranks = 1;
    return CUDPO_OK;
}

/* HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT; what has more than one colon and no brackets is an address, too. */
static cudpo_status parse_endpoint(layout *l, const char *text)
{
    static const char option[] = "--rdzv_endpoint";
    const char *host = text, *port = NULL, *end = text + strlen(text);
    const char *colon = strchr(text, ':');
    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':'))
            return cudpo_fail(CUDPO_EUSAGE, option, "\"%s\" is no [ADDRESS]:PORT", text);
        if (end[1] == ':') port = end + 2;
    } else if (colon != NULL && strchr(colon + 1, ':') == NULL) {
        end = colon;
        port = colon + 1;
    }
    if (end == host || end - host >= LAYOUT_TEXT)
        return cudpo_fail(CUDPO_EUSAGE, option, "\"%s\" is no HOST:PORT", text);
    snprintf(l->address, sizeof l->address, "%.*s", (int)(end - host), host);
    l->port = LAYOUT_PORT;
    return port == NULL ? CUDPO_OK : parse(&l->port, port, 1, 65535, CUDPO_EUSAGE, option);
}

static cudpo_status find_address(layout *l, const char *endpoint)
{
    if (endpoint != NULL) return parse_endpoint(l, endpoint);
    if (l->nodes == 1) return CUDPO_OK;
    const char *address = variable("PET_MASTER_ADDR"), *port = variable("PET_MASTER_PORT");
    if (address == NULL)
        return cudpo_fail(CUDPO_EUSAGE, "--rdzv_endpoint",
                          "is needed with several nodes: HOST:PORT of node 0");
    if (strlen(address) >= LAYOUT_TEXT)
        return cudpo_fail(CUDPO_ECONFIG, "PET_MASTER_ADDR", "is longer than any name");
    snprintf(l->address, sizeof l->address, "%s", address);
    l->port = LAYOUT_PORT;
    return port == NULL ? CUDPO_OK
                        : parse(&l->port, port, 1, 65535, CUDPO_ECONFIG, "PET_MASTER_PORT");
}

/* Ranks of other nodes can't know a token that is made up here. */
static cudpo_status find_token(layout *l, const cudpo_launch_options *o)
{
    l->token_file =
        o->rdzv_token_file != NULL ? o->rdzv_token_file : variable("CUDPO_RDZV_TOKEN_FILE");
    if (l->nodes == 1 || l->token_file != NULL) return CUDPO_OK;
    for (const char *const *a = o->arguments; *a != NULL; a++) /* the program's own affair */
        if (strncmp(*a, "--rdzv_insecure", 15) == 0 || strncmp(*a, "--rdzv_token_file", 17) == 0)
            return CUDPO_OK;
    return cudpo_fail(CUDPO_EUSAGE, "--rdzv_token_file",
                      "is needed with several nodes: a file with a secret that is the same on all "
                      "of them; or, in a network that you trust, --rdzv_insecure behind `train`");
}

cudpo_status layout_find(layout *out, const cudpo_launch_options *o)
{
    layout l = {.id = o->rdzv_id};
    CUDPO_TRY(find_ranks(&l.ranks, o->nproc));
    CUDPO_TRY(number(&l.nodes, o->nnodes, "--nnodes", "PET_NNODES", 1, LAYOUT_RANKS, 1));
    if (l.nodes > 1 && o->node_rank < 0 && variable("PET_NODE_RANK") == NULL)
        return cudpo_fail(CUDPO_EUSAGE, "--node_rank",
                          "is needed with several nodes: which one this is, from 0 to %lld",
                          (long long)l.nodes - 1);
    CUDPO_TRY(number(&l.node, o->node_rank, "--node_rank", "PET_NODE_RANK", 0, l.nodes - 1, 0));
    if (l.ranks * l.nodes > LAYOUT_RANKS)
        return cudpo_fail(CUDPO_EUSAGE, "--nnodes", "%lld nodes of %lld ranks are more than %d",
                          (long long)l.nodes, (long long)l.ranks, LAYOUT_RANKS);
    if (l.id != NULL && (*l.id == '\0' || strlen(l.id) > LAYOUT_TEXT - 16))
        return cudpo_fail(CUDPO_EUSAGE, "--rdzv_id", "needs 1 to %d characters", LAYOUT_TEXT - 16);
    CUDPO_TRY(find_address(&l, o->rdzv_endpoint));
    CUDPO_TRY(find_token(&l, o));
    *out = l;
    return CUDPO_OK;
}
