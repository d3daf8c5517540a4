/* progress.c - redraws its line with a carriage return. */
#include "train/progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void progress_begin(progress *p, int64_t first_step, int64_t total_steps)
{
    const char *term = getenv("TERM");
    *p = (progress){.first_step = first_step, .total_steps = total_steps, .begin = now()};
    p->live =
        isatty(STDERR_FILENO) && getenv("CI") == NULL && term != NULL && strcmp(term, "dumb") != 0;
}

double progress_rate(const progress *p)
{
    const double seconds = now() - p->begin;
    return seconds > 0.0 ? (double)p->units / seconds : 0.0;
}

static int columns(void)
{
    const char *text = getenv("COLUMNS");
    const int n = text == NULL ? 0 : atoi(text);
    return n >= 20 ? n : 80;
}

void progress_step(progress *p, int64_t step, double loss, double accuracy, int64_t units)
{
    p->units += units;
    if (!p->live) return;
    const double t = now();
    if (t - p->last_draw < 0.1 && step < p->total_steps) return;
    p->last_draw = t;
    const double per_step = (t - p->begin) / (double)(step - p->first_step);
    const int64_t left = (int64_t)(per_step * (double)(p->total_steps - step) + 0.5);
    char accuracy_text[32] = "", line[256];
    if (!isnan(accuracy))
        snprintf(accuracy_text, sizeof accuracy_text, "  accuracy %.3f", accuracy);
    snprintf(line, sizeof line, "step %lld/%lld  loss %.4f%s  %.1f/s  %lld:%02lld:%02lld left",
             (long long)step, (long long)p->total_steps, loss, accuracy_text, progress_rate(p),
             (long long)(left / 3600), (long long)(left / 60 % 60), (long long)(left % 60));
    fprintf(stderr, "\r%-*.*s", columns() - 1, columns() - 1, line);
    fflush(stderr);
    p->drawn = true;
}

void progress_clear(progress *p)
{
    if (!p->drawn) return;
    fprintf(stderr, "\r%*s\r", columns() - 1, "");
    p->drawn = false;
}
