/* test_flight.c - the flight record: it outlives its process, is read while it grows, and damage to it is named. */
/* rooms: base dist */
#include "program.h"
#include "base/rng.h"
#include "dist/flight.h"
#include "dist/flight_read.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const char *folder_of(const char *name)
{
    const char *folder = scratch_path(name);
    CHECK_OK(file_remove_folder(folder));
    return folder;
}

static const char *file_in(const char *folder, int rank)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/rank-%05d.bin", folder, rank);
    return path;
}

static void write_one(flight *f, int64_t s)
{
    flight_schedule(f, s, s % 2 == 0 ? "all_reduce" : "broadcast", s * 3, "float32", s / 10);
    flight_mark(f, s, FLIGHT_STARTED);
    flight_mark(f, s, FLIGHT_COMPLETED);
}

static void check_event(const flight_records *all, const flight_record *r, int64_t s)
{
    const flight_event *e = flight_event_of(r, s);
    assert_non_null(e);
    assert_int_equal(e->elements, s * 3);
    assert_int_equal(e->step, s / 10);
    assert_string_equal(all->kinds[e->kind].op, s % 2 == 0 ? "all_reduce" : "broadcast");
    assert_string_equal(all->kinds[e->kind].type, "float32");
    assert_true(e->scheduled >= r->begun);
    if (e->state >= FLIGHT_STARTED) assert_true(e->started >= e->scheduled);
    if (e->state == FLIGHT_COMPLETED) assert_true(e->completed >= e->started);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    const char *folder = folder_of("plain/of/three");
    flight *f;
    flight_records all;
    struct stat s;
    CHECK_OK(flight_open(&f, folder, 2, 3, "run 7"));
    for (int i = 1; i <= 41; i++)
        write_one(f, i);
    flight_schedule(f, 42, "all_reduce", 42 * 3, "float32", 4);
    flight_schedule(f, 43, "broadcast", 43 * 3, "float32", 4);
    flight_mark(f, 42, FLIGHT_STARTED);
    flight_mark(f, 4096 + 41, FLIGHT_STARTED); /* is not there, and leaves 41 as it is */
    CHECK_OK(flight_read(&all, folder));
    assert_int_equal(all.n, 1);
    assert_int_equal(all.size, 3);
    assert_string_equal(all.run_id, "run 7");
    const flight_record *r = &all.ranks[0];
    assert_int_equal(r->rank, 2);
    assert_int_equal(r->pid, getpid());
    assert_int_equal(r->oldest, 1);
    assert_int_equal(r->newest, 43);
    assert_true(r->ended == 0 && r->noted == 0);
    for (int i = 1; i <= 43; i++) {
        check_event(&all, r, i);
        assert_int_equal(flight_event_of(r, i)->state, i <= 41   ? FLIGHT_COMPLETED
                                                       : i == 42 ? FLIGHT_STARTED
                                                                 : FLIGHT_SCHEDULED);
    }
    assert_null(flight_event_of(r, 0));
    assert_null(flight_event_of(r, 44));
    flight_records_free(&all);
    flight_note(f, "out of luck\n\x1b[2J");
    flight_note(f, "and more");
    flight_close(f);
    CHECK_OK(flight_read(&all, folder));
    assert_string_equal(all.ranks[0].note, "out of luck??[2J");
    assert_true(all.ranks[0].noted >= all.ranks[0].begun);
    assert_true(all.ranks[0].ended >= all.ranks[0].noted);
    flight_records_free(&all);
    assert_int_equal(stat(file_in(folder, 2), &s), 0);
    assert_int_equal(s.st_mode & 07777, 0600);
    assert_int_equal(s.st_size, sizeof(flight_file));
    assert_true(s.st_blocks * 512 >= s.st_size); /* of its own, so that a store can't fail */
}

