/* bench.c - `cudpo bench`. */
#include "cudpo/bench.h"
#include "base/quote.h"
#include "cli/cli.h"
#include "cli/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_page page = {
    "bench",
    "how fast each op is, against what the machine can do",
    "cudpo bench [OP ...] [--option value ...]\n"
    "cudpo bench step MODEL [--option value ...]\n"
    "cudpo bench --compare BEFORE.json AFTER.json\n"
    "cudpo bench --plot PICTURE.svg FILE.json",
    "Measures ops of the backend, each on random operands at the shapes of a model, and prints a "
    "line for each: the median and the least time of a call; bytes and operations a second, by the "
    "formula that stands beside the op in bench/; the share of what the same device reaches in the "
    "same run in a large copy or, where operations take longer, in a large product of matrices; "
    "how many times longer the same result takes unfused, a kernel for each stage and its "
    "intermediate results in memory; and how many elements of the outputs are wrong.\n"
    "\n"
    "OP is a name of the table, such as swiglu; none: all of them. Where several ranks run it "
    "(cudpo launch), rank 0 measures ops while the others wait, and all together measure what "
    "gradients and weights go through: all_reduce, reduce_to_one, all_gather and broadcast, of "
    "1024 "
    "elements, of a bucket (ddp_bucket_cap_mb) and of the model's whole gradient. Their time is "
    "that of the slowest rank, their GB/s the bus bandwidth of nccl-tests, and their ceiling what "
    "a plain stream of large messages reaches from one rank to the next; for MPI, within a node, "
    "a copy in memory; for NCCL none is known.\n"
    "\n"
    "Operands are there as often as it takes for twice the largest cache, and used in turn; what a "
    "call changes is restored before it. Calls are repeated until their times settle, and then "
    "timed: on a GPU by the device's own clock. Rows of so few bytes that they stay in the cache "
    "all the same are marked.\n"
    "\n"
    "Outputs are looked at when all calls were timed: on a GPU they are compared with the CPU's "
    "op, on a CPU with the op in its single stages, or with its definition in double; of a product "
    "of matrices a thousand elements; of a collective with sums of what each rank gave. Exit "
    "status 79 where one is wrong.\n"
    "\n"
    "--calibrate writes what a plan reckons with, of the ops that were measured: gemm, attention, "
    "token_logprob, adamw; rope, swiglu, rmsnorm and add_rmsnorm, which are one rate together; "
    "and, "
    "of ranks of one node, all_reduce. The rate of a copy is always among it, and beside any op "
    "the "
    "time of one with nothing to do; what was not measured, a plan assumes.\n"
    "\n"
    "--compare prints the rows of two JSON files whose medians differ by more than three of their "
    "standard errors and what two processes differ by where nothing changed (5 % and half of the "
    "wider spread; 30 % where operands stay in the cache); whose wrong elements differ; that "
    "entered "
    "or left the cache; or that one file lacks. It says, too, where the files are of another "
    "device, "
    "processor or number of threads.\n"
    "\n"
    "The JSON object has version, date, command, processor, threads, backend, device, cache_bytes "
    "(of the largest cache), seconds (of --seconds), ranks, communicator; ceilings: copy_gbps, "
    "float32_tflops, bfloat16_tflops, link_gbps; rows, each with op, pass, model, shape, dtype, "
    "ranks, median_us, min_us, spread_us (half of what lies between the tenth and the ninetieth of "
    "a "
    "hundred calls), calls, sets (of operands), cached, bytes and flops by formula, gbps, tflops, "
    "percent_of_ceiling, baseline_ratio (unfused over the median), wrong. null stands for what is "
    "not known, flops 0 for what is bound by memory.\n"
    "\n"
    "`cudpo bench step --help` is about whole training steps.",
    NULL,
    "  cudpo bench --json before.json\n"
    "  cudpo bench swiglu attention --shape Llama-3.1-8B --device cuda\n"
    "  cudpo bench --shape my-model/config.json --groups 2 --length 128 --seconds 0.1\n"
    "  cudpo launch --nproc 2 -- bench all_reduce --device cpu --shape my-model/config.json\n"
    "  cudpo bench --compare before.json after.json\n"
    "  cudpo bench --plot before.svg before.json"};

static void print_line(void *context, const char *text)
{
    (void)context;
    puts(text);
    fflush(stdout); /* a row takes a while */
}

