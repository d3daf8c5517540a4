/* test_order.c - epochs are shuffled as torch.randperm does.  The wanted numbers were made with torch 2.15:
 *   g = torch.Generator(); g.manual_seed(SEED); p = torch.randperm(N, generator=g).tolist()
 *   h = 0xcbf29ce484222325
 *   for v in p: h = ((h ^ v) * 0x100000001b3) & (2**64 - 1) */
/* rooms: data */
#include "test.h"
#include "data/order.h"

static void small_permutations(void **state)
{
    (void)state;
    static const struct {
        int64_t n;
        uint64_t seed;
        int64_t epoch;
        int64_t want[10];
    } cases[] = {
        {1, 42, 0, {0}},
        {2, 42, 0, {0, 1}},
        {7, 0, 0, {4, 0, 5, 3, 2, 6, 1}},
        {7, 42, 0, {1, 6, 3, 5, 4, 0, 2}},
        {10, 42, 1, {8, 4, 9, 0, 5, 1, 6, 7, 2, 3}}, /* seed 43 */
        {10, 5, 0, {1, 4, 9, 6, 3, 5, 0, 2, 8, 7}},
        {10, (1ULL << 40) + 5, 0, {1, 4, 9, 6, 3, 5, 0, 2, 8, 7}}, /* the low 32 bits seed */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t got[11];
        got[cases[i].n] = -7; /* a guard */
        order_shuffle(got, cases[i].n, cases[i].seed, cases[i].epoch);
        for (int64_t k = 0; k < cases[i].n; k++) {
            if (got[k] != cases[i].want[k]) fail_msg("case %zu, place %d", i, (int)k);
        }
        assert_true(got[cases[i].n] == -7);
    }
    order_shuffle(NULL, 0, 42, 0); /* nothing to write */
}

static uint64_t fingerprint(int64_t n, uint64_t seed)
{
    int64_t *p = malloc((size_t)n * sizeof *p);
    assert_non_null(p);
    order_shuffle(p, n, seed, 0);
    uint64_t h = 0xcbf29ce484222325ULL;
    for (int64_t i = 0; i < n; i++)
        h = (h ^ (uint64_t)p[i]) * 0x100000001b3ULL;
    free(p);
    return h;
}

static void large_permutations(void **state)
{
    (void)state;
    assert_true(fingerprint(625, 42) ==
                0x4bdded26f6389497ULL); /* one more than the twister's words */
    assert_true(fingerprint(65535, 42) == 0x9d69681e942ef24aULL);
    assert_true(fingerprint(65536, 42) == 0x8b9ffd7e1b9e387bULL);
    assert_true(fingerprint(65537, 42) == 0xb98eb53a31a46cc5ULL);
    assert_true(fingerprint(1000000, 7) == 0xbce93a798380f2abULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_permutations),
        cmocka_unit_test(large_permutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
