#!/usr/bin/env python3
"""The stages of bench/gpu.sh: runs each within its budget, and writes the results after each.

    bench/gpu_stages.py [--out FOLDER] [--total SECONDS] [--only NAME ...] [--dry-run] [--stages FILE]

A stage that fails, hangs or finds no time is noted, and the next one begins. FILE holds other stages, as JSON:
that is how the tests run this without a GPU. The standard library alone is needed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu_report

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "bench" / "peers"))

import machine  # noqa: E402

TOTAL = 520  # seconds
SHORT_LIST = ("token_logprob", "preference_loss", "rmsnorm", "swiglu", "rope", "adamw")
# Longer than any budget: these start compute-sanitizer themselves, or train for minutes.
SLOW_TESTS = "_(mem|race|init|sync)check|test_cuda_large"


def sanitizer(tool):
    """Each of the short list under a tool; a line each."""
    script = f"""bad=0
for t in {" ".join(SHORT_LIST)}; do
    timeout 40 compute-sanitizer --tool {tool} --error-exitcode 9 build-cuda/tests/test_"$t"_gpu >"$0/$t.log" 2>&1
    code=$?
    case $code in
        0) echo "test_$t: clean" ;;
        124) echo "test_$t: not finished" ;;
        *) echo "test_$t: FAILED with $code"; tail -5 "$0/$t.log"; bad=1 ;;
    esac
done
exit $bad"""
    return ["bash", "-c", script, "{work}"]


def step(model, **keys):
    """cudpo bench step of a model."""
    more = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    return ["build-cuda/cudpo", "bench", "step", model, "--device", "cuda", *more, "--json", "{json}"]


def peers(model, *more):
    return [
        sys.executable,
        "bench/peers/step.py",
        "--device",
        "cuda",
        "--shapes",
        model,
        *more,
        "--budget",
        "{left}",
        "--json",
        "{json}",
    ]


def stages(capability):
    """In the order of what matters most. {json}: where the stage leaves its results; {left}: its seconds."""
    architecture = [f"-DCMAKE_CUDA_ARCHITECTURES={capability.replace('.', '')}-real"] if capability else []
    build = f"cmake --preset cuda {' '.join(architecture)} && cmake --build --preset cuda"
    pack = {"per_device_train_batch_size": 32}
    cached = pack | {"precompute_ref_log_probs": "true"}
    fits = cached | {"gradient_dtype": "bfloat16", "master_weights": "false", "steps": 3}
    kernels = ["build-cuda/cudpo", "bench", "--device", "cuda", "--seconds", "0.05", "--json", "{json}"]
    table = [
        ("build", 150, ["bash", "-c", build]),
        ("step Qwen2.5-0.5B", 25, step("Qwen2.5-0.5B", **pack)),
        ("step Qwen2.5-0.5B, cached", 25, step("Qwen2.5-0.5B", **cached)),
        (
            "tests",
            90,
            [
                "ctest",
                "--test-dir",
                "build-cuda",
                "-L",
                "gpu",
                "-E",
                SLOW_TESTS,
                "-j",
                "4",
                "--timeout",
                "60",
            ],
        ),
        ("kernels", 50, kernels),
        ("peers Qwen2.5-0.5B", 110, peers("Qwen2.5-0.5B")),
        ("step Llama-3.2-1B", 30, step("Llama-3.2-1B", **pack)),
        ("step Llama-3.2-1B, cached", 30, step("Llama-3.2-1B", **cached)),
        ("step Llama-3.1-8B, cached", 50, step("Llama-3.1-8B", **fits)),
        ("memcheck", 40, sanitizer("memcheck")),
        ("peers Qwen2.5-0.5B, lognormal", 90, peers("Qwen2.5-0.5B", "--lengths", "lognormal")),
        ("racecheck", 40, sanitizer("racecheck")),
        ("peers Llama-3.2-1B", 120, peers("Llama-3.2-1B")),
    ]
    plans = [{"name": name, "budget": budget, "command": command} for name, budget, command in table]
    for plan in plans:
        if plan["name"] in ("memcheck", "racecheck"):
            plan["needs"] = "compute-sanitizer"
    return plans


# ------------------------------------------------------------------------------------- one stage


def filled(command, values):
    """{json}, {left} and {work} of a command replaced."""
    words = []
    for word in command:
        for key, value in values.items():
            word = word.replace("{" + key + "}", str(value))
        words.append(word)
    return words


def wait(child, seconds):
    """Exit status, or None where its time was up; all of its processes are gone then."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        stop(child)
        return None


def stop(child):
    """SIGTERM to the group, and SIGKILL where that does not end it."""
    for sent, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
        try:
            os.killpg(child.pid, sent)
            child.wait(patience)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    child.poll()


def read_json(path):
    """What a stage left, if it is whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def tests_of(log):
    """What ctest or the sanitizer's loop said, also where it was cut short."""
    counts = {
        "passed": len(re.findall(r"\.\.\. +Passed", log)),
        "skipped": len(re.findall(r"\*\*\*Skipped", log)),
    }
    failed = re.findall(r"Test +#\d+: (\S+) \.+\*+(?!Skipped)(\w+)", log)
    counts["failed"] = [f"{name} ({how})" for name, how in failed]
    each = dict(re.findall(r"^(test_\w+): (clean|not finished|FAILED.*)$", log, re.M))
    return {"each": each} if each else counts


