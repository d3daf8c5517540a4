/* share_state.h - inside of share: what a process knows of the work that it shares, and what all say of themselves. */
#ifndef CUDPO_DATA_SHARE_STATE_H
#define CUDPO_DATA_SHARE_STATE_H

#include "base/failure.h"
#include "base/file.h"
#include "data/build.h"
#include "data/cached.h"
#include "data/part.h"

typedef enum stage {
    STAGE_START, /* leader: waits for the lock; others: for their leader */
    STAGE_BUILD, /* tokenises its part */
    STAGE_BUILT, /* leader: puts parts together; others: wait for that */
    STAGE_END,   /* has the cache */
} stage;

/* What a process says each round. */
typedef struct standing {
    hash128 key;
    uint64_t nonce;
    int64_t rows;   /* of the file, behind it; of a leader in STAGE_BUILT, put together */
    int64_t failed; /* index of the row that it failed at; INT64_MAX: none */
    double share;   /* of the file that those rows are */
    int32_t leader; /* -1: none */
    uint8_t stage;
    bool blind; /* leader: does not see the parts of all that it leads */
    uint8_t zero[2];
} standing;

typedef struct share {
    cached *cached;
    const dataset_company *company;
    standing mine, *all; /* [size] as of the last round */
    failure failure;     /* at mine.failed */
    part_file part;
    block_reader *reader;
    part_join *join; /* leader */
    file_writer writer;
    cache_build build;
    build_progress progress;
} share;

/* Where this one's own leader is led itself, it makes a part in vain, and takes the cache in the end. */
static inline bool share_leads(const share *s)
{
    return s->mine.leader == s->company->rank;
}

/* Is process r led by this one's leader? */
static inline bool share_has_member(const share *s, int32_t r)
{
    return s->all[r].leader == s->mine.leader;
}

/* Index of the first bad row that anybody has come to; INT64_MAX: none. */
static inline int64_t share_first_failed(const share *s)
{
    int64_t first = INT64_MAX;
    for (int32_t r = 0; r < s->company->size; r++)
        first = s->all[r].failed < first ? s->all[r].failed : first;
    return first;
}

/* ---- share_work.c ---- */

/* Where process r of this job has its part, seen from here, in new memory; NULL if memory ran out. */
char *share_part_path(const share *s, int32_t r);

/** This process's part, empty, for the others to see. */
CUDPO_MUST_USE cudpo_status share_create_part(share *s);

/** What this process has to do next, for a while: mine.stage says how far that went. */
CUDPO_MUST_USE cudpo_status share_advance(share *s);

#endif /* CUDPO_DATA_SHARE_STATE_H */
