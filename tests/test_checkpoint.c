/* test_checkpoint.c - what is saved comes back bit for bit, whatever happens to the process or to the files. */
/* rooms: train */
#include "test_checkpoint.h"
#include "base/rng.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool exists(const fixture *f, const char *name)
{
    char path[1300];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", f->output, name);
    return lstat(path, &s) == 0;
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void all_bits_come_back(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    assert_int_equal(fixture_newest(&f), -1); /* no folder yet */
    CHECK_OK(fixture_save(&f, 0, 0));
    CHECK_OK(fixture_save(&f, 12, 0));
    assert_int_equal(fixture_newest(&f), 12);
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-0/", f.output);
    fixture_check(&f, path, 0);
    assert_int_equal(entries(f.output), 2);
    /* A model folder, and what training needs beside it. */
    static const char *const names[] = {
        "config.json",         "tokenizer.json",         "model.safetensors",
        "exp_avg.safetensors", "exp_avg_sq.safetensors", "trainer_state.json",
        "manifest.json"};
    snprintf(path, sizeof path, "%s/checkpoint-12", f.output);
    assert_int_equal(entries(path), sizeof names / sizeof names[0]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[100];
        snprintf(name, sizeof name, "checkpoint-12/%s", names[i]);
        assert_true(exists(&f, name));
    }
    fixture_close(&f);
}

static void the_oldest_are_removed(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int64_t step = 7; step <= 11; step++) /* 10 sorts behind 9 by number, not by text */
        CHECK_OK(fixture_save(&f, step, 2));
    assert_int_equal(entries(f.output), 2);
    assert_true(exists(&f, "checkpoint-10") && exists(&f, "checkpoint-11"));
    /* The new one is never removed, even where others have higher numbers. */
    CHECK_OK(fixture_save(&f, 3, 1));
    assert_int_equal(entries(f.output), 1);
    assert_int_equal(fixture_newest(&f), 3);
    fixture_close(&f);
}

static void the_same_step_is_replaced(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 4, 0));
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-4/stale", f.output);
    CHECK_OK(file_write(path, "x", 1));
    CHECK_OK(fixture_save(&f, 4, 0));
    assert_false(exists(&f, "checkpoint-4/stale"));
    assert_int_equal(entries(f.output), 1);
    assert_int_equal(fixture_newest(&f), 4);
    fixture_close(&f);
}

/* Other trainers use the name too: their folders are neither read nor removed nor overwritten. */
static void folders_of_others_stay(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-500", f.output);
    CHECK_OK(file_make_folder(path));
    snprintf(path, sizeof path, "%s/checkpoint-500/optimizer.pt", f.output);
    CHECK_OK(file_write(path, "x", 1));
    snprintf(path, sizeof path, "%s/checkpoint-02", f.output);
    CHECK_OK(file_make_folder(path));
    assert_int_equal(fixture_newest(&f), -1);
    CHECK_OK(fixture_save(&f, 1, 1));
    CHECK_OK(fixture_save(&f, 2, 1));
    assert_int_equal(fixture_newest(&f), 2);
    CHECK_FAILS(fixture_save(&f, 500, 1), CUDPO_EWRITE, "not a checkpoint of cudpo");
    CHECK_OK(checkpoint_clean(f.output, -1));
    assert_true(exists(&f, "checkpoint-500/optimizer.pt") && exists(&f, "checkpoint-02"));
    assert_int_equal(entries(f.output), 2);
    fixture_close(&f);
}

