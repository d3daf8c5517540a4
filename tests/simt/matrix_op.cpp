/* matrix_op.cpp - mma.sync and ldmatrix, by the fragment layouts of the PTX ISA ("Warp-level matrix instructions").
 *
 * kernels/ptx.h says which lane holds what.  In the comments below, g = lane / 4 and t = lane % 4. */
#include "internal.h"

#include <cstring>

namespace simt
{

static inline float bf16_value(uint32_t bits)
{
    bits <<= 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Two bf16 of a register into neighbours; `step` elements apart. */
static inline void spread(float *to, size_t step, uint32_t pair)
{
    to[0] = bf16_value(pair & 0xffffu);
    to[step] = bf16_value(pair >> 16);
}

/* d = a b + c.  Products are added in the order of k, each sum rounded to float: a GPU's tensor cores add several
 * products at once and truncate, so their bits differ, and only these here are the same everywhere. */
void exec_mma_bf16(void **arguments, unsigned)
{
    typedef float Row __attribute__((vector_size(32))); /* the 8 columns of a row of b, c and d */
    alignas(32) float a[16][16], b[16][8], d[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const MmaArg &m = *static_cast<MmaArg *>(arguments[lane]);
        const unsigned g = lane / 4, t2 = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) {
            spread(&a[g + i % 2 * 8][t2 + i / 2 * 8], 1, m.a[i]);
            d[g + i / 2 * 8][t2 + i % 2] = m.c[i];
        }
        for (unsigned i = 0; i < 2; i++) {
            spread(&b[t2 + i * 8][g], 8, m.b[i]);
        }
    }
    Row rows[16];
    memcpy(rows, b, sizeof b);
    for (int r = 0; r < 16; r++) {
        Row sum;
        memcpy(&sum, d[r], sizeof sum);
        for (int k = 0; k < 16; k++) {
            sum += a[r][k] * rows[k];
        }
        memcpy(d[r], &sum, sizeof sum);
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        const MmaArg &m = *static_cast<MmaArg *>(arguments[lane]);
        const unsigned g = lane / 4, t2 = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) {
            m.d[i] = d[g + i / 2 * 8][t2 + i % 2];
        }
    }
}

/* Lane 8i+r points at row r of tile i; register i of a lane becomes elements 2t and 2t+1 of row g, or of column g. */
void exec_ldsm(void **arguments, unsigned)
{
    const LdsmArg &first = *static_cast<LdsmArg *>(arguments[0]);
    uint16_t tiles[4][8][8];
    for (int lane = 0; lane < 8 * first.count; lane++) {
        const Thread &t = worker->threads[current->warp * 32u + (unsigned)lane];
        const void *const row = static_cast<LdsmArg *>(arguments[lane])->row;
        check_shared(row, 16, t.site, "ldmatrix");
        race_access(row, 16, READ, t.linear, t.site);
        memcpy(tiles[lane / 8][lane % 8], row, 16);
    }
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t2 = lane % 4 * 2;
        for (int i = 0; i < first.count; i++) {
            const uint16_t low = first.transposed ? tiles[i][t2][g] : tiles[i][g][t2];
            const uint16_t high = first.transposed ? tiles[i][t2 + 1][g] : tiles[i][g][t2 + 1];
            static_cast<LdsmArg *>(arguments[lane])->r[i] = (uint32_t)low | (uint32_t)high << 16;
        }
    }
}

} // namespace simt
