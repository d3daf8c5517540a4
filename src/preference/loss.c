/* loss.c - the table of losses, to look things up in. */
#include "preference/loss.h"

#include <string.h>

#define LOSS_LINE(kind, name, completions, reference, prompt, kl, token_mean) \
    {name, completions, reference, prompt, kl, token_mean},
static const loss_traits table[] = {LOSS_TABLE(LOSS_LINE)};

const loss_traits *loss_traits_of(loss_kind kind)
{
    return &table[kind];
}

const loss_traits *loss_traits_find(const char *name, loss_kind *kind)
{
    for (int i = 0; i < LOSS_KINDS; i++) {
        if (strcmp(table[i].name, name) != 0) continue;
        *kind = (loss_kind)i;
        return &table[i];
    }
    return NULL;
}
