#!/usr/bin/env python3
"""One optimizer step of DPO on CPU threads: cudpo and TRL side by side.

    python3 -m venv venv && venv/bin/pip install -r tests/golden/requirements.txt
    cmake --preset release && cmake --build build --target cudpo
    venv/bin/python bench/peers/step.py                        # every shape, both kinds of reference
    venv/bin/python bench/peers/step.py --shapes v4096 --json step.json

Both programs get the same folder (a random Llama in fp32, a BPE tokenizer), the same file of pairs, the
same configuration and the same number of threads, and run in turn. Both losses are compared step by
step: where they differ by more than 1e-3, the figures mean nothing and the script fails.

What is measured, for each peer in the same way:
  ms/step  wall clock from the end of one step to the end of the next (data, both models, loss, backward,
           clipping, AdamW, logging). The first step is dropped. The median of a run; the least of the
           runs, because what disturbs a run only ever adds to it.
  peak MB  the largest resident set of the process, as the kernel accounts it, from start to exit. For
           TRL, "imports" is what Python and its packages held before the model was loaded.

Nothing is padded for the length of the completions by default (--spread 0): every sequence is as long as
every other, which is the case that suits TRL best. --spread 0.5 draws lengths within 50 % of the mean.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "tokenizers", "numpy")
EOS = "<|endoftext|>"
TOLERANCE = 1e-3  # of a loss, in nats
MODES = {"resident": False, "precomputed": True}  # the reference: precompute_ref_log_probs

# The share of the vocabulary decides much: TRL scores prompts too on a CPU, and projects to the
# vocabulary twice. So one shape has almost none (and is wide and shallow, so that matrix products, in
# which no program can be much faster than another, are nearly all of it), one has Llama 2's, two are
# between.
SHAPES = {
    "v1024": dict(hidden=640, layers=4, heads=10, kv=10, ffn=1760, vocab=1024, tied=False),
    "v4096": dict(hidden=512, layers=6, heads=8, kv=8, ffn=1408, vocab=4096, tied=False),
    "v12288": dict(hidden=384, layers=8, heads=6, kv=2, ffn=1056, vocab=12288, tied=False),
    "v32000": dict(hidden=384, layers=8, heads=6, kv=6, ffn=1056, vocab=32000, tied=True),
}


# --------------------------------------------------------------------------------------- inputs


def make_words(rng, count):
    """Invented words, the frequent ones first."""
    onsets = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr pl sh st th tr".split()
    vowels = "a e i o u ai ea ou".split()
    ends = ["", "", "n", "r", "s", "t", "l", "nd", "st"]
    words = {}
    while len(words) < count:
        syllables = range(rng.choice([1, 2, 2, 3]))
        words["".join(rng.choice(onsets) + rng.choice(vowels) + rng.choice(ends) for _ in syllables)] = None
    return list(words)


def make_tokenizer(folder, vocab, words, weights, rng):
    """Byte-level BPE, trained until it has `vocab` ids or merges run out."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab - 1, initial_alphabet=alphabet, show_progress=False)
    text = (" ".join(rng.choices(words, weights, k=1000)) for _ in range(1500))
    tok.train_from_iterator(text, trainer)
    tok.add_special_tokens([AddedToken(EOS, normalized=False)])
    tok.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": EOS,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tok


def make_text(tok, rng, words, weights, tokens, lead=""):
    """Text of exactly `tokens` tokens, which starts with `lead` and ends with a word's end."""
    while True:
        text = lead + " ".join(rng.choices(words, weights, k=tokens))
        encoding = tok.encode(text)
        cut = text[: encoding.offsets[tokens - 1][1]]
        if len(tok.encode(cut).ids) == tokens:
            return cut


def build(folder, shape, lengths, spread, rows):
    """Write model/ and pairs.jsonl into the folder; returns how many parameters the model has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    rng = random.Random(1)
    words = make_words(rng, 2 * shape["vocab"])
    weights = [1 / (rank + 10) for rank in range(len(words))]  # as Zipf has it
    model_folder = folder / "model"
    model_folder.mkdir()
    tok = make_tokenizer(model_folder, shape["vocab"], words, weights, rng)

    def length(mean):
        return round(mean * (1 + spread * rng.uniform(-1, 1)))

    with open(folder / "pairs.jsonl", "w", encoding="utf-8") as out:
        for _ in range(rows):
            row = {"prompt": make_text(tok, rng, words, weights, length(lengths[0]))}
            for side, mean in (("chosen", lengths[1]), ("rejected", lengths[2])):
                row[side] = make_text(tok, rng, words, weights, length(mean) - 1, " ")  # and the EOS
            assert tok.encode(row["prompt"] + row["chosen"]).ids[: len(tok.encode(row["prompt"]).ids)]
            out.write(json.dumps(row) + "\n")

    torch.manual_seed(0)
    eos = tok.token_to_id(EOS)
    config = LlamaConfig(
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv"],
        intermediate_size=shape["ffn"],
        vocab_size=shape["vocab"],
        tie_word_embeddings=shape["tied"],
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    model = LlamaForCausalLM(config).float()
    model.save_pretrained(model_folder)
    return sum(p.numel() for p in model.parameters())


def configuration(folder, steps, batch, precompute):
    """What both are told; every key is TRL's, but for the three paths."""
    return {
        "model_name_or_path": str(folder / "model"),
        "train_dataset": str(folder / "pairs.jsonl"),
        "loss_type": "sigmoid",
        "beta": 0.1,
        "max_length": 2048,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "linear",
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "precompute_ref_log_probs": precompute,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 42,
    }


