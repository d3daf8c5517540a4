/* test_preference_loss.c - the op: it gives every unit to the maths of preference/loss.h (see test_loss.c), and its contract. */
/* rooms: preference backend */
/* backends: cpu cuda */
#include "test_refusals.h"
#include "preference/loss.h"

/* What every loss takes; of sft two completions, too. */
static const struct {
    loss_kind kind;
    int completions, sequences;
} shapes[] = {{LOSS_SIGMOID, 2, 2}, {LOSS_HINGE, 2, 2}, {LOSS_IPO, 2, 2}, {LOSS_KTO, 1, 1},
              {LOSS_ORPO, 2, 3},    {LOSS_SFT, 1, 1},   {LOSS_SFT, 2, 2}};

static loss_parameters parameters_of(loss_kind kind)
{
    return (loss_parameters){.kind = kind,
                             .beta = 0.1,
                             .desirable_weight = 1.0,
                             .undesirable_weight = 1.0,
                             .unit_scale = 1.0,
                             .token_scale = 1.0};
}

static loss_result evaluate(const loss_unit *u, const loss_parameters *p)
{
    loss_result r;
    memset(&r, 0xff, sizeof r); /* NaN: every field must be written */
    loss_unit_evaluate(&r, u, p);
    return r;
}

/* Inputs of G units on the host, and what goes to the backend. */
typedef struct op_run_of {
    loss_inputs in;
    loss_outputs out;
    float *policy, *reference, *kl;
    int32_t *tokens, *label;
} op_run_of;

/* A vector that begins `shift` elements behind a boundary. */
static tensor vector_at(ops *o, dtype type, const void *host, int64_t n, int shift)
{
    const tensor t = ops_make_at(o, type, n, 1, 1, shift);
    if (host != NULL) ops_put(o, t, host);
    return t;
}

static op_run_of make_run(ops *o, loss_kind kind, int completions, int sequences, int64_t G,
                          int shift)
{
    op_run_of run = {.policy = random_floats(1, G * sequences),
                     .reference = random_floats(2, G * sequences),
                     .kl = random_floats(3, G),
                     .tokens = zeros(G * sequences, sizeof(int32_t)),
                     .label = zeros(G, sizeof(int32_t))};
    for (int64_t i = 0; i < G * sequences; i++) {
        run.tokens[i] = (int32_t)(1 + i % 13);
        run.policy[i] = -0.1f - fabsf(run.policy[i]) * (float)run.tokens[i];
        run.reference[i] += run.policy[i];
    }
    for (int64_t g = 0; g < G; g++) {
        run.label[g] = (int32_t)(g % 3) - 1; /* any number but 0 is desirable */
        run.kl[g] = fabsf(run.kl[g]);
    }
    const int64_t S = G * sequences;
    run.in = (loss_inputs){.policy = vector_at(o, DTYPE_F32, run.policy, S, shift),
                           .tokens = vector_at(o, DTYPE_I32, run.tokens, S, shift),
                           .completions = completions,
                           .sequences = sequences};
    if (kind != LOSS_ORPO) run.in.reference = vector_at(o, DTYPE_F32, run.reference, S, shift);
    if (kind == LOSS_KTO) {
        run.in.label = vector_at(o, DTYPE_I32, run.label, G, shift);
        run.in.kl = vector_at(o, DTYPE_F32, run.kl, G, shift);
    }
    run.out = (loss_outputs){
        .coefficient = vector_at(o, DTYPE_F32, NULL, S, shift),
        .columns = ops_make_at(o, DTYPE_F32, G, LOSS_COLUMNS, LOSS_COLUMNS + 3, shift)};
    return run;
}

static void free_run(op_run_of *run)
{
    free(run->policy);
    free(run->reference);
    free(run->kl);
    free(run->tokens);
    free(run->label);
}

/* The unit that the op must see. */
static loss_unit unit_of(const op_run_of *run, int64_t g)
{
    const int n = run->in.sequences;
    loss_unit u = {.label = !tensor_present(run->in.label) || run->label[g] != 0,
                   .kl = tensor_present(run->in.kl) ? (double)run->kl[g] : 0.0};
    for (int i = 0; i < n; i++) {
        const int place = i < run->in.completions ? i : 2; /* a prompt is the third */
        u.policy[place] = (double)run->policy[g * n + i];
        u.tokens[place] = run->tokens[g * n + i];
        if (tensor_present(run->in.reference))
            u.reference[place] = (double)run->reference[g * n + i];
    }
    return u;
}

