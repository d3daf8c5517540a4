/* test_file.c - files are written whole or not at all, and nothing that is read or removed leads elsewhere. */
/* rooms: base */
#include "test.h"
#include "base/file.h"
#include "base/hash.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[512];

/* A path inside the test's folder; four are valid at a time. */
static const char *in(const char *name)
{
    static char paths[4][700];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int make(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/cudpo-file-XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(folder) == NULL;
}

static int unmake(void **state)
{
    (void)state;
    return file_remove_folder(folder) != CUDPO_OK;
}

static void check_content(const char *path, const char *want)
{
    char *text = NULL;
    size_t n = 0;
    CHECK_OK(file_read(&text, &n, path, 1 << 20));
    assert_int_equal(n, strlen(want));
    assert_string_equal(text, want); /* a NUL is behind it */
    free(text);
}

static bool exists(const char *path)
{
    struct stat s;
    return lstat(path, &s) == 0;
}

static void paths_are_joined(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"a", "b", "a/b"},   {"a/", "b", "a/b"},
                                           {"/", "b", "/b"},    {"", "b", "b"},
                                           {"a/b", "", "a/b/"}, {".", "c.json", "./c.json"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path = path_join(cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        free(path);
    }
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    CHECK_OK(file_write(in("a"), "first", 5));
    check_content(in("a"), "first");
    CHECK_OK(file_write(in("a"), "second one", 10));
    check_content(in("a"), "second one");
    CHECK_OK(file_write(in("a"), NULL, 0));
    check_content(in("a"), "");
    CHECK_OK(file_write(in("b"), "x\0y", 3));
    char *text = NULL;
    size_t n = 0;
    CHECK_OK(file_read(&text, &n, in("b"), 3));
    assert_int_equal(n, 3);
    assert_memory_equal(text, "x\0y", 4);
    free(text);
    assert_false(exists(in("a.tmp")) || exists(in("b.tmp")));
    assert_true(file_is_regular(in("a")) && !file_is_folder(in("a")));
    assert_true(!file_is_regular(folder) && file_is_folder(folder));
    assert_false(file_is_regular(in("none")) || file_is_folder(in("none")));
}

static void reading_refuses_what_is_no_file(void **state)
{
    (void)state;
    char *text = (char *)1;
    size_t n = 1;
    FILE *f = NULL;
    hash128 h;
    CHECK_FAILS(file_read(&text, &n, in("none"), 10), CUDPO_ENOINPUT, "none: can't open");
    assert_true(text == NULL && n == 0);
    CHECK_FAILS(file_read(&text, &n, folder, 10), CUDPO_EDATA, "not a regular file");
    CHECK_OK(file_write(in("file"), "12345", 5));
    CHECK_FAILS(file_read(&text, &n, in("file/below"), 10), CUDPO_ENOINPUT, "can't open");
    CHECK_FAILS(file_read(&text, &n, in("file"), 4), CUDPO_EDATA, "5 bytes; at most 4");
    assert_int_equal(mkfifo(in("fifo"), 0600), 0); /* to open it for reading would wait for ever */
    CHECK_FAILS(file_read(&text, &n, in("fifo"), 10), CUDPO_EDATA, "not a regular file");
    CHECK_FAILS(hash_file(&h, in("fifo")), CUDPO_EDATA, "not a regular file");
    CHECK_FAILS(file_copy(in("copy"), in("fifo")), CUDPO_EDATA, "not a regular file");
    CHECK_FAILS(file_open(&f, in("fifo")), CUDPO_EDATA, "not a regular file");
    CHECK_FAILS(hash_file(&h, in("none")), CUDPO_ENOINPUT, "none");
    CHECK_FAILS(file_read(&text, &n, "/dev/zero", 10), CUDPO_EDATA, "not a regular file");
    assert_int_equal(symlink(in("loop"), in("loop")), 0);
    CHECK_FAILS(file_read(&text, &n, in("loop"), 10), CUDPO_EDATA, "can't open");
    if (geteuid() != 0) { /* nothing is forbidden to root */
        assert_int_equal(chmod(in("file"), 0), 0);
        CHECK_FAILS(file_read(&text, &n, in("file"), 10), CUDPO_EPERM, "Permission denied");
    }
    file_drop_cache(in("none"));
    file_drop_cache(in("fifo"));
    file_drop_cache(in("file"));
}

static void folders_are_made(void **state)
{
    (void)state;
    CHECK_OK(file_make_folder(in("x/y//z/")));
    assert_true(file_is_folder(in("x/y/z")));
    CHECK_OK(file_make_folder(in("x/y/z")));
    CHECK_OK(file_make_folder("/"));
    CHECK_OK(file_make_folder("."));
    CHECK_FAILS(file_make_folder(""), CUDPO_EWRITE, "no name");
    CHECK_OK(file_write(in("x/f"), "1", 1));
    CHECK_FAILS(file_make_folder(in("x/f")), CUDPO_EWRITE, "not a folder");
    CHECK_FAILS(file_make_folder(in("x/f/g")), CUDPO_EWRITE, "x/f");
    check_content(in("x/f"), "1");
}

static void a_writer_shows_nothing_before_its_commit(void **state)
{
    (void)state;
    file_writer w;
    CHECK_OK(file_write(in("w"), "old", 3));
    CHECK_OK(file_writer_open(&w, in("w")));
    CHECK_OK(file_writer_put(&w, "new", 3));
    check_content(in("w"), "old");
    file_writer_abandon(&w);
    file_writer_abandon(&w);
    check_content(in("w"), "old");
    assert_false(exists(in("w.tmp")));
    CHECK_OK(file_writer_open(&w, in("w")));
    CHECK_OK(file_writer_put(&w, "new", 3));
    CHECK_OK(file_writer_put(&w, NULL, 0));
    CHECK_OK(file_writer_commit(&w));
    file_writer_abandon(&w);
    check_content(in("w"), "new");
    assert_false(exists(in("w.tmp")));
    CHECK_FAILS(file_writer_commit(&w), CUDPO_EINVAL, "stream"); /* exactly once */
    file_writer_abandon(&(file_writer){0});
}

static void a_failed_write_leaves_nothing(void **state)
{
    (void)state;
    CHECK_FAILS(file_write(in("no/such"), "x", 1), CUDPO_EWRITE, "no/such: can't create");
    CHECK_OK(file_make_folder(in("folder")));
    CHECK_FAILS(file_write(in("folder"), "x", 1), CUDPO_EWRITE, "folder: can't rename");
    assert_false(exists(in("folder.tmp")));
    CHECK_OK(file_write(in("from"), "x", 1));
    CHECK_FAILS(file_copy(in("to"), in("none")), CUDPO_ENOINPUT, "none");
    CHECK_FAILS(file_copy(in("no/to"), in("from")), CUDPO_EWRITE, "no/to");
    assert_false(exists(in("to")));
    if (access("/dev/full", W_OK) != 0) return;
    /* A full disk, as far as it can be had anywhere. */
    file_writer w;
    CHECK_OK(file_writer_open(&w, in("full")));
    FILE *real = w.stream;
    w.stream = fopen("/dev/full", "wb");
    assert_non_null(w.stream);
    cudpo_status status = file_writer_put(&w, "x", 1);
    if (status == CUDPO_OK) status = file_writer_commit(&w);
    CHECK_FAILS(status, CUDPO_EWRITE, "");
    file_writer_abandon(&w);
    fclose(real);
    assert_false(exists(in("full")) || exists(in("full.tmp")));
}

static void the_mode_follows_the_umask(void **state)
{
    (void)state;
    struct stat s;
    const mode_t before = umask(027);
    CHECK_OK(file_write(in("mode"), "x", 1));
    umask(before);
    assert_int_equal(stat(in("mode"), &s), 0);
    assert_int_equal(s.st_mode & 0777, 0640);
}

/* What stands at the name of the temporary is written over only if it is a plain file of that name alone. */
static void temporaries_lead_nowhere(void **state)
{
    (void)state;
    CHECK_OK(file_write(in("precious"), "kept", 4));
    assert_int_equal(symlink(in("precious"), in("t.tmp")), 0);
    CHECK_OK(file_write(in("t"), "written", 7));
    assert_int_equal(link(in("precious"), in("t.tmp")), 0);
    CHECK_OK(file_write(in("t"), "again", 5));
    check_content(in("precious"), "kept");
    check_content(in("t"), "again");
    assert_int_equal(mkfifo(in("t.tmp"), 0600), 0);
    CHECK_OK(file_write(in("t"), "third", 5));
    check_content(in("t"), "third");
    assert_false(exists(in("t.tmp")));
    /* A leftover of a writer that was killed. */
    FILE *f = fopen(in("t.tmp"), "wb");
    assert_non_null(f);
    fputs("half of something long", f);
    fclose(f);
    CHECK_OK(file_write(in("t"), "4", 1));
    check_content(in("t"), "4");
    assert_false(exists(in("t.tmp")));
    /* A folder of that name can't be taken over, and is not removed. */
    CHECK_OK(file_make_folder(in("t.tmp")));
    CHECK_FAILS(file_write(in("t"), "5", 1), CUDPO_EWRITE, "can't create");
    check_content(in("t"), "4");
    /* A link as the target is replaced, not written through. */
    assert_int_equal(symlink(in("precious"), in("l")), 0);
    CHECK_OK(file_write(in("l"), "own", 3));
    check_content(in("precious"), "kept");
    check_content(in("l"), "own");
}

/* Write a file of one letter `rounds` times, in pieces, slowly enough to meet the others. */
static void write_rounds(const char *path, char letter, int rounds)
{
    char chunk[5000];
    memset(chunk, letter, sizeof chunk);
    for (int i = 0; i < rounds; i++) {
        file_writer w;
        if (file_writer_open(&w, path) != CUDPO_OK) _exit(1);
        for (int piece = 0; piece < 20; piece++)
            if (file_writer_put(&w, chunk, sizeof chunk) != CUDPO_OK) _exit(2);
        if (file_writer_commit(&w) != CUDPO_OK) _exit(3);
    }
    _exit(0);
}

/* Runs that share a cache compute the same file at the same time. */
static void several_processes_write_one_file(void **state)
{
    (void)state;
    enum { WRITERS = 4, ROUNDS = 40, SIZE = 100000 };
    pid_t child[WRITERS];
    fflush(NULL);
    for (int i = 0; i < WRITERS; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i] == 0) write_rounds(in("shared"), (char)('a' + i), ROUNDS);
    }
    int running = WRITERS, seen = 0;
    while (running > 0) {
        int status = 0;
        if (waitpid(-1, &status, WNOHANG) > 0) {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0); /* none stands in another's way */
            running--;
        }
        char *text = NULL;
        size_t n = 0;
        if (file_read(&text, &n, in("shared"), 1 << 20) != CUDPO_OK) {
            cudpo_error_clear(); /* not there yet */
            continue;
        }
        assert_int_equal(n, SIZE);
        for (size_t i = 1; i < n; i++)
            if (text[i] != text[0]) fail_msg("a mixture of two writers at byte %zu", i);
        free(text);
        seen++;
    }
    assert_true(seen > 0);
    assert_false(exists(in("shared.tmp")));
}

