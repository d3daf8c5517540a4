/* plot_ops.c - a run of `cudpo bench` as a picture: the roofline, and how near to it each op is. */
#include "base/file.h"
#include "base/json.h"
#include "bench/plot.h"
#include "bench/plots.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BAR = 15,
    TOP = 60,
    LEFT = 60,
    ROOF_WIDTH = 420,
    ROOF_HEIGHT = 360,
    NAMES = 250,
    BARS = 300
};

static double number_of(const json *row, const char *key)
{
    const json *value = json_get(row, key);
    return value != NULL && json_type(value) == JSON_NUMBER ? json_number(value) : 0;
}

static const char *text_of(const json *row, const char *key)
{
    const json *value = json_get(row, key);
    return value != NULL && json_type(value) == JSON_STRING ? json_string(value) : "?";
}

static const char *color_of(const json *row)
{
    const char *op = text_of(row, "op");
    return strcmp(op, "gemm") == 0                    ? "#4477aa"
           : strncmp(op, "attention", 9) == 0         ? "#cc6677"
           : number_of(row, "percent_of_ceiling") > 0 ? "#44aa77"
                                                      : "#bbbbbb";
}

static double product_of(const json *ceilings)
{
    const double half = number_of(ceilings, "bfloat16_tflops");
    return half > 0 ? half : number_of(ceilings, "float32_tflops");
}

/* Operations a byte against operations a second, of the ops that count any. */
static cudpo_status roofline(buffer *out, const json *rows, const json *ceilings)
{
    const double copy = number_of(ceilings, "copy_gbps") * 1e-3, product = product_of(ceilings);
    const double ridge = product / copy;
    if (!(product > 0 && copy > 0)) return CUDPO_OK; /* of collectives alone there is no roof */
    const plot_axis x = {ridge / 100, ridge * 100, LEFT, LEFT + ROOF_WIDTH, true};
    const plot_axis y = {product / 1000, product * 2, TOP + ROOF_HEIGHT, TOP, true};
    static const char *const roof = "stroke=\"black\" stroke-width=\"1.5\"";
    CUDPO_TRY(plot_frame(out, &x, &y, "operations a byte", "TFLOP/s"));
    CUDPO_TRY(plot_line(out, plot_place(&x, x.low), plot_place(&y, x.low * copy),
                        plot_place(&x, ridge), plot_place(&y, product), roof));
    CUDPO_TRY(plot_line(out, plot_place(&x, ridge), plot_place(&y, product), plot_place(&x, x.high),
                        plot_place(&y, product), roof));
    for (const json *row = json_first(rows); row != NULL; row = json_next(row)) {
        const double flops = number_of(row, "flops"), bytes = number_of(row, "bytes");
        const double reached = number_of(row, "tflops");
        if (!(flops > 0 && bytes > 0 && reached > 0)) continue;
        const double at = fmin(fmax(flops / bytes, x.low), x.high);
        char tip[256];
        snprintf(tip, sizeof tip, "%s %s %s: %.3g TFLOP/s", text_of(row, "op"),
                 text_of(row, "pass"), text_of(row, "shape"), reached);
        CUDPO_TRY(plot_circle(out, plot_place(&x, at),
                              plot_place(&y, fmin(fmax(reached, y.low), y.high)), 4, color_of(row),
                              tip));
    }
    return CUDPO_OK;
}

/* The share of the ceiling of each row, longer than its frame where it is above 120 %. */
static cudpo_status bars(buffer *out, const json *rows, double left)
{
    const double n = (double)json_count(rows);
    const plot_axis x = {0, 120, left, left + BARS, false};
    const plot_axis y = {n, 0, TOP + n * BAR, TOP, false};
    double at = TOP;
    for (double v = 0; v <= 100; v += 25) {
        char text[16];
        snprintf(text, sizeof text, "%g %%", v);
        CUDPO_TRY(plot_line(out, plot_place(&x, v), y.from, plot_place(&x, v), y.to,
                            v == 100 ? "stroke=\"black\"" : "stroke=\"#dddddd\""));
        CUDPO_TRY(plot_text(out, plot_place(&x, v), y.from + 14, "middle", text));
    }
    CUDPO_TRY(
        plot_text(out, left, TOP - 10, "start", "of a large copy, a large product, or a link"));
    for (const json *row = json_first(rows); row != NULL; row = json_next(row), at += BAR) {
        const double percent = number_of(row, "percent_of_ceiling");
        const bool cached = json_get(row, "cached") != NULL &&
                            json_type(json_get(row, "cached")) == JSON_BOOL &&
                            json_bool(json_get(row, "cached"));
        char text[160], tip[320];
        snprintf(text, sizeof text, "%s %s %s", text_of(row, "op"), text_of(row, "pass"),
                 text_of(row, "shape"));
        snprintf(tip, sizeof tip, "%s, %s: %.1f %%, %.1f us%s", text, text_of(row, "model"),
                 percent, number_of(row, "median_us"), cached ? ", in the cache" : "");
        CUDPO_TRY(plot_text(out, left - 6, at + BAR - 4, "end", text));
        CUDPO_TRY(plot_bar(out, left, at + 2, plot_place(&x, fmin(percent, 125)) - left, BAR - 4,
                           cached ? "#cccccc" : color_of(row), tip));
    }
    return CUDPO_OK;
}

cudpo_status plot_ops(buffer *out, const json *tree)
{
    const json *rows = json_get(tree, "rows"), *ceilings = json_get(tree, "ceilings");
    const double n = (double)json_count(rows), left = LEFT + ROOF_WIDTH + NAMES + 40;
    const double height = fmax(TOP + ROOF_HEIGHT, TOP + n * BAR) + 50;
    char title[256];
    CUDPO_REQUIRE(ceilings != NULL);
    snprintf(title, sizeof title, "cudpo %s on %s, %s", text_of(tree, "version"),
             text_of(tree, "device"), text_of(tree, "date"));
    CUDPO_TRY(plot_begin(out, left + BARS + 40, height, title));
    CUDPO_TRY(roofline(out, rows, ceilings));
    CUDPO_TRY(bars(out, rows, left));
    return plot_end(out);
}
