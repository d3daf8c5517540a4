/* config_foreign.c - keys of TRL and transformers that are none of ours.  A key that only says how a run is carried out, or
 * whose value asks for nothing, is accepted, so that a configuration written for TRL can be used as it is; one that would
 * change the result is refused, with what to do instead. */
#include "base/buffer.h"
#include "base/nearest.h"
#include "train/config_table.h"

#include <stdio.h>
#include <string.h>

typedef struct foreign_key {
    const char *name;
    const char
        *accepted; /* values, as config_value_text() writes them, between bars; NULL: every one */
    const char *advice; /* for the others */
} foreign_key;

static const foreign_key foreign_keys[] = {
    /* Where the result would be another one. */
    {"fp16", "|false|null|", "there is bf16 and float32; set it to false"},
    {"bf16_full_eval", "|false|", "evaluations compute in what bf16 says; set it to false"},
    {"fp16_full_eval", "|false|", "there is bf16 and float32; set it to false"},
    {"torch_dtype", "|null|",
     "computation is in float32; the type of the written weights is dtype"},
    {"loss_weights", "|null|", "sums of several losses are not supported"},
    {"f_divergence_type", "|\"reverse_kl\"|", "only reverse_kl is supported"},
    {"f_alpha_divergence_coef", NULL, NULL},
    {"reference_free", "|false|null|", "use orpo, which needs no reference"},
    {"ld_alpha", "|null|", "length desensitisation is not supported"},
    {"use_weighting", "|false|", "WPO's weights are not supported"},
    {"sync_ref_model", "|false|", "the reference stays as it is"},
    {"ref_model_mixup_alpha", NULL, NULL},
    {"ref_model_sync_steps", NULL, NULL},
    {"discopop_tau", NULL, NULL},
    {"rpo_alpha", "|null|", "sums of several losses are not supported"},
    {"max_prompt_length", "|null|",
     "prompts are not cut on their own; max_length limits prompt and completion together"},
    {"max_completion_length", "|null|",
     "completions are not cut on their own; max_length limits prompt and completion together"},
    {"label_smoothing_factor", "|0|", "use label_smoothing"},
    {"neftune_noise_alpha", "|null|", "noise on embeddings is not supported"},
    {"optim", "|\"adamw_torch\"|\"adamw_torch_fused\"|\"adamw_hf\"|", "the optimizer is AdamW"},
    {"optim_args", "|null|", "AdamW's numbers are adam_beta1, adam_beta2 and adam_epsilon"},
    {"optim_target_modules", "|null|", "all weights are trained by AdamW"},
    {"use_peft", "|false|null|", "all weights are trained; adapters are not supported"},
    {"peft_config", "|null|", "all weights are trained; adapters are not supported"},
    {"load_in_4bit", "|false|null|", "quantised models are not supported"},
    {"load_in_8bit", "|false|null|", "quantised models are not supported"},
    {"model_init_kwargs", "|null|{}|", "the type of the written weights is dtype"},
    {"ref_model_init_kwargs", "|null|{}|", "the reference is read as it stands in its folder"},
    {"dataset_name", "|null|", "train_dataset is the file of preferences"},
    {"dataset_kwargs", "|null|{}|", "the file is read as it stands"},
    {"tools", "|null|[]|", "conversations are not supported yet"},
    {"group_by_length", "|false|", "the order of rows is train_sampling_strategy"},
    {"load_best_model_at_end", "|false|", "the weights of the last step are written"},
    {"auto_find_batch_size", "|false|", "max_tokens_per_pack limits memory at any batch size"},
    {"save_only_model", "|false|", "checkpoints hold what resuming needs"},
    {"ignore_data_skip", "|false|", "a resumed run goes on where it was"},
    {"eval_delay", "|0|null|", "use eval_on_start and eval_steps"},
    {"logging_strategy", "|\"steps\"|", "metrics are logged every logging_steps steps"},
    {"packing", "|false|", "rows are packed as they are, without mixing them"},
    {"assistant_only_loss", "|false|", "conversations are not supported yet"},
    {"completion_only_loss", "|true|null|", "only completions are trained on"},
    {"generate_during_eval", "|false|", "use cudpo generate"},
    {"is_encoder_decoder", "|false|null|", "only decoders are supported"},
    {"push_to_hub", "|false|", "nothing is uploaded; output_dir is a Hugging Face folder"},
    {"deepspeed", "|null|", "not supported"},
    {"fsdp", "|null|\"\"|[]|", "not supported"},
/* Where it would not, whatever the value. */
#define IGNORED(name)    \
    {                    \
        name, NULL, NULL \
    }
    IGNORED("disable_dropout"),
    IGNORED("use_liger_kernel"),
    IGNORED("use_logits_to_keep"),
    IGNORED("use_cache"),
    IGNORED("padding_free"),
    IGNORED("pad_token"),
    IGNORED("padding_value"),
    IGNORED("pad_to_multiple_of"),
    IGNORED("label_pad_token_id"),
    IGNORED("precompute_ref_batch_size"),
    IGNORED("activation_offloading"),
    IGNORED("gradient_checkpointing_kwargs"),
    IGNORED("dataset_num_proc"),
    IGNORED("dataloader_num_workers"),
    IGNORED("dataloader_pin_memory"),
    IGNORED("dataloader_prefetch_factor"),
    IGNORED("dataloader_persistent_workers"),
    IGNORED("remove_unused_columns"),
    IGNORED("label_names"),
    IGNORED("attn_implementation"),
    IGNORED("torch_compile"),
    IGNORED("torch_compile_backend"),
    IGNORED("torch_compile_mode"),
    IGNORED("torch_empty_cache_steps"),
    IGNORED("tf32"),
    IGNORED("use_cpu"),
    IGNORED("no_cuda"),
    IGNORED("do_train"),
    IGNORED("do_eval"),
    IGNORED("do_predict"),
    IGNORED("prediction_loss_only"),
    IGNORED("eval_accumulation_steps"),
    IGNORED("batch_eval_metrics"),
    IGNORED("eval_use_gather_object"),
    IGNORED("include_for_metrics"),
    IGNORED("metric_for_best_model"),
    IGNORED("greater_is_better"),
    IGNORED("average_tokens_across_devices"),
    IGNORED("include_num_input_tokens_seen"),
    IGNORED("include_tokens_per_second"),
    IGNORED("skip_memory_metrics"),
    IGNORED("full_determinism"),
    IGNORED("report_to"),
    IGNORED("run_name"),
    IGNORED("project"),
    IGNORED("trackio_space_id"),
    IGNORED("logging_dir"),
    IGNORED("logging_nan_inf_filter"),
    IGNORED("disable_tqdm"),
    IGNORED("log_level"),
    IGNORED("log_level_replica"),
    IGNORED("log_on_each_node"),
    IGNORED("save_safetensors"),
    IGNORED("save_on_each_node"),
    IGNORED("enable_jit_checkpoint"),
    IGNORED("restore_callback_states_from_checkpoint"),
    IGNORED("hub_model_id"),
    IGNORED("hub_strategy"),
    IGNORED("hub_token"),
    IGNORED("hub_private_repo"),
    IGNORED("hub_always_push"),
    IGNORED("hub_revision"),
    IGNORED("accelerator_config"),
    IGNORED("parallelism_config"),
    IGNORED("fsdp_config"),
    IGNORED("ddp_find_unused_parameters"),
    IGNORED("ddp_broadcast_buffers"),
    IGNORED("ddp_static_graph"),
    IGNORED("local_rank"),
    IGNORED("debug"),
#undef IGNORED
};