static void leftovers_are_cleaned(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int64_t step = 1; step <= 4; step++)
        CHECK_OK(fixture_save(&f, step, 0));
    char path[700], other[700];
    snprintf(path, sizeof path, "%s/.checkpoint-9.tmp/deep/er", f.output);
    CHECK_OK(file_make_folder(path));
    snprintf(path, sizeof path, "%s/.checkpoint-1.removed", f.output);
    CHECK_OK(file_make_folder(path));
    snprintf(path, sizeof path, "%s/metrics.jsonl", f.output);
    CHECK_OK(file_write(path, "x", 1));
    /* A whole one that was never renamed is adopted; a broken one is not. */
    snprintf(path, sizeof path, "%s/checkpoint-4", f.output);
    snprintf(other, sizeof other, "%s/.checkpoint-4.tmp", f.output);
    CHECK_OK(file_rename(other, path));
    assert_int_equal(fixture_newest(&f), 4);
    assert_true(exists(&f, "checkpoint-4") && !exists(&f, ".checkpoint-4.tmp"));

    CHECK_OK(checkpoint_clean(f.output, 2));
    assert_int_equal(entries(f.output), 3); /* 1, 2 and the metrics */
    assert_int_equal(fixture_newest(&f), 2);
    CHECK_OK(checkpoint_clean(f.output, -1));
    assert_int_equal(entries(f.output), 1);
    snprintf(path, sizeof path, "%s/nowhere", f.output);
    CHECK_OK(checkpoint_clean(path, -1));
    fixture_close(&f);
}

static void bad_calls_are_refused(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    checkpoint_state s = fixture_state(1), broken = s;
    char path[700];
    snprintf(path, sizeof path, "%s/checkpoint-1", f.output);
    CHECK_FAILS(checkpoint_read(&s, path), CUDPO_ENOINPUT, path);
    CHECK_FAILS(checkpoint_read(&s, f.source), CUDPO_EDATA, "manifest.json");
    broken.step = -1;
    CHECK_FAILS(checkpoint_save(f.output, &broken, &f.weights, &f.first, &f.second, f.source, 1),
                CUDPO_EINVAL, "step");
    broken = fixture_state(1);
    broken.sum_count = CHECKPOINT_SUMS + 1;
    CHECK_FAILS(checkpoint_save(f.output, &broken, &f.weights, &f.first, &f.second, f.source, 1),
                CUDPO_EINVAL, "sum_count");
    assert_false(file_is_folder(f.output));
    /* An output folder that can't be one. */
    CHECK_OK(file_write(f.output, "x", 1));
    CHECK_FAILS(fixture_save(&f, 1, 1), CUDPO_EWRITE, f.output);
    /* A checkpoint of another shape of model. */
    assert_int_equal(unlink(f.output), 0);
    CHECK_OK(fixture_save(&f, 1, 1));
    model_config wide = f.config;
    wide.hidden_size = 16;
    wide.head_dim = 8;
    model_weights other;
    CHECK_OK(model_weights_create(&other, backend_cpu(), &wide));
    CHECK_FAILS(checkpoint_restore(&other, &f.first, &f.second, path), CUDPO_EDATA, "shape");
    model_weights_destroy(&other);
    fixture_close(&f);
}

/* ---- damage ---- */

typedef struct content {
    char path[1300];
    char *data;
    size_t n;
} content;

static content read_all(const fixture *f, const char *name)
{
    content c;
    snprintf(c.path, sizeof c.path, "%s/%s", f->output, name);
    CHECK_OK(file_read(&c.data, &c.n, c.path, 1 << 24));
    return c;
}

/* Write in place, as damage does. */
static void put(const char *path, const char *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static const char *const damaged_files[] = {
    "manifest.json", "trainer_state.json",     "model.safetensors", "exp_avg.safetensors",
    "config.json",   "exp_avg_sq.safetensors", "tokenizer.json"};

/* checkpoint-2 is seen to be damaged, and checkpoint-1 is found in its place. */
static void check_detected(fixture *f, const char *what, int64_t at)
{
    checkpoint_state s;
    char path[700], *newest = NULL;
    snprintf(path, sizeof path, "%s/checkpoint-2", f->output);
    const cudpo_status status = checkpoint_read(&s, path);
    if (status != CUDPO_EDATA) fail_msg("%s at %lld: status %d", what, (long long)at, (int)status);
    cudpo_error_clear();
    CHECK_OK(checkpoint_newest(&newest, f->output));
    if (newest == NULL || strcmp(newest + strlen(newest) - 13, "/checkpoint-1") != 0)
        fail_msg("%s at %lld: newest is %s", what, (long long)at, newest);
    free(newest);
}

/* stderr of this process, silenced while hundreds of warnings are expected and read elsewhere. */
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
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
}

