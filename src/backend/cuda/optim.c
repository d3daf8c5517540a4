/* optim.c - the optimizer's ops, and those on rows by index. */
#include "backend/cuda/ops.h"

#include <math.h>

static cuda_backend *of(backend *be)
{
    return (cuda_backend *)be;
}

static cudpo_status embed(backend *be, tensor x, tensor table, tensor token)
{
    return cuda_embed(x, table, token, of(be)->fault, of(be)->stream);
}

static cudpo_status embed_backward(backend *be, tensor dtable, tensor dx, tensor token)
{
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, of(be), cuda_embed_backward_scratch(dx.rows)));
    return cuda_embed_backward(dtable, dx, token, s, of(be)->fault, of(be)->stream);
}

static cudpo_status gather_rows(backend *be, tensor out, tensor x, tensor index)
{
    return cuda_gather_rows(out, x, index, of(be)->fault, of(be)->stream);
}

static cudpo_status scatter_rows(backend *be, tensor dx, tensor drow, tensor index, tensor scale)
{
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, of(be), cuda_scatter_rows_scratch(drow.rows)));
    return cuda_scatter_rows(dx, drow, index, scale, s, of(be)->fault, of(be)->stream);
}

static cudpo_status scale_rows(backend *be, tensor x, tensor scale)
{
    return cuda_scale_rows(x, scale, of(be)->stream);
}

static cudpo_status sum_squares(backend *be, double *host_out, tensor g)
{
    CUDPO_REQUIRE(host_out != NULL);
    const size_t bytes = cuda_sum_squares_scratch();
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, of(be), bytes + sizeof(double)));
    const tensor sum = tensor_vector((char *)s.data + bytes, DTYPE_F64, 1);
    CUDPO_TRY(be->zero(be, sum));
    CUDPO_TRY(cuda_sum_squares(sum, g, s, of(be)->stream));
    return be->copy_out(be, host_out, sum.data, sizeof *host_out);
}

static cudpo_status adamw(backend *be, tensor w, tensor m, tensor v, tensor gradient,
                          float gradient_scale, adamw_step step)
{
    CUDPO_REQUIRE(w.type != DTYPE_BF16); /* this call has no key for their rounding */
    CUDPO_REQUIRE(isfinite(gradient_scale));
    const adamw_tensors p = {
        .w = w, .m = m, .v = v, .gradient = gradient, .factor = gradient_scale};
    return cuda_adamw(&p, step, of(be)->stream);
}

void cuda_optim_install(backend *t)
{
    t->embed = embed;
    t->embed_backward = embed_backward;
    t->gather_rows = gather_rows;
    t->scatter_rows = scatter_rows;
    t->scale_rows = scale_rows;
    t->sum_squares = sum_squares;
    t->adamw = adamw;
}
