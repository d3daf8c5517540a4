/* test_safetensors.c - the reader's verdict on good, bad and mutilated files; the writer's bytes. */
/* rooms: model */
#include "test.h"
#include "base/file.h"
#include "base/json.h"
#include "model/safetensors.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/cudpo-safetensors-XXXXXX";
static char path[4200];

static const char *in_folder(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_folder(folder) != CUDPO_OK;
}

/* Files are rewritten thousands of times here, so without file_write()'s fsync. */
static void put_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A file of a header and `data_bytes` bytes 0, 1, 2, ... */
static size_t build(unsigned char *out, const char *header, size_t data_bytes)
{
    const size_t n = strlen(header);
    for (int i = 0; i < 8; i++)
        out[i] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(out + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++)
        out[8 + n + i] = (unsigned char)i;
    return 8 + n + data_bytes;
}

static cudpo_status open_header(safetensors **st, const char *header, size_t data_bytes)
{
    unsigned char file[2048];
    put_file("h.safetensors", file, build(file, header, data_bytes));
    return safetensors_open(st, in_folder("h.safetensors"));
}

/* Read every tensor that can be loaded, so that a lie in the header would show as a bad read. */
static void read_all(const safetensors *st)
{
    for (int64_t i = 0; i < safetensors_count(st); i++) {
        const safetensors_entry *e = safetensors_at(st, i);
        assert_ptr_equal(safetensors_find(st, e->name), e);
        const int64_t n = safetensors_elements(e);
        if (!e->supported || n == 0) continue;
        float *data = malloc((size_t)n * sizeof *data);
        assert_non_null(data);
        CHECK_OK(safetensors_read(st, e, data, 0, n));
        free(data);
    }
}

/* One vector of the manifest, and a word that our reason for refusing it must have. */
static const struct verdict {
    const char *error, *word;
} verdicts[] = {
    {"HeaderTooSmall", "too small"},
    {"HeaderTooLarge", "at most"},
    {"InvalidHeaderLength", "truncated"},
    {"InvalidHeader", "UTF-8"},
    {"InvalidHeaderDeserialization", ""},
    {"InvalidOffset", "offsets"},
    {"MetadataIncompleteBuffer", "bytes"},
    {"MisalignedSlice", "fill bytes"},
    {"TensorInvalidInfo", "span"},
    {"ValidationOverflow", "overflow"},
    {"duplicate", "duplicate"},
};

static void check_vector(const json *v)
{
    char name[300];
    snprintf(name, sizeof name, "safetensors-vectors/%s", json_string(json_get(v, "file")));
    const char *file = test_data(name);
    assert_non_null(file);
    safetensors *st = NULL;
    cudpo_error_clear();
    const cudpo_status status = safetensors_open(&st, file);
    if (json_bool(json_get(v, "valid"))) {
        if (status != CUDPO_OK) fail_msg("%s: %s", name, cudpo_error_message());
        read_all(st);
    } else {
        if (status != CUDPO_EDATA) fail_msg("%s: status %d", name, (int)status);
        assert_null(st);
        const char *error = json_string(json_get(v, "error")), *word = NULL;
        for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++) {
            if (strcmp(verdicts[i].error, error) == 0) word = verdicts[i].word;
        }
        if (strcmp(error, "InvalidHeader") == 0)
            word = "not valid JSON"; /* bytes that are no text */
        assert_non_null(word);
        if (strstr(cudpo_error_message(), word) == NULL)
            fail_msg("%s: \"%s\" without \"%s\"", name, cudpo_error_message(), word);
    }
    safetensors_close(st);
}

static void vectors_get_the_verdict_of_the_manifest(void **state)
{
    (void)state;
    const char *manifest = test_data("safetensors-vectors/manifest.json");
    if (manifest == NULL) skip();
    json *root = NULL;
    CHECK_OK(json_load(&root, manifest, 1 << 20));
    assert_true(json_count(root) >= 33);
    for (const json *v = json_first(root); v != NULL; v = json_next(v))
        check_vector(v);
    json_free(root);
}

#define T(dtype, shape, begin, end) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

