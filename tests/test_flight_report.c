/* test_flight_report.c - what the records of 16 ranks say of faults that were planted among them, word for word. */
/* rooms: base dist */
#include "program.h"
#include "dist/flight.h"
#include "dist/flight_format.h"

enum { RANKS = 16, PER_STEP = 5, STEPS = 8, LAST = PER_STEP * STEPS };

/* What a rank of a planted run does. */
typedef struct rank_plan {
    int64_t until; /* its last sequence */
    int64_t odd;   /* sequence whose size differs; 0: none */
    int64_t
        skipped;  /* sequence that it leaves out, all later ones of it are one earlier; 0: none */
    int64_t done; /* its last that completes */
    int64_t started; /* its last that starts */
    const char *note;
    bool ends;   /* by itself */
    bool absent; /* no record at all */
} rank_plan;

/* Buckets of a step have sizes of their own, as parameters do. */
static void schedule(flight *f, int64_t sequence, int64_t which, bool odd)
{
    const int64_t step = (which - 1) / PER_STEP + 1, bucket = (which - 1) % PER_STEP;
    flight_schedule(f, sequence, bucket == PER_STEP - 1 ? "all_gather" : "all_reduce",
                    1000 * (bucket + 1) + odd, bucket == 0 ? "bfloat16" : "float32", step);
}

static void record(flight *f, const rank_plan *p)
{
    for (int64_t s = 1; s <= p->until; s++) {
        schedule(f, s, s + (p->skipped != 0 && s >= p->skipped), s == p->odd);
        if (s <= p->started) flight_mark(f, s, FLIGHT_STARTED);
        if (s <= p->done) flight_mark(f, s, FLIGHT_COMPLETED);
    }
    if (p->note != NULL) flight_note(f, p->note);
}

static const char *folder_of(const char *name)
{
    const char *folder = scratch_path(name);
    CHECK_OK(file_remove_folder(folder));
    return folder;
}

/* A run whose records stand as its ranks left them: those that do not end are still open. */
typedef struct planted {
    const char *folder;
    flight *open[RANKS];
} planted;

static planted plant(const char *name, const rank_plan *plans, int size)
{
    planted run = {.folder = folder_of(name)};
    for (int rank = 0; rank < size; rank++) {
        if (plans[rank].absent) continue;
        CHECK_OK(flight_open(&run.open[rank], run.folder, rank, size, "job.7"));
        record(run.open[rank], &plans[rank]);
        if (!plans[rank].ends) continue;
        flight_close(run.open[rank]);
        run.open[rank] = NULL;
    }
    return run;
}

static void put_away(planted *run)
{
    for (int rank = 0; rank < RANKS; rank++)
        flight_close(run->open[rank]);
}

/* The part of the report that judges, without the paragraphs of single ranks; @ in place of the host's name. */
static char *judge(const char *folder)
{
    buffer out = {0};
    char host[FLIGHT_TEXT] = "";
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    CHECK_OK(flight_analyse(&out, folder));
    char *end = strstr(out.data, "\nSeconds count back");
    assert_non_null(end);
    *end = '\0';
    const size_t n = strlen(host);
    for (char *at = out.data; (at = strstr(at, host)) != NULL;) {
        if (at - out.data >= 3 && strncmp(at - 3, "on ", 3) == 0) {
            *at = '@';
            memmove(at + 1, at + n, strlen(at + n) + 1);
        }
        at++;
    }
    return out.data;
}

static void check_folder(const char *folder, const char *want)
{
    char *got = judge(folder);
    if (strcmp(got, want) != 0) fail_msg("the report is\n%s\nand not\n%s", got, want);
    free(got);
}

static void check(const char *name, const rank_plan *plans, int size, const char *want)
{
    planted run = plant(name, plans, size);
    check_folder(run.folder, want);
    put_away(&run);
}

static void fill(rank_plan plans[RANKS], rank_plan all)
{
    for (int i = 0; i < RANKS; i++)
        plans[i] = all;
}

static const rank_plan whole = {.until = LAST, .done = LAST, .started = LAST, .ends = true};

static void healthy(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    fill(plans, whole);
    check("healthy", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "no mismatch: all completed all_gather 40 of step 8 (5000 float32), their last, and all "
          "ended by themselves\n");
}

