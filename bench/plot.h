/* plot.h - the little of SVG that plots need: axes, lines, marks, text. */
#ifndef CUDPO_BENCH_PLOT_H
#define CUDPO_BENCH_PLOT_H

#include "base/buffer.h"

#include <stdbool.h>

/* One side of a panel: which value is where. */
typedef struct plot_axis {
    double low, high; /* values at its ends */
    double from, to;  /* pixels there */
    bool logarithmic;
} plot_axis;

double plot_place(const plot_axis *a, double value);

CUDPO_MUST_USE cudpo_status plot_begin(buffer *out, double width, double height, const char *title);
CUDPO_MUST_USE cudpo_status plot_end(buffer *out);

/* Text is escaped.  anchor: "start", "middle", "end". */
CUDPO_MUST_USE cudpo_status plot_text(buffer *out, double x, double y, const char *anchor,
                                      const char *text);
CUDPO_MUST_USE cudpo_status plot_line(buffer *out, double x1, double y1, double x2, double y2,
                                      const char *style);
CUDPO_MUST_USE cudpo_status plot_circle(buffer *out, double x, double y, double radius,
                                        const char *color, const char *tip);
CUDPO_MUST_USE cudpo_status plot_bar(buffer *out, double x, double y, double width, double height,
                                     const char *color, const char *tip);

/** A frame with ticks: powers of ten or of two on a logarithmic axis, else some five round numbers. */
CUDPO_MUST_USE cudpo_status plot_frame(buffer *out, const plot_axis *x, const plot_axis *y,
                                       const char *x_name, const char *y_name);

#endif /* CUDPO_BENCH_PLOT_H */
