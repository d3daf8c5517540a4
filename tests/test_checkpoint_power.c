/* test_checkpoint_power.c - the power fails after any call of a save: what may be on the disk then is built, and resumed from.
 *
 * A model of a disk follows the calls.  Content reaches it at fsync of the file, names at fsync of their folder; what was
 * not synced may be there or not.  After every call these are tried: a disk that has only what was synced, one that has
 * every name but no content that was not synced, and several where chance decides for each folder and file.  A kill -9
 * shows none of this, because the kernel lives on. */
/* rooms: train */
#undef _FORTIFY_SOURCE /* its inline versions of the calls would be in the way of ours */
#define _GNU_SOURCE    /* RTLD_NEXT */
#include "test_checkpoint.h"
#include "base/rng.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INODES = 1024, ENTRIES = 24, ROOT = 0 };

typedef struct entries {
    int n;
    struct {
        char name[80];
        int inode;
    } of[ENTRIES];
} entries;

typedef struct disk_node {
    bool folder, synced;
    char *content; /* of a file, as it was synced */
    size_t size;
    entries now, durable; /* of a folder */
} disk_node;

static struct {
    disk_node of[INODES];
    int n;
    char root[700];
} disk;

/* ---- the model ---- */

static int find(const entries *e, const char *name)
{
    for (int i = 0; i < e->n; i++)
        if (strcmp(e->of[i].name, name) == 0) return i;
    return -1;
}

static void set(entries *e, const char *name, int inode)
{
    const size_t size = strlen(name) + 1;
    int i = find(e, name);
    if (i < 0) i = e->n++;
    assert_true(i < ENTRIES && size <= sizeof e->of[i].name);
    memcpy(e->of[i].name, name, size);
    e->of[i].inode = inode;
}

static void drop(entries *e, const char *name)
{
    const int i = find(e, name);
    if (i >= 0) e->of[i] = e->of[--e->n];
}

static int create(bool folder)
{
    assert_true(disk.n < INODES);
    disk.of[disk.n] = (disk_node){.folder = folder};
    return disk.n++;
}

/* The folder that `path` is in and its name there; -1 where it is outside of what we follow.  "" is the root. */
static int locate(const char *path, char *name, size_t size)
{
    const size_t n = strlen(disk.root);
    name[0] = '\0';
    if (n == 0 || strncmp(path, disk.root, n) != 0) return -1;
    path += n;
    while (*path == '/')
        path++;
    int at = ROOT;
    for (;;) {
        const size_t part = strcspn(path, "/");
        snprintf(name, size, "%.*s", (int)part, path);
        path += part;
        while (*path == '/')
            path++;
        if (*path == '\0') return at;
        const int i = find(&disk.of[at].now, name);
        assert_true(i >= 0);
        at = disk.of[at].now.of[i].inode;
    }
}

static int inode_at(const char *path)
{
    char name[80];
    const int folder = locate(path, name, sizeof name);
    if (folder < 0 || name[0] == '\0') return folder;
    const int i = find(&disk.of[folder].now, name);
    return i < 0 ? -1 : disk.of[folder].now.of[i].inode;
}

static void sync_inode(int i, const char *path)
{
    disk_node *node = &disk.of[i];
    if (node->folder) {
        node->durable = node->now;
        return;
    }
    free(node->content);
    CHECK_OK(file_read(&node->content, &node->size, path, 1 << 24));
    node->synced = true;
}

/* What is in the folder now was there long before. */
static void import_folder(const char *path, int to)
{
    DIR *d = opendir(path);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char below[1400];
        snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        const bool folder = file_is_folder(below);
        const int i = create(folder);
        set(&disk.of[to].now, e->d_name, i);
        if (folder) {
            import_folder(below, i);
        } else {
            sync_inode(i, below);
        }
    }
    closedir(d);
    disk.of[to].durable = disk.of[to].now;
}

static void forget_disk(void)
{
    for (int i = 0; i < disk.n; i++)
        free(disk.of[i].content);
    disk.n = 0;
    disk.root[0] = '\0';
}

/* ---- crashes ---- */

typedef enum crash { ONLY_SYNCED, ALL_NAMES, CHANCE } crash;
enum { DISKS = 10 }; /* after every call: the first two, and chance eight times */

static struct {
    bool on, inside;
    fixture other; /* for the checks: its weights are not those being saved */
    int64_t before, step, states, old, recent;
} watch;

static bool toss(crash kind, int inode, int what)
{
    if (kind != CHANCE) return kind == ALL_NAMES;
    return rng_below((uint64_t)watch.states, (uint64_t)what, (uint64_t)inode, 2) == 1;
}

/* Build what is left of an inode, under `path`. */
static void leave(int i, const char *path, crash kind)
{
    const disk_node *node = &disk.of[i];
    if (!node->folder) {
        /* Without a sync there are zeros, or nothing. */
        static const char zeros_only[64];
        const size_t n = node->synced ? node->size : kind == CHANCE ? sizeof zeros_only : 0;
        CHECK_OK(file_write(path, node->synced ? node->content : zeros_only, n));
        return;
    }
    CHECK_OK(file_make_folder(path));
    const entries *e = toss(kind, i, 0) ? &node->now : &node->durable;
    for (int k = 0; k < e->n; k++) {
        char below[1400];
        snprintf(below, sizeof below, "%s/%s", path, e->of[k].name);
        leave(e->of[k].inode, below, kind);
    }
}

