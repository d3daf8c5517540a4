/* layout.h - how many ranks there are, on how many nodes, and where they meet. */
#ifndef CUDPO_LAUNCH_LAYOUT_H
#define CUDPO_LAUNCH_LAYOUT_H

#include "cudpo/launch.h"

#include <stdint.h>

enum { LAYOUT_TEXT = 256, LAYOUT_NODE_RANKS = 1024, LAYOUT_RANKS = 65536, LAYOUT_PORT = 29500 };

typedef struct layout {
    int64_t ranks; /* of this node */
    int64_t nodes, node;
    char address[LAYOUT_TEXT]; /* "": not given, which one node need not */
    int64_t port;              /* of address */
    const char *id;            /* NULL: not given, of one node */
    const char *token_file;    /* NULL: the same */
} layout;

/** What options and, where they say nothing, variables ask for.
 *  Returns: CUDPO_OK; CUDPO_EUSAGE naming the option, CUDPO_ECONFIG naming the variable. */
CUDPO_MUST_USE cudpo_status layout_find(layout *out, const cudpo_launch_options *o);

#endif /* CUDPO_LAUNCH_LAYOUT_H */
