/* nearest.c - edit distance (Levenshtein 1966), row by row. */
#include "base/nearest.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 63, FAR = 99 };

static int folded(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static int distance(const char *a, const char *b)
{
    int row[LONGEST + 1];
    const size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return FAR;
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            const int changed = diagonal + (folded(a[i - 1]) != folded(b[j - 1]));
            diagonal = row[j];
            row[j] = smaller(changed, smaller(row[j], row[j - 1]) + 1);
        }
    }
    return row[m];
}

/* Slips that a name of this length may hold: 2 in "beta", 4 in "learning_rate". */
static int allowed(size_t length)
{
    return length < 3 ? 1 : smaller(1 + (int)(length < FAR ? length : FAR) / 4, 5);
}

const char *nearest_name(const char *typed, const char *const *names, int64_t n)
{
    const size_t length = strlen(typed);
    const char *nearest = NULL;
    int best = allowed(length) + 1;
    for (int64_t i = 0; i < n; i++) {
        const int d = distance(typed, names[i]);
        if (d >= best) continue;
        best = d;
        nearest = names[i];
    }
    for (int64_t i = 0; i < n && nearest == NULL && length >= 4; i++)
        if (strncmp(names[i], typed, length) == 0) nearest = names[i];
    return nearest;
}
