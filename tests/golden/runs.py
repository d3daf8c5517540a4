"""The table of golden runs: one entry per file in runs/."""

# What every run starts from; a run lists only what it changes. The keys are TRL's own, except for
# the four paths. TRL's ORPOConfig has no loss_type: here "orpo" says which trainer runs.
BASE = {
    "model_name_or_path": "models/llama",
    "train_dataset": "data/train.jsonl",
    "loss_type": "sigmoid",
    "beta": 0.1,
    "max_length": 64,
    "max_steps": 20,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "seed": 42,
    "logging_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
}

KTO = {"loss_type": "kto", "train_dataset": "data/kto.jsonl", "desirable_weight": 1.2, "undesirable_weight": 0.7}
ORPO = {"loss_type": "orpo", "max_length": 512}
EVAL = {"eval_dataset": "data/eval.jsonl", "eval_strategy": "steps", "eval_steps": 6, "per_device_eval_batch_size": 4}


def model(name):
    return {"model_name_or_path": f"models/{name}"}


# name -> (what changes, what the run is for)
RUNS = {
    # Architectures.
    "arch_llama": ({}, "grouped-query attention, free head, config.json of transformers 4"),
    "arch_llama3": (model("llama3"), "tied head, llama3 rope scaling, explicit head_dim, BOS, no pad token"),
    "arch_llama_linear": (model("llama-linear"), "linear rope scaling, attention_bias, mlp_bias"),
    "arch_mistral": (model("mistral"), "sliding window of 16, BOS"),
    "arch_qwen2": (model("qwen2"), "q, k, v biases, tied head, padded vocabulary, NFC"),
    "arch_qwen2_window": (model("qwen2-window"), "sliding window on the second layer only"),
    "arch_qwen3": (model("qwen3"), "q and k norms, head_dim != hidden / heads, two shards"),
    # Losses.
    "loss_hinge": ({"loss_type": "hinge", "beta": 0.5, "learning_rate": 2e-4}, "some pairs reach the flat part"),
    "loss_ipo": ({"loss_type": "ipo"}, "scores per completion token"),
    "loss_sft": ({"loss_type": "sft", "learning_rate": 5e-3}, "token mean over the chosen completions of the micro-batch"),
    "loss_sft_keep_end": (
        {"loss_type": "sft", "truncation_mode": "keep_end", "max_length": 24},
        "completions that fill max_length: their first token is not scored",
    ),
    "loss_sigmoid_sft": (
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
        "a weighted list of losses",
    ),
    "loss_sigmoid_smoothing": ({"label_smoothing": 0.1}, "TRL ignores label_smoothing here: equal to arch_llama"),
    "loss_cdpo": (
        {"label_smoothing": 0.1},
        "TRL's trainer with -(1-e) logsigmoid(b d) - e logsigmoid(-b d) in place of its sigmoid loss",
    ),
    "loss_robust": ({"loss_type": "robust", "label_smoothing": 0.1}, ""),
    "loss_exo_pair": ({"loss_type": "exo_pair", "label_smoothing": 0.01}, ""),
    "loss_nca_pair": ({"loss_type": "nca_pair"}, ""),
    "loss_bco_pair": ({"loss_type": "bco_pair"}, ""),
    "loss_sppo_hard": ({"loss_type": "sppo_hard", "learning_rate": 1e-4}, ""),
    "loss_aot": ({"loss_type": "aot", "label_smoothing": 0.1}, "sorts inside the micro-batch"),
    "loss_aot_unpaired": ({"loss_type": "aot_unpaired"}, "sorts inside the micro-batch"),
    "loss_apo_zero": ({"loss_type": "apo_zero"}, ""),
    "loss_apo_down": ({"loss_type": "apo_down"}, ""),
    "loss_discopop": ({"loss_type": "discopop"}, ""),
    "loss_sigmoid_norm": ({"loss_type": "sigmoid_norm", "beta": 2.0}, ""),
    "loss_forward_kl": ({"f_divergence_type": "forward_kl"}, ""),
    "loss_js": ({"f_divergence_type": "js_divergence"}, ""),
    "loss_alpha": ({"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5}, ""),
    "loss_ld": ({"ld_alpha": 0.5}, "tokens past the shorter completion count half, in the reference too"),
    "loss_wpo": ({"use_weighting": True}, ""),
    # KTO and ORPO.
    "kto": (KTO, "order of the file; the last batch of an epoch is short"),
    "kto_2x4": (
        KTO | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        "KL pairs inside blocks of 2; micro-batches with labels of one kind",
    ),
    "kto_apo_zero": (KTO | {"loss_type": "apo_zero_unpaired"}, "no KL term"),
    "kto_from_pairs": (KTO | {"train_dataset": "data/train.jsonl"}, "pairs become rows: all chosen, then all rejected"),
    "kto_eval": (KTO | EVAL | {"eval_dataset": "data/kto_eval.jsonl"}, "evaluation of KTO"),
    "kto_precompute": (KTO | {"precompute_ref_log_probs": True}, ""),
    "orpo": (ORPO, "no reference; nothing is dropped"),
    "orpo_truncation": (ORPO | {"max_length": 80}, "only completions are cut"),
    "orpo_bos": (ORPO | model("mistral"), "BOS is put before the prompt by the trainer"),
    "orpo_edge": (
        ORPO | {"train_dataset": "data/edge.jsonl", "max_length": 128, "per_device_train_batch_size": 4},
        "an empty prompt, empty completions, prompts that merge with one of two completions",
    ),
    # Batches and epochs.
    "batch_4x2": (
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        "the rows of every step are those of arch_llama; so are the sums",
    ),
    "batch_6x2": (
        {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2},
        "TRL weighs the last micro-batch of an epoch, 2 rows, as much as the full one before it",
    ),
    "batch_5_epochs": (
        {"per_device_train_batch_size": 5, "max_steps": -1, "num_train_epochs": 2.2},
        "a fractional number of epochs; the last batch of an epoch has 4 rows",
    ),
    "drop_last": (
        EVAL | {"eval_dataset": "data/kto_eval.jsonl", "dataloader_drop_last": True}
        | KTO | {"per_device_train_batch_size": 5},
        "short batches are left out, of evaluations too",
    ),
    "logging_steps": ({"logging_steps": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, ""),
    "data_seed": ({"data_seed": 7}, "the order has its own seed"),
    # Optimizer and schedule.
    "adam": (
        {"adam_beta1": 0.85, "adam_beta2": 0.95, "adam_epsilon": 1e-4, "weight_decay": 0.3, "max_grad_norm": 0.0},
        "betas, epsilon, weight decay, no clipping",
    ),
    "clip": ({"max_grad_norm": 0.05, "adam_epsilon": 1e-3}, "clipping that Adam cannot undo"),
    "cosine": (
        model("qwen3") | {"lr_scheduler_type": "cosine", "warmup_steps": 5, "weight_decay": 0.1},
        "warm-up from 0; no decay of norms",
    ),
    "cosine_biases": (
        model("llama-linear") | {"lr_scheduler_type": "cosine", "warmup_steps": 0.12, "weight_decay": 0.1},
        "warm-up as a share of the steps; no decay of biases",
    ),
    "cosine_with_min_lr": (
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "warmup_steps": 3},
        "",
    ),
    "constant_with_warmup": ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 4}, ""),
    "constant": ({"lr_scheduler_type": "constant"}, ""),
    # Reference and evaluation.
    "ref_model": ({"ref_model_name_or_path": "models/llama-ref"}, "a reference with other weights"),
    "precompute": (EVAL | {"precompute_ref_log_probs": True}, "reference scores computed once, before training"),
    "sync_ref": ({"sync_ref_model": True, "ref_model_sync_steps": 4, "ref_model_mixup_alpha": 0.6}, ""),
    "eval": (EVAL | {"eval_on_start": True}, "evaluation before step 1, every 6 steps, and after the last"),
    "eval_epoch": (EVAL | {"eval_strategy": "epoch", "loss_type": ["ipo", "sft"]}, "evaluation after each epoch"),
    # Rows and tokens.
    "implicit": ({"train_dataset": "data/implicit.jsonl"}, "the prompt is the common prefix"),
    "no_truncation": ({"max_length": None}, ""),
    "chat": (model("qwen3") | {"train_dataset": "data/chat.jsonl", "max_length": 128}, "ChatML template"),
    "edge": ({"train_dataset": "data/edge.jsonl"}, "empty prompt, equal completions, one-sided merges"),
    "edge_ipo": ({"train_dataset": "data/edge.jsonl", "loss_type": "ipo"}, "an unscored first token counts in |y|"),
}
