/* test_config.c - configurations: defaults, every kind of key, what is refused and how it is said. */
/* rooms: train */
#include "scratch.h"
#include "base/json.h"
#include "cudpo/config.h"
#include "optim/schedule.h"
#include "train/config_table.h"

static cudpo_config c;

static void fresh(void)
{
    cudpo_config_free(&c);
    CHECK_OK(cudpo_config_create(&c));
}

static cudpo_status load(const char *text)
{
    fresh();
    return cudpo_config_load(&c, scratch_text("c.json", text));
}

/* TRL 1.16's DPOConfig and transformers' TrainingArguments, as printed by DPOConfig(output_dir=...); bf16 null is TRL's true
 * on a GPU, and device, master_weights, gradient_dtype and ref_model_offload are ours. */
static const char defaults[] =
    "{\n"
    "  \"model_name_or_path\": null,\n  \"ref_model_name_or_path\": null,\n"
    "  \"train_dataset\": null,\n  \"eval_dataset\": null,\n"
    "  \"output_dir\": \"trainer_output\",\n  \"device\": \"auto\",\n  \"bf16\": null,\n"
    "  \"master_weights\": true,\n  \"gradient_dtype\": \"float32\",\n  \"dtype\": \"float32\",\n"
    "  \"loss_type\": \"sigmoid\",\n  \"beta\": 0.1,\n  \"label_smoothing\": 0,\n"
    "  \"desirable_weight\": 1,\n  \"undesirable_weight\": 1,\n"
    "  \"precompute_ref_log_probs\": false,\n  \"ref_model_offload\": null,\n"
    "  \"max_length\": 1024,\n"
    "  \"truncation_mode\": \"keep_start\",\n  \"train_sampling_strategy\": null,\n"
    "  \"dataloader_drop_last\": false,\n  \"learning_rate\": 1e-06,\n"
    "  \"lr_scheduler_type\": \"linear\",\n  \"lr_scheduler_kwargs\": null,\n"
    "  \"warmup_ratio\": 0,\n  \"warmup_steps\": 0,\n  \"adam_beta1\": 0.9,\n"
    "  \"adam_beta2\": 0.999,\n  \"adam_epsilon\": 1e-08,\n  \"weight_decay\": 0,\n"
    "  \"max_grad_norm\": 1,\n  \"num_train_epochs\": 3,\n  \"max_steps\": -1,\n"
    "  \"per_device_train_batch_size\": 8,\n  \"per_device_eval_batch_size\": 8,\n"
    "  \"gradient_accumulation_steps\": 1,\n  \"max_tokens_per_pack\": null,\n"
    "  \"gradient_checkpointing\": true,\n  \"ddp_backend\": null,\n"
    "  \"ddp_timeout\": 1800,\n  \"ddp_bucket_cap_mb\": null,\n  \"zero_stage\": 0,\n"
    "  \"logging_steps\": 10,\n"
    "  \"logging_first_step\": false,\n  \"eval_strategy\": \"no\",\n  \"eval_steps\": null,\n"
    "  \"eval_on_start\": false,\n  \"save_strategy\": \"steps\",\n  \"save_steps\": 500,\n"
    "  \"save_total_limit\": null,\n  \"resume_from_checkpoint\": null,\n  \"seed\": 42,\n"
    "  \"data_seed\": null,\n  \"overwrite_output_dir\": false\n}\n";

static void has_the_defaults_of_trl(void **state)
{
    (void)state;
    fresh();
    char *text = cudpo_config_print(&c);
    assert_non_null(text);
    assert_string_equal(text, defaults);
    free(text);
}

