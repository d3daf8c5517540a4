/* mini/cuda_runtime_api.h - the part of the CUDA runtime API this project uses, for builds without NVIDIA's headers (C11 and C++). */
#pragma once
#include <stddef.h>
typedef enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9, cudaErrorNotReady = 600 } cudaError_t;
typedef enum { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault } cudaMemcpyKind;
typedef enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 } cudaFuncAttribute;
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
#ifdef __cplusplus
extern "C" {
#endif
cudaError_t cudaMalloc(void** p, size_t n); cudaError_t cudaFree(void* p); cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t s); cudaError_t cudaFreeAsync(void* p, cudaStream_t s);
cudaError_t cudaMallocHost(void** p, size_t n); cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind k); cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t st);
cudaError_t cudaMemset(void* d, int v, size_t n); cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t st);
cudaError_t cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h, cudaMemcpyKind k, cudaStream_t st); cudaError_t cudaMemset2DAsync(void* d, size_t dp, int v, size_t w, size_t h, cudaStream_t st);
cudaError_t cudaStreamCreate(cudaStream_t* s); cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned f); cudaError_t cudaStreamDestroy(cudaStream_t s); cudaError_t cudaStreamSynchronize(cudaStream_t s); cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f);
cudaError_t cudaDeviceSynchronize(void); cudaError_t cudaEventCreate(cudaEvent_t* e); cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned f); cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s); cudaError_t cudaEventSynchronize(cudaEvent_t e); cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b); cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaGetLastError(void); cudaError_t cudaPeekAtLastError(void); const char* cudaGetErrorString(cudaError_t e); const char* cudaGetErrorName(cudaError_t e);
cudaError_t cudaGetDeviceCount(int* n); cudaError_t cudaSetDevice(int d); cudaError_t cudaGetDevice(int* d); cudaError_t cudaFuncSetAttribute(const void* f, cudaFuncAttribute a, int v);
#ifdef __cplusplus
}
#endif
