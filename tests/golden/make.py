#!/usr/bin/env python3
"""Make the golden files: run TRL's own trainers on tiny models and write down what they did.

    python -m venv venv && venv/bin/pip install -r tests/golden/requirements.txt
    venv/bin/python tests/golden/make.py             # everything, into this folder
    venv/bin/python tests/golden/make.py --only kto  # runs whose name contains "kto"
    venv/bin/python tests/golden/make.py --check     # into a temporary folder, then compare

fp32 on one CPU thread with eager attention and no instructions that only some CPUs have, so that the
same packages give the same bits. Every run is made a second time in float64; the distance between
the two is written down as "spread" and says how far an honest fp32 implementation may be from the
numbers here.
"""

import argparse
import filecmp
import json
import os
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ.update(
    ATEN_CPU_CAPABILITY="default",
    MKL_CBWR="COMPATIBLE",
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    CUDA_VISIBLE_DEVICES="",
    TQDM_DISABLE="1",
    TRANSFORMERS_VERBOSITY="error",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRL_EXPERIMENTAL_SILENCE="1",
)
warnings.filterwarnings("ignore")

import datasets
import torch
import trl.trainer.dpo_trainer
import trl.trainer.utils
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

import inputs
from runs import BASE, RUNS

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "tokenizers", "numpy")
PATHS = ("model_name_or_path", "ref_model_name_or_path", "train_dataset", "eval_dataset")
TOKEN_ROWS = 8  # rows of the dataset whose ids are written down
SAMPLES = 6  # elements written down of each final tensor


# ------------------------------------------------------------------- trainers that keep a record


class Recording:
    """Mixed into a TRL trainer: remembers which rows every micro-batch of training was made of.

    The rows carry their index in the file as a column, "row". It must leave the batch before the
    batch reaches TRL's code.
    """

    def __init__(self, *args, **kwargs):
        self.rows_seen = []
        super().__init__(*args, **kwargs)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "row" not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, "row"]

    def compute_loss(self, model, inputs, *args, **kwargs):
        rows = inputs.pop("row")
        if model.training:
            self.rows_seen.append([int(r) for r in rows])
        return super().compute_loss(model, inputs, *args, **kwargs)

    def compute_ref_log_probs(self, model, inputs):
        inputs.pop("row", None)
        return super().compute_ref_log_probs(model, inputs)


def with_rows(collator):
    """The collator's batch, plus the rows' indices."""

    def collate(examples):
        return {**collator(examples), "row": torch.tensor([e["row"] for e in examples])}

    return collate


