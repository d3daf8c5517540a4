/* series.h - metrics of two runs that differ by rounding alone. */
#ifndef CUDPO_TESTS_SERIES_H
#define CUDPO_TESTS_SERIES_H

#include "program.h"
#include "base/json.h"

/* Sums are cut differently, as in test_invariance: 1e-5 of 1, or of the value where that is larger. */
static const double series_tolerance = 1e-5;

/* While all rewards are 0 but for rounding, which completion is ahead is rounding too. */
static inline bool series_is_undecided(const char *name, const json *line)
{
    static const char *const names[][3] = {
        {"rewards/accuracies", "rewards/margins", "rewards/chosen"},
        {"eval_rewards/accuracies", "eval_rewards/margins", "eval_rewards/chosen"}};
    for (int i = 0; i < 2; i++) {
        if (strcmp(name, names[i][0]) != 0) continue;
        const json *margin = json_get(line, names[i][1]), *chosen = json_get(line, names[i][2]);
        return margin != NULL && fabs(json_number(margin)) <= 1e-6 &&
               fabs(json_number(chosen)) <= 1e-6;
    }
    return false;
}

/* kl is a difference of log-probs, and errs as they do. */
static inline double series_size(const char *name, const json *line, double want)
{
    const char *of = strcmp(name, "kl") == 0        ? "logps/chosen"
                     : strcmp(name, "eval_kl") == 0 ? "eval_logps/chosen"
                                                    : NULL;
    const json *logps = of != NULL ? json_get(line, of) : NULL;
    return fmax(1.0, fmax(fabs(want), logps != NULL ? fabs(json_number(logps)) : 0.0));
}

static inline double series_compare(const char *a, const char *b, const char *what)
{
    json *x = NULL, *y = NULL;
    double worst = 0;
    int metrics = 0;
    CHECK_OK(json_parse(&x, a, strlen(a), what));
    CHECK_OK(json_parse(&y, b, strlen(b), what));
    for (const json *v = json_first(x); v != NULL; v = json_next(v)) {
        const char *name = json_key(v);
        const json *w = json_get(y, name);
        if (strcmp(name, "time") == 0 || strcmp(name, "units_per_second") == 0) continue;
        if (strcmp(name, "imbalance") == 0) continue; /* of these ranks */
        if (w == NULL) fail_msg("%s: no %s in %s", what, name, b);
        metrics++;
        if (series_is_undecided(name, x)) continue;
        const double error =
            fabs(json_number(v) - json_number(w)) / series_size(name, x, json_number(v));
        if (!(error <= series_tolerance))
            fail_msg("%s: %s is %.9g and %.9g", what, name, json_number(v), json_number(w));
        worst = fmax(worst, error);
    }
    assert_true(metrics >= 4);
    json_free(x);
    json_free(y);
    return worst;
}

/* Two runs have the same series, but for rounding.  Returns the largest error. */
static inline double series_same(const char *a, const char *b)
{
    size_t n, m;
    char *x = program_file(a, "metrics.jsonl", &n), *y = program_file(b, "metrics.jsonl", &m);
    char *in_x = NULL, *in_y = NULL, what[64];
    char *p = strtok_r(x, "\n", &in_x), *q = strtok_r(y, "\n", &in_y);
    double worst = 0;
    int lines = 0;
    snprintf(what, sizeof what, "%s and %s", a, b);
    for (; p != NULL && q != NULL; lines++) {
        worst = fmax(worst, series_compare(p, q, what));
        p = strtok_r(NULL, "\n", &in_x);
        q = strtok_r(NULL, "\n", &in_y);
    }
    assert_true(p == NULL && q == NULL && lines >= 3);
    free(x);
    free(y);
    return worst;
}

#endif /* CUDPO_TESTS_SERIES_H */
