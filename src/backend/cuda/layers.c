/* layers.c - the ops of a transformer layer but for attention. */
#include "backend/cuda/gemm.h"
#include "backend/cuda/ops.h"

static cuda_backend *of(backend *be)
{
    return (cuda_backend *)be;
}

static cudpo_status gemm(backend *be, tensor c, tensor a, bool transpose_a, tensor b,
                         bool transpose_b, float beta)
{
    return cuda_gemm_run(of(be)->gemm, c, a, transpose_a, b, transpose_b, beta, of(be)->stream);
}

static cudpo_status add_rmsnorm(backend *be, tensor y, tensor rstd, tensor sum, tensor x,
                                tensor branch, tensor w, float epsilon)
{
    return cuda_add_rmsnorm(y, rstd, sum, x, branch, w, epsilon, of(be)->stream);
}

static cudpo_status rmsnorm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                     tensor rstd, tensor w)
{
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, of(be), cuda_rmsnorm_backward_scratch(x.rows, x.cols)));
    return cuda_rmsnorm_backward(dx, dw, dy, x, rstd, w, s, of(be)->stream);
}

static cudpo_status rmsnorm_again(backend *be, tensor y, tensor x, tensor rstd, tensor w)
{
    return cuda_rmsnorm_again(y, x, rstd, w, of(be)->stream);
}

static cudpo_status head_norm(backend *be, tensor y, tensor rstd, tensor x, tensor w, float epsilon)
{
    return cuda_head_norm(y, rstd, x, w, epsilon, of(be)->stream);
}

static cudpo_status head_norm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                       tensor rstd, tensor w)
{
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, of(be), cuda_head_norm_backward_scratch(x.rows, rstd.cols, w.cols)));
    return cuda_head_norm_backward(dx, dw, dy, x, rstd, w, s, of(be)->stream);
}

static cudpo_status bias_add(backend *be, tensor x, tensor bias)
{
    return cuda_bias_add(x, bias, of(be)->stream);
}

static cudpo_status bias_backward(backend *be, tensor dbias, tensor dx)
{
    scratch s;
    CUDPO_TRY(cuda_scratch(&s, of(be), cuda_bias_backward_scratch(dx.rows, dx.cols)));
    return cuda_bias_backward(dbias, dx, s, of(be)->stream);
}

static cudpo_status add(backend *be, tensor x, tensor y)
{
    return cuda_add(x, y, of(be)->stream);
}

static cudpo_status rope(backend *be, tensor x, tensor cosine, tensor sine, tensor position,
                         int head_dim, bool inverse)
{
    return cuda_rope(x, cosine, sine, position, head_dim, inverse, of(be)->fault, of(be)->stream);
}

static cudpo_status swiglu(backend *be, tensor act, tensor gate_up)
{
    return cuda_swiglu(act, gate_up, of(be)->stream);
}

static cudpo_status swiglu_backward(backend *be, tensor dgate_up, tensor act, tensor dact,
                                    tensor gate_up)
{
    return cuda_swiglu_backward(dgate_up, act, dact, gate_up, of(be)->stream);
}

static cudpo_status map(backend *be, tensor out, map_function f, tensor a, tensor b, float k)
{
    return cuda_map(out, f, a, b, k, of(be)->stream);
}

static cudpo_status reduce(backend *be, tensor out, tensor a, bool largest)
{
    return cuda_reduce(out, a, largest, of(be)->stream);
}

void cuda_layers_install(backend *t)
{
    t->gemm = gemm;
    t->add_rmsnorm = add_rmsnorm;
    t->rmsnorm_backward = rmsnorm_backward;
    t->rmsnorm_again = rmsnorm_again;
    t->head_norm = head_norm;
    t->head_norm_backward = head_norm_backward;
    t->bias_add = bias_add;
    t->bias_backward = bias_backward;
    t->add = add;
    t->rope = rope;
    t->swiglu = swiglu;
    t->swiglu_backward = swiglu_backward;
    t->map = map;
    t->reduce = reduce;
}
