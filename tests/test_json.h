/* test_json.h - texts that the reader must not read beyond. */
#ifndef CUDPO_TESTS_TEST_JSON_H
#define CUDPO_TESTS_TEST_JSON_H

#include "test.h"
#include "base/json.h"

/* In memory of exactly n bytes, so that a read behind the end is seen. */
static inline cudpo_status parse_bytes(json **out, const char *text, size_t n)
{
    char *exact = malloc(n > 0 ? n : 1);
    assert_non_null(exact);
    memcpy(exact, text, n);
    const cudpo_status status = json_parse(out, exact, n, "t.json");
    free(exact);
    return status;
}

#endif /* CUDPO_TESTS_TEST_JSON_H */
