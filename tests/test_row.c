/* test_row.c - preference files row by row: every layout, every form of row, and the message for every fault. */
/* rooms: data base */
#include "test.h"
#include "scratch.h"
#include "base/buffer.h"
#include "data/row.h"

#include <sys/stat.h>
#include <zlib.h>

/* gzip of n bytes, to be freed; `level` as of zlib. */
static void *gzip(size_t *out, const void *data, size_t n)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)n};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    const size_t bound = deflateBound(&z, (uLong)n);
    z.next_out = malloc(bound);
    z.avail_out = (uInt)bound;
    void *packed = z.next_out;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *out = z.total_out;
    deflateEnd(&z);
    return packed;
}

static const char *write_gzip(const char *name, const char *text)
{
    size_t n = 0;
    void *packed = gzip(&n, text, strlen(text));
    const char *path = scratch_write(name, packed, n);
    free(packed);
    return path;
}

/* All rows as "prompt|chosen|rejected@line;" or "prompt|completion|yes@line;" in a buffer. */
static cudpo_status read_all(buffer *out, const char *path)
{
    row_reader *r = NULL;
    preference_row row;
    bool done = false;
    int64_t rows = 0;
    buffer_clear(out);
    CUDPO_TRY(buffer_append(out, "", 0));
    cudpo_status status = row_reader_open(&r, path);
    while (status == CUDPO_OK) {
        status = row_reader_next(r, &row, &done);
        if (status != CUDPO_OK || done) break;
        assert_int_equal(row.index, rows++);
        assert_true((row.kind == ROW_PAIR) == (row.rejected != NULL));
        const char *label = !row.labelled ? "-" : row.label ? "yes" : "no";
        status = buffer_printf(out, "%s|%s|%s@%d;", row.prompt, row.chosen,
                               row.kind == ROW_PAIR ? row.rejected : label, (int)row.line);
    }
    if (status == CUDPO_OK) { /* the end stays the end */
        CHECK_OK(row_reader_next(r, &row, &done));
        assert_true(done);
    }
    row_reader_close(r);
    return status;
}

static void check_rows(const char *text, const char *want)
{
    buffer got = {0};
    for (int packed = 0; packed < 2; packed++) {
        CHECK_OK(read_all(&got, packed ? write_gzip("rows", text) : scratch_text("rows", text)));
        assert_string_equal(got.data, want);
    }
    buffer_free(&got);
}

static void check_fault(const char *text, const char *message)
{
    buffer got = {0};
    CHECK_FAILS(read_all(&got, scratch_text("rows", text)), CUDPO_EDATA, message);
    CHECK_FAILS(read_all(&got, write_gzip("rows", text)), CUDPO_EDATA, message);
    buffer_free(&got);
}

#define PAIR(p, c, r) "{\"prompt\":\"" p "\",\"chosen\":\"" c "\",\"rejected\":\"" r "\"}"
#define LABELLED(p, c, l) "{\"prompt\":\"" p "\",\"completion\":\"" c "\",\"label\":" l "}"
#define IMPLICIT(c, r) "{\"chosen\":\"" c "\",\"rejected\":\"" r "\"}"
#define BOM "\xef\xbb\xbf"

static void layouts(void **state)
{
    (void)state;
    check_rows(PAIR("a", "b", "c") "\n" PAIR("d", "e", "f") "\n", "a|b|c@1;d|e|f@2;");
    check_rows(PAIR("a", "b", "c") "\n" PAIR("d", "e", "f"), "a|b|c@1;d|e|f@2;");
    check_rows(PAIR("a", "b", "c") "\r\n" PAIR("d", "e", "f") "\r\n", "a|b|c@1;d|e|f@2;");
    check_rows(BOM PAIR("a", "b", "c") "\n", "a|b|c@1;");
    check_rows("\n \t\r\n" PAIR("a", "b", "c") "\n\n\r\n" PAIR("d", "e", "f") "\n\n  ",
               "a|b|c@3;d|e|f@6;");
    check_rows("[" PAIR("a", "b", "c") "," PAIR("d", "e", "f") "]", "a|b|c@1;d|e|f@1;");
    check_rows(BOM "\n [\n\n" PAIR("a", "b", "c") "\n,\n" PAIR("d", "e", "f") "\n]\n \n",
               "a|b|c@4;d|e|f@6;");
    check_rows("[\n{\n\"prompt\":\n\"a\",\r\n \"chosen\": \"b\",\n\"rejected\":\"c\"\n},\n" PAIR(
                   "d", "e", "f") "]",
               "a|b|c@2;d|e|f@8;");
    /* Brackets, commas and quotes in strings are text. */
    check_rows("[" PAIR("]}", "\\\"},{\\\\", "[{,") "," PAIR("d\\\\", "e", "\\\\\\\"") "]",
               "]}|\"},{\\|[{,@1;d\\|e|\\\"@1;");
    check_rows("{\"x\":[{\"y\":[1,{}]},\"]\"],\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\","
               "\"label\":null}\n",
               "a|b|c@1;");
}

