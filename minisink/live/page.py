"""One HTML file with a model, a text and the scripts of this folder, which needs no network."""

import base64
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from ..hf.shipped import sample_text
from ..system.files import read_text

HERE = Path(__file__).parent
SCRIPTS = ("engine.mjs", "files.mjs", "steps.mjs", "page.mjs")  # each imports from earlier ones
RUNS = ("llama", "mistral", "qwen2", "gpt2")  # the model types that engine.mjs supports
MOST_BYTES = 30_000_000  # of the weights
MOST_TEXT = 20_000  # characters; page.mjs has the same number
# Features that the page's byte-level BPE lacks, and their required values in a tokenizer
PLAIN = {"type": "BPE", "byte_fallback": False, "ignore_merges": False}
PLAIN |= dict.fromkeys(("unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def page(*, model=None, text="", steps=()):
    """Return the page, for a model with a text to read, or for recorded steps."""
    data = {"text": text[:MOST_TEXT], "steps": list(steps)} | ({} if model is None else pack(model))
    modules = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = re.sub(r"^import .*\n|^export ", "", modules, flags=re.MULTILINE)  # all share the page's scope
    style = (HERE / "page.css").read_text(encoding="utf-8")
    policy = f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; base-uri 'none'; "
    parts = {"policy": policy + "form-action 'none'", "style": style, "script": script}
    parts["data"] = json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # so that no text can end the script
    return re.sub(r"\{\{(\w+)\}\}", lambda part: parts[part[1]], (HERE / "page.html").read_text(encoding="utf-8"))


def sample(length=6000):
    """Return the sample text, starting with its first sentence."""
    return read_text(sample_text()).split("\n\n", 3)[3][:length]


def pack(model):
    """Return config, arrays and tokenizer in the page's form; raise ValueError for a model that it cannot run."""
    config, size = model.config, 2 * model.n_parameters
    if config.model_type not in RUNS:
        remedy = "record it with `minisink inspect TEXT --steps FILE`, and show that with --play"
        raise ValueError(f"{model.name} is a {config.model_type}; the page runs {', '.join(RUNS)}: {remedy}")
    if size > MOST_BYTES:
        raise ValueError(f"{model.name}: {size / 1e6:.0f} MB in half precision; a page holds {MOST_BYTES // 10**6} MB")
    about = asdict(config) | {name: getattr(config, name) for name in ("model_type", "head_dim", "n_kv_heads")}
    about["name"] = model.name
    if not config.learned_positions:
        about["frequencies"] = config.frequencies.tolist()
    arrays = {name: np.ascontiguousarray(_narrow(array)) for name, array in model.arrays().items()}
    return {"config": about, "arrays": base64.b64encode(save(arrays)).decode(), "tokenizer": _tokenizer(model)}


def _narrow(array):
    """Return float16 if that changes no number, as for the shipped models, and float32 otherwise."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if (half == array).all() else array.astype(np.float32)


def _tokenizer(model):
    """Return the tokenizer's vocabulary, merges and special tokens; ValueError names what the page does not support."""
    about = json.loads(model._need_tokenizer().to_str())
    bpe, cut = about["model"], about["pre_tokenizer"] or {}
    odd = {f"model.{key}": bpe.get(key) for key in PLAIN if bpe.get(key) != PLAIN[key]}
    odd |= {f"pre_tokenizer.{key}": cut.get(key) for key in BYTE_LEVEL if cut.get(key) != BYTE_LEVEL[key]}
    odd |= {"normalizer": about["normalizer"]["type"]} if about["normalizer"] else {}
    odd |= {f"added word {token['id']}": token["content"] for token in about["added_tokens"] if not token["special"]}
    if odd:
        key, value = next(iter(odd.items()))
        raise ValueError(f"{model.name}: its tokenizer has {key} {value!r}; the page only has GPT-2's byte-level BPE")
    return {"model": {key: bpe[key] for key in ("vocab", "merges")}, "added_tokens": about["added_tokens"]}


def _digest(source):
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
