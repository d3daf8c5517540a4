/* test_simt.cu - the emulator computes what CUDA does: shuffles, votes, barriers, atomics, cp.async, arithmetic.
 *
 * What it must refuse is in simt/bugs/; mma and ldmatrix are in test_ptx.c, beside what a GPU answered. */
#include "kernels/device.h"
#include "kernels/vector.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

static int failures, checks;

#define CHECK(condition, ...)                                      \
    do {                                                           \
        checks++;                                                  \
        if (!(condition) && ++failures <= 20) {                    \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            printf(__VA_ARGS__);                                   \
            printf("\n");                                          \
        }                                                          \
    } while (0)

/* n elements in device memory, and back. */
template <typename T> struct Device {
    T *data = nullptr;
    size_t n;
    explicit Device(size_t count) : n(count)
    {
        cudaMalloc(&data, n * sizeof(T));
        cudaMemset(data, 0, n * sizeof(T));
    }
    Device(const Device &) = delete;
    ~Device() { cudaFree(data); }
    std::vector<T> get() const
    {
        std::vector<T> host(n);
        cudaMemcpy(host.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost);
        return host;
    }
};

/* A value that tells its lane, in all of its bits. */
template <typename T> static __host__ __device__ T of_lane(int lane)
{
    return (T)((T)(lane - 7) * (sizeof(T) == 8 ? (T)1000000007 : (T)1));
}

enum { SHUFFLE_IDX, SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_XOR, SHUFFLES };

/* out[(shuffle * 32 + argument) * 32 + lane] */
template <typename T> static __global__ void shuffles(T *out, int width)
{
    const int lane = threadIdx.x;
    const T v = of_lane<T>(lane);
    for (int i = 0; i < 32; i++) {
        out[(SHUFFLE_IDX * 32 + i) * 32 + lane] = __shfl_sync(0xffffffffu, v, i, width);
        out[(SHUFFLE_UP * 32 + i) * 32 + lane] = __shfl_up_sync(0xffffffffu, v, i, width);
        out[(SHUFFLE_DOWN * 32 + i) * 32 + lane] = __shfl_down_sync(0xffffffffu, v, i, width);
        out[(SHUFFLE_XOR * 32 + i) * 32 + lane] = __shfl_xor_sync(0xffffffffu, v, i, width);
    }
}

/* CUDA C++ Programming Guide, "Warp Shuffle Functions": the lane that is read, or the lane itself. */
static int source_lane(int shuffle, int argument, int lane, int width)
{
    const int begin = lane / width * width, end = begin + width;
    if (shuffle == SHUFFLE_IDX) return begin + argument % width;
    if (shuffle == SHUFFLE_UP) return lane - argument < begin ? lane : lane - argument;
    if (shuffle == SHUFFLE_DOWN) return lane + argument >= end ? lane : lane + argument;
    return (lane ^ argument) >= end ? lane : lane ^ argument;
}

template <typename T> static void test_shuffles()
{
    Device<T> out(SHUFFLES * 32 * 32);
    for (int width = 1; width <= 32; width *= 2) {
        LAUNCH((shuffles<T>), 1, 32, 0, 0, out.data, width);
        const std::vector<T> got = out.get();
        for (int i = 0; i < SHUFFLES * 32 * 32; i++) {
            const int shuffle = i / 1024, argument = i / 32 % 32, lane = i % 32;
            const int source = source_lane(shuffle, argument, lane, width);
            CHECK(got[i] == of_lane<T>(source), "shuffle %d by %d, width %d, lane %d", shuffle,
                  argument, width, lane);
        }
    }
}