static void a_killed_writer_leaves_old_or_new(void **state)
{
    (void)state;
    enum { KILLS = 25 };
    for (int i = 0; i < KILLS; i++) {
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) write_rounds(in("killed"), (char)('a' + i % 26), 1 << 20);
        const struct timespec wait = {0, 1000000L * (i % 10 + 1)};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        char *text = NULL;
        size_t n = 0;
        if (!exists(in("killed"))) continue;
        CHECK_OK(file_read(&text, &n, in("killed"), 1 << 20));
        assert_int_equal(n, 100000);
        assert_int_equal(text[n - 1], text[0]);
        free(text);
    }
    CHECK_OK(file_write(in("killed"), "done", 4));
    check_content(in("killed"), "done");
}

static void renames_of_folders(void **state)
{
    (void)state;
    CHECK_OK(file_make_folder(in("r/from")));
    CHECK_OK(file_make_folder(in("r/full/x")));
    CHECK_OK(file_make_folder(in("r/empty")));
    CHECK_FAILS(file_rename(in("r/full"), in("r/from")), CUDPO_EWRITE, "r/full: can't rename");
    CHECK_OK(file_rename(in("r/empty"), in("r/from")));
    CHECK_OK(file_rename(in("r/other/"), in("r/empty")));
    assert_true(file_is_folder(in("r/other")));
    CHECK_FAILS(file_rename(in("r/a"), in("r/none")), CUDPO_EWRITE, "r/a");
}

