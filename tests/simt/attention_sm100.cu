/* attention_sm100.cu - attention's backward pass as it is from compute capability 10.0 on, where FEWER_REGISTERS is 1:
 * cuda_attention_backward_sm100. */
#include "attention_f32.h" /* what does not depend on it */

#define cuda_attention_backward cuda_attention_backward_sm100
#define cuda_attention_backward_scratch cuda_attention_backward_scratch_sm100
namespace sm100
{
enum { FEWER_REGISTERS = 1 }; /* hides that of kernels/device.h */
#include "attention_backward.cu"
} // namespace sm100
