/* test_made.c - data sets that are made for benchmarks, and the lengths of those in files. */
/* rooms: data */
#include "scratch.h"
#include "data/lengths.h"

#define LABELLED "tests/golden/data/kto.jsonl"

enum { COUNT = 5, VOCABULARY = 7 };

/* Lengths odd and even, so that records need filling up and do not; empty prompts and completions. */
static const example_lengths lengths[COUNT] = {
    {3, {4, 5}}, {1, {1, 1}}, {0, {2, 9}}, {700, {0, 3}}, {2, {6, 6}}};

static dataset *make(int32_t completions, uint64_t seed)
{
    dataset *d = NULL;
    CHECK_OK(dataset_make(&d, &(made_examples){.lengths = lengths,
                                               .count = COUNT,
                                               .completions = completions,
                                               .vocabulary = VOCABULARY,
                                               .seed = seed}));
    return d;
}

static bool same(const dataset *a, const dataset *b)
{
    const hash128 x = dataset_fingerprint(a), y = dataset_fingerprint(b);
    return x.high == y.high && x.low == y.low;
}

static void pairs_of_given_lengths(void **state)
{
    (void)state;
    dataset *d = make(2, 1), *again = make(2, 1), *other = make(2, 2);
    int64_t seen[VOCABULARY] = {0}, total = 0;
    assert_int_equal(dataset_count(d), COUNT);
    for (int64_t i = 0; i < COUNT; i++) {
        const example e = dataset_get(d, i);
        assert_int_equal(e.completions, 2);
        assert_int_equal(e.prompt_length, lengths[i].prompt);
        total += e.prompt_length;
        for (int k = 0; k < 2; k++) {
            assert_int_equal(e.completion_length[k], lengths[i].completion[k]);
            assert_int_equal(e.prompt_skip[k] + e.unscored[k], 0);
            total += e.completion_length[k];
        }
        for (int32_t k = 0; k < e.prompt_length; k++) {
            assert_true(e.prompt[k] >= 0 && e.prompt[k] < VOCABULARY);
            seen[e.prompt[k]]++;
        }
    }
    for (int v = 0; v < VOCABULARY; v++)
        assert_true(seen[v] > 50); /* of 706, 101 each expected, with a deviation of 9 */
    assert_int_equal(dataset_tokens(d), total);
    assert_int_equal(dataset_longest(d), 703);
    assert_int_equal(dataset_longest_sequence(d), 703);
    assert_true(same(d, again) && !same(d, other));
    dataset_close(other);
    dataset_close(again);
    dataset_close(d);
}

static void labels_in_turn(void **state)
{
    (void)state;
    dataset *d = make(1, 1);
    for (int64_t i = 0; i < COUNT; i++) {
        const example e = dataset_get(d, i);
        assert_int_equal(e.completions, 1);
        assert_int_equal(e.completion_length[0], lengths[i].completion[0]);
        assert_true(e.label == (i % 2 == 0));
    }
    assert_int_equal(dataset_mismatch(d, 0, 4).completion_length[1], 6);
    dataset_close(d);
}

static void nothing_can_not_be_made(void **state)
{
    (void)state;
    dataset *d = NULL;
    CHECK_FAILS(
        dataset_make(&d, &(made_examples){.lengths = lengths, .completions = 2, .vocabulary = 3}),
        CUDPO_EINVAL, "count");
    CHECK_FAILS(
        dataset_make(
            &d,
            &(made_examples){.lengths = lengths, .count = 1, .completions = 3, .vocabulary = 3}),
        CUDPO_EINVAL, "completions");
    CHECK_FAILS(
        dataset_make(&d, &(made_examples){.lengths = lengths, .count = 1, .completions = 2}),
        CUDPO_EINVAL, "vocabulary");
    assert_null(d);
}

/* The rule of 4 bytes: what is cut, what is dropped, what becomes of labels. */
static void lengths_by_bytes(void **state)
{
    (void)state;
    static const char pairs[] =
        "{\"prompt\": \"1234567890123456\", \"chosen\": \"1\", \"rejected\": \"2\"}\n"
        "{\"prompt\": \"12345678\", \"chosen\": \"1234567890123\", \"rejected\": \"2\"}\n";
    const char *file = scratch_text("bytes.jsonl", pairs);
    length_list l;
    CHECK_OK(lengths_read(&l, file, NULL, &(dataset_options){.max_length = 4}));
    assert_int_equal(l.count, 1); /* the first prompt has 4 tokens */
    assert_int_equal(l.dropped, 1);
    assert_int_equal(l.lengths[0].prompt, 2);
    assert_int_equal(l.lengths[0].completion[0], 2);
    assert_int_equal(l.lengths[0].completion[1], 2);
    lengths_free(&l);
    CHECK_OK(lengths_read(&l, file, NULL, &(dataset_options){.max_length = 4, .keep_end = true}));
    assert_int_equal(l.count, 2);
    assert_int_equal(l.lengths[0].prompt, 2);
    assert_int_equal(l.lengths[1].prompt, 0);
    assert_int_equal(l.lengths[1].completion[0], 4);
    lengths_free(&l);
    CHECK_OK(lengths_read(&l, file, NULL, &(dataset_options){.kind = ROW_LABEL}));
    assert_int_equal(l.count, 4);
    assert_int_equal(l.lengths[2].completion[0], 5);
    assert_int_equal(l.lengths[2].completion[1], 0);
    lengths_free(&l);
    CHECK_OK(lengths_read(&l, file, NULL, &(dataset_options){.chosen_only = true}));
    assert_int_equal(l.count, 2);
    lengths_free(&l);
    CHECK_FAILS(lengths_read(&l, file, NULL, &(dataset_options){.max_length = 1}), CUDPO_EDATA,
                "no example is left");
    CHECK_FAILS(lengths_read(&l, LABELLED, NULL, &(dataset_options){0}), CUDPO_EDATA,
                "kto.jsonl:1");
    CHECK_FAILS(lengths_read(&l, scratch_path("absent"), NULL, &(dataset_options){0}),
                CUDPO_ENOINPUT, "absent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_of_given_lengths), cmocka_unit_test(labels_in_turn),
        cmocka_unit_test(nothing_can_not_be_made), cmocka_unit_test(lengths_by_bytes)};
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