static void forms(void **state)
{
    (void)state;
    check_rows(LABELLED("a", "b", "true") "\n" LABELLED("", "", "false"), "a|b|yes@1;||no@2;");
    check_rows("{\"prompt\":\"a\",\"completion\":\"b\"}", "a|b|-@1;");
    check_rows(PAIR("", "", ""), "||@1;");
    check_rows(PAIR("\\u00e9\\ud83d\\ude00", "\\n\\t", "\\/"),
               "\xc3\xa9\xf0\x9f\x98\x80|\n\t|/@1;");
    /* Where both are there, a pair is meant, as TRL has it. */
    check_rows(
        "{\"prompt\":\"a\",\"completion\":\"x\",\"label\":true,\"chosen\":\"b\",\"rejected\":"
        "\"c\"}",
        "a|b|c@1;");
}

/* What trl.data_utils.extract_prompt gives, but for the two cases that it has no good answer to. */
static void implicit_prompts(void **state)
{
    (void)state;
    check_rows(IMPLICIT("Q: x A: yes", "Q: x A: no"), "Q: x A:| yes| no@1;");
    check_rows(IMPLICIT("abX", "abY"), "ab|X|Y@1;");
    check_rows(IMPLICIT("abX", "abYZ"), "ab|X|YZ@1;");
    check_rows(IMPLICIT("ab  X", "ab  Y"), "ab | X| Y@1;");
    check_rows(IMPLICIT("ab", "abc"), "a|b|bc@1;"); /* the last in common stays */
    check_rows(IMPLICIT("abc", "ab"), "a|bc|b@1;");
    check_rows(IMPLICIT("a c", "a "), "a| c| @1;"); /* idx = 1: no look at the space before it */
    check_rows(IMPLICIT("same", "same"), "sam|e|e@1;");
    check_rows(IMPLICIT("a", "a"), "|a|a@1;");
    check_rows(IMPLICIT(" X", " Y"), "| X| Y@1;");
    /* Code points: e9 and e8 share their first byte, and so do the two faces. */
    check_rows(IMPLICIT("a\xc3\xa9", "a\xc3\xa8"), "a|\xc3\xa9|\xc3\xa8@1;");
    check_rows(IMPLICIT("\xf0\x9f\x98\x80", "\xf0\x9f\x98\x81"),
               "|\xf0\x9f\x98\x80|\xf0\x9f\x98\x81@1;");
    check_rows(IMPLICIT("x\xc3\xa9", "x\xc3\xa9y"), "x|\xc3\xa9|\xc3\xa9y@1;");
    /* TRL takes the last character of chosen for the one before the first; here nothing is before it. */
    check_rows(IMPLICIT("X ", "Y"), "|X |Y@1;");
    /* TRL stops at an empty text. */
    check_rows(IMPLICIT("", "abc"), "||abc@1;");
    check_rows(IMPLICIT("abc", ""), "|abc|@1;");
    check_rows(IMPLICIT("", ""), "||@1;");
}

