"""The peers: what each is told, and one run of one."""

import importlib.util
import json
import sys
from pathlib import Path

import machine
import measure

HERE = Path(__file__).resolve().parent
# name: (program, setting, reference)
PEERS = {
    "cudpo": ("cudpo", "tuned", "resident"),
    "cudpo-precomputed": ("cudpo", "precomputed", "precomputed"),
    "trl-tuned": ("trl", "tuned", "resident"),
    "trl-precomputed": ("trl", "precomputed", "precomputed"),
    "trl-default": ("trl", "default", "resident"),
    "torchtune": ("torchtune", "tuned", "resident"),
}
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "liger-kernel",
    "flash-attn",
)
PACKAGES += ("torchtune", "torchao")


class Absent(Exception):
    """A row that can't be had; the text says why."""


def peers_that_run(options):
    """{name: reason why it can't run, or None} and the versions of all programs. Nothing is imported here."""
    reasons, versions = {}, {}
    for name in options.peers:
        program = PEERS[name][0]
        if program == "cudpo":
            told_of = machine.said(options.cudpo, "--version")
            versions["cudpo"] = (told_of or "absent").removeprefix("cudpo ")
            reasons[name] = None if told_of else f"{options.cudpo} does not run"
        else:
            needed = (program, "torch")
            lacking = [package for package in needed if importlib.util.find_spec(package) is None]
            versions |= machine.versions(PACKAGES)
            reasons[name] = f"no {lacking[0]} in this Python" if lacking else None
    return reasons, versions


def told(options, steps, learning_rate):
    """What all are told; every key is TRL's."""
    return {
        "loss_type": "sigmoid",
        "beta": 0.1,
        "max_length": 2048,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "linear",
        "max_steps": steps,
        "per_device_train_batch_size": options.batch,
        "gradient_accumulation_steps": options.accumulate,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 42,
    }


def cudpo_config(options, folder, common, precision, setting):
    own = {
        "model_name_or_path": str(folder / "model"),
        "train_dataset": str(folder / "pairs.jsonl"),
        "output_dir": str(folder / "out"),
        "overwrite_output_dir": True,
        "device": options.device,
        "gradient_checkpointing": False,
        "precompute_ref_log_probs": setting == "precomputed",
    }
    if options.device == "cuda":
        own["bf16"] = precision == "bf16"
    return common | own | options.cudpo_keys


def lines_of(path):
    """The whole lines of a file that may have been cut short."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


def run(options, name, folder, common, precision):
    """Run a peer once: facts, seconds of each step but the first, losses. Raises Absent."""
    program, setting, reference = PEERS[name]
    progress, job_file = folder / f"{name}.jsonl", folder / f"{name}.json"
    if program == "cudpo":
        progress = folder / "out" / "metrics.jsonl"
        job_file.write_text(json.dumps(cudpo_config(options, folder, common, precision, setting)))
        command = [options.cudpo, "train", job_file]
    else:
        job = {
            "device": options.device,
            "precision": precision,
            "setting": setting,
            "threads": options.threads,
            "progress": str(progress),
            "output": str(folder / f"{name}.out"),
            "model": str(folder / "model"),
            "pairs": str(folder / "pairs.jsonl"),
            "ids": str(folder / "ids.jsonl"),
            "told": common
            | ({"precompute_ref_log_probs": reference == "precomputed"} if program == "trl" else {}),
        }
        job_file.write_text(json.dumps(job))
        command = [sys.executable, HERE / f"{program}_peer.py", job_file]
    progress.unlink(missing_ok=True)
    seconds = min(options.seconds, options.left())
    done = measure.spawn(command, options.device, options.threads, folder / f"{name}.log", seconds)
    lines = lines_of(progress)
    steps = [line for line in lines if "loss" in line]
    if len(steps) < 2 or done.code not in (0, None):
        raise Absent(done.reason())
    result = {"cut_short": done.code is None, "peak_mb": done.peak_mb, "device_mb": done.device_mb}
    for line in lines:
        result |= line.get("facts", {})
    ends = [step["time"] for step in steps]
    result["seconds"] = [b - a for a, b in zip(ends, ends[1:])]
    for key in ("loss", "grad_norm", "logps/chosen", "logps/rejected"):
        result[key] = [step[key] for step in steps if key in step]
    return result
