"""Folders in: every dtype, spelling and layout that is promised, and one clear CheckpointError for everything else."""

import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny
from folders import file_of, models, packed, same, shard, tensors, tensors_of, with_header, words, write
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import minisink
from minisink import CheckpointError, gpt2, llama
from minisink.hf import checkpoint
from minisink.hf.folder import FORMATS, config_of, raw_of

# What loads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
@settings(max_examples=12)
@given(model=models, dtype=st.sampled_from(["float32", "float64"]))
def test_each_float_is_widened_exactly(kind, model, dtype):
    """Whatever is stored comes back as the same number (float64 in float32 excepted, which rounds once)."""
    with tempfile.TemporaryDirectory() as folder:
        stored = write(Path(folder), model, kind)
        loaded = minisink.load(folder, dtype=dtype)
        assert loaded.config == model.config
        if kind == "BF16":
            wanted = {k: np.array([cut(x) for x in a.reshape(-1)]).reshape(a.shape) for k, a in stored.items()}
        else:
            narrow = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[kind]
            wanted = {k: a.astype(narrow) for k, a in stored.items()}
        same(tensors(loaded), {k: a.astype(dtype) for k, a in wanted.items()})


def cut(x):
    """The float32 next to x towards zero whose lower 16 bits are zero."""
    return struct.unpack("<f", b"\0\0" + struct.pack("<f", x)[2:])[0]


@given(arrays(np.uint16, array_shapes(max_side=5)), st.sampled_from([np.float32, np.float64]))
@example(np.array([0x7F80, 0xFF80, 0x7FC0, 0x0001, 0x8000], np.uint16), np.float32)
def test_bfloat16_is_the_upper_half_of_a_float32(bits, dtype):
    """Every one of the 65,536 patterns, infinities, NaN and subnormals among them."""
    got = checkpoint.widen(bits, np.dtype(dtype))
    assert (got.dtype, got.shape) == (dtype, bits.shape)
    for x, pattern in zip(got.reshape(-1).tolist(), bits.reshape(-1).tolist(), strict=True):
        wanted = struct.unpack("<f", struct.pack("<HH", 0, pattern))[0]
        assert struct.pack("<d", x) == struct.pack("<d", wanted) or (x != x and wanted != wanted)


