/* test_dataset_parts.c - a data set that several make together is, byte for byte, that of one; they fail as one does. */
/* rooms: data base */
#include "test.h"
#include "scratch.h"
#include "base/buffer.h"
#include "base/log.h"
#include "data/build.h"
#include "data/dataset.h"
#include "data/part.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zlib.h>

enum { MEMBERS = 5 };

static const hash128 key = {12, 34};

static tokenizer *load(void)
{
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_load(&t, "tests/golden/models/llama"));
    return t;
}

static buffer read_all(const char *path)
{
    buffer b = {0};
    CHECK_OK(file_read(&b.data, &b.size, path, (size_t)1 << 26));
    b.capacity = b.size + 1;
    return b;
}

/* How many files of the folder have `part` in their names. */
static int count_files(const char *folder, const char *part)
{
    int found = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        found += strstr(e->d_name, part) != NULL;
    closedir(d);
    return found;
}

/* ---- the rows of one file, in several forms ---- */

/* Pairs of very different lengths, some of equal texts, some that merge at the prompt's end, and some too long for max_length. */
static void append_pair(buffer *b, int i)
{
    CHECK_OK(buffer_printf(b, "{\"prompt\":\"Question %d", i));
    for (int k = 0; k < i * 7 % 40 * (i % 97 == 0 ? 20 : 1); k++)
        CHECK_OK(buffer_printf(b, " and %d", k));
    CHECK_OK(buffer_printf(b, "%s\",\"chosen\":\"yes %d\",\"rejected\":\"%s %d\"}",
                           i % 3 == 0 ? "\\n" : " ", i, i % 11 == 0 ? "yes" : "no", i));
}

static void append_label(buffer *b, int i)
{
    CHECK_OK(buffer_printf(b, "{\"prompt\":\"Question %d\\n\",\"completion\":\"", i));
    for (int k = 0; k < i * 5 % 60; k++)
        CHECK_OK(buffer_printf(b, "word %d ", k));
    CHECK_OK(buffer_printf(b, "\",\"label\":%s}", i % 2 == 0 ? "true" : "false"));
}

typedef enum layout { LINES, BLANKS, ARRAY, GZIP } layout;

static const char *write_rows(const char *name, void (*append)(buffer *, int), int rows, layout l)
{
    buffer b = {0};
    if (l == ARRAY) CHECK_OK(buffer_append(&b, "[", 1));
    for (int i = 0; i < rows; i++) {
        if (l == ARRAY && i > 0) CHECK_OK(buffer_append(&b, ",\n", 2));
        append(&b, i);
        if (l == BLANKS) CHECK_OK(buffer_printf(&b, "%s", i % 5 == 0 ? "\r\n\n  \r\n" : "\r\n"));
        if (l == LINES || l == GZIP) CHECK_OK(buffer_append(&b, "\n", 1));
    }
    if (l == ARRAY) CHECK_OK(buffer_append(&b, "]", 1));
    const char *path = scratch_write(name, b.data, b.size);
    if (l == GZIP) {
        gzFile gz = gzopen(path, "wb");
        assert_int_equal(gzwrite(gz, b.data, (unsigned)b.size), (int)b.size);
        assert_int_equal(gzclose(gz), Z_OK);
    }
    buffer_free(&b);
    return path;
}

/* ---- parts one after another ---- */

static buffer build_alone(const char *file, const tokenizer *t, const dataset_options *o)
{
    const char *path = scratch_path("alone");
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    CHECK_OK(dataset_build(stream, file, t, o, path, key));
    assert_int_equal(fclose(stream), 0);
    return read_all(path);
}

/* Returns how many rows the part has. */
static int64_t write_part(part_file *to, const char *file, const tokenizer *t,
                          const dataset_options *o, int32_t part, int32_t parts)
{
    block_reader *r = NULL;
    int64_t rows = 0;
    CHECK_OK(block_reader_open(&r, file, t, o, part, parts));
    for (bool done = false; !done;) {
        const built_row *row = NULL;
        int n = 0;
        CHECK_OK(block_reader_next(r, &row, &n, &done));
        for (int i = 0; i < n; i++)
            CHECK_OK(part_put(to, &row[i]));
        rows += n;
    }
    CHECK_OK(part_finish(to, block_reader_progress(r).rows));
    block_reader_close(r);
    return rows;
}

