/* test_dataset.c - examples against the plain definition, and the cache: made once, found again, repaired, shared.
 * The ids themselves are compared to TRL's in test_dataset_trl.c. */
/* rooms: data base */
#include "test.h"
#include "scratch.h"
#include "base/buffer.h"
#include "data/dataset.h"
#include "data/pack.h"

#include <dirent.h>
#include <omp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

static const char folder[] = "tests/golden/models/llama", pairs[] = "tests/golden/data/train.jsonl",
                  labelled[] = "tests/golden/data/kto.jsonl";

static const char *whole(buffer *text, const char *path)
{
    buffer_free(text);
    CHECK_OK(file_read(&text->data, &text->size, path, 1 << 20));
    text->capacity = text->size + 1;
    return text->data;
}

static tokenizer *load(void)
{
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_load(&t, folder));
    return t;
}

/* Open with the tokenizer above, which must outlive no dataset. */
static dataset *open_with(const char *path, dataset_options o)
{
    tokenizer *t = load();
    dataset *d = NULL;
    CHECK_OK(dataset_open(&d, path, t, &o));
    tokenizer_free(t);
    return d;
}

static void check_same(const dataset *a, const dataset *b)
{
    const hash128 x = dataset_fingerprint(a), y = dataset_fingerprint(b);
    assert_int_equal(dataset_count(a), dataset_count(b));
    assert_true(x.high == y.high && x.low == y.low);
    assert_int_equal(dataset_longest(a), dataset_longest(b));
    for (int64_t i = 0; i < dataset_count(a); i++) {
        const example e = dataset_get(a, i), f = dataset_get(b, i);
        assert_true(e.row == f.row && e.completions == f.completions && e.label == f.label);
        assert_int_equal(e.prompt_length, f.prompt_length);
        assert_memory_equal(e.prompt, f.prompt, (size_t)e.prompt_length * sizeof *e.prompt);
        for (int c = 0; c < e.completions; c++) {
            assert_int_equal(e.completion_length[c], f.completion_length[c]);
            assert_memory_equal(e.completion[c], f.completion[c],
                                (size_t)e.completion_length[c] * sizeof *e.prompt);
        }
    }
}

/* Of one child: what it finds in the cache is what its own number of threads makes without one. */
static bool same_with_threads(int threads, const dataset_options *o)
{
    dataset_options plain = *o;
    plain.cache_dir = NULL;
    tokenizer *t = NULL;
    dataset *d = NULL, *own = NULL;
    omp_set_num_threads(threads);
    if (tokenizer_load(&t, folder) != CUDPO_OK || dataset_open(&d, pairs, t, o) != CUDPO_OK ||
        dataset_open(&own, pairs, t, &plain) != CUDPO_OK)
        return false;
    const hash128 a = dataset_fingerprint(d), b = dataset_fingerprint(own);
    return dataset_count(d) > 30 && a.high == b.high && a.low == b.low;
}

/* Three processes open the same cache at once, with 1, 3 and 5 threads.  This comes before the process has started a
 * thread: OpenMP and fork() don't mix after that. */
static void processes_share_a_cache(void **state)
{
    (void)state;
    const char *cache = scratch_path("shared");
    const dataset_options o = {.kind = ROW_PAIR, .max_length = 64, .cache_dir = cache};
    pid_t child[3];
    for (int i = 0; i < 3; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i] == 0) _exit(same_with_threads(1 + 2 * i, &o) ? 0 : 1);
    }
    for (int i = 0; i < 3; i++) {
        int status = -1;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    const dataset_options plain = {.kind = ROW_PAIR, .max_length = 64};
    dataset *a = open_with(pairs, o), *b = open_with(pairs, plain);
    check_same(a, b);
    dataset_close(a);
    dataset_close(b);
}

