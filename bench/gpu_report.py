"""The results of bench/gpu.sh as files: the JSON, and a table of it for people."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import table  # noqa: E402


def replace(path, text):
    """The file is the old one or the new one, whole, whenever this is killed."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, json.dumps(document, indent=1) + "\n")
    replace(path.with_suffix(".md"), "\n".join(lines(document)) + "\n")


def table_of(titles, rows):
    text = [[str(cell) for cell in row] for row in [titles, *rows]]
    return (
        ["| " + " | ".join(row) + " |" for row in text[:1]]
        + ["|" + "---|" * len(titles)]
        + ["| " + " | ".join(row) + " |" for row in text[1:]]
    )


def kernel_rows(result):
    """Rows of cudpo bench."""
    rows = []
    for row in result.get("rows", []):
        share = row.get("percent_of_ceiling", row.get("percent_of_copy"))
        op = " ".join(str(row[key]) for key in ("op", "pass") if row.get(key))
        rows.append(
            [
                op,
                row.get("shape", ""),
                row.get("dtype", ""),
                row.get("median_us"),
                row.get("gbps"),
                row.get("tflops"),
                share,
            ]
            + [row.get("baseline_ratio", ""), row.get("wrong", row.get("differs", ""))]
        )
    return rows


def step_row(name, result):
    memory = result.get("memory", {}).get("measured")
    mfu = result.get("mfu")
    return [
        name.removeprefix("step "),
        table.number(result["pairs_per_second"]),
        f"{result.get('tokens_per_second', 0):.0f}",
        f"{1000 * result['seconds']['median']:.1f}",
        f"{100 * mfu:.1f} %" if mfu is not None else "",
        f"{memory / 1e9:.1f}" if memory else "",
    ]


def tests_line(name, tests):
    if "each" in tests:
        return f"* {name}: " + ", ".join(f"{test} {how}" for test, how in tests["each"].items())
    failed = f", failed: {', '.join(tests['failed'])}" if tests["failed"] else ", none failed"
    return f"* {name}: {tests['passed']} passed, {tests['skipped']} skipped{failed}"


def lines(document):
    gpu = document["machine"].get("gpu", {})
    out = [f"# {document['device']}, {document['date']}, commit {document['commit']}", ""]
    said = [f"driver {gpu.get('driver_version', '?')}", f"nvcc {document['machine'].get('nvcc') or '?'}"]
    said += [f"{package} {version}" for package, version in document["versions"].items()]
    out += [f"`{document['command']}` at {document['time']}; {', '.join(said)}.", ""]
    stages = document["stages"]
    out += table_of(
        ["stage", "result", "seconds", "budget"],
        [[s["name"], s["status"], s["seconds"], s["budget"]] for s in stages],
    )
    results = [(s["name"], s["result"]) for s in stages if isinstance(s.get("result"), dict)]
    tests = [tests_line(name, r["tests"]) for name, r in results if "tests" in r]
    if tests:
        out += ["", "## Tests", "", *tests]
    steps = [step_row(name, r) for name, r in results if "pairs_per_second" in r]
    if steps:
        titles = ["step of", "pairs/s", "tokens/s", "ms", "useful MFU", "GB"]
        out += ["", "## Whole steps", "", *table_of(titles, steps)]
    peers = [r for _, r in results if r.get("kind") == "peers"]
    if peers:
        out += ["", "## Peers", "", *table.head(), *(table.line(row) for r in peers for row in r["rows"])]
    for _, result in results:
        rows = kernel_rows(result) if result.get("kind") != "peers" else []
        if rows:
            titles = [
                "kernel",
                "shape",
                "type",
                "us",
                "GB/s",
                "TFLOP/s",
                "% of the ceiling",
                "x the baseline",
                "wrong",
            ]
            out += ["", "## Kernels", "", *table_of(titles, rows)]
    failed = [s for s in stages if s.get("tail")]
    for stage in failed:
        out += [
            "",
            f"## {stage['name']}: {stage['status']}",
            "",
            "```",
            *stage["tail"].splitlines()[-15:],
            "```",
        ]
    return out
