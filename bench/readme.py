#!/usr/bin/env python3
"""README's tables of figures, made from bench/results/*.json, where and when they were measured included.

    bench/readme.py            writes them into README.md
    bench/readme.py --check    fails where README.md has others

A table stands between <!-- figures: NAME --> and <!-- end -->. The standard library alone is needed.
"""

import difflib
import json
import re
import sys
from pathlib import Path

import gpu_report
import table

REPO = Path(__file__).resolve().parents[1]
RESULTS = REPO / "bench" / "results"
TRAINERS = {
    "cudpo": "cudpo",
    "cudpo-precomputed": "cudpo, precomputed",
    "trl-tuned": "TRL tuned",
    "trl-precomputed": "TRL tuned, precomputed",
    "trl-default": "TRL as shipped",
    "torchtune": "torchtune",
}
# Those rows of kernels.json that README has, by what it calls them. It is from before `cudpo bench`, whose names differ.
KERNELS = (
    ("token_logprob", "1023x151936 f32->bf16", "head, 1,023 rows of 151,936 f32 logits to bf16 gradient"),
    ("token_logprob", "1023x151936 f32->bf16 stats", "the same with statistics"),
    ("token_logprob", "1023x151936 f32 no gradient", "the same without gradient"),
    ("swiglu_backward", "16896x4864", "SwiGLU backward, 16,896 x 4,864"),
    ("swiglu_backward", "16896x14336", "SwiGLU backward, 16,896 x 14,336"),
    ("rmsnorm_backward", "16896x896", "RMSNorm backward, 16,896 x 896"),
    ("rmsnorm_backward", "16896x2048", "RMSNorm backward, 16,896 x 2,048"),
    ("rmsnorm_backward", "16896x4096", "RMSNorm backward, 16,896 x 4,096"),
    (
        "adamw",
        "134217728 f32, bf16 gradient and copy",
        "AdamW, 134 M parameters, f32 with bf16 gradient and copy",
    ),
    ("sum_squares", "134217728 bf16", "sum of squares, 134 M"),
    ("rope", "16896x40 heads of 64", "RoPE, 16,896 x 40 heads of 64"),
)
ATTENTION = (
    ("14/2 heads of 64, 11x3x512", "14 heads of 64, 2 kv heads"),
    ("32/8 heads of 64, 11x3x512", "32 heads of 64, 8 kv heads"),
    ("32/8 heads of 128, 11x3x512", "32 heads of 128, 8 kv heads"),
)


def load(name):
    return json.loads((RESULTS / name).read_text("utf-8"))


def link(name):
    return f"[bench/results/{name}](bench/results/{name})"


def programs(document):
    names = {"trl": "TRL", "torch": "PyTorch", "transformers": "transformers", "torchtune": "torchtune"}
    return ", ".join(
        f"{said} {document['versions'][key]}" for key, said in names.items() if key in document["versions"]
    )


# ------------------------------------------------------------------------------------------ peers


def model_name(document, row):
    shape = document["shapes"][row["shape"]]
    if not re.fullmatch(r"v\d+", row["shape"]):
        return row["shape"]
    size = f"{row['parameters'] / 1e6:.1f} M: {shape['hidden']} wide, {shape['layers']} layers"
    return f"{size}, vocabulary {shape['vocab']:,}"


def peer_cells(document, row):
    cells = [model_name(document, row), TRAINERS[row["peer"]]]
    if "absent" in row:
        return cells + ["absent: " + row["absent"]] + [""] * 4
    cells += [f"{row['ms'] / 1000:.3g}", table.number(row["pairs_per_s"]), f"{row['peak_mb']:.0f}"]
    cells.append(f"{row['cudpo_speedup']:.2f} x" if "cudpo_speedup" in row else "")
    cells.append(f"{100 * row['cudpo_memory_share']:.0f} %" if "cudpo_memory_share" in row else "")
    return cells


