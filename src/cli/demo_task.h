/* demo_task.h - what the demo teaches: questions with one right answer, in one of two manners. */
#ifndef CUDPO_CLI_DEMO_TASK_H
#define CUDPO_CLI_DEMO_TASK_H

#include "base/buffer.h"
#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

/* One question: a fact in one of several wordings. */
typedef struct demo_question {
    char prompt[64];
    char answer[16];
    bool held_out; /* this wording of this fact is not trained on; its other wordings are */
} demo_question;

enum { DEMO_WORDINGS = 4, DEMO_FACTS = 20, DEMO_QUESTIONS = DEMO_WORDINGS * (100 + DEMO_FACTS) };

/** Fill in all questions.  Which are held out is a function of the seed. */
void demo_questions(demo_question questions[DEMO_QUESTIONS], uint64_t seed);

/* The answer to a question in a manner; `variant` chooses among phrasings. */
void demo_completion(char *out, size_t size, const demo_question *q, bool polite, uint64_t variant);

/* Of a sampled answer: is it in the polite manner; does it say the right answer? */
bool demo_is_polite(const char *text);
bool demo_is_right(const demo_question *q, const char *text);

/** A byte-level tokenizer.json, and a config.json of a tiny Llama that goes with it. */
CUDPO_MUST_USE cudpo_status demo_tokenizer(buffer *out);
const char *demo_model_config(void);
const char *demo_tokenizer_config(void);

#endif /* CUDPO_CLI_DEMO_TASK_H */