/* A value other than the default for every key: all arrive, and what is printed reads back as the same. */
static void prints_what_it_reads(void **state)
{
    (void)state;
    static const char text[] =
        "{\"model_name_or_path\": \"m\", \"ref_model_name_or_path\": \"r\\\"q\", "
        "\"train_dataset\": \"t\", \"eval_dataset\": \"e\", \"output_dir\": \"o\", \"device\": "
        "\"cuda\", "
        "\"bf16\": true, \"master_weights\": false, \"gradient_dtype\": \"bfloat16\", \"dtype\": "
        "\"auto\", \"loss_type\": [\"ipo\"], \"beta\": 0.25, \"label_smoothing\": 0.125, "
        "\"desirable_weight\": 2, \"undesirable_weight\": 0.5, \"precompute_ref_log_probs\": true, "
        "\"ref_model_offload\": false, \"max_length\": null, \"truncation_mode\": \"keep_end\", "
        "\"train_sampling_strategy\": "
        "\"sequential\", \"dataloader_drop_last\": true, \"learning_rate\": 5e-7, "
        "\"lr_scheduler_type\": \"cosine_with_min_lr\", \"lr_scheduler_kwargs\": {\"min_lr\": "
        "1e-8}, \"warmup_ratio\": 0.1, \"warmup_steps\": 7, \"adam_beta1\": 0.8, \"adam_beta2\": "
        "0.99, \"adam_epsilon\": 1e-6, \"weight_decay\": 0.01, \"max_grad_norm\": null, "
        "\"num_train_epochs\": 1.5, \"max_steps\": 12, \"per_device_train_batch_size\": 3, "
        "\"per_device_eval_batch_size\": 5, \"gradient_accumulation_steps\": 6, "
        "\"max_tokens_per_pack\": 4096, \"gradient_checkpointing\": false, \"ddp_backend\": "
        "\"mpi\", \"ddp_timeout\": 60, \"ddp_bucket_cap_mb\": 4, \"zero_stage\": 1, "
        "\"logging_steps\": 1, "
        "\"logging_first_step\": true, \"eval_strategy\": \"epoch\", \"eval_steps\": 9, "
        "\"eval_on_start\": true, \"save_strategy\": \"no\", \"save_steps\": 11, "
        "\"save_total_limit\": 2, \"resume_from_checkpoint\": true, \"seed\": 1, \"data_seed\": 0, "
        "\"overwrite_output_dir\": true}";
    CHECK_OK(load(text));
    assert_string_equal(c.ref_model_name_or_path, "r\"q");
    assert_string_equal(c.loss_type, "ipo");
    assert_string_equal(c.resume_from_checkpoint, "true");
    assert_int_equal(c.max_length, 0);
    assert_int_equal(c.data_seed, 0);
    assert_true(c.min_lr == 1e-8 && c.min_lr_rate == -1 && c.max_grad_norm == 0.0);
    json *given = NULL;
    CHECK_OK(json_parse(&given, text, strlen(text), "given"));
    int64_t n;
    config_keys(&n);
    assert_int_equal(json_count(given), n); /* none was forgotten here */
    json_free(given);
    char *first = cudpo_config_print(&c);
    CHECK_OK(load(first));
    char *second = cudpo_config_print(&c);
    assert_string_equal(first, second);
    assert_null(strstr(first, "trainer_output"));
    free(first);
    free(second);
}

static void refuses(const char *text, const char *message)
{
    CHECK_FAILS(load(text), CUDPO_ECONFIG, message);
}

static void names_the_key_that_was_meant(void **state)
{
    (void)state;
    refuses("{\"betta\": 0.1}", "c.json: betta: unknown key; did you mean beta?");
    refuses("{\"lerning_rate\": 1}", "lerning_rate: unknown key; did you mean learning_rate?");
    refuses("{\"learning-rate\": 1}", "did you mean learning_rate?");
    refuses("{\"num_epochs\": 1}", "num_epochs: unknown key");
    refuses("{\"xyzzy\": 1}", "xyzzy: unknown key; cudpo train --print_config");
    refuses("{\"BETA\": 0.1}", "did you mean beta?");
    fresh();
    CHECK_FAILS(cudpo_config_set(&c, "max_step", "3"), CUDPO_ECONFIG,
                "--max_step: unknown key; did you mean max_steps?");
}

