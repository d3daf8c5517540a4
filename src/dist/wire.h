/* wire.h - frames over a TCP connection that never blocks: what rank 0 and the others say to each other.
 *
 * A frame is a head of 16 bytes (length u32, type u32, count u64, little endian) and `length` bytes.  All but DATA are small,
 * and go out before data that waits, so that the end of a run never queues behind a gigabyte.  A connection is used by one
 * thread at a time. */
#ifndef CUDPO_DIST_WIRE_H
#define CUDPO_DIST_WIRE_H

#include "base/buffer.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum wire_type {
    WIRE_CHALLENGE = 1, /* before the ranks trust each other: handshake.h */
    WIRE_HELLO,
    WIRE_ACCEPTED,
    WIRE_REFUSED,
    WIRE_WELCOME,
    WIRE_BEAT, /* from here on: company.h */
    WIRE_GIVE,
    WIRE_TAKE,
    WIRE_DATA,
    WIRE_ABORT,
    WIRE_BYE,
    WIRE_TYPES
} wire_type;

enum {
    WIRE_HEAD = 16,
    WIRE_SMALL = 1536,   /* longest frame but DATA */
    WIRE_CHUNK = 1 << 16 /* longest DATA */
};

/* Memory in two pieces, filled or sent in order. */
typedef struct wire_span {
    uint8_t *at[2];
    size_t size[2];
    size_t done;
} wire_span;
size_t wire_span_left(const wire_span *s);

typedef struct wire {
    int fd;       /* -1: closed */
    double heard; /* when the last byte came */

    uint8_t in_head[WIRE_HEAD];
    uint8_t small[WIRE_SMALL]; /* of the frame that came last */
    size_t have;               /* bytes of the frame under way, its head included */
    wire_type type;            /* of the frame that came last */
    size_t length;
    uint64_t count;
    wire_span sink; /* where DATA goes; more of it than fits breaks the connection */
    uint64_t sink_count;

    buffer urgent; /* small frames that wait */
    size_t urgent_sent;
    wire_span bulk; /* the sender's memory: stays valid until it is sent or wire_detach() */
    uint64_t bulk_count;
    uint8_t out_head[WIRE_HEAD];
    size_t head_left, chunk_left; /* of the DATA frame under way */
} wire;

typedef enum wire_event {
    WIRE_NOTHING, /* for now */
    WIRE_FRAME,   /* a whole one came; of DATA: is in its place */
    WIRE_CLOSED,  /* by the other end */
    WIRE_BROKEN   /* errno says why; EPROTO: no sense in what came */
} wire_event;

void wire_open(wire *w, int fd); /* takes fd, makes it non-blocking */
void wire_close(wire *w);

/* Queue a small frame.  false: memory ran out, the connection is shut down and the other end will see that. */
bool wire_send(wire *w, wire_type type, uint64_t count, const void *data, size_t n);
/* Queue data; one lot at a time. */
void wire_send_bulk(wire *w, uint64_t count, wire_span data);
/* Forget the sender's memory and the sink; a DATA frame under way is completed from a copy. */
void wire_detach(wire *w);

/* Send what the system takes.  What can't be sent any more is forgotten: reading tells why. */
void wire_flush(wire *w);
bool wire_is_flushed(const wire *w);

wire_event wire_read(wire *w);
/* Read and forget what there is, frames or not.  WIRE_NOTHING, WIRE_CLOSED or WIRE_BROKEN. */
wire_event wire_drain(wire *w);

/* Wait for a frame; WIRE_NOTHING where none came by `deadline`. */
wire_event wire_wait(wire *w, double deadline);

double wire_clock(void); /* s, monotonic */

/* Fields of a small frame, written and read in the same order.  `bad` once something did not fit or was missing. */
typedef struct wire_fields {
    uint8_t *at, *end;
    bool bad;
} wire_fields;
void wire_put(wire_fields *f, const void *data, size_t n);
void wire_put_int(wire_fields *f, int64_t value);
void wire_put_text(wire_fields *f, const char *text);
void wire_get(wire_fields *f, void *data, size_t n);
int64_t wire_get_int(wire_fields *f);
void wire_get_text(wire_fields *f, char *text, size_t size); /* `bad` where it is longer */

#endif /* CUDPO_DIST_WIRE_H */