void config_value_text(char out[CONFIG_VALUE_TEXT], const json *value)
{
    enum { SHOWN = 60 };
    buffer b = {0};
    const char *text = NULL;
    switch (json_type(value)) {
    case JSON_NULL:
        text = "null";
        break;
    case JSON_BOOL:
        text = json_bool(value) ? "true" : "false";
        break;
    case JSON_NUMBER:
        if (buffer_json_number(&b, json_number(value)) == CUDPO_OK) text = b.data;
        break;
    case JSON_STRING: {
        const char *s = json_string(value);
        snprintf(out, CONFIG_VALUE_TEXT, "\"%.*s%s\"", SHOWN, s, strlen(s) > SHOWN ? "..." : "");
        return;
    }
    case JSON_ARRAY:
        text = json_count(value) == 0 ? "[]" : "a list";
        break;
    case JSON_OBJECT:
        text = json_count(value) == 0 ? "{}" : "an object";
        break;
    }
    snprintf(out, CONFIG_VALUE_TEXT, "%s", text == NULL ? "this" : text);
    buffer_free(&b);
}

static cudpo_status unknown(const char *name, const char *where)
{
    const char *names[CONFIG_MAX_KEYS];
    int64_t n;
    const config_key *keys = config_keys(&n);
    for (int64_t i = 0; i < n; i++)
        names[i] = keys[i].name;
    const char *meant = nearest_name(name, names, n);
    if (meant == NULL)
        return cudpo_fail(CUDPO_ECONFIG, where,
                          "unknown key; cudpo train --print_config shows all there are");
    return cudpo_fail(CUDPO_ECONFIG, where, "unknown key; did you mean %s?", meant);
}

cudpo_status config_foreign(const char *name, const json *value, const char *where)
{
    for (size_t i = 0; i < sizeof foreign_keys / sizeof foreign_keys[0]; i++) {
        const foreign_key *k = &foreign_keys[i];
        if (strcmp(k->name, name) != 0) continue;
        char given[CONFIG_VALUE_TEXT], between[CONFIG_VALUE_TEXT + 3];
        config_value_text(given, value);
        snprintf(between, sizeof between, "|%s|", given);
        if (k->accepted == NULL || strstr(k->accepted, between) != NULL) return CUDPO_OK;
        return cudpo_fail(CUDPO_ECONFIG, where, "%s is not supported: %s", given, k->advice);
    }
    return unknown(name, where);
}
