/* test_cache.c - the file of token ids: what is written comes back, and a file that was cut or changed is refused,
 * even where its checksum was made to fit. */
/* rooms: data base */
#include "test.h"
#include "scratch.h"
#include "base/buffer.h"
#include "data/cache.h"

#include <fcntl.h>
#include <unistd.h>

enum { VOCABULARY = 1000, RECORDS = 3, CHECKSUM_BYTES = 16 };

static const hash128 key = {1234, 5678};

static void append_record(buffer *b, int64_t row, int32_t prompt, int completions, int32_t length)
{
    cache_record r = {.row = row, .prompt_length = prompt, .completions = completions, .label = 1};
    for (int c = 0; c < completions; c++) {
        r.completion_length[c] = length + c;
        r.stored_length[c] = length + c + 1;
    }
    r.prompt_skip[0] = prompt / 2;
    CHECK_OK(buffer_append(b, &r, sizeof r));
    for (int32_t i = 0; i < cache_record_ids_count(&r); i++) {
        const int32_t id = (int32_t)(row * 100) + i;
        CHECK_OK(buffer_append(b, &id, sizeof id));
    }
    CHECK_OK(buffer_append(b, "\0\0\0\0", b->size % 8));
}

/* A cache of three records, as a string of bytes. */
static buffer make_cache(cache_totals *totals)
{
    FILE *stream = fopen(scratch_path("cache"), "w+b");
    assert_non_null(stream);
    cache_writer w;
    CHECK_OK(cache_writer_begin(&w, stream, "cache"));
    for (int i = 0; i < RECORDS; i++) {
        buffer record = {0};
        append_record(&record, i, 2 + i, 1 + i % 2, i);
        CHECK_OK(cache_writer_put(&w, record.data, record.size));
        buffer_free(&record);
    }
    *totals = (cache_totals){.examples = RECORDS, .rows = 9, .unaligned = 2, .unaligned_line = 7};
    CHECK_OK(cache_writer_finish(&w, totals, key));
    cache_writer_abandon(&w);
    fclose(stream);
    buffer bytes = {0};
    CHECK_OK(file_read(&bytes.data, &bytes.size, scratch_path("cache"), 1 << 20));
    return bytes;
}

/* NULL where the bytes are accepted; then every record is read to its end. */
static const char *verdict(cache_map *map, const void *data, size_t n, hash128 want_key,
                           int64_t vocabulary)
{
    const char *path = scratch_write("fuzz", data, n), *reason = NULL;
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    CHECK_OK(cache_map_open(map, &reason, fd, path, want_key, vocabulary));
    close(fd);
    if (reason != NULL) {
        assert_null(map->memory);
        return reason;
    }
    int64_t sum = 0;
    for (int64_t i = 0; i < map->totals.examples; i++) {
        const cache_record *r = cache_map_record(map, i);
        for (int64_t k = 0; k < cache_record_ids_count(r); k++)
            sum += cache_record_ids(r)[k];
    }
    assert_true(sum >= 0);
    return NULL;
}

static void what_was_written_comes_back(void **state)
{
    (void)state;
    cache_totals totals;
    buffer bytes = make_cache(&totals);
    cache_map map;
    assert_null(verdict(&map, bytes.data, bytes.size, key, VOCABULARY));
    assert_memory_equal(&map.totals, &totals, sizeof totals);
    for (int i = 0; i < RECORDS; i++) {
        const cache_record *r = cache_map_record(&map, i);
        assert_true(r->row == i && r->prompt_length == 2 + i && r->completions == 1 + i % 2);
        assert_int_equal(cache_record_ids(r)[0], 100 * i);
    }
    cache_map_close(&map);
    assert_string_equal(verdict(&map, bytes.data, bytes.size, (hash128){1234, 5679}, VOCABULARY),
                        "it belongs to something else");
    assert_string_equal(verdict(&map, bytes.data, bytes.size, key, 200),
                        "an id is outside the vocabulary");
    buffer_free(&bytes);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    cache_totals totals;
    buffer bytes = make_cache(&totals);
    cache_map map;
    for (size_t n = 0; n < bytes.size; n++) {
        if (verdict(&map, bytes.data, n, key, VOCABULARY) == NULL) fail_msg("cut to %zu bytes", n);
    }
    CHECK_OK(buffer_append(&bytes, "\0\0\0\0\0\0\0\0", 8));
    assert_non_null(verdict(&map, bytes.data, bytes.size, key, VOCABULARY));
    buffer_free(&bytes);
}

static void every_change_is_refused(void **state)
{
    (void)state;
    cache_totals totals;
    buffer bytes = make_cache(&totals);
    cache_map map;
    for (size_t n = 0; n < bytes.size; n++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes.data[n] = (char)(bytes.data[n] ^ (1 << bit));
            if (verdict(&map, bytes.data, bytes.size, key, VOCABULARY) == NULL)
                fail_msg("bit %d of byte %zu", bit, n);
            bytes.data[n] = (char)(bytes.data[n] ^ (1 << bit));
        }
    }
    buffer_free(&bytes);
}

/* The same with a checksum that fits: what is accepted is read above, within the file. */
static void every_change_that_is_checksummed_is_harmless(void **state)
{
    (void)state;
    static const unsigned char values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    cache_totals totals;
    buffer bytes = make_cache(&totals);
    const size_t body = bytes.size - CHECKSUM_BYTES;
    cache_map map;
    int accepted = 0, refused = 0;
    for (size_t n = 0; n < body; n++) {
        for (size_t v = 0; v < sizeof values; v++) {
            const char held = bytes.data[n];
            bytes.data[n] = (char)values[v];
            const hash128 sum = hash_bytes(bytes.data, body);
            memcpy(bytes.data + body, &sum, sizeof sum);
            if (verdict(&map, bytes.data, bytes.size, key, VOCABULARY) == NULL) {
                accepted++;
                cache_map_close(&map);
            } else {
                refused++;
            }
            bytes.data[n] = held;
        }
    }
    assert_true(accepted > 100 && refused > 100); /* both ways were walked */
    buffer_free(&bytes);
}

static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    FILE *full = fopen("/dev/full", "wb");
    if (full == NULL) return; /* not on this system */
    cache_writer w;
    buffer record = {0};
    append_record(&record, 1, 4, 1, 4);
    CHECK_OK(cache_writer_begin(&w, full, "/dev/full"));
    CHECK_OK(cache_writer_put(&w, record.data, record.size)); /* still in stdio's buffer */
    cache_totals totals = {.examples = 1};
    CHECK_FAILS(cache_writer_finish(&w, &totals, key), CUDPO_EWRITE, "/dev/full: can't write");
    cache_writer_abandon(&w);
    buffer_free(&record);
    fclose(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_comes_back),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_change_is_refused),
        cmocka_unit_test(every_change_that_is_checksummed_is_harmless),
        cmocka_unit_test(a_full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