static void a_rank_that_hangs_before_a_collective(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    fill(plans, (rank_plan){.until = 23,
                            .done = 22,
                            .started = 23,
                            .ends = true,
                            .note = "rank 5 did not come within 600 s"});
    plans[5] = (rank_plan){.until = 22, .done = 22, .started = 22};
    check("hung", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: ranks 0-4,6-15 wait in all_reduce 23 of step 5 (3000 float32); rank 5 never "
          "came: its last is all_reduce 22 of step 5 (2000 float32), completed\n"
          "first note: rank 0 noted: rank 5 did not come within 600 s\n"
          "suspect: rank 5 on @, which did not end by itself: it was killed, or hangs\n");
}

/* They are ahead of what is done, as buckets are while the backward pass runs. */
static void a_rank_that_is_killed_in_a_collective(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    fill(plans, (rank_plan){.until = 25,
                            .done = 22,
                            .started = 23,
                            .ends = true,
                            .note = "rank 9: connection lost"});
    plans[9] = (rank_plan){.until = 23, .done = 22, .started = 23};
    check("killed", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: ranks 0-8,10-15 wait in all_reduce 24 of step 5 (4000 float32); rank 9 never "
          "came: its last is all_reduce 23 of step 5 (3000 float32), started\n"
          "unfinished: all scheduled all_reduce 23 of step 5 (3000 float32), started by ranks "
          "0-15: the network or a device\n"
          "first note: rank 0 noted: rank 9: connection lost\n"
          "suspect: rank 9 on @, which did not end by itself: it was killed, or hangs\n");
}

static void a_collective_of_another_size(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    fill(plans, (rank_plan){.until = 24, .done = 22, .started = 23});
    plans[3].odd = 23;
    check("sizes", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: collective 23 is not the same on all ranks\n"
          "    ranks 0-2,4-15: all_reduce 23 of step 5 (3000 float32)\n"
          "    rank 3: all_reduce 23 of step 5 (3001 float32)\n"
          "suspect: rank 3 on @, which did not end by itself: it was killed, or hangs\n");
}

static void a_collective_that_is_left_out(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    fill(plans, (rank_plan){.until = 27, .done = 22, .started = 23});
    plans[12].skipped = 23;
    check("skipped", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: collective 23 is not the same on all ranks\n"
          "    ranks 0-11,13-15: all_reduce 23 of step 5 (3000 float32)\n"
          "    rank 12: all_reduce 23 of step 5 (4000 float32)\n"
          "    rank 12 left out all_reduce 23 of step 5 (3000 float32): what follows is the same\n"
          "suspect: rank 12 on @, which did not end by itself: it was killed, or hangs\n");
    /* Everybody but one: then that one has one more. */
    for (int i = 0; i < RANKS; i++)
        plans[i].skipped = i == 12 ? 0 : 23;
    check("added", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: collective 23 is not the same on all ranks\n"
          "    ranks 0-11,13-15: all_reduce 23 of step 5 (4000 float32)\n"
          "    rank 12: all_reduce 23 of step 5 (3000 float32)\n"
          "    rank 12 has one more, all_reduce 23 of step 5 (3000 float32): what follows is the "
          "same\n"
          "suspect: rank 12 on @, which did not end by itself: it was killed, or hangs\n");
}

static void two_that_differ_are_both_suspected(void **state)
{
    (void)state;
    rank_plan plans[2] = {{.until = 3, .done = 2, .started = 3}, {.until = 3, .done = 2, .odd = 3}};
    check("two", plans, 2,
          "run \"job.7\" of 2 ranks: 2 records\n"
          "mismatch: collective 3 is not the same on all ranks\n"
          "    rank 0: all_reduce 3 of step 1 (3000 float32)\n"
          "    rank 1: all_reduce 3 of step 1 (3001 float32)\n"
          "suspect: rank 0 on @, which did not end by itself: it was killed, or hangs\n"
          "suspect: rank 1 on @, which did not end by itself: it was killed, or hangs\n");
}

static void a_collective_that_only_some_complete(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    fill(plans, (rank_plan){.until = 9, .done = 9, .started = 9});
    plans[1].done = plans[2].done = plans[15].done = 8;
    plans[15].started = 8;
    check("some", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: all scheduled all_reduce 9 of step 2 (4000 float32); completed by ranks "
          "0,3-14, started by ranks 1-2, not started by rank 15: the network or a device\n"
          "suspect: rank 15 on @, which did not end by itself: it was killed, or hangs\n");
    fill(plans, (rank_plan){.until = 9, .done = 8, .started = 9});
    check("none", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: all scheduled all_reduce 9 of step 2 (4000 float32), started by ranks 0-15: "
          "the network or a device\n");
}

