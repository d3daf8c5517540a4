/* load.h - typed members of the objects in tokenizer.json; a failure says where, which member, and what it is. */
#ifndef CUDPO_TEXT_LOAD_H
#define CUDPO_TEXT_LOAD_H

#include "base/json.h"
#include "cudpo/status.h"
#include "text/regex.h"

#include <stdbool.h>

/* The member, which must be there and of that kind. */
CUDPO_MUST_USE cudpo_status load_member(const json **out, const json *object, const char *key,
                                        json_kind kind, const char *where);

/* The member's value; `otherwise` where it is absent or null. */
CUDPO_MUST_USE cudpo_status load_string(const char **out, const json *object, const char *key,
                                        const char *otherwise, const char *where);
CUDPO_MUST_USE cudpo_status load_bool(bool *out, const json *object, const char *key,
                                      bool otherwise, const char *where);

/* An integer member, which must be there, in low .. high. */
CUDPO_MUST_USE cudpo_status load_integer(int64_t *out, const json *object, const char *key,
                                         int64_t low, int64_t high, const char *where);

/* "type" of a component. */
CUDPO_MUST_USE cudpo_status load_type(const char **out, const json *component, const char *where);

/* Which of the `n` names this is; fails with the whole list. */
CUDPO_MUST_USE cudpo_status load_choice(int *out, const char *name, const char *const names[],
                                        int n, const char *what, const char *where);

/* "pattern": {"String": ...} or {"Regex": ...}. */
CUDPO_MUST_USE cudpo_status load_pattern(regex **out, const json *component, const char *where);

/** A component is null, an object, or a Sequence of others under `members` ("normalizers", ...): call `one` for each
 *  that is no Sequence, in order.
 *  Fails where there are more than LOAD_MAX_COMPONENTS. */
enum { LOAD_MAX_COMPONENTS = 64 };
typedef cudpo_status (*load_one)(void *state, const json *component, const char *type,
                                 const char *where);
CUDPO_MUST_USE cudpo_status load_components(void *state, const json *component, const char *members,
                                            load_one one, const char *where);

#endif /* CUDPO_TEXT_LOAD_H */
