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
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import inputs
import machine
import table
from peers import PEERS, Absent, peers_that_run, run, told
from rows import TOLERANCE, Report, agree, apart, summary, verdict

REPO = Path(__file__).resolve().parents[2]


def agreement(options, shape, reasons, scratch):
    """On a GPU: whether all compute the same, of a tiny model of this architecture in fp32. Returns how far apart they
    are; who is too far gets a reason and is not measured."""
    folder = scratch / f"tiny-{shape}"
    lengths = inputs.Lengths(["48", "24", "20"])
    steps = 4
    rows = options.batch * options.accumulate * steps
    inputs.build(folder, inputs.tiny_of(inputs.SHAPES[shape]), lengths, rows)
    common, first, found = told(options, steps, 1e-4), None, {}
    for name in [n for n in options.peers if reasons[n] is None]:
        try:
            now = run(options, name, folder, common, "fp32")
        except Absent as why:
            reasons[name] = f"a tiny model in fp32: {why}"
            continue
        first = first or now
        loss, logps = apart(now, first)
        found[name] = {"loss": loss, "logps": logps}
        if not agree((loss, logps), "fp32"):
            reasons[name] = f"computes another loss: {loss:.1e} apart in fp32"
            options.failures.append(f"{shape}: {name} {reasons[name]}")
    said = ", ".join(f"{name} {difference['loss']:.0e}" for name, difference in found.items())
    print(f"losses of a tiny {shape} in fp32 apart: {said}", flush=True)
    return found


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
        for shape in options.shapes:
            reasons_here = dict(reasons)
            if options.device == "cuda" and not options.short:
                found = agreement(options, shape, reasons_here, Path(scratch))
                report.document.setdefault("agreement_fp32", {})[shape] = found
            table.print_head()
            measure_case(options, shape, reasons_here, Path(scratch), report)
    failures = verdict(options, report.document["rows"])
    report.document["failures"] = failures
    report.write()
    for failure in failures:
        print(f"step.py: {failure}", file=sys.stderr)
    return 1 if failures else 0


def parse(arguments=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument(
        "--shapes",
        nargs="+",
        choices=inputs.SHAPES,
        help="default: the small ones on a CPU, 0.5B and 1B on a GPU",
    )
    p.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    p.add_argument(
        "--require", nargs="*", choices=PEERS, default=[], help="fail where one of these is absent"
    )
    p.add_argument("--lengths", nargs="+", help="default: 256 128 128 on a CPU, 512 512 512 on a GPU")
    p.add_argument(
        "--cv",
        nargs=2,
        type=float,
        default=(0.75, 0.65),
        help="of lognormal lengths: of prompts, of completions",
    )
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
    p.add_argument(
        "--short", action="store_true", help="a tiny model and few steps: whether it works, no figures"
    )
    options = p.parse_args(arguments)
    cuda = options.device == "cuda"
    if options.short:
        small = dict(
            shapes=["tiny"], lengths=["48", "24", "24"], batch=4, accumulate=1, steps=4, warmup=1, runs=1
        )
        for key, value in small.items():
            setattr(options, key, value)
    default = {
        "shapes": ["Qwen2.5-0.5B", "Llama-3.2-1B"]
        if cuda
        else [n for n in inputs.SHAPES if n.startswith("v")],
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