/* Headers that the manifest has no file for. */
static void hostile_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header, *word;
        size_t bytes;
    } cases[] = {
        {"[]", "must be an object", 0},
        {"null", "must be an object", 0},
        {"", "not valid JSON", 0},
        {"\xef\xbb\xbf{}", "not valid JSON", 0},
        {"{}x", "not valid JSON", 0},
        {"{}", "trailing", 1},
        {"{\"a\":1}", "must be an object", 0},
        {"{\"a\":[]}", "must be an object", 0},
        {"{\"a\":" T("F32", "[1]", "0", "8") "}", "span", 8},
        {"{\"a\":" T("F32", "[01]", "0", "4") "}", "not valid JSON", 4},
        {"{\"a\":" T("F32", "[1e0]", "0", "4") "}", "integers", 4},
        {"{\"a\":" T("F32", "[-0]", "0", "4") "}", "integers", 4},
        {"{\"a\":" T("F32", "[\"1\"]", "0", "4") "}", "integers", 4},
        {"{\"a\":" T("F32", "[[1]]", "0", "4") "}", "integers", 4},
        {"{\"a\":" T("F32", "1", "0", "4") "}", "list", 4},
        {"{\"a\":" T("F32", "null", "0", "4") "}", "list", 4},
        {"{\"a\":" T("F32", "[1]", "0", "4.0") "}", "integers", 4},
        {"{\"a\":" T("F32", "[18446744073709551616]", "0", "4") "}", "integers", 4},
        {"{\"a\":" T("F32", "[9223372036854775808]", "0", "4") "}", "overflow", 4},
        {"{\"a\":" T("U8", "[4294967296,4294967296]", "0", "0") "}", "overflow", 0},
        {"{\"a\":" T("U8", "[4194305,4194305,211106198978564]", "0", "4") "}", "overflow", 4},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", "more than 8", 4},
        {"{\"a\":" T("f32", "[1]", "0", "4") "}", "unknown dtype", 4},
        {"{\"a\":" T("F\\u0033\\u0032x", "[1]", "0", "4") "}", "unknown dtype \"F32x\"", 4},
        {"{\"a\":" T("F4", "[1]", "0", "1") "}", "fill bytes", 1},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", "string", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "two numbers", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,2,4]}}", "more than 2", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         "twice", 4},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", "needs", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "needs", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "needs", 4},
        {"{\"a\":" T("F32", "[1]", "0", "4") ",\"b\":" T("F32", "[1]", "0", "4") "}", "offsets", 4},
        {"{\"a\":" T("F32", "[1]", "18446744073709551612", "0") "}", "offsets", 4},
        {"{\"a\":" T("F32", "[1]", "0", "4") ",\"\\u0061\":" T("F32", "[1]", "4", "8") "}",
         "duplicate", 8},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "twice", 0},
        {"{\"__metadata__\":[]}", "object", 0},
        {"{\"__metadata__\":{\"k\":\"v\",\"a\":\"\",\"\\u006b\":\"v\"}}", "\"k\" stands twice", 0},
        {"{\"__metadata__\":{\"k\":null}}", "string", 0},
        {"{\"__metadata__\":{\"k\":{}}}", "string", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        safetensors *st = NULL;
        cudpo_error_clear();
        if (open_header(&st, cases[i].header, cases[i].bytes) != CUDPO_EDATA)
            fail_msg("%s: not refused", cases[i].header);
        if (strstr(cudpo_error_message(), cases[i].word) == NULL)
            fail_msg("%s: \"%s\" without \"%s\"", cases[i].header, cudpo_error_message(),
                     cases[i].word);
    }
    cudpo_error_clear();
}

static void odd_headers_are_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t bytes;
    } cases[] = {
        {"{\"__metadata__\":null}", 0},
        {" \n\t\r{ \"a\" : " T("F32", "[ 1 , 1 ]", " 0 ", " 4 ") " } \n", 4},
        {"{\"a\":{\"extra\":[{\"x\":\"]}\\\"\"},-1.5e3,true],\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[0,4]}}",
         4},
        {"{\"a\":" T("F32", "[4611686018427387904,2,0]", "0", "0") "}", 0},
        {"{\"a\":" T("F4", "[2]", "0", "1") "}", 1},
        {"{\"\":" T("F32", "[]", "0", "4") "}", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        safetensors *st = NULL;
        if (open_header(&st, cases[i].header, cases[i].bytes) != CUDPO_OK)
            fail_msg("%s: %s", cases[i].header, cudpo_error_message());
        read_all(st);
        safetensors_close(st);
    }
}