class Run:
    def __init__(self, options, document):
        self.options, self.document = options, document
        self.started, self.child, self.stage = time.monotonic() - options.spent, None, None
        self.work = Path(options.out) / "logs"
        self.work.mkdir(parents=True, exist_ok=True)

    def left(self):
        return self.options.total - (time.monotonic() - self.started)

    def write(self):
        gpu_report.write(self.options.file, self.document)

    def collect(self, stage, log, results):
        """What the stage has left so far."""
        text = log.read_text(errors="replace") if log.exists() else ""
        stage["result"] = read_json(results)
        if stage["result"] is None and re.search(r"\.\.\. +Passed|\*\*\*|^test_\w+: ", text, re.M):
            stage["result"] = {"tests": tests_of(text)}
        if stage["status"] != "ok":
            stage["tail"] = text[-1500:]

    def one(self, plan):
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", plan["name"])
        log, results = self.work / f"{slug}.log", self.work / f"{slug}.json"
        results.unlink(missing_ok=True)
        budget = min(plan["budget"], self.left())
        stage = {"name": plan["name"], "budget": plan["budget"], "status": "running", "seconds": 0}
        self.document["stages"].append(stage)
        if "needs" in plan and shutil.which(plan["needs"]) is None:
            stage["status"] = f"absent: no {plan['needs']} here"
        elif budget < min(5, plan["budget"]):
            stage["status"] = "no time was left"
        if stage["status"] != "running":
            return self.write()
        command = filled(plan["command"], {"json": results, "left": int(budget) - 3, "work": self.work})
        stage["command"] = subprocess.list2cmdline(command)
        self.stage = (stage, log, results)
        self.write()
        print(f"== {plan['name']} ({budget:.0f} s at most)", flush=True)
        began = time.monotonic()
        try:
            with open(log, "wb") as out:
                self.child = subprocess.Popen(
                    command,
                    cwd=REPO,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
                code = wait(self.child, budget)
            stage["status"] = (
                "ok" if code == 0 else "its time was up" if code is None else f"failed with {code}"
            )
        except OSError as error:
            stage["status"] = f"failed: {error}"
        self.child = self.stage = None
        stage["seconds"] = round(time.monotonic() - began, 1)
        self.collect(stage, log, results)
        self.write()
        print(f"   {stage['status']} after {stage['seconds']} s", flush=True)

    def interrupted(self, number, frame):
        """What was going on is noted before this ends."""
        if self.child is not None:
            stop(self.child)
        if self.stage is not None:
            stage, log, results = self.stage
            stage["status"] = "cut short"
            self.collect(stage, log, results)
        self.write()
        sys.exit(128 + number)


def head(options, facts):
    gpu = facts.get("gpu", {})
    return {
        "kind": "gpu",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "time": time.strftime("%H:%M UTC", time.gmtime()),
        "commit": machine.commit(REPO),
        "device": gpu.get("name", "no GPU"),
        "command": " ".join(["bench/gpu.sh", *options.given]),
        "machine": facts,
        "versions": machine.versions(
            ("torch", "transformers", "trl", "torchtune", "liger-kernel", "flash-attn")
        ),
        "stages": [],
    }


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=str(REPO / "bench" / "results"), help="folder of the results")
    p.add_argument("--total", type=float, default=TOTAL, help="seconds of everything")
    p.add_argument("--spent", type=float, default=0, help="seconds of them that are over already")
    p.add_argument("--only", nargs="+", help="stages whose names begin so")
    p.add_argument("--stages", help="other stages, as JSON")
    p.add_argument("--dry-run", action="store_true", help="print the stages and do nothing")
    options = p.parse_args()
    options.given = sys.argv[3 if sys.argv[1:2] == ["--spent"] else 1 :]  # bench/gpu.sh's own
    return options


def main():
    options = parse()
    facts = machine.facts("cuda")
    smi = ("nvidia-smi", "--id=0", "--query-gpu=compute_cap", "--format=csv,noheader")
    plans = read_json(Path(options.stages)) if options.stages else stages(machine.said(*smi) or "")
    if options.only:
        plans = [plan for plan in plans if plan["name"].startswith(tuple(options.only))]
    if options.dry_run:
        for plan in plans:
            print(f"{plan['name']:30} {plan['budget']:4} s  {subprocess.list2cmdline(plan['command'])}")
        print(f"{'in all, at most':30} {min(options.total, sum(plan['budget'] for plan in plans)):4.0f} s")
        return 0
    document = head(options, facts)
    name = re.sub(r"[^a-z0-9]+", "-", f"{document['device']}".lower()).strip("-")
    options.file = (
        Path(options.out) / f"{name}-{document['date']}-{(document['commit'] or 'unknown').strip('+')}.json"
    )
    run = Run(options, document)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, run.interrupted)
    run.write()
    for plan in plans:
        run.one(plan)
    document["seconds"] = round(time.monotonic() - run.started, 1)
    run.write()
    print(f"{options.file}\n{options.file.with_suffix('.md')}")
    fine = ("ok", "no time was left", "absent")
    return 0 if all(stage["status"].startswith(fine) for stage in document["stages"]) else 1


if __name__ == "__main__":
    sys.exit(main())
