/* handshake.h - how a rank and rank 0 convince each other that they are of one run, before anything else is believed.
 *
 *   rank 0 -> peer  CHALLENGE  magic, nonce
 *   peer -> rank 0  HELLO      magic, nonce, run id, build, rank, ranks; and a MAC of both nonces and all of these
 *   rank 0 -> peer  ACCEPTED   how long it will wait for the others; MAC: rank 0 knows the token, too
 *                or REFUSED    why, and whether another rank 0 may be meant; MAC
 *   rank 0 -> peer  WELCOME    once all are there: secret of the run, address of rank 0; MAC
 *                or REFUSED    the run can't begin; MAC
 *
 * MACs are HMAC-SHA-256 keyed with the token, which itself is never sent.  Nothing is encrypted: who can read the network
 * reads the secret, and who can change what is on it can take over a connection.  Without a token the key is empty, and
 * whoever reaches the port may join. */
#ifndef CUDPO_DIST_HANDSHAKE_H
#define CUDPO_DIST_HANDSHAKE_H

#include "dist/control.h"
#include "dist/wire.h"

enum { HANDSHAKE_NONCE = 32, HANDSHAKE_TEXT = 512, HANDSHAKE_ADDRESS = 64, HANDSHAKE_BUILD = 128 };

/* What all ranks of a run have in common, and which one this is. */
typedef struct handshake_self {
    const char *run_id, *build;
    const uint8_t *token;
    size_t token_size;
    int32_t rank, size;
} handshake_self;

typedef struct handshake_nonces {
    uint8_t hub[HANDSHAKE_NONCE], peer[HANDSHAKE_NONCE];
} handshake_nonces;

typedef enum handshake_verdict {
    HANDSHAKE_GOOD,
    HANDSHAKE_NONSENSE, /* not this protocol: a port scanner, another program */
    HANDSHAKE_FOREIGN,  /* another token or run id: perhaps another run on the same port */
    HANDSHAKE_WRONG     /* a rank of this run that can't take part */
} handshake_verdict;

/* Rank 0's side.  `why` [HANDSHAKE_TEXT] is set where the verdict is not good. */
bool handshake_challenge(wire *w, handshake_nonces *nonces);
handshake_verdict handshake_check_hello(const wire *w, handshake_nonces *nonces,
                                        const handshake_self *self, int32_t *rank, char *why);
bool handshake_accept(wire *w, const handshake_nonces *nonces, const handshake_self *self,
                      double seconds);
bool handshake_refuse(wire *w, const handshake_nonces *nonces, const handshake_self *self,
                      handshake_verdict verdict, const char *why);
bool handshake_welcome(wire *w, const handshake_nonces *nonces, const handshake_self *self,
                       const uint8_t secret[CONTROL_SECRET], const char *address);

/* A peer's side: what came is in w. */
bool handshake_hello(wire *w, handshake_nonces *nonces, const handshake_self *self);
bool handshake_check_accepted(const wire *w, const handshake_nonces *nonces,
                              const handshake_self *self, double *seconds);
/* Whoever does not know the token can't say that the run is over, only that it is another: HANDSHAKE_FOREIGN. */
handshake_verdict handshake_read_refusal(const wire *w, const handshake_nonces *nonces,
                                         const handshake_self *self, char *why);
bool handshake_check_welcome(const wire *w, const handshake_nonces *nonces,
                             const handshake_self *self, uint8_t secret[CONTROL_SECRET],
                             char address[HANDSHAKE_ADDRESS]);

#endif /* CUDPO_DIST_HANDSHAKE_H */
