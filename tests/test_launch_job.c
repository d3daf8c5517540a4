/* test_launch_job.c - job files of `cudpo launch`: what shells, Slurm's commands and Kubernetes read in them. */
/* rooms: base launch */
#include "program.h"
#include "base/buffer.h"
#include "base/json.h"
#include "base/quote.h"
#include "cudpo/launch.h"

#include <sys/stat.h>

/* Words that a shell, YAML or a container would change. */
static const char *const hard[] = {"it's",  "a b", "\"q\"", "$HOME",        "$(id)", "`id`",
                                   "\\",    "*",   "",      "a\nb",         "\t",    "=",
                                   "a=b",   "#x",  "~",     "x;y&z",        "$$",    "caf\xc3\xa9",
                                   "{a,b}", "!!",  "-",     "\xe2\x80\xa8", NULL};
enum { HARD = sizeof hard / sizeof *hard - 1 };

static char config[640]; /* in a folder with a quote and a space */

static void write_config(void)
{
    snprintf(config, sizeof config, "%s",
             scratch_text("it's a $folder/my Run.json",
                          "{\"model_name_or_path\": \"m\", \"train_dataset\": \"d.jsonl\",\n"
                          "  \"output_dir\": \"out's\"}\n"));
}

static int prepare(void **state)
{
    (void)state;
    static const char *const stubs[][2] = {
        {"srun", "#!/bin/sh\n"
                 "for a in \"$@\"; do printf '%s\\n' \"<$a>\"; done >\"$SEEN\"\n"
                 "stat -c %a \"$CUDPO_RDZV_TOKEN_FILE\" >\"$SEEN.mode\"\n"
                 "wc -c <\"$CUDPO_RDZV_TOKEN_FILE\" >\"$SEEN.bytes\"\n"
                 "echo \"$OMP_NUM_THREADS\" >\"$SEEN.threads\"\n"
                 "[ -z \"$CHECKPOINT\" ] || mkdir \"$CHECKPOINT\"\n"
                 "trap : USR1 TERM\n"
                 "[ -z \"$SIGNAL\" ] || { kill -s \"$SIGNAL\" $PPID; sleep 0.2; }\n"
                 "exit \"$STATUS\"\n"},
        {"torchrun", "#!/bin/sh\nfor a in \"$@\"; do printf '%s\\n' \"<$a>\"; done >\"$SEEN\"\n"
                     "echo \"$OMP_NUM_THREADS $TORCH_DISABLE_SHARE_RDZV_TCP_STORE\" "
                     ">\"$SEEN.threads\"\n"},
        {"scontrol", "#!/bin/sh\necho \"$@\" >>\"$SEEN.requeue\"\n"},
        {"squeue", "#!/bin/sh\n[ \"$*\" = \"-h -j $ID -o %T\" ] && echo \"$STATE\"\n"
                   "[ \"$*\" = \"-h -j $ID -o %r\" ] && echo \"$REASON\"\n"}};
    char path[1400], name[64];
    assert_int_equal(mkdir(scratch_path("bin"), 0700), 0);
    assert_int_equal(mkdir(scratch_path("it's a $folder"), 0700), 0);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "bin/%s", stubs[i][0]);
        assert_int_equal(chmod(scratch_text(name, stubs[i][1]), 0700), 0);
    }
    snprintf(path, sizeof path, "%s:%s", scratch_path("bin"), getenv("PATH"));
    setenv("PATH", path, 1);
    setenv("SEEN", scratch_path("seen"), 1);
    write_config();
    return 0;
}

static char *seen(const char *ending)
{
    char name[64], *text = NULL;
    size_t n;
    snprintf(name, sizeof name, "seen%s", ending);
    CHECK_OK(file_read(&text, &n, scratch_path(name), 1 << 20));
    return text;
}

static void expect_seen(const char *ending, const char *expected)
{
    char *text = seen(ending);
    assert_string_equal(text, expected);
    free(text);
}

