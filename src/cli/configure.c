/* configure.c - the command line of a run: a file of keys, keys, and a command's own options. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

/* The command's own option that argv[i] is; NULL: it is a key. */
static const cli_option *own_option(const cli_option *own, int64_t n, const char *word)
{
    const size_t length = strcspn(word, "=");
    for (int64_t k = 0; k < n; k++)
        if (strlen(own[k].name) == length && strncmp(own[k].name, word, length) == 0)
            return &own[k];
    return NULL;
}

/* How many words argv[i] and its value are: a key alone means true. */
static int words_of(const cli_option *option, int i, int argc, char **argv)
{
    if (strchr(argv[i], '=') != NULL || i + 1 >= argc) return 1;
    if (option != NULL) return option->kind == CLI_FLAG ? 1 : 2;
    return strncmp(argv[i + 1], "--", 2) == 0 ? 1 : 2;
}

static cudpo_status set_key(cudpo_config *c, const char *word, const char *next)
{
    char key[128];
    const char *equals = strchr(word, '=');
    snprintf(key, sizeof key, "%.*s", equals == NULL ? 126 : (int)(equals - word - 2), word + 2);
    return cudpo_config_set(c, key, equals != NULL ? equals + 1 : next);
}

cudpo_status cli_configure(cudpo_config *c, const cli_option *own, int64_t n, bool *help, int argc,
                           char **argv)
{
    const char *file = NULL;
    *help = false;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) *help = true;
    if (*help) return CUDPO_OK;
    /* The file first, so that the command line wins wherever it stands. */
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            i += words_of(own_option(own, n, argv[i]), i, argc, argv) - 1;
            continue;
        }
        if (file != NULL)
            return cudpo_fail(CUDPO_EUSAGE, argv[i],
                              "is a second configuration file; the first is %s", file);
        file = argv[i];
    }
    if (file != NULL) CUDPO_TRY(cudpo_config_load(c, file));
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) continue;
        const cli_option *option = own_option(own, n, argv[i]);
        const int words = words_of(option, i, argc, argv);
        if (option != NULL) {
            bool none;
            char *one[] = {argv[0], argv[i], words == 2 ? argv[i + 1] : NULL, NULL};
            CUDPO_TRY(cli_parse(own, n, NULL, 0, &none, words + 1, one));
        } else {
            CUDPO_TRY(set_key(c, argv[i], words == 2 ? argv[i + 1] : NULL));
        }
        i += words - 1;
    }
    return CUDPO_OK;
}

void cli_keys(const char **words, const cli_option *own, int64_t n, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) continue;
        const cli_option *option = own_option(own, n, argv[i]);
        const int count = words_of(option, i, argc, argv);
        for (int k = 0; k < count && option == NULL; k++)
            *words++ = argv[i + k];
        i += count - 1;
    }
    *words = NULL;
}
