/* pending.c - a ring of pairs of events. */
#include "dist/nccl/pending.h"
#include "backend/cuda/runtime.h"

cudpo_status pending_open(pending *p, void (*mark)(flight *, int64_t, flight_state))
{
    p->mark = mark;
    if (pthread_mutex_init(&p->lock, NULL) != 0)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "no memory for a lock");
    for (int i = 0; i < PENDING; i++) {
        CUDA_TRY(cudaEventCreateWithFlags(&p->ring[i].begin, cudaEventDisableTiming));
        CUDA_TRY(cudaEventCreateWithFlags(&p->ring[i].end, cudaEventDisableTiming));
    }
    return CUDPO_OK;
}

void pending_close(pending *p)
{
    for (int i = 0; i < PENDING; i++) {
        if (p->ring[i].begin != NULL) (void)cudaEventDestroy(p->ring[i].begin);
        if (p->ring[i].end != NULL) (void)cudaEventDestroy(p->ring[i].end);
    }
}

static pending_one *at(pending *p, int64_t number)
{
    return &p->ring[number % PENDING];
}

/* Has the stream come by the event? */
static cudpo_status passed(bool *out, cudaEvent_t event)
{
    const cudaError_t error = cudaEventQuery(event);
    *out = error == cudaSuccess;
    if (error != cudaErrorNotReady && error != cudaSuccess)
        return cuda_failed(CUDPO_HERE, "cudaEventQuery", error);
    if (!*out) (void)cudaGetLastError(); /* or the next launch would report it */
    return CUDPO_OK;
}

static cudpo_status look(pending *p)
{
    for (bool done = true; done && p->first < p->next; p->first += done) {
        pending_one *const one = at(p, p->first);
        if (!one->started) {
            CUDPO_TRY(passed(&one->started, one->begin));
            if (one->started) p->mark(one->what.record, one->what.sequence, FLIGHT_STARTED);
        }
        done = false;
        if (one->started && one->whole) CUDPO_TRY(passed(&done, one->end));
        if (done) p->mark(one->what.record, one->what.sequence, FLIGHT_COMPLETED);
        if (done) p->last = one->what;
    }
    return CUDPO_OK;
}

cudpo_status pending_look(pending *p, pending_view *out)
{
    (void)pthread_mutex_lock(&p->lock);
    const cudpo_status status = look(p);
    *out = (pending_view){.last = p->last};
    if (p->first < p->next) {
        out->oldest = at(p, p->first)->what;
        out->whole = at(p, p->first)->whole;
        out->started = at(p, p->first)->started;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return status;
}

/* Wait for the oldest; a lost peer ends that, too, since NCCL is aborted then. */
static cudpo_status make_room(pending *p)
{
    pending_view view;
    (void)pthread_mutex_lock(&p->lock);
    const bool full = p->next - p->first == PENDING;
    const cudaEvent_t end = at(p, p->first)->end;
    (void)pthread_mutex_unlock(&p->lock);
    if (!full) return CUDPO_OK;
    CUDA_TRY(cudaEventSynchronize(end));
    return pending_look(p, &view);
}

cudpo_status pending_begin(pending *p, collective what, cudaStream_t stream)
{
    CUDPO_TRY(make_room(p));
    pending_one *const one = at(p, p->next);
    CUDA_TRY(cudaEventRecord(one->begin, stream));
    (void)pthread_mutex_lock(&p->lock);
    one->what = what;
    one->whole = one->started = false;
    p->next++;
    (void)pthread_mutex_unlock(&p->lock);
    return CUDPO_OK;
}

cudpo_status pending_end(pending *p, cudaStream_t stream)
{
    pending_one *const one = at(p, p->next - 1);
    CUDA_TRY(cudaEventRecord(one->end, stream));
    (void)pthread_mutex_lock(&p->lock);
    one->whole = true;
    (void)pthread_mutex_unlock(&p->lock);
    return CUDPO_OK;
}

/* The stream does them in order: its last is enough. */
cudpo_status pending_join(pending *p, cudaStream_t later)
{
    if (p->next > 0) CUDA_TRY(cudaStreamWaitEvent(later, at(p, p->next - 1)->end, 0));
    return CUDPO_OK;
}
