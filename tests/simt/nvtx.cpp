/* nvtx.cpp - ranges of a thread, as NVTX counts them. */
#include "stream.h"

#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>

namespace
{

thread_local int depth;

} // namespace

extern "C" int nvtxRangePushA(const char *message)
{
    if (message == nullptr) {
        fprintf(stderr, "SIMT ERROR: nvtxRangePushA: a range without a name\n");
        abort();
    }
    simt::count(simt::RANGE);
    return depth++;
}

extern "C" int nvtxRangePop(void)
{
    if (depth == 0) {
        fprintf(stderr, "SIMT ERROR: nvtxRangePop: no range is open\n");
        abort();
    }
    simt::count(simt::RANGE_END);
    return --depth;
}
