/* test_tokens.c - ranks that train tokenise their data together: the cache is that of one, and one that fails ends all. */
/* rooms: train */
#include "ranks.h"
#include "dataset_rows.h"

#include <sys/stat.h>

/* Row 700, which is in no rank's first part, is bad, and so is row 900. */
static void append_bad(buffer *b, int i)
{
    if (i == 700 || i == 900)
        CHECK_OK(buffer_printf(b, "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":%d}", i));
    else
        rows_pair(b, i);
}

/* The next runs' folder of caches, empty. */
static void use_cache(const char *name)
{
    CHECK_OK(file_remove_folder(scratch_path(name)));
    assert_int_equal(setenv("CUDPO_CACHE", scratch_path(name), 1), 0);
}

/* Valid until the next call. */
static const char *const *arguments(const char *file, const char *output)
{
    static char data[640], folder[640];
    static const char *const list[] = {"train",
                                       "--model_name_or_path",
                                       "tests/golden/models/llama",
                                       "--output_dir",
                                       folder,
                                       "--train_dataset",
                                       data,
                                       "--device",
                                       "cpu",
                                       "--max_steps",
                                       "1",
                                       "--max_length",
                                       "96",
                                       "--per_device_train_batch_size",
                                       "2",
                                       NULL};
    snprintf(data, sizeof data, "%s", file);
    snprintf(folder, sizeof folder, "%s", scratch_path(output));
    return list;
}

static void train(int ranks, const char *file, int status)
{
    rank_group g = ranks_start(ranks, arguments(file, "output"));
    ranks_expect(&g, status);
    CHECK_OK(file_remove_folder(scratch_path("output")));
}

/* How many files of the cache folder have `part` in their names; the last one's name. */
static int find_files(const char *folder, const char *part, char name[512])
{
    int found = 0;
    DIR *d = opendir(scratch_path(folder));
    if (d == NULL) return 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strstr(e->d_name, part) == NULL) continue;
        snprintf(name, 512, "%s", e->d_name);
        found++;
    }
    closedir(d);
    return found;
}

/* Both folders hold that one cache, and no parts of it. */
static void same_cache(const char *a, const char *b)
{
    char x[512], y[512];
    assert_true(find_files(a, ".bin", x) == 1 && find_files(b, ".bin", y) == 1);
    assert_string_equal(x, y);
    program_same_file(a, b, x);
    assert_int_equal(find_files(b, ".part-", y), 0);
}

static void ranks_make_the_cache_of_one(void **state)
{
    (void)state;
    char file[640];
    snprintf(file, sizeof file, "%s", rows_write("rows.jsonl", rows_pair, 1500, LINES));
    use_cache("cache-1");
    train(1, file, 0);
    for (int ranks = 2; ranks <= 3; ranks++) {
        use_cache("cache-n");
        train(ranks, file, 0);
        same_cache("cache-1", "cache-n");
    }
}

/* Two nodes whose cache folders are their own, as a disk of each. */
static void folders_of_their_own(void **state)
{
    (void)state;
    char file[640];
    snprintf(file, sizeof file, "%s", rows_write("rows.jsonl", rows_pair, 1500, LINES));
    use_cache("cache-1");
    train(1, file, 0);
    const int port = ranks_port();
    rank_group g = {.size = 3};
    const char *const folders[] = {"cache-a", "cache-b", "cache-a"};
    for (int r = 0; r < 3; r++) {
        if (r < 2) use_cache(folders[r]);
        assert_int_equal(setenv("CUDPO_CACHE", scratch_path(folders[r]), 1), 0);
        g.pid[r] = ranks_start_one(r, 3, port, arguments(file, "output"));
    }
    ranks_expect(&g, 0);
    CHECK_OK(file_remove_folder(scratch_path("output")));
    same_cache("cache-1", "cache-a");
    same_cache("cache-1", "cache-b");
}

/* Two jobs on the same new data at once. */
static void two_jobs(void **state)
{
    (void)state;
    char file[640];
    snprintf(file, sizeof file, "%s", rows_write("rows.jsonl", rows_pair, 1500, LINES));
    use_cache("cache-1");
    train(1, file, 0);
    use_cache("cache-n");
    rank_group g[] = {ranks_start(2, arguments(file, "output-1")),
                      ranks_start(2, arguments(file, "output-2"))};
    for (int i = 0; i < 2; i++)
        ranks_expect(&g[i], 0);
    same_cache("cache-1", "cache-n");
}

