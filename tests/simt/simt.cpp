// simt.cpp - runtime of the CPU SIMT emulator: fibers, scheduler, checks, shared memory, cudart stub.
#include "simt.h"
#include <cstdarg>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define POISON(p, n) __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

__thread uint3 threadIdx, blockIdx;
__thread dim3 blockDim, gridDim;

// Race checker hooks (simt_race.cpp); weak no-ops otherwise.
extern "C" {
__attribute__((weak)) void simt_race_grid_begin(const char*) {}
__attribute__((weak)) void simt_race_grid_end() {}
__attribute__((weak)) void simt_race_block_begin(char*, size_t, unsigned) {}
__attribute__((weak)) void simt_race_thread(unsigned, unsigned) {}
__attribute__((weak)) void simt_race_barrier() {}
__attribute__((weak)) void simt_race_syncwarp(unsigned, unsigned) {}
__attribute__((weak)) void simt_race_access(const void*, unsigned, int, unsigned, const char*, int, const void*) {}
__attribute__((weak)) void simt_race_alloc(void*, size_t) {}
__attribute__((weak)) void simt_race_free(void*) {}
__attribute__((weak)) void simt_race_init(const void*, size_t) {}
__attribute__((weak)) int simt_race_enabled() { return 0; }
}

bool ptx_mode __attribute__((weak)) = false;
void ptx_range(uint64_t a, unsigned n, simt::Site s);
namespace simt {
// ------------------------------------------------------------------ configuration
enum Order { FWD, REV, RAND };
struct Config {
    Order order = FWD; uint64_t seed = 1; size_t stack = 0; int strict_exit = 1; int cp_late = 1; int serial = 0; int stats = 0;
    Config() {
        if (const char* s = getenv("SIMT_SCHED")) {
            if (!strncmp(s, "rev", 3)) order = REV;
            if (!strncmp(s, "rand", 4)) { order = RAND; if (s[4] == ':') seed = strtoull(s + 5, nullptr, 0); }
        }
#ifdef SIMT_ASAN
        stack = 256 << 10;
#else
        stack = 64 << 10;
#endif
        if (const char* s = getenv("SIMT_STACK_KB")) stack = (size_t)atoi(s) << 10;
        if (const char* s = getenv("SIMT_ALLOW_EXIT")) strict_exit = !atoi(s);
        if (const char* s = getenv("SIMT_CPASYNC")) cp_late = strcmp(s, "early") != 0;
        if (const char* s = getenv("SIMT_STATS")) stats = atoi(s);
        serial = getenv("SIMT_SERIAL") != nullptr || simt_race_enabled();
    }
};
static const Config& cfg() { static Config c; return c; }

// ------------------------------------------------------------------ fibers
#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
extern "C" void simt_switch(void** save, void* to);
asm(R"(
.text
.globl simt_switch
.type simt_switch,@function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_switch,.-simt_switch
)");
struct Ctx { void* sp = nullptr; };
static inline void ctx_swap(Ctx& from, Ctx& to) { simt_switch(&from.sp, to.sp); }
static void ctx_make(Ctx& c, char* lo, size_t n, void (*entry)()) {
    void** sp = (void**)(lo + n) - 1; *sp-- = nullptr;          // fake return address of entry (keeps ABI alignment)
    *sp-- = (void*)entry;                                         // popped by ret
    for (int i = 0; i < 6; i++) *sp-- = nullptr;                  // rbp rbx r12-r15
    c.sp = sp + 1;
}
#else
#include <ucontext.h>
struct Ctx { ucontext_t u; };
static inline void ctx_swap(Ctx& from, Ctx& to) { swapcontext(&from.u, &to.u); }
static void ctx_make(Ctx& c, char* lo, size_t n, void (*entry)()) { getcontext(&c.u); c.u.uc_stack.ss_sp = lo; c.u.uc_stack.ss_size = n; c.u.uc_link = nullptr; makecontext(&c.u, entry, 0); }
#endif

struct Fiber { Ctx ctx; char* lo = nullptr; size_t size = 0; void* fake = nullptr; };

static void fiber_switch(Fiber* from, Fiber* to) {
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to->lo, to->size);
#endif
    ctx_swap(from->ctx, to->ctx);
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

// ------------------------------------------------------------------ block state
enum State : uint8_t { NEW, READY, W_BAR, W_WARP, DONE };
struct Async { char* dst; const char* src; int bytes, valid; int group; Site site; };
struct Thread { uint3 tid; unsigned lin; uint8_t lane; uint8_t warp; State st; int pred, barout; Fiber* fib; Site site; Kind kind; int cpg; std::vector<Async> cp; };
struct WarpSlot { void* arg; unsigned mask; };
struct Warp { unsigned exist, exited, ready, waiting; WarpSlot s[32]; };
struct Static { const void* key; char* p; size_t n; const char* name; };

static constexpr size_t ARENA = 256 << 10;
struct Worker {
    Fiber main; std::vector<Fiber*> idle; std::vector<Fiber*> all;
    char* arena; char* stat; char* dyn; size_t dyn_bytes; std::vector<Static> statics;
    std::vector<Thread> thr; Warp warp[32]; unsigned ready_warps, nwarps, nthreads, live, arrived, curw; int bar_op; uint64_t rng;
    void (*call)(void*); void* ctx; const char* kname; uint64_t n_switch, n_bar, n_warpop, n_thread; bool die_after;
};
static __thread Worker* W;
static __thread Thread* cur;
struct Totals { uint64_t sw, bar, wop, thr; } totals;

unsigned lane() { return cur->lane; }

void die(Site s, const char* fmt, ...) {
    char buf[1024]; va_list ap; va_start(ap, fmt); vsnprintf(buf, sizeof buf, fmt, ap); va_end(ap);
    fprintf(stderr, "SIMT ERROR: %s\n", buf);
    if (s.file) fprintf(stderr, "  at %s:%d\n", s.file, s.line);
    if (W && W->kname) {
        fprintf(stderr, "  kernel %s block (%u,%u,%u)", W->kname, blockIdx.x, blockIdx.y, blockIdx.z);
        if (cur) fprintf(stderr, " thread (%u,%u,%u) warp %u lane %u", cur->tid.x, cur->tid.y, cur->tid.z, cur->warp, cur->lane);
        fprintf(stderr, "\n");
    }
    fflush(nullptr); _exit(86);
}

static uint64_t rnd() { uint64_t x = W->rng; x ^= x << 13; x ^= x >> 7; x ^= x << 17; return W->rng = x; }

// pick the next runnable thread (or null).  Stays inside the current warp while it can.
static Thread* pick() {
    unsigned rw = W->ready_warps; if (!rw) return nullptr;
    unsigned w, l;
    switch (cfg().order) {
    case FWD: w = (rw >> W->curw & 1) ? W->curw : (unsigned)__builtin_ctz(rw); l = (unsigned)__builtin_ctz(W->warp[w].ready); break;
    case REV: w = (rw >> W->curw & 1) ? W->curw : 31u - (unsigned)__builtin_clz(rw); l = 31u - (unsigned)__builtin_clz(W->warp[w].ready); break;
    default: {
        unsigned r = (unsigned)(rnd() >> 20); auto nth = [](unsigned m, unsigned k) { k %= (unsigned)__builtin_popcount(m); while (k--) m &= m - 1; return (unsigned)__builtin_ctz(m); };
        w = nth(rw, r & 1023); l = nth(W->warp[w].ready, r >> 10 & 1023);
    } }
    return &W->thr[w * 32 + l];
}
static inline void set_ready(unsigned w, unsigned m) { W->warp[w].ready |= m; W->ready_warps |= 1u << w; }
static inline void take(Thread* t) {
    Warp& w = W->warp[t->warp]; w.ready &= ~(1u << t->lane); if (!w.ready) W->ready_warps &= ~(1u << t->warp);
    W->curw = t->warp; cur = t; threadIdx = t->tid;
    if (simt_race_enabled()) simt_race_thread(t->lin, t->lane);
}
static void fiber_entry();
static Fiber* fiber_get() {
    if (!W->idle.empty()) { Fiber* f = W->idle.back(); W->idle.pop_back(); return f; }
    size_t n = cfg().stack, pg = 4096; char* m = (char*)mmap(nullptr, n + pg, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) { perror("simt: mmap stack"); abort(); }
    mprotect(m, pg, PROT_NONE);                                   // guard page: stack overflow faults
    Fiber* f = new Fiber; f->lo = m + pg; f->size = n; ctx_make(f->ctx, f->lo, n, fiber_entry); W->all.push_back(f); return f;
}
static void release_barrier();
static void flush_cp(Thread* t, int keep);

static void thread_exit(Thread* t) {
    flush_cp(t, 0); t->st = DONE; t->fib = nullptr; Warp& w = W->warp[t->warp]; w.exited |= 1u << t->lane; W->live--;
    if (W->arrived && W->arrived == W->live && !cfg().strict_exit) release_barrier();
}
static void fiber_entry() {
#ifdef SIMT_ASAN
    { const void* b; size_t n; __sanitizer_finish_switch_fiber(nullptr, &b, &n); if (!W->main.lo) { W->main.lo = (char*)b; W->main.size = n; } }
#endif
    Fiber* self = cur->fib;
    for (;;) {
        Thread* t = cur; t->fib = self; t->st = READY; W->n_thread++;
        W->call(W->ctx);
        thread_exit(t);
        Thread* n = pick();
        if (n) { take(n); if (!n->fib) continue; }                // a new thread simply continues on this stack
        W->idle.push_back(self); W->n_switch++;
        fiber_switch(self, n ? n->fib : &W->main);                // comes back when this fiber is given a new thread
    }
}
static void block_self() {                                         // current thread cannot go on: run another one
    Fiber* f = cur->fib; Thread* n = pick(); W->n_switch++;
    if (!n) { fiber_switch(f, &W->main); return; }
    Thread* me = cur; take(n); if (n == me) return;
    if (!n->fib) n->fib = fiber_get();
    fiber_switch(f, n->fib);
}
void maybe_yield() {
    if (!cur || cfg().order != RAND || (rnd() & 3)) return;
    set_ready(cur->warp, 1u << cur->lane); block_self();
}

// ------------------------------------------------------------------ barriers and collectives
static void release_barrier() {
    Site s0{nullptr, 0}; int cnt = 0, all = 1;
    for (unsigned i = 0; i < W->nthreads; i++) {
        Thread& t = W->thr[i]; if (t.st != W_BAR) continue;
        if (!s0.file) s0 = t.site;
        if (t.site.line != s0.line || t.site.file != s0.file)
            die(t.site, "barrier divergence: thread (%u,%u,%u) is at this __syncthreads while others are at %s:%d", t.tid.x, t.tid.y, t.tid.z, s0.file, s0.line);
        cnt += t.pred != 0; all &= t.pred != 0;
    }
    int out = W->bar_op == 1 ? cnt : W->bar_op == 2 ? all : cnt != 0;
    for (unsigned i = 0; i < W->nthreads; i++) { Thread& t = W->thr[i]; if (t.st == W_BAR) { t.st = READY; t.barout = out; set_ready(t.warp, 1u << t.lane); } }
    W->arrived = 0; W->n_bar++; simt_race_barrier();
}
int syncthreads(int pred, int op, Site s) {
    Thread* t = cur; t->site = s; t->pred = pred; t->st = W_BAR; W->bar_op = op; W->arrived++;
    if (W->live != W->nthreads && cfg().strict_exit)
        die(s, "__syncthreads() after %u of %u threads of the block have already exited", W->nthreads - W->live, W->nthreads);
    if (W->arrived == W->live) {
        release_barrier();
        if (cfg().order == FWD) { W->curw = 0; }                  // start over with warp 0
        Thread* n = pick();
        if (n == t) take(t);
        else { Fiber* f = t->fib; take(n); W->n_switch++; fiber_switch(f, n->fib); }
    } else block_self();
    return t->barout;
}
static const char* kind_name(Kind k) { static const char* n[] = {"__syncwarp", "shfl", "vote", "reduce", "match", "mma.sync", "ldmatrix", "stmatrix"}; return n[k]; }
void warp_op(unsigned mask, Kind k, void* arg, ExecFn fn, Site s) {
    Thread* t = cur; Warp& w = W->warp[t->warp]; unsigned me = 1u << t->lane;
    if (!(mask & me)) die(s, "%s: calling lane %u is not in mask 0x%08x", kind_name(k), t->lane, mask);
    if (mask & ~w.exist) die(s, "%s: mask 0x%08x names lanes that do not exist (warp has 0x%08x)", kind_name(k), mask, w.exist);
    if (mask & w.exited) die(s, "%s: mask 0x%08x names exited lanes 0x%08x", kind_name(k), mask, mask & w.exited);
    t->site = s; t->kind = k; w.s[t->lane] = {arg, mask}; w.waiting |= me; W->n_warpop++;
    if ((w.waiting & mask) != mask) { t->st = W_WARP; block_self(); return; }
    void* args[32];
    for (unsigned m = mask; m; m &= m - 1) {
        unsigned l = (unsigned)__builtin_ctz(m); Thread& o = W->thr[t->warp * 32u + l]; args[l] = w.s[l].arg;
        if (w.s[l].mask != mask) die(s, "%s: lane %u waits with mask 0x%08x (at %s:%d), lane %u with 0x%08x", kind_name(k), l, w.s[l].mask, o.site.file, o.site.line, t->lane, mask);
        if (o.kind != k || ((k == K_MMA || k == K_LDSM || k == K_STSM) && o.site.line != s.line))
            die(s, "warp divergence: lane %u is at %s %s:%d, lane %u at %s", l, kind_name(o.kind), o.site.file, o.site.line, t->lane, kind_name(k));
    }
    fn(args, mask);
    if (k == K_SYNCWARP) simt_race_syncwarp(t->warp, mask);
    w.waiting &= ~mask;
    for (unsigned m = mask & ~me; m; m &= m - 1) W->thr[t->warp * 32u + (unsigned)__builtin_ctz(m)].st = READY;
    if (mask & ~me) set_ready(t->warp, mask & ~me);
    t->st = READY;
    if (cfg().order == RAND && (mask & ~me)) { set_ready(t->warp, me); Thread* n = pick(); if (n == t) take(t); else { Fiber* f = t->fib; take(n); if (!n->fib) n->fib = fiber_get(); W->n_switch++; fiber_switch(f, n->fib); } }
}
void exec_nop(void**, unsigned) {}
void exec_shfl(void** a, unsigned mask) {
    uint64_t in[32];
    for (unsigned m = mask; m; m &= m - 1) { unsigned l = (unsigned)__builtin_ctz(m); in[l] = ((ShflArg*)a[l])->v; }
    for (unsigned m = mask; m; m &= m - 1) { unsigned l = (unsigned)__builtin_ctz(m); auto* x = (ShflArg*)a[l];
        if (!(mask >> x->src & 1)) die(W->thr[cur->warp * 32u + l].site, "shfl: lane %u reads lane %d which is not in mask 0x%08x", l, x->src, mask);
        x->v = in[x->src]; }
}
void exec_vote(void** a, unsigned mask) {
    unsigned r = 0; for (unsigned m = mask; m; m &= m - 1) { unsigned l = (unsigned)__builtin_ctz(m); if (((VoteArg*)a[l])->pred) r |= 1u << l; }
    for (unsigned m = mask; m; m &= m - 1) ((VoteArg*)a[__builtin_ctz(m)])->out = r;
}
void exec_reduce(void** a, unsigned mask) {
    uint32_t r = 0; for (unsigned m = mask; m; m &= m - 1) { auto* x = (RedArg*)a[__builtin_ctz(m)]; r = x->op ? std::max(r, x->v) : r + x->v; }
    for (unsigned m = mask; m; m &= m - 1) ((RedArg*)a[__builtin_ctz(m)])->v = r;
}
static inline float bf(uint32_t h) { uint32_t u = h << 16; float f; memcpy(&f, &u, 4); return f; }
// PTX ISA, mma.m16n8k16 .bf16: g = lane/4, t = lane%4.
//   A: a0 (g,2t..) a1 (g+8,2t..) a2 (g,2t+8..) a3 (g+8,2t+8..)   B: b0 (k=2t..,n=g) b1 (k=2t+8..,n=g)
//   C/D: c0,c1 (g,2t..) c2,c3 (g+8,2t..)
void exec_mma_bf16(void** v, unsigned) {
    alignas(32) float A[16][16], B[16][8], D[16][8];
    for (unsigned l = 0; l < 32; l++) {
        const MmaArg& m = *(MmaArg*)v[l]; unsigned g = l >> 2, t = (l & 3) * 2;
        for (unsigned i = 0; i < 4; i++) { unsigned r = g + (i & 1) * 8, c = t + (i >> 1) * 8; A[r][c] = bf(m.a[i] & 0xffff); A[r][c + 1] = bf(m.a[i] >> 16); }
        for (unsigned i = 0; i < 2; i++) { unsigned k = t + i * 8; B[k][g] = bf(m.b[i] & 0xffff); B[k + 1][g] = bf(m.b[i] >> 16); }
        D[g][t] = m.c[0]; D[g][t + 1] = m.c[1]; D[g + 8][t] = m.c[2]; D[g + 8][t + 1] = m.c[3];
    }
    typedef float v8 __attribute__((vector_size(32)));              // one row of 8 columns; k order fixed: bitwise reproducible
    v8 b[16]; memcpy(b, B, sizeof B);
    for (int i = 0; i < 16; i++) { v8 d; memcpy(&d, D[i], 32); for (int k = 0; k < 16; k++) d += A[i][k] * b[k]; memcpy(D[i], &d, 32); }
    for (unsigned l = 0; l < 32; l++) { const MmaArg& m = *(MmaArg*)v[l]; unsigned g = l >> 2, t = (l & 3) * 2; m.d[0] = D[g][t]; m.d[1] = D[g][t + 1]; m.d[2] = D[g + 8][t]; m.d[3] = D[g + 8][t + 1]; }
}
static void check_shared(const void* p, size_t n, Site s, const char* what) {
    const char* c = (const char*)p;
    if ((uintptr_t)c % n) die(s, "%s: address %p is not %zu-byte aligned", what, p, n);
    bool ok = c >= W->dyn - (ptx_mode ? 16 * ((48u << 10) / 16) : 0) && c + n <= W->dyn + W->dyn_bytes;
    for (auto& st : W->statics) ok |= c >= st.p && c + n <= st.p + st.n;
    if (!ok) die(s, "%s: address is outside the block's shared memory (dynamic offset %td of %zu bytes)", what, c - W->dyn, W->dyn_bytes);
}
void exec_ldsm(void** v, unsigned) {
    const LdsmArg& a0 = *(LdsmArg*)v[0]; uint16_t M[4][8][8];
    for (int i = 0; i < a0.n; i++) for (int r = 0; r < 8; r++) {
        int l = i * 8 + r; const LdsmArg& a = *(LdsmArg*)v[l]; Thread& t = W->thr[cur->warp * 32u + (unsigned)l];
        check_shared(a.row, 16, t.site, "ldmatrix"); if (simt_race_enabled()) simt_race_access(a.row, 16, 0, t.lin, t.site.file, t.site.line, nullptr);
        memcpy(M[i][r], a.row, 16);
    }
    for (int l = 0; l < 32; l++) { LdsmArg& a = *(LdsmArg*)v[l]; int r = l >> 2, c = (l & 3) * 2;
        for (int i = 0; i < a.n; i++) a.r[i] = a.trans ? (uint32_t)M[i][c][r] | (uint32_t)M[i][c + 1][r] << 16 : (uint32_t)M[i][r][c] | (uint32_t)M[i][r][c + 1] << 16; }
}

// ------------------------------------------------------------------ cp.async: completes as late as it legally can
static void cp_do(Thread* t, const Async& a) {
    memcpy(a.dst, a.src, (size_t)a.valid); memset(a.dst + a.valid, 0, (size_t)(a.bytes - a.valid));
    if (simt_race_enabled()) { simt_race_access(a.src, (unsigned)a.valid, 0, t->lin, a.site.file, a.site.line, nullptr); simt_race_access(a.dst, (unsigned)a.bytes, 1, t->lin, a.site.file, a.site.line, nullptr); }
}
static void flush_cp(Thread* t, int keep) {
    size_t i = 0; while (i < t->cp.size() && t->cp[i].group < t->cpg - keep) cp_do(t, t->cp[i++]);
    t->cp.erase(t->cp.begin(), t->cp.begin() + (ptrdiff_t)i);
}
__attribute__((noinline)) static void touch_src(const char* p, int n) { volatile char x = 0; for (int i = 0; i < n; i++) x = p[i]; (void)x; }  // ASan-checks the source now
void cp_async(void* d, const void* s, int n, int valid, Site site) {
    check_shared(d, (size_t)n, site, "cp.async"); if ((uintptr_t)s % (size_t)n) die(site, "cp.async: global address %p not %d-byte aligned", s, n);
    if (valid < 0 || valid > n) die(site, "cp.async: src-size %d", valid);
    touch_src((const char*)s, valid); if (ptx_mode && valid) ptx_range((uint64_t)(uintptr_t)s, (unsigned)valid, site);
    Async a{(char*)d, (const char*)s, n, valid, cur->cpg, site};
    if (simt_race_enabled()) simt_race_access(d, (unsigned)n, 1, cur->lin, site.file, site.line, nullptr);
    bool late = cfg().order == RAND ? (rnd() & 1) : cfg().cp_late;
    if (late) { memset(d, 0xff, (size_t)n); cur->cp.push_back(a); } else cp_do(cur, a);
}
void cp_commit() { cur->cpg++; }
void cp_wait(int keep) { flush_cp(cur, keep); maybe_yield(); }
void note(const void* p, unsigned n, int rw, Site s) { if (simt_race_enabled() && cur) simt_race_access(p, n, rw, cur->lin, s.file, s.line, nullptr); }

// ------------------------------------------------------------------ shared memory
void* shared_static(const void* key, size_t n, size_t align, const char* name) {
    for (auto& s : W->statics) if (s.key == key) return s.p;
    if (align < 4) align = 4;
    char* p = (char*)(((uintptr_t)W->stat + 2 * align - 1) / (2 * align) * (2 * align) + align);  // exactly `align`, no more
    W->stat = p + n + 128;                                        // redzone
    if (p - W->arena + (ptrdiff_t)n > (48 << 10)) die({nullptr, 0}, "static shared memory over 48 KiB (%s)", name);
    UNPOISON(p, n); memset(p, 0xff, n); W->statics.push_back({key, p, n, name}); return p;
}
void* shared_dynamic(size_t) { return W->dyn; }

// ------------------------------------------------------------------ grid
static Worker* worker() {
    if (W) return W;
    W = new Worker(); W->main.lo = nullptr;
    char* m = (char*)mmap(nullptr, ARENA + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(m, 4096, PROT_NONE); mprotect(m + 4096 + ARENA, 4096, PROT_NONE); W->arena = m + 4096; return W;
}
static const char* st_name(State s) { static const char* n[] = {"not started", "ready", "__syncthreads", "warp op", "exited"}; return n[s]; }
static void deadlock() {
    cur = nullptr; fprintf(stderr, "SIMT ERROR: deadlock: no thread of the block can run\n");
    std::map<std::string, std::vector<unsigned>> g;
    for (unsigned i = 0; i < W->nthreads; i++) { Thread& t = W->thr[i]; char b[300];
        if (t.st == DONE) snprintf(b, sizeof b, "exited"); else snprintf(b, sizeof b, "waiting at %s %s:%d", t.st == W_WARP ? kind_name(t.kind) : st_name(t.st), t.site.file, t.site.line);
        g[b].push_back(t.lin); }
    for (auto& k : g) { fprintf(stderr, "  %4zu threads %s:", k.second.size(), k.first.c_str()); for (size_t i = 0; i < k.second.size() && i < 12; i++) fprintf(stderr, " %u", k.second[i]); fprintf(stderr, "%s\n", k.second.size() > 12 ? " ..." : ""); }
    die({nullptr, 0}, "barrier divergence");
}
static void run_block(dim3 g, dim3 b, size_t smem, uint64_t bi) {
    unsigned nt = b.x * b.y * b.z; blockDim = b; gridDim = g;
    blockIdx = {(unsigned)(bi % g.x), (unsigned)(bi / g.x % g.y), (unsigned)(bi / g.x / g.y)};
    W->nthreads = W->live = nt; W->nwarps = (nt + 31) / 32; W->arrived = 0; W->curw = 0; W->ready_warps = 0;
    W->rng = (cfg().seed * 0x9E3779B97F4A7C15ull) ^ (bi + 1) * 0xD1B54A32D192ED03ull; rnd(); rnd();
    if (W->thr.size() < W->nwarps * 32) W->thr.resize(W->nwarps * 32);
    for (unsigned i = 0; i < nt; i++) { Thread& t = W->thr[i]; t.lin = i; t.lane = i & 31; t.warp = (uint8_t)(i >> 5); t.st = NEW; t.fib = nullptr; t.cpg = 0; t.cp.clear(); t.site = {nullptr, 0};
        t.tid = {i % b.x, i / b.x % b.y, i / b.x / b.y}; }
    for (unsigned w = 0; w < W->nwarps; w++) { Warp& k = W->warp[w]; unsigned n = nt - w * 32; k.exist = n >= 32 ? ~0u : (1u << n) - 1; k.exited = k.waiting = k.ready = 0; set_ready(w, k.exist); }
    // shared memory: everything poisoned; the dynamic part ends exactly at the guard page and is 16-byte (not 32) aligned
    POISON(W->arena, ARENA); W->statics.clear(); W->stat = W->arena + 64;
    W->dyn_bytes = smem; W->dyn = W->arena + ARENA - (smem + 15) / 16 * 16; if ((uintptr_t)W->dyn % 32 == 0) W->dyn -= 16;
    UNPOISON(W->dyn, smem); memset(W->dyn, 0xff, smem); if (ptx_mode) { UNPOISON(W->dyn - (48 << 10), 48 << 10); memset(W->dyn - (4 << 10), 0xff, 4 << 10); }
    simt_race_block_begin(W->arena, ARENA, (unsigned)bi);
    Thread* t = pick(); take(t); t->fib = fiber_get(); W->n_switch++;
    fiber_switch(&W->main, t->fib);
    if (W->live) deadlock();
    cur = nullptr;
}
static std::map<const void*, int> max_dyn; static std::mutex mu; static cudaError_t last_err = cudaSuccess;
static void device_memory(bool open);

void run_grid(const void* fn, const char* name, dim3 g, dim3 b, size_t smem, cudaStream_t, void (*call)(void*), void* ctx, Site) {
    uint64_t nb = (uint64_t)g.x * g.y * g.z, nt = (uint64_t)b.x * b.y * b.z; int lim = 48 << 10;
    { std::lock_guard<std::mutex> l(mu); auto it = max_dyn.find(fn); if (it != max_dyn.end()) lim = std::max(lim, it->second); }
    if (!nb || !nt || nt > 1024 || b.z > 64 || g.y > 65535 || g.z > 65535 || smem > (size_t)lim) { last_err = nt > 1024 ? cudaErrorInvalidConfiguration : cudaErrorInvalidValue; return; }
    device_memory(true); simt_race_grid_begin(name);
#pragma omp parallel if (!cfg().serial && nb > 1)
    {
        worker(); W->call = call; W->ctx = ctx; W->kname = name; W->n_switch = W->n_bar = W->n_warpop = W->n_thread = 0;
#pragma omp for schedule(dynamic)
        for (uint64_t i = 0; i < nb; i++) run_block(g, b, smem, cfg().order == REV ? nb - 1 - i : i);
        W->kname = nullptr;
#pragma omp critical
        { totals.sw += W->n_switch; totals.bar += W->n_bar; totals.wop += W->n_warpop; totals.thr += W->n_thread; }
    }
    simt_race_grid_end(); device_memory(false);
    if (cfg().stats) { fprintf(stderr, "simt: %s: threads %lu switches %lu barriers %lu warp-op arrivals %lu\n", name, totals.thr, totals.sw, totals.bar, totals.wop); totals = {}; }
}

// ------------------------------------------------------------------ device memory: host code may not touch it
struct Alloc { size_t n; };
static std::map<char*, Alloc> allocs; static uint64_t alloc_gen = 1;
static void device_memory(bool open) { (void)open;
#ifdef SIMT_ASAN
    std::lock_guard<std::mutex> l(mu); for (auto& a : allocs) { if (open) UNPOISON(a.first, a.second.n); else POISON(a.first, a.second.n); }
#endif
}
static char* dev_base(const void* p, size_t n, bool& inside) {
    auto it = allocs.upper_bound((char*)p); inside = false; if (it == allocs.begin()) return nullptr; --it;
    if ((char*)p >= it->first + it->second.n) return nullptr;
    inside = (char*)p + n <= it->first + it->second.n; return it->first;
}
// ------------------------------------------------------------------ PTX mode: one contiguous window, [static | dynamic], as ptxas lays it out
static __thread size_t ptx_static, ptx_static_exact;
static char* dev_base_locked(const void* p, size_t n, bool& in, size_t& off, size_t& total) { std::lock_guard<std::mutex> l(mu); char* b = dev_base(p, n, in); if (b) { off = (size_t)((char*)p - b); total = allocs[b].n; } return b; }
}  // namespace simt
cudaError_t simt_set_error(cudaError_t e) { return simt::last_err = e; }
uint64_t ptx_shared_base(size_t stat) { using namespace simt; ptx_static_exact = stat; ptx_static = (stat + 15) / 16 * 16; return (uint64_t)(uintptr_t)(W->dyn - ptx_static); }
uint64_t ptx_dyn_off() { return simt::ptx_static; }
void ptx_range(uint64_t a, unsigned n, simt::Site s) {
    using namespace simt; bool in; size_t off = 0, tot = 0; char* p = (char*)(uintptr_t)a; char* b = dev_base_locked(p, n, in, off, tot);
    if (!b) die(s, "global memory read of %u bytes outside every allocation", n);
    if (!in) die(s, "global memory read of %u bytes at offset %zu of an allocation of %zu", n, off, tot);
}
char* ptx_mem(uint64_t a, unsigned n, int rw, int space, simt::Site s) {
    using namespace simt; char* p = (char*)(uintptr_t)a; static __thread char *lo, *hi; static __thread uint64_t gen;
    static const char* rn[] = {"read", "write", "atomic"};
    if (a % n) die(s, "misaligned %u-byte %s", n, rn[rw]);
    bool sh = p >= W->arena && p < W->arena + ARENA;
    if (space == 2 || (space == 0 && sh)) {
        char* base = W->dyn - ptx_static; if (p < base || p + n > W->dyn + W->dyn_bytes || (p + n > base + ptx_static_exact && p < W->dyn)) die(s, "shared memory %s of %u bytes at offset %td, outside the block's %zu bytes", rn[rw], n, p - base, (W->dyn_bytes ? ptx_static : ptx_static_exact) + W->dyn_bytes);
    } else if (!(p >= lo && p + n <= hi && gen == alloc_gen)) {
        bool in; size_t off = 0, tot = 0; char* b = dev_base_locked(p, n, in, off, tot);
        if (b && in) { lo = b; hi = b + tot; gen = alloc_gen; }
        else if (space == 1 || b) { if (b) die(s, "global memory %s of %u bytes at offset %zu of an allocation of %zu", rn[rw], n, off, tot); die(s, "global memory %s of %u bytes outside every allocation", rn[rw], n); }
    }
    if (simt_race_enabled()) simt_race_access(p, n, rw, cur->lin, s.file, s.line, nullptr);
    return p;
}
namespace simt {
}
// ---------------------------------------------------------------------- cudart stub (link instead of -lcudart)
using namespace simt;
struct CUstream_st { int dummy; };
struct CUevent_st { double t; };
#include <chrono>
static double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
extern "C" {
cudaError_t cudaMalloc(void** p, size_t n) {
    *p = nullptr; if (!n) return cudaSuccess; void* q = nullptr; if (posix_memalign(&q, 256, n)) return cudaErrorMemoryAllocation;
    memset(q, 0xff, n); std::lock_guard<std::mutex> l(mu); allocs[(char*)q] = {n}; POISON(q, n); simt_race_alloc(q, n); *p = q; return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
    if (!p) return cudaSuccess;
    std::lock_guard<std::mutex> l(mu); auto it = allocs.find((char*)p); if (it == allocs.end()) return last_err = cudaErrorInvalidValue;
    UNPOISON(p, it->second.n); allocs.erase(it); alloc_gen++; simt_race_free(p); free(p); return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }
cudaError_t cudaMallocHost(void** p, size_t n) { *p = malloc(n ? n : 1); return *p ? cudaSuccess : cudaErrorMemoryAllocation; }
cudaError_t cudaFreeHost(void* p) { free(p); return cudaSuccess; }
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind k) {
    if (!n) return cudaSuccess;
    bool din, sin; char *db, *sb; { std::lock_guard<std::mutex> l(mu); db = dev_base(d, n, din); sb = dev_base(s, n, sin); }
    bool wd = k == cudaMemcpyHostToDevice || k == cudaMemcpyDeviceToDevice, ws = k == cudaMemcpyDeviceToHost || k == cudaMemcpyDeviceToDevice;
    if (k != cudaMemcpyDefault && (wd != (db != nullptr) || ws != (sb != nullptr))) { fprintf(stderr, "SIMT ERROR: cudaMemcpy kind %d does not match its pointers\n", (int)k); return last_err = cudaErrorInvalidValue; }
    if ((db && !din) || (sb && !sin)) { fprintf(stderr, "SIMT ERROR: cudaMemcpy of %zu bytes leaves the device allocation\n", n); return last_err = cudaErrorInvalidValue; }
    device_memory(true); memcpy(d, s, n); device_memory(false); if (db) simt_race_init(d, n); return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t) { return cudaMemcpy(d, s, n, k); }
cudaError_t cudaMemset(void* d, int v, size_t n) {
    bool in; { std::lock_guard<std::mutex> l(mu); if (!dev_base(d, n, in) || !in) return last_err = cudaErrorInvalidValue; }
    device_memory(true); memset(d, v, n); device_memory(false); simt_race_init(d, n); return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t) { return cudaMemset(d, v, n); }
cudaError_t cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h, cudaMemcpyKind k, cudaStream_t) { for (size_t r = 0; r < h; r++) { cudaError_t e = cudaMemcpy((char*)d + r * dp, (const char*)s + r * sp, w, k); if (e) return e; } return cudaSuccess; }
cudaError_t cudaMemset2DAsync(void* d, size_t dp, int v, size_t w, size_t h, cudaStream_t) { for (size_t r = 0; r < h; r++) { cudaError_t e = cudaMemset((char*)d + r * dp, v, w); if (e) return e; } return cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t* s) { *s = new CUstream_st{0}; return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return cudaStreamCreate(s); }
cudaError_t cudaStreamDestroy(cudaStream_t s) { delete s; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { *e = new CUevent_st{0}; return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return cudaEventCreate(e); }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) { e->t = now(); return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) { *ms = (float)((b->t - a->t) * 1e3); return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { delete e; return cudaSuccess; }
cudaError_t cudaGetLastError(void) { cudaError_t e = last_err; last_err = cudaSuccess; return e; }
cudaError_t cudaPeekAtLastError(void) { return last_err; }
const char* cudaGetErrorString(cudaError_t e) { return e == cudaSuccess ? "no error" : e == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "invalid argument"; }
const char* cudaGetErrorName(cudaError_t e) { return e == cudaSuccess ? "cudaSuccess" : "cudaError"; }
cudaError_t cudaGetDeviceCount(int* n) { *n = 1; return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDevice(int* d) { *d = 0; return cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void* f, cudaFuncAttribute a, int v) { if (v < 0 || v > 227 << 10) return last_err = cudaErrorInvalidValue; std::lock_guard<std::mutex> l(mu); if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) max_dyn[f] = v; return cudaSuccess; }
}