static void faults_of_rows(void **state)
{
    (void)state;
    const char *const one = PAIR("a", "b", "c") "\n";
    static const struct {
        const char *row, *message;
    } cases[] = {
        {"{\"prompt\":1,\"chosen\":\"b\",\"rejected\":\"c\"}", "rows:2: prompt must be a string"},
        {"{\"prompt\":\"a\",\"chosen\":null,\"rejected\":\"c\"}",
         "rows:2: chosen must be a string"},
        {"{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":{}}",
         "rejected must be a string, not an"},
        {"{\"prompt\":\"a\",\"chosen\":\"b\"}", "rows:2: chosen without rejected"},
        {"{\"prompt\":\"a\",\"rejected\":\"b\"}", "rows:2: rejected without chosen"},
        {"{\"question\":\"a\",\"answer\":\"b\"}", "this one has question, answer: rename"},
        {"{}", "this one has no keys"},
        {"[1]", "rows:2: a row must be an object"},
        {"7", "rows:2: a row must be an object like"},
        {"{\"prompt\":\"a\"", "rows:2: not valid JSON"},
        {"{\"prompt\":\"a\",\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}", "stands twice"},
        {"{\"prompt\":\"\\u0000\",\"chosen\":\"b\",\"rejected\":\"c\"}", "\\u0000"},
        {"{\"prompt\":\"\\ud800\",\"chosen\":\"b\",\"rejected\":\"c\"}", "lone surrogate"},
        {"{\"prompt\":\"\xff\",\"chosen\":\"b\",\"rejected\":\"c\"}", "invalid UTF-8"},
        {"{\"prompt\":\"\x01\",\"chosen\":\"b\",\"rejected\":\"c\"}", "control character"},
        {"{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\",\"x\":NaN}", "expected a value"},
        {"{\"chosen\":\"b\",\"rejected\":\"c\"}", "a file holds rows of one form"},
        {LABELLED("a", "b", "true"),
         "this row has prompt, completion and label, the first one prompt, chosen"},
        {"{\"chosen\":[{\"role\":\"user\",\"content\":\"x\"}],\"rejected\":[]}",
         "rows:2: conversational rows"},
        {"{\"prompt\":\"a\",\"chosen\":[],\"rejected\":[]}", "apply_chat_template"},
        {"{\"messages\":[]}", "conversational rows"},
        {"{\"conversations\":[],\"x\":1}", "conversational rows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        snprintf(text, sizeof text, "%s%s\n%s", one, cases[i].row, one);
        check_fault(text, cases[i].message);
    }
    check_fault("{\"prompt\":\"a\",\"completion\":\"b\",\"label\":1}",
                "label must be true or false, not a number");
    check_fault("{\"prompt\":\"a\",\"completion\":\"b\",\"label\":\"true\"}", "label must be");
    check_fault("{\"completion\":\"b\",\"label\":true}", "completion without prompt");
    check_fault("{\n  \"prompt\": \"a\"\n}\n", "rows:1: an object over several lines");
}

static void faults_of_files(void **state)
{
    (void)state;
    check_fault("\n \r\n\t", "rows: holds no row");
    check_fault(BOM, "holds no row");
    check_fault("[]", "holds no row");
    check_fault("[ \n ]\n", "holds no row");
    check_fault("[", "rows:1: the file ends without the array's ']'");
    check_fault("[" PAIR("a", "b", "c"), "the file ends without the array's ']'");
    check_fault("[" PAIR("a", "b", "c") ",", "the file ends without");
    check_fault("[\n\n{\"prompt\":\"a\"", "rows:3: the file ends inside this row");
    check_fault("[" PAIR("a", "b", "c") "\n" PAIR("a", "b", "c") "]", "rows:2: expected ','");
    check_fault("[" PAIR("a", "b", "c") ",\n]", "rows:2: a comma before the array's ']'");
    check_fault("[" PAIR("a", "b", "c") ",,\n" PAIR("a", "b", "c") "]", "a comma without a row");
    check_fault("[," PAIR("a", "b", "c") "]", "a comma without a row");
    check_fault("[" PAIR("a", "b", "c") "]\n\n]", "rows:3: text behind the array's ']'");
    check_fault("[1,2]", "rows:1: row 1: a row must be an object");
    check_fault("[}]", "not valid JSON");
    check_fault("[{\"a\":]}]", "not valid JSON");
    check_fault("\xef\xbb{}", "not UTF-8 text");
    check_fault("\xef", "not UTF-8 text");

    buffer got = {0};
    const char *empty = scratch_text("rows", "");
    CHECK_FAILS(read_all(&got, empty), CUDPO_EDATA, "holds no row");
    CHECK_FAILS(read_all(&got, scratch_path("absent.jsonl")), CUDPO_ENOINPUT,
                "absent.jsonl: can't open");
    CHECK_FAILS(read_all(&got, scratch_folder()), CUDPO_EDATA, "a folder, not a file");
    CHECK_FAILS(read_all(&got, scratch_text("x", "PAR1....")), CUDPO_EDATA, "read_parquet");
    CHECK_FAILS(read_all(&got, scratch_text("x", "\x28\xb5\x2f\xfd...")), CUDPO_EDATA, "zstd -d");
    CHECK_FAILS(read_all(&got, scratch_text("x", "\xff\xfe{")), CUDPO_EDATA, "iconv");
    const char *pipe = scratch_path("pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    CHECK_FAILS(read_all(&got, pipe), CUDPO_EDATA, "not a regular file"); /* and does not wait */
    buffer_free(&got);
}

static void rows_in_pieces_of_gzip(void **state)
{
    (void)state;
    /* Two members, as `cat a.gz b.gz` makes, and zeros behind them, as tapes do. */
    static const char *const halves[] = {PAIR("a", "b", "c") "\n{\"prompt\":\"d\",",
                                         "\"chosen\":\"e\",\"rejected\":\"f\"}\n"};
    buffer file = {0}, got = {0};
    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        void *packed = gzip(&n, halves[i], strlen(halves[i]));
        CHECK_OK(buffer_append(&file, packed, n));
        free(packed);
    }
    const size_t whole = file.size;
    CHECK_OK(read_all(&got, scratch_write("two.gz", file.data, whole)));
    assert_string_equal(got.data, "a|b|c@1;d|e|f@2;");
    CHECK_OK(buffer_append(&file, "\0\0\0\0\0", 5));
    CHECK_OK(read_all(&got, scratch_write("two.gz", file.data, file.size)));
    assert_string_equal(got.data, "a|b|c@1;d|e|f@2;");
    CHECK_OK(buffer_append(&file, "junk", 4));
    CHECK_FAILS(read_all(&got, scratch_write("two.gz", file.data, file.size)), CUDPO_EDATA,
                "damaged");
    CHECK_FAILS(read_all(&got, scratch_write("two.gz", file.data, whole - 1)), CUDPO_EDATA,
                "end too early");
    file.data[whole - 6] ^= 1; /* the second member's checksum */
    CHECK_FAILS(read_all(&got, scratch_write("two.gz", file.data, whole)), CUDPO_EDATA, "damaged");
    buffer_free(&file);
    buffer_free(&got);
}

