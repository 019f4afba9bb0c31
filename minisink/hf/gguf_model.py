"""Reading and writing a GGUF file: config, arrays and tokenizer, with keys and tensor names translated once to ours."""

import math
import warnings
from dataclasses import replace

import numpy as np

from .. import gpt2, llama
from ..families import falcon, gpt_neox, mpt
from ..positions import rope_frequencies
from .arrays import from_tensors, tensor_shapes, to_tensors
from .checkpoint import account_for
from .fields import common, divides, flag, naming, number, one_of, positive_int, refuse, text_or_none, token_ids
from .gguf_file import check_tensors, library, read_header, read_tensor
from .gguf_tokenizer import TOKENS, begins_text, special_ids, special_tokens, tokenizer_of, words_of

# Our names -> GGUF's, without the architecture's prefix
SIZES = {"d_model": "embedding_length", "n_layers": "block_count", "n_heads": "attention.head_count"}
SIZES |= {"d_ff": "feed_forward_length", "max_positions": "context_length"}
GPT2 = SIZES | {"norm_eps": "attention.layer_norm_epsilon"}
LLAMA = SIZES | {"norm_eps": "attention.layer_norm_rms_epsilon", "head_dim": "attention.key_length"}
LLAMA["n_kv_heads"] = "attention.head_count_kv"
KEYS = dict.fromkeys(("llama", "qwen2", "qwen3"), LLAMA) | dict.fromkeys(("gpt2", "gptneox", "falcon", "mpt"), GPT2)
EMBED, HEAD = "token_embd.weight", "output.weight"
ROPE_FACTORS = "rope_freqs.weight"  # divisors of the frequencies: Llama 3's rule, written out


def arch_of(config):
    """Return GGUF's name for the architecture."""
    return config.model_type.replace("_", "")


