/* rendezvous.h - the ranks of a run find rank 0, which waits until all are there.
 *
 * Where rank 0 listens.  Ranks that are all on one node meet on 127.0.0.1, whatever the launcher says.  Otherwise rank 0 is at
 * placement's address; all that is not loopback needs a token or the user's word (`open`).  Flags name one port.  What other
 * launchers name may be taken, by another run with the same default or by whoever was given a port that placement derived; so
 * there are TARGET_PORTS candidates: that port, and others in 15000..31999 that follow from it and the run id.  Rank 0 listens on
 * the first that is free, the others try all of them in turn, and the handshake tells whether it is the right rank 0. */
#ifndef CUDPO_DIST_RENDEZVOUS_H
#define CUDPO_DIST_RENDEZVOUS_H

#include "dist/handshake.h"
#include "dist/pmix.h"

enum { TARGET_HOSTS = 8, TARGET_PORTS = 8 };

typedef struct rendezvous_target {
    char host[TARGET_HOSTS][PLACEMENT_TEXT]; /* all of them are rank 0's */
    int hosts;
    int32_t port[TARGET_PORTS];
    int ports;
    bool open; /* not only loopback */
} rendezvous_target;

/* What to do where strangers could join. */
#define RENDEZVOUS_ASK                                                                      \
    "give all ranks a secret (--rdzv_token_file or CUDPO_RDZV_TOKEN_FILE), or let whoever " \
    "reaches "                                                                              \
    "the port join (--rdzv_insecure)"

/** Where rank 0 is by the placement.
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS where it names no address. */
CUDPO_MUST_USE cudpo_status rendezvous_where(rendezvous_target *out, const placement *place,
                                             bool open);

typedef struct rendezvous_listener {
    int fd[2]; /* -1: none */
    int32_t port;
} rendezvous_listener;

/** Listen at the target; port 0 is any free one.
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS; CUDPO_EPERM. */
CUDPO_MUST_USE cudpo_status rendezvous_listen(rendezvous_listener *out,
                                              const rendezvous_target *target);
void rendezvous_stop(rendezvous_listener *l);

/* Is PMIx the way?  Where nothing else says where rank 0 is, and where it spares a port that was only derived. */
bool rendezvous_is_by_pmix(const placement *place);

/* `stopped` of the following is asked now and then whether to give up, which ends them with CUDPO_ESTOPPED and this; NULL: never. */
#define RENDEZVOUS_STOPPED \
    "stopped by a signal before all ranks had met: run the same command again"

/** Rank 0: listen on a free port and leave it with PMIx.  All: learn where rank 0 is, and the token of this run.
 *  Out:     l  of rank 0; the others have none.
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS; CUDPO_ENOMEM. */
enum { RENDEZVOUS_SECRET = 2 * CONTROL_SECRET + 1 };
CUDPO_MUST_USE cudpo_status rendezvous_by_pmix(rendezvous_target *target,
                                               char secret[RENDEZVOUS_SECRET],
                                               rendezvous_listener *l, pmix *session,
                                               const placement *place, double seconds,
                                               bool (*stopped)(void));

/* What came of it. */
typedef struct rendezvous_links {
    wire *wires; /* rank 0: [size], that of rank 0 closed; others: [1], to rank 0 */
    uint8_t secret[CONTROL_SECRET];
    char address[HANDSHAKE_ADDRESS]; /* of this rank, as others reach it */
} rendezvous_links;

/* What a rank says that was told to stop while it waited. */
#define RENDEZVOUS_STOPPED \
    "stopped by a signal before all ranks had met: run the same command again"

/** Rank 0: wait for all the others, for `seconds`.  Others: join rank 0.
 *  Returns: CUDPO_OK; CUDPO_ERENDEZVOUS; CUDPO_ESTOPPED; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status rendezvous_receive(rendezvous_links *out, rendezvous_listener *l,
                                               const handshake_self *self, double seconds,
                                               bool (*stopped)(void));
CUDPO_MUST_USE cudpo_status rendezvous_join(rendezvous_links *out, const rendezvous_target *target,
                                            const handshake_self *self, double seconds,
                                            bool (*stopped)(void));

/* "rank 3", "ranks 3 and 7", "ranks 3, 7, 9 and 20 more": those that are marked. */
enum { RANKS_TEXT = 128 };
void rendezvous_ranks(char out[RANKS_TEXT], const bool *marked, int32_t size);

/* Addresses of sockets and hosts; address.c. */
struct sockaddr;
struct addrinfo;
bool address_is_loopback(const struct sockaddr *a);
void address_text(char out[HANDSHAKE_ADDRESS], const struct sockaddr *a); /* without the port */
void address_of_socket(char out[HANDSHAKE_ADDRESS], int fd, bool *loopback);
/** Look a name up.  Returns what getaddrinfo() does. */
int address_find(struct addrinfo **out, const char *host, int32_t port);

#endif /* CUDPO_DIST_RENDEZVOUS_H */
