/* address.c - where rank 0 listens, and what addresses look like. */
#include "dist/rendezvous.h"
#include "base/hash.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

bool address_is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)a;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *v6 = (const void *)a;
    if (a->sa_family != AF_INET6) return false;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) return v6->sin6_addr.s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

void address_text(char out[HANDSHAKE_ADDRESS], const struct sockaddr *a)
{
    const struct sockaddr_in6 *v6 = (const void *)a;
    const char *text = NULL;
    if (a->sa_family == AF_INET)
        text = inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a)->sin_addr, out,
                         HANDSHAKE_ADDRESS);
    else if (a->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
        text = inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], out, HANDSHAKE_ADDRESS);
    else if (a->sa_family == AF_INET6)
        text = inet_ntop(AF_INET6, &v6->sin6_addr, out, HANDSHAKE_ADDRESS);
    if (text == NULL) snprintf(out, HANDSHAKE_ADDRESS, "?");
}

void address_of_socket(char out[HANDSHAKE_ADDRESS], int fd, bool *loopback)
{
    struct sockaddr_storage a = {0};
    socklen_t size = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &size) != 0) a.ss_family = AF_UNSPEC;
    address_text(out, (struct sockaddr *)&a);
    *loopback = address_is_loopback((struct sockaddr *)&a);
}

int address_find(struct addrinfo **out, const char *host, int32_t port)
{
    char service[16];
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    snprintf(service, sizeof service, "%d", (int)port);
    *out = NULL;
    return getaddrinfo(host, service, &hints, out);
}

/* One of those to try behind the placement's, outside of what systems hand out to clients. */
static int32_t derived_port(const placement *place, int index)
{
    char text[PLACEMENT_TEXT + 32];
    const int n = snprintf(text, sizeof text, "%s %d %d", place->run_id, (int)place->port, index);
    return 15000 + (int32_t)(hash64_bytes(text, (size_t)n) % 17000);
}

cudpo_status rendezvous_where(rendezvous_target *out, const placement *place, bool open)
{
    const bool one_node = place->local_size == place->size;
    *out = (rendezvous_target){.hosts = 1, .open = open && !one_node};
    if (!one_node && place->address[0] == '\0')
        return cudpo_fail(CUDPO_ERENDEZVOUS, "rank 0",
                          "nothing says where it is: give --rdzv_endpoint HOST:PORT");
    snprintf(out->host[0], sizeof out->host[0], "%s", one_node ? "127.0.0.1" : place->address);
    if (place->launcher == LAUNCHER_FLAGS) {
        out->port[out->ports++] = place->port;
        return CUDPO_OK;
    }
    if (place->port != 0) out->port[out->ports++] = place->port;
    while (out->ports < TARGET_PORTS) {
        out->port[out->ports] = derived_port(place, out->ports);
        out->ports++;
    }
    return CUDPO_OK;
}

/* A listening socket, or -1 and errno. */
static int listen_at(const struct sockaddr *a, socklen_t size)
{
    const int one = 1, none = 0;
    const int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    /* Not SO_REUSEPORT: with it a second listener would silently take half of the ranks. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->sa_family == AF_INET6) {
        const bool any =
            IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &none : &one, sizeof one);
    }
    if (bind(fd, a, size) == 0 && listen(fd, 4096) == 0) return fd;
    const int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static int32_t port_of(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t size = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &size) != 0) return 0;
    return a.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)(void *)&a)->sin6_port)
                                   : ntohs(((struct sockaddr_in *)(void *)&a)->sin_port);
}

/* All addresses of this host; IPv4 alone where there is no IPv6.  0, or errno. */
static int listen_everywhere(rendezvous_listener *l, int32_t port)
{
    const struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = IN6ADDR_ANY_INIT};
    const struct sockaddr_in v4 = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_ANY)};
    l->fd[0] = listen_at((const struct sockaddr *)&v6, sizeof v6);
    if (l->fd[0] < 0 && errno != EADDRINUSE && errno != EACCES)
        l->fd[0] = listen_at((const struct sockaddr *)&v4, sizeof v4);
    return l->fd[0] < 0 ? errno : 0;
}

