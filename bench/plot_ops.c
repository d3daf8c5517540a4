/* plot_ops.c - a run of `cudpo bench` as a picture: the roofline, and how near to it each op is. */
#include "bench/plot.h"
#include "bench/plots.h"
#include "bench/rows.h"

#include <math.h>
#include <stdio.h>
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

static const char *text_of(const json *row, const char *key)
{
    const char *text = row_text(row, key);
    return text != NULL ? text : "?";
}

static const struct {
    const char *color, *name;
} kinds[] = {{"#4477aa", "products of matrices"},
             {"#cc6677", "attention"},
             {"#44aa77", "other ops, which memory bounds"},
             {"#bbbbbb", "in the cache, or without a ceiling"}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static const char *color_of(const json *row)
{
    const char *op = text_of(row, "op");
    const bool grey = row_flag(row, "cached") == 1 || !(row_number(row, "percent_of_ceiling") > 0);
    return kinds[grey                               ? 3
                 : strcmp(op, "gemm") == 0          ? 0
                 : strncmp(op, "attention", 9) == 0 ? 1
                                                    : 2]
        .color;
}

/* ---- what can be drawn ---- */

cudpo_status plot_check(const json *object, const char *key, double least, double most,
                        const char *path, const char *what)
{
    const double value = row_number(object, key);
    if (isnan(value) || value == 0 || (value >= least && value <= most)) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, path, "%s: %s is %g, which can't be drawn", what, key, value);
}

static cudpo_status check_row(const json *row, int64_t n, const char *path)
{
    static const char *const numbers[] = {"bytes", "flops", "tflops", "percent_of_ceiling"};
    char what[32];
    snprintf(what, sizeof what, "row %lld", (long long)n);
    if (row_text(row, "op") == NULL) return cudpo_fail(CUDPO_EDATA, path, "%s has no \"op\"", what);
    if (!(row_number(row, "median_us") > 0))
        return cudpo_fail(CUDPO_EDATA, path, "%s has no time above 0", what);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        CUDPO_TRY(plot_check(row, numbers[i], 0, 1e30, path, what));
    return CUDPO_OK;
}

/* Speeds from those of a clockwork to those of a continent, so that no quotient of two leaves the numbers that there are. */
static cudpo_status check(const json *rows, const json *ceilings, const char *path)
{
    static const char *const speeds[] = {"copy_gbps", "float32_tflops", "bfloat16_tflops"};
    int64_t n = 0;
    if (ceilings == NULL || json_type(ceilings) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, path, "\"ceilings\" is no object");
    for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++)
        CUDPO_TRY(plot_check(ceilings, speeds[i], 1e-9, 1e12, path, "ceilings"));
    for (const json *row = json_first(rows); row != NULL; row = json_next(row))
        CUDPO_TRY(check_row(row, n++, path));
    return CUDPO_OK;
}

/* ---- the picture ---- */

static double product_of(const json *ceilings)
{
    const double half = row_number(ceilings, "bfloat16_tflops");
    return half > 0 ? half : row_number(ceilings, "float32_tflops");
}

/* Operations a byte against operations a second, of the ops that count any. */
static cudpo_status roofline(buffer *out, const json *rows, const json *ceilings)
{
    const double copy = row_number(ceilings, "copy_gbps") * 1e-3, product = product_of(ceilings);
    const double ridge = product / copy;
    if (!(product > 0 && copy > 0)) return CUDPO_OK; /* of collectives alone there is no roof */
    const plot_axis x = {ridge / 10, ridge * 100, LEFT, LEFT + ROOF_WIDTH, true};
    const plot_axis y = {product / 1000, product * 2, TOP + ROOF_HEIGHT, TOP, true};
    static const char *const roof = "stroke=\"black\" stroke-width=\"1.5\"";
    CUDPO_TRY(plot_frame(out, &x, &y, "operations a byte", "TFLOP/s"));
    CUDPO_TRY(plot_line(out, plot_place(&x, x.low), plot_place(&y, x.low * copy),
                        plot_place(&x, ridge), plot_place(&y, product), roof));
    CUDPO_TRY(plot_line(out, plot_place(&x, ridge), plot_place(&y, product), plot_place(&x, x.high),
                        plot_place(&y, product), roof));
    for (const json *row = json_first(rows); row != NULL; row = json_next(row)) {
        const double flops = row_number(row, "flops"), bytes = row_number(row, "bytes");
        const double reached = row_number(row, "tflops");
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
        const double percent = fmax(row_number(row, "percent_of_ceiling"), 0); /* of NaN, 0 */
        const bool cached = row_flag(row, "cached") == 1;
        char text[160], tip[320];
        snprintf(text, sizeof text, "%s %s %s", text_of(row, "op"), text_of(row, "pass"),
                 text_of(row, "shape"));
        snprintf(tip, sizeof tip, "%s, %s: %.1f %%, %.1f us%s", text, text_of(row, "model"),
                 percent, row_number(row, "median_us"), cached ? ", in the cache" : "");
        CUDPO_TRY(plot_text(out, left - 6, at + BAR - 4, "end", text));
        CUDPO_TRY(plot_bar(out, left, at + 2, plot_place(&x, fmin(percent, 125)) - left, BAR - 4,
                           color_of(row), tip));
    }
    return CUDPO_OK;
}

/* Which color is what, and what the roof has no place for. */
static cudpo_status key(buffer *out)
{
    double at = TOP + ROOF_HEIGHT + 52;
    for (int i = 0; i < KINDS; i++, at += 16) {
        CUDPO_TRY(plot_circle(out, LEFT + 4, at - 4, 4, kinds[i].color, kinds[i].name));
        CUDPO_TRY(plot_text(out, LEFT + 14, at, "start", kinds[i].name));
    }
    return plot_text(
        out, LEFT, at, "start",
        "Ops whose operations are not counted are in the bars alone: their share of a copy.");
}

cudpo_status plot_ops(buffer *out, const json *tree, const char *path)
{
    const json *rows = json_get(tree, "rows"), *ceilings = json_get(tree, "ceilings");
    const double n = (double)json_count(rows), left = LEFT + ROOF_WIDTH + NAMES + 40;
    const double height = fmax(TOP + ROOF_HEIGHT + 16 * (KINDS + 3), TOP + n * BAR) + 50;
    char title[256];
    CUDPO_TRY(check(rows, ceilings, path));
    snprintf(title, sizeof title, "cudpo %s on %s, %s", text_of(tree, "version"),
             text_of(tree, "device"), text_of(tree, "date"));
    CUDPO_TRY(plot_begin(out, left + BARS + 40, height, title));
    CUDPO_TRY(roofline(out, rows, ceilings));
    CUDPO_TRY(key(out));
    CUDPO_TRY(bars(out, rows, left));
    return plot_end(out);
}