/* Every bit of the small files and of the headers of the large ones, and bits all over the rest. */
static void flipped_bits_are_seen(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    CHECK_OK(fixture_save(&f, 2, 0));
    const int saved = silence();
    int64_t flips = 0;
    for (size_t i = 0; i < sizeof damaged_files / sizeof damaged_files[0]; i++) {
        char name[100];
        snprintf(name, sizeof name, "checkpoint-2/%s", damaged_files[i]);
        content c = read_all(&f, name);
        assert_true(c.n > 0);
        for (int trial = 0; trial < 120; trial++) {
            const size_t at = (size_t)rng_below(i, 1, (uint64_t)trial, (int64_t)c.n);
            c.data[at] ^= (char)(1 << rng_below(i, 2, (uint64_t)trial, 8));
            put(c.path, c.data, c.n);
            check_detected(&f, name, (int64_t)at);
            c.data[at] ^= (char)(1 << rng_below(i, 2, (uint64_t)trial, 8));
            flips++;
        }
        put(c.path, c.data, c.n);
        free(c.data);
    }
    restore_stderr(saved);
    assert_int_equal(flips, 840);
    assert_int_equal(fixture_newest(&f), 2); /* all of it was put back: no false alarm */
    fixture_close(&f);
}

static void cut_and_grown_files_are_seen(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    CHECK_OK(fixture_save(&f, 2, 0));
    const int saved = silence();
    for (size_t i = 0; i < sizeof damaged_files / sizeof damaged_files[0]; i++) {
        char name[100];
        snprintf(name, sizeof name, "checkpoint-2/%s", damaged_files[i]);
        content c = read_all(&f, name);
        char *grown = calloc(1, c.n + 512);
        assert_non_null(grown);
        memcpy(grown, c.data, c.n);
        for (int trial = 0; trial < 30; trial++) {
            const size_t n = trial == 0   ? 0
                             : trial == 1 ? c.n - 1
                                          : (size_t)rng_below(i, 3, (uint64_t)trial, (int64_t)c.n);
            put(c.path, c.data, n);
            check_detected(&f, name, (int64_t)n);
        }
        put(c.path, grown, c.n + 1);
        check_detected(&f, name, 1);
        put(c.path, grown, c.n + 512);
        check_detected(&f, name, 512);
        memset(grown, 0, c.n); /* a page that was never written */
        put(c.path, grown, c.n);
        check_detected(&f, name, 0);
        assert_int_equal(unlink(c.path), 0);
        check_detected(&f, name, -1);
        assert_int_equal(mkdir(c.path, 0777), 0);
        check_detected(&f, name, -2);
        assert_int_equal(rmdir(c.path), 0);
        put(c.path, c.data, c.n);
        free(grown);
        free(c.data);
    }
    restore_stderr(saved);
    assert_int_equal(fixture_newest(&f), 2);
    fixture_close(&f);
}