static void who_says_why_is_the_first_suspect(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    /* Between two collectives, noted in the order of ranks. */
    fill(plans, whole);
    for (int i = 0; i < RANKS; i++)
        plans[i].note = i == 0 ? "pairs.jsonl:17: no rejected completion"
                               : "rank 0: pairs.jsonl:17: no rejected completion";
    check("noted", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "no mismatch: all completed all_gather 40 of step 8 (5000 float32), their last, and all "
          "ended by themselves\n"
          "suspect: rank 0 on @, which noted: pairs.jsonl:17: no rejected completion\n");
    /* Its failure was known to others before the slowest came to the next collective. */
    fill(plans,
         (rank_plan){.until = 6, .done = 5, .started = 6, .ends = true, .note = "rank 2: full"});
    plans[2].note = "full";
    plans[7].until = plans[7].started = 5;
    check("slow", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: ranks 0-6,8-15 wait in all_reduce 6 of step 2 (1000 bfloat16); rank 7 never "
          "came: its last is all_gather 5 of step 1 (5000 float32), completed\n"
          "first note: rank 0 noted: rank 2: full\n"
          "suspect: rank 2 on @, which noted: full\n");
    /* The slowest, too, knew why, but was killed before it came to its end. */
    plans[7].note = "rank 2: full";
    plans[7].ends = false;
    check("slow", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "mismatch: ranks 0-6,8-15 wait in all_reduce 6 of step 2 (1000 bfloat16); rank 7 never "
          "came: its last is all_gather 5 of step 1 (5000 float32), completed\n"
          "first note: rank 0 noted: rank 2: full\n"
          "suspect: rank 2 on @, which noted: full\n");
    /* So was one that nobody waited for. */
    fill(plans, whole);
    plans[2].note = "full";
    plans[7].ends = false;
    check("slow", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "no mismatch: all completed all_gather 40 of step 8 (5000 float32), their last; rank 7 "
          "did not end: killed, or it runs\n"
          "suspect: rank 2 on @, which noted: full\n");
    /* A number that is no rank's is no name. */
    fill(plans, whole);
    plans[4].note = "rank 16: is not of this run";
    check("foreign", plans, RANKS,
          "run \"job.7\" of 16 ranks: 16 records\n"
          "no mismatch: all completed all_gather 40 of step 8 (5000 float32), their last, and all "
          "ended by themselves\n"
          "suspect: rank 4 on @, which noted: rank 16: is not of this run\n");
}

/* The one who is looked at is not the one who says it. */
static void notes_name_who_they_are_about(void **state)
{
    (void)state;
    static const struct {
        const char *note;
        int rank; /* -1: nobody */
    } notes[] = {{"rank 2: full", 2},
                 {"rank 2 was lost: it closed", 2},
                 {"ranks 1-2 did not come", 1},
                 {"ranks 2,1 did not come", 2},
                 {"rank 3: is not of 3", 0},
                 {"rank 12: neither", 0},
                 {"rank 2nd", 0},
                 {"rank -1: no", 0},
                 {"rank", 0},
                 {"disk full", 0},
                 {"all ranks: stand still", -1}};
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        const rank_plan plans[3] = {
            {.note = notes[i].note, .ends = true}, {.ends = true}, {.ends = true}};
        planted run = plant("notes", plans, 3);
        char *got = judge(run.folder), want[64];
        snprintf(want, sizeof want, "\nsuspect: rank %d ", notes[i].rank);
        if (notes[i].rank < 0 ? strstr(got, "suspect") != NULL : strstr(got, want) == NULL)
            fail_msg("%s: %s", notes[i].note, got);
        assert_true(notes[i].rank == 0 || strstr(got, "first note: rank 0 noted: ") != NULL);
        free(got);
        put_away(&run);
    }
}

