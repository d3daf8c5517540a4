/* loss.h - every preference loss as scalar maths: from the scores of one unit to its loss, its gradient, its metrics.
 *
 * A unit is a pair, or one completion of a labelled or supervised row.  Its sequences are the completions (chosen, then
 * rejected) and, for a loss that scores it, the prompt.  To add a loss: one line in LOSS_TABLE, one function, one case in
 * loss_unit_evaluate().  The same code runs on the CPU and in the CUDA loss kernel; it is double inside.
 *
 * Notation: lp policy, rp reference log-prob of a sequence, summed over its scored tokens, in nats; a = lp - rp of
 * chosen, b of rejected; n tokens of a completion; softplus(x) = log(1 + e^x) = -log sigmoid(-x). */
#ifndef CUDPO_PREFERENCE_LOSS_H
#define CUDPO_PREFERENCE_LOSS_H

#include "tensor/tensor.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define LOSS_FUNCTION static inline __host__ __device__
#else
#define LOSS_FUNCTION static inline
#endif

/* What a loss takes.  name as in TRL; completions of a unit; whether a reference is needed, the prompt is scored too,
 * a batch estimate of the KL is needed, and whether the loss is a mean over tokens instead of units. */
/*           enum      name       completions  reference  prompt  kl     token_mean */
#define LOSS_TABLE(X)                                        \
    X(LOSS_SIGMOID, "sigmoid", 2, true, false, false, false) \
    X(LOSS_HINGE, "hinge", 2, true, false, false, false)     \
    X(LOSS_IPO, "ipo", 2, true, false, false, false)         \
    X(LOSS_KTO, "kto", 1, true, false, true, false)          \
    X(LOSS_ORPO, "orpo", 2, false, true, false, true)        \
    X(LOSS_SFT, "sft", 1, false, false, false, true)

typedef enum loss_kind {
#define LOSS_ENUM(kind, ...) kind,
    LOSS_TABLE(LOSS_ENUM)
#undef LOSS_ENUM
        LOSS_KINDS
} loss_kind;

typedef struct loss_traits {
    const char *name;
    int completions;
    bool reference, prompt, kl, token_mean;
} loss_traits;

/* The table's line of a loss, or of the loss of that name (NULL: there is none). */
const loss_traits *loss_traits_of(loss_kind kind);
const loss_traits *loss_traits_find(const char *name, loss_kind *kind);

enum { LOSS_MAX_SEQUENCES = 3 };

typedef struct loss_parameters {
    loss_kind kind;
    double beta;
    double label_smoothing; /* share of pairs thought to be labelled the wrong way round */
    double desirable_weight, undesirable_weight; /* kto */
    double unit_scale;                           /* 1 / units of the whole optimizer step */
    double token_scale; /* 1 / tokens that a token mean is over, of the whole step */
} loss_parameters;

/* One unit's inputs.  Sequences: [0] chosen or the completion, [1] rejected, [2] the prompt. */
typedef struct loss_unit {
    double policy[LOSS_MAX_SEQUENCES], reference[LOSS_MAX_SEQUENCES];
    int32_t tokens[LOSS_MAX_SEQUENCES]; /* of the completion, scored or not */
    bool label;                         /* kto: desirable */
    double kl;                          /* kto: max(0, mean log-ratio of mismatched completions) */
} loss_unit;

/* Columns of a unit's results.  LOSS_VALUE is the unit's share of the step's loss: it holds the scale. */
enum {
    LOSS_VALUE,
    LOSS_REWARD_CHOSEN, /* beta * a; of a labelled row: of its completion, whatever the label */
    LOSS_REWARD_REJECTED,
    LOSS_NLL,            /* orpo: share of the step's negative log-likelihood */
    LOSS_LOG_ODDS,       /* orpo: log odds ratio of chosen to rejected */
    LOSS_LOG_ODDS_RATIO, /* orpo: log sigmoid of it */
    LOSS_COLUMNS
};

