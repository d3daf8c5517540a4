/* cast.c - the CPU computes in float32 alone, so what is cast is copied. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

cudpo_status cpu_cast(backend *be, tensor out, tensor x)
{
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(is_f32(out, x.rows, x.cols));
    CUDPO_REQUIRE(tensor_disjoint(out, x));
    return be->copy(be, out, x);
}