static void exchanged_files_are_seen(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    CHECK_OK(fixture_save(&f, 2, 0));
    const int saved = silence();
    /* A file of the other checkpoint: the same name, shape and size, and old. */
    for (size_t i = 0; i < 4; i++) {
        char from[100], to[100];
        snprintf(from, sizeof from, "checkpoint-1/%s", damaged_files[i]);
        snprintf(to, sizeof to, "checkpoint-2/%s", damaged_files[i]);
        content a = read_all(&f, from), b = read_all(&f, to);
        put(b.path, a.data, a.n);
        check_detected(&f, to, 0);
        put(b.path, b.data, b.n);
        free(a.data);
        free(b.data);
    }
    /* Two moments of the same checkpoint. */
    content m = read_all(&f, "checkpoint-2/exp_avg.safetensors");
    content v = read_all(&f, "checkpoint-2/exp_avg_sq.safetensors");
    assert_int_equal(m.n, v.n);
    put(m.path, v.data, v.n);
    put(v.path, m.data, m.n);
    check_detected(&f, "moments", 0);
    put(m.path, m.data, m.n);
    put(v.path, v.data, v.n);
    free(m.data);
    free(v.data);
    /* A whole checkpoint under the name of a later step. */
    char path[700], later[700];
    snprintf(path, sizeof path, "%s/checkpoint-2", f.output);
    snprintf(later, sizeof later, "%s/checkpoint-5", f.output);
    assert_int_equal(rename(path, later), 0);
    char *newest = NULL;
    CHECK_OK(checkpoint_newest(&newest, f.output));
    assert_non_null(newest);
    assert_string_equal(newest + strlen(newest) - 13, "/checkpoint-1");
    free(newest);
    restore_stderr(saved);
    fixture_close(&f);
}

/* To start anew over damaged checkpoints would throw away what may still be saved by hand. */
static void only_damaged_ones_stop_a_run(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    char path[700], *newest = NULL;
    snprintf(path, sizeof path, "%s/checkpoint-1/exp_avg.safetensors", f.output);
    put(path, "x", 1);
    const int saved = silence();
    CHECK_FAILS(checkpoint_newest(&newest, f.output), CUDPO_EDATA, f.output);
    restore_stderr(saved);
    assert_null(newest);
    /* The message of a read names file and reason. */
    checkpoint_state s;
    char folder[700];
    snprintf(folder, sizeof folder, "%s/checkpoint-1", f.output);
    CHECK_FAILS(checkpoint_read(&s, folder), CUDPO_EDATA, "exp_avg.safetensors: has 1 bytes");
    CHECK_OK(checkpoint_clean(f.output, -1));
    assert_int_equal(entries(f.output), 0);
    fixture_close(&f);
}

/* A manifest with a right checksum is whole, but who wrote it may have meant harm. */
static void put_sealed(const char *path, const char *body)
{
    char text[1000], digits[HASH_TEXT];
    hash_text(digits, hash_bytes(body, strlen(body)));
    const int n = snprintf(text, sizeof text, "%s,\n  \"xxh3\": \"%s\"\n}\n", body, digits);
    put(path, text, (size_t)n);
}

static void hostile_manifests_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body, *message;
    } cases[] = {
        {"{\"version\": 2, \"step\": 1, \"files\": []", "another version"},
        {"{\"version\": 1, \"step\": 1, \"files\": []", "does not list model.safetensors"},
        {"{\"version\": 1, \"step\": 1.5, \"files\": []", "lacks step or files"},
        {"{\"version\": 1, \"step\": 1, \"files\": {}", "lacks step or files"},
        {"{\"version\": 1, \"step\": 1, \"files\": [7]", "an entry lacks name"},
        {"{\"version\": 1, \"step\": 1, \"files\": [{\"name\": \"a\", \"bytes\": 1, \"xxh3\": 2}]",
         "an entry lacks name"},
        {"{\"version\": 1, \"step\": 1, \"files\": [{\"name\": \"../source/config.json\", "
         "\"bytes\": 1, \"xxh3\": \"\"}]",
         "not a file's name"},
        {"{\"version\": 1, \"step\": 1, \"files\": [{\"name\": \"..\", \"bytes\": 1, \"xxh3\": "
         "\"\"}]",
         "not a file's name"},
        {"{\"version\": 1, \"step\": 1, \"files\": [{\"name\": \"fifo\", \"bytes\": 0, \"xxh3\": "
         "\"\"}]",
         "not a regular file"},
        {"[1", "not valid JSON"},
        {"{\"step\": 1, \"step\": 1", "stands twice"},
    };
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    char folder[700], path[800], fifo[800];
    checkpoint_state s;
    snprintf(folder, sizeof folder, "%s/checkpoint-1", f.output);
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    assert_int_equal(mkfifo(fifo, 0600), 0); /* reading it would hang */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_sealed(path, cases[i].body);
        CHECK_FAILS(checkpoint_read(&s, folder), CUDPO_EDATA, cases[i].message);
    }
    fixture_close(&f);
}