static void names_and_metadata_are_decoded(void **state)
{
    (void)state;
    safetensors *st = NULL;
    CHECK_OK(open_header(&st,
                         "{\"__metadata__\":{\"for\\u006dat\":\"p\\tt\",\"e\":\"\"},"
                         "\"z\\u00e9\\ud83d\\ude00\\u20ac\\\"\\/\":" T(
                             "BF16", "[2]", "4", "8") ","
                                                      "\"a\":" T("F32", "[1]", "0", "4") "}",
                         8));
    assert_string_equal(safetensors_metadata(st, "format"), "p\tt");
    assert_string_equal(safetensors_metadata(st, "e"), "");
    assert_null(safetensors_metadata(st, "none"));
    assert_string_equal(safetensors_at(st, 0)->name, "a"); /* by offset */
    const safetensors_entry *e = safetensors_find(st, "z\xc3\xa9\xf0\x9f\x98\x80\xe2\x82\xac\"/");
    assert_non_null(e);
    assert_string_equal(e->type_name, "BF16");
    assert_int_equal(e->end - e->begin, 4);
    assert_null(safetensors_find(st, "b"));
    assert_null(safetensors_at(st, 2));
    safetensors_close(st);
}

static void other_types_and_ranges_are_refused(void **state)
{
    (void)state;
    safetensors *st = NULL;
    float out[4];
    CHECK_OK(open_header(
        &st, "{\"i\":" T("I32", "[2]", "0", "8") ",\"f\":" T("F32", "[2]", "8", "16") "}", 16));
    CHECK_FAILS(safetensors_read(st, safetensors_find(st, "i"), out, 0, 1), CUDPO_EDATA,
                "h.safetensors: i: elements of type I32");
    const safetensors_entry *f = safetensors_find(st, "f");
    CHECK_FAILS(safetensors_read(st, f, out, 0, 3), CUDPO_EINVAL, "need");
    CHECK_FAILS(safetensors_read(st, f, out, 3, 0), CUDPO_EINVAL, "need");
    CHECK_FAILS(safetensors_read(st, f, out, -1, 1), CUDPO_EINVAL, "need");
    CHECK_OK(safetensors_read(st, f, out, 2, 0));
    safetensors_close(st);
}

static void files_that_are_none_are_refused(void **state)
{
    (void)state;
    safetensors *st = NULL;
    CHECK_FAILS(safetensors_open(&st, in_folder("absent")), CUDPO_ENOINPUT, "absent");
    CHECK_FAILS(safetensors_open(&st, folder), CUDPO_EDATA, "not a regular file");
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    CHECK_FAILS(safetensors_open(&st, in_folder("fifo")), CUDPO_EDATA, "not a regular file");
}

static void a_file_that_changes_is_an_error(void **state)
{
    (void)state;
    safetensors *st = NULL;
    float out[2];
    CHECK_OK(open_header(&st, "{\"f\":" T("F32", "[2]", "0", "8") "}", 8));
    const safetensors_entry *f = safetensors_find(st, "f");
    assert_int_equal(truncate(in_folder("h.safetensors"), 20), 0);
    CHECK_FAILS(safetensors_read(st, f, out, 0, 2), CUDPO_EDATA, "changed its size");
    safetensors_close(st);
}

/* Three small valid files: several types, metadata, a scalar and an empty tensor. */
static const struct {
    const char *header;
    size_t bytes;
} small[] = {
    {"{\"a\":" T("F32", "[2,2]", "0", "16") "}", 16},
    {"{\"__metadata__\":{\"format\":\"pt\"},\"b\\u0041\":" T("BF16", "[3]", "0", "6") ",\"s\":" T(
         "F16", "[]", "6", "8") "}  ",
     8},
    {"{\"y\":" T("U8", "[3]", "4", "7") ",\"e\":" T("F32", "[0,5]", "4",
                                                    "4") ",\"x\":" T("F32", "[1]", "0", "4") "}",
     7},
};
enum { SMALL = sizeof small / sizeof small[0] };

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (int k = 0; k < SMALL; k++) {
        unsigned char file[512];
        const size_t n = build(file, small[k].header, small[k].bytes);
        for (size_t m = 0; m <= n; m++) {
            put_file("t.safetensors", file, m);
            safetensors *st = NULL;
            const cudpo_status status = safetensors_open(&st, in_folder("t.safetensors"));
            if (status != (m == n ? CUDPO_OK : CUDPO_EDATA))
                fail_msg("file %d cut to %zu of %zu bytes: status %d", k, m, n, (int)status);
            safetensors_close(st);
            cudpo_error_clear();
        }
    }
}

