"""From runs to rows of the table: who agrees with whom, how fast each is, and what makes the whole fail."""

import json
import math
import os
import statistics
from pathlib import Path

from peers import PEERS

TOLERANCE = {"fp32": 1e-4, "bf16": 1e-3}  # of a loss in nats; of a log-prob as a share


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
            failures.append(
                f"{what} is {row['loss_difference']:.1e} apart in loss, {row['logps_difference']:.1e} in log-probs"
            )
    for name in options.require:
        absent = [row for row in rows if row["peer"] == name and "absent" in row]
        if absent or name not in [row["peer"] for row in rows]:
            failures.append(f"{name} is absent: {absent[0]['absent'] if absent else 'not asked for'}")
    return failures


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
