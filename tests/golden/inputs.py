"""The inputs of the golden runs: tokenizers, preference rows and tiny random models.

Everything here is a function of the constants below and of fixed seeds. Random numbers come from
numpy's Philox and Python's Mersenne Twister, whose streams do not change between versions, so the
weights and the rows stay the same when torch is upgraded.
"""

import json
import random
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

EOS, BOS, PAD = "<|endoftext|>", "<|begin_of_text|>", "<|pad|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"

# ---------------------------------------------------------------------------------- tokenizers

# Merges in order of priority; "_" stands for the space (byte-level "Ġ") and "/" for a newline ("Ċ").
MERGES = """_ t|h e|i n|_t he|r e|o n|_ a|e r|_ s|a n|o u|_ w|_ b|i s|_ c|a t|_a n|_an d|o r|e n|_ o|_o f
            |in g|_ m|e s|_ d|i t|_ p|a r|_ f|l l|_t o|i o|io n|en t|_ in|a l|_ h|/ /|_ n|e d|l e|_b e"""

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_chars():
    """GPT-2's 256 printable stand-ins, one per byte, in GPT-2's vocabulary order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in kept]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(len(rest))]


def make_tokenizer(kind, folder):
    """Write tokenizer.json and tokenizer_config.json of one family into `folder`."""
    pieces = [m.strip().replace("_", "Ġ").replace("/", "Ċ") for m in MERGES.split("|")]
    merges = [tuple(m.split(" ")) for m in pieces]
    vocab = {c: i for i, c in enumerate(byte_chars() + [a + b for a, b in merges])}
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=kind == "llama3"))
    tok.add_special_tokens(
        [AddedToken(t, normalized=False) for t in (EOS, BOS, PAD, IM_START, IM_END)]
    )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind in ("llama3", "qwen2"):
        split = Regex(LLAMA3_SPLIT if kind == "llama3" else QWEN2_SPLIT)
        byte_level = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(split, "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    if kind == "qwen2":
        tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = byte_level
    tok.decoder = decoders.ByteLevel()
    post = processors.ByteLevel(trim_offsets=False)
    if kind in ("gpt2-bos", "llama3"):
        bos = processors.TemplateProcessing(
            single=f"{BOS} $A",
            pair=f"{BOS} $A {BOS} $B:1",
            special_tokens=[(BOS, tok.token_to_id(BOS))],
        )
        post = processors.Sequence([post, bos]) if kind == "llama3" else bos
    tok.post_processor = post
    tok.save(str(folder / "tokenizer.json"), pretty=False)
    # Llama 3 has no pad token (the trainer then pads with EOS); the Qwen family has no BOS.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS if kind in ("gpt2-bos", "llama3") else None,
        "eos_token": EOS,
        "pad_token": None if kind == "llama3" else PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    if kind == "qwen2":
        config["chat_template"] = CHATML
    write_json(folder / "tokenizer_config.json", config)


# ---------------------------------------------------------------------------------------- rows

WORDS = """the a an of and in to is was were not with by from on for as at be it this that river stone
light winter garden number seven letter answer question water never always another small heavy
window engine paper yellow reader morning silence story rather between several children learning
machine signal mountain castle orange winter's doesn't it's they're we'll 12 305 2024 7""".split()


def sentence(rng, count):
    words = [rng.choice(WORDS) for _ in range(count)]
    for i in range(len(words)):
        if rng.random() < 0.12:
            words[i] = words[i].capitalize()
        if rng.random() < 0.10:
            words[i] += rng.choice([",", ".", ";", "?", "!", ":\n", ".\n\n"])
    return " ".join(words)


def special_rows():
    """Rows 0..7 of the training file: each is one rule of the tokenisation."""
    long = random.Random(99)
    return [
        {"prompt": "Question: what is the number?\nAnswer:", "chosen": " seven", "rejected": " the river is in the garden"},
        # Multi-byte text: precomposed and decomposed accents (NFC differs), CJK, an emoji joined by ZWJ, Hangul jamo.
        {"prompt": "Naïve cafe\u0301: 水は冷たい。", "chosen": " Ça va 👩‍🚀! \u1112\u1161\u11ab", "rejected": " Ω≈ç√ Ĳ ٣٤٥"},
        # A completion that already ends in the EOS text gets no second EOS; one in its middle is a token too.
        {"prompt": "Say the end:", "chosen": f" the end.{EOS}", "rejected": f" not{EOS} the end"},
        # The prompt's last space merges into the first word of both completions: the boundary moves left.
        {"prompt": "Tell me a story about the ", "chosen": "the morning and the light", "rejected": "the silence"},
        # The prompt alone reaches max_length = 64: the row is dropped.
        {"prompt": sentence(long, 16) + ".", "chosen": " the story", "rejected": " a story"},
        # Prompt short, both completions reach over max_length: both are cut, EOS is lost.
        {"prompt": "Go on:", "chosen": " " + sentence(long, 36), "rejected": " " + sentence(long, 40)},
        # An empty completion is one EOS token.
        {"prompt": "Nothing to say?", "chosen": " never", "rejected": ""},
        # Digits, runs of spaces, tabs, CRLF, contractions in capitals.
        {"prompt": "1234567  x\t=  42\r\n\r\n  I'LL add", "chosen": "   100000 \n\n and it's done  ", "rejected": "\t'S 3.14159"},
    ]