def peer_table(document):
    titles = [
        "model",
        "trainer",
        "s/step",
        "pairs/s",
        "peak MB",
        "cudpo is faster by",
        "and takes of its memory",
    ]
    return gpu_report.table_of(titles, [peer_cells(document, row) for row in document["rows"]])


def peer_text(document, source):
    first = document["rows"][0]
    apart = [row["loss_difference"] for row in document["rows"] if "loss_difference" in row]
    pairs = document["batch"] * document["accumulate"]
    said = [
        f"{pairs} pairs a step of {first['lengths']} tokens, {first['precision']}, on {table.where(document)},",
        f"{document['date']}, commit {document['commit']}: `{document['command']}`; {source}.",
        f"{programs(document)}.",
    ]
    if apart:
        said.append(f"The losses of all are equal at every step, within {max(apart):.0e}.")
    return [" ".join(said), ""]


def peers_cpu():
    document = load("step.json")
    return peer_text(document, link("step.json")) + peer_table(document)


# -------------------------------------------------------------------------------------------- GPU


def gpu_documents():
    """What bench/gpu.sh has written, the newest first."""
    found = [(path.name, load(path.name)) for path in sorted(RESULTS.glob("*.json"))]
    found = [(name, document) for name, document in found if document.get("kind") == "gpu"]
    return sorted(found, key=lambda pair: (pair[1]["date"], pair[1]["time"]), reverse=True)


def gpu_results(test):
    """(file, document, [(stage, result)]) of the newest that has any result for which test() is true."""
    for name, document in gpu_documents():
        stages = [(s["name"], s["result"]) for s in document["stages"] if isinstance(s.get("result"), dict)]
        chosen = [(stage, result) for stage, result in stages if test(result)]
        if chosen:
            return name, document, chosen
    return None


def measured_at(name, document):
    driver = document["machine"].get("gpu", {}).get("driver_version", "?")
    where = f"{document['device']}, driver {driver}, {document['date']}, commit {document['commit']}"
    return f"On one {where}: `{document['command']}`; {link(name)} and [table](bench/results/{Path(name).stem}.md)."


def gpu_steps():
    found = gpu_results(lambda result: "pairs_per_second" in result)
    if found is None:
        return ["No whole training step was measured on a GPU yet."]
    name, document, results = found
    rows = [gpu_report.step_row(stage, result) for stage, result in results]
    titles = ["step of", "pairs/s", "tokens/s", "ms", "useful MFU", "GB"]
    return [measured_at(name, document), "", *gpu_report.table_of(titles, rows)]


def gpu_peers():
    found = gpu_results(
        lambda result: result.get("kind") == "peers" and any("ms" in row for row in result["rows"])
    )
    if found is None:
        return ["No peer was measured beside cudpo on a GPU yet."]
    name, document, results = found
    lines = [measured_at(name, document)]
    for _, result in results:
        lines += ["", *peer_text(result, "there"), *peer_table(result)]
    return lines


def kernels():
    document = load("kernels.json")
    rows = {(row["op"], row["shape"]): row for row in document["rows"]}
    said = [
        f"On one {document['device']}, driver {document['driver']}, CUDA {document['cuda']}, {document['date']},",
        f"commit {document['commit']}: `{document['command']}`, which `cudpo bench` has taken the place of; {link('kernels.json')}.",
        f"Shares are of the {document['copy_gbps']:.0f} GB/s that a copy of 2 GB reached in the same run.",
    ]
    body = []
    for op, shape, name in KERNELS:
        row = rows[op, shape]
        body.append([name, f"{row['median_us']:.0f}", f"{row['percent_of_copy']:.0f} %"])
    attention = []
    for shape, name in ATTENTION:
        forward, backward = rows["attention", shape], rows["attention_backward", shape]
        both = (forward["flops"] + backward["flops"]) / (forward["median_us"] + backward["median_us"]) / 1e6
        attention.append([name, *(f"{value:.0f}" for value in (forward["tflops"], backward["tflops"], both))])
    lines = [
        " ".join(said),
        "",
        *gpu_report.table_of(["kernel (bf16 but where said)", "µs", "of the copy"], body),
        "",
    ]
    titles = ["attention, 11 groups of 512+512+512", "forward TFLOP/s", "backward", "both"]
    return lines + gpu_report.table_of(titles, attention)


