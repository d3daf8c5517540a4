/* endpoint.c - where rank 0 listens, by what all ranks see alike. */
#include "dist/endpoint.h"
#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LAST_PORT = 65535, DERIVED_FIRST = 20000, DERIVED_PORTS = 40000 };

static cudpo_status set_port(placement *p, const char *name, const char *text)
{
    int64_t port;
    CUDPO_TRY(variables_parse(&port, name, text));
    if (port < 1 || port > LAST_PORT)
        return cudpo_fail(CUDPO_ECONFIG, name, "%" PRId64 " is no port: they go from 1 to %d", port,
                          LAST_PORT);
    p->port = (int32_t)port;
    return CUDPO_OK;
}

static cudpo_status take_option(placement *p, const char *text)
{
    static const char name[] = "--rdzv_endpoint";
    char host[PLACEMENT_TEXT];
    const char *colon = strrchr(text, ':');
    size_t n = colon == NULL ? 0 : (size_t)(colon - text);
    const bool brackets = n > 2 && text[0] == '[' && text[n - 1] == ']';
    if (brackets) {
        text++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof host || (!brackets && memchr(text, ':', n) != NULL))
        return cudpo_fail(CUDPO_ECONFIG, name,
                          "\"%.200s\" is no HOST:PORT (an IPv6 address stands in brackets)", text);
    memcpy(host, text, n);
    host[n] = '\0';
    CUDPO_TRY(set_port(p, name, colon + 1));
    return variables_copy(p->address, name, host);
}

/* The same port for all ranks that know the same `key`, another for most other keys.  Ids of jobs that run at once differ in
 * their last digits or in few bits (the elements of an array), so nothing less than a hash of all of it will do.  Nobody reserves
 * the port, and others can compute it: a port that rank 0 publishes by PMIx, or MASTER_PORT, is safer. */
static void derive_port(placement *p, const char *key)
{
    p->port = DERIVED_FIRST + (int32_t)(hash64_bytes(key, strlen(key)) % DERIVED_PORTS);
    p->derived = true;
}

static cudpo_status complete_slurm(placement *p, const variables *v)
{
    if (p->port == 0) derive_port(p, p->run_id);
    if (p->address[0] != '\0') return CUDPO_OK;
    if (p->local_size == p->size)
        return variables_copy(p->address, "SLURM_STEP_NODELIST", "127.0.0.1");
    const char *list = variables_get(v, "SLURM_STEP_NODELIST");
    if (p->rank == 0 && p->node != 0)
        return cudpo_fail(CUDPO_ECONFIG, "SLURM_NODEID",
                          "of rank 0 is %d, so the first of SLURM_STEP_NODELIST is not its host: "
                          "set MASTER_ADDR",
                          (int)p->node);
    if (list == NULL)
        return cudpo_fail(CUDPO_ECONFIG, "SLURM_STEP_NODELIST",
                          "is missing in what else looks like a task of a Slurm step: set "
                          "MASTER_ADDR to the host of rank 0");
    return placement_host(p->address, list, 0);
}

/* torchrun's agent of rank 0 listens at MASTER_PORT itself, for torch's store, where it says so: always with --node_rank, and in
 * newer versions of torch always.  So rank 0 has to listen somewhere else, and all ranks to know where. */
static void avoid_agent(placement *p, const variables *v)
{
    char key[2 * PLACEMENT_TEXT];
    const char *kept = variables_get(v, "TORCHELASTIC_USE_AGENT_STORE");
    if (kept == NULL || strcmp(kept, "True") != 0) return;
    snprintf(key, sizeof key, "%s %d", p->run_id, (int)p->port);
    derive_port(p, key);
}

cudpo_status endpoint_find(placement *p, const placement_wish *wish, const variables *v)
{
    const char *host_name = "MASTER_ADDR", *port_name = "MASTER_PORT";
    if (wish->rdzv_endpoint != NULL) return take_option(p, wish->rdzv_endpoint);
    if (p->size == 1) return CUDPO_OK;
    const char *host = variables_get(v, host_name), *port = variables_get(v, port_name);
    if (p->launcher == LAUNCHER_KUBERNETES && host == NULL && port == NULL) {
        host = variables_get(v, host_name = "PET_MASTER_ADDR");
        port = variables_get(v, port_name = "PET_MASTER_PORT");
    }
    CUDPO_TRY(variables_copy(p->address, host_name, host));
    if (port != NULL) CUDPO_TRY(set_port(p, port_name, port));
    if (p->launcher == LAUNCHER_SLURM) return complete_slurm(p, v);
    const bool has_host = p->address[0] != '\0', has_port = p->port != 0;
    if (!has_host && !has_port && p->pmix) return CUDPO_OK;
    if (!has_host || !has_port)
        return cudpo_fail(CUDPO_ECONFIG, has_host ? "MASTER_PORT" : "MASTER_ADDR",
                          "is missing: %s says who the ranks are and not where rank 0 listens; set "
                          "MASTER_ADDR and MASTER_PORT, or say --rdzv_endpoint HOST:PORT",
                          p->source);
    if (p->launcher == LAUNCHER_TORCHRUN) avoid_agent(p, v);
    return CUDPO_OK;
}