static void check_run(ops *o, op_run_of *run, const loss_parameters *p, int64_t G)
{
    const int n = run->in.sequences;
    float *coefficient = zeros(G * n, sizeof(float)),
          *columns = zeros(G * LOSS_COLUMNS, sizeof(float));
    CHECK_OK(o->be->preference_loss(o->be, &run->out, &run->in, p));
    ops_get(o, coefficient, run->out.coefficient);
    ops_get(o, columns, run->out.columns);
    for (int64_t g = 0; g < G; g++) {
        const loss_unit u = unit_of(run, g);
        const loss_result r = evaluate(&u, p);
        /* Rounded to float once, from maths that differ by what a device's exp and log do. */
        for (int i = 0; i < n; i++) {
            const double want = r.coefficient[i < run->in.completions ? i : 2];
            CHECK_NEAR((double)coefficient[g * n + i], want, 2 * EPS * fabs(want) + 1e-12);
        }
        for (int c = 0; c < LOSS_COLUMNS; c++)
            CHECK_NEAR((double)columns[g * LOSS_COLUMNS + c], r.column[c],
                       2 * EPS * fabs(r.column[c]) + 1e-12);
    }
    free(columns);
    free(coefficient);
}

static void the_op_is_the_maths(backend *be)
{
    static const int64_t sizes[] = {1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            ops o = ops_begin(be);
            op_run_of run = make_run(&o, shapes[k].kind, shapes[k].completions, shapes[k].sequences,
                                     sizes[i], 0);
            loss_parameters p = parameters_of(shapes[k].kind);
            p.unit_scale = 1.0 / (double)sizes[i];
            p.token_scale = 1.0 / 77.0;
            p.label_smoothing = 0.1;
            p.undesirable_weight = 1.25;
            check_run(&o, &run, &p, sizes[i]);
            free_run(&run);
            ops_end(&o);
        }
    }
}

/* The pair of test_loss.c whose chosen completion scores -12 (reference -13.5, 4 tokens), the rejected one -11 (-10, 5) and
 * the prompt -3 (2 tokens): a = 1.5, b = -1, beta 0.1, so that z = 0.25. */
static void one_pair_by_hand(backend *be)
{
    static const struct {
        loss_kind kind;
        int completions, sequences;
        double loss, coefficient[3];
    } c[] = {
        {LOSS_SIGMOID, 2, 2, 0.575939419879 / 3, {-0.0145941166371, 0.0145941166371}},
        {LOSS_HINGE, 2, 2, 0.75 / 3, {-0.1 / 3, 0.1 / 3}},
        {LOSS_IPO, 2, 2, 19.580625 / 3, {-0.7375, 0.59}}, /* 1.5 / 4 + 1 / 5 - 5 = -4.425 */
        {LOSS_KTO, 1, 1, 0.470035948235 / 3, {-0.0249102155602 / 3}},
        {LOSS_ORPO,
         2,
         3,
         15.0 / 24 + 0.1 * 1.21735961542 / 3,
         {-0.0478406274218, 0.00527809103607, -1.0 / 24}},
        {LOSS_SFT, 2, 2, 12.0 / 24, {-1.0 / 24, 0}},
    };
    for (size_t n = 0; n < sizeof c / sizeof c[0]; n++) {
        static const float policy[] = {-12, -11, -3}, reference[] = {-13.5f, -10, 0}, kl[] = {0.3f};
        static const int32_t tokens[] = {4, 5, 2}, label[] = {1};
        float got[3], columns[LOSS_COLUMNS];
        ops o = ops_begin(be);
        loss_inputs in = {.policy = ops_floats(&o, policy, c[n].sequences, 1),
                          .tokens = ops_indices(&o, tokens, c[n].sequences, 1),
                          .label = ops_indices(&o, label, 1, 1),
                          .kl = ops_floats(&o, kl, 1, 1),
                          .completions = c[n].completions,
                          .sequences = c[n].sequences};
        if (c[n].kind != LOSS_ORPO) in.reference = ops_floats(&o, reference, c[n].sequences, 1);
        const loss_outputs out = {.coefficient = ops_output(&o, c[n].sequences, 1),
                                  .columns = ops_output(&o, 1, LOSS_COLUMNS)};
        loss_parameters p = parameters_of(c[n].kind);
        p.unit_scale = 1.0 / 3;
        p.token_scale = 1.0 / 24;
        CHECK_OK(be->preference_loss(be, &out, &in, &p));
        ops_get(&o, got, out.coefficient);
        ops_get(&o, columns, out.columns);
        CHECK_NEAR(columns[LOSS_VALUE], c[n].loss, fabs(c[n].loss) * 2 * EPS); /* kl rounds, too */
        for (int i = 0; i < c[n].sequences; i++) {
            CHECK_NEAR(got[i], c[n].coefficient[i], fabs(c[n].coefficient[i]) * 2 * EPS);
        }
        ops_end(&o);
    }
}