/* Any outcome but a crash, a hang or a tensor outside the file; a changed byte of data is not seen. */
static void no_mutation_of_a_byte_harms(void **state)
{
    (void)state;
    int refused = 0, accepted = 0;
    for (int k = 0; k < SMALL; k++) {
        unsigned char file[512];
        const size_t n = build(file, small[k].header, small[k].bytes);
        put_file("m.safetensors", file, n);
        const int fd =
            open(in_folder("m.safetensors"), O_WRONLY); /* changed in place: much faster */
        for (size_t at = 0; at < n; at++) {
            const unsigned char old = file[at];
            for (int value = 0; value < 256; value++) {
                if (value == old) continue;
                const unsigned char byte = (unsigned char)value;
                assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
                safetensors *st = NULL;
                const cudpo_status status = safetensors_open(&st, in_folder("m.safetensors"));
                assert_true(status == CUDPO_OK || status == CUDPO_EDATA);
                if (status == CUDPO_OK) read_all(st);
                if (at >= n - small[k].bytes) assert_int_equal(status, CUDPO_OK);
                if (at < 8) assert_int_equal(status, CUDPO_EDATA);
                status == CUDPO_OK ? accepted++ : refused++;
                safetensors_close(st);
                cudpo_error_clear();
            }
            assert_int_equal(pwrite(fd, &old, 1, (off_t)at), 1);
        }
        close(fd);
    }
    assert_true(refused > 1000 && accepted > 1000);
}

/* Deep nesting and many tensors: both are bounded, and the second is not quadratic. */
static void large_headers_are_read_in_time(void **state)
{
    (void)state;
    enum { DEEP = 100000, MANY = 100000 };
    char *text = malloc(MANY * 80 + 100);
    assert_non_null(text);
    memset(text + 8, '[', DEEP);
    const uint64_t deep = DEEP;
    memcpy(text, &deep, 8);
    put_file("deep.safetensors", text, 8 + DEEP);
    safetensors *st = NULL;
    CHECK_FAILS(safetensors_open(&st, in_folder("deep.safetensors")), CUDPO_EDATA, "nested");
    size_t n = 8;
    for (int i = 0; i < MANY; i++)
        n +=
            (size_t)sprintf(text + n, "%c\"t%d\":" T("U8", "[0]", "0", "0"), i == 0 ? '{' : ',', i);
    text[n++] = '}';
    const uint64_t length = n - 8;
    memcpy(text, &length, 8);
    put_file("many.safetensors", text, n);
    CHECK_OK(safetensors_open(&st, in_folder("many.safetensors")));
    assert_int_equal(safetensors_count(st), MANY);
    assert_non_null(safetensors_find(st, "t77777"));
    safetensors_close(st);
    free(text);
}

static const float values[] = {0.0f, -0.0f, 1.0f, -2.5f, 1e-45f, -1e-40f, 3.4e38f, INFINITY};

static void f32_survives_bit_for_bit(void **state)
{
    (void)state;
    float data[10];
    memcpy(data, values, sizeof values);
    const uint32_t nans[2] = {0x7fc12345, 0xff800001}; /* a payload, and a signalling NaN */
    memcpy(&data[8], nans, sizeof nans);
    const safetensors_plan plan[] = {
        {.name = "w", .type = DTYPE_F32, .rank = 2, .shape = {5, 2}},
        {.name = "empty", .type = DTYPE_F32, .rank = 2, .shape = {0, 7}},
        {.name = "a \"quoted\"\n\xc3\xa9", .type = DTYPE_F32, .rank = 0},
    };
    const char *const metadata[] = {"format", "pt", "k\"", "v\\", NULL};
    safetensors_writer *w = NULL;
    CHECK_OK(safetensors_create(&w, in_folder("w.safetensors"), plan, 3, metadata));
    assert_int_equal(safetensors_writer_next(w), 2); /* by name; "empty" needs no elements */
    CHECK_OK(safetensors_writer_put(w, &values[3], 1));
    assert_int_equal(safetensors_writer_next(w), 0);
    CHECK_FAILS(safetensors_writer_put(w, data, 11), CUDPO_EINVAL, "need");
    CHECK_OK(safetensors_writer_put(w, data, 3));
    CHECK_OK(safetensors_writer_put(w, data + 3, 7));
    assert_int_equal(safetensors_writer_next(w), -1);
    assert_int_equal(access(in_folder("w.safetensors"), F_OK), -1); /* not before the commit */
    CHECK_OK(safetensors_writer_commit(w));
    safetensors *st = NULL;
    CHECK_OK(safetensors_open(&st, in_folder("w.safetensors")));
    assert_string_equal(safetensors_metadata(st, "format"), "pt");
    assert_string_equal(safetensors_metadata(st, "k\""), "v\\");
    const safetensors_entry *e = safetensors_find(st, "w");
    assert_non_null(e);
    assert_int_equal(e->begin % 4, 0);
    assert_true(e->rank == 2 && e->shape[0] == 5 && e->shape[1] == 2);
    float back[10];
    CHECK_OK(safetensors_read(st, e, back, 0, 10));
    assert_memory_equal(back, data, sizeof data);
    CHECK_OK(safetensors_read(st, e, back, 4, 3));
    assert_memory_equal(back, data + 4, 3 * sizeof *data);
    CHECK_OK(safetensors_read(st, safetensors_find(st, plan[2].name), back, 0, 1));
    CHECK_NEAR(back[0], -2.5, 0);
    safetensors_close(st);
}