# -------------------------------------------------------------------------------------------- ops


def ops_machine(document):
    """What the program says of the machine; files from before it did have words of a person."""
    if "processor" not in document:
        return document["machine"]
    threads = document["threads"]
    return f"{threads} thread{'s' * (threads > 1)} of {document['processor'] or 'a processor without a name'}"


def ops_program(document):
    return f"commit {document['commit']}" if "commit" in document else f"cudpo {document['version']}"


def ops_cpu():
    """Rows of `cudpo bench` on a CPU whose operands leave the cache."""
    document = load("ops-cpu.json")
    ceilings = document["ceilings"]
    said = f"On {ops_machine(document)}, {document['date'][:10]}, {ops_program(document)}: `{document['command']}`; "
    said += f"{link('ops-cpu.json')}. In the same run a large copy reached {ceilings['copy_gbps']:.1f} GB/s and a "
    said += f"large product {1000 * ceilings['float32_tflops']:.0f} GFLOP/s."
    body = []
    for row in document["rows"]:
        if row["cached"]:
            continue
        speed = f"{1000 * row['tflops']:.0f} GFLOP/s" if row["flops"] else f"{row['gbps']:.1f} GB/s"
        unfused = f"{row['baseline_ratio']:.1f} x" if row["baseline_ratio"] else ""
        cells = [f"{row['op']} {row['pass']}".strip(), row["shape"], f"{row['median_us'] / 1000:.3g}", speed]
        body.append(cells + [f"{row['percent_of_ceiling']:.0f} %", unfused, str(row["wrong"])])
    titles = ["op", "shape", "ms", "", "of the ceiling", "unfused takes", "wrong"]
    return [said, "", *gpu_report.table_of(titles, body)]


# ------------------------------------------------------------------------------------------- text


def tokenizers():
    document = load("tokenize.json")
    text = f"`{document['command']}` on {document['texts']['en']} and {document['texts']['zh']}, one string each; "
    text += f"{document['processor']}, {document['date']}; {link('tokenize.json')}. Seconds, the median without loading:"
    names = list(dict.fromkeys(row["name"] for row in document["rows"]))
    rows = {(row["name"], row["text"]): row for row in document["rows"]}
    body = []
    for name in names:
        english, chinese = rows[name, "en"], rows[name, "zh"]
        body.append(
            [name, *(f"{s:.3f}" for s in (english["median_s"], chinese["median_s"], english["load_s"]))]
        )
    return [text, "", *gpu_report.table_of(["tokenizer", "English", "Chinese", "loading"], body)]


FIGURES = {
    "peers on a CPU": peers_cpu,
    "ops on a CPU": ops_cpu,
    "steps on a GPU": gpu_steps,
    "peers on a GPU": gpu_peers,
    "kernels": kernels,
    "tokenizers": tokenizers,
}


def filled(text):
    """README with the tables as the results have them."""
    for name, make in FIGURES.items():
        place = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
        if len(place.findall(text)) != 1:
            raise SystemExit(f"README.md has no place for the figures: {name}")
        body = "\n".join(make())
        text = place.sub(lambda match: f"{match[1]}{body}\n{match[2]}", text)
    return text


def main():
    path = REPO / "README.md"
    old = path.read_text("utf-8")
    new = filled(old)
    if "--check" not in sys.argv[1:]:
        path.write_text(new, "utf-8")
        return 0
    changed = difflib.unified_diff(
        old.splitlines(), new.splitlines(), "README.md", "bench/results", lineterm="", n=0
    )
    lines = list(changed)
    print("\n".join(lines) if lines else "README's figures are those of bench/results/")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
