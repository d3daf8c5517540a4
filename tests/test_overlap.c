/* test_overlap.c - gradients are added up while the backward pass goes on: with collectives that are as slow as we like, a step
 * waits for what the plan's model of the network says. */
/* rooms: plan */
#include "scratch.h"
#include "dist/queued.h"
#include "plan/network.h"
#include "train/trainer.h"

#include <time.h>

enum { LAYERS = 16, STEPS = 5, PAIRS = 2, PROMPT = 16, COMPLETION = 16 };

/* What is complete last, its embedding and first layer, is 6.5 % of it. */
static const model_config shape = {.model_type = "llama",
                                   .vocab_size = 64,
                                   .hidden_size = 192,
                                   .intermediate_size = 512,
                                   .num_hidden_layers = LAYERS,
                                   .num_attention_heads = 3,
                                   .num_key_value_heads = 3,
                                   .head_dim = 64,
                                   .max_position_embeddings = 256,
                                   .rms_norm_eps = 1e-5f,
                                   .tie_word_embeddings = true,
                                   .rope_theta = 10000.0,
                                   .bos_token_id = -1,
                                   .initializer_range = 0.02};

/* A network of two ranks, of which the other one is not there: its gradient is 0. */
typedef struct slow_network {
    double rate;  /* bytes a second, of a tensor that is added up; 0: at once */
    double total; /* seconds that collectives took */
    int64_t bytes;
} slow_network;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static cudpo_status take_time(void *context, const queue_job *job)
{
    slow_network *n = context;
    const double bytes = (double)tensor_bytes(job->x);
    n->bytes += (int64_t)bytes;
    if (n->rate == 0.0) return CUDPO_OK;
    const double begin = now(), seconds = bytes / n->rate;
    const struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
    n->total += now() - begin;
    return CUDPO_OK;
}

static void leave(void *context, bool failed)
{
    (void)context;
    assert_false(failed);
}

typedef struct run {
    cudpo_config c;
    cudpo_trainer *t;
    control *company;
    communicator *own; /* the trainer's, whose place is taken */
    slow_network network;
} run;

static void open_run(run *r, double bucket)
{
    const placement one = {.size = 1, .node = -1};
    const control_options options = {
        .place = &one, .build = "test", .join_timeout = 1, .peer_timeout = 60, .grace = 1};
    const example_lengths each = {PROMPT, {COMPLETION, COMPLETION}};
    example_lengths lengths[PAIRS * STEPS];
    made_run made = {.model = &shape, .seed = 1};
    *r = (run){0};
    for (int i = 0; i < PAIRS * STEPS; i++)
        lengths[i] = each;
    CHECK_OK(dataset_make(&made.data, &(made_examples){.lengths = lengths,
                                                       .count = PAIRS * STEPS,
                                                       .completions = 2,
                                                       .vocabulary = shape.vocab_size,
                                                       .seed = 1}));
    CHECK_OK(cudpo_config_create(&r->c));
    CHECK_OK(cudpo_config_set(&r->c, "model_name_or_path", "made"));
    CHECK_OK(cudpo_config_set(&r->c, "train_dataset", "made"));
    CHECK_OK(cudpo_config_set(&r->c, "output_dir", scratch_folder()));
    CHECK_OK(cudpo_config_set(&r->c, "device", "cpu"));
    CHECK_OK(cudpo_config_set(&r->c, "max_steps", "1000"));
    CHECK_OK(cudpo_config_set(&r->c, "per_device_train_batch_size", "2"));
    CHECK_OK(trainer_open_made(&r->t, &r->c, NULL, &made));
    CHECK_OK(control_open(&r->company, &options));
    const queued_transport slow = {"slow", &r->network, take_time, leave};
    r->own = r->t->communicator;
    CHECK_OK(communicator_queued(&r->t->communicator, &slow, r->t->be, r->company, 0, 2));
    r->t->reducer = reducer_of(r->t->communicator, r->t->gradient.all, bucket, false);
}

static void close_run(run *r)
{
    communicator_close(r->t->communicator);
    r->t->communicator = r->own;
    cudpo_trainer_close(r->t);
    control_close(r->company);
    cudpo_config_free(&r->c);
}