static void refuses_wrong_types_and_ranges(void **state)
{
    (void)state;
    refuses("{\"beta\": \"0.1\"}", "c.json: beta: must be a number above 0, not \"0.1\"");
    refuses("{\"beta\": 0}", "beta: must be a number above 0, not 0");
    refuses("{\"beta\": null}", "beta: must be given, not null");
    refuses("{\"beta\": true}", "not true");
    refuses("{\"max_length\": 1}", "max_length: must be an integer of 2 or more (or null), not 1");
    refuses("{\"max_length\": 2.5}", "must be an integer");
    refuses("{\"max_length\": 1e300}", "must be an integer");
    refuses("{\"seed\": 4294967296}", "from 0 to 4294967295");
    refuses("{\"seed\": -1}", "from 0 to 4294967295");
    refuses("{\"adam_beta1\": 1}", "from 0 to below 1, not 1");
    refuses("{\"label_smoothing\": 0.5}", "from 0 to below 0.5, not 0.5");
    refuses("{\"logging_steps\": 0}", "logging_steps: must be an integer of 1 or more, not 0");
    refuses("{\"gradient_checkpointing\": 1}", "must be true or false, not 1");
    refuses("{\"gradient_checkpointing\": null}", "must be true or false, not null");
    refuses("{\"ref_model_offload\": 1}", "must be true, false or null, not 1");
    refuses("{\"output_dir\": 5}", "output_dir: must be a path, not 5");
    refuses("{\"output_dir\": \"\"}", "must be a path, not \"\"");
    refuses("{\"output_dir\": null}", "output_dir: must be given, not null");
    refuses("{\"train_dataset\": []}", "must be a path, not []");
    refuses("{\"loss_type\": \"sigmoyd\"}", "not \"sigmoyd\"; did you mean \"sigmoid\"?");
    refuses("{\"loss_type\": \"dpo\"}",
            "must be \"sigmoid\", \"hinge\", \"ipo\", \"kto\", \"orpo\" or \"sft\", not \"dpo\"");
    refuses("{\"loss_type\": [\"sigmoid\", \"sft\"]}", "sums of several losses are not supported");
    refuses("{\"loss_type\": []}", "not []");
    refuses("{\"lr_scheduler_type\": 3}", "\"linear\"");
    refuses("{\"lr_scheduler_kwargs\": 3}", "lr_scheduler_kwargs: must be an object");
    refuses("{\"lr_scheduler_kwargs\": {\"min\": 3}}", "min: unknown key");
    refuses("{\"lr_scheduler_kwargs\": {\"min_lr_rate\": 3}}", "from 0 to 1");
    refuses("{\"lr_scheduler_kwargs\": {\"min_lr\": -3}}", "of 0 or more");
    refuses("{\"resume_from_checkpoint\": 3}", "true, false or the folder of a checkpoint");
    CHECK_OK(load("{\"seed\": 4294967295, \"max_length\": 2, \"adam_beta1\": 0, \"beta\": 1e-300, "
                  "\"label_smoothing\": 0.4999, \"save_total_limit\": 0}"));
}

static void refuses_text_that_is_no_object(void **state)
{
    (void)state;
    refuses("", "c.json");
    refuses("[]", "must be an object of keys");
    refuses("{\"beta\": 0.1", "c.json");
    refuses("{\"beta\": 0.1, \"beta\": 0.2}", "beta");
    refuses("{\"beta\": 0.1} x", "c.json");
    refuses("{\"output_dir\": \"a\\u0000b\"}", "c.json");
    refuses("{\"beta\": NaN}", "c.json");
    refuses("{\"beta\": 1e999}", "c.json");
    fresh();
    CHECK_FAILS(cudpo_config_load(&c, scratch_path("absent.json")), CUDPO_ENOINPUT, "absent.json");
}

/* A configuration of TRL serves as it is where it asks for nothing else. */
static void reads_keys_of_trl(void **state)
{
    (void)state;
    CHECK_OK(load("{\"bf16\": false, \"report_to\": [\"wandb\"], \"optim\": \"adamw_torch_fused\", "
                  "\"max_prompt_length\": null, \"disable_dropout\": true, \"f_divergence_type\": "
                  "\"reverse_kl\", \"label_smoothing_factor\": 0.0, \"fsdp\": [], "
                  "\"model_init_kwargs\": {}, \"dataloader_num_workers\": 4}"));
    refuses("{\"fp16\": true}", "c.json: fp16: true is not supported: ");
    refuses("{\"bf16\": 1}", "c.json: bf16: must be true, false or null, not 1");
    refuses("{\"max_prompt_length\": 512}", "max_prompt_length: 512 is not supported: ");
    refuses("{\"optim\": \"lion\"}", "\"lion\" is not supported: the optimizer is AdamW");
    refuses("{\"model_init_kwargs\": {\"dtype\": \"bfloat16\"}}", "an object is not supported");
    refuses("{\"optim\": \"adamw\"}", "\"adamw\" is not supported"); /* part of an accepted word */
}