static void a_damaged_one_is_named(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    CHECK_OK(fixture_save(&f, 2, 0));
    content c = read_all(&f, "checkpoint-2/model.safetensors");
    c.data[c.n - 1] ^= 1;
    put(c.path, c.data, c.n);
    free(c.data);
    char log[700];
    snprintf(log, sizeof log, "%s/log", f.folder);
    const int saved = silence(), fd = open(log, O_WRONLY | O_CREAT, 0666);
    assert_true(fd >= 0);
    dup2(fd, 2);
    close(fd);
    const int64_t newest = fixture_newest(&f);
    restore_stderr(saved);
    assert_int_equal(newest, 1);
    char *text = NULL;
    size_t n = 0;
    CHECK_OK(file_read(&text, &n, log, 1 << 16));
    assert_non_null(strstr(text, "warning: "));
    assert_non_null(strstr(text, "checkpoint-2/model.safetensors: is damaged"));
    free(text);
    fixture_close(&f);
}

/* ---- kill -9 ---- */

static int64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A trainer that does nothing but save: from the newest checkpoint on, keeping two.  It says when it begins. */
static void save_for_ever(fixture *f, int ready)
{
    const int64_t newest = fixture_newest(f);
    CHECK_OK(checkpoint_clean(f->output, newest));
    assert_int_equal(write(ready, "", 1), 1);
    for (int64_t step = newest + 1;; step++)
        CHECK_OK(fixture_save(f, step, 2));
}

static void killed_at_any_point(void **state)
{
    (void)state;
    enum { KILLS = 60 };
    fixture f;
    fixture_open(&f);
    int64_t newest = 2, progress = 0, start = milliseconds();
    for (int64_t step = 0; step <= newest; step++)
        CHECK_OK(fixture_save(&f, step, 2));
    /* Up to the time of four saves, which depends on the disk. */
    int64_t window = 1000 * (milliseconds() - start + 1) / 3 * 4;
    window = window > 200000 ? 200000 : window;
    start = milliseconds();
    for (int i = 0; i < KILLS; i++) {
        int ready[2];
        char byte;
        assert_int_equal(pipe(ready), 0);
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            save_for_ever(&f, ready[1]);
            _exit(1);
        }
        /* Some are killed while they resume and clean up, most while they save. */
        if (i % 8 != 0) assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        close(ready[1]);
        const long microseconds = (long)rng_below(17, 5, (uint64_t)i, window);
        const struct timespec wait = {0, microseconds * 1000};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) &&
                    WTERMSIG(status) == SIGKILL); /* it never failed itself */
        const int64_t now = fixture_newest(&f);   /* checks every bit of it */
        if (now < newest)
            fail_msg("kill %d: step %lld after %lld", i, (long long)now, (long long)newest);
        progress += now > newest;
        newest = now;
    }
    printf("%d kills in %lld ms: step %lld, progress after %lld of them\n", KILLS,
           (long long)(milliseconds() - start), (long long)newest, (long long)progress);
    assert_true(progress >= KILLS / 10); /* restarts do not stand in each other's way */
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_bits_come_back),
        cmocka_unit_test(the_oldest_are_removed),
        cmocka_unit_test(the_same_step_is_replaced),
        cmocka_unit_test(folders_of_others_stay),
        cmocka_unit_test(leftovers_are_cleaned),
        cmocka_unit_test(bad_calls_are_refused),
        cmocka_unit_test(flipped_bits_are_seen),
        cmocka_unit_test(cut_and_grown_files_are_seen),
        cmocka_unit_test(exchanged_files_are_seen),
        cmocka_unit_test(only_damaged_ones_stop_a_run),
        cmocka_unit_test(hostile_manifests_are_refused),
        cmocka_unit_test(a_damaged_one_is_named),
        cmocka_unit_test(killed_at_any_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
