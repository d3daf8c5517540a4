/* plot.c - SVG by hand: no plot here needs more than lines, marks and text. */
#include "bench/plot.h"

#include <math.h>
#include <stdio.h>

double plot_place(const plot_axis *a, double value)
{
    const double share = a->logarithmic ? log(value / a->low) / log(a->high / a->low)
                                        : (value - a->low) / (a->high - a->low);
    return a->from + share * (a->to - a->from);
}

/* Bytes of the character in UTF-8 that begins here; 0 where none is whole: names are cut to length, by bytes. */
static size_t whole(const char *text)
{
    const unsigned char c = (unsigned char)*text;
    if (c < 0x80) return 1;
    const size_t bytes = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 0;
    for (size_t i = 1; i < bytes; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80) return 0;
    return bytes;
}

static cudpo_status escaped(buffer *out, const char *text)
{
    while (*text != '\0') {
        const size_t bytes = whole(text);
        const char *as = *text == '&'   ? "&amp;"
                         : *text == '<' ? "&lt;"
                         : *text == '>' ? "&gt;"
                         : bytes == 1 && (unsigned char)*text < 0x20
                             ? "?" /* XML has no place for it */
                             : NULL;
        CUDPO_TRY(as != NULL ? buffer_printf(out, "%s", as) : buffer_append(out, text, bytes));
        text += bytes > 0 ? bytes : 1;
    }
    return CUDPO_OK;
}

cudpo_status plot_begin(buffer *out, double width, double height, const char *title)
{
    CUDPO_TRY(buffer_printf(out,
                            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" "
                            "viewBox=\"0 0 %g %g\" font-family=\"sans-serif\" font-size=\"11\">\n"
                            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
                            "<text x=\"16\" y=\"22\" font-size=\"14\">",
                            width, height, width, height));
    CUDPO_TRY(escaped(out, title));
    return buffer_printf(out, "</text>\n");
}

cudpo_status plot_end(buffer *out)
{
    return buffer_printf(out, "</svg>\n");
}

cudpo_status plot_text(buffer *out, double x, double y, const char *anchor, const char *text)
{
    CUDPO_TRY(buffer_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor));
    CUDPO_TRY(escaped(out, text));
    return buffer_printf(out, "</text>\n");
}

cudpo_status plot_line(buffer *out, double x1, double y1, double x2, double y2, const char *style)
{
    return buffer_printf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1,
                         y1, x2, y2, style);
}

/* A tip is what a browser shows under the pointer. */
static cudpo_status tipped(buffer *out, const char *shape, const char *tip)
{
    CUDPO_TRY(buffer_printf(out, "><title>"));
    CUDPO_TRY(escaped(out, tip));
    return buffer_printf(out, "</title></%s>\n", shape);
}

cudpo_status plot_circle(buffer *out, double x, double y, double radius, const char *color,
                         const char *tip)
{
    CUDPO_TRY(buffer_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\"", x, y,
                            radius, color));
    return tipped(out, "circle", tip);
}

cudpo_status plot_bar(buffer *out, double x, double y, double width, double height,
                      const char *color, const char *tip)
{
    CUDPO_TRY(
        buffer_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"",
                      x, y, width, height, color));
    return tipped(out, "rect", tip);
}

/* The tick behind `value`. */
static double step_of(const plot_axis *a)
{
    const double rough = (a->high - a->low) / 5, power = pow(10, floor(log10(rough)));
    const double digits = rough / power;
    return power * (digits < 1.5 ? 1 : digits < 3.5 ? 2 : digits < 7.5 ? 5 : 10);
}

/* Powers of ten; of two where there is less than a factor of a hundred, or where an axis counts. */
static double factor_of(const plot_axis *a)
{
    return a->high / a->low < 100 ? 2 : a->high / a->low > 5000 || a->low < 1 ? 10 : 4;
}

static double first_of(const plot_axis *a)
{
    if (!a->logarithmic) return ceil(a->low / step_of(a) - 1e-9) * step_of(a);
    const double factor = factor_of(a);
    return pow(factor, ceil(log(a->low) / log(factor) - 1e-9));
}

static cudpo_status ticks(buffer *out, const plot_axis *a, const plot_axis *other, bool horizontal)
{
    static const char *const thin = "stroke=\"#dddddd\"";
    const double end = a->high + (a->high - a->low) * 1e-9;
    for (double v = first_of(a); v <= end; v = a->logarithmic ? v * factor_of(a) : v + step_of(a)) {
        const double at = plot_place(a, v);
        char text[32];
        snprintf(text, sizeof text, "%g", fabs(v) < 1e-12 ? 0 : v);
        if (horizontal) {
            CUDPO_TRY(plot_line(out, at, other->from, at, other->to, thin));
            CUDPO_TRY(plot_text(out, at, other->from + 14, "middle", text));
        } else {
            CUDPO_TRY(plot_line(out, other->from, at, other->to, at, thin));
            CUDPO_TRY(plot_text(out, other->from - 5, at + 4, "end", text));
        }
    }
    return CUDPO_OK;
}

cudpo_status plot_frame(buffer *out, const plot_axis *x, const plot_axis *y, const char *x_name,
                        const char *y_name)
{
    static const char *const black = "stroke=\"black\"";
    CUDPO_TRY(ticks(out, x, y, true));
    CUDPO_TRY(ticks(out, y, x, false));
    CUDPO_TRY(plot_line(out, x->from, y->from, x->to, y->from, black));
    CUDPO_TRY(plot_line(out, x->from, y->from, x->from, y->to, black));
    CUDPO_TRY(plot_text(out, (x->from + x->to) / 2, y->from + 30, "middle", x_name));
    return plot_text(out, x->from - 30, y->to - 8, "start", y_name);
}