static void absent_inputs_are_0_and_desirable(backend *be)
{
    ops o = ops_begin(be);
    op_run_of run = make_run(&o, LOSS_KTO, 1, 1, 5, 0);
    run.in.label = run.in.kl = run.in.reference = (tensor){0};
    const loss_parameters p = parameters_of(LOSS_KTO);
    check_run(&o, &run, &p, 5);
    free_run(&run);
    ops_end(&o);
}

/* Vectors that begin off a 16-byte boundary. */
static void vectors_may_be_unaligned(backend *be)
{
    for (int shift = 1; shift < 4; shift++) {
        ops o = ops_begin(be);
        op_run_of run = make_run(&o, LOSS_KTO, 1, 1, 70, shift);
        const loss_parameters p = parameters_of(LOSS_KTO);
        check_run(&o, &run, &p, 70);
        free_run(&run);
        ops_end(&o);
    }
}

/* Scores from sure to hopeless, each beside each: what comes out is right, and finite. */
static void extreme_scores(backend *be)
{
    static const float score[] = {0, -1e-30f, -1e-6f, -1, -100, -1e4f, -1e9f, -1e18f};
    enum { N = sizeof score / sizeof score[0], G = N * N };
    for (int k = 0; k < LOSS_KINDS; k++) {
        const int completions = shapes[k].completions, n = shapes[k].sequences;
        const loss_parameters p = parameters_of(shapes[k].kind);
        ops o = ops_begin(be);
        op_run_of run = make_run(&o, shapes[k].kind, completions, n, G, 0);
        for (int g = 0; g < G; g++) {
            for (int i = 0; i < n; i++) {
                const int at = i == 0 ? g / N : i == 1 ? g % N : 3;
                const bool sure = shapes[k].kind == LOSS_ORPO && at == 0;
                run.policy[g * n + i] = sure ? -1e-37f : score[at]; /* its odds need P < 1 */
                run.reference[g * n + i] = score[(g / N + 3 * (g % N) + i) % N];
            }
            run.kl[g] = -score[g % N];
        }
        ops_put(&o, run.in.policy, run.policy);
        if (tensor_present(run.in.reference)) ops_put(&o, run.in.reference, run.reference);
        if (tensor_present(run.in.kl)) ops_put(&o, run.in.kl, run.kl);
        check_run(&o, &run, &p, G);
        free_run(&run);
        ops_end(&o);
    }
}

/* What a call is made of. */
typedef struct op_call {
    loss_outputs out;
    loss_inputs in;
    loss_parameters p;
} op_call;

static cudpo_status evaluate_op(backend *be, const void *arguments)
{
    const op_call *c = arguments;
    return be->preference_loss(be, &c->out, &c->in, &c->p);
}

/* Three pairs. */
static op_call good_call(ops *o)
{
    enum { G = 3, S = 2 * G };
    static const int32_t one[S] = {1, 1, 1, 1, 1, 1};
    return (op_call){
        .out = {.coefficient = ops_output(o, S, 1), .columns = ops_output(o, G, LOSS_COLUMNS)},
        .in = {.policy = ops_output(o, S, 1),
               .reference = ops_output(o, S, 1),
               .tokens = ops_indices(o, one, S, 1),
               .label = ops_indices(o, one, G, 1),
               .kl = ops_output(o, G, 1),
               .completions = 2,
               .sequences = 2},
        .p = parameters_of(LOSS_SIGMOID)};
}

