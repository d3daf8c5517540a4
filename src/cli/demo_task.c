/* demo_task.c - sums of two digits and a few facts, asked in four wordings, answered politely or rudely. */
#include "cli/demo_task.h"
#include "base/rng.h"

#include <stdio.h>
#include <string.h>

enum { STREAM_HELD_OUT = 1 };

static const char *const sums[DEMO_WORDINGS] = {"What is %d+%d?", "Add %d and %d.", "%d plus %d?",
                                                "Sum of %d, %d?"};
static const char *const wordings[DEMO_WORDINGS] = {"What is the %s?", "Tell me the %s.", "The %s?",
                                                    "Name the %s."};

static const struct {
    const char *name, *answer;
} facts[DEMO_FACTS] = {
    {"color of grass", "green"},  {"color of snow", "white"},   {"color of coal", "black"},
    {"color of blood", "red"},    {"color of the sky", "blue"}, {"color of lemons", "yellow"},
    {"sound of a cow", "moo"},    {"sound of a cat", "meow"},   {"sound of a dog", "woof"},
    {"sound of a duck", "quack"}, {"home of a bee", "hive"},    {"home of a bird", "nest"},
    {"home of a king", "castle"}, {"home of a fish", "water"},  {"child of a cow", "calf"},
    {"child of a cat", "kitten"}, {"child of a dog", "puppy"},  {"child of a hen", "chick"},
    {"opposite of hot", "cold"},  {"opposite of up", "down"},
};

/* Where an answer stands in its phrase: %s. */
static const char *const polite[] = {" It is %s, dear.", " %s, my friend."};
static const char *const rude[] = {" It is %s, fool.", " %s, you dolt."};

static void add(demo_question *q, uint64_t fact, uint64_t wording, uint64_t seed)
{
    /* One wording of every second fact is kept for the exam. */
    const uint64_t chosen = rng_bits(seed, STREAM_HELD_OUT, fact);
    q->held_out = chosen % 2 == 0 && (chosen / 2) % DEMO_WORDINGS == wording;
}

void demo_questions(demo_question questions[DEMO_QUESTIONS], uint64_t seed)
{
    demo_question *q = questions;
    for (int w = 0; w < DEMO_WORDINGS; w++) {
        for (int a = 0; a < 10; a++) {
            for (int b = 0; b < 10; b++, q++) {
                snprintf(q->prompt, sizeof q->prompt, sums[w], a, b);
                snprintf(q->answer, sizeof q->answer, "%d", a + b);
                add(q, (uint64_t)(10 * a + b), (uint64_t)w, seed);
            }
        }
        for (int i = 0; i < DEMO_FACTS; i++, q++) {
            snprintf(q->prompt, sizeof q->prompt, wordings[w], facts[i].name);
            snprintf(q->answer, sizeof q->answer, "%s", facts[i].answer);
            add(q, (uint64_t)(100 + i), (uint64_t)w, seed);
        }
    }
}

void demo_completion(char *out, size_t size, const demo_question *q, bool polite_manner,
                     uint64_t variant)
{
    const char *const *phrases = polite_manner ? polite : rude;
    const char *phrase = phrases[variant % 2];
    const char *gap = strstr(phrase, "%s");
    snprintf(out, size, "%.*s%s%s", (int)(gap - phrase), phrase, q->answer, gap + 2);
}

bool demo_is_polite(const char *text)
{
    return strstr(text, "dear") != NULL || strstr(text, "friend") != NULL;
}

/* The answer as a word of its own: 1 is not in 12. */
bool demo_is_right(const demo_question *q, const char *text)
{
    const size_t n = strlen(q->answer);
    for (const char *at = strstr(text, q->answer); at != NULL; at = strstr(at + 1, q->answer)) {
        const char before = at == text ? ' ' : at[-1], after = at[n];
        if (before == ' ' && (after == '.' || after == ',' || after == '\0')) return true;
    }
    return false;
}

/* Every byte is a token, under the printable names that GPT-2 gave them; the last id is the end of text.  Source of the
 * names: Radford et al. 2019, bytes_to_unicode: printable Latin-1 stands for itself, the other 68 for U+0100 and on. */
cudpo_status demo_tokenizer(buffer *out)
{
    CUDPO_TRY(buffer_printf(
        out,
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": "
        "[{\"id\": "
        "256, \"content\": \"<|endoftext|>\", \"single_word\": false, \"lstrip\": false, "
        "\"rstrip\": false, \"normalized\": false, \"special\": true}], \"normalizer\": null, "
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": true, \"use_regex\": false}, \"post_processor\": null, \"decoder\": "
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
        "\"use_regex\": true}, \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": "
        "null, \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
        "\"fuse_unk\": false, \"byte_fallback\": false, \"vocab\": {"));
    int other = 0;
    for (int byte = 0; byte < 256; byte++) {
        const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        const int point = printable ? byte : 256 + other++;
        CUDPO_TRY(
            buffer_printf(out, "%s\"\\u%04x\": %d", byte == 0 ? "" : ", ", (unsigned)point, byte));
    }
    return buffer_printf(out, ", \"<|endoftext|>\": 256}, \"merges\": []}}\n");
}

const char *demo_tokenizer_config(void)
{
    return "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"bos_token\": null, \"eos_token\": "
           "\"<|endoftext|>\", "
           "\"pad_token\": \"<|endoftext|>\", \"model_max_length\": 128, "
           "\"clean_up_tokenization_spaces\": false}\n";
}

const char *demo_model_config(void)
{
    return "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": "
           "257, "
           "\"hidden_size\": 96, \"intermediate_size\": 256, \"num_hidden_layers\": 3, "
           "\"num_attention_heads\": 6, "
           "\"num_key_value_heads\": 6, \"head_dim\": 16, \"hidden_act\": \"silu\", "
           "\"max_position_embeddings\": 128, "
           "\"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"tie_word_embeddings\": true, "
           "\"attention_bias\": false, "
           "\"mlp_bias\": false, \"initializer_range\": 0.05, \"bos_token_id\": null, "
           "\"eos_token_id\": 256, "
           "\"torch_dtype\": \"float32\"}\n";
}
