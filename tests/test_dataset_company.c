/* test_dataset_company.c - a data set that several make together is, byte for byte, that of one; they fail as one does. */
/* rooms: data base */
#include "test.h"
#include "dataset_rows.h"
#include "base/log.h"
#include "data/dataset.h"

#include <pthread.h>

enum { MEMBERS = 5 };

static tokenizer *load(void)
{
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_load(&t, "tests/golden/models/llama"));
    return t;
}

typedef struct room {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int size, here;
    int64_t round, lost_at; /* lost_at: the round in which all lose one another; 0: never */
    bool lost;
    const char *show, *to; /* NULL, or: parts of one folder are seen in another one, too */
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
} member;

/* As on a machine that sees the files of another one, which does not see its. */
static void show_parts(const room *r)
{
    char from[1400], to[1400];
    DIR *d = opendir(r->show);
    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (strstr(e->d_name, ".part-") == NULL) continue;
        snprintf(from, sizeof from, "%s/%s", r->show, e->d_name);
        snprintf(to, sizeof to, "%s/%s", r->to, e->d_name);
        if (symlink(from, to) != 0) break; /* nobody is misled then, and the test fails */
    }
    if (d != NULL) closedir(d);
}

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
        if (r->show != NULL && r->round == 2) show_parts(r);
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
    if (m->status == CUDPO_OK) m->count = dataset_count(d);
    pthread_mutex_lock(&m->room->lock);
    m->room->lost = m->room->lost || m->status != CUDPO_OK;
    pthread_cond_broadcast(&m->room->changed);
    pthread_mutex_unlock(&m->room->lock);
    dataset_close(d);
    return NULL;
}

static const char *shown, *shown_to; /* of the next company, and its period */
static double period = 0.01;

/* In: cache [size] each one's folder.  Out: rounds that it took. */
static int64_t open_together(member *m, int size, const char *file, const tokenizer *t,
                             dataset_options o, const char *const *cache, int64_t lost_at)
{
    static room r;
    r = (room){.size = size, .lost_at = lost_at, .show = shown, .to = shown_to};
    assert_int_equal(pthread_mutex_init(&r.lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&r.changed, NULL), 0);
    for (int i = 0; i < size; i++)
        m[i] = (member){.room = &r,
                        .company = {i, size, period, exchange, &m[i]},
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
    return rows_read(path);
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
        snprintf(file, sizeof file, "%s", rows_write("rows", rows_pair, cases[i].rows, LINES));
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
        assert_int_equal(open_together(m, size, file, t, o, cache, 0), 1);
        CHECK_OK(file_remove_folder(cache[0]));
        assert_true(open_together(m, size, file, t, o, cache, 0) > 5);
        check_cache(cache[0], &want);
        buffer_free(&want);
    }
    tokenizer_free(t);
}

/* However long it takes, all tell each other how far they are, while parts are made and while they are put together. */
static void members_are_not_silent(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_PAIR, .max_length = 96};
    char file[640], name[640];
    member m[2];
    int64_t rounds[3];
    /* Two blocks of each and 141 batches of 64 rows; one block, and 16 batches. */
    static const int rows[] = {9000, 9000, 1000};
    for (int i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s", rows_write("rows", rows_pair, rows[i], LINES));
        const char *const cache[] = {fresh(name, "told"), name};
        period = i == 0 ? 1000 : 1e-6;
        rounds[i] = open_together(m, 2, file, t, o, cache, 0);
        assert_int_equal(m[0].status | m[1].status, CUDPO_OK);
    }
    period = 0.01;
    if (rounds[1] - rounds[0] < 140 || rounds[1] - rounds[2] < 141 - 16 + 1)
        fail_msg("%d, %d, %d rounds", (int)rounds[0], (int)rounds[1], (int)rounds[2]);
    tokenizer_free(t);
}

/* Where one sees the parts of the other, which does not see its, each makes a cache. */
static void members_half_see_one_another(void **state)
{
    (void)state;
    tokenizer *t = load();
    const dataset_options o = {.kind = ROW_PAIR, .max_length = 96};
    char file[640], name[2][640];
    member m[2];
    snprintf(file, sizeof file, "%s", rows_write("rows", rows_pair, 500, LINES));
    const char *const cache[] = {fresh(name[0], "seen"), fresh(name[1], "seeing")};
    CHECK_OK(file_make_folder(cache[0]));
    CHECK_OK(file_make_folder(cache[1]));
    shown = cache[0];
    shown_to = cache[1];
    open_together(m, 2, file, t, o, cache, 0);
    shown = NULL;
    for (int r = 0; r < 2; r++) {
        assert_string_equal(m[r].message, "");
        assert_int_equal(m[r].status, CUDPO_OK);
        assert_int_equal(rows_count(cache[r], ".bin"), 1);
    }
    assert_int_equal(rows_count(cache[1], ".part-"), 1); /* the link, which nobody owns */
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
                rows_pair(&text, row);
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
        assert_int_equal(rows_count(folder, ".part-") + rows_count(folder, ".bin"), 0);
    }
    tokenizer_free(t);
}