/* The ids that completion c of an example sees, into out; returns how many, *prompt of them of the prompt. */
static int64_t sequence_of(const example *e, int c, int32_t *out, int64_t *prompt)
{
    *prompt = e->prompt_length - e->prompt_skip[c];
    memcpy(out, e->prompt + e->prompt_skip[c], (size_t)*prompt * sizeof *out);
    memcpy(out + *prompt, e->completion[c], (size_t)e->completion_length[c] * sizeof *out);
    return *prompt + e->completion_length[c];
}

enum { MAX_IDS = 4096 };

/* One example against the same row without a limit: TRL's slices of prompt + completion. */
static void check_cut(const example *cut, const example *full, int64_t limit, bool keep_end)
{
    int32_t a[MAX_IDS], b[MAX_IDS];
    assert_int_equal(cut->row, full->row);
    for (int c = 0; c < full->completions; c++) {
        int64_t prompt_a = 0, prompt_b = 0;
        assert_true(full->prompt_length + full->completion_length[c] <= MAX_IDS);
        const int64_t n = sequence_of(full, c, a, &prompt_a),
                      got = sequence_of(cut, c, b, &prompt_b);
        const int64_t from = keep_end && n > limit ? n - limit : 0;
        const int64_t want = n - from < limit ? n - from : limit;
        assert_int_equal(got, want);
        assert_memory_equal(b, a + from, (size_t)want * sizeof *a);
        assert_int_equal(prompt_b, prompt_a > from ? prompt_a - from : 0);
    }
}

static void truncation_is_a_slice(void **state)
{
    (void)state;
    static const char *const files[] = {pairs, labelled};
    int64_t compared = 0, dropped = 0, parted = 0;
    for (int bits = 0; bits < 4; bits++) {
        const bool keep_end = bits & 1;
        const row_kind kind = bits & 2 ? ROW_LABEL : ROW_PAIR;
        const char *file = files[bits >> 1];
        dataset *full = open_with(file, (dataset_options){.kind = kind});
        assert_int_equal(dataset_dropped(full), 0);
        int64_t shortest = INT64_MAX;
        for (int64_t i = 0; i < dataset_count(full); i++) {
            const int64_t n = dataset_get(full, i).prompt_length;
            shortest = n < shortest ? n : shortest;
        }
        for (int64_t limit = 1; limit < 90; limit += 3) {
            const dataset_options o = {.kind = kind, .max_length = limit, .keep_end = keep_end};
            tokenizer *t = load();
            dataset *d = NULL;
            if (limit <= shortest && !keep_end) {
                CHECK_FAILS(dataset_open(&d, file, t, &o), CUDPO_EDATA, "no example is left");
                assert_null(d);
                tokenizer_free(t);
                continue;
            }
            CHECK_OK(dataset_open(&d, file, t, &o));
            tokenizer_free(t);
            int64_t next = 0, longest = 0;
            for (int64_t i = 0; i < dataset_count(full); i++) {
                const example e = dataset_get(full, i);
                if (!keep_end && e.prompt_length >= limit) {
                    dropped++;
                    continue;
                }
                const example f = dataset_get(d, next++);
                check_cut(&f, &e, limit, keep_end);
                int64_t tokens = f.prompt_length - f.prompt_skip[0];
                if (f.prompt_skip[0] != f.prompt_skip[1])
                    tokens += f.prompt_length - f.prompt_skip[1];
                tokens += f.completion_length[0] + f.completion_length[1];
                assert_true(pack_group_tokens(&f, false) <= tokens);
                longest = tokens > longest ? tokens : longest;
                parted += f.prompt_skip[0] != f.prompt_skip[1];
                compared++;
            }
            assert_int_equal(next, dataset_count(d));
            assert_int_equal(dataset_dropped(d), dataset_count(full) - next);
            assert_int_equal(dataset_longest(d), longest);
            dataset_close(d);
        }
        dataset_close(full);
    }
    assert_true(compared > 1000 && dropped > 100 && parted > 100);
}