typedef struct loss_result {
    double column[LOSS_COLUMNS];
    double coefficient[LOSS_MAX_SEQUENCES]; /* d(step's loss) / d(policy[i]) */
} loss_result;

LOSS_FUNCTION double loss_softplus(double x)
{
    return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

LOSS_FUNCTION double loss_sigmoid_of(double x)
{
    const double e = exp(-fabs(x)); /* in [0, 1]: neither quotient can overflow */
    return (x >= 0.0 ? 1.0 : e) / (1.0 + e);
}

/* log(1 - e^x) for x < 0.  Source: Maechler 2012, "Accurately computing log(1 - exp(-|a|))". */
LOSS_FUNCTION double loss_log1mexp(double x)
{
    return x < -0.69314718055994531 ? log1p(-exp(x)) : log(-expm1(x));
}

/* Rafailov et al. 2023, eq. 7; with label smoothing e, cDPO (Mitchell 2023):
 * L = (1 - e) softplus(-z) + e softplus(z),  z = beta (a - b). */
LOSS_FUNCTION void loss_sigmoid(loss_result *r, double z, const loss_parameters *p)
{
    const double e = p->label_smoothing;
    r->column[LOSS_VALUE] = p->unit_scale * ((1.0 - e) * loss_softplus(-z) + e * loss_softplus(z));
    const double slope = -(1.0 - e) * loss_sigmoid_of(-z) + e * loss_sigmoid_of(z);
    r->coefficient[0] = p->unit_scale * p->beta * slope;
    r->coefficient[1] = -r->coefficient[0];
}

/* SLiC (Zhao et al. 2023) as TRL has it: L = max(0, 1 - z). */
LOSS_FUNCTION void loss_hinge(loss_result *r, double z, const loss_parameters *p)
{
    r->column[LOSS_VALUE] = p->unit_scale * fmax(0.0, 1.0 - z);
    r->coefficient[0] = z < 1.0 ? -p->unit_scale * p->beta : 0.0;
    r->coefficient[1] = -r->coefficient[0];
}

/* Azar et al. 2023, eq. 17, on log-ratios per token as TRL has it: L = (a / n_w - b / n_l - 1 / (2 beta))^2. */
LOSS_FUNCTION void loss_ipo(loss_result *r, double a, double b, const loss_unit *u,
                            const loss_parameters *p)
{
    const double chosen = u->tokens[0] > 1 ? u->tokens[0] : 1,
                 rejected = u->tokens[1] > 1 ? u->tokens[1] : 1;
    const double miss = a / chosen - b / rejected - 1.0 / (2.0 * p->beta);
    r->column[LOSS_VALUE] = p->unit_scale * miss * miss;
    r->coefficient[0] = p->unit_scale * 2.0 * miss / chosen;
    r->coefficient[1] = -p->unit_scale * 2.0 * miss / rejected;
}

/* Ethayarajh et al. 2024, eq. 7 and 8: L = w (1 - sigmoid(v)), v = beta (a - kl) where desirable, else its negative. */
LOSS_FUNCTION void loss_kto(loss_result *r, double a, const loss_unit *u, const loss_parameters *p)
{
    const double sign = u->label ? 1.0 : -1.0;
    const double weight = p->unit_scale * (u->label ? p->desirable_weight : p->undesirable_weight);
    const double miss = loss_sigmoid_of(-sign * p->beta * (a - u->kl));
    r->column[LOSS_VALUE] = weight * miss;
    r->coefficient[0] = -sign * weight * p->beta * miss * (1.0 - miss);
}

/* Hong et al. 2024, eq. 6 and 7: L = NLL(prompt and chosen, per token) - beta log sigmoid(o),
 * o = log odds(chosen) - log odds(rejected), odds(y) = P / (1 - P), P = exp(lp / n).  d(log odds)/d(lp / n) = 1 / (1 - P),
 * so d(-log sigmoid(o))/d(chosen lp / n) = -sigmoid(-o) / (1 - Pw) = -1 / (e^(w - l) (1 - Pl) + 1 - Pw): written like that,
 * it stays finite where the model is sure of the chosen one and 1 - Pw is 0. */
LOSS_FUNCTION void loss_orpo(loss_result *r, const loss_unit *u, const loss_parameters *p)
{
    const double w = u->policy[0] / u->tokens[0], l = u->policy[1] / u->tokens[1];
    const double odds = (w - l) - (loss_log1mexp(w) - loss_log1mexp(l));
    const double unsure_w = -expm1(w), unsure_l = -expm1(l); /* 1 - P */
    const double weight = p->unit_scale * p->beta;
    r->column[LOSS_NLL] = -p->token_scale * (u->policy[0] + u->policy[2]);
    r->column[LOSS_LOG_ODDS] = odds;
    r->column[LOSS_LOG_ODDS_RATIO] = -loss_softplus(-odds);
    r->column[LOSS_VALUE] =
        r->column[LOSS_NLL] - p->unit_scale * p->beta * r->column[LOSS_LOG_ODDS_RATIO];
    r->column[LOSS_REWARD_CHOSEN] = p->beta * w;
    r->column[LOSS_REWARD_REJECTED] = p->beta * l;
    r->coefficient[0] =
        -p->token_scale - weight / ((exp(w - l) * unsure_l + unsure_w) * u->tokens[0]);
    r->coefficient[1] = weight * loss_sigmoid_of(-odds) / (unsure_l * u->tokens[1]);
    r->coefficient[2] = -p->token_scale;
}

/** Evaluate one unit.  Total: every finite input gives a finite result, but for orpo, whose odds need every completion
 *  to have tokens and a probability below 1. */
LOSS_FUNCTION void loss_unit_evaluate(loss_result *r, const loss_unit *u, const loss_parameters *p)
{
    const double a = u->policy[0] - u->reference[0], b = u->policy[1] - u->reference[1];
    for (int i = 0; i < LOSS_COLUMNS; i++)
        r->column[i] = 0.0;
    for (int i = 0; i < LOSS_MAX_SEQUENCES; i++)
        r->coefficient[i] = 0.0;
    r->column[LOSS_REWARD_CHOSEN] = p->beta * a;
    r->column[LOSS_REWARD_REJECTED] = p->beta * b;
    switch (p->kind) {
    case LOSS_SIGMOID:
        loss_sigmoid(r, p->beta * (a - b), p);
        break;
    case LOSS_HINGE:
        loss_hinge(r, p->beta * (a - b), p);
        break;
    case LOSS_IPO:
        loss_ipo(r, a, b, u, p);
        break;
    case LOSS_KTO:
        loss_kto(r, a, u, p);
        break;
    case LOSS_ORPO:
        loss_orpo(r, u, p);
        break;
    case LOSS_SFT:
        r->column[LOSS_VALUE] = -p->token_scale * u->policy[0];
        r->coefficient[0] = -p->token_scale;
        break;
    case LOSS_KINDS:
        break;
    }
}

/* The arrays of the op backend->preference_loss, over G units of n sequences each, S = G * n.
 * Sequence i of unit g has index g * n + i. */
typedef struct loss_inputs {
    tensor policy, reference; /* [S] f32, nats; reference absent: 0, and rewards mean nothing */
    tensor tokens;            /* [S] i32 completion tokens, scored or not */
    tensor label;             /* [G] i32; absent: all desirable */
    tensor kl;                /* [G] f32; absent: 0 */
    int completions;          /* of a unit: as the loss takes, or 2 of sft, to reward both */
    int sequences;            /* n = completions, and 1 more where the loss scores the prompt */
} loss_inputs;

typedef struct loss_outputs {
    tensor coefficient; /* [S] f32 d(step's loss) / d(policy) */
    tensor columns;     /* [G,LOSS_COLUMNS] f32 */
} loss_outputs;

#endif /* CUDPO_PREFERENCE_LOSS_H */
