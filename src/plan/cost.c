/* cost.c - an op takes as long as the slower of its operations and its bytes, and no less than a launch. */
#include "plan/cost.h"

cost_meter cost_meter_of(const device_rates *rates, const model_config *c, dtype type)
{
    return (cost_meter){.rates = rates, .type = type, .head_dim_column = rates_column(c->head_dim)};
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Operations a second; 0: it has none. */
static double speed(const cost_meter *m, work_kind kind)
{
    const device_rates *r = m->rates;
    switch (kind) {
    case WORK_GEMM:
    case WORK_HEAD_GEMM:
        return m->type == DTYPE_F32 ? r->gemm_f32 : r->gemm_bf16;
    case WORK_ATTENTION:
        return r->attention[m->head_dim_column];
    case WORK_ATTENTION_BACKWARD:
        return r->attention_backward[m->head_dim_column];
    default:
        return 0;
    }
}

static double bandwidth(const cost_meter *m, work_kind kind)
{
    const device_rates *r = m->rates;
    switch (kind) {
    case WORK_ELEMENTWISE:
        return r->elementwise;
    case WORK_LOGITS:
        return r->head;
    case WORK_ADAMW:
        return r->adamw;
    default:
        return r->copy;
    }
}

double cost_item(const cost_meter *m, const work_item *item)
{
    const double operations = speed(m, item->kind);
    const double computing = operations > 0 ? item->operations / operations : 0;
    return larger(larger(computing, item->bytes / bandwidth(m, item->kind)), m->rates->launch);
}

void cost_add(void *meter, const work_item *item)
{
    cost_meter *m = meter;
    const double operations = speed(m, item->kind), one = cost_item(m, item);
    const double seconds = item->times * one;
    m->sum.pass[item->pass] += seconds;
    m->sum.kind[item->kind] += seconds;
    m->sum.operations += item->times * item->operations;
    if (operations == 0 || one > item->operations / operations) m->sum.memory += seconds;
}

double cost_total(const cost *c)
{
    double seconds = 0;
    for (int p = 0; p < WORK_PASSES; p++)
        seconds += c->pass[p];
    return seconds;
}

void cost_accumulate(cost *to, const cost *from, double factor)
{
    for (int p = 0; p < WORK_PASSES; p++)
        to->pass[p] += factor * from->pass[p];
    for (int k = 0; k < WORK_KINDS; k++)
        to->kind[k] += factor * from->kind[k];
    to->memory += factor * from->memory;
    to->operations += factor * from->operations;
}
