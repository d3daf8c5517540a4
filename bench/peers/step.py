#!/usr/bin/env python3
"""One optimizer step of DPO: cudpo, TRL and torchtune side by side, on CPU threads or on a GPU.

    python3 -m venv venv && venv/bin/pip install -r bench/peers/requirements.txt       # -gpu.txt on a GPU
    cmake --workflow --preset demo
    venv/bin/python bench/peers/step.py                              # small models, on the CPU
    venv/bin/python bench/peers/step.py --shapes v4096 --json step.json
    venv/bin/python bench/peers/step.py --device cuda --cudpo build-cuda/cudpo --shapes Qwen2.5-0.5B --lengths lognormal
    venv/bin/python bench/peers/step.py --short                      # whether everything here works

All are given the same folder (random weights, a BPE tokenizer), the same pairs in the same order, the same
loss, learning rates and number of threads, and run in turn, each in a process of its own. Peers that can't be
imported are listed with the reason. Settings of TRL: the head of trl_peer.py; of torchtune: torchtune_peer.py.

Losses and log-probs of each peer are compared with cudpo's step by step, before a figure of its is printed: where
a loss differs by more than 1e-4 in fp32 or 1e-3 in bf16, or a log-prob by as large a share, the row has no ratio
and the script fails. On a GPU all train a tiny model in fp32 first, and whoever computes another loss there is not measured.

What is measured, for each peer in the same way:
  ms/step    wall clock from the end of one step to the end of the next (data, both models, loss, backward,
             clipping, AdamW, logging), the first ones left out. Of a run the median where all pairs have the
             same lengths, else the mean; of several runs the least, because what disturbs a run only ever
             adds to it. The ratio is over the steps that both have done.
  peak MB    on a CPU the largest resident set of the process, as the kernel accounts it, from start to exit.
             On a GPU what NVML says is in use on it, at its most, less what was in use before: the same
             for all, and with all that a process reserves. Nothing else may run there. The JSON has
             torch.cuda.max_memory_allocated and _reserved beside it, and the resident set.
  one MB is 1e6 bytes.

--lengths is PROMPT CHOSEN REJECTED, or `lognormal` (means 300, 400 and 360, --cv), or a file of JSON lines
with prompt, chosen and rejected, each a number of tokens or a text, of which four bytes count as one token.
Equal lengths are the case that suits a trainer that pads best.
"""

import argparse
import importlib.util
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import inputs
import machine
import measure
import table

REPO = Path(__file__).resolve().parents[2]
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
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "tokenizers", "liger-kernel", "flash-attn")
PACKAGES += ("torchtune", "torchao")
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-3}  # of a loss in nats; of a log-prob as a share


class Absent(Exception):
    """A row that can't be had; the text says why."""


# ---------------------------------------------------------------------------------------- one run


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
            "told": common | ({"precompute_ref_log_probs": reference == "precomputed"} if program == "trl" else {}),
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


# ------------------------------------------------------------------------------------ comparison


def apart(a, b):
    """Largest difference of the losses, and of the log-probs as a share, over the steps that both have."""
    loss = max(abs(x - y) for x, y in zip(a["loss"], b["loss"]))
    keys = ("logps/chosen", "logps/rejected")
    logps = max(abs(x - y) / abs(y) for key in keys for x, y in zip(a[key], b[key]))
    return loss, logps


def agree(difference, precision):
    return all(d <= TOLERANCE[precision] for d in difference)  # a NaN does not


def milliseconds(options, runs, steps=None):
    """Of the best run; of its first `steps` steps."""
    average = statistics.median if options.lengths.fixed else statistics.fmean
    cut = [run["seconds"][:steps] for run in runs]
    return 1000 * min(average(seconds[options.warmup - 1 :] or seconds[-1:]) for seconds in cut)


def summary(options, case, name, runs, reference_runs, base_runs):
    """A row of the table. reference_runs: whose losses it is compared with; base_runs: whose time."""
    first = runs[0]
    row = case | {
        "peer": name,
        "reference": PEERS[name][2],
        "setting": first.get("setting") or setting_of_cudpo(options, case["precision"]),
        "steps": 1 + min(len(r["seconds"]) for r in runs),
        "cut_short": any(r["cut_short"] for r in runs),
        "ms": milliseconds(options, runs),
        "memory": "NVML" if first["device_mb"] is not None else "resident set",
    }
    row["pairs_per_s"] = 1000 * options.batch * options.accumulate / row["ms"]
    row["tokens_per_s"] = row["pairs_per_s"] * case["tokens"] / case["pairs"]  # each prompt once
    row["peak_mb"] = min(peak(r) for r in runs)
    for key in ("imports_mb", "torch_allocated_mb", "torch_reserved_mb", "attention", "optim"):
        if key in first:
            row[key] = first[key]
    if reference_runs and reference_runs is not runs:
        pairs = [apart(a, b) for a, b in zip(runs, reference_runs)]
        row["loss_difference"] = max(p[0] for p in pairs)
        row["logps_difference"] = max(p[1] for p in pairs)
        row["agrees"] = all(agree(p, case["precision"]) for p in pairs)
    if base_runs and base_runs is not runs and row.get("agrees"):
        both = min(len(r["seconds"]) for r in runs + base_runs)
        row["cudpo_speedup"] = milliseconds(options, runs, both) / milliseconds(options, base_runs, both)
        row["cudpo_memory_share"] = min(peak(r) for r in base_runs) / row["peak_mb"]
    row["runs"] = runs
    return row


