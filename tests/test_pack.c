/* test_pack.c - every (context, position, label) that a pack asks the model for is that of the plain definition: the
 * tokens of prompt + completion before the label, at positions 0, 1, ... */
/* rooms: data base */
#include "test.h"
#include "base/rng.h"
#include "data/pack.h"

enum { MAX_IDS = 64, MAX_GROUPS = 40 };

/* The tokens of one group, and the example that views them. */
typedef struct group {
    int32_t ids[3][MAX_IDS];
    example e;
} group;

static group make_group(uint64_t seed, int64_t prompt, int completions, const int64_t *lengths)
{
    group g = {.e = {.prompt_length = (int32_t)prompt, .completions = completions}};
    for (int part = 0; part < 3; part++) {
        for (int i = 0; i < MAX_IDS; i++)
            g.ids[part][i] = (int32_t)rng_below(seed, (uint64_t)part, (uint64_t)i, 1000000);
    }
    for (int c = 0; c < completions; c++)
        g.e.completion_length[c] = (int32_t)lengths[c];
    return g;
}

/* Views are set when the group has its final place. */
static void set_views(group *g)
{
    g->e.prompt = g->ids[0];
    for (int c = 0; c < g->e.completions; c++)
        g->e.completion[c] = g->ids[1 + c];
}

static int32_t segment_of(const pack *p, int64_t token)
{
    for (int32_t n = 0; n < p->N; n++) {
        const int32_t *s = p->segment + 4 * n;
        if (token >= s[0] && token < s[0] + s[1]) return n;
    }
    fail_msg("token %d is in no segment", (int)token);
    return -1;
}

/* What the query at `token` sees, by the meaning of segments: its prompt, then its own run up to itself. */
static int64_t context_of(const pack *p, int64_t token, int32_t *context)
{
    const int32_t *s = p->segment + 4 * segment_of(p, token);
    int64_t n = 0;
    for (int32_t i = 0; i < s[3]; i++)
        context[n++] = p->token[s[2] + i];
    for (int32_t i = s[0]; i <= token; i++)
        context[n++] = p->token[i];
    return n;
}

/* Sequence tokens [begin .. n-1] of `whole` are scored, except the very first of all. */
static void check_sequence(const pack *p, int64_t s, const int32_t *whole, int64_t begin, int64_t n)
{
    int64_t row = p->sequence_begin[s];
    const int64_t first = begin > 0 ? begin : 1, scored = n > first ? n - first : 0;
    assert_int_equal(p->sequence_tokens[s], !p->score_prompt ? n - begin : scored > 0 ? scored : 1);
    for (int64_t label = first; label < n; label++, row++) {
        int32_t context[3 * MAX_IDS];
        assert_true(row < p->sequence_begin[s + 1]);
        const int32_t hidden = p->row_hidden[row];
        assert_int_equal(p->row_sequence[row], s);
        assert_int_equal(p->row_label[row], whole[label]);
        assert_int_equal(p->position[hidden], label - 1);
        assert_int_equal(context_of(p, hidden, context), label);
        assert_memory_equal(context, whole, (size_t)label * sizeof *whole);
    }
    assert_int_equal(row, p->sequence_begin[s + 1]);
}

static void check_group(const pack *p, int64_t g, const example *e)
{
    const int64_t first = g * pack_sequences(e, p->score_prompt);
    int32_t whole[2 * MAX_IDS];
    for (int c = 0; c < e->completions; c++) {
        const int64_t seen = e->prompt_length - e->prompt_skip[c];
        memcpy(whole, e->prompt + e->prompt_skip[c], (size_t)seen * sizeof *whole);
        memcpy(whole + seen, e->completion[c], (size_t)e->completion_length[c] * sizeof *whole);
        check_sequence(p, first + c, whole, seen + e->unscored[c], seen + e->completion_length[c]);
    }
    if (!p->score_prompt) return;
    const int64_t seen = e->prompt_length - e->prompt_skip[0];
    memcpy(whole, e->prompt + e->prompt_skip[0], (size_t)seen * sizeof *whole);
    memcpy(whole + seen, e->completion[0], (size_t)e->unscored[0] * sizeof *whole);
    check_sequence(p, first + e->completions, whole, 0, seen + e->unscored[0]);
}

static bool is_scored(const pack *p, int32_t token)
{
    for (int64_t r = 0; r < p->R; r++) {
        if (p->row_hidden[r] == token) return true;
    }
    return false;
}

/* Segments in order, without gap or overlap; every position follows from its segment; no completion ends in a token that
 * the model would read for nothing. */
static void check_layout(const pack *p)
{
    int64_t token = 0;
    for (int64_t n = 0; n < p->N; n++) {
        const int32_t *s = p->segment + 4 * n;
        assert_true(s[0] == token && s[1] > 0 && s[3] >= 0);
        if (s[3] > 0) assert_true(s[2] >= 0 && s[2] + s[3] <= s[0]);
        if (s[3] > 0) assert_true(is_scored(p, s[0] + s[1] - 1));
        for (int32_t i = 0; i < s[1]; i++)
            assert_int_equal(p->position[s[0] + i], s[3] + i);
        token += s[1];
    }
    assert_int_equal(token, p->T);
    assert_int_equal(p->sequence_begin[p->S], p->R);
}