static void put_together(part_join *j, const char *path, const char *file, const dataset_options *o)
{
    FILE *stream = fopen(path, "wb");
    cache_build b = {0};
    assert_non_null(stream);
    CHECK_OK(cache_build_begin(&b, stream, path, file, o));
    for (;;) {
        built_row row;
        bool done;
        CHECK_OK(part_join_next(j, &row, &done));
        if (done) break;
        CHECK_OK(cache_build_put(&b, &row));
    }
    CHECK_OK(cache_build_finish(&b, key));
    cache_build_abandon(&b);
    assert_int_equal(fclose(stream), 0);
}

/* Returns how many parts have rows. */
static int check_parts(const char *file, const tokenizer *t, const dataset_options *o,
                       int32_t parts, const buffer *want)
{
    part_file part[MEMBERS] = {0};
    char name[MEMBERS][700], *path[MEMBERS];
    part_join *j = NULL;
    int used = 0;
    for (int32_t p = 0; p < parts; p++) {
        snprintf(name[p], sizeof name[p], "%s-%d", scratch_path("part"), (int)p);
        path[p] = name[p];
        CHECK_OK(part_create(&part[p], path[p]));
        used += write_part(&part[p], file, t, o, p, parts) > 0;
    }
    CHECK_OK(part_join_open(&j, path, parts, tokenizer_size(t)));
    put_together(j, scratch_path("together"), file, o);
    part_join_close(j);
    for (int32_t p = 0; p < parts; p++) {
        part_remove(&part[p]);
        assert_false(file_is_regular(path[p]));
    }
    buffer got = read_all(scratch_path("together"));
    assert_int_equal(got.size, want->size);
    assert_memory_equal(got.data, want->data, got.size);
    buffer_free(&got);
    return used;
}

static void parts_give_the_same_bytes(void **state)
{
    (void)state;
    const struct {
        void (*append)(buffer *, int);
        int rows, used; /* used: of MEMBERS parts */
        layout layout;
        dataset_options options;
    } cases[] = {
        {append_pair, 1300, MEMBERS, BLANKS, {.kind = ROW_PAIR, .max_length = 96}},
        {append_pair, 1300, MEMBERS, GZIP, {.kind = ROW_PAIR, .rules = RULES_ORPO}},
        {append_pair, 2300, MEMBERS, ARRAY, {.kind = ROW_LABEL, .max_length = 96}}, /* unpaired */
        {append_label, 600, MEMBERS, LINES, {.kind = ROW_LABEL, .max_length = 64, .keep_end = 1}},
        {append_label, 600, MEMBERS, LINES, {.chosen_only = true}},
        {append_pair, 3, 1, LINES, {.kind = ROW_PAIR}},
        {append_pair, 130, 2, LINES, {.kind = ROW_PAIR}},
    };
    tokenizer *t = load();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const dataset_options *o = &cases[i].options;
        char file[640];
        snprintf(file, sizeof file, "%s",
                 write_rows("rows", cases[i].append, cases[i].rows, cases[i].layout));
        buffer want = build_alone(file, t, o);
        int used = 0;
        for (int32_t parts = 1; parts <= MEMBERS; parts++)
            used = check_parts(file, t, o, parts, &want);
        if (used != cases[i].used) fail_msg("case %zu: %d parts have rows", i, used);
        buffer_free(&want);
    }
    tokenizer_free(t);
}

/* ---- parts that are not what was written ---- */

/* Puts together what there is; the status of the failure, if any. */
static cudpo_status try_to_join(char *const *path, int32_t n, int64_t vocabulary)
{
    part_join *j = NULL;
    built_row row;
    cudpo_status status = part_join_open(&j, path, n, vocabulary);
    for (bool done = false; status == CUDPO_OK && !done;)
        status = part_join_next(j, &row, &done);
    part_join_close(j);
    return status;
}

