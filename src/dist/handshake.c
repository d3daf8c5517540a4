/* handshake.c - the messages of handshake.h.  Every field of a HELLO is under the MAC, and each message's MAC is made with a label
 * of its own, so that none can be sent back as another. */
#include "dist/handshake.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { MAGIC = 8, MAC = crypto_auth_hmacsha256_BYTES };
static const char magic[MAGIC] = "cudpo 1"; /* the protocol's version is part of it */

static void make_mac(uint8_t mac[MAC], const char *label, const handshake_nonces *nonces,
                     const handshake_self *self, const uint8_t *data, size_t n)
{
    crypto_auth_hmacsha256_state s;
    crypto_auth_hmacsha256_init(&s, self->token, self->token_size);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)label, strlen(label) + 1);
    crypto_auth_hmacsha256_update(&s, nonces->hub, HANDSHAKE_NONCE);
    crypto_auth_hmacsha256_update(&s, nonces->peer, HANDSHAKE_NONCE);
    crypto_auth_hmacsha256_update(&s, data, n);
    crypto_auth_hmacsha256_final(&s, mac);
}

/* Put the MAC of all that was put since `begin` and send it. */
static bool send_signed(wire *w, wire_type type, const char *label, wire_fields *f, uint8_t *begin,
                        const handshake_nonces *nonces, const handshake_self *self)
{
    uint8_t mac[MAC];
    if (f->bad) return false;
    make_mac(mac, label, nonces, self, begin, (size_t)(f->at - begin));
    wire_put(f, mac, sizeof mac);
    return !f->bad && wire_send(w, type, 0, begin, (size_t)(f->at - begin));
}

/* The MAC of all that was read since `begin` comes next and is the frame's end. */
static bool is_signed(wire_fields *f, const uint8_t *begin, const char *label,
                      const handshake_nonces *nonces, const handshake_self *self)
{
    uint8_t mac[MAC], want[MAC];
    const size_t n = (size_t)(f->at - begin);
    wire_get(f, mac, sizeof mac);
    if (f->bad || f->at != f->end) return false;
    make_mac(want, label, nonces, self, begin, n);
    return sodium_memcmp(mac, want, sizeof mac) == 0;
}

/* What a frame holds; fields are only read through it. */
static wire_fields fields_of(const wire *w)
{
    uint8_t *const begin = (uint8_t *)(uintptr_t)w->small;
    return (wire_fields){.at = begin, .end = begin + w->length};
}

bool handshake_challenge(wire *w, handshake_nonces *nonces)
{
    uint8_t data[MAGIC + HANDSHAKE_NONCE];
    randombytes_buf(nonces->hub, sizeof nonces->hub);
    memcpy(data, magic, MAGIC);
    memcpy(data + MAGIC, nonces->hub, HANDSHAKE_NONCE);
    return wire_send(w, WIRE_CHALLENGE, 0, data, sizeof data);
}

bool handshake_hello(wire *w, handshake_nonces *nonces, const handshake_self *self)
{
    uint8_t data[WIRE_SMALL];
    wire_fields f = fields_of(w);
    char theirs[MAGIC];
    wire_get(&f, theirs, MAGIC);
    wire_get(&f, nonces->hub, HANDSHAKE_NONCE);
    if (w->type != WIRE_CHALLENGE || f.bad || f.at != f.end || memcmp(theirs, magic, MAGIC) != 0)
        return false;
    randombytes_buf(nonces->peer, sizeof nonces->peer);
    f = (wire_fields){.at = data, .end = data + sizeof data};
    wire_put(&f, magic, MAGIC);
    wire_put(&f, nonces->peer, HANDSHAKE_NONCE);
    wire_put_text(&f, self->run_id);
    wire_put_text(&f, self->build);
    wire_put_int(&f, self->rank);
    wire_put_int(&f, self->size);
    return send_signed(w, WIRE_HELLO, "hello", &f, data, nonces, self);
}

