/* test_reference_cache.c - log-probs on disk: the same bits again, or none. */
/* rooms: train */
#include "test.h"
#include "base/file.h"
#include "base/rng.h"
#include "train/reference_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[512];
static const hash128 key = {0x1122334455667788u, 0x99aabbccddeeff00u};
static const char name[] = "reference-112233445566778899aabbccddeeff00.bin";

static int make(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    if (base == NULL && access("/dev/shm", W_OK) == 0) base = "/dev/shm";
    snprintf(folder, sizeof folder, "%s/cudpo-cache-XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(folder) == NULL;
}

static int unmake(void **state)
{
    (void)state;
    return file_remove_folder(folder) != CUDPO_OK;
}

static int64_t length_of(int64_t sequence)
{
    return sequence % 5 == 3 ? 0 : 1 + sequence * 7 % 31;
}

static float value_of(int64_t sequence, int64_t token)
{
    return (float)(-3.0 - rng_normal(9, (uint64_t)sequence, (uint64_t)token));
}

static void write_cache(int64_t sequences)
{
    reference_cache_writer *w = NULL;
    CHECK_OK(reference_cache_create(&w, folder, key, sequences));
    for (int64_t s = 0; s < sequences; s++) {
        float logp[64];
        for (int64_t i = 0; i < length_of(s); i++)
            logp[i] = value_of(s, i);
        CHECK_OK(reference_cache_put(w, logp, length_of(s)));
    }
    CHECK_OK(reference_cache_commit(w));
}

static void check_cache(const reference_cache *c, int64_t sequences)
{
    for (int64_t s = 0; s < sequences; s++) {
        int64_t n = -1;
        const float *logp = reference_cache_tokens(c, s, &n);
        assert_int_equal(n, length_of(s));
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            assert_true(logp[i] == value_of(s, i));
            sum += (double)logp[i];
        }
        assert_true(reference_cache_score(c, s) == (float)sum);
    }
}

static bool opens(int64_t sequences)
{
    reference_cache *c = NULL;
    bool found = true;
    CHECK_OK(reference_cache_open(&c, &found, folder, key, sequences));
    assert_true(found == (c != NULL));
    if (found) check_cache(c, sequences);
    reference_cache_close(c);
    return found;
}

static void what_is_put_comes_back(void **state)
{
    (void)state;
    assert_false(opens(5));
    for (int64_t sequences = 0; sequences < 40; sequences++) { /* even and odd numbers of tokens */
        write_cache(sequences);
        assert_true(opens(sequences));
    }
    write_cache(3000);
    assert_true(opens(3000));
    reference_cache_close(NULL);
    reference_cache_abandon(NULL);
}

/* Sums are in double and in order: floats alone would lose the small ones. */
static void scores_are_summed_in_double(void **state)
{
    (void)state;
    reference_cache_writer *w = NULL;
    reference_cache *c = NULL;
    bool found = false;
    const float logp[5] = {-16777216.0f, -1.0f, -1.0f, -1.0f, -1.0f}; /* 2^24: float ignores -1 */
    CHECK_OK(reference_cache_create(&w, folder, key, 2));
    CHECK_OK(reference_cache_put(w, logp, 5));
    CHECK_OK(reference_cache_put(w, NULL, 0));
    CHECK_OK(reference_cache_commit(w));
    CHECK_OK(reference_cache_open(&c, &found, folder, key, 2));
    assert_true(found);
    assert_true(reference_cache_score(c, 0) == -16777220.0f);
    assert_true(reference_cache_score(c, 1) == 0.0f);
    reference_cache_close(c);
}

static void other_keys_and_counts_are_not_taken(void **state)
{
    (void)state;
    write_cache(10);
    reference_cache *c = NULL;
    bool found = true;
    CHECK_OK(reference_cache_open(&c, &found, folder, (hash128){1, 2}, 10));
    assert_false(found);
    assert_false(opens(9));
    assert_false(opens(11));
    /* The file of one key under the name of another. */
    char from[600], to[600];
    snprintf(from, sizeof from, "%s/%s", folder, name);
    snprintf(to, sizeof to, "%s/reference-00000000000000010000000000000002.bin", folder);
    CHECK_OK(file_copy(to, from));
    CHECK_OK(reference_cache_open(&c, &found, folder, (hash128){1, 2}, 10));
    assert_false(found);
}