static void an_older_record_is_replaced(void **state)
{
    (void)state;
    const char *folder = folder_of("again");
    flight *old, *f;
    flight_records all;
    CHECK_OK(flight_open(&old, folder, 0, 1, "first"));
    write_one(old, 1);
    char *temporary = path_join(folder, "rank-00000.bin.tmp"); /* of one that was killed */
    CHECK_OK(file_write(temporary, "?", 1));
    CHECK_OK(flight_open(&f, folder, 0, 1, "second"));
    write_one(old, 2); /* is not killed yet, and disturbs nobody */
    CHECK_OK(flight_read(&all, folder));
    assert_string_equal(all.run_id, "second");
    assert_int_equal(all.ranks[0].newest, 0);
    flight_records_free(&all);
    assert_false(file_is_regular(temporary));
    free(temporary);
    flight_close(old);
    flight_close(f);
    flight_close(NULL);
    flight_note(NULL, "");
    flight_mark(NULL, 1, FLIGHT_STARTED);
    flight_schedule(NULL, 1, "", 1, "", 1);
}

static void a_full_disk_shows_when_it_is_opened(void **state)
{
    (void)state;
    const char *folder = folder_of("full");
    struct rlimit before, small = {0};
    flight *f;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1 << 19;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    sigaction(SIGXFSZ, &ignore, &old);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const cudpo_status status = flight_open(&f, folder, 0, 1, "");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    sigaction(SIGXFSZ, &old, NULL);
    assert_null(f);
    CHECK_FAILS(status, CUDPO_EWRITE, "");
    assert_true(file_folder_is_empty(folder));
    CHECK_FAILS(flight_open(&f, scratch_text("plain file", ""), 0, 1, ""), CUDPO_EWRITE, "folder");
    cudpo_error_clear();
}

/* A child that writes as fast as it can until it is killed. */
static pid_t start_writer(const char *folder)
{
    fflush(stdout);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    flight *f;
    if (flight_open(&f, folder, 1, 2, "killed") != CUDPO_OK) _exit(1);
    for (int64_t i = 1;; i++)
        write_one(f, i);
}

/* Read it until it came as far as `sequence`, while it is written. */
static void read_until(const char *folder, int64_t sequence)
{
    flight_records all;
    int64_t newest = 0;
    const double limit = program_clock() + 60;
    while (newest < sequence) {
        assert_true(program_clock() < limit);
        if (!file_is_regular(file_in(folder, 1))) continue;
        CHECK_OK(flight_read(&all, folder));
        const flight_record *r = &all.ranks[0];
        newest = r->newest;
        for (int64_t s = r->oldest; s <= newest && newest > 0; s++)
            if (flight_event_of(r, s) != NULL) check_event(&all, r, s);
        flight_records_free(&all);
    }
}

static void a_record_outlives_a_killed_process(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) {
        const char *folder = folder_of("killed");
        flight_records all;
        const pid_t pid = start_writer(folder);
        read_until(folder, trial * 1500 + 1);
        kill(pid, SIGKILL);
        assert_int_equal(program_wait(pid), 128 + SIGKILL);
        CHECK_OK(flight_read(&all, folder));
        const flight_record *r = &all.ranks[0];
        assert_true(r->newest >= trial * 1500 + 1 && r->ended == 0);
        /* The one that it was about to write took its place from the oldest. */
        const int64_t held = r->newest - r->oldest + 1;
        assert_true(held == r->newest || held == FLIGHT_ENTRIES || held == FLIGHT_ENTRIES - 1);
        for (int64_t s = r->oldest; s <= r->newest; s++) {
            check_event(&all, r, s);
            assert_true(s == r->newest || flight_event_of(r, s)->state == FLIGHT_COMPLETED);
        }
        flight_records_free(&all);
    }
}

enum { MARKED = 20000, AHEAD = 1000 };
static atomic_llong scheduled, marked;