/* A row of exactly the limit is read; one byte more is refused, also where it comes out of a few KB of gzip. */
static void the_limit_of_a_row(void **state)
{
    (void)state;
    static const char head[] = "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"", tail[] = "\"}";
    const size_t limit = 16 << 20;
    for (size_t more = 0; more < 2; more++) {
        for (int array = 0; array < 2; array++) {
            const size_t n = limit + more + 2;
            char *text = malloc(n);
            assert_non_null(text);
            memset(text, 'x', n);
            memcpy(text + 1, head, sizeof head - 1);
            memcpy(text + 1 + limit + more - 2, tail, 2);
            text[0] = array ? '[' : '\n';
            text[n - 1] = array ? ']' : '\n';
            size_t packed_n = 0;
            void *packed = gzip(&packed_n, text, n);
            const char *plain = scratch_write("long", text, n);
            const char *bomb = scratch_write("long.gz", packed, packed_n);
            assert_true(packed_n < 50000);
            buffer got = {0};
            if (more == 0) {
                CHECK_OK(read_all(&got, plain));
                CHECK_OK(read_all(&got, bomb));
            } else {
                CHECK_FAILS(read_all(&got, plain), CUDPO_EDATA, "longer than 16 MiB");
                CHECK_FAILS(read_all(&got, bomb), CUDPO_EDATA, "longer than 16 MiB");
            }
            buffer_free(&got);
            free(packed);
            free(text);
        }
    }
}

/* Chunks end anywhere: rows longer and shorter than a chunk, in both layouts. */
static void rows_across_chunks(void **state)
{
    (void)state;
    for (int array = 0; array < 2; array++) {
        buffer file = {0};
        const int rows = 300;
        if (array) CHECK_OK(buffer_append(&file, "[", 1));
        for (int i = 0; i < rows; i++) {
            if (array && i > 0) CHECK_OK(buffer_append(&file, " ,", 2));
            CHECK_OK(buffer_printf(&file, "{\"prompt\":\"%d\",\"chosen\":\"", i));
            for (int k = 0; k < (i * 7919) % 4000; k++)
                CHECK_OK(buffer_append(&file, "\\\"}]", 4));
            CHECK_OK(buffer_printf(&file, "\",\"rejected\":\"%d\"}\n", -i));
        }
        if (array) CHECK_OK(buffer_append(&file, "]", 1));
        assert_true(file.size > 1 << 20);
        row_reader *r = NULL;
        CHECK_OK(row_reader_open(&r, scratch_write("many", file.data, file.size)));
        for (int i = 0; i < rows; i++) {
            preference_row row;
            bool done = true;
            CHECK_OK(row_reader_next(r, &row, &done));
            assert_false(done);
            assert_int_equal(atoi(row.prompt), i);
            assert_int_equal(atoi(row.rejected), -i);
            assert_int_equal(strlen(row.chosen), 3 * ((i * 7919) % 4000));
            assert_int_equal(row.line, i + 1);
        }
        row_reader_close(r);
        buffer_free(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test(forms),
        cmocka_unit_test(implicit_prompts),
        cmocka_unit_test(faults_of_rows),
        cmocka_unit_test(faults_of_files),
        cmocka_unit_test(rows_in_pieces_of_gzip),
        cmocka_unit_test(the_limit_of_a_row),
        cmocka_unit_test(rows_across_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
