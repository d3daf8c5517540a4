/* ptx.h - every instruction that CUDA C++ has no name for, with its twin for the emulator beside it.
 *
 * Included by device.h alone.  tests/test_ptx.c holds what a GPU answered for fixed inputs; the twins must agree. */
#ifndef CUDPO_KERNELS_PTX_H
#define CUDPO_KERNELS_PTX_H

#ifdef __CUDACC__
__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
#endif

/* d = a b + c for a 16x16 (row), b 16x8 (column), bf16 in, f32 out.  Lane 4g+t holds of a: rows g, g+8, columns 2t, 2t+1
 * and 2t+8, 2t+9 (registers: g low, g+8 low, g high, g+8 high); of b: rows 2t, 2t+1 and 2t+8, 2t+9 of column g; of c and
 * d: columns 2t, 2t+1 of row g, then of row g+8.  Source: PTX ISA, mma.m16n8k16. */
#ifdef __CUDACC__
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2], const float (&c)[4])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};\n"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
#else
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              const float (&c)[4], SIMT_SITE)
{
    simt::MmaArg m{d, a, b, c};
    simt::warp_op(0xffffffffu, simt::K_MMA, &m, simt::exec_mma_bf16, SIMT_HERE);
}
#endif

/* Four (two) 8x8 tiles of 16-bit elements from shared memory: lane 8i+r points at row r of tile i, 16 bytes, 16-byte
 * aligned; r[i] of lane 4g+t is elements 2t, 2t+1 of row g of tile i; _trans: of column g. */
#ifdef __CUDACC__
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
#else
template <int N, int TRANS> inline void simt_ldmatrix(uint32_t *r, const void *row, simt::Site s)
{
    simt::LdsmArg a{r, row, N, TRANS};
    simt::warp_op(0xffffffffu, simt::K_LDSM, &a, simt::exec_ldsm, s);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, SIMT_SITE)
{
    simt_ldmatrix<4, 0>(r, row, SIMT_HERE);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void *row, SIMT_SITE)
{
    simt_ldmatrix<2, 0>(r, row, SIMT_HERE);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, SIMT_SITE)
{
    simt_ldmatrix<4, 1>(r, row, SIMT_HERE);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row, SIMT_SITE)
{
    simt_ldmatrix<2, 1>(r, row, SIMT_HERE);
}
#endif

/* Copy 16 bytes from global to shared memory behind the thread's back: the first `valid` of them, zeros after.  Both
 * addresses 16-byte aligned.  Copies belong to the group that the next commit closes; wait<N> returns when all but the
 * last N groups of this thread have arrived; other threads need a barrier after it. */
#ifdef __CUDACC__
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, int valid = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
template <int N> __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}
#else
inline void cp_async_16(void *shared, const void *global, int valid = 16, SIMT_SITE)
{
    simt::cp_async(shared, global, 16, valid, SIMT_HERE);
}
inline void cp_async_commit()
{
    simt::cp_commit();
}
template <int N> inline void cp_async_wait()
{
    simt::cp_wait(N);
}
#endif

/* 2^x within 2 units in the last place, subnormal results flushed to 0. */
#ifdef __CUDACC__
__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}
#else
inline float exp2_approx(float x)
{
    const float y = ::exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y; /* false for NaN, which stays */
}
#endif

#endif /* CUDPO_KERNELS_PTX_H */
