/* Tests of the company with a rank that this test plays itself: one that talks nonsense, and one that reads slowly. */
/* rooms: base dist */
#include "test_control.h"

#include <errno.h>

/* Rank `rank` of the job is the test, and rank 0 has let it in. */
static void become(wire *w, job *j, int rank)
{
    handshake_nonces nonces;
    uint8_t secret[CONTROL_SECRET];
    char address[HANDSHAKE_ADDRESS];
    const handshake_self self = job_known_by("", rank, j->size);
    job_join_as(w, &nonces, j->port, &self);
    job_hear(w, WIRE_WELCOME);
    assert_true(handshake_check_welcome(w, &nonces, &self, secret, address));
    assert_string_equal(address, "127.0.0.1");
}

static cudpo_status meets(control *c, job *j, int rank)
{
    (void)j, (void)rank;
    return control_barrier(c, "met");
}

/* A rank of the run that then talks nonsense ends it with its name, and nothing worse. */
static void a_rank_that_talks_nonsense(void **state)
{
    uint8_t zeros[64] = {0}, large[64] = {0};
    large[0] = COMPANY_COLLECT;
    memset(large + 8, 0x7f, 16); /* bytes */
    const struct {
        wire_type type;
        size_t n;
        const void *data;
        const char *text;
    } cases[] = {
        {WIRE_GIVE, 5, zeros, "rank 1 gives what makes no sense"},
        {WIRE_GIVE, 32, large, "rank 1 gives what makes no sense"},
        {WIRE_TAKE, 32, zeros, "rank 1 sends what makes no sense"},
        {WIRE_HELLO, 32, zeros, "rank 1 sends what makes no sense"},
        {WIRE_ABORT, 32, zeros, "rank 1 was lost: it failed and did not say why"},
        {WIRE_DATA, 32, zeros, "rank 1 was lost: its connection broke: Protocol error"},
        {WIRE_BEAT, 3, zeros, "rank 1 was lost: it closed its connection"}, /* no harm in itself */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wire w;
        job j = job_make(2);
        job_start(&j, 0, meets);
        become(&w, &j, 1);
        assert_true(wire_send(&w, cases[i].type, 1, cases[i].data, cases[i].n));
        wire_flush(&w);
        /* Rank 0 says why before it goes; of a heartbeat it says nothing. */
        while (cases[i].type != WIRE_BEAT &&
               wire_wait(&w, wire_clock() + JOB_LIMIT) == WIRE_FRAME && w.type != WIRE_ABORT)
            continue;
        wire_close(&w);
        job_expect(&j, 0, CUDPO_EPEER, cases[i].text);
        job_free(&j);
    }
}

/* A frame that comes byte by byte is a frame. */
static void bytes_one_by_one(void **state)
{
    wire w, frames = {.fd = 0};
    uint8_t give[64];
    wire_fields f = {.at = give, .end = give + sizeof give};
    (void)state;
    job j = job_make(2);
    job_start(&j, 0, meets);
    become(&w, &j, 1);
    wire_put_int(&f, COMPANY_BARRIER);
    wire_put_int(&f, 0);
    wire_put_int(&f, 0);
    wire_put_text(&f, "met");
    assert_true(wire_send(&frames, WIRE_BEAT, 0, "", 0));
    assert_true(wire_send(&frames, WIRE_GIVE, 1, give, (size_t)(f.at - give)));
    assert_true(wire_send(&frames, WIRE_BYE, 0, NULL, 0));
    for (size_t i = 0; i < frames.urgent.size; i++) {
        assert_int_equal(send(w.fd, frames.urgent.data + i, 1, 0), 1);
        job_sleep(0.001);
    }
    while (wire_wait(&w, wire_clock() + JOB_LIMIT) == WIRE_FRAME && w.type == WIRE_BEAT)
        continue;
    assert_int_equal(w.type, WIRE_TAKE);
    job_expect(&j, 0, CUDPO_OK, "");
    buffer_free(&frames.urgent);
    wire_close(&w);
    job_free(&j);
}

enum { BLOCK = 64 << 20 };

/* Rank 1 has rank 0's block and fails, while rank 0 still sends it to rank 2. */
static cudpo_status fails_in_the_middle(control *c, job *j, int rank)
{
    uint8_t *block = malloc(BLOCK);
    (void)j;
    memset(block, 7, BLOCK);
    const cudpo_status s = control_broadcast(c, block, BLOCK, "block");
    free(block);
    if (rank == 0) return s;
    control_abort(c, CUDPO_ENUMERIC, "the loss is not a number");
    return CUDPO_ENUMERIC;
}

static void the_end_comes_between_two_chunks(void **state)
{
    wire w;
    uint8_t give[64];
    uint8_t *const block = malloc(BLOCK);
    char where[COMPANY_TEXT], text[COMPANY_TEXT];
    wire_fields f = {.at = give, .end = give + sizeof give};
    (void)state;
    job j = job_make(3);
    job_start(&j, 0, fails_in_the_middle);
    job_start(&j, 1, fails_in_the_middle);
    become(&w, &j, 2);
    wire_put_int(&f, COMPANY_BROADCAST);
    wire_put_int(&f, BLOCK);
    wire_put_int(&f, 0);
    wire_put_text(&f, "block");
    assert_true(wire_send(&w, WIRE_GIVE, 1, give, (size_t)(f.at - give)));
    wire_flush(&w);
    job_expect(&j, 1, CUDPO_ENUMERIC, "");
    assert_true(job_reach(&j.page->rank[0].status,
                          0)); /* rank 0 has noticed, and says goodbye to this one */
    w.sink = (wire_span){.at = {block}, .size = {BLOCK}};
    w.sink_count = 1;
    do
        assert_int_equal(wire_wait(&w, wire_clock() + JOB_LIMIT), WIRE_FRAME);
    while (w.type != WIRE_ABORT);
    assert_true(w.sink.done > 0 && w.sink.done < BLOCK); /* else this tests nothing */
    for (size_t i = 0; i < w.sink.done; i++)
        if (block[i] != 7) fail_msg("byte %zu is %d", i, block[i]);
    f = (wire_fields){.at = w.small, .end = w.small + w.length};
    assert_int_equal(wire_get_int(&f), 1);
    assert_int_equal(wire_get_int(&f), CUDPO_ENUMERIC);
    wire_get_text(&f, where, sizeof where);
    wire_get_text(&f, text, sizeof text);
    assert_string_equal(where, "rank 1");
    assert_string_equal(text, "the loss is not a number");
    wire_close(&w); /* rank 0 waits for that */
    job_expect(&j, 0, CUDPO_ENUMERIC, "rank 1: the loss is not a number");
    free(block);
    job_free(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_that_talks_nonsense),
        cmocka_unit_test(bytes_one_by_one),
        cmocka_unit_test(the_end_comes_between_two_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
