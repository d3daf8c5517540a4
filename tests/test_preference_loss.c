/* test_preference_loss.c - the op: it gives every unit to the maths of preference/loss.h (see test_loss.c), and its contract. */
/* rooms: preference backend */
/* backends: cpu cuda */
#include "test.h"
#include "preference/loss.h"
#include "test_ops.h"

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

static op_run_of make_run(ops *o, loss_kind kind, int completions, int sequences, int64_t G)
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
    run.in = (loss_inputs){.policy = ops_floats(o, run.policy, S, 1),
                           .tokens = ops_indices(o, run.tokens, S, 1),
                           .completions = completions,
                           .sequences = sequences};
    if (kind != LOSS_ORPO) run.in.reference = ops_floats(o, run.reference, S, 1);
    if (kind == LOSS_KTO) {
        run.in.label = ops_indices(o, run.label, G, 1);
        run.in.kl = ops_floats(o, run.kl, G, 1);
    }
    run.out = (loss_outputs){.coefficient = ops_output(o, S, 1),
                             .columns = ops_strided(o, NULL, G, LOSS_COLUMNS, LOSS_COLUMNS + 3)};
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
    static const struct {
        loss_kind kind;
        int completions, sequences;
    } shapes[] = {{LOSS_SIGMOID, 2, 2}, {LOSS_HINGE, 2, 2}, {LOSS_IPO, 2, 2}, {LOSS_KTO, 1, 1},
                  {LOSS_ORPO, 2, 3},    {LOSS_SFT, 1, 1},   {LOSS_SFT, 2, 2}, {LOSS_SFT, 1, 2}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            ops o = ops_begin(be);
            op_run_of run =
                make_run(&o, shapes[k].kind, shapes[k].completions, shapes[k].sequences, sizes[i]);
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
        {LOSS_SFT, 1, 2, 12.0 / 24, {-1.0 / 24, 0}},
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
    op_run_of run = make_run(&o, LOSS_KTO, 1, 1, 5);
    run.in.label = run.in.kl = run.in.reference = (tensor){0};
    const loss_parameters p = parameters_of(LOSS_KTO);
    check_run(&o, &run, &p, 5);
    free_run(&run);
    ops_end(&o);
}

/* Refuse, and leave both outputs as they were. */
static void refused(ops *o, const op_run_of *run, const loss_outputs *out, const loss_inputs *in,
                    const loss_parameters *p)
{
    CHECK_FAILS(o->be->preference_loss(o->be, out, in, p), CUDPO_EINVAL, "need");
    ops_check_untouched(o, run->out.coefficient);
    ops_check_untouched(o, run->out.columns);
}

static void broken_contracts_change_nothing(backend *be)
{
    ops o = ops_begin(be);
    const op_run_of run = make_run(&o, LOSS_KTO, 2, 2, 6); /* labels and kl are there too */
    const tensor wide = ops_output(&o, 12, 2);
    const loss_parameters good = parameters_of(LOSS_SIGMOID);
    loss_inputs in = run.in;
    loss_outputs out = run.out;
    loss_parameters p = good;
#define REFUSED(change)                   \
    do {                                  \
        change;                           \
        refused(&o, &run, &out, &in, &p); \
        in = run.in;                      \
        out = run.out;                    \
        p = good;                         \
    } while (0)
    REFUSED(in.completions = 0);
    REFUSED(in.completions = 3);
    REFUSED(in.sequences = 0);
    REFUSED(in.sequences = 4);
    REFUSED(in.sequences = 1);
    REFUSED(in.policy = tensor_rows(in.policy, 0, 11));
    REFUSED(in.policy = (tensor){0});
    REFUSED(in.policy = run.in.tokens);
    REFUSED(in.policy = tensor_cols(wide, 0, 1)); /* with gaps */
    REFUSED(in.reference = tensor_rows(in.reference, 0, 10));
    REFUSED(in.reference = tensor_cols(wide, 1, 1));
    REFUSED(in.tokens = (tensor){0});
    REFUSED(in.tokens = run.in.policy);
    REFUSED(in.label = tensor_rows(in.label, 0, 5));
    REFUSED(in.label = in.kl);
    REFUSED(in.kl = tensor_rows(in.kl, 0, 5));
    REFUSED(in.kl = in.label);
    REFUSED(out.coefficient = tensor_rows(out.coefficient, 0, 10));
    REFUSED(out.coefficient = (tensor){0});
    REFUSED(out.columns = tensor_rows(out.columns, 0, 5));
    REFUSED(out.columns = tensor_cols(out.columns, 0, LOSS_COLUMNS - 1));
    REFUSED(p.kind = LOSS_KINDS);
    REFUSED(p.beta = 0.0);
    REFUSED(p.beta = -0.1);
    REFUSED(p.beta = (double)NAN);
    REFUSED(p.beta = (double)INFINITY);
    REFUSED(p.unit_scale = (double)NAN);
    REFUSED(p.token_scale = (double)INFINITY);
    REFUSED(p.label_smoothing = -0.1);
    REFUSED(p.label_smoothing = 1.1);
    REFUSED(p.label_smoothing = (double)NAN);
    REFUSED(p.desirable_weight = (double)NAN);
    REFUSED(p.undesirable_weight = (double)INFINITY);
    op_run_of whole = run;
    check_run(&o, &whole, &good, 6); /* unbroken, it is accepted */
    free_run(&whole);
    ops_end(&o);
}

#ifdef TEST_CUDA
static tensor typed(tensor t, dtype type)
{
    t.type = type;
    return t;
}

/* Addresses and overlaps, which only the device minds. */
static void broken_contracts_of_the_device(backend *be)
{
    ops o = ops_begin(be);
    op_run_of run = make_run(&o, LOSS_KTO, 2, 2, 6);
    const loss_parameters good = parameters_of(LOSS_SIGMOID);
    loss_inputs in = run.in;
    loss_outputs out = run.out;
    loss_parameters p = good;
    REFUSED(in.policy = moved(in.policy, 2));
    REFUSED(in.reference = moved(in.reference, 1));
    REFUSED(in.tokens = moved(in.tokens, 2));
    REFUSED(in.label = moved(in.label, 2));
    REFUSED(in.kl = moved(in.kl, 2));
    REFUSED(out.coefficient = moved(out.coefficient, 2));
    REFUSED(out.columns = moved(out.columns, 2));
    REFUSED(in.policy = out.coefficient);
    REFUSED(in.reference = out.coefficient);
    REFUSED(in.tokens = typed(out.coefficient, DTYPE_I32));
    REFUSED(in.kl = tensor_rows(out.coefficient, 6, 6));
    REFUSED(in.label = typed(tensor_rows(out.coefficient, 0, 6), DTYPE_I32));
    tensor column = tensor_rows(out.coefficient, 0, 6);
    column.data = out.columns.data;
    REFUSED(in.kl = column);
    REFUSED(in.label = typed(column, DTYPE_I32));
    column.rows = 12;
    REFUSED(in.policy = column);
    REFUSED(in.reference = column);
    REFUSED(in.tokens = typed(column, DTYPE_I32));
    REFUSED(out.coefficient = column);
    free_run(&run);
    ops_end(&o);
}
#endif

static void run_repeatable(ops *o, float *result)
{
    op_run_of run = make_run(o, LOSS_SIGMOID, 2, 2, 1000);
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
    {"broken_contracts_change_nothing", broken_contracts_change_nothing},
#ifdef TEST_CUDA
    {"broken_contracts_of_the_device", broken_contracts_of_the_device},
#endif
    {"the_same_bits_again", the_same_bits_again},
};

OPS_MAIN(cases)
