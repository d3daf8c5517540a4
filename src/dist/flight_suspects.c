/* flight_suspects.c - who is to be looked at first.
 *
 * All ranks end with the reason of the one that failed first, and note it, "rank 3: why" where it was another: so the first
 * note of all leads to that rank.  A rank that was killed or hangs notes nothing. */
#include "dist/flight_words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 8 };

static const flight_record *record_of(const flight_records *all, int32_t rank)
{
    for (int32_t i = 0; i < all->n; i++)
        if (all->ranks[i].rank == rank) return &all->ranks[i];
    return NULL;
}

static const flight_record *first_note(const flight_records *all)
{
    const flight_record *first = NULL;
    for (int32_t i = 0; i < all->n; i++) {
        const flight_record *r = &all->ranks[i];
        if (r->noted != 0 && (first == NULL || r->noted < first->noted)) first = r;
    }
    return first;
}

/* Whom a note is about: "rank 3: why", "rank 3 was lost", the first of "ranks 3,5 did not come"; -1: nobody. */
static int32_t subject(const flight_records *all, const flight_record *r)
{
    static const char everybody[] = "all ranks";
    int rank, end = 0;
    if (strncmp(r->note, everybody, sizeof everybody - 1) == 0) return -1;
    if ((sscanf(r->note, "rank %5d%n", &rank, &end) == 1 ||
         sscanf(r->note, "ranks %5d%n", &rank, &end) == 1) &&
        rank >= 0 && rank < all->size && strchr(": ,-", r->note[end]) != NULL)
        return rank;
    return r->rank;
}

static cudpo_status put_suspect(buffer *out, const flight_records *all, int32_t rank)
{
    const flight_record *r = record_of(all, rank);
    CUDPO_TRY(buffer_printf(out, "suspect: rank %d", (int)rank));
    if (r == NULL)
        return buffer_printf(out, ", which left no record: it never began, or it is elsewhere\n");
    if (r->host[0] != '\0') CUDPO_TRY(buffer_printf(out, " on %s", r->host));
    if (r->noted != 0) return buffer_printf(out, ", which noted: %s\n", r->note);
    if (r->ended != 0) return buffer_printf(out, ", which ended by itself without a note of why\n");
    return buffer_printf(out, ", which did not end by itself: it was killed, or hangs\n");
}

/* Suspects [size]: who left no record. Returns: are there some? */
static bool mark_absent(bool *suspect, const flight_records *all)
{
    for (int32_t rank = 0; rank < all->size; rank++)
        suspect[rank] = true;
    for (int32_t i = 0; i < all->n; i++)
        suspect[all->ranks[i].rank] = false;
    return all->n < all->size;
}

/* Who is blamed; `silent`: only of those that neither ended nor noted why. */
static bool mark_blamed(bool *suspect, const flight_records *all, const bool *blamed, bool silent)
{
    bool some = false;
    for (int32_t i = 0; i < all->n; i++) {
        const flight_record *r = &all->ranks[i];
        if (!blamed[i] || (silent && (r->noted != 0 || r->ended != 0))) continue;
        suspect[r->rank] = some = true;
    }
    return some;
}

/* Who did not end, where others did: a rank that was killed may have been ahead of those that then waited for it. */
static bool mark_unended(bool *suspect, const flight_records *all)
{
    bool some = false, ended = false;
    for (int32_t i = 0; i < all->n; i++)
        ended = ended || all->ranks[i].ended != 0;
    for (int32_t i = 0; ended && i < all->n; i++)
        if (all->ranks[i].ended == 0) suspect[all->ranks[i].rank] = some = true;
    return some;
}

cudpo_status flight_put_suspects(buffer *out, const flight_records *all, const bool *blamed,
                                 bool certain)
{
    bool *suspect = calloc((size_t)all->size, sizeof *suspect);
    if (suspect == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "suspects");
    const flight_record *note = first_note(all);
    const int32_t named = note == NULL ? -1 : subject(all, note);
    bool some = mark_absent(suspect, all) || note != NULL;
    some = mark_blamed(suspect, all, blamed, !certain) || some;
    if (!some && !mark_unended(suspect, all)) mark_blamed(suspect, all, blamed, false);
    cudpo_status status = CUDPO_OK;
    if (note != NULL && named != note->rank)
        status = buffer_printf(out, "first note: rank %d noted: %s\n", (int)note->rank, note->note);
    int32_t more = 0, shown = 0;
    if (status == CUDPO_OK && named >= 0) status = put_suspect(out, all, named);
    for (int32_t rank = 0; status == CUDPO_OK && rank < all->size; rank++) {
        if (!suspect[rank] || rank == named) continue;
        if (shown++ < SHOWN)
            status = put_suspect(out, all, rank);
        else
            more++;
    }
    if (status == CUDPO_OK && more > 0)
        status = buffer_printf(out, "suspects: %d more\n", (int)more);
    free(suspect);
    return status;
}
