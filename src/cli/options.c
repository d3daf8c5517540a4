/* options.c - the words of a command line, strictly read. */
#include "cli/cli.h"
#include "base/nearest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static cudpo_status set_value(const cli_option *o, const char *value)
{
    char *end = NULL;
    errno = 0;
    switch (o->kind) {
    case CLI_TEXT:
        *(const char **)o->target = value;
        return CUDPO_OK;
    case CLI_LIST: {
        cli_list *list = o->target;
        list->values[list->n++] = value; /* as long as argv */
        return CUDPO_OK;
    }
    case CLI_INTEGER: {
        const long long number = strtoll(value, &end, 10);
        if (*value == '\0' || *end != '\0' || errno != 0 || number < 0)
            return cudpo_fail(CUDPO_EUSAGE, o->name, "\"%s\" is no whole number of 0 or more",
                              value);
        *(int64_t *)o->target = number;
        return CUDPO_OK;
    }
    case CLI_REAL: {
        const double number = strtod(value, &end);
        if (*value == '\0' || *end != '\0' || !isfinite(number))
            return cudpo_fail(CUDPO_EUSAGE, o->name, "\"%s\" is no number", value);
        *(double *)o->target = number;
        return CUDPO_OK;
    }
    case CLI_FLAG:
        break;
    }
    return cudpo_fail(CUDPO_EUSAGE, o->name, "takes no value");
}

static cudpo_status unknown(const cli_option *options, int64_t n, const char *word)
{
    const char *names[32];
    for (int64_t i = 0; i < n && i < 32; i++)
        names[i] = options[i].name;
    const char *near = nearest_name(word, names, n < 32 ? n : 32);
    if (near == NULL)
        return cudpo_fail(CUDPO_EUSAGE, word, "is no option of this command; see its --help");
    return cudpo_fail(CUDPO_EUSAGE, word, "is no option of this command; did you mean %s?", near);
}

/* The option argv[*i], and its value, which may be the word after it. */
static cudpo_status parse_option(const cli_option *options, int64_t n, int argc, char **argv,
                                 int *i)
{
    const char *word = argv[*i], *equals = strchr(word, '=');
    const size_t length = equals == NULL ? strlen(word) : (size_t)(equals - word);
    for (int64_t k = 0; k < n; k++) {
        const cli_option *o = &options[k];
        if (strlen(o->name) != length || strncmp(o->name, word, length) != 0) continue;
        if (o->kind == CLI_FLAG && equals == NULL) {
            *(bool *)o->target = true;
            return CUDPO_OK;
        }
        if (equals != NULL) return set_value(o, equals + 1);
        if (*i + 1 >= argc) return cudpo_fail(CUDPO_EUSAGE, o->name, "needs a value");
        *i += 1;
        return set_value(o, argv[*i]);
    }
    return unknown(options, n, word);
}

cudpo_status cli_parse(const cli_option *options, int64_t n, const char **words, int64_t max_words,
                       bool *help, int argc, char **argv)
{
    int64_t count = 0;
    bool only_words = false;
    *help = false;
    for (int64_t i = 0; i < max_words; i++)
        words[i] = NULL;
    for (int i = 1; i < argc && !only_words; i++) {
        if (strcmp(argv[i], "--") == 0) break;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *help = true;
            return CUDPO_OK;
        }
    }
    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
            CUDPO_TRY(parse_option(options, n, argc, argv, &i));
        } else if (count < max_words) {
            words[count++] = argv[i];
        } else {
            return cudpo_fail(CUDPO_EUSAGE, argv[i],
                              "is one word too many for this command; see its --help");
        }
    }
    return CUDPO_OK;
}