/* The even lanes vote alone; then the whole warp, in a block that ends within a warp. */
static __global__ void votes(unsigned *out)
{
    const unsigned t = threadIdx.x, lane = t % 32, mask = t < 32 ? 0xffffffffu : 0xffffu;
    unsigned even = 0;
    if (lane % 2 == 0) even = __ballot_sync(0x55555555u & mask, lane % 3 == 0);
    out[t * 8 + 0] = even;
    out[t * 8 + 1] = __ballot_sync(mask, lane % 3 == 0);
    out[t * 8 + 2] = (unsigned)(__any_sync(mask, lane == 5) + 2 * __any_sync(mask, 0));
    out[t * 8 + 3] = (unsigned)(__all_sync(mask, lane < 32) + 2 * __all_sync(mask, lane != 5));
    out[t * 8 + 4] = __reduce_add_sync(mask, lane) + (unsigned)__reduce_add_sync(mask, -1);
    out[t * 8 + 5] = (unsigned)__reduce_min_sync(mask, (int)lane - 9);
    out[t * 8 + 6] = __reduce_max_sync(mask, lane == 3 ? 0xfffffff0u : lane);
    out[t * 8 + 7] = __reduce_and_sync(mask, lane | 0x40u) ^ __reduce_or_sync(mask, lane) << 8 ^
                     __reduce_xor_sync(mask, 1u << lane) << 16;
}

static void test_votes()
{
    Device<unsigned> out(48 * 8);
    LAUNCH(votes, 1, 48, 0, 0, out.data);
    const std::vector<unsigned> got = out.get();
    for (unsigned t = 0; t < 48; t++) {
        const unsigned lanes = t < 32 ? 32 : 16,
                       all = t < 32 ? ~0u : 0xffffu, *const g = &got[t * 8];
        unsigned thirds = 0;
        for (unsigned lane = 0; lane < lanes; lane += 3) {
            thirds |= 1u << lane;
        }
        CHECK(g[0] == (t % 2 == 0 ? thirds & 0x55555555u : 0), "ballot of even lanes, %08x", g[0]);
        CHECK(g[1] == thirds, "ballot %08x", g[1]);
        CHECK(g[2] == 1, "any %u", g[2]);
        CHECK(g[3] == 1, "all %u", g[3]);
        CHECK(g[4] == lanes * (lanes - 1) / 2 - lanes, "sum %u", g[4]);
        CHECK(g[5] == (unsigned)-9, "min %u", g[5]);
        CHECK(g[6] == 0xfffffff0u, "max %u", g[6]);
        CHECK(g[7] == (0x40u ^ (lanes - 1) << 8 ^ all << 16), "and, or, xor %08x", g[7]);
    }
}

/* Barriers answer for all threads of a block of three warps and a half. */
static __global__ void predicates(int *out)
{
    SHARED(int, row, [112]);
    const int t = threadIdx.x;
    int *const mine = out + (blockIdx.x * blockDim.x + t) * 6;
    row[t] = t;
    mine[0] = __syncthreads_count(t % 5 == 0);
    mine[1] = row[111 - t]; /* the barrier ordered it */
    mine[2] = __syncthreads_or(t == 111);
    mine[3] = __syncthreads_or(0);
    mine[4] = __syncthreads_and(t < 112);
    mine[5] = __syncthreads_and(t != 50);
}

static void test_barriers()
{
    Device<int> out(3 * 112 * 6);
    LAUNCH(predicates, 3, 112, 0, 0, out.data);
    const std::vector<int> got = out.get();
    for (int i = 0; i < 3 * 112; i++) {
        const int *const g = &got[(size_t)i * 6];
        CHECK(g[0] == 23 && g[1] == 111 - i % 112, "count %d, row %d", g[0], g[1]);
        CHECK(g[2] && !g[3] && g[4] && !g[5], "or %d %d, and %d %d", g[2], g[3], g[4], g[5]);
    }
}

