/* network.c - a model of hierarchical collectives.
 *
 * In a node a ring, or a switch that does as well, moves (g-1)/g of the bytes at the bus' rate; between nodes each GPU moves its
 * share, (m-1)/m of 1/g of the bytes, over its own NIC; both are at work at once, so the slower one counts.  Latency is a hop
 * for each of the g-1 steps in a node, and of a tree between nodes.  Source of the form: nccl-tests, doc/PERFORMANCE.md;
 * NCCL, src/graph/tuning.cc. */
#include "plan/network.h"

#include <math.h>

/* What NCCL's blocks take away from computation while both run: 4-5 of 132 SMs in a node, 16 with a network behind it.
 * Source: Megatron-LM, distributed_data_parallel_config.py. */
#define TAX_NODE 0.04
#define TAX_NETWORK 0.12

static double larger(double a, double b)
{
    return a > b ? a : b;
}

int64_t network_ranks(const network *n)
{
    return (n->gpus + n->nodes - 1) / n->nodes;
}

double network_half(const network *n, const device_rates *r, double bytes)
{
    const double m = (double)n->nodes, g = (double)n->gpus / m;
    if (n->gpus <= 1) return 0;
    const double inside = (g - 1) / g * bytes / r->bus;
    const double outside = (m - 1) / m * bytes / g / r->nic;
    return larger(inside, outside) + (g - 1) * r->latency_link + ceil(log2(m)) * r->latency_nic;
}

network_time network_step(const network *n, const device_rates *r, const network_load *load)
{
    network_time t = {0};
    if (n->gpus <= 1) return t;
    const double tax = n->nodes > 1 ? TAX_NETWORK : TAX_NODE;
    const double scatter = network_half(n, r, load->bytes);
    const double last = network_half(n, r, load->last);
    if (load->zero_stage > 0) {
        const double gather = network_half(n, r, load->weights);
        t.total = scatter + gather;
        t.exposed =
            larger(0, scatter - last - load->backward) + last + larger(0, gather - load->forward);
    } else {
        t.total = 2 * scatter;
        t.exposed = larger(0, 2 * (scatter - last) - load->backward) + 2 * last;
    }
    t.tax = tax * (t.total - t.exposed);
    return t;
}
