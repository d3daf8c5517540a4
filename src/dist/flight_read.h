/* flight_read.h - the flight records of a folder in memory, checked: the files may be damaged, or grow while they are read. */
#ifndef CUDPO_DIST_FLIGHT_READ_H
#define CUDPO_DIST_FLIGHT_READ_H

#include "cudpo/status.h"
#include "dist/flight.h"
#include "dist/flight_format.h"

#include <stdint.h>

/* What a collective does, to which type. */
typedef struct flight_kind {
    char op[FLIGHT_OP], type[FLIGHT_TYPE];
} flight_kind;

typedef struct flight_event {
    int64_t elements, step;
    int64_t scheduled, started, completed; /* ns, 0: not */
    int32_t state;                         /* flight_state; 0: the ring does not hold it */
    int32_t kind;                          /* number among the kinds of all records */
} flight_event;

/* Texts are printable. */
typedef struct flight_record {
    int32_t rank, pid;
    char host[FLIGHT_TEXT], note[FLIGHT_NOTE];
    int64_t begun, ended, noted; /* ns, 0: not */
    int64_t oldest, newest;      /* sequences that the ring holds; newest 0: none */
    flight_event *events;        /* [newest - oldest + 1] */
} flight_record;

enum { FLIGHT_KINDS = 256 };

typedef struct flight_records {
    char run_id[FLIGHT_TEXT];
    int32_t size;         /* ranks of the run */
    int32_t n;            /* records that are there */
    flight_record *ranks; /* [n], by rank */
    int32_t kind_count;
    flight_kind kinds[FLIGHT_KINDS];
} flight_records;

/** Read all records of a folder.
 *  Out:     r  to be freed with flight_records_free(), also after a failure.
 *  Returns: as flight_analyse(). */
CUDPO_MUST_USE cudpo_status flight_read(flight_records *r, const char *folder);
void flight_records_free(flight_records *r);

/* The event of a sequence, or NULL where the record does not hold it. */
const flight_event *flight_event_of(const flight_record *r, int64_t sequence);

#endif /* CUDPO_DIST_FLIGHT_READ_H */
