/* test_sink.c - metrics.jsonl and event files, read back byte by byte, also after a run that was killed. */
/* rooms: train */
#include "scratch.h"
#include "base/json.h"
#include "train/sink.h"

#include <dirent.h>
#include <sys/stat.h>

/* CRC-32C, bit by bit: polynomial 0x1EDC6F41 reflected.  Of "123456789" it is 0xE3069283 (RFC 3720, B.4). */
static uint32_t crc32c(const unsigned char *data, size_t n)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    }
    return ~crc;
}

/* TFRecord's mask: rotate right by 15, add a constant. */
static uint32_t masked(const unsigned char *data, size_t n)
{
    const uint32_t crc = crc32c(data, n);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static uint64_t little(const unsigned char *p, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

/* A message of Event: wall_time = 1 (double), step = 2 (varint), file_version = 3 (string), summary = 5; of it, value = 1;
 * of that, tag = 1 (string), simple_value = 2 (float). */
typedef struct event {
    double wall_time;
    int64_t step;
    char version[32], tag[64];
    float value;
} event;

static uint64_t varint(const unsigned char **p, const unsigned char *end)
{
    uint64_t value = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        const unsigned char byte = *(*p)++;
        value |= (uint64_t)(byte & 127) << shift;
        if ((byte & 128) == 0) return value;
    }
    fail_msg("a varint without end");
    return 0;
}

static void text_field(char *out, size_t size, const unsigned char *p, uint64_t n)
{
    assert_true(n < size);
    memcpy(out, p, n);
    out[n] = '\0';
}

/* depth 0: Event, 1: Summary, 2: Value. */
static void parse(event *e, const unsigned char *p, const unsigned char *end, int depth)
{
    while (p < end) {
        const uint64_t key = varint(&p, end), field = key >> 3, wire = key & 7;
        if (wire == 0) {
            const uint64_t value = varint(&p, end);
            if (depth == 0 && field == 2) e->step = (int64_t)value;
        } else if (wire == 1 || wire == 5) {
            const int bytes = wire == 1 ? 8 : 4;
            assert_true(end - p >= bytes);
            const uint64_t bits = little(p, bytes);
            if (wire == 1 && depth == 0 && field == 1)
                memcpy(&e->wall_time, &bits, sizeof e->wall_time);
            const uint32_t low = (uint32_t)bits;
            if (wire == 5 && depth == 2 && field == 2) memcpy(&e->value, &low, sizeof e->value);
            p += bytes;
        } else {
            assert_true(wire == 2);
            const uint64_t n = varint(&p, end);
            assert_true(n <= (uint64_t)(end - p));
            if (depth == 0 && field == 3) text_field(e->version, sizeof e->version, p, n);
            if (depth == 0 && field == 5) parse(e, p, p + n, 1);
            if (depth == 1 && field == 1) parse(e, p, p + n, 2);
            if (depth == 2 && field == 1) text_field(e->tag, sizeof e->tag, p, n);
            p += n;
        }
    }
}

enum { EVENTS = 32 };

static int read_events(event events[EVENTS], const char *path)
{
    char *data = NULL;
    size_t size;
    int n = 0;
    CHECK_OK(file_read(&data, &size, path, 1 << 20));
    const unsigned char *p = (const unsigned char *)data, *end = p + size;
    while (p < end) {
        assert_true(end - p >= 16 && n < EVENTS);
        const uint64_t length = little(p, 8);
        assert_true(little(p + 8, 4) == masked(p, 8));
        assert_true(length <= (uint64_t)(end - p) - 16);
        assert_true(little(p + 12 + length, 4) == masked(p + 12, length));
        events[n] = (event){0};
        parse(&events[n++], p + 12, p + 12 + length, 0);
        p += 16 + length;
    }
    free(data);
    return n;
}

/* The one event file below OUTPUT/runs that is not `other`. */
static void find_events(char path[1024], const char *output, const char *other)
{
    char folder[700];
    path[0] = '\0';
    snprintf(folder, sizeof folder, "%s/runs", output);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (strncmp(e->d_name, "events.out.tfevents.", 20) != 0) continue;
        char found[1024];
        snprintf(found, sizeof found, "%s/%s", folder, e->d_name);
        if (other == NULL || strcmp(found, other) != 0) strcpy(path, found);
    }
    closedir(d);
    assert_true(path[0] != '\0');
}

