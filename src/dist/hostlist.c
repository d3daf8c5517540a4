/* hostlist.c - Slurm's lists of hosts and of tasks.  Ranges are counted, never written out: a list takes time by its length alone.
 *
 * list = host {"," host};  host = {character | "[" range {"," range} "]"};  range = number ["-" number].  A number is as wide as
 * the first of its range; of several brackets the last one counts fastest.  As `scontrol show hostnames` has it. */
#include "dist/hostlist.h"
#include "dist/placement.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* More hosts than any list has; products of two stay far from the end of 64 bits. */
#define MOST ((int64_t)1 << 31)
enum { DIGITS = 18 }; /* of a number in brackets */

static cudpo_status senseless(const char *list, const char *why)
{
    return cudpo_fail(CUDPO_ECONFIG, "SLURM_STEP_NODELIST",
                      "\"%.200s\" is no list of hosts: %s; set MASTER_ADDR to the host of rank 0",
                      list, why);
}

/* The number at *at, and how wide it is written; false: there is none, or it is too long. */
static bool take_number(int64_t *out, int *width, const char **at)
{
    int64_t value = 0;
    int n = 0;
    for (; (*at)[n] >= '0' && (*at)[n] <= '9'; n++) {
        if (n >= DIGITS) return false;
        value = value * 10 + ((*at)[n] - '0');
    }
    *out = value;
    *width = n;
    *at += n;
    return n > 0;
}

typedef struct range {
    int64_t first, count;
    int width;
} range;

/* The range at *at. */
static bool take_range(range *r, const char **at)
{
    int64_t last;
    int width;
    if (!take_number(&r->first, &r->width, at)) return false;
    last = r->first;
    if (**at == '-') {
        ++*at;
        if (!take_number(&last, &width, at)) return false;
    }
    if (last < r->first) return false;
    r->count = last - r->first + 1;
    return true;
}

/* The brackets at *at, which become what is behind them: how many numbers they hold, and number `index` of them. */
static const char *take_brackets(int64_t *count, int64_t *value, int *width, const char **at,
                                 int64_t index)
{
    *count = 0;
    *value = 0;
    *width = 0;
    do {
        range r;
        ++*at; /* "[" or "," */
        if (!take_range(&r, at)) return "brackets hold numbers and ranges, such as [001-003,007]";
        if (index >= *count && index - *count < r.count) {
            *value = r.first + (index - *count);
            *width = r.width;
        }
        *count += r.count < MOST ? r.count : MOST;
        if (*count > MOST) *count = MOST;
    } while (**at == ',');
    if (**at != ']') return "brackets hold numbers and ranges, such as [001-003,007]";
    ++*at;
    return NULL;
}

/* How many hosts the part of a list at `at` stands for, up to a comma outside of brackets; *end: that comma or the end. */
static const char *count_hosts(int64_t *count, const char **end, const char *at)
{
    const char *begin = at;
    *count = 1;
    while (*at != '\0' && *at != ',') {
        if (*at == '[') {
            int64_t n, value;
            int width;
            const char *why = take_brackets(&n, &value, &width, &at, -1);
            if (why != NULL) return why;
            *count *= n;
            if (*count >= MOST) return "it has more hosts than there can be";
        } else if (*at == ']') {
            return "a bracket is closed that was not opened";
        } else if (*at <= ' ' || *at > '~') {
            return "it holds a character that no name of a host has";
        } else {
            at++;
        }
    }
    *end = at;
    return at == begin ? "a name is empty" : NULL;
}

/* Host `index` of the `count` that the well-formed part of a list at `at` stands for; false: the name is too long. */
static bool write_host(char out[PLACEMENT_TEXT], const char *at, int64_t count, int64_t index)
{
    size_t used = 0;
    while (*at != '\0' && *at != ',') {
        if (*at != '[') {
            out[used++] = *at++;
        } else {
            const char *again = at;
            int64_t n, value;
            int width;
            (void)take_brackets(&n, &value, &width, &again, -1);
            count /= n;
            (void)take_brackets(&n, &value, &width, &at, index / count);
            index %= count;
            if (width >= (int)(PLACEMENT_TEXT - used)) return false;
            used += (size_t)snprintf(out + used, PLACEMENT_TEXT - used, "%0*" PRId64, width, value);
        }
        if (used >= PLACEMENT_TEXT) return false;
    }
    out[used] = '\0';
    return true;
}

cudpo_status placement_host(char out[PLACEMENT_TEXT], const char *list, int64_t index)
{
    CUDPO_REQUIRE(list != NULL && index >= 0);
    int64_t before = 0;
    const char *at = list, *found = NULL;
    int64_t found_count = 0, found_index = 0;
    out[0] = '\0';
    for (;
         ;) { /* all of it, so that a list which makes no sense is none, whichever host is wanted */
        int64_t count;
        const char *end;
        const char *why = count_hosts(&count, &end, at);
        if (why != NULL) return senseless(list, why);
        if (found == NULL && index - before < count) {
            found = at;
            found_count = count;
            found_index = index - before;
        }
        before += count;
        if (*end == '\0') break;
        at = end + 1;
    }
    if (found == NULL)
        return cudpo_fail(CUDPO_ECONFIG, "SLURM_STEP_NODELIST",
                          "\"%.200s\" has %" PRId64 " hosts, and number %" PRId64
                          " (from 0) is wanted",
                          list, before, index);
    if (write_host(out, found, found_count, found_index)) return CUDPO_OK;
    out[0] = '\0';
    return senseless(list, "a name in it is too long");
}

cudpo_status hostlist_tasks(int64_t *total, int64_t *nodes, int64_t *here, const char *name,
                            const char *list, int64_t node)
{
    const char *at = list;
    *total = *nodes = *here = 0;
    for (;;) {
        int64_t tasks, times = 1;
        int width;
        bool right = take_number(&tasks, &width, &at) && tasks <= MAX_RANKS;
        if (right && strncmp(at, "(x", 2) == 0) {
            at += 2;
            right = take_number(&times, &width, &at) && times <= MAX_RANKS && *at == ')';
            at += right ? 1 : 0;
        }
        if (!right || (*at != ',' && *at != '\0') || *total > MAX_RANKS || *nodes > MAX_RANKS)
            return cudpo_fail(CUDPO_ECONFIG, name,
                              "\"%.200s\" is no list of tasks per node, such as 2(x2),1", list);
        if (node >= *nodes && node - *nodes < times) *here = tasks;
        *total += tasks * times;
        *nodes += times;
        if (*at == '\0') return CUDPO_OK;
        at++;
    }
}