/* The loopback addresses that a name stands for.  0, or errno. */
static int listen_loopback(rendezvous_listener *l, const char *host, int32_t port)
{
    struct addrinfo *all;
    int n = 0, why = EADDRNOTAVAIL;
    if (address_find(&all, host, port) != 0) return why;
    for (const struct addrinfo *a = all; a != NULL && n < 2; a = a->ai_next) {
        if (!address_is_loopback(a->ai_addr)) continue;
        const int fd = listen_at(a->ai_addr, a->ai_addrlen);
        if (fd >= 0) {
            l->fd[n++] = fd;
        } else if (errno ==
                   EADDRINUSE) { /* half of a port is somebody else's: ranks would go there */
            why = errno;
            rendezvous_stop(l);
            n = 0;
            break;
        } else {
            why = errno;
        }
        if (port == 0 && n > 0) break;
    }
    freeaddrinfo(all);
    return n > 0 ? 0 : why;
}

/* Whether all of a name's addresses are loopback. */
static cudpo_status look_up(bool *loopback, const char *host)
{
    struct addrinfo *all;
    const int e = address_find(&all, host, 1);
    if (e != 0)
        return cudpo_fail(CUDPO_ERENDEZVOUS, host, "no address of rank 0: %s", gai_strerror(e));
    *loopback = true;
    for (const struct addrinfo *a = all; a != NULL; a = a->ai_next)
        *loopback = *loopback && address_is_loopback(a->ai_addr);
    freeaddrinfo(all);
    return CUDPO_OK;
}

/* A host's own name is often 127.0.1.1 to itself and something else to others, so only these mean it. */
static bool means_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

cudpo_status rendezvous_listen(rendezvous_listener *out, const rendezvous_target *target)
{
    const char *host = target->host[0];
    bool everywhere = target->open && !means_loopback(host), loopback = true;
    int why = 0;
    *out = (rendezvous_listener){.fd = {-1, -1}};
    if (!everywhere) CUDPO_TRY(look_up(&loopback, host));
    if (!loopback && !target->open)
        return cudpo_fail(CUDPO_ERENDEZVOUS, host, "is open to others: " RENDEZVOUS_ASK);
    everywhere = everywhere || !loopback;
    for (int i = 0; i < target->ports; i++) {
        why = everywhere ? listen_everywhere(out, target->port[i])
                         : listen_loopback(out, host, target->port[i]);
        if (why == 0) {
            out->port = port_of(out->fd[0]);
            return CUDPO_OK;
        }
        if (why != EADDRINUSE) break;
    }
    return cudpo_fail(why == EACCES || why == EPERM ? CUDPO_EPERM : CUDPO_ERENDEZVOUS, host,
                      "rank 0 can't listen on port %d%s: %s", (int)target->port[0],
                      target->ports > 1 ? " or those that follow from it" : "", strerror(why));
}

void rendezvous_stop(rendezvous_listener *l)
{
    for (int i = 0; i < 2; i++) {
        if (l->fd[i] >= 0) close(l->fd[i]);
        l->fd[i] = -1;
    }
}

void rendezvous_ranks(char out[RANKS_TEXT], const bool *marked, int32_t size)
{
    enum { SHOWN = 8 };
    int32_t total = 0, shown = 0;
    for (int32_t r = 0; r < size; r++)
        total += marked[r];
    int used = snprintf(out, RANKS_TEXT, total == 1 ? "rank" : "ranks");
    const int32_t last = total <= SHOWN ? total : SHOWN;
    for (int32_t r = 0; r < size && shown < last; r++) {
        if (!marked[r]) continue;
        const char *between = shown == 0 ? " " : shown + 1 == total ? " and " : ", ";
        used += snprintf(out + used, (size_t)(RANKS_TEXT - used), "%s%d", between, (int)r);
        shown++;
    }
    if (total > last)
        snprintf(out + used, (size_t)(RANKS_TEXT - used), " and %d more", (int)(total - last));
}
