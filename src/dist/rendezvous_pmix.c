/* rendezvous_pmix.c - rank 0 listens on a free port and leaves it with PMIx, with all of its addresses and a secret that becomes
 * the token: only processes of this job can read it there. */
#include "dist/pmix.h"
#include "dist/rendezvous.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char key[] = "cudpo.control";
enum { PUBLISHED = 1024 };

/* " ADDRESS ADDRESS ...": of every interface that another host could reach; of a link alone it could not. */
static cudpo_status own_addresses(char *out, size_t size)
{
    struct ifaddrs *all;
    int n = 0;
    if (getifaddrs(&all) != 0)
        return cudpo_fail(CUDPO_ERENDEZVOUS, "rank 0", "no addresses: %s", strerror(errno));
    out[0] = '\0';
    for (const struct ifaddrs *i = all; i != NULL && n < TARGET_HOSTS; i = i->ifa_next) {
        const struct sockaddr *a = i->ifa_addr;
        char text[HANDSHAKE_ADDRESS];
        if (a == NULL || (a->sa_family != AF_INET && a->sa_family != AF_INET6)) continue;
        const struct sockaddr_in6 *v6 = (const void *)a;
        if (address_is_loopback(a) ||
            (a->sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)))
            continue;
        address_text(text, a);
        const size_t used = strlen(out);
        snprintf(out + used, size - used, " %s", text);
        n++;
    }
    freeifaddrs(all);
    return n > 0 ? CUDPO_OK
                 : cudpo_fail(CUDPO_ERENDEZVOUS, "rank 0", "has no address but loopback");
}

static cudpo_status publish(pmix *p, rendezvous_listener *l, bool one_node)
{
    const rendezvous_target here = {
        .host = {"127.0.0.1"}, .hosts = 1, .port = {0}, .ports = 1, .open = false};
    const rendezvous_target everywhere = {
        .host = {"0.0.0.0"}, .hosts = 1, .port = {0}, .ports = 1, .open = true};
    char text[PUBLISHED], addresses[PUBLISHED / 2] = " 127.0.0.1", hex[2 * CONTROL_SECRET + 1];
    uint8_t secret[CONTROL_SECRET];
    if (!one_node) CUDPO_TRY(own_addresses(addresses, sizeof addresses));
    CUDPO_TRY(rendezvous_listen(l, one_node ? &here : &everywhere));
    randombytes_buf(secret, sizeof secret);
    sodium_bin2hex(hex, sizeof hex, secret, sizeof secret);
    snprintf(text, sizeof text, "%d %s%s", (int)l->port, hex, addresses);
    return pmix_put(p, key, text);
}

static cudpo_status read_published(rendezvous_target *target, char secret[RENDEZVOUS_SECRET],
                                   char *text, bool one_node)
{
    char *rest, *word = strtok_r(text, " ", &rest);
    *target = (rendezvous_target){.ports = 1, .open = !one_node};
    target->port[0] = word != NULL ? (int32_t)strtol(word, NULL, 10) : 0;
    word = strtok_r(NULL, " ", &rest);
    snprintf(secret, RENDEZVOUS_SECRET, "%s", word != NULL ? word : "");
    while ((word = strtok_r(NULL, " ", &rest)) != NULL && target->hosts < TARGET_HOSTS)
        snprintf(target->host[target->hosts++], PLACEMENT_TEXT, "%s", word);
    if (target->hosts > 0 && target->port[0] > 0 && strlen(secret) == RENDEZVOUS_SECRET - 1)
        return CUDPO_OK;
    return cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx", "what rank 0 left there makes no sense");
}

static cudpo_status meet(pmix *p, rendezvous_target *target, char secret[RENDEZVOUS_SECRET],
                         rendezvous_listener *l, const placement *place, double seconds,
                         bool (*stopped)(void))
{
    char text[PUBLISHED];
    const bool one_node = place->local_size == place->size;
    if (place->rank == 0) CUDPO_TRY(publish(p, l, one_node));
    CUDPO_TRY(pmix_fence(p, seconds, stopped));
    CUDPO_TRY(pmix_get(p, text, sizeof text, 0, key));
    const cudpo_status s = read_published(target, secret, text, one_node);
    sodium_memzero(text, sizeof text);
    return s;
}

bool rendezvous_is_by_pmix(const placement *place)
{
    return place->pmix && (place->port == 0 || (place->derived && pmix_is_built()));
}

cudpo_status rendezvous_by_pmix(rendezvous_target *target, char secret[RENDEZVOUS_SECRET],
                                rendezvous_listener *l, pmix *p, const placement *place,
                                double seconds, bool (*stopped)(void))
{
    *l = (rendezvous_listener){.fd = {-1, -1}};
    if (pmix_rank(p) != place->rank)
        return cudpo_fail(CUDPO_ERENDEZVOUS, "PMIx", "knows this as rank %d, not %d",
                          (int)pmix_rank(p), (int)place->rank);
    const cudpo_status s = meet(p, target, secret, l, place, seconds, stopped);
    if (s != CUDPO_OK) rendezvous_stop(l);
    return s;
}