/* Run a script as it was printed. */
static int run_script(const char *shell, const char *script)
{
    char path[640];
    snprintf(path, sizeof path, "%s", scratch_text("job", script));
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execlp(shell, shell, path, (char *)NULL);
        _exit(127);
    }
    return program_wait(pid);
}

static bool has_bash(void)
{
    if (run_script("bash", "exit 0") == 0) return true;
    printf("skipped: no bash\n");
    return false;
}

/* Every word arrives as it was given, through the whole script. */
static void quotes_for_shells(void **state)
{
    (void)state;
    const char *arguments[HARD + 16] = {"launch",         "slurm",           config, "--program",
                                        "a=b's/pro gram", "--gpus-per-node", "0",    "--"};
    buffer expected = {0};
    int n = 8;
    while (arguments[n - 1] != NULL) {
        arguments[n] = hard[n - 8];
        n++;
    }
    CHECK_OK(buffer_printf(&expected,
                           "<--export=ALL>\n<--kill-on-bad-exit=1>\n"
                           "<--cpus-per-task=3>\n<a=b's/pro gram>\n<train>\n<%s>\n",
                           config));
    for (int i = 0; i < HARD; i++)
        CHECK_OK(buffer_printf(&expected, "<%s>\n", hard[i]));
    CHECK_OK(buffer_printf(&expected, "<--resume_from_checkpoint>\n<true>\n"));
    setenv("SLURM_CPUS_PER_TASK", "3", 1);
    setenv("SLURM_JOB_ID", "12", 1);
    setenv("STATUS", "0", 1);
    program_result r = program_expect(0, arguments);
    has(r.out, "\n#SBATCH --job-name=my-run\n");
    if (has_bash()) {
        assert_int_equal(run_script("bash", r.out), 0);
        expect_seen("", expected.data);
    }
    program_free(&r);
    arguments[1] = "torchrun";
    r = program_expect(0, arguments);
    buffer_clear(&expected);
    CHECK_OK(buffer_printf(&expected,
                           "<--standalone>\n<--nproc_per_node>\n<1>\n<--no_python>\n"
                           "<a=b's/pro gram>\n<train>\n<%s>\n",
                           config));
    for (int i = 0; i < HARD; i++)
        CHECK_OK(buffer_printf(&expected, "<%s>\n", hard[i]));
    CHECK_OK(buffer_printf(&expected, "<--resume_from_checkpoint>\n<true>\n"));
    assert_int_equal(run_script("sh", r.out), 0);
    expect_seen("", expected.data);
    expect_seen(".threads", "1 1\n");
    program_free(&r);
    buffer_free(&expected);
}

/* The lines that sbatch reads. */
static void asks_slurm(void **state)
{
    (void)state;
    program_result r =
        RUN(0, "launch", "slurm", config, "--nodes", "2", "--gpus-per-node=8", "--cpus_per_rank",
            "12", "--time", "1-00:00:00", "--partition", "a,b", "--account", "me", "--job-name",
            "X.1", "--array", "1-4%2", "--beta", "0.3", "--resume_from_checkpoint=false");
    static const char *const lines[] = {
        "job-name=X.1",        "nodes=2",          "ntasks-per-node=8",
        "gpus-per-node=8",     "cpus-per-task=12", "time=1-00:00:00",
        "partition=a,b",       "account=me",       "array=1-4%2",
        "output=%x-%A_%a.out", "signal=USR1@120",  "requeue",
        "open-mode=append"};
    assert_int_equal(strncmp(r.out, "#!/bin/bash\n", 12), 0);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char line[64];
        snprintf(line, sizeof line, "\n#SBATCH --%s\n", lines[i]);
        has(r.out, line);
    }
    has(r.out, " --beta 0.3 ");
    has(r.out, " '--resume_from_checkpoint=false' \\\n"); /* once, as it was said */
    has(r.out,
        " --seed \"$SLURM_ARRAY_TASK_ID\" --output_dir 'out'\\''s'/\"$SLURM_ARRAY_TASK_ID\"");
    assert_null(strstr(r.out, "--resume_from_checkpoint true"));
    program_free(&r);
    r = RUN(0, "launch", "slurm", config, "--gpus_per_node", "0", "--ranks_per_node", "4", "--mpi",
            "pmix");
    assert_null(strstr(r.out, "gpus-per-node"));
    assert_null(strstr(r.out, "TOKEN")); /* Slurm itself introduces the ranks */
    has(r.out, "\n#SBATCH --ntasks-per-node=4\n");
    has(r.out, "\n#SBATCH --output=%x-%j.out\n");
    has(r.out, " --mpi=pmix ");
    program_free(&r);
}