static void check_crash(crash kind)
{
    fixture *f = &watch.other;
    CHECK_OK(file_remove_folder(f->output));
    leave(ROOT, f->output, kind);
    const int64_t newest = fixture_newest(f);
    if (newest != watch.before && newest != watch.step)
        fail_msg("state %lld, disk %d: newest is %lld", (long long)watch.states, (int)kind,
                 (long long)newest);
    watch.old += newest == watch.before;
    watch.recent += newest == watch.step;
    watch.states++;
    if (watch.states % 11 != 0) return;
    CHECK_OK(checkpoint_clean(f->output, newest)); /* and the run goes on */
    CHECK_OK(fixture_save(f, watch.step, 1));
    assert_int_equal(fixture_newest(f), watch.step);
}

static void check_crashes(void)
{
    watch.inside = true;
    for (int i = 0; i < DISKS; i++)
        check_crash(i < CHANCE ? (crash)i : CHANCE);
    watch.inside = false;
}

/* ---- the calls ---- */

static bool followed(void)
{
    return watch.on && !watch.inside;
}

static void next(void *pointer, const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL) abort();
    memcpy(pointer, &symbol, sizeof symbol);
}

static void path_of(int fd, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, size - 1);
    path[n > 0 ? n : 0] = '\0';
}

int open(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...);
    va_list args;
    va_start(args, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    next(&real, "open");
    const int fd = real(path, flags, mode);
    if (!followed() || fd < 0 || (flags & O_CREAT) == 0) return fd;
    char name[80];
    const int folder = locate(path, name, sizeof name);
    if (folder < 0) return fd;
    set(&disk.of[folder].now, name, create(false));
    check_crashes();
    return fd;
}

int fsync(int fd)
{
    int (*real)(int);
    next(&real, "fsync");
    const int result = real(fd);
    if (!followed() || result != 0) return result;
    char path[1400];
    path_of(fd, path, sizeof path);
    const int i = inode_at(path);
    if (i < 0) return result;
    watch.inside = true; /* it reads the file */
    sync_inode(i, path);
    watch.inside = false;
    check_crashes();
    return result;
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    next(&real, "rename");
    char old[80], name[80];
    const int source = followed() ? locate(from, old, sizeof old) : -1;
    const int inode = followed() ? inode_at(from) : -1;
    const int result = real(from, to);
    if (result != 0 || inode < 0) return result;
    const int target = locate(to, name, sizeof name);
    assert_true(target >= 0);
    drop(&disk.of[source].now, old);
    set(&disk.of[target].now, name, inode);
    check_crashes();
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    int (*real)(const char *, mode_t);
    next(&real, "mkdir");
    const int result = real(path, mode);
    char name[80];
    const int folder = followed() && result == 0 ? locate(path, name, sizeof name) : -1;
    if (folder < 0) return result;
    set(&disk.of[folder].now, name, create(true));
    check_crashes();
    return result;
}

static void removed(const char *path)
{
    char name[80];
    const int folder = followed() ? locate(path, name, sizeof name) : -1;
    if (folder < 0) return;
    drop(&disk.of[folder].now, name);
    check_crashes();
}

int unlink(const char *path)
{
    int (*real)(const char *);
    next(&real, "unlink");
    const int result = real(path);
    if (result == 0) removed(path);
    return result;
}

int unlinkat(int folder, const char *name, int flags)
{
    int (*real)(int, const char *, int);
    next(&real, "unlinkat");
    char path[1400];
    if (folder == AT_FDCWD) {
        snprintf(path, sizeof path, "%s", name);
    } else {
        path_of(folder, path, sizeof path - 100);
        const size_t n = strlen(path);
        snprintf(path + n, sizeof path - n, "/%s", name);
    }
    const int result = real(folder, name, flags);
    if (result == 0) removed(path);
    return result;
}

/* ---- the tests ---- */

/* Save `step` over a folder that holds `before`, then look at every disk that a crash could leave. */
static void crash_everywhere(int64_t before, int64_t step, int64_t keep)
{
    fixture f;
    fixture_open(&f);
    fixture_open(&watch.other);
    CHECK_OK(fixture_save(&f, before, 0));
    snprintf(disk.root, sizeof disk.root, "%s", f.output);
    assert_int_equal(create(true), ROOT);
    import_folder(f.output, ROOT);
    watch.before = before;
    watch.step = step;
    watch.states = watch.old = watch.recent = 0;
    watch.on = true;
    CHECK_OK(fixture_save(&f, step, keep));
    watch.on = false;
    printf("%lld disks: %lld with the old one, %lld with the new one\n", (long long)watch.states,
           (long long)watch.old, (long long)watch.recent);
    assert_true(watch.states > 400);
    /* What a save that has returned wrote is there, whatever was not synced. */
    watch.before = step;
    check_crashes();
    forget_disk();
    fixture_close(&watch.other);
    fixture_close(&f);
}

static void while_a_step_is_saved(void **state)
{
    (void)state;
    crash_everywhere(1, 2, 1);
    assert_true(watch.old > 0 && watch.recent > 0);
}

static void while_a_step_is_replaced(void **state)
{
    (void)state;
    crash_everywhere(2, 2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_a_step_is_saved),
        cmocka_unit_test(while_a_step_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