/* All else is the same: the operation, the type, or the step alone. */
static void each_part_of_a_collective_counts(void **state)
{
    (void)state;
    static const struct {
        const char *op, *type;
        int64_t step;
    } odd[] = {
        {"broadcast", "float32", 1}, {"all_reduce", "bfloat16", 1}, {"all_reduce", "float32", 2}};
    for (int i = 0; i < 3; i++) {
        planted run = {.folder = folder_of("parts")};
        char want[600];
        for (int rank = 0; rank < 3; rank++) {
            CHECK_OK(flight_open(&run.open[rank], run.folder, rank, 3, "job.7"));
            if (rank == 2)
                flight_schedule(run.open[rank], 1, odd[i].op, 4, odd[i].type, odd[i].step);
            else
                flight_schedule(run.open[rank], 1, "all_reduce", 4, "float32", 1);
        }
        snprintf(want, sizeof want,
                 "run \"job.7\" of 3 ranks: 3 records\n"
                 "mismatch: collective 1 is not the same on all ranks\n"
                 "    ranks 0-1: all_reduce 1 of step 1 (4 float32)\n"
                 "    rank 2: %s 1 of step %d (4 %s)\n"
                 "suspect: rank 2 on @, which did not end by itself: it was killed, or hangs\n",
                 odd[i].op, (int)odd[i].step, odd[i].type);
        check_folder(run.folder, want);
        put_away(&run);
    }
}

/* It had completed what the others then waited for in vain. */
static void a_killed_rank_that_was_ahead(void **state)
{
    (void)state;
    rank_plan plans[3];
    for (int i = 0; i < 3; i++)
        plans[i] = (rank_plan){.until = 10, .done = 9, .started = 10, .ends = true};
    plans[1] = (rank_plan){.until = 11, .done = 10, .started = 10};
    check(
        "ahead", plans, 3,
        "run \"job.7\" of 3 ranks: 3 records\n"
        "mismatch: rank 1 waits in all_reduce 11 of step 3 (1000 bfloat16); ranks 0,2 never came: "
        "their last is all_gather 10 of step 2 (5000 float32), started\n"
        "unfinished: all scheduled all_gather 10 of step 2 (5000 float32); completed by rank 1, "
        "started by ranks 0,2: the network or a device\n"
        "suspect: rank 1 on @, which did not end by itself: it was killed, or hangs\n");
}

static void ranks_without_a_record(void **state)
{
    (void)state;
    rank_plan plans[RANKS];
    fill(plans, (rank_plan){.until = 1, .started = 1});
    plans[6].absent = plans[7].absent = true;
    check("absent", plans, RANKS,
          "run \"job.7\" of 16 ranks: 14 records\n"
          "mismatch: all scheduled all_reduce 1 of step 1 (1000 bfloat16), started by ranks "
          "0-5,8-15: the network or a device\n"
          "suspect: rank 6, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 7, which left no record: it never began, or it is elsewhere\n");
    for (int i = 0; i < RANKS; i++)
        plans[i].absent = i != 3;
    check("alone", plans, RANKS,
          "run \"job.7\" of 16 ranks: 1 record\n"
          "mismatch: all scheduled all_reduce 1 of step 1 (1000 bfloat16), started by rank 3: the "
          "network or a device\n"
          "suspect: rank 0, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 1, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 2, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 4, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 5, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 6, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 7, which left no record: it never began, or it is elsewhere\n"
          "suspect: rank 8, which left no record: it never began, or it is elsewhere\n"
          "suspects: 7 more\n");
}

static void runs_without_a_collective(void **state)
{
    (void)state;
    rank_plan plans[2] = {{.ends = true}, {.ends = true}};
    check("empty", plans, 2,
          "run \"job.7\" of 2 ranks: 2 records\n"
          "no mismatch: no rank scheduled a collective, and all ended by themselves\n");
    plans[1] = (rank_plan){.until = 0};
    check("early", plans, 2,
          "run \"job.7\" of 2 ranks: 2 records\n"
          "no mismatch: no rank scheduled a collective; rank 1 did not end: killed, or it runs\n"
          "suspect: rank 1 on @, which did not end by itself: it was killed, or hangs\n");
    plans[0] = (rank_plan){.until = 1, .started = 1};
    check(
        "first", plans, 2,
        "run \"job.7\" of 2 ranks: 2 records\n"
        "mismatch: rank 0 waits in all_reduce 1 of step 1 (1000 bfloat16); rank 1 never came: its "
        "last is none\n"
        "suspect: rank 1 on @, which did not end by itself: it was killed, or hangs\n");
}