static void *mark_all(void *argument)
{
    for (int64_t s = 1; s <= MARKED; s++) {
        while (atomic_load(&scheduled) < s)
            sched_yield();
        flight_mark(argument, s, FLIGHT_STARTED);
        flight_mark(argument, s, FLIGHT_COMPLETED);
        atomic_store(&marked, s);
    }
    return NULL;
}

static void another_thread_may_mark(void **state)
{
    (void)state;
    const char *folder = folder_of("threads");
    flight *f;
    flight_records all;
    pthread_t thread;
    CHECK_OK(flight_open(&f, folder, 0, 1, ""));
    assert_int_equal(pthread_create(&thread, NULL, mark_all, f), 0);
    for (int64_t s = 1; s <= MARKED; s++) {
        while (atomic_load(&marked) < s - AHEAD)
            sched_yield();
        flight_schedule(f, s, "all_reduce", s, "float32", 1);
        atomic_store(&scheduled, s);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    CHECK_OK(flight_read(&all, folder));
    const flight_record *r = &all.ranks[0];
    assert_int_equal(r->newest, MARKED);
    assert_int_equal(r->oldest, MARKED - FLIGHT_ENTRIES + 1);
    for (int64_t s = r->oldest; s <= r->newest; s++)
        assert_int_equal(flight_event_of(r, s)->state, FLIGHT_COMPLETED);
    flight_records_free(&all);
    flight_close(f);
}

static cudpo_status analyse(const char *folder)
{
    buffer out = {0};
    const cudpo_status status = flight_analyse(&out, folder);
    buffer_free(&out);
    return status;
}

/* Three ranks, one of which has not come to its end. */
static void make_three(const char *folder)
{
    for (int rank = 0; rank < 3; rank++) {
        flight *f;
        CHECK_OK(flight_open(&f, folder, rank, 3, "three"));
        for (int64_t s = 1; s <= 5000; s++)
            write_one(f, s);
        flight_schedule(f, 5001, "all_gather", 77, "bfloat16", 500);
        if (rank == 1) flight_note(f, "disk full");
        flight_close(f);
    }
}

static void put_bytes(const char *path, size_t at, const void *bytes, size_t n)
{
    const int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, (off_t)at), n);
    close(fd);
}