/* What is named after its configuration has a name that Slurm takes, and hosts. */
static void names_itself(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"2nd try_.json", "nd-try"},
                                           {"A.b.json", "a-b"},
                                           {"_1.json", "cudpo"},
                                           {"x", "x"},
                                           {".json", "json"}};
    const char *const none[] = {NULL};
    for (int i = 0; i < 5; i++) {
        char path[640], line[64], *text = NULL;
        snprintf(path, sizeof path, "%s", scratch_text(names[i][0], "{}"));
        const cudpo_job job = {.config = path, .arguments = none, .nodes = 1};
        CHECK_OK(cudpo_job_file(&text, CUDPO_JOB_SLURM, &job));
        snprintf(line, sizeof line, "\n#SBATCH --job-name=%s\n", names[i][1]);
        has(text, line);
        free(text);
    }
}

/* What the script begins with, checkpoints of steps 5 and 9; and the one that the ranks will make: "": none. */
static void leave_checkpoints(const char *output, const char *array, const char *step)
{
    char folder[700], path[800];
    CHECK_OK(file_remove_folder(output));
    snprintf(folder, sizeof folder, "%s%s%s", output, array == NULL ? "" : "/",
             array == NULL ? "" : array);
    for (int i = 5; i <= 9; i += 4) {
        snprintf(path, sizeof path, "%s/checkpoint-%d", folder, i);
        CHECK_OK(file_make_folder(path));
    }
    snprintf(path, sizeof path, "%s/checkpoint-%s", folder, step);
    setenv("CHECKPOINT", *step == '\0' ? "" : path, 1);
}

