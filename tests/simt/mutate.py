#!/usr/bin/env python3
"""mutate.py - does the suite notice when a kernel is broken?  Mutates kernels/ line by line, and runs the tests of each.

    tests/simt/mutate.py [--sample N] [--seed S] [--file NAME ...] [--again OUTPUT] [--done OUTPUT] [--jobs J] [--list]

Needs built trees of the presets release and sanitize (with the test programs of the kernels).  A mutant is caught when a
configuration fails that the unmutated code passes: the emulator in three schedules, under ASan and UBSan, or under the
race and initialisation checker; also when a test takes ten times as long.  Those that are no faults stand in mutants.txt
with the reason, and are not tried; the program fails where fewer than 95 % of the others are caught.
"""
import argparse
import concurrent.futures
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXPLAINED = os.path.join(ROOT, "tests", "simt", "mutants.txt")

# What is changed: a pattern within a line, and what replaces it.
OPERATORS = [
    ("drop a barrier", r"__sync(threads|warp)\(\);", ";"),
    ("drop a wait", r"cp_async_wait<\d+>\(\);", ";"),
    ("wait for one group less", r"cp_async_wait<0>\(\)", "cp_async_wait<1>()"),
    ("wait for one group less", r"cp_async_wait<1>\(\)", "cp_async_wait<2>()"),
    ("drop a commit", r"cp_async_commit\(\);", ";"),
    ("< to <=", r"(?<=[\w\])]) < (?=[\w(])", " <= "),
    ("<= to <", r" <= ", " < "),
    (">= to >", r" >= ", " > "),
    ("> to >=", r"(?<=[\w\])]) > (?=[\w(-])", " >= "),
    ("== to !=", r" == ", " != "),
    ("&& to ||", r" && ", " || "),
    ("+ to -", r"(?<=[\w\])]) \+ (?=[\w(])", " - "),
    ("- to +", r"(?<=[\w\])]) - (?=[\w(])", " + "),
    ("* to +", r"(?<=[\w\])]) \* (?=[\w(])", " + "),
    ("% to /", r"(?<=[\w\])]) % (?=[\w(])", " / "),
    ("+= to =", r" \+= ", " = "),
    ("*= to =", r" \*= ", " = "),
    ("1 to 2", r"(?<=[\w\])] [-+] )1\b(?!\.)", "2"),
    ("0 to 1", r"(?<== )0(?=[;,])", "1"),
    ("max to min", r"\bfmaxf\(", "fminf("),
    ("min to max", r"\bmin\(", "max("),
    ("swap a and b", r"\((\w+), (\w+)\)", r"(\2, \1)"),
    ("half the lanes", r"offset = 16;", "offset = 8;"),
    ("drop a negation", r"(?<=[ (=])-(?=[a-z(])", ""),
]
OUTCOMES = ("caught", "survived", "invalid", "explained")
SKIP = re.compile(r"^\s*(//|/?\*|#|enum|CUDPO_REQUIRE|template|static __global__|__launch|LAUNCH|extern|typedef|for \(int64_t i = 0; gradient)|@")


def mutants(path):
    """(line number, what, mutated line) of one file; comments, contracts and declarations are left alone."""
    found, comment = [], False
    for number, line in enumerate(open(path).read().split("\n"), 1):
        code = line.split("/*")[0] if not comment else ""
        comment = (comment or "/*" in line) and "*/" not in line.split("/*")[-1]
        if SKIP.match(code) or not code.strip():
            continue
        for what, pattern, replacement in OPERATORS:
            for m in re.finditer(pattern, code):
                new = code[: m.start()] + m.expand(replacement) + code[m.end():] + line[len(code):]
                if new != line:
                    found.append((number, what, new))
    return found


def commands(build, target):
    out = subprocess.run(["ninja", "-C", build, "-t", "commands", target], capture_output=True, text=True, check=True).stdout
    return [c for c in out.split("\n") if c.strip()]


class Variant:
    """One way to build and run: the commands that compile a kernel's wrapper and link a test, and how long it takes."""

    def __init__(self, name, build, suffix, environment):
        self.name, self.build, self.suffix, self.environment = name, build, suffix, environment
        self.mark = "%s_%s" % (os.path.basename(build), suffix) # two builds have programs of one name
        self.links, self.lock = {}, threading.Lock()

    def load(self, test):
        with self.lock:
            if test not in self.links:
                all_commands = commands(self.build, "tests/%s_%s" % (test, self.suffix))
                compile_of = {}
                for c in all_commands:
                    m = re.search(r" -c (\S*/tests/simt/(\w+)\.cpp)", c)
                    if m and "simt_kernels_" in c:
                        compile_of[m.group(2)] = (c, m.group(1), re.search(r" -o (\S+)", c).group(1))
                link = [c for c in all_commands if re.search(r"-o tests/%s_%s\b" % (test, self.suffix), c)][-1]
                self.links[test] = (compile_of, link, self.time(test))
        return self.links[test]

    def time(self, test):
        """Seconds of the test as it is; remembered in the build's folder for as long as its program stays."""
        program = os.path.join(self.build, "tests", "%s_%s" % (test, self.suffix))
        known, key = os.path.join(self.build, "mutate-seconds.json"), "%s %s %s" % (self.name, test, os.stat(program).st_mtime_ns)
        with timing:
            seconds = json.load(open(known)) if os.path.exists(known) else {}
            if key not in seconds:
                start = time.monotonic()
                if not passes(self, program, 900):
                    sys.exit("%s fails without a mutation" % program)
                seconds[key] = time.monotonic() - start
                with open(known, "w") as f:
                    json.dump(seconds, f)
            return seconds[key]