/* A mismatched completion is cut behind the other prompt, not where its own cut it. */
static void mismatched_completions(void **state)
{
    (void)state;
    dataset *full = open_with(labelled, (dataset_options){.kind = ROW_LABEL});
    for (int64_t limit = 0; limit < 80; limit += 10) {
        dataset *d = open_with(
            labelled, (dataset_options){.kind = ROW_LABEL, .max_length = limit ? limit + 10 : 0});
        int64_t longest = 0;
        for (int64_t i = 0, k = 0; i < dataset_count(full); i++) {
            const example own = dataset_get(full, i);
            if (limit && own.prompt_length >= limit + 10) continue;
            for (int64_t j = 0, l = 0; j < dataset_count(full); j++) {
                const example other = dataset_get(full, j);
                if (limit && other.prompt_length >= limit + 10) continue;
                const example e = dataset_mismatch(d, k, l++);
                int64_t want = other.completion_length[0];
                if (limit && want > limit + 10 - own.prompt_length)
                    want = limit + 10 - own.prompt_length;
                assert_int_equal(e.completions, 2);
                assert_int_equal(e.completion_length[1], want);
                assert_memory_equal(e.completion[1], other.completion[0],
                                    (size_t)want * sizeof(int32_t));
                if (e.prompt_length + want > longest) longest = e.prompt_length + want;
            }
            k++;
        }
        assert_int_equal(dataset_longest_mismatch(d), longest);
        dataset_close(d);
    }
    dataset_close(full);
}

static int64_t inode(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 ? (int64_t)s.st_ino : -1;
}

/* Name of the only .bin in a cache folder; NULL where there are `n` other than one. */
static const char *cache_file(const char *cache, int n)
{
    static char path[1024];
    int found = 0;
    DIR *d = opendir(cache);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strstr(e->d_name, ".bin") == NULL) continue;
        assert_null(strstr(e->d_name, ".tmp"));
        snprintf(path, sizeof path, "%.500s/%.300s", cache, e->d_name);
        found++;
    }
    closedir(d);
    assert_int_equal(found, n);
    return path;
}

static void a_cache_is_made_once_and_found_again(void **state)
{
    (void)state;
    const char *cache = scratch_path("cache");
    dataset_options o = {.kind = ROW_PAIR, .max_length = 64, .cache_dir = cache};
    dataset *first = open_with(pairs, o);
    const int64_t made = inode(cache_file(cache, 1));
    dataset *second = open_with(pairs, o);
    assert_int_equal(inode(cache_file(cache, 1)), made);
    check_same(first, second);
    assert_int_equal(dataset_dropped(first), dataset_dropped(second));
    dataset_close(second);

    /* Another option, another file of rows, another tokenizer: another cache each. */
    o.max_length = 65;
    dataset_close(open_with(pairs, o));
    cache_file(cache, 2);
    o.max_length = 64;
    buffer text = {0};
    whole(&text, pairs);
    dataset_close(open_with(scratch_write("copy.jsonl", text.data, text.size), o)); /* same bytes */
    cache_file(cache, 2);
    CHECK_OK(buffer_append(&text, "\n", 1));
    dataset *more = open_with(scratch_write("copy.jsonl", text.data, text.size), o);
    cache_file(cache, 3);
    check_same(first, more); /* but the same ids */
    dataset_close(more);
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_load(&t, "tests/golden/models/qwen3"));
    CHECK_OK(dataset_open(&more, pairs, t, &o));
    tokenizer_free(t);
    cache_file(cache, 4);
    const hash128 a = dataset_fingerprint(first), b = dataset_fingerprint(more);
    assert_true(a.low != b.low);
    dataset_close(more);
    dataset_close(first);
    buffer_free(&text);
}

