/* test_ptx.c - the wrappers of kernels/ptx.h against plain arithmetic, and against what a GPU answered. */
/* rooms: base */
/* backends: cuda */
#include "test.h"
#include "ptx/ptx.h"

/* What an H200 answered: PTX_RECORD=FILE writes such a file, on whatever runs the kernels. */
#define GOLDEN "tests/golden/ptx.hex"

static uint32_t got[PTX_WORDS], golden[PTX_WORDS];

static float as_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Element (row, column) of d = a b + c of a trial; and how much is added up, for the bound on rounding. */
static double product(int exact, int trial, int row, int column, double *size)
{
    double sum = (double)ptx_input(exact, trial, 2, row, column);
    *size = fabs(sum);
    for (int k = 0; k < 16; k++) {
        const double term = (double)ptx_input(exact, trial, 0, row, k) *
                            (double)ptx_input(exact, trial, 1, k, column);
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

/* Tensor cores align 17 terms to the largest and cut each off behind at least 23 bits. */
static void check_mma(const uint32_t *words, int exact)
{
    for (int i = 0; i < PTX_MMA_WORDS; i++) {
        const int trial = i / 128, lane = i % 128 / 4, j = i % 4;
        double size;
        const double want =
            product(exact, trial, lane / 4 + j / 2 * 8, lane % 4 * 2 + j % 2, &size);
        CHECK_NEAR(as_float(words[i]), want, exact ? 0.0 : 17 * 0x1p-23 * size);
    }
}

/* Lane l gets of tile i elements (row l/4, columns 2 (l%4) and the next); transposed: (rows.., column). */
static void check_ldmatrix(const uint32_t *words)
{
    for (int lane = 0; lane < 32; lane++) {
        for (int j = 0; j < 12; j++) {
            const int transposed = j >= 6, tile = j < 6 ? j % 4 : (j - 6) % 4;
            const uint32_t row = (uint32_t)lane / 4, column = (uint32_t)lane % 4 * 2;
            const uint32_t first = transposed ? column * 8 + row : row * 8 + column;
            const uint32_t second = transposed ? (column + 1) * 8 + row : row * 8 + column + 1;
            const uint32_t base = (uint32_t)tile * 64;
            if (words[lane * 12 + j] != ((base + first) | (base + second) << 16))
                fail_msg("lane %d, register %d: %08x", lane, j, words[lane * 12 + j]);
        }
    }
}

/* Bytes from `valid` on are 0; what comes before is the input, which cp_async of 16 valid bytes shows. */
static void check_cp_async(const uint32_t *words)
{
    const unsigned char *bytes = (const unsigned char *)words;
    for (int valid = 0; valid <= 16; valid++) {
        int set = 0;
        for (int i = 0; i < 16; i++) {
            if (i >= valid) assert_int_equal(bytes[valid * 16 + i], 0);
            set |= bytes[valid * 16 + i];
        }
        assert_true(valid == 0 || set != 0);
    }
}

/* ex2.approx: 2 units in the last place (PTX ISA); results below 2^-126 may be 0, those of 2^128 and more are infinite. */
static void check_exp2(const uint32_t *words)
{
    for (int i = 0; i < PTX_EXP2; i++) {
        const double want = exp2((double)ptx_exp2_argument(i));
        const double y = (double)as_float(words[i]);
        if (want >= 0x1p128)
            assert_true(y == INFINITY);
        else if (want >= 0x1p-126 || y != 0.0)
            CHECK_NEAR(y, want, want * 0x1p-22);
    }
}

/* What two have computed within a bound of the truth is within twice the bound of each other. */
static void compare_mma(const uint32_t *a, const uint32_t *b)
{
    for (int i = 0; i < PTX_MMA_WORDS; i++) {
        const int trial = i / 128, lane = i % 128 / 4, j = i % 4;
        double size;
        (void)product(0, trial, lane / 4 + j / 2 * 8, lane % 4 * 2 + j % 2, &size);
        CHECK_NEAR(as_float(a[i]), as_float(b[i]), 2 * 17 * 0x1p-23 * size);
    }
}

static void compare_exp2(const uint32_t *a, const uint32_t *b)
{
    for (int i = 0; i < PTX_EXP2; i++) {
        const double x = (double)as_float(a[i]), y = (double)as_float(b[i]);
        if (isinf(x))
            assert_true(x == y);
        else
            CHECK_NEAR(x, y, fmax(fmax(x, y) * 0x1p-21, 0x1p-126));
    }
}

static void plain_arithmetic(void **state)
{
    (void)state;
    const uint32_t *at = got;
    check_mma(at, 1);
    check_mma(at += PTX_MMA_EXACT_WORDS, 0);
    check_ldmatrix(at += PTX_MMA_WORDS);
    check_cp_async(at += PTX_LDMATRIX_WORDS);
    check_exp2(at += PTX_CP_ASYNC_WORDS);
}

/* Everything that does not round has the GPU's bits; what rounds is within both bounds of it. */
static void golden_vectors(void **state)
{
    (void)state;
    FILE *f = fopen(GOLDEN, "r");
    assert_non_null(f);
    for (int i = 0; i < PTX_WORDS; i++) {
        assert_int_equal(fscanf(f, "%x", &golden[i]), 1);
    }
    fclose(f);
    const int rounded = PTX_MMA_EXACT_WORDS, copied = rounded + PTX_MMA_WORDS;
    const int exp2_begin = copied + PTX_LDMATRIX_WORDS + PTX_CP_ASYNC_WORDS;
    assert_memory_equal(got, golden, (size_t)rounded * 4);
    assert_memory_equal(got + copied, golden + copied, (size_t)(exp2_begin - copied) * 4);
    check_mma(golden + rounded, 0);
    check_exp2(golden + exp2_begin);
    compare_mma(got + rounded, golden + rounded);
    compare_exp2(got + exp2_begin, golden + exp2_begin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain_arithmetic),
                                       cmocka_unit_test(golden_vectors)};
    const int error = ptx_run(got);
    if (error != 0) {
        printf("the kernels do not run here (CUDA error %d)\n", error);
#ifdef TEST_GPU
        return TEST_SKIPPED;
#else
        return 1; /* the emulator is always there */
#endif
    }
    const char *record = getenv("PTX_RECORD");
    if (record != NULL) {
        FILE *f = fopen(record, "w");
        if (f == NULL) return 1;
        for (int i = 0; i < PTX_WORDS; i++) {
            fprintf(f, "%08x%c", got[i], i % 8 == 7 ? '\n' : ' ');
        }
        fprintf(f, "\n");
        return fclose(f);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
