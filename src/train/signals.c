/* signals.c - handlers that only set flags; a second SIGTERM or SIGINT ends the process at once, without saving, unless
 * it is the same one that arrives twice: some senders address the process and its group.
 *
 * A signal disposition belongs to the whole process: these flags are the one place where mutable state is global. */
#include "train/signals.h"
#include "base/log.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_wanted, save_wanted;
static volatile sig_atomic_t told; /* by SIGTERM or SIGINT */
static volatile time_t told_at;    /* s; only the handler touches it, which is not interrupted */
static pid_t starter;              /* 0: its end does not matter */
static struct sigaction before[4];
static const int handled[4] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};

static void note(int number)
{
    struct timespec now;
    if (number == SIGUSR2) {
        save_wanted = 1;
        return;
    }
    stop_wanted = 1;
    if (number == SIGUSR1) return; /* a warning that the other will come: that is the first, then */
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (told && now.tv_sec - told_at > 1) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    if (!told) told_at = now.tv_sec;
    told = 1;
}

cudpo_status signals_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 4; i++)
        sigaddset(&action.sa_mask, handled[i]);
    stop_wanted = save_wanted = told = 0;
    starter = 0;
    for (int i = 0; i < 4; i++)
        if (sigaction(handled[i], &action, &before[i]) != 0)
            return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "sigaction(%d)", handled[i]);
    return CUDPO_OK;
}

void signals_restore(void)
{
    stop_wanted = save_wanted = told = 0;
    for (int i = 0; i < 4; i++)
        sigaction(handled[i], &before[i], NULL);
}

void signals_follow(pid_t launcher)
{
    starter = launcher;
}

bool signals_stop_wanted(void)
{
    if (!stop_wanted && starter > 0 && getppid() != starter) {
        log_warn("the launcher has ended: this run stops, too");
        stop_wanted = 1;
    }
    return stop_wanted != 0;
}

bool signals_save_wanted(void)
{
    if (save_wanted == 0) return false;
    save_wanted = 0; /* one that comes between the two lines means this same save */
    return true;
}
