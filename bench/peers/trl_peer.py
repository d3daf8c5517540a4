#!/usr/bin/env python3
"""TRL's DPOTrainer in a process of its own: python3 trl_peer.py JOB.json; JOB.json is written by step.py.

Settings, each a row of the table:
  default      as shipped: gradient checkpointing, fp32 weights, and on a GPU bf16 autocast over them
  tuned        no checkpointing; on a GPU bf16 weights and, as far as they can be imported, Liger's kernels
               and FlashAttention 2. On a CPU it stays in fp32, which is what cudpo computes in there.
  precomputed  tuned, with the reference's log-probs computed beforehand
Writes a line of JSON per step as it ends, so that a run cut short leaves what it had.
"""

import importlib.util
import json
import sys
import time


def fused():
    """Which of the kernels can really be imported, and why not."""
    found = {}
    for name in ("liger_kernel.transformers", "flash_attn"):
        package = name.split(".")[0]
        if importlib.util.find_spec(package) is None:
            found[package] = "not installed"
            continue
        try:
            importlib.import_module(name)
            found[package] = "ok"
        except Exception as error:
            found[package] = f"{type(error).__name__}: {error}"[:200]
    return found


def arguments(job):
    """What DPOConfig gets beyond what all peers are told, and a sentence that says so."""
    cuda, fp32 = job["device"] == "cuda", job["precision"] == "fp32"
    own = {"use_cpu": not cuda, "bf16": False, "gradient_checkpointing": False}
    init = {"dtype": "float32" if fp32 else "bfloat16"}
    said = ["fp32" if fp32 else "bf16 weights", "no checkpointing"]
    if job["setting"] == "default":
        own |= {"gradient_checkpointing": True, "bf16": not fp32}
        init = {"dtype": "float32"}
        said = ["fp32" if fp32 else "fp32 weights, bf16 autocast", "checkpointing"]
    elif cuda and not fp32:
        have = fused()
        own["bf16"] = True
        if have["flash_attn"] == "ok":
            init["attn_implementation"] = "flash_attention_2"
        said.append(
            "FlashAttention 2" if have["flash_attn"] == "ok" else f"SDPA (flash_attn: {have['flash_attn']})"
        )
        own["use_liger_kernel"] = have["liger_kernel"] == "ok"
        said.append("Liger's layers" if own["use_liger_kernel"] else f"no Liger ({have['liger_kernel']})")
    if job["setting"] == "precomputed":
        said.append("log-probs of the reference computed beforehand")
    return own, init, ", ".join(said)


def run(job):
    import resource

    import datasets
    import torch
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    if job["device"] == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU")
    imports_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.set_num_threads(job["threads"])
    datasets.disable_progress_bars()
    progress = open(job["progress"], "w")

    def tell(**fields):
        progress.write(json.dumps(fields) + "\n")
        progress.flush()

    class Clock(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                said = {"time": time.monotonic(), "loss": float(logs["loss"])}
                for key in ("grad_norm", "logps/chosen", "logps/rejected"):
                    said[key] = float(logs[key])
                tell(**said)

    own, init, said = arguments(job)
    config = DPOConfig(
        output_dir=job["output"],
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs=init,
        **own,
        **job["told"],
    )
    trainer = DPOTrainer(
        job["model"],
        args=config,
        train_dataset=datasets.load_dataset(
            "json", data_files=job["pairs"], split="train", cache_dir=job["output"] + "/cache"
        ),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[Clock()],
    )
    facts = {"imports_mb": imports_kb * 1024 / 1e6, "setting": said, "optim": str(config.optim.value)}
    facts["attention"] = trainer.model.config._attn_implementation
    tell(facts=facts)
    trainer.train()
    if job["device"] == "cuda":
        facts["torch_allocated_mb"] = torch.cuda.max_memory_allocated() / 1e6
        facts["torch_reserved_mb"] = torch.cuda.max_memory_reserved() / 1e6
        tell(facts=facts)


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        run(json.load(source))