static void a_damaged_cache_is_made_anew(void **state)
{
    (void)state;
    const char *cache = scratch_path("damaged");
    const dataset_options o = {.kind = ROW_PAIR, .max_length = 64, .cache_dir = cache};
    dataset *want = open_with(pairs, o);
    const char *path = cache_file(cache, 1);
    buffer good = {0}, again = {0};
    whole(&good, path);
    for (int fault = 0; fault < 4; fault++) {
        buffer bad = {0};
        CHECK_OK(buffer_append(&bad, good.data, fault == 0 ? 0 : good.size - (fault == 1 ? 8 : 0)));
        if (fault >= 2) bad.data[fault == 2 ? 0 : bad.size / 2] ^= 1;
        const int64_t before = inode(path);
        FILE *f = fopen(path, "r+b"); /* as damage comes: in place, under no one's feet */
        assert_non_null(f);
        assert_int_equal(ftruncate(fileno(f), 0), 0);
        assert_int_equal(fwrite(bad.data, 1, bad.size, f), bad.size);
        fclose(f);
        dataset *got = open_with(pairs, o);
        assert_true(inode(path) != before);
        whole(&again, path);
        assert_int_equal(again.size, good.size);
        assert_memory_equal(again.data, good.data, good.size);
        dataset_close(got);
        buffer_free(&bad);
    }
    buffer_free(&good);
    buffer_free(&again);
    dataset_close(want);
}

static void layouts_do_not_matter(void **state)
{
    (void)state;
    const dataset_options o = {.kind = ROW_PAIR, .max_length = 64};
    dataset *one = open_with(pairs, o);
    buffer text = {0}, array = {0};
    whole(&text, pairs);
    gzFile gz = gzopen(scratch_path("rows.jsonl.gz"), "wb");
    assert_int_equal(gzwrite(gz, text.data, (unsigned)text.size), (int)text.size);
    assert_int_equal(gzclose(gz), Z_OK);
    dataset *packed = open_with(scratch_path("rows.jsonl.gz"), o);
    check_same(one, packed);
    dataset_close(packed);

    CHECK_OK(buffer_append(&array, "[\n", 2));
    for (char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        CHECK_OK(buffer_append(&array, line, (size_t)(end - line)));
        CHECK_OK(buffer_append(&array, end[1] != '\0' ? ",\r\n" : "]", end[1] != '\0' ? 3 : 1));
    }
    dataset *list = open_with(scratch_write("rows.json", array.data, array.size), o);
    check_same(one, list);
    dataset_close(list);
    dataset_close(one);
    buffer_free(&text);
    buffer_free(&array);
}

/* datasets.map unpairs batches of 1000 rows: chosen 0 .. 999, rejected 0 .. 999, chosen 1000 .., and so on. */
static void pairs_serve_as_labelled_rows(void **state)
{
    (void)state;
    enum { ROWS = 2300 };
    buffer text = {0};
    for (int i = 0; i < ROWS; i++)
        CHECK_OK(buffer_printf(
            &text, "{\"prompt\":\"%d\\n\",\"chosen\":\"yes\",\"rejected\":\"no\"}\n", i));
    dataset *d = open_with(scratch_write("many.jsonl", text.data, text.size),
                           (dataset_options){.kind = ROW_LABEL});
    assert_int_equal(dataset_count(d), 2 * ROWS);
    int64_t i = 0;
    for (int64_t block = 0; block < ROWS; block += 1000) {
        const int64_t end = block + 1000 < ROWS ? block + 1000 : ROWS;
        for (int rejected = 0; rejected < 2; rejected++) {
            for (int64_t row = block; row < end; row++, i++) {
                const example e = dataset_get(d, i);
                assert_true(e.row == row && e.label == !rejected && e.completions == 1);
            }
        }
    }
    dataset_close(d);
    buffer_free(&text);
}

