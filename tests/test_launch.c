/* test_launch.c - `cudpo launch`: what ranks are told, their output, and what their ends are taken for. */
/* rooms: base launch */
#include "test_launch.h"
#include "launch/machine.h"

#include <sys/stat.h>

/* Text between `before` and the end of its line, of the first such line. */
static void value_of(char out[256], const char *text, const char *before)
{
    const char *at = strstr(text, before);
    if (at == NULL) fail_msg("no \"%s\" in: %s", before, text);
    at += strlen(before);
    snprintf(out, 256, "%.*s", (int)strcspn(at, "\n"), at);
}

static void counts_gpus(void **state)
{
    (void)state;
    static const char *const names[] = {"nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia"};
    static const struct {
        const char *visible;
        int64_t n;
    } cases[] = {{"", 0},          {"0", 1},      {"0,1,2", 3},      {" 3 , 5", 2},
                 {"-1", 0},        {"0,-1,1", 1}, {"NoDevFiles", 0}, {"GPU-8932f937,GPU-1", 2},
                 {"MIG-a/1/2", 1}, {"0,", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (machine_gpus(cases[i].visible, "/nowhere") != cases[i].n)
            fail_msg("CUDA_VISIBLE_DEVICES=\"%s\" is not %d", cases[i].visible, (int)cases[i].n);
    char folder[640], file[64];
    snprintf(folder, sizeof folder, "%s", scratch_path("dev"));
    assert_int_equal(mkdir(folder, 0700), 0);
    for (int i = 0; i < 5; i++) {
        snprintf(file, sizeof file, "dev/%s", names[i]);
        scratch_text(file, "");
    }
    assert_int_equal(machine_gpus(NULL, folder), 2);
    assert_int_equal(machine_gpus(NULL, scratch_path("nowhere")), 0);
    /* One rank for each, where a number is not said. */
    setenv("CUDA_VISIBLE_DEVICES", "0,1,2", 1);
    program_result r = RUN(0, SH("gpu", "echo $RANK of $WORLD_SIZE"));
    has(r.out, "[rank 2] 2 of 3\n");
    program_free(&r);
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    SAYS(64, "--nproc: no GPU is visible", SH("gpu", "exit 1"));
    r = RUN(0, SH("auto", "echo $RANK of $WORLD_SIZE"));
    assert_string_equal(r.out, "0 of 1\n");
    program_free(&r);
    unsetenv("CUDA_VISIBLE_DEVICES");
}

#define TELL                                                                                      \
    "echo \"$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $GROUP_RANK $MASTER_ADDR "            \
    "$TORCHELASTIC_RESTART_COUNT $GROUP_WORLD_SIZE$ROLE_RANK\"; echo port $MASTER_PORT; echo id " \
    "$TORCHELASTIC_RUN_ID; echo token $(cat $CUDPO_RDZV_TOKEN_FILE); echo mode $(stat -L -c "     \
    "%a%h $CUDPO_RDZV_TOKEN_FILE); echo threads $OMP_NUM_THREADS"

static void tells_ranks(void **state)
{
    (void)state;
    char one[256], two[256], expected[64];
    setenv("ROLE_RANK", "5", 1); /* of torchrun, which started this process: of no rank */
    unsetenv("OMP_NUM_THREADS");
    program_result r = RUN(0, SH("2", TELL));
    has(r.out, "[rank 0] 0/2 0/2 0 127.0.0.1 0 1\n");
    has(r.out, "[rank 1] 1/2 1/2 0 127.0.0.1 0 1\n");
    value_of(one, r.out, "[rank 0] port ");
    value_of(two, r.out, "[rank 1] port ");
    assert_string_equal(one, two);
    assert_true(atoi(one) >= 1024 && atoi(one) <= 65535);
    value_of(one, r.out, "[rank 0] id ");
    value_of(two, r.out, "[rank 1] id ");
    assert_string_equal(one, two);
    assert_int_equal(strspn(one, "0123456789abcdef"), 16);
    value_of(one, r.out, "[rank 0] token ");
    value_of(two, r.out, "[rank 1] token ");
    assert_string_equal(one, two);
    assert_int_equal(strlen(one), 64);
    assert_int_equal(strspn(one, "0123456789abcdef"), 64);
    has(r.out, "[rank 1] mode 6000\n"); /* for this user alone, and without a name */
    const int64_t each = machine_cores() / 2;
    snprintf(expected, sizeof expected, "[rank 1] threads %d\n", each < 1 ? 1 : (int)each);
    has(r.out, expected);
    program_free(&r);
    setenv("OMP_NUM_THREADS", "7", 1);
    r = RUN(0, SH("2", TELL));
    value_of(two, r.out, "[rank 0] token ");
    assert_string_not_equal(one, two);
    has(r.out, "[rank 0] threads 7\n");
    program_free(&r);
    unsetenv("OMP_NUM_THREADS");
    unsetenv("ROLE_RANK");
    /* They would fight for standard input: it is nobody's. */
    char command[2600], *text = NULL;
    size_t n;
    snprintf(command, sizeof command,
             "echo something | '%s' launch --nproc 2 --program sh -- -c 'wc -c >%s.$RANK'",
             getenv("CUDPO_PROGRAM"), scratch_path("input"));
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(file_read(&text, &n, scratch_path(i == 0 ? "input.0" : "input.1"), 64));
        assert_string_equal(text, "0\n");
        free(text);
    }
    /* Without --program it is this program. */
    r = RUN(0, "launch", "--nproc=2", "--", "--version");
    has(r.out, "[rank 0] cudpo ");
    has(r.out, "[rank 1] cudpo ");
    program_free(&r);
}

#define NODES "launch", "--nproc", "2", "--nnodes", "3", "--node-rank", "1"
#define WHERE "--rdzv_endpoint", "far:123", "--rdzv_id", "run 7", "--rdzv_token_file", token
#define AGAIN "--", "-c", TELL "; exit $((1 - TORCHELASTIC_RESTART_COUNT))"

static void knows_its_node(void **state)
{
    (void)state;
    char token[640];
    snprintf(token, sizeof token, "%s", scratch_text("token", "hush"));
    program_result r = RUN(0, NODES, WHERE, "--max_restarts", "1", "--program", "sh", AGAIN);
    has(r.out, "[rank 2] 2/6 0/2 1 far 0 3\n");
    has(r.out, "[rank 3] 3/6 1/2 1 far 1 3\n");
    has(r.out, "[rank 3] port 123\n");
    has(r.out, "[rank 3] id run 7\n");
    assert_null(strstr(r.out, "run 7.")); /* the second time, too: nodes start again on their own */
    has(r.out, "[rank 3] token hush\n");
    program_free(&r);
    SAYS(64, "--rdzv_endpoint: is needed", NODES, "x");
    SAYS(64, "--rdzv_token_file: is needed", NODES, "--rdzv_endpoint", "far", "x");
    SAYS(64, "--node_rank: is needed", "launch", "--nnodes", "2", "x");
    SAYS(64, "--node_rank: 2 is not from 0 to 1", "launch", "--nnodes", "2", "--node_rank", "2",
         "x");
    SAYS(64, "\"70000\" is no number", NODES, "--rdzv_endpoint", "far:70000", "x");
    /* A pod of Kubeflow, where an option still wins. */
    setenv("PET_NNODES", "2", 1);
    setenv("PET_NODE_RANK", "1", 1);
    setenv("PET_NPROC_PER_NODE", "2", 1);
    setenv("PET_MASTER_ADDR", "pod-0.job", 1);
    setenv("PET_MASTER_PORT", "444", 1);
    setenv("CUDPO_RDZV_TOKEN_FILE", token, 1);
    r = RUN(0, "launch", "--program", "sh", "--", "-c", TELL);
    has(r.out, "[rank 3] 3/4 1/2 1 pod-0.job 0 2\n");
    has(r.out, "[rank 3] port 444\n");
    has(r.out, "[rank 2] token hush\n");
    program_free(&r);
    r = RUN(0, "launch", "--nnodes", "1", "--node_rank", "0", "--program", "sh", "--", "-c", TELL);
    has(r.out, "[rank 1] 1/2 1/2 0 127.0.0.1 0 1\n");
    program_free(&r);
    setenv("PET_NNODES", "1:4", 1);
    SAYS(78, "PET_NNODES: \"1:4\" is no number", "launch", "x");
    unsetenv("PET_NNODES");
    unsetenv("PET_NODE_RANK");
    unsetenv("PET_NPROC_PER_NODE");
    unsetenv("PET_MASTER_ADDR");
    unsetenv("PET_MASTER_PORT");
    unsetenv("CUDPO_RDZV_TOKEN_FILE");
}

static void passes_on_lines(void **state)
{
    (void)state;
    static const char *const each[] = {"[rank 0] a 0\n", "[rank 1] a 1\n",    "[rank 0] \n",
                                       "[rank 1] \n",    "[rank 0] no end\n", "[rank 1] no end\n"};
    size_t bytes = 0;
    program_result r = RUN(0, SH("2", "echo \"a $RANK\"; echo b >&2; echo; printf 'no end'"));
    for (int i = 0; i < 6; i++, bytes += strlen(each[i - 1]))
        has(r.out, each[i]);
    assert_int_equal(strlen(r.out), bytes);
    has(r.err, "[rank 0] b\n");
    has(r.err, "[rank 1] b\n");
    assert_int_equal(strlen(r.err), 2 * strlen("[rank 0] b\n"));
    program_free(&r);
    r = RUN(0, SH("1", "echo a; printf 'no end'; echo b >&2")); /* as it stands */
    assert_string_equal(r.out, "a\nno end");
    assert_string_equal(r.err, "b\n");
    program_free(&r);
    /* 40,000 characters in one line: broken, but all there. */
    r = RUN(0, SH("2", "[ $RANK = 1 ] || printf '%040000d\\nend\\n' 0"));
    int zeros = 0, lines = 0;
    for (char *line = strtok(r.out, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        assert_int_equal(strncmp(line, "[rank 0] ", 9), 0);
        zeros += (int)strspn(line + 9, "0");
    }
    assert_int_equal(zeros, 40000);
    assert_int_equal(lines, 4); /* of 16384, 16384, 7232 and 3 */
    program_free(&r);
    /* Ranks that write at the same time, in pieces that are no lines, do not get into one another's. */
    r = RUN(0, SH("4", "i=0; while [ $i -lt 300 ]; do printf \"$RANK \"; printf \"$RANK\\n\"; "
                       "i=$((i + 1)); done"));
    lines = 0;
    for (char *line = strtok(r.out, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++)
        if (strlen(line) != 12 || line[6] != line[9] || line[6] != line[11])
            fail_msg("mixed: %s", line);
    assert_int_equal(lines, 1200);
    program_free(&r);
}

/* What the launcher makes of ranks that end so: the first that failed, and never one that only missed it. */
static void ends_as_the_first(void **state)
{
    (void)state;
    static const struct {
        const char *first, *others; /* rank 1, and two that end once that was waited for */
        int status;
    } cases[] = {
        {"exit 0", "exit 0", 0},
        {"exit 75", "exit 0", 75},
        {"exit 0", "exit 75", 75},
        {"exit 75", "exit 75", 75},
        {"exit 79", "exit 69", 79},
        {"exit 69", "exit 79", 79}, /* the reason, though it is late */
        {"exit 69", "exit 69", 69},
        {"exit 69", "exit 75", 69},
        {"kill -SEGV $$", "exit 69", 139},
        {"exit 3", "exit 4", 3},
        {"exit 3", "exit 75", 3},
        {"exit 75", "exit 5", 5},
    };
    char file[640], script[2600];
    snprintf(file, sizeof file, "%s", scratch_path("first"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(script, sizeof script,
                 "f='%s'; if [ $RANK = 1 ]; then echo $$ >$f.t; mv $f.t $f; %s; fi; "
                 "while [ ! -s $f ]; do sleep 0.02; done; "
                 "while kill -0 $(cat $f) 2>/dev/null; do sleep 0.02; done; %s",
                 file, cases[i].first, cases[i].others);
        program_result r = RUN(cases[i].status, SH("3", script));
        program_free(&r);
        assert_int_equal(unlink(file), 0);
    }
    program_result r = RUN(139, SH("2", "kill -SEGV $$"));
    has(r.err, " was ended by signal 11 (");
    program_free(&r);
    SAYS(66, "--program: nowhere is no program in a folder of $PATH", "launch", "--program",
         "nowhere", "x");
    SAYS(66, "--program: /nowhere is no program that can be run", "launch", "--program", "/nowhere",
         "x");
    SAYS(64, "needs what the ranks are to do", "launch", "--nproc", "2");
    SAYS(64, "\"0\" is no number from 1 to 1024", "launch", "--nproc", "0", "x");
    SAYS(64, "did you mean --nproc?", "launch", "--npro", "2", "x");
}

static void starts_again(void **state)
{
    (void)state;
    char first[256], second[256];
    program_result r =
        RUN(0, "launch", "--nproc", "2", "--max_restarts", "3", "--program", "sh", "--", "-c",
            "echo id $TORCHELASTIC_RESTART_COUNT $TORCHELASTIC_RUN_ID; "
            "[ $TORCHELASTIC_RESTART_COUNT = 2 ] || exit 69");
    value_of(first, r.out, "[rank 0] id 0 ");
    value_of(second, r.out, "[rank 0] id 1 ");
    assert_string_not_equal(first, second);
    has(r.out, "[rank 1] id 2 ");
    has(r.err, "restart 2 of 3\n");
    assert_null(strstr(r.out, "id 3"));
    program_free(&r);
    static const struct {
        const char *status;
        int restarts;
    } cases[] = {{"0", 0},  {"64", 0}, {"65", 0}, {"66", 0}, {"78", 0},
                 {"79", 0}, {"75", 2}, {"69", 2}, {"76", 2}, {"1", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char script[64], part[32];
        snprintf(script, sizeof script, "echo $TORCHELASTIC_RESTART_COUNT; exit %s",
                 cases[i].status);
        r = RUN(atoi(cases[i].status), "launch", "--nproc", "2", "--max_restarts", "2", "--program",
                "sh", "--", "-c", script);
        snprintf(part, sizeof part, "[rank 1] %d\n", cases[i].restarts);
        has(r.out, part);
        snprintf(part, sizeof part, "[rank 1] %d\n", cases[i].restarts + 1);
        assert_null(strstr(r.out, part));
        program_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_gpus),       cmocka_unit_test(tells_ranks),
        cmocka_unit_test(knows_its_node),    cmocka_unit_test(passes_on_lines),
        cmocka_unit_test(ends_as_the_first), cmocka_unit_test(starts_again),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