@settings(max_examples=20)
@given(models, st.booleans(), st.booleans())
def test_every_spelling_of_a_folder_loads(model, prefixed, sharded):
    """With or without the prefix of names, whole or in shards, with buffers older files carry."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stored = write(folder, model)
        prefix = FORMATS[model.config.model_type].PREFIX
        raw = tensors_of(folder / "model.safetensors")
        raw |= {prefix + buffer: about for buffer, about in BUFFERS[model.config.model_type].items()}
        if model.config.tied:
            raw["lm_head.weight"] = raw[next(n for n in raw if n.endswith(("embed_tokens.weight", "wte.weight")))]
        if not prefixed:
            raw = {tensor.removeprefix(prefix): about for tensor, about in raw.items()}
        (folder / "model.safetensors").write_bytes(file_of(raw))
        if sharded:
            shard(folder, names=["model-1.safetensors", "model-2.safetensors", "model-3.safetensors"])
        loaded = minisink.load(folder)
        same(tensors(loaded), {k: a.astype(np.float32) for k, a in stored.items()})
        ignored = {*BUFFERS[model.config.model_type], *(["lm_head.weight"] if model.config.tied else [])}
        assert {tensor.removeprefix(prefix) for tensor in loaded.ignored} == ignored


BUFFERS = {
    "llama": {
        "layers.0.self_attn.rotary_emb.inv_freq": ("F32", (3,), b"\0" * 12),
        "rotary_emb.inv_freq": ("F32", (3,), b"\0" * 12),
    },
    "gpt2": {
        "h.0.attn.bias": ("U8", (1, 1, 2, 2), b"\1" * 4),  # a causal mask
        "h.0.attn.masked_bias": ("F32", (), b"\0" * 4),
        "h.1.attn.bias": ("BOOL", (1, 1, 2, 2), b"\1" * 4),
    },
}


def test_a_model_is_one_map_at_a_time(tmp_path):
    """Loading 50 MB takes little more than the 50 MB: neither the file nor a second copy lies in memory."""
    model = tiny.make(dtype=np.float32, n_layers=6, d_model=256, n_heads=8, n_kv_heads=8, head_dim=32, d_ff=1024)
    write(tmp_path, model, "F16")
    n_bytes = 2 * (tmp_path / "model.safetensors").stat().st_size  # float16 widened
    assert n_bytes > 20e6
    script = (
        "import sys, tracemalloc\n"
        "from minisink import load\n"
        "tracemalloc.start()\n"
        "model = load(sys.argv[1])\n"
        "print(*tracemalloc.get_traced_memory())"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    held, peak = map(int, run.stdout.split())
    assert held > 0.95 * n_bytes
    assert peak < 1.2 * n_bytes


def test_a_tokenizer_takes_texts_whole(tmp_path):
    """A length limit or padding written into tokenizer.json does not cut or fill up a text."""
    tokenizer = words(17)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=4)
    write(tmp_path, tiny.make(), tokenizer=tokenizer)
    encode = minisink.load(tmp_path).encode
    assert encode("w1 w2 w3 w4 w5", bos=False).tolist() == [1, 2, 3, 4, 5]
    assert encode("w1", bos=False).tolist() == [1]


def test_special_tokens_in_a_text_stay_text(tmp_path):
    """Whoever types "<s>" has typed three characters."""
    write(tmp_path, tiny.make(bos=16), tokenizer=words(16, ["<s>"]))
    model = minisink.load(tmp_path)
    assert model.tokenizer.token_to_id("<s>") == 16
    assert model.encode("<s>").tolist() == [16, 0]  # the begin of the text, then a word it does not know
    assert model.encode("<s>", bos=False).tolist() == [0]


# What does not ------------------------------------------------------------------------------------

DROP = object()


def config(**changes):
    """Overwrite keys of config.json, or drop them."""

    def apply(folder):
        path = folder / "config.json"
        raw = json.loads(path.read_text(encoding="utf-8")) | changes
        path.write_text(json.dumps({k: v for k, v in raw.items() if v is not DROP}), encoding="utf-8")

    return apply


def put(name, content):
    def apply(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    return apply


def weights(change, **header):
    """Change the dict of tensors, and parts of header entries."""

    def apply(folder):
        raw = tensors_of(folder / "model.safetensors")
        change(raw)
        (folder / "model.safetensors").write_bytes(file_of(raw, **header))

    return apply


def tensor(name, about):
    return weights(lambda raw: raw.update({name: about}))


def header(**entry):
    return weights(lambda raw: None, **{NORM: entry})


def index(change):
    """Shards, and an index that is changed."""

    def apply(folder):
        shard(folder)
        path = folder / "model.safetensors.index.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(change(raw)), encoding="utf-8")

    return apply


def lies_in(place):
    return index(lambda raw: raw | {"weight_map": raw["weight_map"] | {NORM: place}})


def cut_off(n):
    def apply(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:n])

    return apply


def both_shards(folder):
    shard(folder)
    first, second = sorted(folder.glob("model-*"))
    double = tensors_of(first)
    name = next(iter(double))
    (second).write_bytes(file_of(tensors_of(second) | {name: double[name]}))


def lost(name):
    def apply(folder):
        shard(folder)
        (folder / name).unlink()

    return apply


def promised(folder):
    shard(folder)
    path = sorted(folder.glob("model-*"))[0]
    raw = tensors_of(path)
    del raw[next(name for name in raw if "layers.1" in name)]
    path.write_bytes(file_of(raw))


def all_gone(folder):
    shutil.rmtree(folder)


NORM = "model.norm.weight"
FLOAT_BYTES = np.ones(10, "<f4").tobytes()
LLAMA3 = tiny.LLAMA3
FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PLAIN = "which is not a plain"

BAD_FILES = {
    "no such folder": (all_gone, "no such folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda folder: (folder / FILE).unlink(), "has neither"),
    "config is not JSON": (put("config.json", b"{"), "config.json: not readable as JSON"),
    "config is not UTF-8": (put("config.json", b'{"a": "\xff"}'), "config.json: not readable as JSON"),
    "config is empty": (put("config.json", b""), "config.json: not readable as JSON"),
    "config is a list": (put("config.json", []), "config.json: holds a JSON list"),
    "config is null": (put("config.json", b"null"), "config.json: holds a JSON NoneType"),
    "config nests too deep": (put("config.json", b"[" * 100_000), "config.json: not readable as JSON"),
    "config has a number of 5000 digits": (put("config.json", b"9" * 5000), "config.json: not readable as JSON"),
    # the safetensors file
    "empty file": (put(FILE, b""), FILE),
    "cut in the length": (cut_off(5), FILE),
    "cut in the header": (cut_off(100), FILE),
    "cut in the data": (cut_off(-1), FILE),
    "header longer than the file": (put(FILE, with_header(b"{}", length=10**6)), FILE),
    "header of 100 MB": (put(FILE, with_header(b"{}", length=101 * 2**20)), FILE),
    "header of 2**64 - 1 bytes": (put(FILE, with_header(b"{}", length=2**64 - 1)), FILE),
    "header is not JSON": (put(FILE, with_header(b"{tensors}")), FILE),
    "header is not UTF-8": (put(FILE, with_header(b'{"\xff": 1}')), FILE),
    "header is a list": (put(FILE, with_header(b"[]")), FILE),
    "header without tensors": (put(FILE, with_header(b"{}")), "is missing"),
    "bytes after the data": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes() + b"!"), FILE),
    "tensors that overlap": (header(data_offsets=[0, 40]), FILE),
    "a tensor out of range": (header(data_offsets=[10**9, 10**9 + 40]), FILE),
    "a tensor that ends before it begins": (header(data_offsets=[40, 0]), FILE),
    "negative offsets": (header(data_offsets=[-40, 0]), FILE),
    "a shape of 0 by 2**62": (header(shape=[0, 2**62]), FILE),
    "a shape too large to count": (header(shape=[2**62, 2**62]), FILE),
    "a negative shape": (header(shape=[-10]), FILE),
    "a shape larger than the bytes": (header(shape=[11]), FILE),
    "an unknown dtype": (header(dtype="F99"), FILE),
    "a folder in place of the file": (lambda f: ((f / FILE).unlink(), (f / FILE).mkdir()), "has neither"),
    # tensors
    "a missing tensor": (weights(lambda raw: raw.pop(NORM)), f"tensor {NORM} is missing"),
    "a missing layer": (
        weights(lambda raw: [raw.pop(k) for k in list(raw) if "layers.2" in k]),
        "layers.2.input_layernorm.weight is missing (and 8 more)",
    ),
    "an extra tensor": (
        tensor("model.extra", packed(np.ones(3))),
        "model.safetensors: tensor model.extra has no place",
    ),
    "a bias the config does not know": (
        tensor("model.layers.0.self_attn.q_proj.bias", packed(np.ones(24))),
        "model.layers.0.self_attn.q_proj.bias has no place",
    ),
    "a fourth layer": (
        tensor("model.layers.3.input_layernorm.weight", packed(np.ones(10))),
        "model.layers.3.input_layernorm.weight has no place",
    ),
    "a misshapen tensor": (tensor(NORM, packed(np.ones(11))), f"{NORM} has shape (11,); the config asks for (10,)"),
    "a transposed tensor": (
        tensor("model.layers.0.mlp.up_proj.weight", packed(np.ones((10, 14)))),
        "tensor model.layers.0.mlp.up_proj.weight has shape (10, 14)",
    ),
    "a tensor with one axis more": (tensor(NORM, packed(np.ones((10, 1)))), f"tensor {NORM} has shape (10, 1)"),
    "a tensor of nothing": (tensor(NORM, packed(np.ones((0, 10)))), f"tensor {NORM} has shape (0, 10)"),
    "whole numbers": (tensor(NORM, ("I64", (10,), b"\0" * 80)), f"tensor {NORM} is I64; supported are"),
    "fp8": (tensor(NORM, ("F8_E4M3", (10,), b"\0" * 10)), f"tensor {NORM} is F8_E4M3; supported are"),
    # the index
    "index without weight_map": (index(lambda raw: {"metadata": {}}), f"{INDEX}: has no weight_map"),
    "weight_map is empty": (index(lambda raw: {"weight_map": {}}), f"{INDEX}: has no weight_map"),
    "weight_map is a list": (index(lambda raw: {"weight_map": ["a"]}), f"{INDEX}: has no weight_map"),
    "index is a list": (index(lambda raw: [raw]), f"{INDEX}: holds a JSON list"),
    "out of the folder": (lies_in("../x.safetensors"), f"{NORM} lies in '../x.safetensors', {PLAIN}"),
    "into a folder": (lies_in("a/x.safetensors"), f"{NORM} lies in 'a/x.safetensors', {PLAIN}"),
    "absolute": (lies_in("/etc/x.safetensors"), f"lies in '/etc/x.safetensors', {PLAIN}"),
    "backslash": (lies_in("..\\x.safetensors"), f"safetensors', {PLAIN}"),
    "drive": (lies_in("c:x.safetensors"), PLAIN),
    "null byte": (lies_in("x\0.safetensors"), PLAIN),
    "newline": (lies_in("x.safetensors\n"), PLAIN),
    "dots": (lies_in(".."), PLAIN),
    "not safetensors": (lies_in("pytorch_model.bin"), f"lies in 'pytorch_model.bin', {PLAIN}"),
    "shard is a number": (lies_in(3), f"lies in 3, {PLAIN}"),
    "shard is null": (lies_in(None), f"lies in None, {PLAIN}"),
    "shard is missing": (lost("model-00002-of-00002.safetensors"), "model-00002-of-00002.safetensors: missing"),
    "shard the index alone knows": (lies_in("other.safetensors"), "other.safetensors: missing"),
    "promised": (promised, "though the index says so"),
    "in two shards": (both_shards, "as well"),
    # the tokenizer
    "tokenizer is not JSON": (put("tokenizer.json", b"{"), "tokenizer.json: not a tokenizer"),
    "tokenizer is empty": (put("tokenizer.json", b""), "tokenizer.json: not a tokenizer"),
    "tokenizer is something else": (put("tokenizer.json", {"model": 3}), "tokenizer.json: not a tokenizer"),
    "tokenizer is not UTF-8": (put("tokenizer.json", b"\xff"), "tokenizer.json: not a tokenizer"),
    "tokenizer larger than the vocabulary": (
        lambda folder: words(18).save(str(folder / "tokenizer.json")),
        "tokenizer.json: has token id 17, but the model's vocab_size is 17",
    ),
    "an added token beyond the vocabulary": (
        lambda folder: words(17, ["<s>"]).save(str(folder / "tokenizer.json")),
        "tokenizer.json: has token id 17",
    ),
}

NEEDED = {
    "llama": ["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size"],
    "gpt2": ["n_embd", "n_head", "n_layer", "vocab_size"],
}
WHOLE = {
    "llama": [*NEEDED["llama"], "num_key_value_heads", "head_dim", "max_position_embeddings"],
    "gpt2": [*NEEDED["gpt2"], "n_inner", "n_positions"],
}
NO_WHOLE = [0, -1, True, "8", 2.5, 8.0, [], {}, [8]]
NUMBERS = {"llama": ["rms_norm_eps", "rope_theta"], "gpt2": ["layer_norm_epsilon"]}
NO_NUMBER = [-1e-5, True, "1e-5", float("inf"), float("nan")]
NO_NUMBER += [0, 0.0, [], {}, 10**400]
FLAGS = {"llama": ["attention_bias", "mlp_bias", "tie_word_embeddings"], "gpt2": ["tie_word_embeddings"]}
NO_FLAG = [0, 1, "true", [], {}]
TOKEN_IDS = ["bos_token_id", "eos_token_id"]
NO_TOKEN_ID = [-1, 17, 2**63, 1.0, True, "<s>", [17], {}]
NO_OBJECT = [[], ["linear"], "linear", 3, True]

LINEAR = {"rope_type": "linear", "factor": 2.0}
BAD_CONFIGS = [
    *[("llama", {"model_type": v}, "model_type") for v in ("bert", "mixtral", "", None, DROP, 3, ["llama"], {})],
    *[("llama", {"hidden_act": v}, "hidden_act") for v in ("gelu", "relu", 3, [])],
    *[("gpt2", {"activation_function": v}, "activation_function") for v in ("gelu", "relu", 3, [])],
    *[(kind, {key: DROP}, f"{key} is missing") for kind, keys in NEEDED.items() for key in keys],
    *[(kind, {key: None}, f"{key} is missing") for kind, keys in NEEDED.items() for key in keys],
    *[(kind, {key: v}, f"{key} is {v!r}") for kind, keys in WHOLE.items() for key in keys for v in NO_WHOLE],
    *[(kind, {key: v}, f"{key} is {v!r}") for kind, keys in NUMBERS.items() for key in keys for v in NO_NUMBER],
    *[(kind, {key: v}, f"{key} is {v!r}") for kind, keys in FLAGS.items() for key in keys for v in NO_FLAG],
    *[(kind, {key: v}, f"{key} is ") for kind in WHOLE for key in TOKEN_IDS for v in NO_TOKEN_ID],
    ("llama", {"num_attention_heads": 3, "head_dim": DROP}, "hidden_size is 10, which num_attention_heads 3"),
    ("llama", {"num_attention_heads": 11, "head_dim": DROP}, "hidden_size is 10, which num_attention_heads 11"),
    ("llama", {"num_key_value_heads": 3}, "num_attention_heads is 4, which num_key_value_heads 3"),
    ("llama", {"num_key_value_heads": 8}, "num_attention_heads is 4, which num_key_value_heads 8"),
    ("gpt2", {"n_head": 5}, "n_embd is 24, which n_head 5"),
    ("llama", {"head_dim": 5}, "head_dim is 5"),
    ("llama", {"hidden_size": 12, "head_dim": DROP}, "head_dim is 3"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is"),
    ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config is"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
    ("llama", {"model_type": "mistral", "sliding_window": 64}, "sliding_window is 64"),
    ("llama", {"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0"),
    ("llama", {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64}, "sliding_window is 64"),
    *[("llama", {"rope_scaling": {"type": v, "factor": 2.0}}, "rope type") for v in ("yarn", "dynamic", 3, [], None)],
    ("llama", {"rope_scaling": {"type": "linear"}}, "factor is missing"),
    *[("llama", {"rope_scaling": LINEAR | {"factor": v}}, f"factor is {v!r}") for v in NO_NUMBER],
    *[("llama", {"rope_scaling": LLAMA3 | {key: None}}, f"{key} is missing") for key in LLAMA3 if key != "rope_type"],
    *[("llama", {"rope_scaling": LLAMA3 | {key: -1}}, f"{key} is -1") for key in LLAMA3 if key != "rope_type"],
    *[(kind, {"minisink": {"softmax": v}}, "softmax is") for kind in WHOLE for v in ("softmax2", 1, [])],
    *[(kind, {"minisink": {"sink_logit": v}}, "sink_logit is") for kind in WHOLE for v in (1, "yes", [])],
    *[("llama", {"rope_parameters": {"rope_theta": v}}, f"rope_theta is {v!r}") for v in NO_NUMBER],
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ("llama", {"model_type": "mistral", "sliding_window": "64"}, "sliding_window is '64'"),
    ("llama", {"model_type": "mistral", "sliding_window": [64]}, "sliding_window is [64]"),
    ("llama", {"model_type": "qwen2", "use_sliding_window": "no"}, "use_sliding_window is 'no'"),
    ("llama", {"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor is 1.0"),
    ("llama", {"rope_scaling": LLAMA3 | {"high_freq_factor": 0.5}}, "high_freq_factor is 0.5"),
    *[("llama", {key: v}, f"{key} is {v!r}") for key in ("rope_scaling", "rope_parameters") for v in NO_OBJECT],
    *[(kind, {"minisink": v}, f"minisink is {v!r}") for kind in WHOLE for v in NO_OBJECT],
    # legal, and so large that nothing may be made of that size
    ("llama", {"hidden_size": 10**12}, "has shape"),
    ("llama", {"vocab_size": 10**12}, "has shape"),
    ("llama", {"num_attention_heads": 10**12}, "has shape"),
    ("llama", {"head_dim": 10**12}, "has shape"),
    ("llama", {"intermediate_size": 10**30}, "has shape"),
    ("llama", {"num_hidden_layers": 10**12}, "layers"),
    ("gpt2", {"n_layer": 10**12}, "layers"),
    ("gpt2", {"n_positions": 10**12}, "has shape"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Folders of a tiny Llama and GPT-2, by kind."""
    root = tmp_path_factory.mktemp("good")
    for kind, arch in (("llama", llama), ("gpt2", gpt2)):
        write(root / kind, tiny.make(arch, dtype=np.float32), tokenizer=words(17))
    return root