static void a_bad_row_ends_all(void **state)
{
    (void)state;
    char file[640], name[512];
    snprintf(file, sizeof file, "%s", rows_write("rows.jsonl", append_bad, 1500, LINES));
    use_cache("cache-n");
    for (int ranks = 1; ranks <= 3; ranks++) {
        train(ranks, file, 65);
        for (int r = 0; r < ranks; r++)
            ranks_says(r, "rows.jsonl:701: rejected must be a string, not a number");
        assert_int_equal(find_files("cache-n", ".part-", name), 0);
        assert_int_equal(find_files("cache-n", ".bin", name), 0);
    }
}

/* While another job has the lock nobody tokenises; when it has made the cache, that is taken. */
static void a_job_waits_for_another(void **state)
{
    (void)state;
    char file[640], name[512], from[1400], to[1400];
    struct stat made, left;
    snprintf(file, sizeof file, "%s", rows_write("rows.jsonl", rows_pair, 1500, LINES));
    use_cache("cache-1");
    train(1, file, 0);
    use_cache("cache-n");
    CHECK_OK(file_make_folder(scratch_path("cache-n")));
    assert_int_equal(find_files("cache-1", ".lock", name), 1);
    snprintf(to, sizeof to, "%s/%s", scratch_path("cache-n"), name);
    const int fd = open(to, O_RDWR | O_CREAT, 0666);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    assert_true(fd >= 0 && fcntl(fd, F_SETLK, &whole) == 0);
    rank_group g = ranks_start(2, arguments(file, "output"));
    const double limit = program_clock() + 60;
    while (find_files("cache-n", ".part-", name) < 2) { /* they have looked for the cache */
        assert_true(program_clock() < limit);
        program_sleep(0.002);
    }
    assert_int_equal(find_files("cache-1", ".bin", name), 1);
    snprintf(from, sizeof from, "%s/%s", scratch_path("cache-1"), name);
    snprintf(to, sizeof to, "%s/%s", scratch_path("cache-n"), name);
    CHECK_OK(file_copy(to, from));
    assert_int_equal(stat(to, &made), 0);
    close(fd);
    ranks_expect(&g, 0);
    assert_int_equal(stat(to, &left), 0);
    assert_true(made.st_ino == left.st_ino);
    same_cache("cache-1", "cache-n");
    CHECK_OK(file_remove_folder(scratch_path("output")));
}

/* Wait until some rank has written something of its part. */
static void wait_for_part(const char *folder)
{
    const double limit = program_clock() + 60;
    for (struct stat s = {0}; s.st_size == 0; program_sleep(0.002)) {
        char name[512], path[1400];
        if (program_clock() > limit) fail_msg("nothing is tokenised after a minute");
        if (find_files(folder, ".part-", name) == 0) continue;
        snprintf(path, sizeof path, "%s/%s", scratch_path(folder), name);
        if (stat(path, &s) != 0) s.st_size = 0;
    }
}

static void age_parts(const char *folder)
{
    DIR *d = opendir(scratch_path(folder));
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[1400];
        if (strstr(e->d_name, ".part-") == NULL) continue;
        snprintf(path, sizeof path, "%s/%s", scratch_path(folder), e->d_name);
        rows_age(path);
    }
    closedir(d);
}

/* One that is killed in the middle ends the others; what it leaves is gone after the next run an hour later, of whatever data. */
static void one_is_killed(void **state)
{
    (void)state;
    char file[640], name[512];
    snprintf(file, sizeof file, "%s", rows_write("rows.jsonl", rows_pair, 60000, LINES));
    use_cache("cache-n");
    rank_group g = ranks_start(3, arguments(file, "output"));
    wait_for_part("cache-n");
    assert_int_equal(kill(g.pid[1], SIGKILL), 0);
    ranks_wait(&g, 60);
    assert_int_equal(g.status[1], 128 + SIGKILL);
    assert_true(g.status[0] == 69 && g.status[2] == 69);
    ranks_says(0, "rank 1");
    ranks_says(2, "rank 1");
    assert_int_equal(find_files("cache-n", ".bin", name), 0);
    assert_true(find_files("cache-n", ".part-", name) > 0);
    age_parts("cache-n");
    CHECK_OK(file_remove_folder(scratch_path("output")));
    train(2, rows_write("few.jsonl", rows_pair, 20, LINES), 0);
    assert_int_equal(find_files("cache-n", ".part-", name), 0);
    assert_int_equal(find_files("cache-n", ".bin", name), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_make_the_cache_of_one),
        cmocka_unit_test(folders_of_their_own),
        cmocka_unit_test(two_jobs),
        cmocka_unit_test(a_job_waits_for_another),
        cmocka_unit_test(a_bad_row_ends_all),
        cmocka_unit_test(one_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
