/* report.h - rows of results, for people and for programs. */
#ifndef CUDPO_BENCH_REPORT_H
#define CUDPO_BENCH_REPORT_H

#include "base/buffer.h"
#include "bench/measure.h"

/** The head of the table, and the line of one case. */
CUDPO_MUST_USE cudpo_status bench_head(buffer *out, const backend *be,
                                       const bench_ceilings *ceilings);
CUDPO_MUST_USE cudpo_status bench_line(buffer *out, const bench_case *c, const bench_result *r,
                                       const bench_ceilings *ceilings);

/** The same as JSON: begins an object, adds a row to it, closes it.  What stands between can be closed at any time, in a
 *  copy.
 *  In:      command  line that the run was started with; NULL: not known. */
CUDPO_MUST_USE cudpo_status bench_json_begin(buffer *out, const backend *be,
                                             const bench_ceilings *ceilings,
                                             const bench_settings *settings, const char *command);
CUDPO_MUST_USE cudpo_status bench_json_row(buffer *out, bool first, const bench_case *c,
                                           const bench_result *r, const bench_ceilings *ceilings);
#define BENCH_JSON_END "\n]}\n"

#endif /* CUDPO_BENCH_REPORT_H */