def refused(folder):
    """The message `load` refuses a folder with: one line, and no warning before it."""
    with pytest.raises(CheckpointError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        minisink.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("spoil", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(good, tmp_path, spoil, message):
    """Each fault of a file is one CheckpointError that says which file or tensor, and what is wrong."""
    folder = shutil.copytree(good / "llama", tmp_path / "folder")
    minisink.load(folder)
    spoil(folder)
    said = refused(folder)
    assert message in said
    assert str(folder) in said


def plain(value):
    """A config entry as its test is called."""
    return re.sub(r"10{20,}", "huge", "-".join(f"{k}={'absent' if v is DROP else v}" for k, v in value.items()))


@pytest.mark.parametrize(("kind", "changes", "message"), BAD_CONFIGS, ids=[plain(row[1]) for row in BAD_CONFIGS])
def test_a_bad_config_is_named(good, tmp_path, kind, changes, message):
    """Each key that is missing, impossible or unsupported is one CheckpointError that says which, and its value."""
    folder = shutil.copytree(good / kind, tmp_path / "folder")
    config(**changes)(folder)
    said = refused(folder)
    assert message in said
    assert str(folder) in said


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
def test_what_is_not_a_number_is_warned_about(tmp_path, bad, kind):
    """A NaN or infinity in the weights loads, with a warning that names the tensor."""
    model = tiny.make()
    model.weights.layers[1].w_up[3, 2] = bad
    write(tmp_path, model, kind)
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.warns(UserWarning, match=f"tensor {name} holds NaN or infinity") as caught:
        loaded = minisink.load(tmp_path)
    assert len(caught) == 1
    np.testing.assert_array_equal(loaded.weights.layers[1].w_up[3, 2], np.float32(bad))


def test_a_number_too_large_for_float32_is_infinity(tmp_path):
    """A float64 checkpoint that does not fit says so, and loads as it is in float64."""
    model = tiny.make()
    model.weights.norm[4] = 1e300
    write(tmp_path, model, "F64")
    with pytest.warns(UserWarning, match="tensor model.norm.weight holds NaN or infinity") as caught:
        minisink.load(tmp_path)
    assert len(caught) == 1
    assert minisink.load(tmp_path, dtype="float64").weights.norm[4] == 1e300


@pytest.mark.parametrize("dtype", ["float16", "int8", "bfloat16", 32])
def test_an_impossible_dtype_is_refused(novels_folder, dtype):
    with pytest.raises(ValueError, match="dtype"):
        minisink.load(novels_folder, dtype=dtype)


@pytest.mark.parametrize("name", ["", "nowels", "a/b/c", "/no/such/folder", "../x", "a\0b", "x" * 5000, "owner/na me"])
def test_a_name_that_means_nothing_is_refused(tmp_path, monkeypatch, name):
    """What is neither shipped nor a folder nor a hub id is a CheckpointError, without asking the hub."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder|no config.json"):
        minisink.load(name)


# Anything at all ----------------------------------------------------------------------------------


def loads_or_says_why(folder):
    """A model or a CheckpointError; the only warnings are about numbers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = minisink.load(folder)
        except CheckpointError:
            model = None
    assert all(issubclass(w.category, UserWarning) and "holds NaN or infinity" in str(w.message) for w in caught)
    return model


edits = st.lists(
    st.tuples(st.integers(0, 2**20), st.binary(max_size=3), st.sampled_from(["replace", "insert", "delete", "cut"])),
    min_size=1,
    max_size=4,
)
FUZZED = {
    "model.safetensors": "llama",
    "config.json": "gpt2",
    "tokenizer.json": "llama",
    "model.safetensors.index.json": "llama",
}


def edited(content, edits, within):
    """Bytes with a few of the first `within` changed."""
    for at, new, how in edits:
        at %= max(1, min(within, len(content)))
        if how == "cut":
            content = content[:at]
        else:
            stop = at + {"replace": len(new), "insert": 0, "delete": len(new) + 1}[how]
            content = content[:at] + (b"" if how == "delete" else new) + content[stop:]
    return content


@pytest.mark.parametrize("name", FUZZED)
@settings(max_examples=120)
@given(edits=edits)
def test_changed_bytes_never_crash(good, name, edits):
    """Any file with bytes changed, put in or taken out loads, or is refused in words."""
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(good / FUZZED[name], Path(root) / "folder")
        if name.endswith("index.json"):
            shard(folder)
        content = (folder / name).read_bytes()
        within = 1200 if name == "model.safetensors" else len(content)  # the header is where it hurts
        (folder / name).write_bytes(edited(content, edits, within))
        loads_or_says_why(folder)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.sampled_from([10**12, -(10**12), 2**63, 10**400, 0.5, -1.0, 1e-320, 1e308])
    | st.sampled_from(["", "llama", "gpt2", "mistral", "qwen2", "linear", "llama3", "silu", "w1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*LLAMA3, "type"]), inner, max_size=3),
    max_leaves=4,
)
CONFIG_KEYS = [
    "rope_scaling",
    "rope_parameters",
    "minisink",
    "sliding_window",
    "use_sliding_window",
    "n_ctx",
    "n_inner",
]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@settings(max_examples=150)
@given(data=st.data())
def test_changed_values_never_crash(good, kind, data):
    """Any value under any key of config.json loads, or is refused in words; nothing of a huge size is made."""
    raw = json.loads((good / kind / "config.json").read_text(encoding="utf-8"))
    keys = st.sampled_from([*raw, *CONFIG_KEYS])
    changes = data.draw(st.dictionaries(keys, anything, min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(good / kind, Path(root) / "folder")
        config(**changes)(folder)
        model = loads_or_says_why(folder)
    if model is not None:
        with np.errstate(all="ignore"):
            assert model.forward([1, 2]).shape == (2, 17)


def nodes(value, path=()):
    """Path of every value inside a JSON value."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from nodes(inner, (*path, key))


@settings(max_examples=100)
@given(data=st.data())
def test_a_changed_tokenizer_never_crashes(good, data):
    """Any value at any place of tokenizer.json loads, or is refused in words."""
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(good / "llama", Path(root) / "folder")
        path = folder / "tokenizer.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        *outer, last = data.draw(st.sampled_from([place for place in nodes(raw) if place]))
        inner = raw
        for key in outer:
            inner = inner[key]
        inner[last] = data.draw(anything)
        path.write_text(json.dumps(raw), encoding="utf-8")
        loads_or_says_why(folder)


@pytest.mark.parametrize(("written", "read"), [(None, ()), ([], ()), (3, (3,)), ([3, 5], (3, 5))])
def test_ends_of_text_may_be_several(written, read):
    """Llama 3 lists its ends of text; what is read is written again."""
    config = config_of({"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 2, "vocab_size": 7}
                                 | {"eos_token_id": written})  # fmt: skip
    assert config.eos == read
    assert raw_of(config)["eos_token_id"] == (written or None)