def read(path, *, dtype):
    """Read a GGUF file as `folder.read` reads a folder; errors name the file, and the key or tensor that is wrong."""
    about, tensors, start, align = read_header(path)
    library()
    with naming(path):
        config, ids = read_config(about, tensors)
        tokenizer = tokenizer_of(about, config.vocab_size, config.bos)
        chat_template = text_or_none(about, "tokenizer.chat_template")
    shapes = tensor_shapes(config, "GGUF")
    if isinstance(config, llama.Config) and ROPE_FACTORS in tensors:
        shapes[ROPE_FACTORS] = (config.head_dim // 2,)
    account_for(path, {name: (path, shape) for name, (_, shape, _) in tensors.items()}, shapes, "metadata")
    check_tensors(path, tensors, start, align)
    ignored = []

    def tensor(name, dtype=dtype):
        return read_tensor(path, name, *tensors[name], dtype=dtype)

    if not config.tied and np.array_equal(tensor(HEAD), tensor(EMBED)):  # older files of tied models
        config = replace(config, tied=True)
        ignored.append(HEAD)
    if ROPE_FACTORS in tensors:
        factors = tensor(ROPE_FACTORS, np.dtype("float64"))
        with naming(path):
            config = replace(config, rope_scaling=_rule_of(about, config, factors))
        ignored.append(ROPE_FACTORS)
    chat = chat_template, None if tokenizer is None else special_tokens(about, ids)
    return config, from_tensors(config, tensor, "GGUF"), tokenizer, ignored, chat


# What llama.cpp fixes for an architecture, with no key in the file; our config may differ
WRITTEN: dict[str, dict] = {"gpt_neox": {"activation": "gelu", "bias": True}}
WRITTEN["falcon"] = {"activation": "gelu", "bias": False, "parallel": True}
WRITTEN["qwen3"] = {"qk_norm": True, "o_bias": False, "mlp_bias": False}


def write(path, config, arrays, tokenizer=None):
    """Write a GGUF file that llama.cpp loads, in float32, with GPT-2's tokenizer or none; this needs the package gguf.

    With narrower weights llama.cpp would round the other factor of each product. Raise ValueError for any other kind of
    softmax, scaled positions, and anything the file's architecture cannot express.
    """
    if config.softmax != "softmax" or config.sink_logit or getattr(config, "rope_scaling", None):
        raise ValueError(f"{path}: not written; a GGUF file can only have the plain softmax and plain rotary positions")
    for field, only in WRITTEN.get(config.model_type, {}).items():
        if (ours := getattr(config, field)) != only:
            raise ValueError(f"{path}: not written; {arch_of(config)} always has {field} {only!r} there, not {ours!r}")
    library()
    from gguf import GGUFWriter

    config = replace(config, model_type="llama") if config.model_type == "mistral" else config  # the same to llama.cpp
    writer = GGUFWriter(path, arch_of(config))
    for key, value in (_words_of(config) | words_of(tokenizer, config.bos)).items():
        getattr(writer, f"add_{key}")(value)
    for name, array in to_tensors(config, arrays, "GGUF").items():
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
    if config.tied and config.model_type == "gpt_neox":  # llama.cpp expects it
        writer.add_tensor(HEAD, np.ascontiguousarray(arrays["embed"], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _words_of(config):
    """Return the calls to a `gguf.GGUFWriter` for a config."""
    about = {key.rpartition(".")[2]: getattr(config, field) for field, key in SIZES.items()}
    about |= {"head_count_kv": config.n_kv_heads, "key_length": config.head_dim, "value_length": config.head_dim}
    about["vocab_size"] = config.vocab_size
    about["layer_norm_rms_eps" if isinstance(config, llama.Config) else "layer_norm_eps"] = config.norm_eps
    if hasattr(config, "rope_theta"):
        about["rope_freq_base"] = config.rope_theta
        about["rope_dimension_count"] = getattr(config, "rotary_dim", config.head_dim)
    if config.model_type == "gpt_neox":
        about["parallel_residual"] = config.parallel
    if config.model_type == "mpt":
        about["max_alibi_bias"] = config.alibi_bias_max
    return about


# An architecture's keys, without its name: those that are read, and those that affect nothing supported here
KNOWN = """vocab_size attention.causal attention.layer_norm_epsilon attention.layer_norm_rms_epsilon pooling_type
    tensor_data_layout rope.scaling.finetuned rope.scaling.original_context_length
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow rope.scaling.yarn_log_multiplier""".split()
KNOWN += SIZES.values()
KNOWN_ROPE = "rope.dimension_count rope.freq_base rope.scaling.type rope.scaling.factor rope.scale_linear".split()
KNOWN_OWN = dict.fromkeys(("llama", "qwen3"), ["attention.sliding_window"])
KNOWN_OWN["qwen2"] = ["attention.sliding_window", "use_parallel_residual"]  # true in Qwen1.5's files: an early name
KNOWN_OWN |= {"gptneox": ["use_parallel_residual"], "mpt": ["attention.max_alibi_bias"]}
# Factors that change nothing when they are 1, and llama.cpp's value for no scaling
NEUTRAL = """logit_scale embedding_scale residual_scale attention.output_scale
    rope.scaling.alpha rope.scaling.attn_factor rope.scaling.yarn_attn_factor""".split()
SAME = dict.fromkeys(NEUTRAL, 1.0) | {"rope.scaling.yarn_ext_factor": -1.0}


def _check_rest(about, config):
    """Refuse every other key of the architecture, unless its value changes nothing: 0 for off, or the default.

    Warn of unused keys for rotary positions, which belong to another architecture or to one without rotation.
    """
    arch, D, rotates = arch_of(config), config.head_dim, hasattr(config, "rope_theta")
    known = KNOWN + (KNOWN_ROPE if rotates else []) + KNOWN_OWN.get(arch, [])
    same = SAME | {"attention.scale": D**-0.5, "embedding_length_out": config.d_model}
    same |= {"attention.head_count_kv": config.n_kv_heads, "attention.key_length": D, "attention.value_length": D}
    for key, value in about.items():
        prefix, _, name = key.partition(".")
        if prefix == arch:
            is_same = isinstance(value, (int, float)) and name in same and math.isclose(value, same[name], rel_tol=1e-6)
            if name in known or not value or is_same:
                continue
            if rotates or not name.startswith("rope."):
                raise ValueError(f"{key} is {value!r}, which is not supported")
        if ".rope." in f".{key}":
            warnings.warn(f"{key} is not read: {arch} has no such key", stacklevel=2)


def read_config(about, tensors):
    """Translate metadata, supplemented by the tensor names, to (a `Config`, its `special_ids`)."""
    arch, words = one_of(about, "general.architecture", tuple(KEYS)), about.get(TOKENS)
    V = positive_int(about, f"{arch}.vocab_size", len(words) or None if isinstance(words, list) else None)
    ids, begins = special_ids(about, V), begins_text(about)
    refuse(about, **{"general.type": "model", f"{arch}.attention.causal": True})
    if (n_parts := about.get("split.count")) not in (None, 0, 1):  # 0 after parts were joined
        raise ValueError(f"split.count is {n_parts!r}: it is one of several parts; llama-gguf-split --merge joins them")
    if begins and "bos" not in ids:
        warnings.warn("no tokenizer.ggml.bos_token_id: no token begins a text (in llama.cpp, 11 does)", stacklevel=2)
    ends = [ids["eos"]] if "eos" in ids else []
    for name in ("eot_token_id", "eom_token_id", "eos_token_ids"):  # the last is Ollama's
        ends += token_ids(about, f"tokenizer.ggml.{name}", V)
    named = {"vocab_size": V, "bos_token_id": ids.get("bos") if begins else None}
    named["eos_token_id"] = list(dict.fromkeys(ends))
    keys = {field: f"{arch}.{key}" for field, key in KEYS[arch].items()}
    sizes = common(about | named, keys, tied=HEAD not in tensors, norm_eps=None)
    config = (_llama if KEYS[arch] is LLAMA else _gpt2)(about, tensors, arch, sizes)
    _check_rest(about, config)
    return config, ids


def _llama(about, tensors, arch, sizes):
    D = sizes["head_dim"]
    for key in ("attention.value_length", "rope.dimension_count"):
        if positive_int(about, f"{arch}.{key}", D) != D:
            raise ValueError(f"{arch}.{key} is {about[f'{arch}.{key}']}; heads of {D} channels need {D}")
    key = f"{arch}.attention.sliding_window"
    window = positive_int(about, key) if about.get(key) else sizes["max_positions"]  # 0 means none
    if window < sizes["max_positions"]:
        raise ValueError(f"{key} is {window}: a window inside the model is not supported")
    biases: dict = {"qkv_bias": arch == "qwen2" or "blk.0.attn_q.bias" in tensors}
    biases |= {"o_bias": "blk.0.attn_output.bias" in tensors, "mlp_bias": "blk.0.ffn_gate.bias" in tensors}
    return llama.Config(**sizes, **_rope(about, arch), **biases, qk_norm=arch == "qwen3", model_type=arch)


def _gpt2(about, tensors, arch, sizes):
    """Make the `Config` of a GPT-2, or of a family that shares its skeleton.

    No key gives the activation. A family gets the exact GELU of its original models; llama.cpp uses GPT-2's for all.
    """
    H, C = sizes["n_heads"], sizes["d_model"]
    if arch == "gpt2":
        return gpt2.Config(**sizes)
    if arch == "mpt":
        return mpt.Config(**sizes, alibi_bias_max=number(about, "mpt.attention.max_alibi_bias"))
    sizes |= _rope(about, arch)
    key, D = f"{arch}.rope.dimension_count", C // H
    R, K = positive_int(about, key, D), positive_int(about, f"{arch}.attention.head_count_kv", H)
    if R % 2 or R > D or (arch == "falcon" and R < D):
        raise ValueError(f"{key} is {R}, but a head has {D} channels; it must be an even number, in falcon all of them")
    if arch == "gptneox":
        return gpt_neox.Config(**sizes, rotary_dim=R, parallel=flag(about, "gptneox.use_parallel_residual", None))
    divides(K, H, ("falcon.attention.head_count_kv", "falcon.attention.head_count"))
    return falcon.Config(**sizes, n_kv_heads=K, n_norms=1 + any(".attn_norm_2." in name for name in tensors))


def _rope(about, arch):
    """Read base and scaling as llama.cpp does; Llama 3's scaling is a tensor, not a key: `_rule_of`.

    A factor is linear unless the type says otherwise. Files from 2023 use a different key for it.
    """
    kind = one_of(about, f"{arch}.rope.scaling.type", ("none", "linear"), "linear")
    key = f"{arch}.rope.scaling.factor"
    key = f"{arch}.rope.scale_linear" if about.get(key) is None else key
    factor = number(about, key) if about.get(key) and kind == "linear" else 1.0  # 0 means none
    scaling = None if factor == 1.0 else {"rope_type": "linear", "factor": factor}
    return {"rope_theta": number(about, f"{arch}.rope.freq_base", 10000.0), "rope_scaling": scaling}


def _rule_of(about, config, factors):
    """Recover Llama 3's rule from its factors (D/2,), which are all that a file has; None if all are 1."""
    if (factors == 1.0).all():
        return config.rope_scaling
    if config.rope_scaling is not None:
        raise ValueError(f"tensor {ROPE_FACTORS} with a linear scaling in the metadata is not supported")
    trained = number(about, f"{config.model_type}.rope.scaling.original_context_length", 8192.0)
    rule = {"rope_type": "llama3", "factor": float(str(np.float32(factors.max())))}
    rule |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": trained}
    plain = rope_frequencies(config.head_dim, config.rope_theta)
    scaled = rope_frequencies(config.head_dim, config.rope_theta, rule)
    if not np.allclose(plain / scaled, factors, rtol=1e-4, atol=0.0):
        raise ValueError(f"{ROPE_FACTORS} holds factors that do not follow Llama 3's rule")
    return rule