/* As a shell would read it again. */
static cudpo_status measure(cudpo_bench_options *o, char **argv)
{
    buffer line = {0};
    cudpo_status status = buffer_printf(&line, "cudpo");
    if (status == CUDPO_OK) status = quote_shell_words(&line, (const char *const *)argv);
    o->command = line.data;
    if (status == CUDPO_OK) status = cudpo_bench(o, print_line, NULL);
    buffer_free(&line);
    return status;
}

static cudpo_status compare(const char *before, const char *after)
{
    char *text = NULL;
    int64_t changed;
    CUDPO_TRY(cudpo_bench_compare(&text, &changed, before, after));
    fputs(text, stdout);
    free(text);
    return CUDPO_OK;
}

static cudpo_status run(int argc, char **argv, const char **words, const char **shapes)
{
    cudpo_bench_options o = {.seconds = 0.5, .length = 512, .device = "auto"};
    cli_list models = {shapes, 0};
    const char *svg = NULL;
    cudpo_ranks ranks;
    bool help, is_compare = false, list = false;
    cli_option options[13 + RANKS_OPTIONS] = {
        {"--shape", CLI_LIST, "MODEL",
         "Qwen2.5-0.5B, Llama-3.2-1B, Llama-3.1-8B, a config.json or a folder that has one; may "
         "stand several times. All three on a GPU, the first on a CPU",
         &models},
        {"--device", CLI_TEXT, "auto|cpu|cuda (auto)", "what is measured", &o.device},
        {"--groups", CLI_INTEGER, "N", "pairs of a pack: 11 on a GPU, 1 on a CPU", &o.groups},
        {"--length", CLI_INTEGER, "N (512)", "tokens of each prompt and each completion",
         &o.length},
        {"--seconds", CLI_REAL, "S (0.5)", "of timed calls of each op, about", &o.seconds},
        {"--ddp_backend", CLI_TEXT, "nccl|mpi|tcp",
         "what collectives go through: nccl on a GPU, else tcp", &o.ddp_backend},
        {"--no_baseline", CLI_FLAG, "", "do not measure ops unfused", &o.no_baseline},
        {"--no_check", CLI_FLAG, "", "do not look for wrong elements", &o.no_check},
        {"--json", CLI_TEXT, "FILE", "all results; whole behind every row", &o.json},
        {"--compare", CLI_FLAG, "", "of two such files: what changed", &is_compare},
        {"--calibrate", CLI_TEXT, "FILE", "rates of this device, for `cudpo plan --calibration`",
         &o.calibration},
        {"--plot", CLI_TEXT, "SVG", "draw a JSON file of `cudpo bench` or `cudpo plan`", &svg},
        {"--list", CLI_FLAG, "", "print the names of all ops", &list},
    };
    const int64_t n = sizeof options / sizeof options[0];
    ranks_options(options + n - RANKS_OPTIONS, &ranks);
    o.ranks = &ranks;
    CUDPO_TRY(cli_parse(options, n, words, argc, &help, argc, argv));
    if (help) {
        cli_print_page(&page, options, n, false);
        return CUDPO_OK;
    }
    o.ops = words;
    while (o.op_count < argc && words[o.op_count] != NULL)
        o.op_count++;
    if (is_compare && o.op_count != 2)
        return cudpo_fail(CUDPO_EUSAGE, "--compare", "needs two files, before and after");
    if (is_compare) return compare(words[0], words[1]);
    if (svg != NULL && o.op_count != 1)
        return cudpo_fail(CUDPO_EUSAGE, "--plot", "needs one JSON file to draw");
    if (svg != NULL) return cudpo_bench_plot(svg, words[0]);
    for (int64_t i = 0; list && cudpo_bench_op(i) != NULL; i++)
        puts(cudpo_bench_op(i));
    if (list) return CUDPO_OK;
    o.shapes = shapes;
    o.shape_count = models.n;
    return measure(&o, argv);
}

cudpo_status cli_bench(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "step") == 0) return cli_bench_step(argc - 1, argv + 1);
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    const char **shapes = calloc((size_t)argc + 1, sizeof *shapes);
    const cudpo_status status = words == NULL || shapes == NULL
                                    ? cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d words", argc)
                                    : run(argc, argv, words, shapes);
    free(shapes);
    free(words);
    return status;
}
