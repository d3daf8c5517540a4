/* cached.c - its name is a fingerprint of everything that decides what it holds. */
#include "data/cached.h"
#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMAT = 3 }; /* rises whenever the same input gives another cache */

static cudpo_status make_key(hash128 *key, const char *path, const tokenizer *t,
                             const dataset_options *o)
{
    hash128 content;
    CUDPO_TRY(hash_file(&content, path));
    const hash128 text = tokenizer_fingerprint(t);
    hash_state *h = NULL;
    CUDPO_TRY(hash_begin(&h));
    hash_add_int(h, FORMAT);
    hash_add(h, &content, sizeof content);
    hash_add(h, &text, sizeof text);
    hash_add_string(h, tokenizer_eos_text(t));
    hash_add_int(h, tokenizer_bos(t));
    hash_add_int(h, tokenizer_eos(t));
    hash_add_int(h, o->kind);
    hash_add_int(h, o->chosen_only);
    hash_add_int(h, o->max_length);
    hash_add_int(h, o->keep_end);
    hash_add_int(h, o->rules);
    *key = hash_end(h);
    return CUDPO_OK;
}

char *cached_name(const cached *c, const char *end)
{
    char text[HASH_TEXT], name[HASH_TEXT + 64];
    hash_text(text, c->key);
    snprintf(name, sizeof name, "tokens-%s.%s", text, end);
    return path_join(c->options->cache_dir, name);
}

cudpo_status cached_begin(cached *c, const char *path, const tokenizer *t,
                          const dataset_options *options)
{
    *c = (cached){.path = path, .tokenizer = t, .options = options};
    CUDPO_TRY(make_key(&c->key, path, t, options));
    CUDPO_TRY(file_make_folder(options->cache_dir));
    c->file = cached_name(c, "bin");
    c->lock = cached_name(c, "lock");
    if (c->file != NULL && c->lock != NULL) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENOMEM, options->cache_dir, "path");
}

cudpo_status cached_look(cached *c)
{
    c->damage = NULL;
    const int fd = open(c->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return CUDPO_OK;
    if (fd < 0) return file_fail(c->file, "open", false);
    const cudpo_status status =
        cache_map_open(&c->map, &c->damage, fd, c->file, c->key, tokenizer_size(c->tokenizer));
    close(fd);
    return status;
}

bool cached_lock(cached *c, bool wait)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (c->lock_file == 0) c->lock_file = open(c->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666) + 1;
    const int fd = c->lock_file - 1;
    if (fd < 0 || fcntl(fd, F_SETLK, &whole) == 0) return true;
    if (errno != EACCES && errno != EAGAIN) return true; /* no locks here */
    if (!wait) return false;
    log_info("%s: waiting for another process that tokenises it", c->path);
    while (fcntl(fd, F_SETLKW, &whole) != 0 && errno == EINTR) {
    }
    return true;
}

void cached_unlock(cached *c)
{
    if (c->lock_file > 0) close(c->lock_file - 1);
    c->lock_file = 0;
}

void cached_warn(const cached *c)
{
    if (c->damage == NULL) return;
    log_warn("%s: damaged cache of token ids (%s): making it anew", c->file, c->damage);
}

cudpo_status cached_take(cached *c)
{
    CUDPO_TRY(cached_look(c));
    if (c->map.memory != NULL) return CUDPO_OK;
    return cudpo_fail(CUDPO_EWRITE, c->file, "reads back other than it was written: %s",
                      c->damage != NULL ? c->damage : "it is gone");
}

void cached_end(cached *c)
{
    cached_unlock(c);
    free(c->lock);
    free(c->file);
    c->lock = c->file = NULL;
}