static void damage_is_named(void **state)
{
    (void)state;
    const char *folder = folder_of("damage");
    const int32_t minus = -1, four = 4;
    const int64_t seven = 7, much = INT64_MAX, less = -1, state_9 = 9;
    const char sharp[FLIGHT_TEXT + FLIGHT_TEXT] = {[0] = 'x', [255] = 'x', [256] = 'x'};
    char full[FLIGHT_TEXT];
    memset(full, 'x', sizeof full);
    const size_t entry = offsetof(flight_file, entries) + 100 * sizeof(flight_entry);
    const struct {
        size_t at;
        const void *bytes;
        size_t n;
        const char *message;
    } wrong[] = {
        {0, "CUDPO", 5, "is no flight record"},
        {offsetof(flight_header, version), &four, 4, "version 4, not 1"},
        {offsetof(flight_header, entries), &four, 4, "number or size"},
        {offsetof(flight_header, entry_bytes), &four, 4, "number or size"},
        {offsetof(flight_header, rank), &minus, 4, "no such rank"},
        {offsetof(flight_header, rank), &four, 4, "no such rank"},
        {offsetof(flight_header, size), &minus, 4, "no such rank"},
        {offsetof(flight_header, size), &four, 4, "of run \"three\" of 4 ranks"},
        {offsetof(flight_header, rank), "\0\0\0\0", 4, "its name is another rank's"},
        {offsetof(flight_header, begun), &much, 8, "a time"},
        {offsetof(flight_header, begun), "\0\0\0\0\0\0\0", 8, "a time"},
        {offsetof(flight_header, ended), &much, 8, "a time"},
        {offsetof(flight_header, run_id), "Three", 5, "of run \"Three\""},
        {offsetof(flight_header, run_id), full, sizeof full, "a text has no end"},
        {offsetof(flight_header, host), full, sizeof full, "a text has no end"},
        {entry + offsetof(flight_entry, elements), &less, 8, "elements"},
        {entry + offsetof(flight_entry, state), &state_9, 8, "state"},
        {entry + offsetof(flight_entry, scheduled), &much, 8, "a time"},
        {entry + offsetof(flight_entry, op), "\0", 1, "no name"},
        {entry + offsetof(flight_entry, type), "f\x1b", 2, "no name"},
        {entry + offsetof(flight_entry, op), sharp, 1, NULL}, /* another name is no damage */
    };
    make_three(folder);
    const char *path = file_in(folder, 1);
    char *good = NULL;
    size_t n;
    CHECK_OK(file_read(&good, &n, path, sizeof(flight_file)));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        put_bytes(path, wrong[i].at, wrong[i].bytes, wrong[i].n);
        if (wrong[i].message == NULL) {
            CHECK_OK(analyse(folder));
        } else {
            cudpo_error_clear();
            const cudpo_status status = analyse(folder);
            if (status != CUDPO_EDATA || strstr(cudpo_error_message(), wrong[i].message) == NULL ||
                strstr(cudpo_error_message(), "rank-00001.bin") == NULL)
                fail_msg("case %zu: %d, %s", i, (int)status, cudpo_error_message());
            cudpo_error_clear();
        }
        put_bytes(path, 0, good, n);
    }
    /* In the wrong place: both numbers agree, so it is not one that is being written. */
    put_bytes(path, entry, &seven, 8);
    CHECK_OK(analyse(folder));
    put_bytes(path, entry + offsetof(flight_entry, again), &seven, 8);
    CHECK_FAILS(analyse(folder), CUDPO_EDATA, "not in its place");
    put_bytes(path, 0, good, n);
    /* The largest number, in the place that it would have. */
    const size_t place =
        offsetof(flight_file, entries) + (INT64_MAX - 1) % FLIGHT_ENTRIES * sizeof(flight_entry);
    put_bytes(path, place, &much, 8);
    put_bytes(path, place + offsetof(flight_entry, again), &much, 8);
    CHECK_FAILS(analyse(folder), CUDPO_EDATA, "not in its place");
    put_bytes(path, 0, good, n);
    CHECK_OK(analyse(folder));
    for (size_t cut = 0; cut < n; cut += cut < 8192 ? 509 : 99991) {
        assert_int_equal(truncate(path, (off_t)cut), 0);
        CHECK_FAILS(analyse(folder), CUDPO_EDATA, "rank-00001.bin: is no");
        put_bytes(path, 0, good, n);
    }
    put_bytes(path, n, "x", 1);
    CHECK_FAILS(analyse(folder), CUDPO_EDATA, "rank-00001.bin");
    free(good);
}

/* A reader that was overtaken: 1 still stands where 4097 was written since, and 4098 is half written. */
static void what_is_older_than_the_ring_is_left_out(void **state)
{
    (void)state;
    const char *folder = folder_of("older");
    const int64_t one = 1, none = 0;
    const size_t first = offsetof(flight_file, entries);
    flight_records all;
    make_three(folder);
    put_bytes(file_in(folder, 0), first, &one, 8);
    put_bytes(file_in(folder, 0), first + offsetof(flight_entry, again), &one, 8);
    put_bytes(file_in(folder, 0), first + sizeof(flight_entry) + offsetof(flight_entry, again),
              &none, 8);
    CHECK_OK(flight_read(&all, folder));
    for (int rank = 0; rank < 3; rank++) {
        const flight_record *r = &all.ranks[rank];
        assert_int_equal(r->newest, 5001);
        assert_int_equal(r->oldest, 5001 - FLIGHT_ENTRIES + 1);
        for (int64_t s = r->oldest; s <= r->newest; s++)
            if ((flight_event_of(r, s) == NULL) != (rank == 0 && (s == 4097 || s == 4098)))
                fail_msg("rank %d, %d", rank, (int)s);
    }
    flight_records_free(&all);
    CHECK_OK(analyse(folder));
}