static void removing_follows_no_link(void **state)
{
    (void)state;
    CHECK_OK(file_make_folder(in("outside/deep")));
    CHECK_OK(file_write(in("outside/deep/kept"), "kept", 4));
    CHECK_OK(file_make_folder(in("gone/a/b/c")));
    CHECK_OK(file_write(in("gone/a/b/f"), "x", 1));
    CHECK_OK(file_write(in("gone/.hidden"), "x", 1));
    assert_int_equal(symlink(in("outside"), in("gone/a/link")), 0);
    assert_int_equal(symlink("nowhere", in("gone/dangling")), 0);
    assert_int_equal(mkfifo(in("gone/fifo"), 0600), 0);
    CHECK_OK(file_remove_folder(in("gone")));
    assert_false(exists(in("gone")));
    check_content(in("outside/deep/kept"), "kept");
    /* The folder itself may be a link. */
    assert_int_equal(symlink(in("outside"), in("gone")), 0);
    CHECK_OK(file_remove_folder(in("gone")));
    assert_false(exists(in("gone")));
    check_content(in("outside/deep/kept"), "kept");
    CHECK_OK(file_remove_folder(in("gone")));
    CHECK_OK(file_remove_folder(in("gone/below")));
}

static void hashes_of_files(void **state)
{
    (void)state;
    enum { SIZE = 200001 }; /* over a chunk, and not a multiple of one */
    char *data = malloc(SIZE), text[HASH_TEXT];
    assert_non_null(data);
    for (int i = 0; i < SIZE; i++)
        data[i] = (char)(i * 7 + i / 251);
    hash128 h, want = hash_bytes(data, SIZE);
    CHECK_OK(file_write(in("h"), data, SIZE));
    CHECK_OK(hash_file(&h, in("h")));
    assert_true(h.high == want.high && h.low == want.low);
    hash_state *s = NULL;
    CHECK_OK(hash_begin(&s));
    for (int at = 0; at < SIZE; at += 1000)
        hash_add(s, data + at, (size_t)(SIZE - at < 1000 ? SIZE - at : 1000));
    h = hash_end(s);
    assert_true(h.high == want.high && h.low == want.low);
    /* The value of no bytes, by xxhsum -H2 of an empty file. */
    hash_text(text, hash_bytes("", 0));
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
    CHECK_OK(file_copy(in("copy"), in("h")));
    CHECK_OK(hash_file(&h, in("copy")));
    assert_true(h.high == want.high && h.low == want.low);
    free(data);
    hash_abandon(NULL);
}

