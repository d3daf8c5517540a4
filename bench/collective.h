/* collective.h - rows of what ranks do together: how long a collective takes, and whether every element of it is right. */
#ifndef CUDPO_BENCH_COLLECTIVE_H
#define CUDPO_BENCH_COLLECTIVE_H

#include "bench/measure.h"
#include "dist/communicator.h"
#include "train/ranks.h"

/* As bench_ops, but for their functions: of a collective name and variant are all there is. */
extern const bench_op bench_collectives[];
extern const int bench_collective_count;

/* Sizes that are measured, at most: for latency, a bucket of gradients, all gradients. */
enum { COLLECTIVE_SIZES = 3 };

/** Elements of a type that ranks exchange when they train a model of so many parameters; ascending, no size twice.
 *  Out:     size [COLLECTIVE_SIZES].
 *  Returns: how many. */
int bench_collective_sizes(int64_t *size, dtype type, int64_t parameters);

/** A case of n elements: its bytes are those that its bus bandwidth counts. */
bench_case bench_collective_case(const bench_op *op, const bench_shape *s, const communicator *c,
                                 dtype type, int64_t n);

/** Measure a case of bench_collective_case(): rounds of calls, each round begun by all ranks at once.  A call's time is that of
 *  its round, on the slowest rank, over the calls of the round.  Behind the last round every element of every rank is compared
 *  with what it must be.  Collective: every rank calls it and gets the same.
 *  Out:     r     wrong: of all ranks together; calls: rounds.
 *           fits  false: some rank has no memory for it, and r is nothing.
 *           left  where this fails: memory for the backend to free once the communicator is closed, which may be at work in it
 *                 until then; else NULL.
 *  Returns: CUDPO_OK; as the communicator and control. */
CUDPO_MUST_USE cudpo_status bench_collective_measure(bench_result *r, bool *fits, void **left,
                                                     communicator *c, const bench_case *what,
                                                     const bench_settings *settings);

/** What one rank can send to the next at most, as bytes a second: a plain stream of large messages, over connections like those
 *  of the ring, while the other ranks are silent.  Of the streams from rank 0 to the next and from the last to rank 0 the slower
 *  one: where there are several nodes, at least one of them leaves its node.  Collective.
 *  Returns: CUDPO_OK; as tcp_ring_connect(). */
CUDPO_MUST_USE cudpo_status bench_link(double *rate, control *company);

#endif /* CUDPO_BENCH_COLLECTIVE_H */
