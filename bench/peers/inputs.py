"""What all peers are given: one random model as a Hugging Face folder, one file of pairs.

The standard library alone makes them, so that they are the same bytes on every machine, whatever is
installed there:
  weights    bfloat16, random sign, magnitudes uniform in [1/64, 1/32) (standard deviation 0.024); norms 1.
             Exact in fp32, too, so that a peer that computes in fp32 has the same ones.
  tokenizer  byte-level BPE of which every token of the vocabulary is a word: " a" ... " zzz", so that a text
             of n words has n tokens, whichever way it is cut into tokens.
  pairs      words drawn as Zipf has it, of the lengths asked for; as text (pairs.jsonl) and as ids (ids.jsonl).
"""

import itertools
import json
import math
import random
import struct
from pathlib import Path

EOS = "<|endoftext|>"
SEED = 1

# The share of the vocabulary decides much on a CPU, where TRL scores prompts too, and projects to the
# vocabulary twice. So one shape has almost none (and is wide and shallow, so that matrix products, in which no
# program can be much faster than another, are nearly all of it), one has Llama 2's, two are between.
SHAPES = {
    "tiny": dict(hidden=64, layers=2, heads=4, kv=2, ffn=160, vocab=1024),
    "v1024": dict(hidden=640, layers=4, heads=10, kv=10, ffn=1760, vocab=1024),
    "v4096": dict(hidden=512, layers=6, heads=8, kv=8, ffn=1408, vocab=4096),
    "v12288": dict(hidden=384, layers=8, heads=6, kv=2, ffn=1056, vocab=12288),
    "v32000": dict(hidden=384, layers=8, heads=6, kv=6, ffn=1056, vocab=32000, tied=True),
    "Qwen2.5-0.5B": dict(
        hidden=896,
        layers=24,
        heads=14,
        kv=2,
        ffn=4864,
        vocab=151936,
        tied=True,
        arch="qwen2",
        theta=1e6,
        eps=1e-6,
    ),
    "Llama-3.2-1B": dict(
        hidden=2048, layers=16, heads=32, kv=8, ffn=8192, vocab=128256, tied=True, theta=5e5, rope_factor=32.0
    ),
    "Llama-3.1-8B": dict(
        hidden=4096, layers=32, heads=32, kv=8, ffn=14336, vocab=128256, theta=5e5, rope_factor=8.0
    ),
}
LARGE = ("Qwen2.5-0.5B", "Llama-3.2-1B", "Llama-3.1-8B")


def tiny_of(shape):
    """A tiny model of the same architecture."""
    kept = ("arch", "tied", "theta", "eps", "rope_factor")
    return SHAPES["tiny"] | {key: shape[key] for key in kept if key in shape}


# ---------------------------------------------------------------------------------------- lengths


class Lengths:
    """Draws (prompt, chosen, rejected) in tokens; `words` is what the command line said."""

    MEANS = (300, 400, 360)
    LEAST, MOST = 4, 1000  # of a prompt and of a completion: two fit into max_length 2048

    def __init__(self, words, cv=(0.75, 0.65)):
        self.words, self.cv, self.rows = list(words), tuple(cv), None
        if len(words) == 3:
            self.fixed = tuple(int(w) for w in words)
        elif words == ["lognormal"]:
            self.fixed = None
        elif len(words) == 1:
            self.fixed = None
            self.rows = [self.of_row(line) for line in Path(words[0]).read_text("utf-8").splitlines() if line]
        else:
            raise ValueError("lengths are three numbers, `lognormal`, or a .jsonl file")

    @classmethod
    def of_row(cls, line):
        """A number is tokens; a text is taken for one token per four bytes."""
        row = json.loads(line)

        def tokens(value):
            n = value if isinstance(value, int) else math.ceil(len(str(value).encode()) / 4)
            return min(max(n, cls.LEAST), cls.MOST)

        return tuple(tokens(row[key]) for key in ("prompt", "chosen", "rejected"))

    def draw(self, rng, index):
        if self.fixed:
            return self.fixed
        if self.rows:
            return self.rows[index % len(self.rows)]
        drawn = []
        for mean, cv in zip(self.MEANS, (self.cv[0], self.cv[1], self.cv[1])):
            sigma = math.sqrt(math.log(1 + cv * cv))
            drawn.append(round(rng.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)))
        return tuple(min(max(n, self.LEAST), self.MOST) for n in drawn)

    def __str__(self):
        if self.fixed:
            return "+".join(str(n) for n in self.fixed)
        return Path(self.words[0]).name if self.rows else "lognormal"

    def facts(self):
        """What a result says of them."""
        if self.fixed or self.rows:
            return {"drawn_from": self.words}
        return {
            "drawn_from": self.words,
            "means": self.MEANS,
            "cv": self.cv,
            "least": self.LEAST,
            "most": self.MOST,
            "seed": SEED,
        }


# -------------------------------------------------------------------------------------- tokenizer


def byte_alphabet():
    """Byte-level BPE's printable character of each byte (GPT-2's bytes_to_unicode)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + n) for n in itertools.count())
    return [chr(b) if b in plain else next(others) for b in range(256)]


def tokens_of(vocab):
    """The words of the vocabulary, id 256 first, the shortest first; the last id is the EOS."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ("".join(w) for n in itertools.count(1) for w in itertools.product(letters, repeat=n))
    return list(itertools.islice(words, vocab - 257))


