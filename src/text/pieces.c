/* pieces.c - grows by doubling. */
#include "text/pieces.h"

#include <stdlib.h>

cudpo_status pieces_add(pieces *p, size_t begin, size_t end, bool at_origin)
{
    if (p->n == p->capacity) {
        const int64_t capacity = p->capacity < 32 ? 32 : 2 * p->capacity;
        piece *list = realloc(p->list, (size_t)capacity * sizeof *list);
        if (list == NULL)
            return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld pieces of text", (long long)capacity);
        p->list = list;
        p->capacity = capacity;
    }
    p->list[p->n++] = (piece){begin, end, at_origin};
    return CUDPO_OK;
}

void pieces_clear(pieces *p)
{
    buffer_clear(&p->text);
    p->n = 0;
}

void pieces_free(pieces *p)
{
    buffer_free(&p->text);
    free(p->list);
    *p = (pieces){0};
}