/* The tokenizer above, but that a regex of it takes too many steps on some texts. */
static tokenizer *load_impatient(void)
{
    static const char before[] = "\"pre_tokenizer\":", after[] = ",\"post_processor\"";
    buffer old = rows_read("tests/golden/models/llama/tokenizer.json"), b = {0};
    const char *own = strstr(old.data, before), *rest = strstr(old.data, after);
    assert_true(own != NULL && rest != NULL && own < rest);
    own += strlen(before);
    CHECK_OK(buffer_append(&b, old.data, (size_t)(own - old.data)));
    CHECK_OK(
        buffer_printf(&b,
                      "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                      "{\"Regex\":\"(a*)*b\"},\"behavior\":\"Isolated\",\"invert\":false},%.*s]}%s",
                      (int)(rest - own), own, rest));
    CHECK_OK(file_make_folder(scratch_path("impatient")));
    scratch_write("impatient/tokenizer.json", b.data, b.size);
    CHECK_OK(file_copy(scratch_path("impatient/tokenizer_config.json"),
                       "tests/golden/models/llama/tokenizer_config.json"));
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_load(&t, scratch_path("impatient")));
    buffer_free(&old);
    buffer_free(&b);
    return t;
}

/* Rows are read in blocks before they are encoded: the first bad one is told, be it bad to read or to encode. */
static void append_refused(buffer *b, int i)
{
    if (i == 120)
        CHECK_OK(
            buffer_printf(b, "{\"prompt\":\"x%060d b\",\"chosen\":\"\",\"rejected\":\"\"}", 0));
    else if (i == 130 || i == 300)
        CHECK_OK(buffer_printf(b, "{"));
    else
        rows_pair(b, i);
    for (char *c = b->data + b->size; i == 120 && *--c != '{';)
        *c = *c == '0' ? 'a' : *c;
}

static void a_refused_text_comes_first(void **state)
{
    (void)state;
    tokenizer *t = load_impatient();
    char file[640], name[640];
    member m[3];
    snprintf(file, sizeof file, "%s", rows_write("rows", append_refused, 400, LINES));
    const char *const cache[] = {fresh(name, "refused"), name, name};
    for (int size = 1; size <= 3; size++) {
        open_together(m, size, file, t, (dataset_options){.kind = ROW_PAIR}, cache, 0);
        for (int r = 0; r < size; r++) {
            assert_int_equal(m[r].status, CUDPO_EDATA);
            if (strstr(m[r].message, "takes too many steps") == NULL) fail_msg("%s", m[r].message);
        }
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
    snprintf(file, sizeof file, "%s", rows_write("rows", rows_pair, 300, LINES));
    const char *const cache[] = {fresh(name, "none"), name};
    open_together(m, 2, file, t, o, cache, 0);
    assert_int_equal(m[0].status, CUDPO_EDATA);
    assert_non_null(strstr(m[0].message, "no example is left of 300 rows"));
    assert_int_equal(m[1].status, CUDPO_EPEER);
    assert_int_equal(rows_count(name, ".part-") + rows_count(name, ".bin"), 0);
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
    snprintf(file, sizeof file, "%s", rows_write("rows", rows_pair, 400, LINES));
    int lost = 0;
    for (int64_t round = 1; lost == round - 1; round++) {
        const char *const cache[] = {fresh(name, "lost"), name, name};
        open_together(m, 3, file, t, o, cache, round);
        for (int r = 0; r < 3; r++)
            if (m[r].status != CUDPO_OK) assert_string_equal(m[r].message, "room: lost");
        lost += m[0].status == CUDPO_EPEER;
        assert_int_equal(rows_count(name, ".part-") + rows_count(name, ".tmp"), 0);
        open_together(m, 3, file, t, o, cache, 0);
        assert_int_equal(m[0].status | m[1].status | m[2].status, CUDPO_OK);
        assert_int_equal(rows_count(name, ".bin"), 1);
    }
    assert_true(lost > 5);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_make_the_cache_of_one), cmocka_unit_test(members_are_not_silent),
        cmocka_unit_test(members_half_see_one_another),  cmocka_unit_test(members_fail_as_one_does),
        cmocka_unit_test(a_refused_text_comes_first),    cmocka_unit_test(members_without_examples),
        cmocka_unit_test(members_lose_one_another),
    };
    log_as_rank(
        1); /* what is said of the rows is not looked at here, and would be said a hundred times */
    log_alike(true);
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