static void reads_the_command_line(void **state)
{
    (void)state;
    fresh();
    CHECK_OK(cudpo_config_set(&c, "beta", "0.3"));
    CHECK_OK(cudpo_config_set(&c, "max_steps", "-1"));
    CHECK_OK(cudpo_config_set(&c, "output_dir", "true"));
    CHECK_OK(cudpo_config_set(&c, "train_dataset", "5"));
    CHECK_OK(cudpo_config_set(&c, "eval_dataset", "a \"b\".jsonl"));
    CHECK_OK(cudpo_config_set(&c, "loss_type", "ipo"));
    CHECK_OK(cudpo_config_set(&c, "gradient_checkpointing", "False"));
    CHECK_OK(cudpo_config_set(&c, "dataloader_drop_last", NULL));
    CHECK_OK(cudpo_config_set(&c, "resume_from_checkpoint", NULL));
    CHECK_OK(cudpo_config_set(&c, "max_length", "None"));
    CHECK_OK(cudpo_config_set(&c, "lr_scheduler_kwargs", "{\"min_lr_rate\": 0.1}"));
    assert_true(c.beta == 0.3 && c.max_steps == -1 && c.max_length == 0 && c.min_lr_rate == 0.1);
    assert_true(!c.gradient_checkpointing && c.dataloader_drop_last);
    assert_string_equal(c.output_dir, "true");
    assert_string_equal(c.train_dataset, "5");
    assert_string_equal(c.eval_dataset, "a \"b\".jsonl");
    assert_string_equal(c.resume_from_checkpoint, "true");
    CHECK_OK(cudpo_config_set(&c, "resume_from_checkpoint", "false"));
    assert_null(c.resume_from_checkpoint);
    CHECK_OK(cudpo_config_set(&c, "resume_from_checkpoint", "out/checkpoint-5"));
    assert_string_equal(c.resume_from_checkpoint, "out/checkpoint-5");
    CHECK_OK(cudpo_config_set(&c, "eval_dataset", "null"));
    assert_null(c.eval_dataset);
    CHECK_FAILS(cudpo_config_set(&c, "beta", NULL), CUDPO_ECONFIG, "--beta: needs a value");
    CHECK_FAILS(cudpo_config_set(&c, "beta", "much"), CUDPO_ECONFIG,
                "--beta: must be a number above 0, not \"much\"");
    CHECK_FAILS(cudpo_config_set(&c, "beta", "\xff"), CUDPO_ECONFIG, "");
    assert_true(c.beta == 0.3); /* a refused value changes nothing */
}

/* Set keys of a sound configuration, and see what the check says. */
static void impossible(const char *text, const char *message)
{
    char whole[1024];
    snprintf(whole, sizeof whole, "{\"model_name_or_path\": \"m\", \"train_dataset\": \"t\"%s%s}",
             text[0] == '\0' ? "" : ", ", text);
    CHECK_OK(load(whole));
    if (message == NULL) {
        CHECK_OK(cudpo_config_check(&c));
    } else {
        CHECK_FAILS(cudpo_config_check(&c), CUDPO_ECONFIG, message);
    }
}

static void refuses_impossible_combinations(void **state)
{
    (void)state;
    impossible("", NULL);
    CHECK_OK(load("{\"train_dataset\": \"t\"}"));
    CHECK_FAILS(cudpo_config_check(&c), CUDPO_ECONFIG, "c.json: model_name_or_path: is required");
    CHECK_OK(load("{\"model_name_or_path\": \"m\"}"));
    CHECK_FAILS(cudpo_config_check(&c), CUDPO_ECONFIG, "c.json: train_dataset: is required");
    fresh();
    CHECK_FAILS(cudpo_config_check(&c), CUDPO_ECONFIG, "model_name_or_path: is required");
    impossible("\"label_smoothing\": 0.1, \"loss_type\": \"ipo\"", "c.json: label_smoothing");
    impossible("\"label_smoothing\": 0.1", NULL);
    impossible("\"loss_type\": \"orpo\", \"ref_model_name_or_path\": \"r\"",
               "ref_model_name_or_path: loss_type orpo has no reference");
    impossible("\"loss_type\": \"orpo\", \"precompute_ref_log_probs\": true",
               "precompute_ref_log_probs");
    impossible("\"loss_type\": \"orpo\", \"ref_model_offload\": true",
               "ref_model_offload: this loss_type has no reference");
    impossible("\"loss_type\": \"sft\", \"ref_model_offload\": true", "ref_model_offload");
    impossible("\"loss_type\": \"sft\", \"ref_model_offload\": true, "
               "\"ref_model_name_or_path\": \"r\"",
               NULL);
    impossible("\"ref_model_offload\": true, \"precompute_ref_log_probs\": true",
               "ref_model_offload: precompute_ref_log_probs leaves no reference in memory");
    impossible("\"ref_model_offload\": false, \"precompute_ref_log_probs\": true", NULL);
    impossible("\"ref_model_offload\": true", NULL);
    impossible("\"loss_type\": \"kto\", \"per_device_train_batch_size\": 1",
               "per_device_train_batch_size: loss_type kto needs at least 2");
    impossible("\"loss_type\": \"kto\", \"per_device_eval_batch_size\": 1", NULL);
    impossible("\"loss_type\": \"kto\", \"per_device_eval_batch_size\": 1, \"eval_dataset\": \"e\"",
               "per_device_eval_batch_size");
    impossible("\"loss_type\": \"kto\", \"train_sampling_strategy\": \"random\"",
               "train_sampling_strategy");
    impossible("\"loss_type\": \"kto\", \"truncation_mode\": \"keep_end\"", "truncation_mode");
    impossible("\"eval_strategy\": \"steps\"", "eval_strategy: needs an eval_dataset");
    impossible("\"eval_on_start\": true", "eval_on_start: needs an eval_dataset");
    impossible("\"lr_scheduler_type\": \"cosine_with_min_lr\"", "lr_scheduler_kwargs");
    impossible("\"lr_scheduler_type\": \"cosine_with_min_lr\", \"lr_scheduler_kwargs\": "
               "{\"min_lr\": 1e-8, \"min_lr_rate\": 0.1}",
               "lr_scheduler_kwargs");
    impossible("\"lr_scheduler_kwargs\": {\"min_lr\": 1e-8}", "lr_scheduler_kwargs: is only of");
    impossible("\"warmup_steps\": 3, \"warmup_ratio\": 0.1", "warmup_ratio: warmup_steps says");
    impossible("\"max_steps\": 0", "max_steps: must be 1 or more, or -1");
}

