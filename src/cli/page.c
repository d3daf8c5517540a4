/* page.c - manual pages on standard output. */
#include "cli/cli.h"
#include "cudpo/config.h"

#include <stdio.h>
#include <string.h>

enum { WIDTH = 80, INDENT = 7 };

/* A text in lines of at most WIDTH columns; a line that begins with a space stands as it is. */
static void print_wrapped(const char *text, int indent)
{
    while (*text != '\0') {
        const char *end = strchr(text, '\n');
        size_t n = end == NULL ? strlen(text) : (size_t)(end - text);
        if (*text == ' ' || n == 0) {
            printf("%*s%.*s\n", n == 0 ? 0 : indent, "", (int)n, text);
        } else {
            while (n > 0) {
                size_t take = n;
                if (take > (size_t)(WIDTH - indent)) {
                    take = (size_t)(WIDTH - indent);
                    while (take > 0 && text[take] != ' ')
                        take--;
                    if (take == 0) take = n;
                }
                printf("%*s%.*s\n", indent, "", (int)take, text);
                text += take;
                n -= take;
                while (n > 0 && *text == ' ') {
                    text++;
                    n--;
                }
            }
        }
        text += n;
        if (*text == '\n') text++;
    }
}

static void print_section(const char *title, const char *text)
{
    if (text == NULL) return;
    printf("\n%s\n", title);
    print_wrapped(text, INDENT);
}

static void print_key(void *context, const char *key, const char *value, const char *meaning)
{
    (void)context;
    printf("%*s--%s (%s)\n", INDENT, "", key, value);
    print_wrapped(meaning, 2 * INDENT);
}

void cli_print_page(const cli_page *page, const cli_option *options, int64_t n, bool keys)
{
    printf("NAME\n%*scudpo %s - %s\n", INDENT, "", page->name, page->summary);
    print_section("SYNOPSIS", page->synopsis);
    print_section("DESCRIPTION", page->description);
    if (n > 0) printf("\nOPTIONS\n");
    for (int64_t i = 0; i < n; i++) {
        printf("%*s%s%s%s\n", INDENT, "", options[i].name, options[i].value[0] == '\0' ? "" : " ",
               options[i].value);
        print_wrapped(options[i].meaning, 2 * INDENT);
    }
    if (keys) {
        printf("\nCONFIGURATION KEYS (with their defaults)\n");
        cudpo_config_describe(print_key, NULL);
    }
    print_section("FILES", page->files);
    print_section(
        "EXIT STATUS",
        "0  done\n"
        "64 the command line makes no sense; 78 a configuration value does not\n"
        "65 a malformed model, tokenizer, data or checkpoint file; 66 one that is not there\n"
        "73 an output can't be written; 77 access denied; 71 no memory; 70 a bug of cudpo\n"
        "69 the device is not there or failed, or another rank was lost\n"
        "75 stopped by a signal, steps done are saved: run the same command again with "
        "--resume_from_checkpoint true\n"
        "76 the ranks did not find one another, or are not of one run\n"
        "79 NaN or Inf in loss or gradient, or the self-check of the first step failed");
    print_section("EXAMPLES", page->examples);
}