handshake_verdict handshake_check_hello(const wire *w, handshake_nonces *nonces,
                                        const handshake_self *self, int32_t *rank, char *why)
{
    char theirs[MAGIC], run_id[PLACEMENT_TEXT], build[HANDSHAKE_BUILD];
    wire_fields f = fields_of(w);
    wire_get(&f, theirs, MAGIC);
    wire_get(&f, nonces->peer, HANDSHAKE_NONCE);
    wire_get_text(&f, run_id, sizeof run_id);
    wire_get_text(&f, build, sizeof build);
    const int64_t r = wire_get_int(&f), size = wire_get_int(&f);
    if (w->type != WIRE_HELLO || f.bad || (size_t)(f.end - f.at) != MAC ||
        memcmp(theirs, magic, MAGIC) != 0) {
        snprintf(why, HANDSHAKE_TEXT, "it is no cudpo of this protocol");
        return HANDSHAKE_NONSENSE;
    }
    if (!is_signed(&f, w->small, "hello", nonces, self)) {
        snprintf(why, HANDSHAKE_TEXT, "its token is not rank 0's, or one of the two has none");
        return HANDSHAKE_FOREIGN;
    }
    if (strcmp(run_id, self->run_id) != 0) {
        snprintf(why, HANDSHAKE_TEXT, "it is of run '%.100s', and rank 0 of '%.100s'", run_id,
                 self->run_id);
        return HANDSHAKE_FOREIGN;
    }
    why[0] = '\0';
    if (strcmp(build, self->build) != 0)
        snprintf(why, HANDSHAKE_TEXT, "it is build %s, and rank 0 is %s", build, self->build);
    else if (size != self->size)
        snprintf(why, HANDSHAKE_TEXT, "it counts %lld ranks, and rank 0 counts %d", (long long)size,
                 (int)self->size);
    else if (r < 1 || r >= size)
        snprintf(why, HANDSHAKE_TEXT, "it calls itself rank %lld of %lld", (long long)r,
                 (long long)size);
    *rank = r >= 0 && r < MAX_RANKS ? (int32_t)r : -1;
    return why[0] == '\0' ? HANDSHAKE_GOOD : HANDSHAKE_WRONG;
}

bool handshake_accept(wire *w, const handshake_nonces *nonces, const handshake_self *self,
                      double seconds)
{
    uint8_t data[64];
    wire_fields f = {.at = data, .end = data + sizeof data};
    wire_put_int(&f, (int64_t)(seconds * 1e3));
    return send_signed(w, WIRE_ACCEPTED, "accepted", &f, data, nonces, self);
}

bool handshake_check_accepted(const wire *w, const handshake_nonces *nonces,
                              const handshake_self *self, double *seconds)
{
    wire_fields f = fields_of(w);
    *seconds = 1e-3 * (double)wire_get_int(&f);
    return w->type == WIRE_ACCEPTED && is_signed(&f, w->small, "accepted", nonces, self) &&
           *seconds >= 0;
}

bool handshake_refuse(wire *w, const handshake_nonces *nonces, const handshake_self *self,
                      handshake_verdict verdict, const char *why)
{
    uint8_t data[HANDSHAKE_TEXT + 64 + MAC];
    wire_fields f = {.at = data, .end = data + sizeof data};
    wire_put_int(&f, verdict);
    wire_put_text(&f, why);
    return send_signed(w, WIRE_REFUSED, "refused", &f, data, nonces, self);
}

handshake_verdict handshake_read_refusal(const wire *w, const handshake_nonces *nonces,
                                         const handshake_self *self, char *why)
{
    wire_fields f = fields_of(w);
    const int64_t verdict = wire_get_int(&f);
    wire_get_text(&f, why, HANDSHAKE_TEXT);
    if (w->type != WIRE_REFUSED || f.bad ||
        (verdict != HANDSHAKE_FOREIGN && verdict != HANDSHAKE_WRONG))
        return HANDSHAKE_NONSENSE;
    return is_signed(&f, w->small, "refused", nonces, self) ? (handshake_verdict)verdict
                                                            : HANDSHAKE_FOREIGN;
}

bool handshake_welcome(wire *w, const handshake_nonces *nonces, const handshake_self *self,
                       const uint8_t secret[CONTROL_SECRET], const char *address)
{
    uint8_t data[256];
    wire_fields f = {.at = data, .end = data + sizeof data};
    wire_put(&f, secret, CONTROL_SECRET);
    wire_put_text(&f, address);
    return send_signed(w, WIRE_WELCOME, "welcome", &f, data, nonces, self);
}

bool handshake_check_welcome(const wire *w, const handshake_nonces *nonces,
                             const handshake_self *self, uint8_t secret[CONTROL_SECRET],
                             char address[HANDSHAKE_ADDRESS])
{
    wire_fields f = fields_of(w);
    wire_get(&f, secret, CONTROL_SECRET);
    wire_get_text(&f, address, HANDSHAKE_ADDRESS);
    return w->type == WIRE_WELCOME && is_signed(&f, w->small, "welcome", nonces, self);
}