static char advised[2048];

static void note(void *context, const char *message)
{
    int *n = context;
    (*n)++;
    strncat(advised, message, sizeof advised - strlen(advised) - 1);
}

static void advises(const char *text, const char *message)
{
    int n = 0;
    advised[0] = '\0';
    CHECK_OK(load(text));
    cudpo_config_advise(&c, note, &n);
    if (message == NULL ? n != 0 : strstr(advised, message) == NULL)
        fail_msg("advice on %s: \"%s\", not \"%s\"", text, advised, message == NULL ? "" : message);
}

static void warns_outside_what_is_known_to_work(void **state)
{
    (void)state;
    advises("{}", NULL);
    advises("{\"beta\": 0.01}", NULL);
    advises("{\"beta\": 0.0099}", "beta 0.0099 is below 0.01: the policy is hardly held");
    advises("{\"beta\": 1}", NULL);
    advises("{\"beta\": 1.5}", "beta 1.5 is above 1: the policy is held so tightly");
    advises("{\"beta\": 1.5, \"loss_type\": \"orpo\"}", "the odds ratio outweighs");
    advises("{\"beta\": 0.001, \"loss_type\": \"sft\"}", NULL);
    advises("{\"learning_rate\": 1e-4}", NULL);
    advises("{\"learning_rate\": 1.1e-4}", "learning_rate 0.00011 is above 1e-4");
    advises("{\"learning_rate\": 1e-3, \"adam_epsilon\": 0.01}", NULL);
    advises("{\"learning_rate\": 0}", "no weight will change");
    advises("{\"per_device_train_batch_size\": 1}", "one row to a step");
    advises("{\"per_device_train_batch_size\": 1, \"gradient_accumulation_steps\": 16}", NULL);
    advises("{\"label_smoothing\": 0.4}", "label_smoothing 0.4");
    advises("{\"max_length\": 16}", "max_length 16");
    advises("{\"max_length\": null}", NULL);
}

static void check_line(void *context, const char *key, const char *value, const char *meaning)
{
    int *n = context;
    assert_non_null(config_find(key));
    assert_true(strlen(value) > 0 && strlen(meaning) > 10);
    (*n)++;
}

/* Every schedule of optim/ has a name here; every key is explained. */
static void table_is_complete(void **state)
{
    (void)state;
    int n = 0;
    int64_t keys;
    cudpo_config_describe(check_line, &n);
    config_keys(&keys);
    assert_int_equal(n, keys);
    for (int i = 0; i < SCHEDULE_KINDS; i++) {
        fresh();
        CHECK_OK(cudpo_config_set(&c, "lr_scheduler_type", schedule_name((schedule_kind)i)));
    }
}

static int done(void **state)
{
    cudpo_config_free(&c);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_defaults_of_trl),
        cmocka_unit_test(prints_what_it_reads),
        cmocka_unit_test(names_the_key_that_was_meant),
        cmocka_unit_test(refuses_wrong_types_and_ranges),
        cmocka_unit_test(refuses_text_that_is_no_object),
        cmocka_unit_test(reads_keys_of_trl),
        cmocka_unit_test(reads_the_command_line),
        cmocka_unit_test(refuses_impossible_combinations),
        cmocka_unit_test(warns_outside_what_is_known_to_work),
        cmocka_unit_test(table_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