timing = threading.Lock()


def run(variant, test, stems, folder):
    """Build the test with the mutated kernels of folder and run it; True where it still passes."""
    compile_of, link, seconds = variant.load(test)
    for name, (command, wrapper, object_path) in compile_of.items():
        source = os.path.join(folder, "kernels", name + ".cu")
        if name not in stems:
            continue
        mine = os.path.join(folder, "%s_%s.cpp" % (name, variant.mark))
        with open(mine, "w") as f:
            f.write('#include "%s"\n' % source)
        built = os.path.join(folder, "%s_%s.o" % (name, variant.mark))
        command = re.sub(r" -M[DTF]+ \S+| -MD", "", command.replace(" -c " + wrapper, " -c " + mine))
        command = re.sub(r"-M[TF] \S+", "", command).replace(" -o " + object_path, " -o " + built)
        command = command.replace(" -I", " -I%s -I%s/kernels -I" % (folder, folder), 1)
        if not os.path.exists(built):
            done = subprocess.run(command, shell=True, cwd=variant.build, capture_output=True, text=True)
            if done.returncode != 0:
                return None  # does not compile: no mutant
        link = link.replace(" " + object_path + " ", " " + built + " ")
    program = os.path.join(folder, "%s_%s" % (test, variant.mark))
    link = re.sub(r"-o tests/%s_%s\b" % (test, variant.suffix), "-o " + program, link)
    done = subprocess.run(link, shell=True, cwd=variant.build, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("can't link: " + done.stderr[-2000:])
    return passes(variant, program, 10 * seconds + 10)


def passes(variant, program, limit):
    """True where the program passes within limit seconds."""
    try:  # cmocka ends at the first failure
        return subprocess.run([program], cwd=ROOT, capture_output=True, timeout=limit,
                              env={**os.environ, "OMP_NUM_THREADS": "1", "CMOCKA_TEST_ABORT": "1",
                                   **variant.environment}).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def includers(name):
    """The .cu files that a header of kernels/ reaches; of those that reach most of them, a few that use all they have."""
    few = {"check.h": {"adamw", "attention", "cast", "rope", "segment_sum"}, "vector.h": {"cast", "rmsnorm", "segment_sum", "swiglu"},
           "quad.h": {"adamw", "gather_rows"},
           "sizes.h": {"attention", "attention_backward", "attention_f32", "attention_plan", "bias", "embed", "gather_rows", "head_norm", "rmsnorm", "sum_squares"},
           "piece.h": {"add", "bias", "cast", "check_finite", "rope", "swiglu"}}
    if name in few:
        return few[name]
    stems, seen, left = set(), set(), [name]
    while left:
        wanted = left.pop()
        for file in os.listdir(os.path.join(ROOT, "kernels")):
            if file in seen or not file.endswith((".cu", ".h")):
                continue
            if re.search('#include "(kernels/)?%s"' % wanted, open(os.path.join(ROOT, "kernels", file)).read()):
                seen.add(file)
                left.append(file)
                if file.endswith(".cu"):
                    stems.add(file[:-3])
    return stems


def tests_of(stems):
    """Tests named after a kernel, and those that the table below adds."""
    more = {"row_coefficients": ["test_segment_sum", "test_head_kernels"], "add": ["test_bias", "test_rmsnorm"],
            "preference_loss": ["test_head_kernels"], "sum_squares": ["test_clip_factor"],
            "order": ["test_embed", "test_gather_rows"]}
    names = {f[:-2] for f in os.listdir(os.path.join(ROOT, "tests")) if f.startswith("test_") and f.endswith(".c")
             and "/* backends:" in "".join(open(os.path.join(ROOT, "tests", f)).readlines()[:4])}
    found = set()
    for stem in sorted(stems):
        if stem.startswith("attention"):
            stem = "attention"
        found |= {n for n in names if n == "test_" + stem or n.startswith("test_" + stem + "_")}
        found |= {n for n in more.get(stem, []) if n in names}
    if not found:
        sys.exit("no test for %s: name it in tests_of()" % ", ".join(sorted(stems)))
    return found


def try_mutant(file, mutant, variants):
    number, what, line = mutant
    stems = {file[:-3]} if file.endswith(".cu") else includers(file)
    folder = tempfile.mkdtemp(prefix="mutant")
    try:
        shutil.copytree(os.path.join(ROOT, "kernels"), os.path.join(folder, "kernels"))
        path = os.path.join(folder, "kernels", file)
        lines = open(path).read().split("\n")
        lines[number - 1] = line
        open(path, "w").write("\n".join(lines))
        for variant in variants:
            for test in sorted(tests_of(stems), key=lambda t: variant.load(t)[2]):
                passed = run(variant, test, stems, folder)
                if passed is None:
                    return "invalid", ""
                if not passed:
                    return "caught", "%s %s" % (variant.name, test)
        return "survived", ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def line_of(file, mutant):
    number, what, line = mutant
    return "%s:%d %s: %s" % (file, number, what, line.strip())


def explained():
    if not os.path.exists(EXPLAINED):
        return set()
    known = set()
    for line in open(EXPLAINED):
        parts = line.rstrip("\n").split(" | ")
        if len(parts) == 4 and not line.startswith("#"):
            known.add(tuple(p.strip() for p in parts[:3]))
    return known


def kernel_files():
    return sorted(f for f in os.listdir(os.path.join(ROOT, "kernels"))
                  if f.endswith((".cu", ".h")) and f not in ("ptx.h", "device.h", "kernels.h", "types.h"))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--sample", type=int, default=0, help="so many, drawn at random; 0: all")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--file", nargs="*", help="names in kernels/, such as rmsnorm.cu")
    p.add_argument("--again", help="what an earlier run printed: only the mutants that survived it")
    p.add_argument("--done", help="what an earlier run of this sample printed, that was broken off: none of them again")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--list", action="store_true", help="print the mutants and end")
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--sanitize", default=os.path.join(ROOT, "build-sanitize"), help="'': without it")
    a = p.parse_args()
    files = a.file or kernel_files()
    work, survived = [], None
    if a.again:
        survived = {line.split(maxsplit=1)[1].strip() for line in open(a.again) if line.startswith("survived")}
    for file in files:
        found = mutants(os.path.join(ROOT, "kernels", file))
        work += [(file, m) for m in found if survived is None or line_of(file, m) in survived]
    if a.sample and len(work) > a.sample:
        work = random.Random(a.seed).sample(work, a.sample)
    if a.done:
        done = {line.split(maxsplit=1)[1].rpartition("  ")[0].strip() for line in open(a.done) if line[:9].strip() in OUTCOMES}
        work = [(f, m) for f, m in work if line_of(f, m) not in done]
    if a.list:
        for file, (number, what, line) in work:
            print(line_of(file, (number, what, line)))
        return
    variants = [Variant("emulator", a.build, "simt", {"SIMT_SCHED": "fwd"}), Variant("race checker", a.build, "race", {}),
                Variant("emulator, backwards", a.build, "simt", {"SIMT_SCHED": "rev"}),
                Variant("emulator, at random", a.build, "simt", {"SIMT_SCHED": "rand:1"})]
    if a.sanitize:
        variants.append(Variant("ASan and UBSan", a.sanitize, "simt", {"ASAN_OPTIONS": "detect_leaks=0"}))
    known, counts, survivors = explained(), {}, []
    every = {(f, what, line.strip()) for f in kernel_files() for _, what, line in mutants(os.path.join(ROOT, "kernels", f))}
    for entry in known - every:
        sys.exit("mutants.txt: no such mutant: %s" % " | ".join(entry))
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        futures = {}
        for f, m in work:
            looked_at = (f, m[1], m[2].strip()) in known
            futures[pool.submit(lambda *_: ("explained", "")) if looked_at else pool.submit(try_mutant, f, m, variants)] = (f, m)
        for future in concurrent.futures.as_completed(futures):
            file, (number, what, line) = futures[future]
            outcome, by = future.result()
            counts.setdefault(file, {}).setdefault(outcome, 0)
            counts[file][outcome] += 1
            if outcome == "survived":
                survivors.append((file, what, line.strip()))
            print("%-9s %s  %s" % (outcome, line_of(file, (number, what, line)), by), flush=True)
    caught = sum(c.get("caught", 0) for c in counts.values())
    total = caught + len(survivors)
    print("\n%-24s %7s %9s %9s" % ("file", "caught", "survived", "explained"))
    for file, c in sorted(counts.items()):
        print("%-24s %7d %9d %9d" % (file, c.get("caught", 0), c.get("survived", 0), c.get("explained", 0)))
    print("%d of %d caught (%.1f %%)" % (caught, total, 100 * caught / max(total, 1)))
    sys.exit(0 if total and caught >= 0.95 * total else 1)


if __name__ == "__main__":
    main()
