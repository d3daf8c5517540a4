/* cache_folder.h - where tokenised data and reference log-probs are kept between runs. */
#ifndef CUDPO_TRAIN_CACHE_FOLDER_H
#define CUDPO_TRAIN_CACHE_FOLDER_H

#include "cudpo/status.h"

/** $CUDPO_CACHE, else $XDG_CACHE_HOME/cudpo, else $HOME/.cache/cudpo, else `fallback`/cache: created, in new memory. */
CUDPO_MUST_USE cudpo_status cache_folder(char **out, const char *fallback);

#endif /* CUDPO_TRAIN_CACHE_FOLDER_H */
