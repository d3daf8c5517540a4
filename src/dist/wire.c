/* wire.c - see wire.h.  Sockets are non-blocking, so that nobody who sends slowly or reads nothing holds up the others. */
#include "dist/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

double wire_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Little endian on every machine. */
static void store(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t load(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes; i-- > 0;)
        value = value << 8 | at[i];
    return value;
}

static void make_head(uint8_t head[WIRE_HEAD], wire_type type, uint64_t count, size_t length)
{
    store(head, length, 4);
    store(head + 4, (uint64_t)type, 4);
    store(head + 8, count, 8);
}

size_t wire_span_left(const wire_span *s)
{
    return s->size[0] + s->size[1] - s->done;
}

/* The piece that comes next, of at most n bytes. */
static uint8_t *span_next(const wire_span *s, size_t *n)
{
    const int piece = s->done >= s->size[0];
    const size_t at = s->done - (piece ? s->size[0] : 0);
    if (*n > s->size[piece] - at) *n = s->size[piece] - at;
    return s->at[piece] + at;
}

void wire_open(wire *w, int fd)
{
    *w = (wire){.fd = fd, .heard = wire_clock()};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void wire_close(wire *w)
{
    if (w->fd >= 0) close(w->fd);
    buffer_free(&w->urgent);
    *w = (wire){.fd = -1};
}

static void forget_output(wire *w)
{
    buffer_clear(&w->urgent);
    w->urgent_sent = w->head_left = w->chunk_left = 0;
    w->bulk = (wire_span){0};
}

bool wire_send(wire *w, wire_type type, uint64_t count, const void *data, size_t n)
{
    uint8_t head[WIRE_HEAD];
    if (w->fd < 0) return false;
    make_head(head, type, count, n);
    if (buffer_reserve(&w->urgent, sizeof head + n) == CUDPO_OK &&
        buffer_append(&w->urgent, head, sizeof head) == CUDPO_OK &&
        (n == 0 || buffer_append(&w->urgent, data, n) == CUDPO_OK))
        return true;
    forget_output(w);
    shutdown(w->fd, SHUT_RDWR);
    return false;
}

void wire_send_bulk(wire *w, uint64_t count, wire_span data)
{
    w->bulk = data;
    w->bulk_count = count;
}

void wire_detach(wire *w)
{
    buffer rest = {0};
    bool ok = w->head_left == 0 || buffer_append(&rest, w->out_head + WIRE_HEAD - w->head_left,
                                                 w->head_left) == CUDPO_OK;
    w->sink = (wire_span){0};
    while (ok && w->chunk_left > 0) {
        size_t n = w->chunk_left;
        const uint8_t *from = span_next(&w->bulk, &n);
        ok = buffer_append(&rest, from, n) == CUDPO_OK;
        w->bulk.done += n;
        w->chunk_left -= n;
    }
    if (ok && w->urgent.size > w->urgent_sent)
        ok = buffer_append(&rest, w->urgent.data + w->urgent_sent,
                           w->urgent.size - w->urgent_sent) == CUDPO_OK;
    forget_output(w);
    if (ok) {
        buffer_free(&w->urgent);
        w->urgent = rest;
    } else {
        buffer_free(&rest);
        if (w->fd >= 0) shutdown(w->fd, SHUT_RDWR);
    }
}

/* Bytes that went; 0: no more for now. */
static size_t put_out(wire *w, const void *data, size_t n)
{
    ssize_t sent;
    do
        sent = send(w->fd, data, n, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0) return (size_t)sent;
    if (errno != EAGAIN && errno != EWOULDBLOCK) forget_output(w);
    return 0;
}

void wire_flush(wire *w)
{
    while (w->fd >= 0 && !wire_is_flushed(w)) {
        size_t n, sent;
        if (w->head_left > 0) {
            n = w->head_left;
            sent = put_out(w, w->out_head + WIRE_HEAD - n, n);
            w->head_left -= sent;
        } else if (w->chunk_left > 0) {
            n = w->chunk_left;
            const uint8_t *from = span_next(&w->bulk, &n);
            sent = put_out(w, from, n);
            w->bulk.done += sent;
            w->chunk_left -= sent;
        } else if (w->urgent.size > 0) {
            n = w->urgent.size - w->urgent_sent;
            sent = put_out(w, w->urgent.data + w->urgent_sent, n);
            w->urgent_sent += sent;
            if (w->urgent_sent == w->urgent.size) {
                buffer_clear(&w->urgent);
                w->urgent_sent = 0;
            }
        } else {
            n = wire_span_left(&w->bulk);
            w->chunk_left = n < WIRE_CHUNK ? n : WIRE_CHUNK;
            w->head_left = WIRE_HEAD;
            make_head(w->out_head, WIRE_DATA, w->bulk_count, w->chunk_left);
            continue;
        }
        if (sent < n) return;
    }
}

bool wire_is_flushed(const wire *w)
{
    return w->urgent.size == 0 && w->head_left == 0 && wire_span_left(&w->bulk) == 0;
}

/* Read up to n bytes to `to`; *got is what came. */
static wire_event take_in(wire *w, void *to, size_t n, size_t *got)
{
    ssize_t r;
    *got = 0;
    do
        r = recv(w->fd, to, n, 0);
    while (r < 0 && errno == EINTR);
    if (r == 0) return WIRE_CLOSED;
    if (r < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? WIRE_NOTHING : WIRE_BROKEN;
    *got = (size_t)r;
    w->heard = wire_clock();
    return WIRE_FRAME;
}

static wire_event broken(int why)
{
    errno = why;
    return WIRE_BROKEN;
}

static wire_event check_head(wire *w)
{
    const uint64_t type = load(w->in_head + 4, 4);
    w->length = (size_t)load(w->in_head, 4);
    w->count = load(w->in_head + 8, 8);
    if (type < WIRE_CHALLENGE || type >= WIRE_TYPES) return broken(EPROTO);
    w->type = (wire_type)type;
    if (w->type == WIRE_DATA)
        return w->length <= wire_span_left(&w->sink) && w->count == w->sink_count ? WIRE_FRAME
                                                                                  : broken(EPROTO);
    return w->length <= WIRE_SMALL ? WIRE_FRAME : broken(EPROTO);
}

wire_event wire_read(wire *w)
{
    if (w->fd < 0) return WIRE_CLOSED;
    for (;;) {
        size_t n, got;
        void *to;
        if (w->have < WIRE_HEAD) {
            n = WIRE_HEAD - w->have;
            to = w->in_head + w->have;
        } else {
            n = w->length - (w->have - WIRE_HEAD);
            to = w->type == WIRE_DATA && n > 0 ? span_next(&w->sink, &n)
                                               : w->small + (w->have - WIRE_HEAD);
        }
        if (n > 0) {
            const wire_event e = take_in(w, to, n, &got);
            if (e != WIRE_FRAME) return e;
            if (w->have >= WIRE_HEAD && w->type == WIRE_DATA) w->sink.done += got;
            w->have += got;
            if (w->have == WIRE_HEAD && got > 0 && check_head(w) == WIRE_BROKEN) return WIRE_BROKEN;
        }
        if (w->have >= WIRE_HEAD && w->have - WIRE_HEAD == w->length) {
            w->have = 0;
            return WIRE_FRAME;
        }
    }
}

wire_event wire_drain(wire *w)
{
    uint8_t nowhere[4096];
    size_t got;
    wire_event e = w->fd < 0 ? WIRE_CLOSED : WIRE_FRAME;
    while (e == WIRE_FRAME)
        e = take_in(w, nowhere, sizeof nowhere, &got);
    return e;
}

wire_event wire_wait(wire *w, double deadline)
{
    for (;;) {
        const wire_event e = wire_read(w);
        const double left = deadline - wire_clock();
        if (e != WIRE_NOTHING || left <= 0) return e;
        struct pollfd p = {.fd = w->fd, .events = POLLIN};
        (void)poll(&p, 1, left < 1 ? (int)(left * 1e3) + 1 : 1000);
    }
}

void wire_put(wire_fields *f, const void *data, size_t n)
{
    if (f->bad || n > (size_t)(f->end - f->at)) {
        f->bad = true;
        return;
    }
    if (n > 0) memcpy(f->at, data, n);
    f->at += n;
}

void wire_put_int(wire_fields *f, int64_t value)
{
    uint8_t bytes[8];
    store(bytes, (uint64_t)value, 8);
    wire_put(f, bytes, sizeof bytes);
}

void wire_put_text(wire_fields *f, const char *text)
{
    const size_t n = strlen(text);
    wire_put_int(f, (int64_t)n);
    wire_put(f, text, n);
}

void wire_get(wire_fields *f, void *data, size_t n)
{
    if (f->bad || n > (size_t)(f->end - f->at)) {
        f->bad = true;
        memset(data, 0, n);
        return;
    }
    memcpy(data, f->at, n);
    f->at += n;
}

int64_t wire_get_int(wire_fields *f)
{
    uint8_t bytes[8];
    wire_get(f, bytes, sizeof bytes);
    return (int64_t)load(bytes, 8);
}

void wire_get_text(wire_fields *f, char *text, size_t size)
{
    const int64_t n = wire_get_int(f);
    text[0] = '\0';
    if (f->bad || n < 0 || n >= (int64_t)size || n > f->end - f->at) {
        f->bad = true;
        return;
    }
    wire_get(f, text, (size_t)n);
    text[n] = '\0';
}