static void what_is_no_record_is_said(void **state)
{
    (void)state;
    const char *folder = folder_of("nothing");
    CHECK_FAILS(analyse(folder), CUDPO_ENOINPUT, "nothing");
    CHECK_OK(file_make_folder(folder));
    CHECK_FAILS(analyse(folder), CUDPO_ENOINPUT, "holds no flight record");
    static const char *const others[] = {
        "rank-0.bin",     "rank-00000.bin.tmp", "rank-000000.bin",    "rank-0000x.bin",
        "rank--0001.bin", "rank-00000.bin~",    "rank-00000.bin.bin", "Rank-00000.bin"};
    char path[1024];
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, others[i]);
        CHECK_OK(file_make_folder(path));
    }
    CHECK_FAILS(analyse(folder), CUDPO_ENOINPUT, "holds no flight record");
    assert_int_equal(mkfifo(file_in(folder, 0), 0600), 0);
    CHECK_FAILS(analyse(folder), CUDPO_EDATA, "not a regular file");
}

/* Any bytes give an analysis or a clear refusal: the sanitizers look on. */
static void mutated_files_do_no_harm(void **state)
{
    (void)state;
    enum { TRIALS = 2000, MOST = 8 };
    const char *folder = folder_of("mutated");
    int refused = 0;
    make_three(folder);
    const char *path = file_in(folder, 2);
    char *good = NULL;
    size_t n;
    CHECK_OK(file_read(&good, &n, path, sizeof(flight_file)));
    for (uint64_t trial = 0; trial < TRIALS; trial++) {
        size_t at[MOST];
        const int64_t changes = 1 + rng_below(1, 1, trial, MOST);
        for (int64_t i = 0; i < changes; i++) {
            const uint64_t key = trial * MOST + (uint64_t)i;
            /* Half of them in words that mean something, the others anywhere. */
            const size_t word =
                rng_below(1, 2, key, 2) == 0
                    ? 0
                    : sizeof(flight_header) +
                          (size_t)rng_below(1, 3, key, FLIGHT_ENTRIES) * sizeof(flight_entry);
            at[i] = rng_below(1, 4, key, 2) == 0 ? word + (size_t)rng_below(1, 5, key, 80)
                                                 : (size_t)rng_below(1, 6, key, (int64_t)n);
            char byte = (char)(good[at[i]] ^ (1 << rng_below(1, 7, key, 8)));
            if (rng_below(1, 8, key, 4) == 0) byte = (char)rng_below(1, 9, key, 256);
            put_bytes(path, at[i], &byte, 1);
        }
        const cudpo_status status = analyse(folder);
        if (status != CUDPO_OK && status != CUDPO_EDATA)
            fail_msg("trial %d: %d, %s", (int)trial, (int)status, cudpo_error_message());
        if (status == CUDPO_EDATA) assert_non_null(strstr(cudpo_error_message(), "rank-00002.bin"));
        refused += status == CUDPO_EDATA;
        cudpo_error_clear();
        for (int64_t i = 0; i < changes; i++)
            put_bytes(path, at[i], &good[at[i]], 1);
    }
    printf("%d of %d refused\n", refused, (int)TRIALS);
    assert_true(refused > TRIALS / 10 && refused < TRIALS);
    CHECK_OK(analyse(folder));
    free(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(an_older_record_is_replaced),
        cmocka_unit_test(a_full_disk_shows_when_it_is_opened),
        cmocka_unit_test(a_record_outlives_a_killed_process),
        cmocka_unit_test(another_thread_may_mark),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(what_is_older_than_the_ring_is_left_out),
        cmocka_unit_test(what_is_no_record_is_said),
        cmocka_unit_test(mutated_files_do_no_harm),
    };
    return cmocka_run_group_tests_name("flight", tests, NULL, scratch_remove);
}
