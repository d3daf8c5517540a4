/* test_tensor.c - views, and which of them overlap. */
/* rooms: tensor base */
#include "test.h"
#include "tensor/tensor.h"

enum { BYTES = 64 };

/* Every byte between the first and the last of an element, row by row: of a matrix that is wider than its columns, the gaps
 * are free. */
static void mark(unsigned char used[BYTES], tensor t)
{
    const size_t size = dtype_size(t.type);
    memset(used, 0, BYTES);
    for (int64_t r = 0; r < t.rows; r++) {
        for (int64_t i = 0; i < t.cols * (int64_t)size; i++) {
            used[(uintptr_t)t.data - 4096 + (size_t)(r * t.stride) * size + (size_t)i] = 1;
        }
    }
}

static bool share_a_byte(tensor a, tensor b)
{
    unsigned char x[BYTES], y[BYTES];
    mark(x, a);
    mark(y, b);
    for (int i = 0; i < BYTES; i++) {
        if (x[i] && y[i]) return true;
    }
    return false;
}

static tensor view(int begin, int rows, int cols, int stride)
{
    return (tensor){(void *)(uintptr_t)(4096 + 2 * begin), rows, cols, stride, DTYPE_BF16};
}

/* All pairs of views of 16 elements: what shares a byte is never disjoint; what is of the same stride, or lies behind the
 * other's end, is disjoint whenever it shares none. */
static void disjoint_by_enumeration(void **state)
{
    (void)state;
    tensor all[4096];
    int n = 0, apart = 0;
    for (int begin = 0; begin < 12; begin++) {
        for (int rows = 0; rows < 4; rows++) {
            for (int cols = 1; cols < 4; cols++) {
                for (int stride = cols; stride < 6; stride++) {
                    if (begin + (rows > 0 ? (rows - 1) * stride + cols : 0) <= 16)
                        all[n++] = view(begin, rows, cols, stride);
                }
            }
        }
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            const bool disjoint = tensor_disjoint(all[i], all[j]);
            const bool shared = share_a_byte(all[i], all[j]);
            if (shared) assert_false(disjoint);
            if (!shared && (all[i].stride == all[j].stride || all[i].rows == 0)) {
                /* Columns that wrap around the end of a row are not told apart. */
                const int64_t stride = all[i].stride;
                const int64_t x = (int64_t)((uintptr_t)all[i].data / 2),
                              y = (int64_t)((uintptr_t)all[j].data / 2);
                const int64_t ahead = ((y - x) % stride + stride) % stride;
                if (all[i].rows == 0 || (ahead >= all[i].cols && ahead + all[j].cols <= stride)) {
                    assert_true(disjoint);
                    apart++;
                }
            }
            assert_true(disjoint == tensor_disjoint(all[j], all[i]));
        }
    }
    assert_true(apart > 10000);
}

static void one_behind_the_other(void **state)
{
    (void)state;
    assert_true(tensor_disjoint(view(0, 2, 3, 5), view(8, 1, 2, 2))); /* ends at element 8 */
    assert_false(tensor_disjoint(view(0, 2, 3, 5), view(7, 1, 2, 2)));
    assert_true(tensor_disjoint(view(0, 4, 2, 5), view(2, 4, 3, 5))); /* columns of one matrix */
    assert_false(tensor_disjoint(view(0, 4, 2, 5), view(1, 4, 3, 5)));
    assert_true(tensor_disjoint((tensor){0}, view(0, 4, 2, 5))); /* absent */
    const tensor wide = {(void *)4096, 2, 2, 3, DTYPE_F32},
                 narrow = {(void *)(4096 + 8), 2, 2, 6, DTYPE_BF16};
    assert_true(tensor_disjoint(wide, narrow)); /* rows of the same bytes, whatever the type */
}

static void sizes_and_views(void **state)
{
    (void)state;
    float data[12];
    const tensor t = tensor_matrix(data, DTYPE_F32, 3, 4),
                 part = tensor_cols(tensor_rows(t, 1, 2), 1, 2);
    assert_true(part.data == data + 5 && part.rows == 2 && part.cols == 2 && part.stride == 4);
    assert_true(tensor_dense(t) && !tensor_dense(part) && tensor_dense(tensor_rows(part, 0, 1)));
    assert_int_equal(tensor_bytes(t), 48);
    assert_int_equal(tensor_elements(part), 4);
    assert_true(tensor_is(part, DTYPE_F32, 2, 2) && !tensor_is(part, DTYPE_F32, 2, 3));
    assert_false(tensor_is((tensor){0}, DTYPE_F32, 0, 0));
    assert_string_equal(dtype_name(DTYPE_BF16), "bfloat16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(disjoint_by_enumeration),
                                       cmocka_unit_test(one_behind_the_other),
                                       cmocka_unit_test(sizes_and_views)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
