/* nvToolsExt.h - of NVTX 3, what cudpo calls.  A stand-in for NVIDIA's header: ranges are counted, and must nest. */
#ifndef CUDPO_SIMT_NVTX_H
#define CUDPO_SIMT_NVTX_H

#ifdef __cplusplus
extern "C" {
#endif

int nvtxRangePushA(const char *message); /* the depth that it begins, 0 for the outermost */
int nvtxRangePop(void);                  /* the depth that ends; below 0 where none is open */

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_SIMT_NVTX_H */