static void damaged_parts_are_refused(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_LABEL};
    char file[640], name[2][640], *path[] = {name[0], name[1]};
    part_file part[2];
    snprintf(file, sizeof file, "%s", write_rows("rows", append_pair, 4, LINES));
    for (int p = 0; p < 2; p++) {
        snprintf(name[p], sizeof name[p], "%s", scratch_path(p == 0 ? "part-0" : "part-1"));
        CHECK_OK(part_create(&part[p], path[p]));
        (void)write_part(&part[p], file, t, &o, p, 2);
    }
    CHECK_OK(try_to_join(path, 2, tokenizer_size(t)));
    CHECK_FAILS(try_to_join(path, 2, 5), CUDPO_EWRITE, "an id is outside the vocabulary");
    char *const twice[] = {path[0], path[0]}, *const second[] = {path[1]};
    CHECK_OK(try_to_join(path, 1, tokenizer_size(t))); /* which has all four */
    CHECK_FAILS(try_to_join(second, 1, tokenizer_size(t)), CUDPO_EWRITE, "rows are missing");
    CHECK_FAILS(try_to_join(twice, 2, tokenizer_size(t)), CUDPO_EWRITE, "rows are missing");
    buffer good = read_all(path[0]);
    for (size_t cut = 0; cut < good.size; cut++) {
        scratch_write("part-0", good.data, cut);
        assert_int_equal(try_to_join(path, 2, tokenizer_size(t)), CUDPO_EWRITE);
        cudpo_error_clear();
    }
    for (size_t at = 0; at < good.size; at++) {
        good.data[at] ^= (char)(1 << at % 8);
        scratch_write("part-0", good.data, good.size);
        assert_int_equal(try_to_join(path, 2, tokenizer_size(t)), CUDPO_EWRITE);
        cudpo_error_clear();
        good.data[at] ^= (char)(1 << at % 8);
    }
    for (int p = 0; p < 2; p++)
        part_remove(&part[p]);
    buffer_free(&good);
    tokenizer_free(t);
}

/* A process that was killed leaves its part, which the next one removes; not that of a process that lives.  This comes before the
 * process has started a thread: see test_dataset.c. */
static void leftovers_are_swept(void **state)
{
    (void)state;
    CHECK_OK(file_make_folder(scratch_path("swept")));
    char path[700];
    int ready[2];
    snprintf(path, sizeof path, "%s/tokens-1.part-2-0", scratch_path("swept"));
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        part_file part;
        if (part_create(&part, path) != CUDPO_OK || write(ready[1], "", 1) != 1) _exit(1);
        for (;;)
            pause();
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    part_sweep(scratch_path("swept"), NULL);
    assert_true(file_is_regular(path));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    scratch_text("swept/tokens-1.bin", "x");
    scratch_text("swept/other.part-2-0", "x");
    part_sweep(scratch_path("swept"), "part-2");
    assert_true(file_is_regular(path));
    part_sweep(scratch_path("swept"), NULL);
    assert_false(file_is_regular(path));
    assert_int_equal(count_files(scratch_path("swept"), "tokens-1.bin"), 1);
    assert_int_equal(count_files(scratch_path("swept"), "other.part-2-0"), 1);
    close(ready[0]);
    close(ready[1]);
}

/* ---- a company of threads ---- */

typedef struct room {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int size, here;
    int64_t round, lost_at; /* lost_at: the round in which all lose one another; 0: never */
    bool lost;
    char mine[MEMBERS][2048], all[MEMBERS * 2048];
} room;

typedef struct member {
    room *room;
    dataset_company company;
    pthread_t thread;
    const char *file, *cache;
    const tokenizer *tokenizer;
    dataset_options options;
    cudpo_status status;
    char message[1024];
    int64_t count;
    hash128 fingerprint;
} member;

static cudpo_status exchange(void *context, void *all, const void *mine, size_t bytes)
{
    member *m = context;
    room *r = m->room;
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 120;
    pthread_mutex_lock(&r->lock);
    const int64_t round = r->round;
    memcpy(r->mine[m->company.rank], mine, bytes);
    if (++r->here == r->size) {
        for (int i = 0; i < r->size; i++)
            memcpy(r->all + (size_t)i * bytes, r->mine[i], bytes);
        r->here = 0;
        r->round++;
        pthread_cond_broadcast(&r->changed);
    }
    while (r->round == round && !r->lost)
        if (pthread_cond_timedwait(&r->changed, &r->lock, &limit) != 0) r->lost = true;
    /* One that fails behind this round is none of its losses. */
    const bool lost = r->round == round || r->round == r->lost_at;
    if (!lost) memcpy(all, r->all, (size_t)r->size * bytes);
    pthread_mutex_unlock(&r->lock);
    return lost ? cudpo_fail(CUDPO_EPEER, "room", "lost") : CUDPO_OK;
}

