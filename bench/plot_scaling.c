/* plot_scaling.c - a plan as a picture: how a run scales with the number of GPUs, and which file is which picture. */
#include "base/file.h"
#include "bench/plot.h"
#include "bench/plots.h"
#include "bench/rows.h"
#include "cudpo/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOP = 60, LEFT = 70, WIDTH = 420, HEIGHT = 320, GAP = 90 };

static const struct {
    const char *key, *name, *color;
} curves[] = {{"same_batch", "the same batch for all", "#4477aa"},
              {"growing_batch", "a batch that grows with the GPUs", "#44aa77"}};
enum { CURVES = sizeof curves / sizeof *curves };

static const char no_fit[] = "#bbbbbb";

static bool fits(const json *point)
{
    return row_flag(point, "fits") == 1;
}

/* What a point says: rate, or efficiency in percent; 0: nothing. */
static double value_of(const json *point, bool efficiency)
{
    return efficiency ? fmax(100 * row_number(point, "efficiency"), 0)
                      : fmax(row_number(point, "examples_per_second"), 0);
}

static bool is_drawn(const json *point)
{
    return row_number(point, "gpus") >= 1 && value_of(point, false) > 0;
}

static cudpo_status curve(buffer *out, const json *points, const plot_axis *x, const plot_axis *y,
                          bool efficiency, const char *color)
{
    double last_x = 0, last_y = 0;
    char style[64], tip[160];
    snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"1.5\"", color);
    for (const json *p = json_first(points); p != NULL; p = json_next(p)) {
        const double gpus = row_number(p, "gpus"), value = value_of(p, efficiency);
        if (!is_drawn(p)) continue;
        const double at = plot_place(x, gpus), height = plot_place(y, fmax(value, y->low));
        if (last_x > 0) CUDPO_TRY(plot_line(out, last_x, last_y, at, height, style));
        snprintf(tip, sizeof tip, "%g GPUs: %.4g examples/s, %.1f %%%s", gpus, value_of(p, false),
                 value_of(p, true), fits(p) ? "" : ", does not fit");
        CUDPO_TRY(plot_circle(out, at, height, 3.5, fits(p) ? color : no_fit, tip));
        last_x = at;
        last_y = height;
    }
    return CUDPO_OK;
}

/* The largest and the least of what is drawn. */
typedef struct bounds {
    double gpus, least, most, percent;
} bounds;

static cudpo_status add_point(bounds *b, const json *point, const char *path, const char *where)
{
    const double gpus = row_number(point, "gpus"), rate = value_of(point, false);
    if (json_type(point) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, path, "%s has a point that is no object", where);
    CUDPO_TRY(plot_check(point, "gpus", 1, 1e9, path, where));
    CUDPO_TRY(plot_check(point, "examples_per_second", 1e-9, 1e12, path, where));
    CUDPO_TRY(plot_check(point, "efficiency", 1e-9, 1e3, path, where));
    if (!is_drawn(point)) return CUDPO_OK;
    b->gpus = fmax(b->gpus, gpus);
    b->most = fmax(b->most, rate);
    b->least = fmin(b->least, rate);
    b->percent = fmax(b->percent, value_of(point, true));
    return CUDPO_OK;
}

static cudpo_status find_bounds(bounds *b, const json *tree, const char *path)
{
    *b = (bounds){.gpus = 2, .least = INFINITY, .percent = 100};
    for (int i = 0; i < CURVES; i++) {
        const json *points = json_get(tree, curves[i].key);
        for (const json *p = json_first(points); p != NULL; p = json_next(p))
            CUDPO_TRY(add_point(b, p, path, curves[i].key));
    }
    if (b->most > 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, path,
                      "%s and %s have no point with gpus and "
                      "examples_per_second",
                      curves[0].key, curves[1].key);
}

static cudpo_status key_line(buffer *out, int line, const char *color, const char *name)
{
    const double at = TOP + HEIGHT + 48 + 16 * line;
    CUDPO_TRY(plot_circle(out, LEFT + 4, at - 4, 3.5, color, name));
    return plot_text(out, LEFT + 14, at, "start", name);
}

cudpo_status plot_scaling(buffer *out, const json *tree, const char *path)
{
    const char *gpu = row_text(tree, "gpu");
    bounds b;
    char title[160];
    CUDPO_TRY(find_bounds(&b, tree, path));
    snprintf(title, sizeof title, "cudpo plan, %s", gpu != NULL ? gpu : "?");
    const double second = LEFT + WIDTH + GAP;
    const plot_axis x = {1, b.gpus, LEFT, LEFT + WIDTH, true};
    const plot_axis rate = {b.least / 1.5, b.most * 1.5, TOP + HEIGHT, TOP, true};
    const plot_axis x2 = {1, b.gpus, second, second + WIDTH, true};
    const plot_axis share = {0, 1.05 * b.percent, TOP + HEIGHT, TOP, false};
    CUDPO_TRY(plot_begin(out, second + WIDTH + 40, TOP + HEIGHT + 96, title));
    CUDPO_TRY(plot_frame(out, &x, &rate, "GPUs", "examples a second"));
    CUDPO_TRY(plot_frame(out, &x2, &share, "GPUs", "efficiency, %"));
    for (int i = 0; i < CURVES; i++) {
        const json *points = json_get(tree, curves[i].key);
        CUDPO_TRY(curve(out, points, &x, &rate, false, curves[i].color));
        CUDPO_TRY(curve(out, points, &x2, &share, true, curves[i].color));
        CUDPO_TRY(key_line(out, i, curves[i].color, curves[i].name));
    }
    CUDPO_TRY(key_line(out, CURVES, no_fit, "does not fit into memory"));
    return plot_end(out);
}

static bool is_list(const json *tree, const char *key)
{
    const json *value = json_get(tree, key);
    return value != NULL && json_type(value) == JSON_ARRAY && json_count(value) > 0;
}

cudpo_status cudpo_bench_plot(const char *svg, const char *file)
{
    enum { MOST_BYTES = 64 << 20 };
    json *tree = NULL;
    buffer out = {0};
    CUDPO_REQUIRE(svg != NULL && file != NULL);
    CUDPO_TRY(json_load(&tree, file, MOST_BYTES));
    const bool object = json_type(tree) == JSON_OBJECT;
    cudpo_status status =
        object && is_list(tree, "rows") ? plot_ops(&out, tree, file)
        : object && is_list(tree, "same_batch") && is_list(tree, "growing_batch")
            ? plot_scaling(&out, tree, file)
            : cudpo_fail(CUDPO_EDATA, file,
                         "is neither of `cudpo bench --json` nor of `cudpo plan --json`, or has no "
                         "rows");
    if (status == CUDPO_OK) status = file_write(svg, out.data, out.size);
    buffer_free(&out);
    json_free(tree);
    return status;
}
