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

/* As a rank says that it is at a call, without anything to give. */
static void give(wire *w, company_kind kind, size_t bytes, const char *what)
{
    uint8_t data[128];
    wire_fields f = {.at = data, .end = data + sizeof data};
    wire_put_int(&f, kind);
    wire_put_int(&f, (int64_t)bytes);
    wire_put_int(&f, 0);
    wire_put_text(&f, what);
    assert_true(wire_send(w, WIRE_GIVE, 1, data, (size_t)(f.at - data)));
}

/* Rank 0 is not at any call until the test lets it. */
static cudpo_status meets_later(control *c, job *j, int rank)
{
    (void)rank;
    atomic_fetch_add(&j->page->ready, 1);
    while (control_status(c) == CUDPO_OK && atomic_load(&j->page->go) == 0)
        job_sleep(0.001);
    return control_barrier(c, "met");
}

/* Rank 0 says why before it goes. */
static void wait_for_abort(wire *w)
{
    while (wire_wait(w, wire_clock() + JOB_LIMIT) == WIRE_FRAME && w->type != WIRE_ABORT)
        continue;
    wire_close(w);
}

/* A rank of the run that then talks nonsense ends it with its name, and nothing worse. */
static void a_rank_that_talks_nonsense(void **state)
{
    uint8_t zeros[4096] = {0}, large[64] = {0};
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
        {WIRE_BEAT, sizeof zeros, zeros, "rank 1 was lost: its connection broke: Protocol error"},
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
        if (cases[i].n == 3)
            wire_close(&w);
        else
            wait_for_abort(&w);
        job_expect(&j, 0, CUDPO_EPEER, cases[i].text);
        job_free(&j);
    }
}

/* Whichever of the two comes first, rank 0 or the other who is somewhere else. */
static void another_call_early_or_late(void **state)
{
    (void)state;
    for (int early = 0; early < 2; early++) {
        wire w;
        job j = job_make(2);
        job_start(&j, 0, meets_later);
        become(&w, &j, 1);
        assert_true(job_reach(&j.page->ready, 1));
        if (early == 0) atomic_store(&j.page->go, 1);
        if (early == 0)
            job_sleep(0.1); /* for rank 0 to be in its call; less would only test less */
        give(&w, COMPANY_BARRIER, 0, "elsewhere");
        wire_flush(&w);
        if (early == 1) job_sleep(0.1); /* and for it to have heard */
        atomic_store(&j.page->go, 1);
        wait_for_abort(&w);
        job_expect(&j, 0, CUDPO_EPEER, "rank 1 is at 'elsewhere' while rank 0 is at 'met'");
        job_free(&j);
    }
}

static void a_part_twice(void **state)
{
    wire w;
    (void)state;
    job j = job_make(2);
    job_start(&j, 0, meets_later);
    become(&w, &j, 1);
    give(&w, COMPANY_BARRIER, 0, "met");
    give(&w, COMPANY_BARRIER, 0, "met");
    wire_flush(&w);
    wait_for_abort(&w);
    job_expect(&j, 0, CUDPO_EPEER, "rank 1 gives what makes no sense");
    job_free(&j);
}

/* A frame that comes byte by byte is a frame. */
static void bytes_one_by_one(void **state)
{
    wire w, frames = {.fd = 0};
    (void)state;
    job j = job_make(2);
    job_start(&j, 0, meets);
    become(&w, &j, 1);
    assert_true(wire_send(&frames, WIRE_BEAT, 0, "", 0));
    give(&frames, COMPANY_BARRIER, 0, "met");
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
    uint8_t *const block = malloc(BLOCK);
    char where[COMPANY_TEXT], text[COMPANY_TEXT];
    (void)state;
    job j = job_make(3);
    job_start(&j, 0, fails_in_the_middle);
    job_start(&j, 1, fails_in_the_middle);
    become(&w, &j, 2);
    give(&w, COMPANY_BROADCAST, BLOCK, "block");
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
    wire_fields f = {.at = w.small, .end = w.small + w.length};
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
        cmocka_unit_test(another_call_early_or_late),
        cmocka_unit_test(a_part_twice),
        cmocka_unit_test(bytes_one_by_one),
        cmocka_unit_test(the_end_comes_between_two_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
