/* forward.c - the handler itself passes signals on, so that they arrive even while this process waits for its own output.
 *
 * A signal disposition belongs to the whole process: hence the global state. */
#include "launch/forward.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const int handled[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT, SIGUSR1,
                              SIGUSR2, SIGCONT, SIGTSTP, SIGCHLD};
enum { HANDLED = sizeof handled / sizeof handled[0] };

static volatile sig_atomic_t stopped;
static const pid_t *ranks;
static size_t rank_count;
static int ends[2] = {-1, -1};
static sigset_t all, mask_before;
static struct sigaction before[HANDLED];
static pthread_t main_thread;

static void pass_on(int number)
{
    const int error = errno;
    /* Libraries have threads that block nothing: what forward_hold() holds back is the main thread's alone to do. */
    if (!pthread_equal(pthread_self(), main_thread)) {
        pthread_kill(main_thread, number);
        errno = error;
        return;
    }
    if (number != SIGCHLD) {
        if (number != SIGUSR2 && number != SIGCONT && number != SIGTSTP) stopped = 1;
        for (size_t i = 0; i < rank_count; i++)
            if (ranks[i] > 0) kill(-ranks[i], number);
        if (number == SIGTSTP) raise(SIGSTOP); /* ^Z stops this process, too, as it would have */
    }
    if (write(ends[1], "", 1) < 0) {
        /* The pipe is full: the loop will wake anyway. */
    }
    errno = error;
}

static bool open_pipe(void)
{
    if (pipe(ends) != 0) return false;
    for (int i = 0; i < 2; i++)
        if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) != 0 || fcntl(ends[i], F_SETFL, O_NONBLOCK) != 0)
            return false;
    return true;
}

static void close_pipe(void)
{
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0) close(ends[i]);
        ends[i] = -1;
    }
}

cudpo_status forward_install(int *wake, const pid_t *groups, size_t n)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = pass_on;
    action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
    sigemptyset(&all);
    for (int i = 0; i < HANDLED; i++)
        sigaddset(&all, handled[i]);
    action.sa_mask = all;
    if (!open_pipe()) {
        const int error = errno;
        close_pipe();
        return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "pipe: %s", strerror(error));
    }
    stopped = 0;
    main_thread = pthread_self();
    ranks = groups;
    rank_count = n;
    *wake = ends[0];
    sigprocmask(SIG_SETMASK, NULL, &mask_before);
    for (int i = 0; i < HANDLED; i++) {
        sigaction(handled[i], NULL, &before[i]);
        /* SIGCHLD ignored would hide from us how ranks end. */
        if (before[i].sa_handler != SIG_IGN || handled[i] == SIGCHLD)
            sigaction(handled[i], &action, NULL);
    }
    sigprocmask(SIG_UNBLOCK, &all, NULL); /* whoever started us may have blocked them */
    return CUDPO_OK;
}

void forward_restore(void)
{
    for (int i = 0; i < HANDLED; i++)
        sigaction(handled[i], &before[i], NULL);
    sigprocmask(SIG_SETMASK, &mask_before, NULL);
    rank_count = 0;
    close_pipe();
}

void forward_awake(void)
{
    char some[64];
    while (read(ends[0], some, sizeof some) > 0) {
    }
}

void forward_hold(void)
{
    sigprocmask(SIG_BLOCK, &all, NULL);
}

void forward_release(void)
{
    sigprocmask(SIG_UNBLOCK, &all, NULL);
}

void forward_leave(void)
{
    for (int i = 0; i < HANDLED; i++)
        if (before[i].sa_handler != SIG_IGN) signal(handled[i], SIG_DFL);
    sigprocmask(SIG_SETMASK, &mask_before, NULL);
}

bool forward_stopped(void)
{
    return stopped != 0;
}
