/* calibration.c - the file of measured rates: strictly read, and written. */
#include "base/json.h"
#include "plan/rates.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define FORMAT "cudpo calibration 1"

/* Keys of a device whose values are numbers. */
static const struct {
    const char *key;
    size_t field;
    double unit;
} numbers[] = {{"copy_gbps", offsetof(device_rates, copy), 1e9},
               {"elementwise_gbps", offsetof(device_rates, elementwise), 1e9},
               {"head_gbps", offsetof(device_rates, head), 1e9},
               {"adamw_gbps", offsetof(device_rates, adamw), 1e9},
               {"launch_us", offsetof(device_rates, launch), 1e-6},
               {"network_bus_gbps", offsetof(device_rates, bus), 1e9}};
static const double longest_launch = 1e-3; /* seconds */
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

static double *field(device_rates *r, size_t at)
{
    return (double *)((char *)r + at);
}

static cudpo_status wrong(const char *path, const char *device, const char *key, const char *what)
{
    return cudpo_fail(CUDPO_EDATA, path, "%s: %s: %s", device, key, what);
}

static cudpo_status read_number(double *out, const json *value, double unit, const char *path,
                                const char *device)
{
    if (json_type(value) != JSON_NUMBER || !(json_number(value) > 0))
        return wrong(path, device, json_key(value), "must be a number above 0");
    *out = json_number(value) * unit;
    if (strcmp(json_key(value), "launch_us") == 0 && *out > longest_launch)
        return wrong(path, device, json_key(value),
                     "no launch takes a millisecond: measure it again");
    return CUDPO_OK;
}

static cudpo_status unknown(const json *value, const char *path, const char *device)
{
    return wrong(path, device, json_key(value), "is no key of a calibration");
}

static cudpo_status read_gemm(device_rates *r, const json *object, const char *path,
                              const char *device)
{
    if (json_type(object) != JSON_OBJECT)
        return wrong(path, device, json_key(object), "must be an object of bfloat16 and float32");
    for (const json *v = json_first(object); v != NULL; v = json_next(v)) {
        const bool half = strcmp(json_key(v), "bfloat16") == 0;
        if (!half && strcmp(json_key(v), "float32") != 0) return unknown(v, path, device);
        CUDPO_TRY(read_number(half ? &r->gemm_bf16 : &r->gemm_f32, v, 1e12, path, device));
    }
    return CUDPO_OK;
}

static cudpo_status read_passes(device_rates *r, const json *object, int column, const char *path,
                                const char *device)
{
    if (json_type(object) != JSON_OBJECT)
        return wrong(path, device, json_key(object), "must be an object of forward and backward");
    for (const json *v = json_first(object); v != NULL; v = json_next(v)) {
        const bool forward = strcmp(json_key(v), "forward") == 0;
        if (!forward && strcmp(json_key(v), "backward") != 0) return unknown(v, path, device);
        CUDPO_TRY(read_number(forward ? &r->attention[column] : &r->attention_backward[column], v,
                              1e12, path, device));
    }
    return CUDPO_OK;
}

static cudpo_status read_attention(device_rates *r, const json *object, const char *path,
                                   const char *device)
{
    if (json_type(object) != JSON_OBJECT)
        return wrong(path, device, json_key(object), "must be an object of head dims");
    for (const json *v = json_first(object); v != NULL; v = json_next(v)) {
        int column = 0;
        char digits[16];
        for (; column < RATE_HEAD_DIMS; column++) {
            snprintf(digits, sizeof digits, "%d", rates_head_dim(column));
            if (strcmp(json_key(v), digits) == 0) break;
        }
        if (column == RATE_HEAD_DIMS)
            return wrong(path, device, json_key(v), "is none of the head dims 64, 96, 128, 256");
        CUDPO_TRY(read_passes(r, v, column, path, device));
    }
    return CUDPO_OK;
}

static cudpo_status read_device(device_rates *r, const json *object, const char *path)
{
    const char *device = json_key(object);
    if (json_type(object) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, path, "%s: must be an object", device);
    for (const json *v = json_first(object); v != NULL; v = json_next(v)) {
        const char *key = json_key(v);
        int i = 0;
        while (i < NUMBERS && strcmp(numbers[i].key, key) != 0)
            i++;
        if (i < NUMBERS)
            CUDPO_TRY(read_number(field(r, numbers[i].field), v, numbers[i].unit, path, device));
        else if (strcmp(key, "gemm_tflops") == 0)
            CUDPO_TRY(read_gemm(r, v, path, device));
        else if (strcmp(key, "attention_tflops") == 0)
            CUDPO_TRY(read_attention(r, v, path, device));
        else if (strcmp(key, "about") != 0)
            return unknown(v, path, device);
    }
    return CUDPO_OK;
}