static void events_hold_every_scalar(void **state)
{
    (void)state;
    assert_true(crc32c((const unsigned char *)"123456789", 9) == 0xe3069283u);
    const metric train[] = {{"loss", 0.6931471805599453}, {"rewards/margins", -1.5}},
                 eval[] = {{"eval_loss", 0.25}, {"eval_rewards/margins", 3.0}};
    char output[640], path[1024];
    metric_sink *s = NULL;
    event events[EVENTS];
    snprintf(output, sizeof output, "%s", scratch_path("events"));
    assert_int_equal(mkdir(output, 0777), 0);
    CHECK_OK(metric_sink_open(&s, output, 0, 300));
    CHECK_OK(metric_sink_log(s, 1, train, 2));
    CHECK_OK(metric_sink_log(s, 300, eval, 2));
    metric_sink_close(s);
    find_events(path, output, NULL);
    const int n = read_events(events, path);
    assert_int_equal(n, 5);
    assert_string_equal(events[0].version, "brain.Event:2");
    static const char *const tags[] = {"train/loss", "train/rewards/margins", "eval/loss",
                                       "eval/rewards/margins"};
    static const float values[] = {0.6931471805599453f, -1.5f, 0.25f, 3.0f};
    for (int i = 0; i < 4; i++) {
        assert_string_equal(events[i + 1].tag, tags[i]);
        assert_true(events[i + 1].value == values[i]);
        assert_int_equal(events[i + 1].step, i < 2 ? 1 : 300);
        assert_true(events[i + 1].wall_time > 1.6e9);
    }
}

static char *lines_of(const char *output)
{
    char path[700], *text = NULL;
    size_t n;
    snprintf(path, sizeof path, "%s/metrics.jsonl", output);
    CHECK_OK(file_read(&text, &n, path, 1 << 20));
    return text;
}

/* Lines past the checkpoint that a run goes on from are made again, and half a line is no line. */
static void resuming_cuts_the_lines(void **state)
{
    (void)state;
    char output[640], path[1024], first[1024];
    metric_sink *s = NULL;
    snprintf(output, sizeof output, "%s", scratch_path("resumed"));
    assert_int_equal(mkdir(output, 0777), 0);
    CHECK_OK(metric_sink_open(&s, output, 0, 9));
    for (int64_t step = 1; step <= 5; step++) {
        const metric m = {"loss", 1.0 / (double)step};
        CHECK_OK(metric_sink_log(s, step, &m, 1));
    }
    CHECK_OK(metric_sink_sync(s));
    metric_sink_close(s);
    find_events(first, output, NULL);
    snprintf(path, sizeof path, "%s/metrics.jsonl", output);
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    fputs("{\"step\": 6, \"lo", f);
    assert_int_equal(fclose(f), 0);
    CHECK_OK(metric_sink_open(&s, output, 3, 9));
    const metric m = {"loss", 7.0};
    CHECK_OK(metric_sink_log(s, 4, &m, 1));
    metric_sink_close(s);
    char *text = lines_of(output), *next = NULL;
    int64_t step = 0;
    for (char *line = strtok_r(text, "\n", &next); line != NULL;
         line = strtok_r(NULL, "\n", &next)) {
        json *tree = NULL;
        CHECK_OK(json_parse(&tree, line, strlen(line), "line"));
        step++;
        assert_true(json_number(json_get(tree, "step")) == (double)step);
        const double want = step == 4 ? 7.0 : 1.0 / (double)step;
        assert_true(json_number(json_get(tree, "loss")) ==
                    want); /* written without loss of a bit */
        assert_non_null(json_get(tree, "time"));
        json_free(tree);
    }
    assert_int_equal(step, 4);
    free(text);
    /* A resumed run has an event file of its own; the first stays. */
    find_events(path, output, first);
    event events[EVENTS];
    assert_int_equal(read_events(events, path), 2);
    assert_int_equal(events[1].step, 4);
}

/* A run that begins anew begins with no lines. */
static void a_new_run_has_no_lines(void **state)
{
    (void)state;
    char output[640];
    metric_sink *s = NULL;
    snprintf(output, sizeof output, "%s", scratch_path("resumed"));
    CHECK_OK(metric_sink_open(&s, output, 0, 9));
    metric_sink_close(s);
    char *text = lines_of(output);
    assert_string_equal(text, "");
    free(text);
}

/* What is not a number has no place in JSON. */
static void not_a_number_is_null(void **state)
{
    (void)state;
    char output[640];
    metric_sink *s = NULL;
    const metric m[] = {{"loss", NAN}, {"grad_norm", INFINITY}};
    snprintf(output, sizeof output, "%s", scratch_path("nan"));
    assert_int_equal(mkdir(output, 0777), 0);
    CHECK_OK(metric_sink_open(&s, output, 0, 9));
    CHECK_OK(metric_sink_log(s, 1, m, 2));
    metric_sink_close(s);
    char *text = lines_of(output);
    assert_non_null(strstr(text, "{\"step\": 1, \"loss\": null, \"grad_norm\": null, "));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_hold_every_scalar),
        cmocka_unit_test(resuming_cuts_the_lines),
        cmocka_unit_test(a_new_run_has_no_lines),
        cmocka_unit_test(not_a_number_is_null),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