# ------------------------------------------------------------------------------------- the peers


def run_trl(config, threads, output, result):
    """In a process of its own: train, and write down losses, gradient norms, times."""
    import resource

    import datasets
    import torch
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    imports_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = Path(output) / "cache"

    class Clock(TrainerCallback):
        ends = []

        def on_step_end(self, *args, **kwargs):
            self.ends.append(time.monotonic())

    paths = ("model_name_or_path", "train_dataset")
    arguments = {k: v for k, v in config.items() if k not in paths}
    args = DPOConfig(
        output_dir=output,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
        **arguments,
    )
    trainer = DPOTrainer(
        config["model_name_or_path"],
        args=args,
        train_dataset=datasets.load_dataset("json", data_files=config["train_dataset"], split="train"),
        processing_class=AutoTokenizer.from_pretrained(config["model_name_or_path"]),
        callbacks=[Clock()],
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    Path(result).write_text(
        json.dumps(
            {
                "imports_mb": imports_kb / 1024,
                "seconds": [b - a for a, b in zip(Clock.ends, Clock.ends[1:])],
                "loss": [float(entry["loss"]) for entry in logged],
                "grad_norm": [float(entry["grad_norm"]) for entry in logged],
                "attention": trainer.model.config._attn_implementation,
                "optim": str(trainer.args.optim.value),
            }
        )
    )


def spawn(command, threads, log):
    """Run a command to its end; returns its peak resident set in MB.

    This process must stay small: a child starts with the resident set of its parent.
    """
    settings = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    settings |= {
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TQDM_DISABLE": "1",
        "XDG_CACHE_HOME": str(log.parent),
    }
    with open(log, "wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | settings)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.stderr.write(log.read_text(errors="replace")[-4000:])
        raise SystemExit(f"{command[0]} failed with exit code {child.returncode}")
    return usage.ru_maxrss / 1024


def peer_trl(folder, config_file, threads):
    result = folder / "trl.json"
    command = [sys.executable, __file__, "--as-trl", str(config_file), str(result), "--threads", str(threads)]
    peak = spawn(command, threads, folder / "trl.log")
    return json.loads(result.read_text()) | {"peak_mb": peak}


def peer_cudpo(program, folder, config_file, threads):
    peak = spawn([str(program), "train", str(config_file)], threads, folder / "cudpo.log")
    lines = (folder / "out" / "metrics.jsonl").read_text().splitlines()
    logged = [entry for entry in map(json.loads, lines) if "loss" in entry]
    ends = [entry["time"] for entry in logged]
    return {
        "seconds": [b - a for a, b in zip(ends, ends[1:])],
        "loss": [entry["loss"] for entry in logged],
        "grad_norm": [entry["grad_norm"] for entry in logged],
        "peak_mb": peak,
    }


# ------------------------------------------------------------------------------------ comparison


def compare(trl, cudpo):
    """The largest difference between the losses; stops the script where it is too large."""
    if len(trl["loss"]) != len(cudpo["loss"]):
        raise SystemExit(f"TRL logged {len(trl['loss'])} steps, cudpo {len(cudpo['loss'])}")
    worst = max(abs(a - b) for a, b in zip(trl["loss"], cudpo["loss"]))
    if not worst <= TOLERANCE:
        raise SystemExit(f"the losses differ by {worst:.2e}:\n  TRL   {trl['loss']}\n  cudpo {cudpo['loss']}")
    return worst


def best(runs):
    """Median step and peak of the best run."""
    return {
        "ms": 1000 * min(statistics.median(run["seconds"]) for run in runs),
        "peak_mb": min(run["peak_mb"] for run in runs),
        "loss": runs[0]["loss"],
    }


def measure(options, shape_name, mode, folder):
    runs = {"trl": [], "cudpo": []}
    for _ in range(options.runs):
        for peer in runs:
            config = configuration(folder, options.steps, options.batch, MODES[mode])
            config["overwrite_output_dir"] = True
            config["output_dir"] = str(folder / "out")
            config_file = folder / "config.json"
            config_file.write_text(json.dumps(config))
            if peer == "trl":
                runs[peer].append(peer_trl(folder, config_file, options.threads))
            else:
                runs[peer].append(peer_cudpo(options.cudpo, folder, config_file, options.threads))
    worst = max(compare(a, b) for a, b in zip(runs["trl"], runs["cudpo"]))
    trl, cudpo = best(runs["trl"]), best(runs["cudpo"])
    first = runs["trl"][0]
    return {
        "shape": shape_name,
        "reference": mode,
        "trl": trl | {k: first[k] for k in ("imports_mb", "attention", "optim")},
        "cudpo": cudpo,
        "time_ratio": cudpo["ms"] / trl["ms"],
        "memory_ratio": cudpo["peak_mb"] / trl["peak_mb"],
        "loss_difference": worst,
        "runs": runs,
    }


def print_row(r):
    t, c = r["trl"], r["cudpo"]
    print(
        f"{r['shape']:8} {r['reference']:12} {t['ms']:9.0f} {c['ms']:9.0f} {r['time_ratio']:6.2f}"
        f" {t['peak_mb']:9.0f} {c['peak_mb']:9.0f} {r['memory_ratio']:6.2f}"
        f" {t['imports_mb']:9.0f} {r['loss_difference']:9.0e}",
        flush=True,
    )


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main(options):
    versions = {p: version(p) for p in PACKAGES}
    told = subprocess.run([options.cudpo, "--version"], capture_output=True, text=True, check=True).stdout
    versions["cudpo"] = told.strip()
    prompt, chosen, rejected = options.lengths
    print(f"{options.batch} pairs a step, {prompt}+{chosen}+{rejected} tokens, fp32, {options.threads} threads,")
    print(f"{processor()}, {', '.join(f'{k} {v}' for k, v in versions.items())}", flush=True)
    results, sizes = [], {}
    with tempfile.TemporaryDirectory(prefix="cudpo-step-") as scratch:
        for name in options.shapes:
            folder = Path(scratch) / name
            folder.mkdir()
            command = [sys.executable, __file__, "--as-build", name, str(folder)]
            command += ["--lengths", *map(str, options.lengths), "--spread", str(options.spread)]
            command += ["--batch", str(options.batch), "--steps", str(options.steps)]
            spawn(command, options.threads, folder / "build.log")
            sizes[name] = json.loads((folder / "size.json").read_text())
            print(f"{name}: {sizes[name] / 1e6:.1f} M parameters, {SHAPES[name]}", flush=True)
        print(f"\n{'':21} {'ms/step':>19} {'':6} {'peak MB':>19} {'':6} {'MB':>9} {'nats':>9}")
        head = "shape    reference          TRL     cudpo  ratio       TRL     cudpo  ratio   imports     apart"
        print(head, flush=True)
        for name in options.shapes:
            for mode in options.references:
                results.append(measure(options, name, mode, Path(scratch) / name))
                print_row(results[-1])
    if options.json:
        head = {
            "date": time.strftime("%Y-%m-%d"),
            "command": " ".join(["bench/peers/step.py", *sys.argv[1:]]),
            "versions": versions,
            "processor": processor(),
            "threads": options.threads,
            "batch": options.batch,
            "lengths": options.lengths,
            "spread": options.spread,
            "shapes": {n: SHAPES[n] | {"parameters": sizes[n]} for n in options.shapes},
        }
        Path(options.json).write_text(json.dumps(head | {"results": results}, indent=1) + "\n")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    p.add_argument("--references", nargs="+", choices=MODES, default=list(MODES))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=8, help="pairs of a step")
    p.add_argument("--lengths", nargs=3, type=int, default=(256, 128, 128), help="prompt, chosen, rejected")
    p.add_argument("--spread", type=float, default=0.0, help="relative spread of the lengths")
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--runs", type=int, default=2, help="of each peer, in turn")
    p.add_argument("--cudpo", default=str(REPO / "build" / "cudpo"), help="the program")
    p.add_argument("--json", help="write everything here")
    p.add_argument("--as-trl", nargs=2, help=argparse.SUPPRESS)
    p.add_argument("--as-build", nargs=2, help=argparse.SUPPRESS)
    return p.parse_args()


if __name__ == "__main__":
    options = parse()
    if options.as_build:
        name, folder = options.as_build
        rows = options.batch * options.steps
        size = build(Path(folder), SHAPES[name], options.lengths, options.spread, rows)
        (Path(folder) / "size.json").write_text(json.dumps(size))
    elif options.as_trl:
        settings = json.loads(Path(options.as_trl[0]).read_text())
        output = settings.pop("output_dir")
        settings.pop("overwrite_output_dir")
        run_trl(settings, options.threads, output, options.as_trl[1])
    else:
        main(options)