def setting_of_cudpo(options, precision):
    said = ["fp32" if precision == "fp32" else "bf16"]
    return ", ".join(said + [f"{key} {json.dumps(value)}" for key, value in options.cudpo_keys.items()])


def peak(run):
    return run["device_mb"] if run["device_mb"] is not None else run["peak_mb"]


# ---------------------------------------------------------------------------------------- the table


class Report:
    """The document, written again whenever it changes, so that what is on disk is always whole."""

    def __init__(self, path, head):
        self.path, self.document = path, head | {"rows": []}
        self.write()

    def put(self, row):
        key = [row[k] for k in ("shape", "lengths", "peer")]
        rows = [r for r in self.document["rows"] if [r[k] for k in ("shape", "lengths", "peer")] != key]
        self.document["rows"] = rows + [row]
        self.write()

    def write(self):
        if self.path:
            part = Path(f"{self.path}.part")
            part.write_text(json.dumps(self.document, indent=1) + "\n")
            os.replace(part, self.path)


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


def agreement(options, reasons, scratch):
    """On a GPU: whether all compute the same, of a tiny model in fp32; the others are not measured."""
    folder = scratch / "agreement"
    lengths = inputs.Lengths(["48", "24", "20"])
    steps = 4
    inputs.build(folder, inputs.SHAPES["tiny"], lengths, options.batch * options.accumulate * steps)
    common, first, told_of = told(options, steps, 1e-4), None, {}
    for name in [n for n in options.peers if reasons[n] is None]:
        try:
            now = run(options, name, folder, common, "fp32")
        except Absent as why:
            reasons[name] = f"a tiny model in fp32: {why}"
            continue
        first = first or now
        told_of[name] = apart(now, first)
        if not agree(told_of[name], "fp32"):
            reasons[name] = f"computes another loss: {told_of[name][0]:.1e} apart in fp32"
            options.failures.append(f"{name} {reasons[name]}")
        print(f"{name}: {told_of[name][0]:.0e} of a loss and {told_of[name][1]:.0e} of a log-prob apart in fp32", flush=True)
    return {name: {"loss": d[0], "logps": d[1]} for name, d in told_of.items()}


def measure_case(options, shape, reasons, scratch, report):
    """All peers on a shape, `runs` times in turn."""
    folder = scratch / shape
    rows = options.batch * options.accumulate * options.steps
    built = inputs.build(folder, inputs.SHAPES[shape], options.lengths, rows)
    case = {"shape": shape, "lengths": str(options.lengths), "precision": options.precision} | built
    common = told(options, options.steps, options.learning_rate)
    runs = {}
    for turn in range(options.runs):
        for name in options.peers:
            program, _, reference = PEERS[name]
            try:
                if reasons[name]:
                    raise Absent(reasons[name])
                if options.left() < 10:
                    raise Absent("no time was left")
                runs.setdefault(name, []).append(run(options, name, folder, common, options.precision))
            except Absent as why:
                if turn == 0:
                    row = case | {"peer": name, "reference": reference, "absent": str(why)}
                    report.put(row)
                    table.print_row(row)
                continue
            base = runs.get("cudpo" if reference == "resident" else "cudpo-precomputed")
            compared = runs.get("cudpo") or runs.get("cudpo-precomputed") or next(iter(runs.values()))
            row = summary(options, case, name, runs[name], compared, base)
            report.put(row)
            if turn == options.runs - 1:
                table.print_row(row)


def verdict(options, rows):
    """What makes the whole fail."""
    failures = list(options.failures)
    measured = [row for row in rows if "absent" not in row]
    if not measured:
        failures.append("nothing was measured")
    for row in measured:
        what = f"{row['shape']}, {row['lengths']}: {row['peer']}"
        for key in ("ms", "pairs_per_s", "peak_mb"):
            if not (math.isfinite(row[key]) and row[key] > 0):
                failures.append(f"{what} has {key} {row[key]}")
        if not row.get("agrees", True):
            failures.append(f"{what} is {row['loss_difference']:.1e} apart in loss, {row['logps_difference']:.1e} in log-probs")
    for name in options.require:
        absent = [row for row in rows if row["peer"] == name and "absent" in row]
        if absent or name not in [row["peer"] for row in rows]:
            failures.append(f"{name} is absent: {absent[0]['absent'] if absent else 'not asked for'}")
    return failures