/* The script around the ranks: its secret, its status, and whether it queues itself again. */
static void runs_as_a_batch_script(void **state)
{
    (void)state;
    static const struct {
        const char *status, *state, *reason, *signal, *array;
        const char *checkpoint; /* that it leaves behind */
        const char *requeued;   /* NULL: not */
    } cases[] = {
        {"0", "RUNNING", "None", "", NULL, "", NULL},
        {"1", "RUNNING", "None", "", NULL, "20", NULL},
        {"75", "RUNNING", "None", "", NULL, "", "requeue 12\n"},
        {"75", "RUNNING", "None", "TERM", NULL, "20", "requeue 12\n"},
        {"75", "RUNNING", "None", "USR1", "3", "20", "requeue 77_3\n"},
        {"75", "CANCELLED", "None", "TERM", NULL, "20", NULL},
        {"75", "COMPLETING", "None", "TERM", NULL, "20", NULL},
        {"0", "RUNNING", "None", "USR2", NULL, "", NULL},
        /* At the limit: saved or killed, it is queued again where it has come further than step 9. */
        {"75", "COMPLETING", "TimeLimit", "TERM", NULL, "10", "requeue 12\n"},
        {"75", "COMPLETING", "TimeLimit", "", NULL, "10", "requeue 12\n"},
        {"75", "COMPLETING", "TimeLimit", "TERM", NULL, "", NULL},
        {"137", "COMPLETING", "TimeLimit", "TERM", NULL, "10", "requeue 12\n"},
        {"137", "COMPLETING", "TimeLimit", "TERM", "3", "10", "requeue 77_3\n"},
        {"137", "COMPLETING", "TimeLimit", "", NULL, "10", NULL},
        {"137", "COMPLETING", "TimeLimit", "TERM", NULL, "8", NULL},
        {"137", "COMPLETING", "TimeLimit", "USR1", NULL, "10", NULL},
        /* A rank was lost: likewise; one that failed by itself says so with another status. */
        {"69", "RUNNING", "None", "", NULL, "10", "requeue 12\n"},
        {"69", "RUNNING", "None", "", NULL, "", NULL},
        {"69", "COMPLETING", "None", "TERM", NULL, "10", NULL},
        {"137", "RUNNING", "None", "", NULL, "10", NULL},
    };
    if (!has_bash()) skip();
    char output[640];
    snprintf(output, sizeof output, "%s", scratch_path("out's $folder"));
    const char *const plain[] = {"launch", "slurm",        config, "--gpus_per_node",
                                 "0",      "--output_dir", output, NULL};
    const char *const array[] = {
        "launch",  "slurm", config, "--gpus_per_node", "0", "--output_dir", output,
        "--array", "3",     NULL};
    program_result scripts[] = {program_expect(0, plain), program_expect(0, array)};
    setenv("SLURM_CPUS_PER_TASK", "5", 1);
    setenv("SLURM_JOB_ID", "12", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("STATUS", cases[i].status, 1);
        setenv("STATE", cases[i].state, 1);
        setenv("REASON", cases[i].reason, 1);
        setenv("SIGNAL", cases[i].signal, 1);
        setenv("ID", cases[i].array == NULL ? "12" : "77_3", 1);
        if (cases[i].array != NULL) {
            setenv("SLURM_ARRAY_JOB_ID", "77", 1);
            setenv("SLURM_ARRAY_TASK_ID", cases[i].array, 1);
        }
        leave_checkpoints(output, cases[i].array, cases[i].checkpoint);
        scratch_text("it's a $folder/.cudpo-token-12.killed", "of a start that was killed");
        unlink(scratch_path("seen.requeue"));
        if (run_script("bash", scripts[cases[i].array != NULL].out) != atoi(cases[i].status))
            fail_msg("case %zu: status", i);
        expect_seen(".mode", "600\n");
        expect_seen(".bytes", "64\n");
        expect_seen(".threads", "5\n");
        if (cases[i].requeued != NULL)
            expect_seen(".requeue", cases[i].requeued);
        else
            assert_false(file_is_regular(scratch_path("seen.requeue")));
        unsetenv("SLURM_ARRAY_JOB_ID");
        unsetenv("SLURM_ARRAY_TASK_ID");
    }
    unlink(config);
    assert_true(file_folder_is_empty(scratch_path("it's a $folder"))); /* no secret is left */
    write_config();
    program_free(&scripts[0]);
    program_free(&scripts[1]);
}

/* The text between two lines of another, in new memory. */
static char *between(const char *text, const char *begin, const char *end)
{
    const char *from = strstr(text, begin);
    if (from == NULL) fail_msg("no \"%s\" in: %s", begin, text);
    from += strlen(begin);
    const char *to = strstr(from, end);
    if (to == NULL) fail_msg("no \"%s\" behind: %s", end, from);
    char *part = strndup(from, (size_t)(to - from));
    assert_non_null(part);
    return part;
}

/* An item of a list as YAML reads it: a plain word, or a string in double quotes, which is JSON's but for \U. */
static void read_item(char out[512], const char *line)
{
    json *value = NULL;
    assert_int_equal(strncmp(line, "        - ", 10), 0);
    line += 10;
    if (*line != '"') {
        snprintf(out, 512, "%s", line);
        return;
    }
    CHECK_OK(json_parse(&value, line, strlen(line), "item"));
    snprintf(out, 512, "%s", json_string(value));
    json_free(value);
}

