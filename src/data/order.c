/* order.c - the Mersenne Twister and the two shuffles of torch.randperm on the CPU. */
#include "data/order.h"

/* MT19937, Matsumoto and Nishimura 1998. */
enum { WORDS = 624, SHIFT = 397 };

typedef struct twister {
    uint32_t word[WORDS];
    int used;
} twister;

static void twister_seed(twister *t, uint32_t seed)
{
    t->word[0] = seed;
    for (uint32_t i = 1; i < WORDS; i++)
        t->word[i] = 1812433253U * (t->word[i - 1] ^ (t->word[i - 1] >> 30)) + i;
    t->used = WORDS;
}

static void twister_refill(twister *t)
{
    for (int i = 0; i < WORDS; i++) {
        const uint32_t y = (t->word[i] & 0x80000000U) | (t->word[(i + 1) % WORDS] & 0x7fffffffU);
        t->word[i] = t->word[(i + SHIFT) % WORDS] ^ (y >> 1) ^ ((y & 1U) != 0 ? 0x9908b0dfU : 0U);
    }
    t->used = 0;
}

static uint32_t twister_next(twister *t)
{
    if (t->used == WORDS) twister_refill(t);
    uint32_t y = t->word[t->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680U;
    y ^= (y << 15) & 0xefc60000U;
    return y ^ (y >> 18);
}

void order_shuffle(int64_t *permutation, int64_t n, uint64_t seed, int64_t epoch)
{
    twister t;
    twister_seed(&t, (uint32_t)(seed + (uint64_t)epoch));
    for (int64_t i = 0; i < n; i++)
        permutation[i] = i;
    for (int64_t i = 0; i + 1 < n; i++) {
        const int64_t j = i + (int64_t)(twister_next(&t) % (uint64_t)(n - i));
        const int64_t held = permutation[i];
        permutation[i] = permutation[j];
        permutation[j] = held;
    }
}
