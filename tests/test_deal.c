/* test_deal.c - every example of a step goes to one rank, and none gets much more work than another. */
/* rooms: data base */
#include "test.h"
#include "data/deal.h"
#include "data/order.h"
#include "data/pack.h"

#include <stdlib.h>

#define MODEL "tests/golden/models/llama"
#define PAIRS "tests/golden/data/train.jsonl"

static const deal_work by_tokens = {1.0, 0.0, 0.0};

static dataset *open_pairs(void)
{
    tokenizer *t;
    dataset *d;
    const dataset_options options = {.kind = ROW_PAIR, .max_length = 256, .rules = RULES_JOINED};
    CHECK_OK(tokenizer_load(&t, MODEL));
    CHECK_OK(dataset_open(&d, PAIRS, t, &options));
    tokenizer_free(t);
    return d;
}

static int longest_first(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x > y ? -1 : x < y;
}

static void deals_everything_once(void **state)
{
    (void)state;
    dataset *d = open_pairs();
    const int64_t n = dataset_count(d);
    int64_t *list = malloc((size_t)n * sizeof *list);
    order_shuffle(list, n, 1, 0);
    static const int64_t ranks[] = {1, 2, 3, 7, 64};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        deal x;
        int64_t seen[256] = {0}, length[256] = {0}, tokens = 0, most = 0;
        CHECK_OK(deal_create(&x, n, ranks[i]));
        deal_out(&x, d, list, n, &by_tokens);
        assert_int_equal(x.begin[ranks[i]], n);
        for (int64_t r = 0; r < ranks[i]; r++) {
            int64_t own = 0;
            for (int64_t k = x.begin[r]; k < x.begin[r + 1]; k++) {
                const example e = dataset_get(d, list[x.place[k]]);
                assert_true(k == x.begin[r] || x.place[k] > x.place[k - 1]);
                seen[x.place[k]]++;
                own += pack_group_tokens(&e, false);
                length[k] = pack_group_tokens(&e, false);
            }
            assert_true((double)own == x.load[r]);
            tokens += own;
            most = own > most ? own : most;
        }
        for (int64_t k = 0; k < n; k++)
            assert_int_equal(seen[k], 1);
        /* The least loaded has the mean at most when its last group comes to it, and that is none of the longest, of which each
         * rank has one, where it has two. */
        qsort(length, (size_t)n, sizeof *length, longest_first);
        assert_true(most <= tokens / ranks[i] + length[ranks[i] < n ? ranks[i] : 0]);
        const double imbalance = (double)(most * ranks[i]) / (double)tokens;
        assert_true(fabs(deal_imbalance(&x) - imbalance) < 1e-12);
        deal_free(&x);
    }
    free(list);
    dataset_close(d);
}

/* What counts is what the work says: by hand, for one group of each. */
static void counts_work(void **state)
{
    (void)state;
    dataset *d = open_pairs();
    const example e = dataset_get(d, 0);
    const double P = e.prompt_length, a = e.completion_length[0], b = e.completion_length[1];
    const int64_t list[] = {0};
    const double want[] = {P + a + b - 2, a + b,
                           P * (P + 1) / 2 + (a + b) * P + a * (a + 1) / 2 + b * (b + 1) / 2};
    assert_int_equal(e.completions, 2);
    for (int i = 0; i < 3; i++) {
        const deal_work work = {i == 0, i == 1, i == 2};
        deal x;
        CHECK_OK(deal_create(&x, 1, 3));
        deal_out(&x, d, list, 1, &work);
        assert_true(x.load[0] == want[i] && x.load[1] == 0.0);
        assert_int_equal(x.begin[1], 1);
        assert_int_equal(x.begin[3], 1); /* ranks 1 and 2 have nothing */
        assert_true(deal_imbalance(&x) == 3.0);
        deal_free(&x);
    }
    dataset_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(deals_everything_once),
                                       cmocka_unit_test(counts_work)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
