/* pieces.h - a text cut into pieces: what normalizers, pre-tokenizers and decoders hand to each other. */
#ifndef CUDPO_TEXT_PIECES_H
#define CUDPO_TEXT_PIECES_H

#include "base/buffer.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct piece {
    size_t begin, end; /* bytes of pieces.text */
    bool at_origin;    /* begins where the user's whole text begins: "first" of Metaspace asks */
} piece;

/* {0} is empty.  The pieces stand in the order of the text; bytes between them belong to none. */
typedef struct pieces {
    buffer text;
    piece *list;
    int64_t n, capacity;
} pieces;

CUDPO_MUST_USE cudpo_status pieces_add(pieces *p, size_t begin, size_t end, bool at_origin);
void pieces_clear(pieces *p); /* empty, memory kept */
void pieces_free(pieces *p);

#endif /* CUDPO_TEXT_PIECES_H */
