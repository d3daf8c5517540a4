/* plot_scaling.c - a plan as a picture: how a run scales with the number of GPUs, and which file is which picture. */
#include "base/file.h"
#include "bench/plot.h"
#include "bench/plots.h"
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

static double number_of(const json *row, const char *key)
{
    const json *value = json_get(row, key);
    return value != NULL && json_type(value) == JSON_NUMBER ? json_number(value) : 0;
}

static bool fits(const json *point)
{
    const json *value = json_get(point, "fits");
    return value != NULL && json_type(value) == JSON_BOOL && json_bool(value);
}

/* What a point says: rate, or efficiency in percent. */
static double value_of(const json *point, bool efficiency)
{
    return efficiency ? 100 * number_of(point, "efficiency")
                      : number_of(point, "examples_per_second");
}

static cudpo_status curve(buffer *out, const json *points, const plot_axis *x, const plot_axis *y,
                          bool efficiency, const char *color)
{
    double last_x = 0, last_y = 0;
    char style[64], tip[160];
    snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"1.5\"", color);
    for (const json *p = json_first(points); p != NULL; p = json_next(p)) {
        const double gpus = number_of(p, "gpus"), value = value_of(p, efficiency);
        if (!(gpus >= 1 && value > 0)) continue;
        const double at = plot_place(x, gpus), height = plot_place(y, fmax(value, y->low));
        if (last_x > 0) CUDPO_TRY(plot_line(out, last_x, last_y, at, height, style));
        snprintf(tip, sizeof tip, "%g GPUs: %.4g examples/s, %.1f %%%s", gpus, value_of(p, false),
                 value_of(p, true), fits(p) ? "" : ", does not fit");
        CUDPO_TRY(plot_circle(out, at, height, 3.5, fits(p) ? color : "#cccccc", tip));
        last_x = at;
        last_y = height;
    }
    return CUDPO_OK;
}

static void bounds(const json *tree, double *gpus, double *least, double *most)
{
    *gpus = 2, *least = 0, *most = 0;
    for (int i = 0; i < CURVES; i++) {
        const json *points = json_get(tree, curves[i].key);
        for (const json *p = json_first(points); p != NULL; p = json_next(p)) {
            const double rate = value_of(p, false);
            if (!(rate > 0)) continue;
            *gpus = fmax(*gpus, number_of(p, "gpus"));
            *most = fmax(*most, rate);
            *least = *least > 0 ? fmin(*least, rate) : rate;
        }
    }
}

cudpo_status plot_scaling(buffer *out, const json *tree)
{
    const json *gpu = json_get(tree, "gpu");
    double gpus, least, most, at = TOP;
    char title[160];
    bounds(tree, &gpus, &least, &most);
    CUDPO_REQUIRE(most > 0);
    snprintf(title, sizeof title, "cudpo plan, %s",
             gpu != NULL && json_type(gpu) == JSON_STRING ? json_string(gpu) : "?");
    const double second = LEFT + WIDTH + GAP;
    const plot_axis x = {1, gpus, LEFT, LEFT + WIDTH, true};
    const plot_axis rate = {least / 1.5, most * 1.5, TOP + HEIGHT, TOP, true};
    const plot_axis x2 = {1, gpus, second, second + WIDTH, true};
    const plot_axis share = {0, 105, TOP + HEIGHT, TOP, false};
    CUDPO_TRY(plot_begin(out, second + WIDTH + 40, TOP + HEIGHT + 80, title));
    CUDPO_TRY(plot_frame(out, &x, &rate, "GPUs", "examples a second"));
    CUDPO_TRY(plot_frame(out, &x2, &share, "GPUs", "efficiency, %"));
    for (int i = 0; i < CURVES; i++) {
        const json *points = json_get(tree, curves[i].key);
        CUDPO_TRY(curve(out, points, &x, &rate, false, curves[i].color));
        CUDPO_TRY(curve(out, points, &x2, &share, true, curves[i].color));
        at = TOP + HEIGHT + 48 + 16 * i;
        CUDPO_TRY(plot_circle(out, LEFT + 4, at - 4, 3.5, curves[i].color, curves[i].name));
        CUDPO_TRY(plot_text(out, LEFT + 14, at, "start", curves[i].name));
    }
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
        object && is_list(tree, "rows") && json_get(tree, "ceilings") != NULL ? plot_ops(&out, tree)
        : object && is_list(tree, "same_batch") && is_list(tree, "growing_batch")
            ? plot_scaling(&out, tree)
            : cudpo_fail(CUDPO_EDATA, file,
                         "is neither of `cudpo bench --json` nor of `cudpo plan --json`, or has no "
                         "rows");
    if (status == CUDPO_OK) status = file_write(svg, out.data, out.size);
    buffer_free(&out);
    json_free(tree);
    return status;
}