static int files(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

static void nothing_appears_before_commit(void **state)
{
    (void)state;
    CHECK_OK(file_remove_folder(folder));
    reference_cache_writer *w = NULL;
    const float logp[3] = {-1.0f, -2.0f, -3.0f};
    CHECK_OK(reference_cache_create(&w, folder, key, 2));
    CHECK_OK(reference_cache_put(w, logp, 3));
    assert_false(opens(2));
    CHECK_FAILS(reference_cache_commit(w), CUDPO_EINVAL, "1 of 2"); /* frees it too */
    assert_int_equal(files(), 0);
    CHECK_OK(reference_cache_create(&w, folder, key, 1));
    CHECK_OK(reference_cache_put(w, logp, 3));
    CHECK_FAILS(reference_cache_put(w, logp, 3), CUDPO_EINVAL, "sequences");
    CHECK_FAILS(reference_cache_put(w, logp, -1), CUDPO_EINVAL, "need");
    reference_cache_abandon(w);
    assert_int_equal(files(), 0);
    CHECK_FAILS(reference_cache_create(&w, folder, key, -1), CUDPO_EINVAL, "sequences");
    assert_null(w);
    char path[600];
    snprintf(path, sizeof path, "%s/file", folder);
    CHECK_OK(file_write(path, "x", 1));
    CHECK_FAILS(reference_cache_create(&w, path, key, 1), CUDPO_EWRITE, path);
    assert_null(w);
    assert_int_equal(unlink(path), 0);
}

static int silence(void)
{
    fflush(stderr);
    const int saved = dup(2), null = open("/dev/null", O_WRONLY);
    assert_true(saved >= 0 && null >= 0);
    dup2(null, 2);
    close(null);
    return saved;
}

static void restore_stderr(int saved)
{
    dup2(saved, 2);
    close(saved);
}

static void put(const char *path, const char *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void every_damage_is_seen(void **state)
{
    (void)state;
    enum { SEQUENCES = 6 };
    write_cache(SEQUENCES);
    char path[600], *data = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(file_read(&data, &n, path, 1 << 20));
    const int saved = silence();
    for (size_t at = 0; at < n; at++) { /* every byte, one of its bits each */
        data[at] ^= (char)(1 << at % 8);
        put(path, data, n);
        if (opens(SEQUENCES)) fail_msg("a flipped bit of byte %zu", at);
        data[at] ^= (char)(1 << at % 8);
    }
    for (size_t cut = 0; cut < n; cut++) {
        put(path, data, cut);
        if (opens(SEQUENCES)) fail_msg("cut to %zu of %zu bytes", cut, n);
    }
    char *grown = calloc(1, n + 64);
    assert_non_null(grown);
    memcpy(grown, data, n);
    put(path, grown, n + 8);
    assert_false(opens(SEQUENCES));
    put(path, grown, n + 64);
    assert_false(opens(SEQUENCES));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_false(opens(SEQUENCES));
    assert_int_equal(unlink(path), 0);
    restore_stderr(saved);
    put(path, data, n);
    assert_true(opens(SEQUENCES));
    free(grown);
    free(data);
}

static void the_damaged_file_is_named(void **state)
{
    (void)state;
    write_cache(3);
    char path[600], log[600], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(log, sizeof log, "%s/log", folder);
    put(path, "short", 5);
    const int saved = silence(), fd = open(log, O_WRONLY | O_CREAT, 0666);
    assert_true(fd >= 0);
    dup2(fd, 2);
    close(fd);
    const bool found = opens(3);
    restore_stderr(saved);
    assert_false(found);
    CHECK_OK(file_read(&text, &n, log, 1 << 16));
    assert_non_null(strstr(text, "warning: "));
    assert_non_null(strstr(text, name));
    assert_non_null(strstr(text, "is cut off"));
    free(text);
    assert_int_equal(unlink(log), 0);
    write_cache(3); /* the new one takes its place */
    assert_true(opens(3));
}

static void a_killed_writer_leaves_none(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, name);
        unlink(path);
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (;;)
                write_cache(2000);
        }
        const struct timespec wait = {0, 1000000L * (i + 1)};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        struct stat s;
        assert_true(opens(2000) == (stat(path, &s) == 0)); /* there and whole, or not there */
    }
    write_cache(2000);
    assert_true(opens(2000));
    assert_int_equal(files(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_comes_back),
        cmocka_unit_test(scores_are_summed_in_double),
        cmocka_unit_test(other_keys_and_counts_are_not_taken),
        cmocka_unit_test(nothing_appears_before_commit),
        cmocka_unit_test(every_damage_is_seen),
        cmocka_unit_test(the_damaged_file_is_named),
        cmocka_unit_test(a_killed_writer_leaves_none),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