static int check_random_packs(bool plain, bool score_prompt, int completions, bool cut)
{
    int checked = 0;
    for (uint64_t trial = 0; trial < 50; trial++) {
        static group groups[MAX_GROUPS];
        const int64_t count = rng_below(trial, 1, 0, MAX_GROUPS);
        pack p;
        CHECK_OK(pack_create(&p, MAX_GROUPS, 1500, plain, score_prompt));
        int64_t added = 0, tokens = 0;
        for (int64_t g = 0; g < count; g++) {
            /* Lengths 0, 1 and 2 come often. */
            int64_t length[3];
            for (uint64_t k = 0; k < 3; k++)
                length[k] = rng_below(trial, 2 + k, (uint64_t)g,
                                      rng_below(trial, 5 + k, (uint64_t)g, 2) == 0 ? 3 : MAX_IDS);
            groups[g] = make_group(trial * 1000 + (uint64_t)g, length[0], completions, length + 1);
            set_views(&groups[g]);
            example *e = &groups[g].e;
            for (int c = 0; cut && c < completions; c++)
                e->prompt_skip[c] =
                    (int32_t)rng_below(trial, 9 + (uint64_t)c, (uint64_t)g, length[0] + 1);
            for (int c = 0; score_prompt && c < completions; c++)
                e->unscored[c] = (int32_t)rng_below(
                    trial, 11 + (uint64_t)c, (uint64_t)g,
                    length[1 + c] > 4 ? 4 : length[1 + c] + (length[1 + c] == 0));
            const int64_t before = p.T;
            if (!pack_add(&p, e, 100 + g)) {
                assert_true(before + pack_group_tokens(e, plain) > p.capacity_T);
                assert_int_equal(p.T, before);
                break;
            }
            assert_int_equal(p.T, before + pack_group_tokens(e, plain));
            tokens += pack_group_tokens(e, plain);
            assert_int_equal(p.group_example[g], 100 + g);
            added++;
        }
        assert_int_equal(p.G, added);
        assert_int_equal(p.T, tokens);
        check_layout(&p);
        for (int64_t g = 0; g < added; g++, checked++)
            check_group(&p, g, &groups[g].e);
        pack_free(&p);
    }
    return checked;
}

static void random_packs_are_the_plain_definition(void **state)
{
    (void)state;
    for (int bits = 0; bits < 16; bits++)
        assert_true(check_random_packs(bits & 1, bits & 2, bits & 4 ? 1 : 2, bits & 8) > 300);
}

/* [5 6 | 7 8 | 9] as by hand: the last prompt token predicts 7 and 9; 8 and 9 are labels only. */
static void one_pair_by_hand(void **state)
{
    (void)state;
    static const int32_t prompt[] = {5, 6}, chosen[] = {7, 8}, rejected[] = {9};
    const example e = {.prompt = prompt,
                       .prompt_length = 2,
                       .completions = 2,
                       .completion = {chosen, rejected},
                       .completion_length = {2, 1}};
    pack p;
    CHECK_OK(pack_create(&p, 2, 10, false, true));
    assert_true(pack_add(&p, &e, 3));
    static const int32_t token[] = {5, 6, 7}, position[] = {0, 1, 2};
    static const int32_t segment[] = {0, 2, 0, 0, 2, 1, 0, 2};
    static const int32_t hidden[] = {1, 2, 1, 0}, label[] = {7, 8, 9, 6}, sequence[] = {0, 0, 1, 2};
    static const int32_t begin[] = {0, 2, 3, 4}, tokens[] = {2, 1, 1};
    assert_true(p.G == 1 && p.S == 3 && p.T == 3 && p.R == 4 && p.N == 2);
    assert_memory_equal(p.token, token, sizeof token);
    assert_memory_equal(p.position, position, sizeof position);
    assert_memory_equal(p.segment, segment, sizeof segment);
    assert_memory_equal(p.row_hidden, hidden, sizeof hidden);
    assert_memory_equal(p.row_label, label, sizeof label);
    assert_memory_equal(p.row_sequence, sequence, sizeof sequence);
    assert_memory_equal(p.sequence_begin, begin, sizeof begin);
    assert_memory_equal(p.sequence_tokens, tokens, sizeof tokens);
    pack_free(&p);
}

static void a_full_pack_refuses_and_stays_as_it_was(void **state)
{
    (void)state;
    const int64_t lengths[] = {3, 2};
    group g = make_group(1, 5, 2, lengths);
    set_views(&g);
    pack p;
    CHECK_OK(pack_create(&p, 2, 25, false, false)); /* 8 tokens a group */
    for (int round = 0; round < 2; round++) {
        assert_true(pack_add(&p, &g.e, 0));
        assert_true(pack_add(&p, &g.e, 1));
        assert_false(pack_add(&p, &g.e, 2)); /* two groups at most */
        assert_true(p.G == 2 && p.S == 4 && p.T == 16);
        pack_clear(&p);
        assert_true(p.G == 0 && p.S == 0 && p.T == 0 && p.R == 0 && p.N == 0);
    }
    pack_free(&p);
    CHECK_OK(pack_create(&p, 9, 16, false, false));
    assert_true(pack_add(&p, &g.e, 0));
    assert_true(pack_add(&p, &g.e, 1)); /* exactly full */
    assert_false(pack_add(&p, &g.e, 2));
    pack_free(&p);
    assert_int_equal(pack_group_tokens(&g.e, true), 13);
}

static void broken_contracts(void **state)
{
    (void)state;
    pack p;
    CHECK_FAILS(pack_create(&p, 0, 10, false, false), CUDPO_EINVAL, "max_groups");
    CHECK_FAILS(pack_create(&p, 1, 0, false, false), CUDPO_EINVAL, "max_tokens");
    CHECK_FAILS(pack_create(&p, 1, (int64_t)1 << 31, false, false), CUDPO_EINVAL, "max_tokens");
    pack_free(&p); /* of {0} */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_pair_by_hand),
        cmocka_unit_test(random_packs_are_the_plain_definition),
        cmocka_unit_test(a_full_pack_refuses_and_stays_as_it_was),
        cmocka_unit_test(broken_contracts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