/* Times of steps, and of their collectives, in seconds. */
typedef struct times {
    double backward, exposed, total;
} times;

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[n / 2];
}

/* In: rate  of the network; a step before makes everything warm. */
static times measure(run *r, double rate)
{
    part_times each[STEPS] = {{{0}, 0}};
    double backward[STEPS], exposed[STEPS];
    step_batch b;
    batch_metrics m;
    r->network.rate = rate;
    CHECK_OK(trainer_step(r->t, &b, &m));
    r->network.total = 0;
    r->network.bytes = 0;
    parts_time(&r->t->parts, each, STEPS);
    for (int i = 0; i < STEPS; i++)
        CHECK_OK(trainer_step(r->t, &b, &m));
    CHECK_OK(parts_sum(&r->t->parts));
    for (int i = 0; i < STEPS; i++) {
        backward[i] = each[i].part[PART_BACKWARD];
        exposed[i] = each[i].part[PART_REDUCE];
    }
    return (times){median(backward, STEPS), median(exposed, STEPS), r->network.total / STEPS};
}

/* What the model says of such a network: two GPUs of a node, whose bus moves half of the bytes twice. */
static double predicted(const run *r, double rate, double backward)
{
    const network two = {2, 1};
    const device_rates rates = {.bus = rate, .nic = rate};
    const double bytes = (double)tensor_bytes(r->t->gradient.all);
    const double embedding = (double)(shape.vocab_size * shape.hidden_size) * sizeof(float);
    const network_load load = {
        .bytes = bytes, .last = embedding + (bytes - embedding) / LAYERS, .backward = backward};
    return network_step(&two, &rates, &load).exposed;
}

/* Collectives that take half as long as the backward pass: hidden but for the last bucket. */
static void is_hidden(void **state)
{
    (void)state;
    run r;
    open_run(&r, 0.5);
    const double bytes = (double)tensor_bytes(r.t->gradient.all);
    const times fast = measure(&r, 0.0);
    const double rate = bytes / (0.5 * fast.backward);
    const times slow = measure(&r, rate);
    const double model = predicted(&r, rate, slow.backward);
    printf("backward %.1f ms, collectives %.1f ms, of which %.1f ms (%.1f %%) are waited for; the "
           "model says %.1f\n",
           slow.backward * 1e3, slow.total * 1e3, slow.exposed * 1e3,
           100 * slow.exposed / slow.total, model * 1e3);
    assert_true(slow.total < slow.backward);
    assert_true(slow.exposed <= 0.1 * slow.total);
    assert_true(fabs(slow.exposed - model) <= 0.1 * slow.total);
    /* Every gradient once a step, and what signals ask for. */
    assert_true(r.network.bytes == STEPS * ((int64_t)bytes + ASKED * 4));
    close_run(&r);
}

/* Slower ones: what does not fit behind the backward pass is waited for, and no more. */
static void is_waited_for(void **state)
{
    (void)state;
    run r;
    open_run(&r, 0.5);
    const double bytes = (double)tensor_bytes(r.t->gradient.all);
    const times fast = measure(&r, 0.0);
    const double rate = bytes / (2.0 * fast.backward);
    const times slow = measure(&r, rate);
    const double model = predicted(&r, rate, slow.backward);
    printf("backward %.1f ms, collectives %.1f ms, of which %.1f ms are waited for; the model says "
           "%.1f\n",
           slow.backward * 1e3, slow.total * 1e3, slow.exposed * 1e3, model * 1e3);
    assert_true(fabs(slow.exposed - model) <= 0.1 * slow.total);
    close_run(&r);
}

/* In one bucket nothing is hidden: what the test would see if gradients went out at the end. */
static void at_the_end(void **state)
{
    (void)state;
    run r;
    open_run(&r, 1000.0);
    const double bytes = (double)tensor_bytes(r.t->gradient.all);
    const times fast = measure(&r, 0.0);
    const times slow = measure(&r, bytes / (0.5 * fast.backward));
    printf("in one bucket: %.1f ms of %.1f are waited for\n", slow.exposed * 1e3, slow.total * 1e3);
    assert_true(slow.exposed >= 0.9 * slow.total);
    close_run(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_hidden),
        cmocka_unit_test(is_waited_for),
        cmocka_unit_test(at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
