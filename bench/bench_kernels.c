/* bench_kernels.c - the GPU kernels on the shapes of real models: time, bandwidth, and the share of what a plain copy on
 * the same GPU reaches in the same run.
 *
 *     build-cuda/bench_kernels [--json FILE] [OP ...]
 *
 * Bytes and operations are those that the formulas above the launchers give, never counters.  Inputs are random; what a
 * call overwrites is restored before each timed call, and then 256 MB of something else are read, so that the L2 holds
 * nothing of the op's; both outside of the timed region.  Columns: shape, median and least time of a call, GB/s or TFLOP/s,
 * percent of the copy (memory-bound ops), and `differs`, the words of all outputs that the last call made differently
 * from the first, which must be 0.  Whether they are right is for `ctest -L gpu` to say. */
#include "bench/bench_ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARMUP = 3, RUNS = 15, EVICT = 256 << 20 };

static double copy_gbps;
static FILE *json;
static int rows_written;

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void restore(bench *x)
{
    for (int i = 0; i < TENSORS; i++) {
        if (x->saved[i] != NULL)
            check(cudaMemcpyAsync(x->t[i].data, x->saved[i], tensor_bytes(x->t[i]),
                                  cudaMemcpyDeviceToDevice, stream),
                  "restore");
    }
}

/* Read EVICT bytes of no interest. */
static void evict(void)
{
    static tensor other, sum;
    static scratch s;
    if (other.data == NULL) {
        other = matrix(DTYPE_F32, EVICT / 4096, 1024, 1);
        sum = tensor_vector(device_bytes(8), DTYPE_F64, 1);
        s = (scratch){device_bytes(cuda_sum_squares_scratch()), cuda_sum_squares_scratch()};
        check(cudaMemset(sum.data, 0, 8), "sum");
    }
    if (cuda_sum_squares(sum, other, s, stream) != CUDPO_OK)
        fprintf(stderr, "bench_kernels: %s\n", cudpo_error_message());
}

static int64_t differing(const uint32_t *a, const uint32_t *b, size_t bytes)
{
    int64_t n = 0;
    for (size_t i = 0; i < bytes / 4; i++) {
        n += a[i] != b[i];
    }
    return n;
}

static void *host_copy(tensor t)
{
    void *host = malloc(tensor_bytes(t));
    if (host == NULL) exit(1);
    check(cudaMemcpy(host, t.data, tensor_bytes(t), cudaMemcpyDeviceToHost), "output");
    return host;
}

static float timed_call(bench *x, cudaEvent_t begin, cudaEvent_t end)
{
    float ms = 0;
    restore(x);
    evict();
    check(cudaEventRecord(begin, stream), "event");
    if (x->call(x) != CUDPO_OK) {
        fprintf(stderr, "bench_kernels: %s: %s\n", x->op, cudpo_error_message());
        exit(1);
    }
    check(cudaEventRecord(end, stream), "event");
    check(cudaEventSynchronize(end), x->op);
    check(cudaEventElapsedTime(&ms, begin, end), "event");
    return ms;
}

static void line(bench *x, float median, float least, int64_t differs)
{
    const double gbps = x->bytes / (double)median * 1e-6, tflops = x->flops / (double)median * 1e-9;
    const double percent = x->bytes > 0 ? 100 * gbps / copy_gbps : 0;
    printf(
        "%-18s %-38s %9.1f us (least %9.1f) %7.0f GB/s %5.1f %% of the copy %6.1f TFLOP/s, differs "
        "%lld\n",
        x->op, x->shape, (double)median * 1e3, (double)least * 1e3, gbps, percent, tflops,
        (long long)differs);
    fflush(stdout);
    if (json == NULL) return;
    fprintf(json,
            "%s\n  {\"op\": \"%s\", \"shape\": \"%s\", \"median_us\": %.2f, \"min_us\": %.2f, "
            "\"bytes\": %.0f, "
            "\"flops\": %.0f, \"gbps\": %.1f, \"tflops\": %.1f, \"percent_of_copy\": %.1f, "
            "\"differs\": %lld}",
            rows_written++ > 0 ? "," : "", x->op, x->shape, (double)median * 1e3,
            (double)least * 1e3, x->bytes, x->flops, gbps, tflops, percent, (long long)differs);
    fflush(json);
}

static void measure(bench *x)
{
    cudaEvent_t begin, end;
    float ms[RUNS];
    x->make(x);
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    void *first[TENSORS];
    int64_t differs = 0;
    timed_call(x, begin, end);
    for (int i = 0; i < TENSORS; i++) {
        first[i] = x->outputs >> i & 1 ? host_copy(x->t[i]) : NULL;
    }
    for (int i = 0; i < WARMUP; i++) {
        timed_call(x, begin, end);
    }
    for (int i = 0; i < RUNS; i++) {
        ms[i] = timed_call(x, begin, end);
    }
    for (int i = 0; i < TENSORS; i++) {
        if (first[i] == NULL) continue;
        void *last = host_copy(x->t[i]);
        differs += differing(first[i], last, tensor_bytes(x->t[i]));
        free(first[i]);
        free(last);
    }
    qsort(ms, RUNS, sizeof *ms, by_value);
    line(x, ms[RUNS / 2], ms[0], differs);
    for (int i = 0; i < TENSORS; i++) {
        cudaFree(x->t[i].data);
        cudaFree(x->saved[i]);
    }
    cudaFree(x->s.data);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
}

/* What a copy of 2 GB reaches, reads and writes counted. */
static void measure_copy(void)
{
    const size_t bytes = (size_t)2 << 30;
    void *from = device_bytes(bytes), *to = device_bytes(bytes);
    cudaEvent_t begin, end;
    float ms[RUNS];
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    fill_random(tensor_matrix(from, DTYPE_F32, 1, (int64_t)(bytes / 4)), 1);
    for (int i = -WARMUP; i < RUNS; i++) {
        check(cudaEventRecord(begin, stream), "event");
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copy");
        check(cudaEventRecord(end, stream), "event");
        check(cudaEventSynchronize(end), "copy");
        if (i >= 0) check(cudaEventElapsedTime(&ms[i], begin, end), "event");
    }
    qsort(ms, RUNS, sizeof *ms, by_value);
    copy_gbps = 2 * (double)bytes / (double)ms[RUNS / 2] * 1e-6;
    cudaFree(from);
    cudaFree(to);
}

static bool chosen(const char *op, int argc, char **argv)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            i++;
            continue;
        }
        any = true;
        if (strcmp(argv[i], op) == 0) return true;
    }
    return !any;
}

int main(int argc, char **argv)
{
    struct cudaDeviceProp device;
    int driver = 0, runtime = 0;
    check(cudaGetDeviceProperties(&device, 0), "no GPU");
    check(cudaDriverGetVersion(&driver), "driver");
    check(cudaRuntimeGetVersion(&runtime), "runtime");
    check(cudaStreamCreate(&stream), "stream");
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) json = fopen(argv[i + 1], "w");
    }
    measure_copy();
    printf("%s, driver %d, runtime %d, copy %.0f GB/s\n", device.name, driver, runtime, copy_gbps);
    if (json != NULL)
        fprintf(json,
                "{\"device\": \"%s\", \"driver\": %d, \"runtime\": %d, \"copy_gbps\": %.1f, "
                "\"rows\": [",
                device.name, driver, runtime, copy_gbps);
    for (int i = 0; i < table_rows; i++) {
        if (chosen(table[i].op, argc, argv)) measure(&table[i]);
    }
    if (json != NULL) {
        fprintf(json, "\n]}\n");
        fclose(json);
    }
    return 0;
}
