#!/usr/bin/env python3
"""torchtune's recipe full_dpo_distributed as one process: python3 torchtune_peer.py JOB.json, written by step.py.

The recipe is torchtune's own file, unchanged, and does all that is timed: model, FSDP of one rank, both forward
passes, loss, backward, clipping, torch's fused AdamW. From here come the configuration, rows as ids, the
learning rate's schedule and the writer of metrics, for which the recipe has places. bf16 means bf16 weights;
no activation checkpointing; its attention is torch's.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path


def recipe():
    """The recipe's file as a module; the folder refuses to be imported as a package."""
    import torchtune

    path = Path(torchtune.__file__).parents[1] / "recipes" / "full_dpo_distributed.py"
    spec = importlib.util.spec_from_file_location("full_dpo_distributed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tokenizer:
    """All that the recipe asks of one."""

    def __init__(self, pad_id):
        self.pad_id = pad_id


class Rows:
    """ids.jsonl as the recipe wants it; prompt tokens are no labels."""

    def __init__(self, path, tokenizer=None):
        self.rows = [json.loads(line) for line in Path(path).read_text().splitlines()]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row, item = self.rows[index], {}
        for side in ("chosen", "rejected"):
            item[f"{side}_input_ids"] = row["prompt"] + row[side]
            item[f"{side}_labels"] = [-100] * len(row["prompt"]) + row[side]
        return item


def linear(optimizer, num_training_steps, last_epoch):
    """As transformers' linear schedule without warm-up."""
    from torch.optim.lr_scheduler import LambdaLR

    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / num_training_steps), last_epoch)


class Writer:
    """Takes what the recipe logs at the end of a step."""

    def __init__(self, progress):
        self.out = open(progress, "w")

    def tell(self, **fields):
        self.out.write(json.dumps(fields) + "\n")
        self.out.flush()

    def log_config(self, config):
        pass

    def log_dict(self, logged, step):
        said = {"time": time.monotonic(), "loss": float(logged["loss"])}
        said["logps/chosen"] = float(logged["log_probs/chosen"])
        said["logps/rejected"] = float(logged["log_probs/rejected"])
        self.tell(**said)

    def close(self):
        pass


def model_of(config):
    """torchtune's builder for a config.json."""
    own = {
        "vocab_size": config["vocab_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config["num_key_value_heads"],
        "embed_dim": config["hidden_size"],
        "max_seq_len": 2048,
        "intermediate_dim": config["intermediate_size"],
        "norm_eps": config["rms_norm_eps"],
        "rope_base": int(config["rope_parameters"]["rope_theta"]),
    }
    rope = config["rope_parameters"]
    if config["model_type"] == "qwen2":
        own |= {
            "_component_": "torchtune.models.qwen2.qwen2",
            "tie_word_embeddings": config["tie_word_embeddings"],
        }
        return own, "QWEN2"
    if config["tie_word_embeddings"]:
        if rope["rope_type"] != "llama3":
            raise SystemExit("torchtune has no Llama with tied embeddings and plain rotation")
        own |= {"_component_": "torchtune.models.llama3_2.llama3_2", "scale_factor": int(rope["factor"])}
        return own, "LLAMA3_2"
    if rope["rope_type"] == "llama3":
        own |= {"_component_": "torchtune.models.llama3_1.llama3_1", "scale_factor": int(rope["factor"])}
    else:
        own |= {"_component_": "torchtune.models.llama3.llama3"}
    return own, "LLAMA3"


def configuration(job):
    told = job["told"]
    config = json.loads((Path(job["model"]) / "config.json").read_text())
    model, kind = model_of(config)
    checkpointer = {
        "_component_": "torchtune.training.FullModelHFCheckpointer",
        "checkpoint_dir": job["model"],
        "checkpoint_files": ["model.safetensors"],
        "recipe_checkpoint": None,
        "output_dir": job["output"],
        "model_type": kind,
    }
    here = Path(__file__).stem
    return {
        "output_dir": job["output"],
        "model": model,
        "tokenizer": {"_component_": f"{here}.Tokenizer", "pad_id": config["pad_token_id"]},
        "checkpointer": checkpointer,
        "ref_checkpointer": checkpointer,
        "resume_from_checkpoint": False,
        "dataset": {"_component_": f"{here}.Rows", "path": job["ids"]},
        "seed": told["seed"],
        "shuffle": False,
        "batch_size": told["per_device_train_batch_size"],
        "optimizer": {
            "_component_": "torch.optim.AdamW",
            "fused": True,
            "lr": told["learning_rate"],
            "weight_decay": 0.0,
        },
        "lr_scheduler": {"_component_": f"{here}.linear"},
        "loss": {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": told["beta"], "label_smoothing": 0.0},
        "epochs": 1,
        "max_steps_per_epoch": told["max_steps"],
        "gradient_accumulation_steps": told["gradient_accumulation_steps"],
        "clip_grad_norm": 1.0,
        "compile": False,
        "metric_logger": {"_component_": f"{here}.Writer", "progress": job["progress"]},
        "log_every_n_steps": 1,
        "log_peak_memory_stats": False,
        "device": job["device"],
        "dtype": job["precision"],
        "enable_activation_checkpointing": False,
        "enable_activation_offloading": False,
    }


def run(job):
    import resource

    import torch
    from omegaconf import OmegaConf

    if job["device"] == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU")
    module = recipe()
    imports_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.set_num_threads(job["threads"])
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    store = torch.distributed.FileStore(job["output"] + ".store", 1)
    backend = "cuda:nccl,cpu:gloo" if job["device"] == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    config = OmegaConf.create(configuration(job))
    if job["device"] == "cpu":  # where the recipe asks for figures of the GPU's memory, or to empty its cache
        module.training.get_memory_stats = lambda device: {}
        module.training.log_memory_stats = lambda stats: None
        module.training.cleanup_before_training = lambda: None
    work = module.FullDPORecipeDistributed(cfg=config)
    work.save_checkpoint = lambda epoch: None  # nothing is saved by any peer
    work.setup(cfg=config)
    facts = {"imports_mb": imports_kb * 1024 / 1e6, "optim": "torch.optim.AdamW, fused", "attention": "sdpa"}
    facts["setting"] = ("fp32" if job["precision"] == "fp32" else "bf16 weights") + ", no checkpointing, SDPA"
    work._metric_logger.tell(facts=facts)
    work.train()
    if job["device"] == "cuda":
        facts["torch_allocated_mb"] = torch.cuda.max_memory_allocated() / 1e6
        facts["torch_reserved_mb"] = torch.cuda.max_memory_reserved() / 1e6
        work._metric_logger.tell(facts=facts)
    work.cleanup()


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        run(json.load(source))