def main(options):
    started = time.monotonic()
    options.left = lambda: options.budget - (time.monotonic() - started)
    options.failures = []
    reasons, versions = peers_that_run(options)
    head = {
        "kind": "peers",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": machine.commit(REPO),
        "command": " ".join(["bench/peers/step.py", *sys.argv[1:]]),
        "machine": machine.facts(options.device),
        "versions": versions,
        "threads": options.threads,
        "batch": options.batch,
        "accumulate": options.accumulate,
        "learning_rate": options.learning_rate,
        "lengths": options.lengths.facts(),
        "shapes": {name: inputs.SHAPES[name] for name in options.shapes},
    }
    report = Report(options.json, head)
    pairs = options.batch * options.accumulate
    print(f"{pairs} pairs a step, {options.lengths} tokens, {options.precision}, {table.where(head)}")
    print(", ".join(f"{k} {v}" for k, v in versions.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="cudpo-step-", dir=options.scratch) as scratch:
        if options.device == "cuda" and not options.short:
            report.document["agreement_fp32"] = agreement(options, reasons, Path(scratch))
            report.write()
        table.print_head()
        for shape in options.shapes:
            measure_case(options, shape, reasons, Path(scratch), report)
    failures = verdict(options, report.document["rows"])
    report.document["failures"] = failures
    report.write()
    for failure in failures:
        print(f"step.py: {failure}", file=sys.stderr)
    return 1 if failures else 0


def parse(arguments=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--shapes", nargs="+", choices=inputs.SHAPES, help="default: the small ones on a CPU, 0.5B and 1B on a GPU")
    p.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    p.add_argument("--require", nargs="*", choices=PEERS, default=[], help="fail where one of these is absent")
    p.add_argument("--lengths", nargs="+", help="default: 256 128 128 on a CPU, 512 512 512 on a GPU")
    p.add_argument("--cv", nargs=2, type=float, default=(0.75, 0.65), help="of lognormal lengths: of prompts, of completions")
    p.add_argument("--precision", choices=TOLERANCE, help="default: fp32 on a CPU, bf16 on a GPU")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=8, help="pairs of a batch")
    p.add_argument("--accumulate", type=int, help="batches of a step; default: 1 on a CPU, 4 on a GPU")
    p.add_argument("--learning_rate", type=float, help="default: 1e-4 in fp32, TRL's 1e-6 in bf16")
    p.add_argument("--steps", type=int, help="default: 6 on a CPU, 10 on a GPU")
    p.add_argument("--warmup", type=int, help="steps left out; default: 1 on a CPU, 3 on a GPU")
    p.add_argument("--runs", type=int, help="of each peer, in turn; default: 2 on a CPU, 1 on a GPU")
    p.add_argument("--seconds", type=float, help="of a run, at most; default: 3600 on a CPU, 90 on a GPU")
    p.add_argument("--budget", type=float, default=86400, help="seconds of everything, at most")
    p.add_argument("--cudpo", help="the program; default: build/cudpo, on a GPU build-cuda/cudpo")
    p.add_argument("--cudpo_keys", type=json.loads, default={}, help="more of cudpo's keys, as a JSON object")
    p.add_argument("--scratch", help="folder for models and logs; default: the system's")
    p.add_argument("--json", help="write everything here, after each run")
    p.add_argument("--short", action="store_true", help="a tiny model and few steps: whether it works, no figures")
    options = p.parse_args(arguments)
    cuda = options.device == "cuda"
    if options.short:
        small = dict(shapes=["tiny"], lengths=["48", "24", "24"], batch=4, accumulate=1, steps=4, warmup=1, runs=1)
        for key, value in small.items():
            setattr(options, key, value)
    default = {
        "shapes": ["Qwen2.5-0.5B", "Llama-3.2-1B"] if cuda else [n for n in inputs.SHAPES if n.startswith("v")],
        "lengths": ["512", "512", "512"] if cuda else ["256", "128", "128"],
        "precision": "bf16" if cuda else "fp32",
        "accumulate": 4 if cuda else 1,
        "steps": 10 if cuda else 6,
        "warmup": 3 if cuda else 1,
        "runs": 1 if cuda else 2,
        "seconds": 90 if cuda else 3600,
        "cudpo": str(REPO / ("build-cuda" if cuda else "build") / "cudpo"),
    }
    for key, value in default.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if options.learning_rate is None:
        options.learning_rate = 1e-4 if options.precision == "fp32" else 1e-6
    if options.precision == "bf16" and not cuda:
        p.error("cudpo computes in fp32 on a CPU")
    options.lengths = inputs.Lengths(options.lengths, options.cv)
    return options


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the peer that runs is ended, too
    sys.exit(main(parse()))
