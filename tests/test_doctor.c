/* test_doctor.c - what `cudpo doctor` says of the rank that a launcher made of it, and `cudpo train` takes of it as options. */
/* rooms: base */
#include "program.h"
#include "base/json.h"

/* Run the doctor with variables "NAME=value ..." in its environment, and find `want` in a line that begins with `name`. */
static void doctor_says(const char *variables, const char *name, const char *want)
{
    static const char *const launchers[] = {"RANK",
                                            "WORLD_SIZE",
                                            "LOCAL_RANK",
                                            "MASTER_ADDR",
                                            "MASTER_PORT",
                                            "TORCHELASTIC_RUN_ID",
                                            "SLURM_JOB_ID",
                                            "SLURM_STEP_ID",
                                            "SLURM_PROCID",
                                            "PMIX_RANK",
                                            "PMIX_NAMESPACE",
                                            "PMI_RANK",
                                            "PMI_SIZE",
                                            "OMPI_COMM_WORLD_RANK",
                                            "OMPI_COMM_WORLD_SIZE",
                                            "JOB_COMPLETION_INDEX",
                                            "PET_NNODES",
                                            "PET_NODE_RANK",
                                            "CUDPO_PLUGIN"};
    char text[512], *word, *rest = NULL;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        unsetenv(launchers[i]);
    snprintf(text, sizeof text, "%s", variables);
    for (word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        assert_non_null(equals);
        *equals = '\0';
        assert_int_equal(setenv(word, equals + 1, 1), 0);
    }
    program_result r = RUN(0, "doctor");
    char start[64];
    snprintf(start, sizeof start, "\n%s ", name);
    const char *line = strstr(r.out, start);
    if (line == NULL) fail_msg("%s: no line %s in: %s", variables, name, r.out);
    const char *found = strstr(line, want);
    if (found == NULL || found > strchr(line + 1, '\n'))
        fail_msg("%s: \"%s\" is not said by: %s", variables, want, line);
    assert_null(strchr(r.out, '\x1b'));
    program_free(&r);
}

static void says_which_rank_it_is(void **state)
{
    (void)state;
    doctor_says("", "ranks", "one process: none of torchrun, Slurm, PMIx, mpirun, Kubernetes is");
    doctor_says("", "device of the rank", "CPU");
    doctor_says("RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=n0 "
                "MASTER_PORT=23456 TORCHELASTIC_RUN_ID=j",
                "ranks", "rank 3 of 8 (torchrun j), local rank 1 of 2, rank 0 at n0:23456");
    unsetenv("LOCAL_WORLD_SIZE");
    doctor_says("SLURM_JOB_ID=12", "ranks", "one process: Slurm job 12, and no step of it");
}

static void says_what_contradicts_itself(void **state)
{
    (void)state;
    doctor_says("RANK=8 WORLD_SIZE=8 LOCAL_RANK=0", "ranks", "RANK: is 8 and WORLD_SIZE is 8");
    doctor_says("RANK=8", "ranks", "WORLD_SIZE: is missing, and RANK is set");
    doctor_says("RANK=\x1b[2J", "ranks", "no whole number");
    doctor_says("", "ranks", "one process");
}

/* The options are no keys: they can't be set in a file, and are no part of what a run is repeated by. */
static void train_takes_ranks_as_options(void **state)
{
    (void)state;
    static const char *const options[] = {
        "--launcher NAME",           "--rank N",     "--world_size N",         "--local_rank N",
        "--rdzv_endpoint HOST:PORT", "--rdzv_id ID", "--rdzv_token_file FILE", "--rdzv_insecure\n"};
    program_result r = RUN(0, "train", "--help");
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        has(r.out, options[i]);
    program_free(&r);
    program_result plain = RUN(0, "train", "--print_config", "--beta", "0.3");
    r = RUN(0, "train", "--launcher", "flags", "--rank", "0", "--world_size=1", "--beta", "0.3",
            "--local_rank", "0", "--rdzv_endpoint", "h:1", "--rdzv_id", "x", "--rdzv_token_file",
            "y", "--rdzv_insecure", "--print_config");
    assert_string_equal(r.out, plain.out);
    program_free(&r);
    program_free(&plain);
    SAYS(64, "--rank: \"-1\" is no whole number", "train", "--rank", "-1");
    SAYS(64, "--world_size: \"two\" is no whole number", "train", "--world_size", "two");
    SAYS(64, "--rdzv_insecure: takes no value", "train", "--rdzv_insecure=yes");
    SAYS(64, "--launcher: needs a value", "train", "--launcher");
    char path[640];
    snprintf(path, sizeof path, "%s", scratch_text("c.json", "{\"rank\": 1}"));
    SAYS(78, "c.json: rank: unknown key", "train", path);
    SAYS(78, "--world_size: unknown key", "eval", "--world_size", "2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(says_which_rank_it_is),
                                       cmocka_unit_test(says_what_contradicts_itself),
                                       cmocka_unit_test(train_takes_ranks_as_options)};
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