/* Every index of a grid and a block of three dimensions, once. */
static __global__ void indices(int *out)
{
    const int block = (int)((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
    const int thread = (int)((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
    const int threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    out[block * threads + thread] += block * threads + thread + 1;
}

static void test_indices()
{
    const dim3 grid(3, 2, 4), block(5, 3, 7);
    Device<int> out(24 * 105);
    LAUNCH(indices, grid, block, 0, 0, out.data);
    const std::vector<int> got = out.get();
    for (int i = 0; i < 24 * 105; i++) {
        CHECK(got[i] == i + 1, "thread %d: %d", i, got[i]);
    }
}

struct Atomics {
    unsigned sum, difference, least, most, either, both, parity, last, winners, turns;
    unsigned long long wide;
};

static __global__ void atomics(Atomics *a)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&a->sum, i);         /* integers */
    atomicSub(&a->difference, 1u); /* integers */
    atomicMin(&a->least, i + 3);
    atomicMax(&a->most, i);
    atomicOr(&a->either, 1u << i % 20);
    atomicAnd(&a->both, ~(1u << i % 3));
    atomicXor(&a->parity, 1u << i % 32);
    atomicExch(&a->last, 7u);
    if (atomicCAS(&a->winners, 0u, i + 1) == 0u) atomicAdd(&a->turns, 1u); /* integers */
    atomicAdd(&a->wide, 1ull << 33);                                       /* integers */
}

static void test_atomics()
{
    Device<Atomics> device(1);
    const Atomics begin = {0, 1000, 999, 0, 0, ~0u, 0, 0, 0, 0, 0};
    cudaMemcpy(device.data, &begin, sizeof begin, cudaMemcpyHostToDevice);
    LAUNCH(atomics, 5, 100, 0, 0, device.data);
    const Atomics a = device.get()[0];
    CHECK(a.sum == 500 * 499 / 2 && a.difference == 500, "sum %u, difference %u", a.sum,
          a.difference);
    CHECK(a.least == 3 && a.most == 499, "least %u, most %u", a.least, a.most);
    CHECK(a.either == 0xfffffu && a.both == ~7u, "either %x, both %x", a.either, a.both);
    CHECK(a.parity == 0xfff00000u, "parity %x", a.parity); /* 500 = 15 x 32 + 20 */
    CHECK(a.last == 7 && a.turns == 1 && a.winners >= 1 && a.winners <= 500, "one winner: %u",
          a.turns);
    CHECK(a.wide == 500ull << 33, "wide %llx", a.wide);
}

/* Four copies in as many groups; after wait<n>, all but the last n are there for sure. */
static __global__ void copies(const uint4 *in, uint4 *out)
{
    SHARED(uint4, tile, [4 * 32]);
    const int t = threadIdx.x;
    for (int i = 0; i < 4; i++) {
        cp_async_16(&tile[i * 32 + t], &in[i * 32 + t], i == 3 ? 6 : 16);
        cp_async_commit();
    }
    cp_async_wait<3>();
    out[t] = tile[t];
    cp_async_wait<1>();
    out[32 + t] = tile[32 + t];
    out[64 + t] = tile[64 + t];
    cp_async_wait<0>();
    __syncthreads(); /* everyone's copies are there for everyone */
    out[96 + t] = tile[96 + 31 - t];
}

static void test_copies()
{
    Device<uint4> in(4 * 32), out(4 * 32);
    std::vector<uint4> host;
    for (unsigned i = 0; i < 4 * 32; i++) {
        host.push_back(make_uint4(i, i + 1000, i + 2000, i + 3000));
    }
    cudaMemcpy(in.data, host.data(), in.n * sizeof(uint4), cudaMemcpyHostToDevice);
    LAUNCH(copies, 1, 32, 0, 0, in.data, out.data);
    const std::vector<uint4> got = out.get();
    for (unsigned i = 0; i < 96; i++) {
        CHECK(got[i].x == i && got[i].w == i + 3000, "copy %u: %u", i, got[i].x);
    }
    for (unsigned t = 0; t < 32; t++) {
        const uint4 v = got[96 + t];
        CHECK(v.x == 96 + 31 - t && v.y == v.x + 1000 && v.z == 0 && v.w == 0, "6 bytes: %u %u %u",
              v.x, v.y, v.z);
    }
}

/* All floats that are halfway between two bf16, and their neighbours, round to the nearest, ties to even.  Thread i has
 * the floats whose upper half is i; counts[i] is how many are wrong. */
static __global__ void roundings(int *counts)
{
    const uint32_t high = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t lows[] = {0x0000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu};
    int wrong = 0;
    for (int i = 0; i < 5; i++) {
        const float x = __uint_as_float(high << 16 | lows[i]);
        const bool up = i > 2 || (i == 2 && high % 2 == 1);
        const uint32_t got = __bfloat16_as_ushort(__float2bfloat16_rn(x));
        wrong += got != high + up;
        wrong += __bfloat16_as_ushort(__float2bfloat16_rn(-x)) != (got | 0x8000u);
    }
    const float below = __uint_as_float(high << 16 | 0xffffu);
    wrong += __bfloat16_as_ushort(__float2bfloat16_rz(below)) != high;
    const bf16 down = __ushort_as_bfloat16((unsigned short)high);
    wrong += __float_as_uint(__bfloat162float(down)) != high << 16;
    counts[high] = wrong;
}

static void test_roundings()
{
    Device<int> counts(0x7f80); /* all that are finite and not negative */
    LAUNCH(roundings, 0x7f80 / 128, 128, 0, 0, counts.data);
    const std::vector<int> got = counts.get();
    for (size_t i = 0; i < got.size(); i++) {
        CHECK(got[i] == 0, "upper half %04zx: %d roundings", i, got[i]);
    }
}

enum { FACTS = 64 };

/* facts[i] becomes 1 where the i-th of these holds. */
static __global__ void arithmetic(int *facts, float nan, float one)
{
    int n = 0;
    facts[n++] = __brev(1u) == 0x80000000u && __brev(0x12345678u) == 0x1e6a2c48u;
    facts[n++] = __popc(0xf0f0u) == 8 && __popcll(~0ull) == 64;
    facts[n++] = __clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(1) == 63;
    facts[n++] = __ffs(0) == 0 && __ffs(8) == 4 && __ffsll(1ll << 40) == 41;
    facts[n++] = __umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu && __mulhi(-1, 1) == -1;
    facts[n++] = __umul64hi(~0ull, ~0ull) == ~0ull - 1;
    facts[n++] = __byte_perm(0x33221100u, 0x77665544u, 0x7250) == 0x77225500u;
    facts[n++] = rsqrtf(4.0f * one) == 0.5f && isinf(rsqrtf(0.0f)) && isnan(rsqrtf(-one));
    facts[n++] = __float2int_rn(2.5f) == 2 && __float2int_rz(-2.9f) == -2;
    facts[n++] = __float2int_rn(1e20f) == INT32_MAX && __float2int_rz(nan) == 0;
    facts[n++] = __float2int_rd(-0.5f) == -1 && __float2int_ru(0.5f) == 1;
    facts[n++] =
        __saturatef(2.0f) == 1.0f && __saturatef(-2.0f) == 0.0f && __saturatef(nan) == 0.0f;
    facts[n++] = max(nan, 1.0f) == 1.0f && min(2, 3) == 2 && max(2u, 3u) == 3u;
    facts[n++] = fmaf(0x1.000002p0f * one, 0x1.000002p0f, -0x1.000004p0f) == 0x1p-46f;
    facts[n++] =
        __expf(0.0f) == 1.0f && __logf(one) == 0.0f && __fdividef(6.0f * one, 2.0f) == 3.0f;
    facts[n++] = __frcp_rn(one + 2.0f) == 1.0f / 3.0f && __fsqrt_rn(9.0f * one) == 3.0f;
    facts[n++] = isfinite(one) && !isfinite(nan) && !isnan(one) && signbit(-one);
    facts[n++] = isnan(__bfloat162float(__float2bfloat16_rn(nan)));
    facts[n++] = __bfloat162float(bf16(one) + bf16(0.00390625f)) == 1.0f; /* a bf16 again: a tie */
    facts[n++] = bf16(one) < bf16(2.0f) && bf16(-one) == -bf16(one);
    const float2 pair = __bfloat1622float2(__floats2bfloat162_rn(1.5f * one, -2.0f));
    facts[n++] = pair.x == 1.5f && pair.y == -2.0f;
    facts[n++] = pack_bf16(one, -2.0f) == 0xc0003f80u; /* the first is in the low half */
    for (; n < FACTS; n++) {
        facts[n] = 1;
    }
}

static void test_arithmetic()
{
    Device<int> facts(FACTS);
    LAUNCH(arithmetic, 1, 1, 0, 0, facts.data, NAN, 1.0f);
    const std::vector<int> got = facts.get();
    for (int i = 0; i < FACTS; i++) {
        CHECK(got[i] == 1, "fact %d", i);
    }
}

#ifndef __CUDACC__
/* Everything whose bits could depend on compiler, options, schedule or checker.  A GPU's are others. */
static __global__ void __launch_bounds__(128, 2) many(float *out, const float *in, int n)
{
    SHARED(float, part, [4]);
    DYN_SHARED(float4, tile);
    const int t = threadIdx.x, i = blockIdx.x * 128 + t;
    const float4 v = __ldg(reinterpret_cast<const float4 *>(in) + i % (n / 4));
    tile[t] = make_float4(expf(-v.x), logf(1.0f + v.y), rsqrtf(1.0f + v.z), exp2f(v.w) * v.x + v.y);
    __syncthreads(); /* the tile is written */
    const float4 w = tile[(t * 37 + 11) % 128];
    float x = fmaf(w.x, w.y, log1pf(w.z)) + (float)sqrt((double)w.w);
    x = block_sum<4>(x, part) / (1.0f + warp_max(x));
    uint32_t a[4], b[2] = {pack_bf16(x, w.x), pack_bf16(w.y, w.z)};
    __syncthreads(); /* the tile is read */
    reinterpret_cast<uint4 *>(tile)[t] =
        make_uint4(pack_bf16(w.x, w.y), pack_bf16(w.z, x), b[0], b[1]);
    __syncwarp(); /* the warp's rows of the tile are written */
    ldmatrix_x4_trans(a, tile + t);
    float c[4] = {w.x, w.y, w.z, w.w}, d[4];
    mma_m16n8k16_bf16(d, a, b, c);
    __stcs(reinterpret_cast<float4 *>(out) + i, make_float4(d[0], d[1], d[2], d[3]));
}

static void test_same_bits()
{
    enum { N = 1024 };
    Device<float> in(N), out(8 * 128 * 4);
    std::vector<float> host;
    for (int i = 0; i < N; i++) {
        host.push_back((float)(i * 37 % 101) / 64.0f);
    }
    cudaMemcpy(in.data, host.data(), N * sizeof(float), cudaMemcpyHostToDevice);
    LAUNCH(many, 8, 128, 128 * sizeof(float4), 0, out.data, in.data, N);
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const float x : out.get()) {
        unsigned char bytes[sizeof x];
        memcpy(bytes, &x, sizeof x);
        for (const unsigned char byte : bytes) {
            hash = (hash ^ byte) * 1099511628211u;
        }
    }
    CHECK(hash == 0x4b0f3c6e438c1655u, "the bits of all results were others: %016llx",
          (unsigned long long)hash);
}

#endif

int main()
{
    test_shuffles<float>();
    test_shuffles<int>();
    test_shuffles<unsigned>();
    test_shuffles<double>();
    test_shuffles<long long>();
    test_votes();
    test_barriers();
    test_indices();
    test_atomics();
    test_copies();
    test_roundings();
    test_arithmetic();
#ifndef __CUDACC__
    test_same_bits();
#endif
    CHECK(cudaGetLastError() == cudaSuccess, "a launch failed");
    printf("%d checks, %d failed\n", checks, failures);
    return failures > 0 || checks == 0;
}
