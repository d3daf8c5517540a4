/* main.cpp - runs every bug and its correct twin in processes of their own, and prints what noticed it.
 *
 *     simt_bugs_<variant>               all of them; fails where the table in the sources is not met
 *     simt_bugs_<variant> NUMBER        one bug, as it is, for a look at its message; NUMBER ok: its correct twin */
#include "bugs.h"
#include "emulator.h"
#include "sanitizers.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#if defined(SIMT_ASAN)
static const Build build = SANITIZED;
static const std::vector<const char *> schedules = {"fwd", "rand:1"};
#elif defined(SIMT_RACE)
static const Build build = RACES;
static const std::vector<const char *> schedules = {"fwd"};
#else
static const Build build = PLAIN;
static const std::vector<const char *> schedules = {"fwd", "rev", "rand:1", "rand:2"};
#endif
enum { EXIT_CUDA = 3 }; /* a function of the CUDA runtime failed */

static std::vector<Bug> all_bugs()
{
    std::vector<Bug> all;
    for (const BugList *list :
         {&barrier_bugs, &warp_bugs, &memory_bugs, &async_bugs, &block_bugs, &host_bugs}) {
        all.insert(all.end(), list->bugs, list->bugs + list->count);
    }
    return all;
}

/* In a process of its own: run, print a hash of the result. */
static int run_here(const Bug &bug, bool correct)
{
    float *out, *in;
    static float host[BUG_INPUTS];
    if (cudaMalloc((void **)&out, BUG_OUTPUTS * sizeof(float)) != cudaSuccess) return 1;
    if (cudaMalloc((void **)&in, BUG_INPUTS * sizeof(float)) != cudaSuccess) return 1;
    for (int i = 0; i < BUG_INPUTS; i++) {
        host[i] = (float)(i % 7);
    }
    cudaMemset(out, 0, BUG_OUTPUTS * sizeof(float));
    cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice);
    bug.run(correct, out, in);
    const cudaError_t error = cudaGetLastError();
    cudaMemcpy(host, out, BUG_OUTPUTS * sizeof(float), cudaMemcpyDeviceToHost);
    cudaFree(out);
    cudaFree(in);
    if (error != cudaSuccess) {
        fprintf(stderr, "%s\n", cudaGetErrorName(error));
        return EXIT_CUDA;
    }
    unsigned long long hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < BUG_OUTPUTS * sizeof(float); i++) {
        hash = (hash ^ reinterpret_cast<unsigned char *>(host)[i]) * 1099511628211u;
    }
    printf("result %016llx\n", hash);
    return 0;
}

struct Outcome {
    int code; /* that the process exited with; 1000 + signal if one ended it */
    std::string text;
};

static Outcome run_apart(int number, bool correct, const char *schedule)
{
    int ends[2];
    if (pipe(ends) != 0) return {-1, "pipe"};
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        setenv("SIMT_SCHED", schedule, 1);
        execl("/proc/self/exe", "simt_bugs", std::to_string(number).c_str(),
              correct ? "ok" : nullptr, nullptr);
        _exit(127);
    }
    close(ends[1]);
    Outcome outcome = {-1, ""};
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
        outcome.text.append(buffer, (size_t)n);
    }
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return outcome;
}

/* Whether the text holds one of the alternatives. */
static bool says(const std::string &text, const char *alternatives)
{
    for (const char *begin = alternatives; begin != nullptr;) {
        const char *const end = strchr(begin, '|');
        const std::string one = end == nullptr ? std::string(begin) : std::string(begin, end);
        if (text.find(one) != std::string::npos) return true;
        begin = end == nullptr ? nullptr : end + 1;
    }
    return alternatives == nullptr;
}

static const char *outcome_name(const Outcome &o, const Outcome &correct)
{
    switch (o.code) {
    case 0:
        return o.text == correct.text ? "-" : "result";
    case simt::EXIT_VIOLATION:
        return "message";
    case simt::EXIT_RACES:
        return "race";
    case EXIT_CUDA:
        return "error";
    default:
        return build == SANITIZED && o.code < 1000 ? "sanitizer" : "crash";
    }
}

static bool by_emulator(const Outcome &o)
{
    return o.code == simt::EXIT_VIOLATION || o.code == simt::EXIT_RACES || o.code == EXIT_CUDA;
}

/* Print a line of the table; false where it is not as it should be. */
static bool check(int number, const Bug &bug)
{
    bool caught = false;
    std::string complaints;
    const Outcome correct = run_apart(number, true, schedules[0]);
    printf("%3d %-36s", number, bug.name);
    for (const char *schedule : schedules) {
        const Outcome twin = run_apart(number, true, schedule),
                      o = run_apart(number, false, schedule);
        const char *const name = outcome_name(o, correct);
        printf(" %-10s", name);
        caught |= strcmp(name, "-") != 0;
        if (twin.code != 0 || twin.text != correct.text)
            complaints += "    the correct twin is not silent:\n" + twin.text;
        if (by_emulator(o) && !says(o.text, bug.says))
            complaints +=
                std::string("    the message does not say \"") + bug.says + "\":\n" + o.text;
    }
    if ((bug.caught & build) && !caught) complaints += "    not caught\n";
    const bool good = complaints.empty();
    printf(" %s\n%s", good ? (caught ? "" : "(not for this build)") : "WRONG", complaints.c_str());
    return good;
}

int main(int argc, char **argv)
{
    const std::vector<Bug> bugs = all_bugs();
    if (argc > 1) {
        const size_t number = strtoul(argv[1], nullptr, 10);
        return number < bugs.size() ? run_here(bugs[number], argc > 2) : 1;
    }
    int wrong = 0, caught_elsewhere = 0;
    printf("%-40s", "bug, and what noticed it under");
    for (const char *schedule : schedules) {
        printf(" %-10s", schedule);
    }
    printf("\n");
    for (size_t i = 0; i < bugs.size(); i++) {
        wrong += !check((int)i, bugs[i]);
        caught_elsewhere += !(bugs[i].caught & build);
    }
    printf("%zu bugs, %d of them for other builds to catch, %d wrong\n", bugs.size(),
           caught_elsewhere, wrong);
    return wrong > 0 || bugs.empty();
}