static void supervised_rows(void **state)
{
    (void)state;
    const dataset_options o = {.kind = ROW_PAIR, .chosen_only = true, .max_length = 64};
    const dataset_options both = {.kind = ROW_PAIR, .max_length = 64};
    dataset *d = open_with(pairs, o), *two = open_with(pairs, both);
    assert_int_equal(dataset_count(d), dataset_count(two));
    for (int64_t i = 0; i < dataset_count(d); i++) {
        const example e = dataset_get(d, i), f = dataset_get(two, i);
        assert_true(e.completions == 1 && e.label && e.prompt_length == f.prompt_length);
        assert_int_equal(e.completion_length[0], f.completion_length[0]);
        assert_memory_equal(e.completion[0], f.completion[0],
                            (size_t)e.completion_length[0] * sizeof(int32_t));
    }
    dataset_close(d);
    dataset_close(two);

    d = open_with(scratch_text("sft", "{\"prompt\":\"a\\n\",\"completion\":\"b\"}\n"), o);
    assert_true(dataset_count(d) == 1 && dataset_get(d, 0).label);
    dataset_close(d);
    d = open_with(scratch_text("mixed",
                               "{\"prompt\":\"a\\n\",\"completion\":\"b\",\"label\":false}\n"
                               "{\"prompt\":\"c\\n\",\"completion\":\"d\",\"label\":true}\n"),
                  o);
    assert_true(dataset_count(d) == 1 && dataset_get(d, 0).row == 1);
    dataset_close(d);
}

static void bad_input(void **state)
{
    (void)state;
    tokenizer *t = load();
    dataset *d = NULL;
    dataset_options o = {.kind = ROW_PAIR, .max_length = 64, .cache_dir = scratch_path("bad")};
    CHECK_FAILS(dataset_open(&d, "absent.jsonl", t, &o), CUDPO_ENOINPUT,
                "absent.jsonl: can't open");
    CHECK_FAILS(dataset_open(&d, labelled, t, &o), CUDPO_EDATA,
                "kto.jsonl:1: rows have a completion");
    const char *late =
        scratch_text("late.jsonl", "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n"
                                   "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":3}\n");
    CHECK_FAILS(dataset_open(&d, late, t, &o), CUDPO_EDATA,
                "late.jsonl:2: rejected must be a string");
    const char *chat = "tests/golden/data/chat.jsonl";
    CHECK_FAILS(dataset_open(&d, chat, t, &o), CUDPO_EDATA, "chat.jsonl:1: conversational rows");
    cache_file(o.cache_dir, 0); /* nothing half-made stays */
    o.cache_dir = late;
    CHECK_FAILS(dataset_open(&d, pairs, t, &o), CUDPO_EWRITE,
                "late.jsonl: exists and is not a folder");
    o.cache_dir = NULL;
    o.kind = ROW_LABEL;
    const char *bare = scratch_text("bare.jsonl", "{\"prompt\":\"a\",\"completion\":\"b\"}\n");
    CHECK_FAILS(dataset_open(&d, bare, t, &o), CUDPO_EDATA,
                "bare.jsonl:1: a completion without label");
    o.max_length = -1;
    CHECK_FAILS(dataset_open(&d, pairs, t, &o), CUDPO_EINVAL, "max_length");
    o = (dataset_options){.kind = ROW_LABEL, .rules = RULES_ORPO};
    CHECK_FAILS(dataset_open(&d, pairs, t, &o), CUDPO_EINVAL, "rules");
    assert_null(d);
    tokenizer_free(t);

    /* A tokenizer.json alone names no eos. */
    o = (dataset_options){.kind = ROW_PAIR};
    CHECK_OK(tokenizer_load(&t, "tests/golden/models/llama/tokenizer.json"));
    CHECK_FAILS(dataset_open(&d, pairs, t, &o), CUDPO_EDATA, "names no eos_token");
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_share_a_cache), /* first: see there */
        cmocka_unit_test(truncation_is_a_slice),
        cmocka_unit_test(mismatched_completions),
        cmocka_unit_test(a_cache_is_made_once_and_found_again),
        cmocka_unit_test(a_damaged_cache_is_made_anew),
        cmocka_unit_test(layouts_do_not_matter),
        cmocka_unit_test(pairs_serve_as_labelled_rows),
        cmocka_unit_test(supervised_rows),
        cmocka_unit_test(bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
