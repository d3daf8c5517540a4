/* ptx.cu - one kernel per wrapper of kernels/ptx.h.  The inputs are functions of their place, so that device, emulator
 * and test compute the same. */
#include "kernels/device.h"
#include "kernels/vector.h"
#include "ptx/ptx.h"

#include <cmath>

/* Well mixed bits of a number.  Source: the finaliser of MurmurHash3 (Appleby, public domain). */
__host__ __device__ static uint32_t mixed(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* Exact: a whole number in -8 .. 8.  Else: in -2 .. 2, a multiple of 1/64, so that bf16 holds it (8 bits). */
__host__ __device__ static float input(int exact, int trial, int matrix, int row, int column)
{
    const uint32_t bits =
        mixed((uint32_t)((((trial * 4 + matrix) * 16 + row) * 16 + column) * 2 + exact + 1));
    if (exact) return (float)((int)(bits % 17u) - 8);
    const float x = (float)((int)(bits % 257u) - 128) / 64.0f;
    return matrix == 2 ? x * 1.2345678f : x; /* C is f32 and may have all its bits */
}

__host__ __device__ static float exp2_argument(int i)
{
    const float special[] = {0.0f,    -0.0f,  1.0f,   -126.0f, -126.5f, -149.0f,
                             -200.0f, 127.0f, 128.0f, 0.5f,    -0.5f,   1e-30f};
    const int specials = (int)(sizeof special / sizeof *special);
    if (i < specials) return special[i];
    return -127.0f + (float)i * (254.0f / PTX_EXP2) + (float)(mixed((uint32_t)i) % 1000u) * 1e-4f;
}

extern "C" float ptx_input(int exact, int trial, int matrix, int row, int column)
{
    return input(exact, trial, matrix, row, column);
}

extern "C" float ptx_exp2_argument(int i)
{
    return exp2_argument(i);
}

static __global__ void mma_kernel(uint32_t *out, int exact)
{
    const int trial = blockIdx.x, lane = threadIdx.x, g = lane / 4, t = lane % 4 * 2;
    uint32_t a[4], b[2];
    float c[4], d[4];
    for (int i = 0; i < 4; i++) {
        const int row = g + i % 2 * 8, column = t + i / 2 * 8;
        a[i] =
            pack_bf16(input(exact, trial, 0, row, column), input(exact, trial, 0, row, column + 1));
        c[i] = input(exact, trial, 2, g + i / 2 * 8, t + i % 2);
    }
    for (int i = 0; i < 2; i++) {
        const int row = t + i * 8;
        b[i] = pack_bf16(input(exact, trial, 1, row, g), input(exact, trial, 1, row + 1, g));
    }
    mma_m16n8k16_bf16(d, a, b, c);
    for (int i = 0; i < 4; i++) {
        out[(trial * 32 + lane) * 4 + i] = __float_as_uint(d[i]);
    }
}

static __global__ void ldmatrix_kernel(uint32_t *out)
{
    SHARED(uint4, tile, [32]);
    const int lane = threadIdx.x;
    const uint32_t at = (uint32_t)lane * 8u; /* element i of row r is 8 r + i */
    tile[lane] = make_uint4(at | (at + 1) << 16, (at + 2) | (at + 3) << 16,
                            (at + 4) | (at + 5) << 16, (at + 6) | (at + 7) << 16);
    __syncthreads(); /* all rows are written */
    uint32_t r[4], r2[2];
    out += lane * 12;
    ldmatrix_x4(r, &tile[lane]);
    for (int i = 0; i < 4; i++) {
        out[i] = r[i];
    }
    ldmatrix_x2(r2, &tile[lane]);
    for (int i = 0; i < 2; i++) {
        out[4 + i] = r2[i];
    }
    ldmatrix_x4_trans(r, &tile[lane]);
    for (int i = 0; i < 4; i++) {
        out[6 + i] = r[i];
    }
    ldmatrix_x2_trans(r2, &tile[lane]);
    for (int i = 0; i < 2; i++) {
        out[10 + i] = r2[i];
    }
}

static __global__ void cp_async_kernel(uint32_t *out, const uint4 *in)
{
    SHARED(uint4, buffer, [17]);
    const int i = threadIdx.x;
    if (i < 17) cp_async_16(&buffer[i], &in[i], i);
    cp_async_commit();
    cp_async_wait<0>();
    if (i < 17) { /* a thread sees what it copied itself */
        out[i * 4] = buffer[i].x;
        out[i * 4 + 1] = buffer[i].y;
        out[i * 4 + 2] = buffer[i].z;
        out[i * 4 + 3] = buffer[i].w;
    }
}

static __global__ void exp2_kernel(uint32_t *out)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = __float_as_uint(exp2_approx(exp2_argument(i)));
}

extern "C" int ptx_run(uint32_t *out)
{
    uint32_t *device = nullptr, host[17 * 4];
    uint4 *in = nullptr;
    for (uint32_t i = 0; i < 17 * 4; i++) {
        host[i] = mixed(i + 1);
    }
    if (cudaMalloc(&device, PTX_WORDS * sizeof *device) != cudaSuccess ||
        cudaMalloc(&in, sizeof host) != cudaSuccess ||
        cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice) != cudaSuccess)
        return (int)cudaGetLastError() + 1;
    uint32_t *to = device;
    LAUNCH(mma_kernel, PTX_TRIALS, 32, 0, 0, to, 1);
    to += PTX_MMA_EXACT_WORDS;
    LAUNCH(mma_kernel, PTX_TRIALS, 32, 0, 0, to, 0);
    to += PTX_MMA_WORDS;
    LAUNCH(ldmatrix_kernel, 1, 32, 0, 0, to);
    to += PTX_LDMATRIX_WORDS;
    LAUNCH(cp_async_kernel, 1, 32, 0, 0, to, in);
    to += PTX_CP_ASYNC_WORDS;
    LAUNCH(exp2_kernel, PTX_EXP2 / 128, 128, 0, 0, to);
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess)
        error = cudaMemcpy(out, device, PTX_WORDS * sizeof *out, cudaMemcpyDeviceToHost);
    cudaFree(device);
    cudaFree(in);
    return (int)error;
}
