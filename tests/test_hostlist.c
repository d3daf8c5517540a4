/* test_hostlist.c - Slurm's lists of hosts and of tasks per node.  The hosts are those of `scontrol show hostnames`, but for names
 * behind brackets, which it does not take. */
/* rooms: dist base */
#include "test.h"
#include "dist/hostlist.h"
#include "dist/placement.h"

#include <time.h>

/* A list and its hosts, separated by spaces. */
static const char *const lists[][2] = {
    {"n0", "n0"},
    {"n[0-1]", "n0 n1"},
    {"gpu[001-003,007]", "gpu001 gpu002 gpu003 gpu007"},
    {"dgx-[01-02]-[1-2]", "dgx-01-1 dgx-01-2 dgx-02-1 dgx-02-2"},
    {"gpu[001-003,007],dgx-[01-02]-[1-2]",
     "gpu001 gpu002 gpu003 gpu007 dgx-01-1 dgx-01-2 dgx-02-1 dgx-02-2"},
    {"a,b,c", "a b c"},
    {"n[08-10]", "n08 n09 n10"},
    {"q[007-12]", "q007 q008 q009 q010 q011 q012"},
    {"a[98-100]", "a98 a99 a100"},
    {"a[00]", "a00"},
    {"a[1,1]", "a1 a1"},
    {"a[5,2-3],b", "a5 a2 a3 b"},
    {"x[1-2]y[2-3]z", "x1y2z x1y3z x2y2z x2y3z"},
    {"[1-2]", "1 2"},
    {"a[1-2][3-4]", "a13 a14 a23 a24"},
    {"host.example.org,10.0.0.[1-2]", "host.example.org 10.0.0.1 10.0.0.2"},
    {"n[999999999999999998-999999999999999999]", "n999999999999999998 n999999999999999999"}};

static void expands(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const char *want = lists[i][1];
        char host[PLACEMENT_TEXT];
        int64_t n = 0;
        for (; *want != '\0'; n++) {
            const size_t length = strcspn(want, " ");
            CHECK_OK(placement_host(host, lists[i][0], n));
            if (strlen(host) != length || strncmp(host, want, length) != 0)
                fail_msg("host %d of %s is %s, not %.*s", (int)n, lists[i][0], host, (int)length,
                         want);
            want += length + (want[length] == ' ');
        }
        CHECK_FAILS(placement_host(host, lists[i][0], n), CUDPO_ECONFIG, "is wanted");
        assert_string_equal(host, "");
        CHECK_FAILS(placement_host(host, lists[i][0], INT64_MAX), CUDPO_ECONFIG, "is wanted");
    }
}

static void refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      ",",
                                      "a,",
                                      ",a",
                                      "a,,b",
                                      "a[1",
                                      "a[1-2",
                                      "a[1,2",
                                      "a]",
                                      "a[1]]",
                                      "a[[1]]",
                                      "a[1[2]]",
                                      "a[]",
                                      "a[,]",
                                      "a[1,]",
                                      "a[,1]",
                                      "a[2-1]",
                                      "a[x]",
                                      "a[1-x]",
                                      "a[1-]",
                                      "a[-1]",
                                      "a[1-2-3]",
                                      "a[1 ]",
                                      "a[+1]",
                                      "a b",
                                      "a\tb",
                                      "a\x1b[1m",
                                      "a\nb",
                                      "a\xc3\xa4",
                                      " a",
                                      "a[010-9]",
                                      "a[1-9999999999999999999]",
                                      "a[99999999999999999999]",
                                      "a[0-999999999999]",
                                      "a[0-99999][0-99999]",
                                      "a[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]",
                                      "b,a[",
                                      "a[1-2],b[",
                                      "a[0-2147483647]"};
    char host[PLACEMENT_TEXT];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_FAILS(placement_host(host, bad[i], 0), CUDPO_ECONFIG, "\" is no list of hosts: ");
        assert_string_equal(host, "");
    }
    CHECK_FAILS(placement_host(host, "a", -1), CUDPO_EINVAL, "need");
}

/* A name fills what there is for it, and no byte more. */
static void bounds_names(void **state)
{
    (void)state;
    char list[2 * PLACEMENT_TEXT], host[PLACEMENT_TEXT];
    for (int n = PLACEMENT_TEXT - 8; n < PLACEMENT_TEXT + 8; n++) {
        memset(list, 'a', sizeof list);
        list[n] = '\0';
        if (n < PLACEMENT_TEXT) {
            CHECK_OK(placement_host(host, list, 0));
            assert_string_equal(host, list);
        } else {
            CHECK_FAILS(placement_host(host, list, 0), CUDPO_ECONFIG, "too long");
        }
        strcpy(list + n - 4, "[0012-0013]"); /* as wide as the brackets' 4 digits */
        if (n < PLACEMENT_TEXT) {
            CHECK_OK(placement_host(host, list, 1));
            assert_int_equal(strlen(host), n);
            assert_string_equal(host + n - 4, "0013");
        } else {
            CHECK_FAILS(placement_host(host, list, 1), CUDPO_ECONFIG, "too long");
        }
    }
}