static void refusals_of_tensors(backend *be)
{
    ops o = ops_begin(be);
    op_call c = good_call(&o);
    const op_call good = c;
    const operand operands[] = {
        {"coefficient", &c.out.coefficient, "loss_is_array(out->coefficient", OUTPUT},
        {"columns", &c.out.columns, "loss_is_columns(out->columns", OUTPUT},
        {"in->policy", &c.in.policy, "loss_is_array(in->policy", 0},
        {"in->reference", &c.in.reference, "absent(in->reference", OPTIONAL},
        {"in->tokens", &c.in.tokens, "loss_is_array(in->tokens", 0},
        {"in->label", &c.in.label, "absent(in->label", OPTIONAL},
        {"in->kl", &c.in.kl, "absent(in->kl", OPTIONAL}};
    const refusals r = {&o, evaluate_op, &c, operands, 7};
    check_refusals(&r);
    for (int i = 0; i < 7; i++) { /* gaps, which rows of columns alone may have */
        operands[i].t->stride++;
        if (i != 1) refusals_check(&r, operands[i].name, "gaps", operands[i].check, "?");
        c = good;
    }
    c.in.policy.rows = -2; /* of no units, or less */
    refusals_check(&r, "in->policy", "rows", "S >= 0", "?");
    ops_check_untouched(&o, c.out.coefficient);
    ops_check_untouched(&o, c.out.columns);
    ops_end(&o);
}

/* A loss gets the completions and the prompt that its line of the table says; sft may have a second completion. */
static void refusals_of_units(backend *be)
{
    ops o = ops_begin(be);
    for (int kind = 0; kind < LOSS_KINDS; kind++) {
        for (int completions = -1; completions <= 3; completions++) {
            for (int sequences = -1; sequences <= 4; sequences++) {
                const bool pairs = kind != LOSS_KTO && kind != LOSS_SFT;
                const bool both = kind == LOSS_SFT && completions == 2;
                op_call c = good_call(&o);
                c.p = parameters_of((loss_kind)kind);
                c.in.completions = completions, c.in.sequences = sequences;
                if (completions != (pairs ? 2 : 1) && !both)
                    CHECK_FAILS(evaluate_op(be, &c), CUDPO_EINVAL, "in->completions == loss");
                else if (sequences != completions + (kind == LOSS_ORPO))
                    CHECK_FAILS(evaluate_op(be, &c), CUDPO_EINVAL, "in->sequences == in");
                ops_check_untouched(&o, c.out.coefficient);
                ops_end(&o);
            }
        }
    }
}

static void refusals_of_parameters(backend *be)
{
    const double inf = (double)INFINITY, nan = (double)NAN;
    const struct {
        size_t at; /* of a double among the parameters */
        double value;
        const char *text;
    } bad[] = {{offsetof(loss_parameters, beta), 0.0, "p->beta > 0"},
               {offsetof(loss_parameters, beta), -0.1, "p->beta > 0"},
               {offsetof(loss_parameters, beta), nan, "isfinite(p->beta)"},
               {offsetof(loss_parameters, beta), inf, "isfinite(p->beta)"},
               {offsetof(loss_parameters, label_smoothing), -0.1, "p->label_smoothing >= 0"},
               {offsetof(loss_parameters, label_smoothing), 1.1, "p->label_smoothing <= 1"},
               {offsetof(loss_parameters, label_smoothing), nan, "p->label_smoothing"},
               {offsetof(loss_parameters, desirable_weight), nan, "(p->desirable_weight)"},
               {offsetof(loss_parameters, desirable_weight), inf, "(p->desirable_weight)"},
               {offsetof(loss_parameters, undesirable_weight), -inf, "(p->undesirable_weight)"},
               {offsetof(loss_parameters, unit_scale), nan, "(p->unit_scale)"},
               {offsetof(loss_parameters, unit_scale), inf, "(p->unit_scale)"},
               {offsetof(loss_parameters, token_scale), inf, "(p->token_scale)"}};
    ops o = ops_begin(be);
    op_call c = good_call(&o);
    const op_call good = c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memcpy((char *)&c.p + bad[i].at, &bad[i].value, sizeof(double));
        CHECK_FAILS(evaluate_op(be, &c), CUDPO_EINVAL, bad[i].text);
        c = good;
    }
    c.p.kind = LOSS_KINDS;
    CHECK_FAILS(evaluate_op(be, &c), CUDPO_EINVAL, "p->kind < LOSS_KINDS");
    CHECK_FAILS(be->preference_loss(be, NULL, &good.in, &good.p), CUDPO_EINVAL, "out != NULL");
    CHECK_FAILS(be->preference_loss(be, &good.out, NULL, &good.p), CUDPO_EINVAL, "in != NULL");
    CHECK_FAILS(be->preference_loss(be, &good.out, &good.in, NULL), CUDPO_EINVAL, "p != NULL");
    ops_check_untouched(&o, good.out.coefficient);
    ops_check_untouched(&o, good.out.columns);
    CHECK_OK(evaluate_op(be, &good)); /* unbroken, it is accepted */
    ops_end(&o);
}

