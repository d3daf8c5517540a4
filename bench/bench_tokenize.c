/* bench_tokenize.c - how long a text takes to become ids.
 *
 *   bench_tokenize TOKENIZER.json TEXT [REPEATS]
 *
 * Prints one line of JSON: seconds to load the tokenizer; the median and the least of REPEATS passes over the whole text
 * as one string, each by a freshly loaded tokenizer, so that no pass finds words that another has left in the cache; MB/s
 * (1e6 bytes) of the median; the number of ids; and whether they decode to the text ("wrong": 0). */
#include "base/buffer.h"
#include "base/file.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 101 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static cudpo_status run(const char *path, const char *text, size_t n, int repeats)
{
    double load[MOST], encode[MOST];
    int64_t ids = 0;
    int wrong = 0;
    for (int i = 0; i < repeats; i++) {
        tokenizer *t = NULL;
        token_list list = {0};
        buffer back = {0};
        const double begin = now();
        CUDPO_TRY(tokenizer_load(&t, path));
        const double loaded = now();
        CUDPO_TRY(tokenizer_encode(t, &list, text, n, false));
        encode[i] = now() - loaded;
        load[i] = loaded - begin;
        ids = list.n;
        CUDPO_TRY(tokenizer_decode(t, &back, list.ids, list.n, false));
        wrong += back.size != n || memcmp(back.data, text, n) != 0;
        buffer_free(&back);
        token_list_free(&list);
        tokenizer_free(t);
    }
    qsort(load, (size_t)repeats, sizeof load[0], ascending);
    qsort(encode, (size_t)repeats, sizeof encode[0], ascending);
    printf("{\"tokenizer\": \"%s\", \"bytes\": %zu, \"ids\": %lld, \"load_s\": %.4f, \"median_s\": "
           "%.4f, \"min_s\": %.4f, \"mb_per_s\": %.1f, \"wrong\": %d}\n",
           path, n, (long long)ids, load[repeats / 2], encode[repeats / 2], encode[0],
           (double)n / 1e6 / encode[repeats / 2], wrong);
    return CUDPO_OK;
}

int main(int argc, char **argv)
{
    const int repeats = argc > 3 ? atoi(argv[3]) : 5;
    char *text = NULL;
    size_t n = 0;
    if (argc < 3 || repeats < 1 || repeats > MOST) {
        fprintf(stderr, "usage: bench_tokenize TOKENIZER.json TEXT [REPEATS, 1 to %d]\n", MOST);
        return 64;
    }
    cudpo_status status = file_read(&text, &n, argv[2], (size_t)1 << 30);
    if (status == CUDPO_OK) status = run(argv[1], text, n, repeats);
    if (status != CUDPO_OK) fprintf(stderr, "bench_tokenize: %s\n", cudpo_error_message());
    free(text);
    return cudpo_exit_code(status);
}