static void *open_as_member(void *context)
{
    member *m = context;
    dataset *d = NULL;
    m->options.cache_dir = m->cache;
    m->options.company = &m->company;
    m->status = dataset_open(&d, m->file, m->tokenizer, &m->options);
    snprintf(m->message, sizeof m->message, "%s", cudpo_error_message());
    if (m->status == CUDPO_OK) {
        m->count = dataset_count(d);
        m->fingerprint = dataset_fingerprint(d);
    }
    pthread_mutex_lock(&m->room->lock);
    m->room->lost = m->room->lost || m->status != CUDPO_OK;
    pthread_cond_broadcast(&m->room->changed);
    pthread_mutex_unlock(&m->room->lock);
    dataset_close(d);
    return NULL;
}

/* In: cache [size] each one's folder.  Out: rounds that it took. */
static int64_t open_together(member *m, int size, const char *file, const tokenizer *t,
                             dataset_options o, const char *const *cache, int64_t lost_at)
{
    static room r;
    r = (room){.size = size, .lost_at = lost_at};
    assert_int_equal(pthread_mutex_init(&r.lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&r.changed, NULL), 0);
    for (int i = 0; i < size; i++)
        m[i] = (member){.room = &r,
                        .company = {i, size, 0.01, exchange, &m[i]},
                        .file = file,
                        .cache = cache[i],
                        .tokenizer = t,
                        .options = o};
    for (int i = 0; i < size; i++)
        assert_int_equal(pthread_create(&m[i].thread, NULL, open_as_member, &m[i]), 0);
    for (int i = 0; i < size; i++)
        assert_int_equal(pthread_join(m[i].thread, NULL), 0);
    pthread_cond_destroy(&r.changed);
    pthread_mutex_destroy(&r.lock);
    return r.round;
}

/* The one cache in a folder, in which nothing else is left but its lock. */
static buffer only_cache(const char *folder)
{
    char path[1200] = "";
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        const char *end = strrchr(e->d_name, '.');
        if (e->d_name[0] == '.' || strcmp(end, ".lock") == 0) continue;
        if (path[0] != '\0' || strcmp(end, ".bin") != 0) fail_msg("%s is left", e->d_name);
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    }
    closedir(d);
    assert_true(path[0] != '\0');
    return read_all(path);
}

static const char *fresh(char out[640], const char *name)
{
    snprintf(out, 640, "%s", scratch_path(name));
    CHECK_OK(file_remove_folder(out));
    return out;
}

static void check_cache(const char *folder, const buffer *want)
{
    buffer got = only_cache(folder);
    assert_int_equal(got.size, want->size);
    assert_memory_equal(got.data, want->data, got.size);
    buffer_free(&got);
}

static void members_make_the_cache_of_one(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_LABEL, .max_length = 96};
    char file[640], name[4][640];
    member m[MEMBERS];
    const char *one = fresh(name[0], "one"), *a = name[1], *b = name[2], *c = name[3];
    const struct {
        int rows, size; /* 9000 are two blocks for each of two */
        const char *cache[MEMBERS];
    } cases[] = {
        {9000, 2, {a, a}},          {1200, 5, {a, a, a, a, a}},
        {1200, 2, {a, b}}, /* one folder; one each */
        {1200, 5, {a, a, b, b, a}}, {1200, 4, {c, a, b, c}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const *cache = cases[i].cache;
        const int size = cases[i].size;
        snprintf(file, sizeof file, "%s", write_rows("rows", append_pair, cases[i].rows, LINES));
        for (int k = 0; k < 4; k++)
            fresh(name[k], (const char *const[]){"one", "a", "b", "c"}[k]);
        open_together(m, 1, file, t, o, &one, 0);
        assert_int_equal(m[0].status, CUDPO_OK);
        const int64_t count = m[0].count;
        buffer want = only_cache(one);
        const int64_t rounds = open_together(m, size, file, t, o, cache, 0);
        for (int r = 0; r < size; r++) {
            assert_string_equal(m[r].message, "");
            assert_true(m[r].status == CUDPO_OK && m[r].count == count);
            check_cache(cache[r], &want);
        }
        assert_true(rounds > 5);
        /* It is found again: by all; and where some miss it, those make it. */
        assert_int_equal(open_together(m, size, file, t, o, cache, 0), 3);
        CHECK_OK(file_remove_folder(cache[0]));
        assert_true(open_together(m, size, file, t, o, cache, 0) > 5);
        check_cache(cache[0], &want);
        buffer_free(&want);
    }
    tokenizer_free(t);
}