/* What a ring has dropped is not compared, and does not look like a mismatch. */
static void rings_that_have_wrapped(void **state)
{
    (void)state;
    rank_plan plans[3];
    for (int i = 0; i < 3; i++)
        plans[i] = (rank_plan){.until = 10000, .done = 10000, .started = 10000, .ends = true};
    plans[1].odd = 5904; /* the last that is dropped */
    check(
        "wrapped", plans, 3,
        "run \"job.7\" of 3 ranks: 3 records\n"
        "compared from collective 5905 on: a record keeps its last 4096\n"
        "no mismatch: all completed all_gather 10000 of step 2000 (5000 float32), their last, and "
        "all ended by themselves\n");
    plans[1].odd = 5905;
    check("wrapped", plans, 3,
          "run \"job.7\" of 3 ranks: 3 records\n"
          "compared from collective 5905 on: a record keeps its last 4096\n"
          "mismatch: collective 5905 is not the same on all ranks\n"
          "    ranks 0,2: all_gather 5905 of step 1181 (5000 float32)\n"
          "    rank 1: all_gather 5905 of step 1181 (5001 float32)\n"
          "suspect: rank 1 on @, which ended by itself without a note of why\n");
    /* So far behind that the others have forgotten what it did not come to. */
    plans[1] = (rank_plan){.until = 100, .done = 100, .started = 100};
    check("wrapped", plans, 3,
          "run \"job.7\" of 3 ranks: 3 records\n"
          "compared from collective 5905 on: a record keeps its last 4096\n"
          "mismatch: ranks 0,2 went on from collective 101; rank 1 never came: its last is "
          "all_gather 100 of step 20 (5000 float32), completed\n"
          "suspect: rank 1 on @, which did not end by itself: it was killed, or hangs\n");
}

/* The paragraphs, and the program. */
static void what_each_rank_did_last(void **state)
{
    (void)state;
    rank_plan plans[2] = {{.until = 3, .done = 1, .started = 2, .note = "tired", .ends = true},
                          {.until = 3, .done = 3, .started = 3}};
    planted run = plant("paragraphs", plans, 2);
    buffer out = {0};
    CHECK_OK(flight_analyse(&out, run.folder));
    has(out.data, "\nSeconds count back from the last event of all, 20");
    has(out.data, "\nrank 0 on ");
    has(out.data, "\n    scheduled all_reduce 3 of step 1 (3000 float32), 0.");
    has(out.data, "\n    started   all_reduce 2 of step 1 (2000 float32), 0.");
    has(out.data, "\n    completed all_reduce 1 of step 1 (1000 bfloat16), 0.");
    has(out.data, "\n    noted     tired, 0.");
    has(out.data, "\n    ended     by itself, 0.");
    const char *second = strstr(out.data, "\nrank 1 on ");
    assert_non_null(second);
    has(second, "\n    scheduled all_reduce 3 of step 1 (3000 float32), 0.000 s\n");
    has(second, "\n    started   all_reduce 3 of step 1 (3000 float32), 0.000 s\n");
    has(second, "\n    completed all_reduce 3 of step 1 (3000 float32), 0.000 s\n");
    has(second, "\n    ended     not by itself: it was killed, or runs\n");
    program_result r = RUN(0, "flight", run.folder);
    assert_string_equal(r.out, out.data);
    program_free(&r);
    buffer_free(&out);
    put_away(&run);
    SAYS(64, "needs the folder", "flight");
    SAYS(66, "absent folder", "flight", "absent folder");
    r = RUN(0, "flight", "--help");
    has(r.out, "cudpo flight DIR");
    program_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(healthy),
        cmocka_unit_test(a_rank_that_hangs_before_a_collective),
        cmocka_unit_test(a_rank_that_is_killed_in_a_collective),
        cmocka_unit_test(a_collective_of_another_size),
        cmocka_unit_test(a_collective_that_is_left_out),
        cmocka_unit_test(notes_name_who_they_are_about),
        cmocka_unit_test(each_part_of_a_collective_counts),
        cmocka_unit_test(two_that_differ_are_both_suspected),
        cmocka_unit_test(a_collective_that_only_some_complete),
        cmocka_unit_test(who_says_why_is_the_first_suspect),
        cmocka_unit_test(a_killed_rank_that_was_ahead),
        cmocka_unit_test(ranks_without_a_record),
        cmocka_unit_test(runs_without_a_collective),
        cmocka_unit_test(rings_that_have_wrapped),
        cmocka_unit_test(what_each_rank_did_last),
    };
    return cmocka_run_group_tests_name("flight_report", tests, NULL, scratch_remove);
}