/* Asking changes nothing, and leaves nothing. */
static void a_file_that_can_be_written(void **state)
{
    (void)state;
    char *text;
    size_t n;
    CHECK_OK(file_write(in("there"), "abc", 3));
    CHECK_OK(file_check_writable(in("there")));
    CHECK_OK(file_read(&text, &n, in("there"), 10));
    assert_string_equal(text, "abc");
    free(text);
    CHECK_OK(file_check_writable(in("absent")));
    assert_false(file_is_regular(in("absent")) || file_is_regular(in("absent.tmp")));
    CHECK_OK(file_check_writable("/dev/null"));
    CHECK_FAILS(file_check_writable(in("absent/file")), CUDPO_EWRITE, "absent/file");
    CHECK_FAILS(file_check_writable(in("")), CUDPO_EWRITE, "is a folder");
}

/* The parts of a fingerprint can't run into each other. */
static void strings_in_a_hash_are_apart(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"ab", "c"}, {"a", "bc"},   {"abc", ""},
                                           {"", "abc"}, {NULL, "abc"}, {"abc", NULL}};
    enum { N = sizeof pairs / sizeof pairs[0] };
    hash128 h[N];
    for (int i = 0; i < N; i++) {
        hash_state *s = NULL;
        CHECK_OK(hash_begin(&s));
        hash_add_string(s, pairs[i][0]);
        hash_add_string(s, pairs[i][1]);
        h[i] = hash_end(s);
        for (int k = 0; k < i; k++)
            assert_false(h[i].high == h[k].high && h[i].low == h[k].low);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_joined),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(reading_refuses_what_is_no_file),
        cmocka_unit_test(folders_are_made),
        cmocka_unit_test(a_writer_shows_nothing_before_its_commit),
        cmocka_unit_test(a_file_that_can_be_written),
        cmocka_unit_test(a_failed_write_leaves_nothing),
        cmocka_unit_test(the_mode_follows_the_umask),
        cmocka_unit_test(temporaries_lead_nowhere),
        cmocka_unit_test(several_processes_write_one_file),
        cmocka_unit_test(a_killed_writer_leaves_old_or_new),
        cmocka_unit_test(renames_of_folders),
        cmocka_unit_test(removing_follows_no_link),
        cmocka_unit_test(hashes_of_files),
        cmocka_unit_test(strings_in_a_hash_are_apart),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