/* What Kubernetes makes of an argument: $(NAME) a variable's value, $$ a $. */
static void expand(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        if (from[0] == '$' && from[1] == '(') fail_msg("%s would be replaced", from);
        if (from[0] == '$' && from[1] == '$') from++;
        *to++ = *from;
    }
    *to = '\0';
}

static void quotes_for_kubernetes(void **state)
{
    (void)state;
    const char *arguments[HARD + 16] = {"launch",    "kubernetes",      config, "--nodes",
                                        "3",         "--gpus-per-node", "8",    "--image",
                                        "r/cudpo:1", "--claim",         "work", "--"};
    static const char *const own[] = {"cudpo",
                                      "launch",
                                      "--nproc=8",
                                      "--nnodes=3",
                                      "--node_rank=$(JOB_COMPLETION_INDEX)",
                                      "--rdzv_endpoint=my-run-0.my-run:29500",
                                      "--rdzv_id=$(JOB_UID)",
                                      "--rdzv_token_file=/etc/cudpo-token/token",
                                      "--",
                                      "train",
                                      "/etc/cudpo/config.json"};
    enum { OWN = sizeof own / sizeof *own };
    memcpy(arguments + 12, hard, sizeof hard);
    program_result r = program_expect(0, arguments);
    char *list = between(r.out, "        command:\n", "        env:\n"), item[512], *next = NULL;
    int n = 0;
    for (char *line = strtok_r(list, "\n", &next); line != NULL;
         line = strtok_r(NULL, "\n", &next), n++) {
        read_item(item, line);
        if (n >= OWN) expand(item);
        assert_string_equal(item, n < OWN           ? own[n]
                                  : n < OWN + HARD  ? hard[n - OWN]
                                  : n == OWN + HARD ? "--resume_from_checkpoint"
                                                    : "true");
    }
    assert_int_equal(n, OWN + HARD + 2);
    free(list);
    /* The configuration, line by line behind four spaces. */
    list = between(r.out, "  config.json: |2\n", "---\n");
    assert_string_equal(list,
                        "    {\"model_name_or_path\": \"m\", \"train_dataset\": \"d.jsonl\",\n"
                        "      \"output_dir\": \"out's\"}\n");
    free(list);
    static const char *const lines[] = {"kind: Service",
                                        "  clusterIP: None",
                                        "    job-name: \"my-run\"",
                                        "kind: Job",
                                        "  completionMode: Indexed",
                                        "  completions: 3",
                                        "  parallelism: 3",
                                        "        values: [75]",
                                        "      - type: DisruptionTarget",
                                        "      restartPolicy: Never",
                                        "      subdomain: \"my-run\"",
                                        "        image: \"r/cudpo:1\"",
                                        "            nvidia.com/gpu: 8",
                                        "          medium: Memory",
                                        "          secretName: \"my-run-token\"",
                                        "          claimName: \"work\"",
                                        "        workingDir: /work"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char line[64];
        snprintf(line, sizeof line, "\n%s\n", lines[i]);
        has(r.out, line);
    }
    program_free(&r);
    r = RUN(0, "launch", "kubernetes", config, "--gpus_per_node", "0", "--image", "x");
    static const char *const absent[] = {"nvidia", "Service", "token", "nnodes", "work"};
    for (int i = 0; i < 5; i++)
        if (strstr(r.out, absent[i]) != NULL) fail_msg("%s in: %s", absent[i], r.out);
    program_free(&r);
}

/* Text that a block of YAML can't hold is quoted. */
static void quotes_texts(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"a\n  b \n", "|2\n    a\n      b \n"},
        {"  a\n", "|2\n      a\n"},
        {"a", "\"a\"\n"},
        {"", "\"\"\n"},
        {"a\n\nb\n", "\"a\\u000a\\u000ab\\u000a\"\n"},
        {"a\tb\n", "\"a\\u0009b\\u000a\"\n"},
        {"\xc3\xa9\xf0\x9f\x98\x80\n", "\"\\u00e9\\U0001f600\\u000a\"\n"},
    };
    static const char *const invalid[] = {"\xff", "\xc0\x80", "\xe2\x80", "\xed\xa0\x80",
                                          "\xf4\x90\x80\x80"};
    buffer b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buffer_clear(&b);
        CHECK_OK(quote_yaml_block(&b, cases[i].text, 4));
        assert_string_equal(b.data, cases[i].expected);
    }
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++)
        CHECK_FAILS(quote_yaml(&b, invalid[i]), CUDPO_EDATA, "is no UTF-8");
    buffer_free(&b);
}

