/* splitter.c - SplitDelimiterBehavior of the `tokenizers` library, in one pass from the left. */
#include "text/splitter.h"

#include <stdint.h>

static cudpo_status flush(splitter *s)
{
    if (!s->open) return CUDPO_OK;
    s->open = false;
    if (s->begin == s->end) return CUDPO_OK; /* an empty match separates, and is no piece itself */
    return pieces_add(s->out, s->begin, s->end, s->begin == s->origin);
}

/* True where this stretch joins the piece before it.  A match goes to the previous piece unless that ends in a match
 * already; what follows a match takes it as its beginning, and of several matches in a row the last. */
static bool joins(const splitter *s, bool is_match)
{
    switch (s->behavior) {
    case SPLIT_CONTIGUOUS:
        return is_match == s->was_match;
    case SPLIT_MERGED_WITH_PREVIOUS:
        return is_match && !s->was_match;
    case SPLIT_MERGED_WITH_NEXT:
        return !is_match && s->was_match;
    default:
        return false;
    }
}

cudpo_status splitter_add(splitter *s, size_t begin, size_t end, bool is_match)
{
    if (s->open && joins(s, is_match)) {
        s->end = end;
    } else {
        CUDPO_TRY(flush(s));
        s->open = !(is_match && s->behavior == SPLIT_REMOVED);
        s->begin = begin;
        s->end = end;
    }
    s->was_match = is_match;
    return CUDPO_OK;
}

cudpo_status splitter_end(splitter *s)
{
    return flush(s);
}