static cudpo_status read_file(device_rates *r, bool *found, const json *file, const char *path,
                              const gpu_facts *gpu)
{
    const json *format = json_type(file) == JSON_OBJECT ? json_get(file, "format") : NULL;
    if (format == NULL || json_type(format) != JSON_STRING ||
        strcmp(json_string(format), FORMAT) != 0)
        return cudpo_fail(CUDPO_EDATA, path, "is no calibration: format must be \"%s\"", FORMAT);
    const json *devices = json_get(file, "devices");
    if (devices == NULL || json_type(devices) != JSON_OBJECT)
        return cudpo_fail(CUDPO_EDATA, path, "devices must be an object");
    for (const json *v = json_first(devices); v != NULL; v = json_next(v)) {
        device_rates other = {0};
        const bool is = gpu_is(gpu, json_key(v));
        CUDPO_TRY(read_device(is ? r : &other, v, path)); /* all are checked */
        *found = *found || is;
    }
    return CUDPO_OK;
}

cudpo_status rates_load(device_rates *r, bool *found, const char *path, const gpu_facts *gpu)
{
    json *file = NULL;
    *found = false;
    CUDPO_TRY(json_load(&file, path, (size_t)1 << 20));
    const cudpo_status status = read_file(r, found, file, path, gpu);
    json_free(file);
    return status;
}

static cudpo_status put(buffer *b, const char *key, double value)
{
    if (value == 0) return CUDPO_OK;
    CUDPO_TRY(buffer_printf(b, ",\n      \"%s\": ", key));
    return buffer_json_number(b, value);
}

/* "a": x and "b": y in an object, of those that are not 0. */
static cudpo_status put_two(buffer *b, const char *key, const char *first, double x,
                            const char *second, double y)
{
    if (x == 0 && y == 0) return CUDPO_OK;
    CUDPO_TRY(buffer_printf(b, "\"%s\": {", key));
    if (x != 0) {
        CUDPO_TRY(buffer_printf(b, "\"%s\": ", first));
        CUDPO_TRY(buffer_json_number(b, x));
    }
    if (y != 0) {
        CUDPO_TRY(buffer_printf(b, "%s\"%s\": ", x != 0 ? ", " : "", second));
        CUDPO_TRY(buffer_json_number(b, y));
    }
    return buffer_printf(b, "}");
}

static cudpo_status print_attention(buffer *b, const device_rates *r)
{
    bool any = false;
    for (int i = 0; i < RATE_HEAD_DIMS; i++) {
        char key[16];
        if (r->attention[i] == 0 && r->attention_backward[i] == 0) continue;
        CUDPO_TRY(buffer_printf(b, "%s", any ? ", " : ",\n      \"attention_tflops\": {"));
        snprintf(key, sizeof key, "%d", rates_head_dim(i));
        CUDPO_TRY(put_two(b, key, "forward", r->attention[i] * 1e-12, "backward",
                          r->attention_backward[i] * 1e-12));
        any = true;
    }
    return any ? buffer_printf(b, "}") : CUDPO_OK;
}

cudpo_status rates_print(buffer *b, const device_rates *rates, const char *device,
                         const char *about)
{
    device_rates r = *rates;
    CUDPO_TRY(buffer_printf(b, "{\n  \"format\": \"%s\",\n  \"devices\": {\n    ", FORMAT));
    CUDPO_TRY(buffer_json_string(b, device, strlen(device)));
    CUDPO_TRY(buffer_printf(b, ": {\n      \"about\": "));
    CUDPO_TRY(buffer_json_string(b, about, strlen(about)));
    for (int i = 0; i < NUMBERS; i++)
        CUDPO_TRY(put(b, numbers[i].key, *field(&r, numbers[i].field) / numbers[i].unit));
    if (r.gemm_bf16 != 0 || r.gemm_f32 != 0) {
        CUDPO_TRY(buffer_printf(b, ",\n      "));
        CUDPO_TRY(put_two(b, "gemm_tflops", "bfloat16", r.gemm_bf16 * 1e-12, "float32",
                          r.gemm_f32 * 1e-12));
    }
    CUDPO_TRY(print_attention(b, &r));
    return buffer_printf(b, "\n    }\n  }\n}\n");
}