static void refuses(void **state)
{
    (void)state;
    char bad[640];
    SAYS(66, "none.json: can't open", "launch", "slurm", "none.json");
    SAYS(64, "needs a CONFIG.json", "launch", "slurm");
    snprintf(bad, sizeof bad, "%s", scratch_text("bad.json", "{\"beta\": }"));
    SAYS(78, "bad.json:1: not valid JSON", "launch", "kubernetes", bad, "--image", "x");
    snprintf(bad, sizeof bad, "%s", scratch_text("bad.json", "[]"));
    SAYS(78, "bad.json: must be an object", "launch", "torchrun", bad);
    SAYS(78, "--betta: unknown key; did you mean beta?", "launch", "slurm", config, "--betta", "1");
    static const struct {
        const char *kind, *option, *value, *message;
    } cases[] = {
        {"slurm", "--nodes", "0", "--nodes: 0 is not from 1 to 4096"},
        {"slurm", "--nodes", "4097", "--nodes: 4097 is not"},
        {"slurm", "--gpus-per-node", "65", "--gpus_per_node: 65 is not from 0 to 64"},
        {"slurm", "--cpus-per-rank", "9999", "--cpus_per_rank: 9999 is not"},
        {"slurm", "--time", "1\n#SBATCH --uid=0", "--time: "},
        {"slurm", "--partition", "a b", "--partition: \"a b\" has characters"},
        {"slurm", "--job-name", "a;b", "--job_name: \"a;b\" has characters"},
        {"slurm", "--array", "1-$x", "--array: "},
        {"slurm", "--account", "", "--account: "},
        {"slurm", "--image", "x", "--image: is of `cudpo launch kubernetes`"},
        {"torchrun", "--time", "1:00", "--time: is of `cudpo launch slurm`"},
        {"torchrun", "--claim", "x", "--claim: is of `cudpo launch kubernetes`"},
        {"kubernetes", "--nodes", "2", "--image: is needed"},
        {"kubernetes", "--image", "", "--image: is needed"},
        {"kubernetes", "--mpi", "pmix", "--mpi: is of `cudpo launch slurm`"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        SAYS(64, cases[i].message, "launch", cases[i].kind, config, cases[i].option,
             cases[i].value);
    static const char *const names[] = {"Upper", "9a", "a_b", "a-", "a.b"};
    for (int i = 0; i < 5; i++)
        SAYS(64, "is no name of a host", "launch", "kubernetes", config, "--image", "x",
             "--job-name", names[i]);
    char *text = NULL;
    const char *const none[] = {NULL};
    cudpo_job job = {.arguments = none, .nodes = 1};
    snprintf(bad, sizeof bad, "%s", scratch_text("bad.json", "[]"));
    job.config = bad;
    CHECK_FAILS(cudpo_job_file(&text, CUDPO_JOB_SLURM, &job), CUDPO_EDATA, "is no JSON object");
    job.config = "/nowhere/x.json";
    CHECK_FAILS(cudpo_job_file(&text, CUDPO_JOB_SLURM, &job), CUDPO_ENOINPUT, "can't open");
    assert_null(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotes_for_shells),
        cmocka_unit_test(asks_slurm),
        cmocka_unit_test(names_itself),
        cmocka_unit_test(runs_as_a_batch_script),
        cmocka_unit_test(quotes_for_kubernetes),
        cmocka_unit_test(quotes_texts),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, prepare, scratch_remove);
}
