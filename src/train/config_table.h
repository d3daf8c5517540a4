/* config_table.h - every key of a configuration on a line of one table.  Reading, printing and explaining keys is driven by
 * it, so a new key is one field in config.h and one line here. */
#ifndef CUDPO_TRAIN_CONFIG_TABLE_H
#define CUDPO_TRAIN_CONFIG_TABLE_H

#include "base/json.h"
#include "cudpo/config.h"

#include <stddef.h>
#include <stdint.h>

typedef enum config_type {
    CONFIG_TEXT,      /* char *: a path */
    CONFIG_CHOICE,    /* char *: one of `choices` */
    CONFIG_LOSS,      /* the same, also as a list of one, as TRL writes it */
    CONFIG_RESUME,    /* char *: a path, or "true" for true; NULL for false */
    CONFIG_REAL,      /* double */
    CONFIG_INTEGER,   /* int64_t */
    CONFIG_BOOL,      /* bool */
    CONFIG_MAYBE,     /* int64_t: 1, 0; -1 for null */
    CONFIG_SCHEDULER, /* an object of min_lr or min_lr_rate: two doubles, negative where absent */
} config_type;

typedef struct config_key {
    const char *name;
    size_t offset; /* in cudpo_config */
    config_type type;
    const char *standard;       /* its default, as JSON text */
    double least, most;         /* of numbers, both included */
    const char *range;          /* the same in words */
    double null;                /* number that null stands for; NAN: null is refused */
    const char *const *choices; /* ended by NULL */
    const char *meaning;
} config_key;

enum { CONFIG_MAX_KEYS = 64 };

/* The table, and how many lines it has. */
const config_key *config_keys(int64_t *n);
const config_key *config_find(const char *name); /* NULL: there is none */
int64_t config_line(const config_key *k);        /* its index in the table */

/** A configuration of its own with the same values.  Free with cudpo_config_free(). */
CUDPO_MUST_USE cudpo_status config_copy(cudpo_config *out, const cudpo_config *c);

#define CONFIG_WHOLE (0x1p53 - 1) /* up to here a double holds every whole number */

/** What to say to a key that is none of ours.  Keys of TRL and transformers that change nothing here, or have a value that
 *  does, are accepted, so that a configuration written for TRL can be used as it is.
 *  Returns: CUDPO_OK; CUDPO_ECONFIG: what is not supported and what to do instead, or "unknown key" and the key that was
 *           probably meant. */
CUDPO_MUST_USE cudpo_status config_foreign(const char *name, const json *value, const char *where);

/** A value as it would stand in a message: a number, a quoted string, or what it is. */
enum { CONFIG_VALUE_TEXT = 96 };
void config_value_text(char out[CONFIG_VALUE_TEXT], const json *value);

#endif /* CUDPO_TRAIN_CONFIG_TABLE_H */
