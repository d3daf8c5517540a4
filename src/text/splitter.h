/* splitter.h - what becomes of matches when a piece is cut at them. */
#ifndef CUDPO_TEXT_SPLITTER_H
#define CUDPO_TEXT_SPLITTER_H

#include "cudpo/status.h"
#include "text/pieces.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum split_behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS,
    SPLIT_BEHAVIORS
} split_behavior;

/* Takes the stretches of a piece from left to right, matches and what lies between them, and adds pieces to `out`.
 * {.out, .behavior, .origin} is ready; every stretch and then splitter_end(). */
typedef struct splitter {
    pieces *out;
    split_behavior behavior;
    size_t origin;     /* offset at which a piece is at the origin of the text; SIZE_MAX: none */
    size_t begin, end; /* the piece that is being put together */
    bool open;         /* there is one */
    bool was_match;    /* of the stretch before */
} splitter;

CUDPO_MUST_USE cudpo_status splitter_add(splitter *s, size_t begin, size_t end, bool is_match);
CUDPO_MUST_USE cudpo_status splitter_end(splitter *s);

#endif /* CUDPO_TEXT_SPLITTER_H */