static void types_are_ordered_by_alignment(void **state)
{
    (void)state;
    const safetensors_plan plan[] = {
        {.name = "a", .type = DTYPE_BF16, .rank = 1, .shape = {1}},
        {.name = "b", .type = DTYPE_F16, .rank = 1, .shape = {1}},
        {.name = "z", .type = DTYPE_F32, .rank = 1, .shape = {1}},
    };
    safetensors_writer *w = NULL;
    CHECK_OK(safetensors_create(&w, in_folder("o.safetensors"), plan, 3, NULL));
    for (int64_t i; (i = safetensors_writer_next(w)) >= 0;) {
        const float value = (float)i + 0.5f;
        CHECK_OK(safetensors_writer_put(w, &value, 1));
    }
    CHECK_OK(safetensors_writer_commit(w));
    safetensors *st = NULL;
    CHECK_OK(safetensors_open(&st, in_folder("o.safetensors")));
    assert_string_equal(safetensors_at(st, 0)->name, "z");
    for (int i = 0; i < 3; i++) {
        float value = NAN;
        CHECK_OK(safetensors_read(st, safetensors_find(st, plan[i].name), &value, 0, 1));
        CHECK_NEAR(value, i + 0.5, 0);
    }
    safetensors_close(st);
}

static void incomplete_or_overflowing_files_do_not_appear(void **state)
{
    (void)state;
    safetensors_plan plan = {.name = "big", .type = DTYPE_F16, .rank = 1, .shape = {2}};
    const float most[2] = {65504.0f, 65519.0f}, over[2] = {1.0f, 65520.0f};
    safetensors_writer *w = NULL;
    CHECK_OK(safetensors_create(&w, in_folder("f.safetensors"), &plan, 1, NULL));
    CHECK_OK(safetensors_writer_put(w, most, 1));
    CHECK_FAILS(safetensors_writer_commit(w), CUDPO_EINVAL, "missing");
    CHECK_OK(safetensors_create(&w, in_folder("f.safetensors"), &plan, 1, NULL));
    CHECK_FAILS(safetensors_writer_put(w, over, 2), CUDPO_ENUMERIC, "f.safetensors: big: ");
    safetensors_writer_abandon(w);
    plan.type = DTYPE_BF16;
    const float largest[2] = {INFINITY, 3.4028235e38f}; /* Inf may stay; FLT_MAX rounds up to it */
    CHECK_OK(safetensors_create(&w, in_folder("f.safetensors"), &plan, 1, NULL));
    CHECK_OK(safetensors_writer_put(w, largest, 1));
    CHECK_FAILS(safetensors_writer_put(w, largest + 1, 1), CUDPO_ENUMERIC, "bfloat16");
    safetensors_writer_abandon(w);
    assert_int_equal(access(in_folder("f.safetensors"), F_OK), -1);
    assert_int_equal(access(in_folder("f.safetensors.tmp"), F_OK), -1);
    CHECK_FAILS(safetensors_create(&w, in_folder("no/such/f"), &plan, 1, NULL), CUDPO_EWRITE,
                "no/such");
    assert_null(w);
    safetensors_writer_abandon(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_get_the_verdict_of_the_manifest),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(odd_headers_are_accepted),
        cmocka_unit_test(names_and_metadata_are_decoded),
        cmocka_unit_test(other_types_and_ranges_are_refused),
        cmocka_unit_test(files_that_are_none_are_refused),
        cmocka_unit_test(a_file_that_changes_is_an_error),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(no_mutation_of_a_byte_harms),
        cmocka_unit_test(large_headers_are_read_in_time),
        cmocka_unit_test(f32_survives_bit_for_bit),
        cmocka_unit_test(types_are_ordered_by_alignment),
        cmocka_unit_test(incomplete_or_overflowing_files_do_not_appear),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