class DPO(Recording, DPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.data_collator = with_rows(self.data_collator)


class KTO(Recording, KTOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.data_collator = with_rows(self.data_collator)


class ORPO(Recording, ORPOTrainer):
    """ORPO's collator hands on every column by itself."""


class CDPO(DPO):
    """DPO with label smoothing in the sigmoid loss (cDPO), which TRL had until 0.28.

    With reverse KL, the sigmoid branch is the only caller of logsigmoid in TRL's loss, once per
    micro-batch, as -logsigmoid(beta * delta): here that function alone is replaced while it runs.
    """

    def _compute_loss(self, *args, **kwargs):
        eps, functional = self.label_smoothing, trl.trainer.dpo_trainer.F

        class Smoothed:
            @staticmethod
            def logsigmoid(x):
                return (1 - eps) * functional.logsigmoid(x) + eps * functional.logsigmoid(-x)

        trl.trainer.dpo_trainer.F = Smoothed
        try:
            return super()._compute_loss(*args, **kwargs)
        finally:
            trl.trainer.dpo_trainer.F = functional


# ------------------------------------------------------------------------------ the float64 twin


class DoubleHead:
    """TRL's fused head keeps its sums in fp32 whatever its input; this is its formula in float64."""

    result = torch.float64

    @classmethod
    def apply(cls, hidden, weight, bias, targets, temperature, chunk_size, softcap, scale, outputs):
        assert bias is None and softcap is None and scale == 1.0 and temperature == 1.0
        z = hidden @ weight.T
        logp = torch.log_softmax(z, -1)
        target = logp.gather(-1, targets[:, None])[:, 0].to(cls.result)
        z, logp = z.detach(), logp.detach()
        extra = {
            "entropy": lambda: -(logp.exp() * logp).sum(-1),
            "log_sum_sq_probs": lambda: torch.logsumexp(2 * logp, -1),
            "mean_logits": lambda: z.mean(-1),
            "is_top1": lambda: z.argmax(-1) == targets,
        }
        return target, *(f() if k in outputs else None for k, f in extra.items())


def to_double(model):
    """float64 weights, and RMS norms that do not step down to fp32."""

    def rms_norm(self, x):
        eps = self.variance_epsilon
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = rms_norm.__get__(module)
    return model.double()


# ------------------------------------------------------------------------------------- one run


def read_rows(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) | {"row": i} for i, line in enumerate(lines)]


def build(config, name, root, out, double):
    """The trainer that TRL's command line would build from `config`."""
    kind = {"kto": "kto", "apo_zero_unpaired": "kto", "orpo": "orpo"}.get(str(config["loss_type"]), "dpo")
    args_class = {"dpo": DPOConfig, "kto": KTOConfig, "orpo": ORPOConfig}[kind]
    trainer_class = {"dpo": DPO, "kto": KTO, "orpo": ORPO}[kind]
    if name == "loss_cdpo":
        trainer_class = CDPO

    def load(path):
        # Loaded here, in float32, because ORPOTrainer would take the type of the checkpoint. Eager
        # attention in fp32; the float64 twin uses SDPA, which does not step down to fp32.
        attention = "sdpa" if double else "eager"
        model = AutoModelForCausalLM.from_pretrained(
            root / path, dtype=torch.float32, attn_implementation=attention
        )
        return to_double(model) if double else model

    kwargs = {k: v for k, v in config.items() if k not in PATHS}
    if kind == "orpo":
        del kwargs["loss_type"]
    args = args_class(output_dir=str(out), use_cpu=True, save_strategy="no", disable_tqdm=True, **kwargs)
    data = {"train_dataset": datasets.Dataset.from_list(read_rows(root / config["train_dataset"]))}
    if "eval_dataset" in config:
        data["eval_dataset"] = datasets.Dataset.from_list(read_rows(root / config["eval_dataset"]))
    if kind != "orpo":
        # TRL would load the reference from the policy's path by itself, but not in float64.
        own_reference = not config.get("precompute_ref_log_probs")
        reference = config.get("ref_model_name_or_path", config["model_name_or_path"])
        data["ref_model"] = load(reference) if own_reference else None
    tokenizer = AutoTokenizer.from_pretrained(root / config["model_name_or_path"])
    return trainer_class(load(config["model_name_or_path"]), args=args, processing_class=tokenizer, **data), kind


def token_rows(trainer, kind, max_length):
    """The first rows as the trainer sees them, cut to max_length; a row that it drops is absent.

    With keep_end nothing is dropped, and the collator cuts: then max_length is None, and rows are whole."""
    out = []
    for row in trainer.train_dataset:
        if row["row"] >= TOKEN_ROWS:
            continue
        if kind == "orpo":
            # A prompt that merges with one completion only is shorter there; the shorter one is common.
            sides = ("chosen", "rejected")
            n = min(row[f"{side}_labels"].count(-100) for side in sides)
            ids = {"prompt_ids": row["chosen_input_ids"][:n]}
            ids |= {f"{side}_ids": row[f"{side}_input_ids"][n:] for side in sides}
        else:
            room = None if max_length is None else max_length - len(row["prompt_ids"])
            ids = {"prompt_ids": row["prompt_ids"]}
            names = ("chosen_ids", "rejected_ids") if kind == "dpo" else ("completion_ids", "KL_completion_ids")
            ids |= {k: row[k][:room] for k in names if k in row}
        out.append({"row": row["row"], **ids, **({"label": row["label"]} if kind == "kto" else {})})
    return out


def group_rows(micro_batches, row_count, config):
    """Micro-batches grouped into optimizer steps; a group ends with its epoch."""
    steps, window, seen = [], [], 0
    for rows in micro_batches:
        window.append(rows)
        seen += len(rows)
        if len(window) == config["gradient_accumulation_steps"] or seen == row_count:
            steps.append(window)
            window = []
        seen %= row_count
    assert not window
    return steps


def train(config, name, root, double=False):
    """Run once. Everything that TRL logged, the rows it used, and the final weights."""
    with tempfile.TemporaryDirectory() as scratch:
        # A cache folder of its own, or the scores that one run precomputes would serve the next.
        datasets.config.HF_DATASETS_CACHE = Path(scratch)
        head = trl.trainer.utils._ChunkedLogProbFunction
        if double:
            trl.trainer.utils._ChunkedLogProbFunction = DoubleHead
            # TRL's alpha divergence knows no float64.
            alpha = config.get("f_divergence_type") == "alpha_divergence"
            DoubleHead.result = torch.float32 if alpha else torch.float64
        try:
            trainer, kind = build(config, name, root, Path(scratch) / "out", double)
            keep_end = config.get("truncation_mode") == "keep_end"
            tokens = token_rows(trainer, kind, None if keep_end else config["max_length"])
            torch.set_default_dtype(torch.float64 if double else torch.float32)
            trainer.train()
        finally:
            torch.set_default_dtype(torch.float32)
            trl.trainer.utils._ChunkedLogProbFunction = head
    steps, evals, last = [], [], {}
    for entry in trainer.state.log_history:
        entry = {"step": entry["step"], **entry}
        timing = ("_runtime", "_per_second", "_time", "_flos")
        entry = {k: v for k, v in entry.items() if not k.endswith(timing)}
        if "loss" in entry:
            steps.append(entry)
        elif "eval_loss" in entry:
            evals.append(entry)
        else:
            last = entry
    return {
        "trainer": type(trainer).__name__ + "Trainer",
        "tokens": tokens,
        "rows": group_rows(trainer.rows_seen, len(trainer.train_dataset), config),
        "metrics": steps,
        "eval": evals,
        "train_loss": last["train_loss"],
        "weights": {k: p.detach().double() for k, p in trainer.model.named_parameters()},
    }


def sampled(w):
    flat = w.flatten()
    index = [(i * 7919 + 13) % flat.numel() for i in range(SAMPLES)]
    return {"norm": flat.norm().item(), "index": index, "value": flat[index].tolist()}


def spread(run, twin):
    """Largest absolute difference between a run and its float64 twin, per metric, and in the weights."""

    def largest(a, b):
        out = {}
        for x, y in zip(a, b, strict=True):
            for k in x:
                out[k] = max(out.get(k, 0.0), abs(x[k] - y[k]))
        return {k: v for k, v in out.items() if k not in ("step", "epoch", "learning_rate")}

    weights = [(w - twin["weights"][k]).abs().flatten() for k, w in run["weights"].items()]
    return {
        "metrics": largest(run["metrics"], twin["metrics"]),
        "eval": largest(run["eval"], twin["eval"]),
        "weights": {"max": max(w.max() for w in weights).item(), "mean": torch.cat(weights).mean().item()},
    }


def golden_run(name, root):
    changes, purpose = RUNS[name]
    config = BASE | changes
    run, twin = train(config, name, root), train(config, name, root, double=True)
    assert run["rows"] == twin["rows"] and len(run["rows"]) == 20
    first = run["metrics"][0]["loss"]
    if name.startswith(("arch_", "batch_", "cosine")) and first != float(torch.log(torch.tensor(2.0))):
        raise SystemExit(f"{name}: loss {first} at step 1 instead of ln 2")
    return {
        "name": name,
        "purpose": purpose,
        "trainer": run["trainer"],
        "versions": {p: version(p) for p in PACKAGES},
        "config": config,
        "rows": run["rows"],
        "tokens": run["tokens"],
        "metrics": run["metrics"],
        "eval": run["eval"],
        "train_loss": run["train_loss"],
        "final": {k: sampled(w) for k, w in run["weights"].items()},
        "spread": spread(run, twin),
    }


# ------------------------------------------------------------------------------ logits of a model


def golden_logits(name, root):
    """A fixed row of ids through the initial model: its last logits and every next-token log-prob."""
    model = AutoModelForCausalLM.from_pretrained(
        root / "models" / name, dtype=torch.float32, attn_implementation="eager"
    )
    ids = [(37 * i * i + 11 * i + 5) % 299 for i in range(48)]
    with torch.no_grad():
        z = model(torch.tensor([ids])).logits[0]
        twin = to_double(model)(torch.tensor([ids])).logits[0]
    logp = torch.log_softmax(z, -1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    return {
        "model_name_or_path": f"models/{name}",
        "versions": {p: version(p) for p in PACKAGES},
        "input_ids": ids,
        "logps": logp.tolist(),
        "positions": [20, 47],
        "logits": [z[20].tolist(), z[47].tolist()],
        "spread": (z.double() - twin).abs().max().item(),
    }


# --------------------------------------------------------------------------------------- output


def text_of(value, depth=0):
    """JSON with one entry a line down to depth 2 and nine significant digits."""
    if isinstance(value, float):
        return f"{value:.9g}" if value == value and abs(value) != float("inf") else "null"
    if depth < 2 and isinstance(value, (dict, list)) and value:
        pad = "\n" + " " * (depth + 1)
        if isinstance(value, dict):
            items = [f"{json.dumps(k)}: {text_of(v, depth + 1)}" for k, v in value.items()]
        else:
            items = [text_of(v, depth + 1) for v in value]
        body = ("," + pad).join(items)
        left, right = "{}" if isinstance(value, dict) else "[]"
        return left + pad + body + "\n" + " " * depth + right
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {text_of(v, 9)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text_of(v, 9) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text_of(value) + "\n", encoding="utf-8")


def check_tokenizers(root):
    """transformers may rebuild a tokenizer by its class: what it does must be what the file says."""
    for name in inputs.MODELS:
        own = AutoTokenizer.from_pretrained(root / "models" / name)
        plain = Tokenizer.from_file(str(root / "models" / name / "tokenizer.json"))
        for row in read_rows(root / "data/train.jsonl"):
            for text in (row["prompt"], row["prompt"] + row["chosen"], row["rejected"]):
                assert own(text)["input_ids"] == plain.encode(text).ids, (name, text)


def make(root, only):
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    inputs.make_data(root / "data")
    inputs.make_models(root / "models")
    check_tokenizers(root)
    for name in inputs.MODELS:
        write(root / "logits" / f"{name}.json", golden_logits(name, root))
    for name in RUNS:
        if only in name:
            result = golden_run(name, root)
            write(root / "runs" / f"{name}.json", result)
            first, last = result["metrics"][0], result["metrics"][-1]
            print(f"{name:24} loss {first['loss']:.7f} -> {last['loss']:.7f}  spread", end=" ")
            print(f"{result['spread']['metrics']['loss']:.1e}", flush=True)


def compare(made):
    """Names of the files under `made` that are absent here or differ, and of those only here."""
    names = {p.relative_to(made) for p in made.rglob("*") if p.is_file()}
    here = {
        p.relative_to(HERE)
        for folder in ("data", "models", "logits", "runs")
        for p in (HERE / folder).rglob("*")
        if p.is_file()
    }
    same = {n for n in names & here if filecmp.cmp(made / n, HERE / n, shallow=False)}
    return sorted((names | here) - same)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--check", action="store_true", help="compare with the committed files")
    options = parser.parse_args()
    if not options.check:
        make(HERE, options.only)
        return
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), "")
        different = compare(Path(scratch))
    for name in different:
        print("differs:", name)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