def write_tokenizer(folder, vocab):
    """Every merge adds a letter to a token that begins with the space, so a word becomes its longest prefix."""
    alphabet = byte_alphabet()
    space = alphabet[ord(" ")]
    words = [space + w for w in tokens_of(vocab)]
    bytelevel = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            dict(
                id=vocab - 1,
                content=EOS,
                single_word=False,
                lstrip=False,
                rstrip=False,
                normalized=False,
                special=True,
            )
        ],
        "normalizer": None,
        "pre_tokenizer": bytelevel,
        "post_processor": bytelevel,
        "decoder": bytelevel,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(alphabet + words)},
            "merges": [[w[:-1], w[-1]] for w in words],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": EOS,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_pairs(folder, vocab, lengths, rows):
    """pairs.jsonl and ids.jsonl. Returns (tokens with each prompt once, tokens that trainers pad from)."""
    rng = random.Random(SEED)
    words = tokens_of(vocab)
    cumulative = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(words))))
    order = list(range(len(words)))
    rng.shuffle(order)  # frequent words have ids all over the table
    once = twice = 0

    def draw(n):
        return [order[i] for i in rng.choices(range(len(words)), cum_weights=cumulative, k=n)]

    with open(folder / "pairs.jsonl", "w") as texts, open(folder / "ids.jsonl", "w") as ids:
        for index in range(rows):
            prompt, chosen, rejected = lengths.draw(rng, index)
            picked = {"prompt": draw(prompt - 1), "chosen": draw(chosen - 1), "rejected": draw(rejected - 1)}
            row = {key: "".join(" " + words[w] for w in value) for key, value in picked.items()}
            row["prompt"] = "a" + row["prompt"]  # one token, so that no text begins with a space
            texts.write(json.dumps(row) + "\n")
            coded = {key: [256 + w for w in value] for key, value in picked.items()}
            coded["prompt"].insert(0, byte_alphabet().index("a"))
            coded["chosen"].append(vocab - 1)
            coded["rejected"].append(vocab - 1)
            ids.write(json.dumps(coded) + "\n")
            once += prompt + chosen + rejected
            twice += 2 * prompt + chosen + rejected
    return once, twice


# ------------------------------------------------------------------------------------------ model


def model_config(shape):
    eos = shape["vocab"] - 1
    arch = shape.get("arch", "llama")
    rope = {"rope_type": "default", "rope_theta": shape.get("theta", 10000.0)}
    if "rope_factor" in shape:
        rope |= dict(
            rope_type="llama3", factor=shape["rope_factor"], low_freq_factor=1.0, high_freq_factor=4.0
        )
        rope["original_max_position_embeddings"] = 8192
    return {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[arch]],
        "model_type": arch,
        "hidden_act": "silu",
        "hidden_size": shape["hidden"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv"],
        "intermediate_size": shape["ffn"],
        "vocab_size": shape["vocab"],
        "tie_word_embeddings": shape.get("tied", False),
        "rms_norm_eps": shape.get("eps", 1e-5),
        "rope_parameters": rope,
        "max_position_embeddings": 32768,
        "initializer_range": 0.02,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": eos,
        "dtype": "bfloat16",
    }


def tensors_of(shape):
    """Name and shape of every tensor of the folder, in the order of the file."""
    d, f, v = shape["hidden"], shape["ffn"], shape["vocab"]
    kv = d // shape["heads"] * shape["kv"]
    yield "model.embed_tokens.weight", (v, d)
    for i in range(shape["layers"]):
        for name, rows in (("q_proj", d), ("k_proj", kv), ("v_proj", kv)):
            yield f"model.layers.{i}.self_attn.{name}.weight", (rows, d)
            if shape.get("arch") == "qwen2":
                yield f"model.layers.{i}.self_attn.{name}.bias", (rows,)
        yield f"model.layers.{i}.self_attn.o_proj.weight", (d, d)
        yield f"model.layers.{i}.mlp.gate_proj.weight", (f, d)
        yield f"model.layers.{i}.mlp.up_proj.weight", (f, d)
        yield f"model.layers.{i}.mlp.down_proj.weight", (d, f)
        yield f"model.layers.{i}.input_layernorm.weight", (d,)
        yield f"model.layers.{i}.post_attention_layernorm.weight", (d,)
    yield "model.norm.weight", (d,)
    if not shape.get("tied", False):
        yield "lm_head.weight", (v, d)


def random_pool(rng, count):
    """`count` bfloat16: a random sign, exponent 2^-6, seven random bits of mantissa."""
    pool = bytearray(2 * count)
    pool[0::2] = rng.randbytes(count).translate(bytes(0x80 | b for b in range(256)))
    pool[1::2] = rng.randbytes(count).translate(bytes(0x3C | (b & 0x80) for b in range(256)))
    return memoryview(bytes(pool))


def write_weights(path, shape):
    """Returns the number of parameters. Tensors begin at random places of one pool, which has no period that
    divides a row, so that no two rows are equal."""
    rng = random.Random(SEED)
    tensors = list(tensors_of(shape))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dims in tensors:
        size = 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pool = random_pool(rng, min(offset // 2, 1 << 25) | 1)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, dims in tensors:
            left = 2 * math.prod(dims)
            if name.endswith("norm.weight"):
                out.write(b"\x80\x3f" * (left // 2))
                continue
            at = 2 * rng.randrange(len(pool) // 2)
            while left > 0:
                part = pool[at : at + left]
                out.write(part)
                left -= len(part)
                at = 0
    return offset // 2


def build(folder, shape, lengths, rows):
    """Write model/, pairs.jsonl and ids.jsonl into the folder; what of it belongs to a result."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    write_tokenizer(model, shape["vocab"])
    (model / "config.json").write_text(json.dumps(model_config(shape), indent=1))
    parameters = write_weights(model / "model.safetensors", shape)
    once, twice = write_pairs(folder, shape["vocab"], lengths, rows)
    return {"parameters": parameters, "pairs": rows, "tokens": once, "tokens_prompts_twice": twice}