static void no_units(backend *be)
{
    ops o = ops_begin(be);
    op_call c = good_call(&o);
    const op_call all = c;
    c.out.coefficient.rows = c.out.columns.rows = c.in.policy.rows = c.in.reference.rows =
        c.in.tokens.rows = c.in.label.rows = c.in.kl.rows = 0;
    CHECK_OK(evaluate_op(be, &c));
    ops_check_untouched(&o, all.out.coefficient);
    ops_check_untouched(&o, all.out.columns);
    ops_end(&o);
}

#ifdef TEST_CUDA
/* Units that a grid can't number, far apart in no memory at all: the contract comes before any of it is looked at. */
static void too_many_units(backend *be)
{
    const int64_t G = ((int64_t)1 << 37) - 63, S = 2 * G; /* the most are one less */
    const op_call c = {
        .out = {.coefficient = tensor_vector((void *)((uintptr_t)1 << 45), DTYPE_F32, S),
                .columns = tensor_matrix((void *)((uintptr_t)1 << 44), DTYPE_F32, G, LOSS_COLUMNS)},
        .in = {.policy = tensor_vector((void *)((uintptr_t)1 << 43), DTYPE_F32, S),
               .tokens = tensor_vector((void *)((uintptr_t)1 << 42), DTYPE_I32, S),
               .completions = 2,
               .sequences = 2},
        .p = parameters_of(LOSS_SIGMOID)};
    CHECK_FAILS(evaluate_op(be, &c), CUDPO_EINVAL, "out->columns.rows <=");
}
#endif

static void run_repeatable(ops *o, float *result)
{
    op_run_of run = make_run(o, LOSS_SIGMOID, 2, 2, 1000, 0);
    const loss_parameters p = parameters_of(LOSS_SIGMOID);
    CHECK_OK(o->be->preference_loss(o->be, &run.out, &run.in, &p));
    ops_get(o, result, run.out.coefficient);
    ops_get(o, result + 2000, run.out.columns);
    free_run(&run);
}

static void the_same_bits_again(backend *be)
{
    check_repeatable(be, run_repeatable, 2000 + 1000 * LOSS_COLUMNS);
}

static const op_case cases[] = {
    {"the_op_is_the_maths", the_op_is_the_maths},
    {"one_pair_by_hand", one_pair_by_hand},
    {"absent_inputs_are_0_and_desirable", absent_inputs_are_0_and_desirable},
    {"vectors_may_be_unaligned", vectors_may_be_unaligned},
    {"extreme_scores", extreme_scores},
    {"refusals_of_tensors", refusals_of_tensors},
    {"refusals_of_units", refusals_of_units},
    {"refusals_of_parameters", refusals_of_parameters},
    {"no_units", no_units},
#ifdef TEST_CUDA
    {"too_many_units", too_many_units},
#endif
    {"the_same_bits_again", the_same_bits_again},
};

OPS_MAIN(cases)
