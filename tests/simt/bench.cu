/* bench.cu - how fast the emulator is: run by hand before and after a change of it.  Targets simt_bench_<variant>.
 *
 * In seconds of processor time, so that a busy machine does not matter much; with SIMT_SERIAL=1, without OpenMP's. */
#include "kernels/device.h"

#include <cstdio>
#include <ctime>

static __global__ void barriers(float *out, int n)
{
    for (int i = 0; i < n; i++) {
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

static __global__ void shuffles(float *out, int n)
{
    float v = (float)threadIdx.x;
    for (int i = 0; i < n; i++) {
        v += __shfl_xor_sync(0xffffffffu, v, 1);
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}

static __global__ void products(float *out, int n)
{
    float d[4] = {};
    const uint32_t a[4] = {1, 2, 3, 4}, b[2] = {5, 6};
    for (int i = 0; i < n; i++) {
        mma_m16n8k16_bf16(d, a, b, d);
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = d[0];
}

static __global__ void tile_loads(float *out, int n)
{
    DYN_SHARED(float, tile);
    for (unsigned i = threadIdx.x; i < 4 * 32; i += blockDim.x) {
        tile[i] = 0;
    }
    __syncthreads(); /* the tile is written */
    uint32_t r[4], sum = 0;
    for (int i = 0; i < n; i++) {
        ldmatrix_x4(r, tile + threadIdx.x % 32 * 4);
        sum += r[0];
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = (float)sum;
}

static __global__ void nothing(float *out)
{
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

/* Global memory by elements: 8 bytes read and 4 written each. */
static __global__ void add(float *out, const float *x, const float *y, int n)
{
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += (int)(gridDim.x * blockDim.x)) {
        out[i] = x[i] + y[i];
    }
}

/* By vectors of 16 bytes. */
static __global__ void add_vectors(float4 *out, const float4 *x, const float4 *y, int n)
{
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += (int)(gridDim.x * blockDim.x)) {
        const float4 a = x[i], b = y[i];
        out[i] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
    }
}

/* Shared memory: a row per block, passed on between neighbours. */
static __global__ void shared_passes(float *out, int n)
{
    SHARED(float, row, [256]);
    const unsigned t = threadIdx.x;
    row[t] = (float)t;
    for (int i = 0; i < n; i++) {
        __syncthreads(); /* the row is written */
        const float next = row[(t + 1) % 256] + row[(t + 2) % 256];
        __syncthreads(); /* the row is read */
        row[t] = next * 0.5f;
    }
    out[blockIdx.x * blockDim.x + t] = row[t];
}

static double now()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The shortest of five, in seconds. */
template <class F> static double seconds(F f)
{
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        const double begin = now();
        f();
        const double took = now() - begin;
        if (took < best) best = took;
    }
    return best;
}

int main()
{
    enum { N = 1 << 20 };
    float *out, *x, *y;
    cudaMalloc(&out, N * sizeof(float));
    cudaMalloc(&x, N * sizeof(float));
    cudaMalloc(&y, N * sizeof(float));
    cudaMemset(x, 0, N * sizeof(float));
    cudaMemset(y, 0, N * sizeof(float));
    for (int t : {32, 256, 1024}) {
        const int n = 100000 / t;
        const double work = 2e-6 * n * t;
        const double b = seconds([&] { LAUNCH(barriers, 2, t, 0, 0, out, n); });
        const double s = seconds([&] { LAUNCH(shuffles, 2, t, 0, 0, out, n); });
        const double m = seconds([&] { LAUNCH(products, 2, t, 0, 0, out, n); });
        const double l = seconds([&] { LAUNCH(tile_loads, 2, t, 512, 0, out, n); });
        printf("2 blocks of %4d: %6.1f M barrier arrivals/s, %6.1f M lane shuffles/s, %5.2f M warp "
               "mma/s, "
               "%5.2f M warp ldmatrix/s\n",
               t, work / b, work / s, work / 32 / m, work / 32 / l);
    }
    const double e = seconds([&] { LAUNCH(nothing, 4096, 256, 0, 0, out); });
    const double a = seconds([&] { LAUNCH(add, 256, 256, 0, 0, out, x, y, N); });
    const double v = seconds([&] {
        LAUNCH(add_vectors, 64, 256, 0, 0, (float4 *)out, (const float4 *)x, (const float4 *)y,
               N / 4);
    });
    const double p = seconds([&] { LAUNCH(shared_passes, 16, 256, 0, 0, out, 100); });
    const double l = seconds([&] {
        for (int i = 0; i < 1000; i++) {
            LAUNCH(nothing, 1, 32, 0, 0, out);
        }
    });
    printf("%.1f M empty threads/s; %.2f us a launch of one warp\n", 1e-6 * N / e, 1e3 * l);
    printf("add: %.0f M elements/s by 4 bytes, %.0f by 16; shared memory: %.0f M accesses/s\n",
           1e-6 * N / a, 1e-6 * N / v, 1e-6 * 16 * 256 * 100 * 3 / p);
    cudaFree(out);
    cudaFree(x);
    cudaFree(y);
    return cudaGetLastError() != cudaSuccess;
}
