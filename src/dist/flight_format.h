/* flight_format.h - a rank's record of collectives as it stands in its file, in the machine's own byte order.
 *
 * One process writes, at any moment it may be killed, and meanwhile others may read: so each part is published by one word that
 * is stored last, and there are no checksums, which could not be right at every moment. */
#ifndef CUDPO_DIST_FLIGHT_FORMAT_H
#define CUDPO_DIST_FLIGHT_FORMAT_H

#include <stdatomic.h>
#include <stdint.h>

#define FLIGHT_MAGIC "cudpoflt"

enum {
    FLIGHT_VERSION = 1,
    FLIGHT_ENTRIES = 4096,
    FLIGHT_TEXT = 256, /* bytes of a name, with its NUL */
    FLIGHT_NOTE = 1024,
    FLIGHT_OP = 32,
    FLIGHT_TYPE = 16,
};

/* Lock-free, or the words in the file would not be the values alone. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(atomic_llong) == 8, "64 bits of a file");

/* A time is CLOCK_REALTIME in ns, 0: never. */
typedef struct flight_header {
    char magic[8];
    uint32_t version, entries, entry_bytes;
    int32_t rank, size, pid;
    int64_t begun;
    atomic_llong ended; /* by itself: what has 0 was killed, or runs */
    atomic_llong noted; /* stored behind `note`; -1: it is being written */
    char run_id[FLIGHT_TEXT], host[FLIGHT_TEXT];
    char note[FLIGHT_NOTE];
    char reserved[2504];
} flight_header;
_Static_assert(sizeof(flight_header) == 4096, "one page");

/* Collective `sequence` is entry (sequence - 1) % FLIGHT_ENTRIES.  Both of its numbers are 0 while the rest changes, and the
 * one behind it is stored last: a reader that goes forward knows by it that what lies between is of one entry. */
typedef struct flight_entry {
    atomic_llong sequence;
    int64_t elements, step;
    int64_t scheduled;
    atomic_llong started, completed;
    atomic_llong state; /* flight_state */
    char op[FLIGHT_OP], type[FLIGHT_TYPE];
    char reserved[144];
    atomic_llong again;
} flight_entry;
_Static_assert(sizeof(flight_entry) == 256, "256 bytes");

typedef struct flight_file {
    flight_header header;
    flight_entry entries[FLIGHT_ENTRIES];
} flight_file;

#endif /* CUDPO_DIST_FLIGHT_FORMAT_H */
