/* test_checkpoint_damage.c - whatever changes in the files of a checkpoint is seen, and the one before it is taken. */
/* rooms: train */
#include "test_checkpoint.h"
#include "base/rng.h"
#include "train/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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
        for (int trial = 0; trial < 290; trial++) {
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
    assert_int_equal(flips, 2030);
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

/* Each of three shards: changed, cut, gone, another's, of another step. */
static void damaged_shards_are_seen(void **state)
{
    (void)state;
    enum { SHARDS = 3, FLIPS = 60 };
    fixture f;
    fixture_open(&f);
    f.shards = SHARDS;
    CHECK_OK(fixture_save(&f, 1, 0));
    CHECK_OK(fixture_save(&f, 2, 0));
    const int saved = silence();
    for (int i = 0; i < SHARDS; i++) {
        char file[SHARD_NAME], name[100], other[100];
        shard_name(file, (i + 1) % SHARDS, SHARDS);
        snprintf(other, sizeof other, "checkpoint-2/%s", file);
        shard_name(file, i, SHARDS);
        snprintf(name, sizeof name, "checkpoint-1/%s", file);
        content old = read_all(&f, name), neighbour = read_all(&f, other);
        snprintf(name, sizeof name, "checkpoint-2/%s", file);
        content c = read_all(&f, name);
        for (int trial = 0; trial < FLIPS; trial++) {
            const size_t at = (size_t)rng_below((uint64_t)i, 4, (uint64_t)trial, (int64_t)c.n);
            const char bit = (char)(1 << rng_below((uint64_t)i, 5, (uint64_t)trial, 8));
            c.data[at] ^= bit;
            put(c.path, c.data, c.n);
            check_detected(&f, name, (int64_t)at);
            c.data[at] ^= bit;
        }
        put(c.path, c.data, c.n - 1);
        check_detected(&f, name, -1);
        put(c.path, old.data, old.n);
        check_detected(&f, name, -2);
        put(c.path, neighbour.data, neighbour.n);
        check_detected(&f, name, -3);
        assert_int_equal(unlink(c.path), 0);
        check_detected(&f, name, -4);
        put(c.path, c.data, c.n);
        free(old.data);
        free(neighbour.data);
        free(c.data);
    }
    restore_stderr(saved);
    assert_int_equal(fixture_newest(&f), 2);
    fixture_close(&f);
}

/* A manifest that is right in itself, of a state whose shards it does not list. */
static void shards_that_are_not_listed_are_missed(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    f.shards = 2;
    CHECK_OK(fixture_save(&f, 1, 0));
    CHECK_OK(fixture_save(&f, 2, 0));
    char folder[700], path[800], file[SHARD_NAME];
    checkpoint_state s;
    shard_name(file, 1, 2);
    snprintf(folder, sizeof folder, "%s/checkpoint-2", f.output);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    assert_int_equal(unlink(path), 0);
    CHECK_OK(manifest_write(folder, 2, NULL, 0));
    CHECK_FAILS(checkpoint_read(&s, folder), CUDPO_EDATA, "does not list optimizer-00001-of-00002");
    /* Without its manifest it is one of ours still, and no reason to begin anew. */
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    assert_int_equal(unlink(path), 0);
    CHECK_OK(checkpoint_remove(f.output, 1));
    char *newest = NULL;
    const int saved = silence();
    CHECK_FAILS(checkpoint_newest(&newest, f.output), CUDPO_EDATA, f.output);
    restore_stderr(saved);
    fixture_close(&f);
}

/* Shards that a manifest vouches for, and that are not what they are read as. */
static void shards_of_other_runs_are_refused(void **state)
{
    (void)state;
    static const struct {
        int64_t begin, more, all;
        const char *message;
    } cases[] = {{8, 0, 0, "does not begin where"},
                 {-8, 0, 0, "does not begin where"},
                 {0, 8, 0, "does not begin where"},
                 {0, -8, 0, "its shards have"},
                 {0, 0, 8, "is not of the"}};
    fixture f;
    fixture_open(&f);
    f.shards = 2;
    CHECK_OK(fixture_save(&f, 1, 0));
    char folder[700];
    snprintf(folder, sizeof folder, "%s/checkpoint-1", f.output);
    const int64_t all = tensor_elements(f.weights.all), half = all / 2;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int64_t n = all - half + cases[i].more;
        float *values = calloc((size_t)n, sizeof *values);
        assert_non_null(values);
        const tensor run = tensor_vector(values, DTYPE_F32, n);
        const checkpoint_shard s = {.be = backend_cpu(),
                                    .rank = 1,
                                    .ranks = 2,
                                    .begin = half + cases[i].begin,
                                    .all = all + cases[i].all,
                                    .run = {run, run, run}};
        manifest_entry unused;
        CHECK_OK(shard_write(&unused, &s, folder));
        CHECK_FAILS(checkpoint_restore(f.first.all, 0, &f.first, CHECKPOINT_FIRST, folder, 2),
                    CUDPO_EDATA, cases[i].message);
        free(values);
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flipped_bits_are_seen),
        cmocka_unit_test(cut_and_grown_files_are_seen),
        cmocka_unit_test(damaged_shards_are_seen),
        cmocka_unit_test(shards_that_are_not_listed_are_missed),
        cmocka_unit_test(shards_of_other_runs_are_refused),
        cmocka_unit_test(exchanged_files_are_seen),
        cmocka_unit_test(only_damaged_ones_stop_a_run),
        cmocka_unit_test(hostile_manifests_are_refused),
        cmocka_unit_test(a_damaged_one_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
