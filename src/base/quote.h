/* quote.h - words as a shell and as YAML read them back, whatever they hold. */
#ifndef CUDPO_BASE_QUOTE_H
#define CUDPO_BASE_QUOTE_H

#include "base/buffer.h"
#include "cudpo/status.h"

/** A word for sh: as it stands where nothing of it means anything to a shell, else in quotes. */
CUDPO_MUST_USE cudpo_status quote_shell(buffer *b, const char *word);

/** The words of a list that NULL ends, each behind a space. */
CUDPO_MUST_USE cudpo_status quote_shell_words(buffer *b, const char *const *words);

/** A string for YAML in double quotes, in ASCII.
 *  Returns: CUDPO_OK; CUDPO_EDATA if it is no UTF-8; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status quote_yaml(buffer *b, const char *text);

/** The same for an argument of a container, where $(NAME) would be replaced. */
CUDPO_MUST_USE cudpo_status quote_yaml_argument(buffer *b, const char *text);

/** A text of several lines for YAML behind a key: as a block of lines that begin with `indent` spaces, or quoted where a
 *  block can't hold it. */
CUDPO_MUST_USE cudpo_status quote_yaml_block(buffer *b, const char *text, int indent);

#endif /* CUDPO_BASE_QUOTE_H */