/* Time goes with the length of a list, not with its hosts nor with the square of anything. */
static void is_linear(void **state)
{
    (void)state;
    enum { LONG = 4 << 20 };
    static const struct {
        const char *part;
        int64_t hosts;
    } all[] = {{"n[0-2000000000],", 2000000001}, {"a,", 1}, {"x[1,2,3][4-5][6],", 6}};
    char *list = malloc(LONG + 64), host[PLACEMENT_TEXT];
    assert_non_null(list);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const size_t n = strlen(all[i].part), parts = LONG / n;
        for (size_t j = 0; j < parts; j++)
            memcpy(list + j * n, all[i].part, n);
        strcpy(list + parts * n, "last[7-9]");
        const clock_t start = clock();
        CHECK_OK(placement_host(host, list, all[i].hosts * (int64_t)parts + 1));
        const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        assert_string_equal(host, "last8");
        if (!(seconds < 2)) fail_msg("%s: %.2f s", all[i].part, seconds);
    }
    /* One bracket of many numbers, of which the last is wanted; one name of many brackets. */
    strcpy(list, "n[1");
    for (size_t at = 3; at + 2 < LONG; at += 2)
        memcpy(list + at, ",1", 3);
    strcat(list + LONG - 8, ",2]");
    CHECK_OK(placement_host(host, list, (int64_t)(strlen(list) - 4) / 2));
    assert_string_equal(host, "n2");
    for (size_t at = 0; at + 3 < LONG; at += 3)
        memcpy(list + at, "[1]", 4);
    CHECK_FAILS(placement_host(host, list, 0), CUDPO_ECONFIG, "too long");
    free(list);
}

static void counts_tasks(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        int64_t total, nodes, here[4];
    } right[] = {{"2", 2, 1, {2, 0}},
                 {"2(x2),1", 5, 3, {2, 2, 1, 0}},
                 {"1,2(x2)", 5, 3, {1, 2, 2, 0}},
                 {"8(x8192)", 65536, 8192, {8, 8, 8, 8}},
                 {"0,1", 1, 2, {0, 1, 0}}};
    static const char *const wrong[] = {"",
                                        ",",
                                        "1,",
                                        ",1",
                                        "a",
                                        "2(x",
                                        "2(x2",
                                        "2(y2)",
                                        "2(x2)1",
                                        "2x2",
                                        "-1",
                                        "2(x-1)",
                                        "2 ",
                                        "2(x2),,",
                                        "65537",
                                        "1(x65537)",
                                        "2(x2))",
                                        "9999999999999999999",
                                        "65536(x65536),1",
                                        "1(x65536),1(x2),1"};
    int64_t total, nodes, here;
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        for (int64_t node = 0; node < 4; node++) {
            CHECK_OK(hostlist_tasks(&total, &nodes, &here, "T", right[i].list, node));
            assert_int_equal(total, right[i].total);
            assert_int_equal(nodes, right[i].nodes);
            assert_int_equal(here, right[i].here[node]);
        }
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_FAILS(hostlist_tasks(&total, &nodes, &here, "T", wrong[i], 0), CUDPO_ECONFIG,
                    "T: \"");
}

/* Any bytes at all: no crash, and what is found is a name. */
static void survives_anything(void **state)
{
    (void)state;
    static const char bytes[] = "ab[]-,019(x)\x01\xff .";
    uint64_t random = 88172645463325252u;
    int found = 0;
    for (int i = 0; i < 200000; i++) {
        char list[24], host[PLACEMENT_TEXT];
        int64_t total, nodes, here;
        size_t n = 0;
        for (; n < sizeof list - 1; n++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            list[n] = bytes[random % (sizeof bytes - 1)];
            if (random >> 32 & 15) continue;
            break;
        }
        list[n] = '\0';
        cudpo_error_clear();
        if (placement_host(host, list, (int64_t)(random >> 60)) == CUDPO_OK) {
            assert_true(host[0] != '\0' && strpbrk(host, ",[] \x01\xff") == NULL);
            found++;
        }
        cudpo_error_clear();
        if (hostlist_tasks(&total, &nodes, &here, "T", list, 1) == CUDPO_OK)
            assert_true(total >= here && here >= 0 && nodes > 0);
    }
    cudpo_error_clear();
    assert_true(found > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expands),      cmocka_unit_test(refuses),
        cmocka_unit_test(bounds_names), cmocka_unit_test(is_linear),
        cmocka_unit_test(counts_tasks), cmocka_unit_test(survives_anything)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