def pair_rows(rng, count):
    rows = []
    for _ in range(count):
        row = {"prompt": sentence(rng, rng.randint(2, 9)) + rng.choice(["?", ":", "\n", ""])}
        row["chosen"] = " " + sentence(rng, rng.randint(1, 11))
        row["rejected"] = " " + sentence(rng, rng.randint(1, 11))
        if rng.random() < 0.15:  # an answer that shares its first words with the other one
            row["rejected"] = row["chosen"] + row["rejected"]
        if rng.random() < 0.12:
            row["chosen"] += " " + sentence(rng, 14)
        rows.append(row)
    return rows


def edge_rows():
    """Legal, but unusual: kept apart so that no other run depends on them."""
    rows = [
        {"prompt": "", "chosen": "the answer", "rejected": "a question"},  # the first token has no context
        {"prompt": "Same:", "chosen": " answer", "rejected": " answer"},  # no signal, zero gradient
        {"prompt": "Both empty:", "chosen": "", "rejected": ""},
        # Only one of the two completions merges with the prompt's last space.
        {"prompt": "Count ", "chosen": "the stone", "rejected": "7 stones"},
        {"prompt": "bl", "chosen": "ing", "rejected": "and"},
        {"prompt": " \n", "chosen": "\n\n", "rejected": " "},
    ]
    return rows + pair_rows(random.Random(5), 10)


def implicit_rows():
    """No prompt column: the trainer takes the longest common prefix, counted in code points."""
    rows = []
    for row in pair_rows(random.Random(3), 23):
        rows.append({k: row["prompt"] + row[k] for k in ("chosen", "rejected")})
    rows.append({"chosen": "水は青い。", "rejected": "水は冷たい。"})
    rows.append({"chosen": "the sky is blue", "rejected": "the sky is black"})  # splits inside a word
    return rows


def kto_rows(rng, count):
    rows = []
    for row in special_rows() + pair_rows(rng, count):
        good = rng.random() < 0.6
        completion = row["chosen"] if good else row["rejected"]
        rows.append({"prompt": row["prompt"], "completion": completion, "label": good})
    return rows


def chat_rows(rng, count):
    rows = []
    for row in pair_rows(rng, count):
        turns = [{"role": "user", "content": row["prompt"]}]
        if rng.random() < 0.4:
            turns.insert(0, {"role": "system", "content": sentence(rng, 3)})
        answers = {k: [{"role": "assistant", "content": row[k].strip()}] for k in ("chosen", "rejected")}
        rows.append({"prompt": turns, **answers})
    return rows


def make_data(folder):
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        # 45 rows; one is dropped at max_length 64 and 44 = 5 * 8 + 4 leaves a short last batch.
        "train": special_rows() + pair_rows(random.Random(1), 37),
        "eval": special_rows()[1:5] + pair_rows(random.Random(2), 7),
        "implicit": implicit_rows(),
        "kto": kto_rows(random.Random(4), 34),
        "kto_eval": kto_rows(random.Random(6), 3),
        "chat": chat_rows(random.Random(7), 20),
        "edge": edge_rows(),
    }
    for name, rows in files.items():
        # Every second row is written in pure ASCII, so that a reader meets raw UTF-8 and \u escapes.
        lines = [json.dumps(r, ensure_ascii=bool(i % 2)) for i, r in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


# -------------------------------------------------------------------------------------- models

COMMON = dict(
    vocab_size=304,
    num_hidden_layers=2,
    max_position_embeddings=512,
    bos_token_id=None,
    eos_token_id=299,
    pad_token_id=None,
    attention_dropout=0.0,
    initializer_range=0.02,
)


def width(hidden, heads, kv, ffn, head_dim=None):
    out = dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=ffn)
    return out | ({} if head_dim is None else {"head_dim": head_dim})


