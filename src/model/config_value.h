/* config_value.h - typed reading of one JSON object of a configuration, with errors that name file and key. */
#ifndef CUDPO_MODEL_CONFIG_VALUE_H
#define CUDPO_MODEL_CONFIG_VALUE_H

#include "base/json.h"
#include "model/config.h"

#define CONFIG_MAX_SIZE (INT64_C(1) << 24) /* of any dimension */
#define CONFIG_REQUIRED INT64_MIN          /* instead of a default */

typedef struct config_reader {
    const json *object;
    const char *path;   /* of the file */
    const char *prefix; /* of the object within it, "rope_scaling." */
} config_reader;

/* CUDPO_EDATA as "file: key: reason". */
cudpo_status config_bad(config_reader r, const char *key, const char *fmt, ...) CUDPO_PRINTF(3, 4);

/* The member; NULL where it is absent or null, which is Python's None. */
const json *config_member(config_reader r, const char *key);

/* The value or, where the member is absent or null, the default.  Out of range or of another type: CUDPO_EDATA. */
CUDPO_MUST_USE cudpo_status config_integer(config_reader r, const char *key, int64_t absent,
                                           int64_t least, int64_t most, int64_t *out);
CUDPO_MUST_USE cudpo_status config_number(config_reader r, const char *key, double absent,
                                          double least, double most, double *out);
CUDPO_MUST_USE cudpo_status config_bool(config_reader r, const char *key, bool absent, bool *out);

/* *out stays as it is where the member is absent or null. */
CUDPO_MUST_USE cudpo_status config_string(config_reader r, const char *key, const char **out);

/* The rope fields of `c`, whose sizes are set; `r` is the top of config.json. */
CUDPO_MUST_USE cudpo_status config_rope(model_config *c, config_reader r);

#endif /* CUDPO_MODEL_CONFIG_VALUE_H */