/* Whichever comes to a bad row, all say what one says who reads from the start. */
static void members_fail_as_one_does(void **state)
{
    (void)state;
    const struct {
        int bad[2]; /* rows in which something is wrong */
        const char *text;
    } cases[] = {
        {{0, 900}, "not JSON"},
        {{250, 100}, "{\"prompt\":1}"}, /* 16 KiB are some 100 rows */
        {{1999, 1999}, "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":3}"},
        {{1300, 700}, "{\"prompt\":\"a\",\"completion\":\"b\"}"},
    };
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_PAIR};
    char file[640], name[640];
    member m[MEMBERS];
    for (size_t i = 0; i <= sizeof cases / sizeof cases[0]; i++) {
        buffer text = {0};
        const bool empty = i == sizeof cases / sizeof cases[0];
        CHECK_OK(buffer_append(&text, "\n", 1));
        for (int row = 0; !empty && row < 2000; row++) {
            if (row == cases[i].bad[0] || row == cases[i].bad[1])
                CHECK_OK(buffer_printf(&text, "%s", cases[i].text));
            else
                append_pair(&text, row);
            CHECK_OK(buffer_append(&text, "\n", 1));
        }
        snprintf(file, sizeof file, "%s", scratch_write("bad.jsonl", text.data, text.size));
        buffer_free(&text);
        const char *cache[MEMBERS], *folder = fresh(name, "bad");
        for (int r = 0; r < MEMBERS; r++)
            cache[r] = folder;
        open_together(m, 1, file, t, o, cache, 0);
        assert_int_equal(m[0].status, CUDPO_EDATA);
        char want[1024], line[32];
        snprintf(want, sizeof want, "%s", m[0].message);
        if (!empty) {
            const int *bad = cases[i].bad, first = bad[0] < bad[1] ? bad[0] : bad[1];
            snprintf(line, sizeof line, "bad.jsonl:%d:", first + 2);
            assert_non_null(strstr(want, line));
        }
        for (int size = 2; size <= MEMBERS; size++) {
            open_together(m, size, file, t, o, cache, 0);
            for (int r = 0; r < size; r++) {
                assert_int_equal(m[r].status, CUDPO_EDATA);
                assert_string_equal(m[r].message, want);
            }
        }
        assert_int_equal(count_files(folder, ".part-") + count_files(folder, ".bin"), 0);
    }
    tokenizer_free(t);
}

/* Rows that are all left out: it is known when they are put together. */
static void members_without_examples(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_PAIR, .max_length = 1};
    char file[640], name[640];
    member m[2];
    snprintf(file, sizeof file, "%s", write_rows("rows", append_pair, 300, LINES));
    const char *const cache[] = {fresh(name, "none"), name};
    open_together(m, 2, file, t, o, cache, 0);
    assert_int_equal(m[0].status, CUDPO_EDATA);
    assert_non_null(strstr(m[0].message, "no example is left of 300 rows"));
    assert_int_equal(m[1].status, CUDPO_EPEER);
    assert_int_equal(count_files(name, ".part-") + count_files(name, ".bin"), 0);
    tokenizer_free(t);
}

/* In whatever round they lose one another, nothing half-made stays, and the next ones make it. */
static void members_lose_one_another(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_PAIR, .max_length = 96};
    char file[640], name[640];
    member m[3];
    snprintf(file, sizeof file, "%s", write_rows("rows", append_pair, 1000, LINES));
    int lost = 0;
    for (int64_t round = 1; lost == round - 1; round++) {
        const char *const cache[] = {fresh(name, "lost"), name, name};
        open_together(m, 3, file, t, o, cache, round);
        for (int r = 0; r < 3; r++)
            if (m[r].status != CUDPO_OK) assert_string_equal(m[r].message, "room: lost");
        lost += m[0].status == CUDPO_EPEER;
        assert_int_equal(count_files(name, ".part-") + count_files(name, ".tmp"), 0);
        open_together(m, 3, file, t, o, cache, 0);
        assert_int_equal(m[0].status | m[1].status | m[2].status, CUDPO_OK);
        assert_int_equal(count_files(name, ".bin"), 1);
    }
    assert_true(lost > 5);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leftovers_are_swept),
        cmocka_unit_test(parts_give_the_same_bytes),
        cmocka_unit_test(damaged_parts_are_refused),
        cmocka_unit_test(members_make_the_cache_of_one),
        cmocka_unit_test(members_fail_as_one_does),
        cmocka_unit_test(members_without_examples),
        cmocka_unit_test(members_lose_one_another),
    };
    log_as_rank(
        1); /* what is said of the rows is not looked at here, and would be said a hundred times */
    log_alike(true);
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