def rope(**kwargs):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0} | kwargs}


# name -> (tokenizer, configuration, spelling of config.json, bytes per shard or None)
MODELS = {
    # Grouped-query attention, free head.
    "llama": ("gpt2", LlamaConfig(**COMMON, **width(32, 2, 1, 64), **rope(), rms_norm_eps=1e-5), "v4", None),
    # Other weights of the same shape: the reference of a run, two shards.
    "llama-ref": ("gpt2", LlamaConfig(**COMMON, **width(32, 2, 1, 64), **rope(), rms_norm_eps=1e-5), "v4", "50KB"),
    # Tied head, explicit head_dim, Llama-3 rope: at this size one frequency is kept, two are blended, five divided.
    "llama3": (
        "llama3",
        LlamaConfig(
            **COMMON,
            **width(32, 4, 2, 64, 16),
            **rope(
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
            tie_word_embeddings=True,
        ),
        "v5",
        None,
    ),
    # Linear rope scaling, every bias there is, one key head per query head.
    "llama-linear": (
        "gpt2",
        LlamaConfig(
            **COMMON,
            **width(48, 3, 3, 32),
            **rope(rope_type="linear", factor=4.0),
            attention_bias=True,
            mlp_bias=True,
        ),
        "v4",
        None,
    ),
    # A window of 16 tokens, shorter than most rows.
    "mistral": (
        "gpt2-bos",
        MistralConfig(**COMMON, **width(32, 4, 2, 64, 16), **rope(), sliding_window=16, rms_norm_eps=1e-5),
        "v5",
        None,
    ),
    # Biases on q, k, v only; tied head; more rows in the embedding than tokens in the tokenizer.
    "qwen2": (
        "qwen2",
        Qwen2Config(
            **(COMMON | dict(vocab_size=320)),
            **width(64, 4, 2, 36),
            **rope(rope_theta=1000000.0),
            tie_word_embeddings=True,
        ),
        "v4",
        None,
    ),
    # A window on the layers from max_window_layers on, full attention below.
    "qwen2-window": (
        "qwen2",
        Qwen2Config(
            **COMMON,
            **width(32, 2, 2, 64),
            **rope(rope_theta=1000000.0),
            use_sliding_window=True,
            sliding_window=12,
            max_window_layers=1,
        ),
        "v5",
        None,
    ),
    # RMS norm on q and k, head_dim != hidden / heads, two shards.
    "qwen3": (
        "qwen2",
        Qwen3Config(**COMMON, **width(32, 4, 2, 64, 16), **rope(rope_theta=1000000.0)),
        "v5",
        "50KB",
    ),
}


def random_weights(model, name):
    """Large enough that attention is peaked, logits spread and no gradient vanishes; exact in bf16."""
    for key, p in model.named_parameters():
        rng = np.random.Generator(np.random.Philox(zlib.crc32(f"{name}/{key}".encode())))
        x = torch.from_numpy(rng.standard_normal(tuple(p.shape)).astype(np.float32))
        if "norm" in key:
            x = 1 + 0.2 * x
        elif key.endswith("bias"):
            x = 0.2 * x
        else:
            x = x * (1.2 / p.shape[1] ** 0.5)
        p.data.copy_(x.bfloat16())


def to_v4(config):
    """The spelling of transformers 4: rope_theta, rope_scaling and torch_dtype at the top level."""
    rope_parameters = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope_parameters.pop("rope_theta")
    kind = rope_parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope_parameters}
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.44.2"
    return config


def make_models(folder):
    for name, (tokenizer, config, spelling, shard) in MODELS.items():
        out = folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        make_tokenizer(tokenizer, out)
        model = AutoModelForCausalLM.from_config(config).bfloat16()
        random_weights(model, name)
        params = sum(p.numel() for p in model.parameters())
        assert params < 60000, (name, params)
        model.save_pretrained(out, max_shard_size=shard or "1GB")
        # generation_config.json says nothing that training reads.
        (out / "generation_config.json").unlink(missing_ok=True)
        config = json.loads((out / "config.json").read_text())
        write_json(out / "config.json", to_v4(config) if spelling == "v4" else config, indent=2)
        for path in out.glob("*.index.json"):
            write_json(path, json.loads(path.read_text()), indent=2)


def write_json(path, value, indent=1):
    text = json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=True)
    Path(path).write_text(re.sub(r"[ \t]+\n", "\n", text) + "\n", encoding="utf-8")
