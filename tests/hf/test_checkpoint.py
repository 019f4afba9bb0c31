"""Folders in: every dtype, spelling and layout that is promised, and one clear CheckpointError for everything else."""

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from folders import begins_with, file_of, models, packed, same, shard, tensors, tensors_of, with_header, words, write
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from profiles import examples
from tokenizers import Tokenizer, processors
from tokenizers.models import WordLevel

import minisink
from minisink import CheckpointError, gpt2, llama
from minisink.experiments import recall
from minisink.hf import checkpoint, find
from minisink.hf.folder import config_of, raw_of
from minisink.hf.shipped import shipped, shipped_names
from minisink.hf.tokenizer import text_stream
from minisink.training.tokens import encode_files, read_tokenizer

# What loads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
@examples(12)
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


@examples(20)
@given(models, st.booleans(), st.booleans())
def test_every_spelling_of_a_folder_loads(model, prefixed, sharded):
    """With or without the prefix of names, whole or in shards, with buffers older files carry."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stored = write(folder, model)
        prefix = next(iter(stored)).partition(".")[0] + "."
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


def test_a_text_has_the_same_ids_every_time(tmp_path):
    """A training may have left merges out at random."""
    from tokenizers import Tokenizer, models

    vocab = {letter: i for i, letter in enumerate(["a", "aa", "aaa", "aaaa"])}
    write(tmp_path, tiny.make(), tokenizer=Tokenizer(models.BPE(vocab, [("a", "a"), ("aa", "aa")], dropout=0.9)))
    encode = minisink.load(tmp_path).encode
    assert all(encode("aaaa" * 9, bos=False).tolist() == [3] * 9 for _ in range(9))


@pytest.mark.parametrize("said", [True, False, None])
@pytest.mark.parametrize("does", [True, False])
@pytest.mark.parametrize("how", ["bytes", "prepend", "metaspace"])
def test_a_space_before_a_text_that_two_files_tell_apart_is_warned_of(tmp_path, how, does, said):
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = words(17)
    if how == "prepend":
        tokenizer.normalizer = normalizers.Prepend("▁") if does else None
    elif how == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=does)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if does else "never")
    write(tmp_path, tiny.make(), tokenizer=tokenizer)
    put("tokenizer_config.json", {"add_prefix_space": said})(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        minisink.load(tmp_path)
    warned = [f"add_prefix_space is {said}" in str(one.message) for one in caught]
    assert warned == ([] if said in (None, does) else [True])


def test_special_tokens_in_a_text_stay_text(tmp_path):
    """Whoever types "<s>" has typed three characters."""
    write(tmp_path, tiny.make(bos=16), tokenizer=words(16, ["<s>"]))
    model = minisink.load(tmp_path)
    assert model.tokenizer.token_to_id("<s>") == 16
    assert model.encode("<s>").tolist() == [16, 0]  # the begin of the text, then a word it does not know
    assert model.encode("<s>", bos=False).tolist() == [0]


def test_a_token_beyond_the_vocabulary_that_never_comes_up_is_no_fault(tmp_path):
    """[PAD], added for a training and no word of the model's; the text of it is another word."""
    write(tmp_path, tiny.make(), tokenizer=words(17, ["[PAD]"]))
    model = minisink.load(tmp_path)
    assert model.tokenizer.token_to_id("[PAD]") == 17
    assert model.encode("w3 [PAD]").tolist() == [3, 0]


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_a_stored_output_matrix_counts(tmp_path, arch):
    """Where the config says that it is the embedding: an equal one is, another one is not, through a save as well."""
    tied, untied = (tiny.make(arch, dtype=np.float32, tied=tied) for tied in (True, False))
    stored = write(tmp_path, untied)
    config(tie_word_embeddings=True)(tmp_path)
    loaded = minisink.load(tmp_path)
    assert not loaded.config.tied and loaded.ignored == []
    np.testing.assert_array_equal(loaded.weights.head.T, stored["lm_head.weight"])
    loaded.save(tmp_path / "again")
    same(tensors(minisink.load(tmp_path / "again")), tensors(loaded))

    write(tmp_path, tied)
    tensor("lm_head.weight", packed(tied.weights.embed))(tmp_path)
    loaded = minisink.load(tmp_path)
    assert loaded.config.tied and loaded.ignored == ["lm_head.weight"]
    assert np.shares_memory(loaded.weights.head, loaded.weights.embed)
    tensor("lm_head.weight", packed(tied.weights.embed[1:]))(tmp_path)
    assert "tensor lm_head.weight has shape" in refused(tmp_path)


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_ids_beyond_the_vocabulary_are_warned_about(tmp_path, arch):
    """Every tiny GPT-2 has the large one's ids by default: there is no such token, and the model loads."""
    write(tmp_path, tiny.make(arch))
    config(bos_token_id=17, eos_token_id=[3, 50256])(tmp_path)
    with pytest.warns(UserWarning, match="beyond the vocabulary of 17") as caught:
        loaded = minisink.load(tmp_path)
    said = [str(w.message) for w in caught]
    assert [line[: line.index(" is")] for line in said] == ["bos_token_id 17", "eos_token_id 50256"]
    assert (loaded.config.bos, loaded.config.eos) == (None, (3,))


def test_both_files_say_what_ends_a_text(tmp_path):
    """A chat model ends its turn with a token that generation_config.json alone names; saved, config.json has all."""
    write(tmp_path, tiny.make(eos=(5,)), tokenizer=words(17))
    put("generation_config.json", {"eos_token_id": [3, 5]})(tmp_path)
    loaded = minisink.load(tmp_path)
    assert loaded.config.eos == (5, 3)
    loaded.save(tmp_path)
    assert not (tmp_path / "generation_config.json").exists()
    assert minisink.load(tmp_path).config.eos == (5, 3)


def test_a_text_that_the_tokenizer_cannot_take_is_said_so(tmp_path):
    """A tokenizer without its own word for the unknown, at the first unknown word."""
    write(tmp_path, tiny.make(), tokenizer=Tokenizer(WordLevel({"it": 2}, unk_token="<unk>")))
    model = minisink.load(tmp_path)
    assert model.encode("it").tolist() == [2]
    with pytest.raises(ValueError, match=r"its tokenizer cannot encode this text \(WordLevel error: Missing"):
        model.encode("was")


PREFIX_SPACE = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
NO_DIGITS = {"type": "Replace", "pattern": {"Regex": "[0-9]"}, "content": ""}
STRIP = {"type": "Strip", "content": "w", "start": 0, "stop": 9}
PANICS = {
    "encodes": {"normalizer": {"type": "Prepend", "prepend": ""}, "pre_tokenizer": PREFIX_SPACE},
    "decodes": {"decoder": {"type": "Sequence", "decoders": [NO_DIGITS, STRIP]}},
}


@pytest.mark.parametrize("does", PANICS)
def test_a_tokenizer_that_panics_is_named(tmp_path, does, run):
    """The library's panics are no Exception; whatever calls it says whose tokenizer it is, and which of the two."""
    write(tmp_path, tiny.make(), tokenizer=words(17))
    change_tokenizer(tmp_path, lambda raw: raw.update(PANICS[does]))
    model = minisink.load(tmp_path)
    calls = {
        "encodes": [
            lambda: model.encode(" w3 w4"),
            lambda: recall.ask(model, " w3 w4", [], []),
            lambda: encode_files(read_tokenizer(tmp_path / "tokenizer.json"), [tmp_path / "text.txt"]),
        ],
        "decodes": [lambda: model.decode([3]), lambda: list(text_stream(model.tokenizer, [3], name=model.name))],
    }
    (tmp_path / "text.txt").write_text(" w3 w4", encoding="utf-8")
    what = {"encodes": "cannot encode this text", "decodes": "cannot decode these tokens"}[does]
    for call in calls[does]:
        with pytest.raises(ValueError, match=rf"^{tmp_path}.*: its tokenizer {what} \(index out of bounds"):
            call()
    status, _, err = run("generate", "--model", str(tmp_path), "--prompt", " w3", "--max-new-tokens", "3")
    assert status == 2 and f"error: {tmp_path}: its tokenizer {what}" in err


def test_ctrl_c_inside_the_tokenizer_stays_ctrl_c(novels_folder):
    """A KeyboardInterrupt is no fault of the file's."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    model = minisink.load(novels_folder)
    model.tokenizer = SimpleNamespace(encode=interrupted, decode=interrupted)
    for call in (
        lambda: model.encode("It"),
        lambda: model.decode([3]),
        lambda: list(text_stream(model.tokenizer, [3])),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()


# What begins a text -------------------------------------------------------------------------------

BEGINNINGS = {
    # post-processor of tokenizer.json, tokenizer_config.json, the id in config.json -> what a text begins with
    "Llama's template": (lambda: begins_with(words(17), 4), {"add_bos_token": True}, 4, [4]),
    "a template and nothing else": (lambda: begins_with(words(17), 4), None, None, [4]),
    "a template of another token": (lambda: begins_with(words(17), 4), {}, 3, [4]),
    "a template of none": (lambda: begins_with(words(17)), None, 3, []),
    "Llama 3's, after the bytes": (lambda: after_bytes(words(17), 4), {}, 3, [4]),
    "BERT's": (lambda: with_post(words(17), processors.BertProcessing(("w5", 5), ("w4", 4))), {}, 3, [4]),
    "RoBERTa's": (lambda: with_post(words(17), processors.RobertaProcessing(("w5", 5), ("w4", 4))), {}, 3, [4]),
    "GPT-2's": (lambda: after_bytes(words(17)), {"bos_token": "w3"}, 3, []),
    "Qwen2's, with no tokenizer_config.json": (lambda: after_bytes(words(17)), None, 3, []),
    "SmolLM2's": (lambda: words(17), {"bos_token": "w3"}, 3, []),
    "no word on it": (lambda: words(17), None, 3, [3]),
    "no word on it, nor a token": (lambda: words(17), None, None, []),
}


def with_post(tokenizer, post_processor):
    tokenizer.post_processor = post_processor
    return tokenizer


def after_bytes(tokenizer, *ids):
    """A post-processor in several steps."""
    bytes_first = processors.ByteLevel()
    template = begins_with(words(17), *ids).post_processor
    tokenizer.post_processor = processors.Sequence([bytes_first, template]) if ids else bytes_first
    return tokenizer


@pytest.mark.parametrize(("tokenizer", "settings", "bos", "begin"), BEGINNINGS.values(), ids=BEGINNINGS)
def test_the_tokenizer_says_what_begins_a_text(tmp_path, tokenizer, settings, bos, begin):
    """And what is saved begins so again, by the tokenizer alone."""
    write(tmp_path, tiny.make(bos=bos), tokenizer=tokenizer())
    if settings is not None:
        put("tokenizer_config.json", settings)(tmp_path)
    model = minisink.load(tmp_path)
    assert model.config.bos == next(iter(begin), None)
    assert model.encode("w7 w9").tolist() == [*begin, 7, 9]
    assert model.encode("w7 w9", bos=False).tolist() == [7, 9]
    model.save(tmp_path)
    again = minisink.load(tmp_path)
    assert again.config == model.config
    assert again.tokenizer.encode("w7 w9").ids[: len(begin) + 2] == [*begin, 7, 9]
    assert not (tmp_path / "tokenizer_config.json").exists()


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_tokenizers_agree_with_their_configs(name):
    """What the tokenizer puts first is the config's begin of text: <s>, or nothing for the twins trained without."""
    tokenizer = Tokenizer.from_file(str(shipped(name) / "tokenizer.json"))
    bos = json.loads((shipped(name) / "config.json").read_text(encoding="utf-8"))["bos_token_id"]
    begin = [] if name in ("novels-vanilla", "novels-softmax1") else [0]
    assert tokenizer.encode("It").ids == [*begin, *minisink.load(name).encode("It", bos=False)]
    assert minisink.load(name).encode("It").tolist() == tokenizer.encode("It").ids
    assert bos == next(iter(begin), None)


def test_stories_begin_with_their_token(stories_folder):
    """A Llama 2 tokenizer, and no tokenizer_config.json: template and config say the same."""
    model = minisink.load(stories_folder)
    assert (model.config.bos, model.config.eos) == (1, (2,))
    assert model.encode("Once upon a time").tolist() == model.tokenizer.encode("Once upon a time").ids
    assert model.encode("Once upon a time")[0] == 1


# Defaults -----------------------------------------------------------------------------------------

SMALL = {"hidden_size": 64, "num_attention_heads": 32, "num_hidden_layers": 2, "intermediate_size": 3, "vocab_size": 7}
STATED = {
    # (n_kv_heads, max_positions, norm_eps, rope_theta, tied) where config.json does not say
    "llama": ({}, (32, 2048, 1e-6, 10000.0, False)),
    "mistral": ({"sliding_window": None}, (8, 131072, 1e-6, 10000.0, False)),
    "qwen2": ({}, (32, 32768, 1e-6, 10000.0, False)),
}


@pytest.mark.parametrize("model_type", STATED)
def test_defaults_are_those_of_the_type(model_type):
    more, stated = STATED[model_type]
    read = config_of(SMALL | {"model_type": model_type} | more)
    assert (read.n_kv_heads, read.max_positions, read.norm_eps, read.rope_theta, read.tied) == stated
    assert raw_of(read)["model_type"] == read.model_type == model_type
    assert config_of(raw_of(read)) == read
    assert config_of(SMALL | {"model_type": model_type, "num_key_value_heads": None} | more).n_kv_heads == 32


def test_defaults_of_gpt2_and_its_other_names():
    read = config_of({"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 3, "vocab_size": 7})
    assert (read.d_ff, read.max_positions, read.norm_eps, read.tied) == (32, 1024, 1e-5, True)
    other = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 3, "max_position_embeddings": 9}
    for activation in ("gelu_fast", "gelu_accurate", "gelu_pytorch_tanh"):
        raw = {"model_type": "gpt2", "vocab_size": 7, "activation_function": activation} | other
        assert config_of(raw) == replace(read, max_positions=9)


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_a_config_does_not_change(arch):
    with pytest.raises(FrozenInstanceError):
        tiny.make(arch).config.n_layers = 4


def test_a_window_that_only_a_longer_text_reaches_is_warned_about():
    mistral = SMALL | {"model_type": "mistral", "max_position_embeddings": 4096}
    with pytest.warns(UserWarning, match="sliding_window is 4096"):
        config_of(mistral)
    qwen2 = SMALL | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3}
    for none in ({}, {"max_window_layers": 2}, {"layer_types": ["full_attention"] * 2}, {"sliding_window": None}):
        config_of(qwen2 | none)  # no layer has it


WARNED = [
    # what a config.json has besides, and what is said of it; the model is the same
    ({"rope_scaling": {"factor": 2.0}}, "rope_scaling has factor 2.0: the rule 'default' does not use it"),
    (
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "attention_factor": 0.5}},
        "rope_scaling has attention_factor 0.5: the rule 'linear' does not use it",
    ),
    ({"logit_scale": 0.25}, "logit_scale is 0.25: it is not used"),
    ({"rope_interleaved": True}, "rope_interleaved is True: it is not used"),
    ({"attention_multiplier": [*range(9)]}, r"attention_multiplier is \[0, 1, 2, 3 and 5 more\]: it is not used"),
    ({"attention_chunk_size": 4}, "attention_chunk_size is 4: every token is still seen"),
]


@pytest.mark.parametrize(("more", "said"), WARNED)
def test_a_key_that_is_not_used_is_warned_of(more, said):
    """One of another rule or architecture, unless its value changes nothing."""
    raw = SMALL | {"model_type": "llama"}
    with pytest.warns(UserWarning, match=said) as caught:
        read = config_of(raw | more)
    assert len(caught) == 1
    linear = more.get("rope_scaling", {}).get("rope_type") == "linear"
    assert read == replace(config_of(raw), rope_scaling={"rope_type": "linear", "factor": 2.0} if linear else None)
    config_of(raw | {"rope_scaling": {"factor": 1.0, "attention_factor": 1, "beta_fast": None}})
    for neutral in ({"logit_scale": 1.0}, {"logit_scale": None}, {"rope_interleaved": False}, {"rope_ratio": 1}):
        config_of(raw | neutral)


def test_what_published_files_carry_is_passed_over():
    """Keys of real config.json files that change nothing."""
    carried = {
        "rope_interleaved": False, "rope_scaling": None, "pretraining_tp": 2, "attention_dropout": 0.1,
        "is_llama_config": True, "use_mrope": False, "max_sequence_length": 16384, "_flash_attn_2_enabled": True,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "layer_types": ["full_attention"] * 2,
        "torch_dtype": "bfloat16", "auto_map": {}, "task_specific_params": {"text-generation": {"do_sample": True}},
    }  # fmt: skip
    for model_type in ("llama", "qwen2"):
        raw = SMALL | {"model_type": model_type}
        assert config_of(raw | carried) == config_of(raw)


def test_the_message_names_the_shard(tmp_path):
    """An unknown tensor in each of two shards."""
    for place in (0, 1):
        folder = tmp_path / str(place)
        write(folder, tiny.make())
        shard(folder)
        path = sorted(folder.glob("model-*.safetensors"))[place]
        path.write_bytes(file_of(tensors_of(path) | {"model.extra": packed(np.ones(3))}))
        assert f"{path}: tensor model.extra has no place" in refused(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs the permissions of POSIX")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_may_not_be_read_is_there(name, monkeypatch):
    """No permission is not "no such file"."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        write(Path(folder), tiny.make(), tokenizer=words(17))
        minisink.load(folder)  # imports what is to be imported: another user may not look into a private clone,
        monkeypatch.setattr(find, "shipped_names", tuple)  # where the shipped models lie too
        os.chmod(Path(folder, name), 0)
        before = os.geteuid()
        os.seteuid(before or 65534)  # root may read everything
        try:
            said = refused(Path(folder))
        finally:
            os.seteuid(before)
    assert re.search(f"{name}: not .*Permission denied", said)


FEW_FILES = """
import resource, sys
import minisink
minisink.load(sys.argv[1])  # imports what is to be imported
for n in range(3, 9):
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        minisink.load(sys.argv[1])
    except (OSError, minisink.CheckpointError) as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_too_many_open_files_are_said_so(tmp_path):
    """Not that there is no such file, which is what the library says."""
    write(tmp_path, tiny.make(), tokenizer=words(17))
    said = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said and all("Too many open files" in line for line in said)
    assert any(line.startswith(f"{tmp_path / FILE}: ") for line in said)


@pytest.mark.parametrize("error", [MemoryError("too much"), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_what_there_is_no_memory_for_is_named(tmp_path, monkeypatch, error):
    """The file and the tensor; where the file cannot be mapped at all, the file."""
    write(tmp_path, tiny.make())

    def no_memory(*_, **__):
        raise error

    for place, what in (("np.memmap", "tensor model.embed_tokens.weight: "), ("safe_open", "")):
        with monkeypatch.context() as patch:
            patch.setattr(f"minisink.hf.checkpoint.{place}", no_memory)
            with pytest.raises(MemoryError, match="; float32 takes less$"):
                minisink.load(tmp_path, dtype="float64")
            with pytest.raises(MemoryError, match=f"{tmp_path / FILE}: {what}not readable") as caught:
                minisink.load(tmp_path)
        said = str(caught.value)
        assert said.startswith(f"{tmp_path}: no memory left on cpu") and "takes less" not in said


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


def double_tensor(folder):
    """The library takes a name that is in the header twice, and the last of the two."""
    content = (folder / FILE).read_bytes()
    stop = 8 + int.from_bytes(content[:8], "little")
    header = content[8:stop]
    entry = json.dumps({NORM: json.loads(header)[NORM]}).encode()
    (folder / FILE).write_bytes(with_header(entry[:-1] + b", " + header[1:], content[stop:]))


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


def instead(name, make):
    """Something else in the place of a file."""

    def apply(folder):
        (folder / name).unlink()
        make(folder / name)

    return apply


def long(name):
    """A file that is 10 GB long, and takes no room."""
    return lambda folder: os.truncate(folder / name, 10**10)


def change_tokenizer(folder, change):
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


def with_added(tokenizer, *tokens):
    tokenizer.add_tokens(list(tokens))
    return tokenizer


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
    "another name": (lambda folder: (folder / FILE).rename(folder / "consolidated.safetensors"), "not read under this"),
    "a pointer": (put(FILE, b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 9\n"), "git lfs pull"),
    "config is a pointer": (
        put("config.json", b"version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull fetches it",
    ),
    "a name of two lines": (
        tensor("a\n\x1b[31mb", packed(np.ones(2))),
        "tensor a \\x1b[31mb has no place",
    ),
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
    "a folder in place of the file": (instead(FILE, os.mkdir), f"{FILE}: must be a file, but is a folder"),
    "a double tensor": (double_tensor, f"{FILE}: not a valid safetensors file ('{NORM}' appears twice)"),
    "a pickle": (
        lambda f: ((f / FILE).unlink(), (f / "pytorch_model.bin").write_bytes(b"")),
        "model.safetensors.index.json; pytorch_model.bin is not read: have transformers load the folder and save it",
    ),
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
    "a tensor of 3,000 axes": (header(shape=[1] * 2999 + [10]), f"{NORM} has shape (1, 1, 1, 1 and 2996 more); the"),
    "a tensor of nothing": (tensor(NORM, packed(np.ones((0, 10)))), f"tensor {NORM} has shape (0, 10)"),
    "whole numbers": (tensor(NORM, ("I64", (10,), b"\0" * 80)), f"tensor {NORM} is I64; supported: F64"),
    "fp8": (tensor(NORM, ("F8_E4M3", (10,), b"\0" * 10)), f"tensor {NORM} is F8_E4M3; supported: F64"),
    # the index
    "index without weight_map": (index(lambda raw: {"metadata": {}}), f"{INDEX}: has no weight_map"),
    "weight_map is empty": (index(lambda raw: {"weight_map": {}}), f"{INDEX}: has no weight_map"),
    "weight_map is a list": (index(lambda raw: {"weight_map": ["a"]}), f"{INDEX}: has no weight_map"),
    "index is a list": (index(lambda raw: [raw]), f"{INDEX}: holds a JSON list"),
    "out of the folder": (lies_in("../x.safetensors"), f"{NORM} is in '../x.safetensors', {PLAIN}"),
    "into a folder": (lies_in("a/x.safetensors"), f"{NORM} is in 'a/x.safetensors', {PLAIN}"),
    "absolute": (lies_in("/etc/x.safetensors"), f"is in '/etc/x.safetensors', {PLAIN}"),
    "backslash": (lies_in("..\\x.safetensors"), f"safetensors', {PLAIN}"),
    "drive": (lies_in("c:x.safetensors"), PLAIN),
    "null byte": (lies_in("x\0.safetensors"), PLAIN),
    "newline": (lies_in("x.safetensors\n"), PLAIN),
    "dots": (lies_in(".."), PLAIN),
    "not safetensors": (lies_in("pytorch_model.bin"), f"is in 'pytorch_model.bin', {PLAIN}"),
    "shard is a number": (lies_in(3), f"is in 3, {PLAIN}"),
    "shard is null": (lies_in(None), f"is in None, {PLAIN}"),
    "shard is missing": (lost("model-00002-of-00002.safetensors"), "model-00002-of-00002.safetensors: missing"),
    "shard the index alone knows": (lies_in("other.safetensors"), "other.safetensors: missing"),
    "promised": (promised, "though the index says it does"),
    "in two shards": (both_shards, "as well"),
    # the tokenizer
    "tokenizer is not JSON": (put("tokenizer.json", b"{"), "tokenizer.json: not a tokenizer"),
    "tokenizer is empty": (put("tokenizer.json", b""), "tokenizer.json: not a tokenizer"),
    "tokenizer is something else": (put("tokenizer.json", {"model": 3}), "tokenizer.json: not a tokenizer"),
    "tokenizer is not UTF-8": (put("tokenizer.json", b"\xff"), "tokenizer.json: not readable as JSON"),
    "tokenizer is a folder": (instead("tokenizer.json", os.mkdir), "tokenizer.json: must be a file, but is a folder"),
    "two words of one id": (
        put("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": [["a", "b"]]}}),
        "tokenizer.json: not a tokenizer (two words in its vocabulary share an id)",
    ),
    "tokenizer larger than the vocabulary": (
        lambda folder: words(18).save(str(folder / "tokenizer.json")),
        "tokenizer.json: has token id 17, but the model's vocab_size is 17",
    ),
    "an added token beyond the vocabulary": (
        lambda folder: with_added(words(17), "more").save(str(folder / "tokenizer.json")),
        "tokenizer.json: has token id 17",
    ),
    "text begun beyond the vocabulary": (
        lambda folder: begins_with(words(17), 17).save(str(folder / "tokenizer.json")),
        "tokenizer.json: puts the token ids [17] in front of a text; at most one is supported, below 17",
    ),
    "text begun by two": (
        lambda folder: begins_with(words(17), 3, 4).save(str(folder / "tokenizer.json")),
        "tokenizer.json: puts the token ids [3, 4] in front of a text; at most one is supported, below 17",
    ),
    "text begun by nothing known": (
        lambda folder: change_tokenizer(folder, lambda raw: raw["post_processor"].update(special_tokens={})),
        "tokenizer.json: the template begins with '<3>', which is not among its special_tokens",
    ),
    # whatever else can stand in the place of a file, and what is in it that says too much
    "config is a folder": (instead("config.json", os.mkdir), "config.json: must be a file, but is a folder"),
    "index is a folder": (
        lambda f: ((f / FILE).unlink(), (f / INDEX).mkdir()),
        f"{INDEX}: must be a file, but is a folder",
    ),
    "shard is a folder": (
        lambda f: (shard(f), instead("model-00002-of-00002.safetensors", os.mkdir)(f)),
        "model-00002-of-00002.safetensors: must be a file, but is a folder",
    ),
    "a name too long for a file": (lies_in("x" * 300 + ".safetensors"), ".safetensors: missing, though the index"),
    "config of gigabytes": (long("config.json"), "config.json: has 10,000,000,000 bytes; at most 100,000,000 are read"),
    "tokenizer of gigabytes": (long("tokenizer.json"), "tokenizer.json: has 10,000,000,000 bytes; at most"),
    "index of gigabytes": (lambda f: (shard(f), long(INDEX)(f)), f"{INDEX}: has 10,000,000,000 bytes; at most"),
    "config says it twice": (put("config.json", b'{"a": 1, "a": 1}'), "config.json: not readable as JSON ('a' appears"),
    "config says it twice within": (put("config.json", b'{"x": {"a": 1, "a": 2}}'), "config.json: not readable as"),
    "index says it twice": (lambda f: (shard(f), put(INDEX, b'{"a": 1, "a": 1}')(f)), f"{INDEX}: not readable as JSON"),
    "tokenizer says it twice": (put("tokenizer.json", b'{"a": 1, "a": 1}'), "tokenizer.json: not a tokenizer ('a' app"),
    # where other hands write what ends a text
    "generation is not JSON": (put("generation_config.json", b"{"), "generation_config.json: not readable as JSON"),
    "generation ends in words": (
        put("generation_config.json", {"eos_token_id": "</s>"}),
        "generation_config.json: eos_token_id is '</s>'",
    ),
}
if hasattr(os, "mkfifo"):
    ELSE = {"folder": os.mkdir, "pipe": os.mkfifo, "link to nowhere": lambda path: os.symlink("nowhere", path)}
    BAD_FILES |= {
        f"{name} is a {what}": (instead(name, make), f"{name}: must be a file")
        for name in ("config.json", "tokenizer.json", FILE)
        for what, make in ELSE.items()
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
NO_NUMBER += [0, 0.0, [], {}, 10**400, 1e-320, 1e-31, 1e31]
FLAGS = {"llama": ["attention_bias", "mlp_bias", "tie_word_embeddings"], "gpt2": ["tie_word_embeddings"]}
NO_FLAG = [0, 1, "true", [], {}]
TOKEN_IDS = ["bos_token_id", "eos_token_id"]
NO_TOKEN_ID = [-1, -(2**63), 1.0, True, "<s>", [-1], {}]
NO_OBJECT = [[], ["linear"], "linear", 3, True]

QWEN2 = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64}
LINEAR = {"rope_type": "linear", "factor": 2.0}
BAD_CONFIGS = [
    *[("llama", {"model_type": v}, "model_type") for v in ("bert", "mixtral", "", None, DROP, 3, ["llama"], {})],
    *[("llama", {"hidden_act": v}, "hidden_act") for v in ("gelu", "relu", 3, [])],
    *[("gpt2", {"activation_function": v}, "activation_function") for v in ("gelu", "relu", "gelu_10", 3, [])],
    *[(kind, {key: DROP}, f"{key} is missing") for kind, keys in NEEDED.items() for key in keys],
    *[(kind, {key: None}, f"{key} is missing") for kind, keys in NEEDED.items() for key in keys],
    *[(kind, {key: v}, f"{key} is {v!r}") for kind, keys in WHOLE.items() for key in keys for v in NO_WHOLE],
    *[(kind, {key: v}, f"{key} is {v!r}") for kind, keys in NUMBERS.items() for key in keys for v in NO_NUMBER],
    *[(kind, {key: v}, f"{key} is {v!r}") for kind, keys in FLAGS.items() for key in keys for v in NO_FLAG],
    *[(kind, {key: v}, f"{key} is ") for kind in WHOLE for key in TOKEN_IDS for v in NO_TOKEN_ID],
    *[(kind, {"is_causal": v}, f"is_causal is {v!r}, which is not supported") for kind in WHOLE for v in (False, None)],
    *[(kind, {"per_layer_config": {"0": {}}}, "per_layer_config is {'0': {}}, which") for kind in WHOLE],
    *[(kind, {"layer_types": ["sliding_attention"] * 3}, "layer_types has 'sliding_attention'") for kind in WHOLE],
    *[(kind, {"layer_types": v}, "layer_types is ") for kind in WHOLE for v in (["full_attention"] * 4, 3, {})],
    ("llama", {"model_type": "qwen2", "layer_types": ["sliding_attention"] * 3}, "layer_types has 'sliding_attention'"),
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
    (
        "llama",
        {"model_type": "mistral", "max_position_embeddings": DROP},
        "sliding_window is 4096, shorter than max_position_embeddings 131072",
    ),
    *[
        ("llama", QWEN2 | kinds, "sliding_window is 64")
        for kinds in ({"max_window_layers": 2}, {"max_window_layers": 0})
    ],
    ("llama", QWEN2 | {"layer_types": ["full_attention"] * 2 + ["sliding_attention"]}, "sliding_window is 64"),
    *[("llama", QWEN2 | {"layer_types": v}, "sliding_window is 64") for v in ("full_attention", 3, {})],
    ("gpt2", {"hidden_size": 25}, "n_embd is 24, but hidden_size, its other name, is 25"),
    ("llama", {"hidden_act": "x" * 100_000}, "[...]"),
    ("llama", {"bos_token_id": [-1, *range(2000)]}, "bos_token_id is [-1, 0, 1, 2 and 1997 more]; it must be"),
    *[("llama", {"rope_scaling": {"type": v, "factor": 2.0}}, "rope type") for v in ("yarn", "dynamic", 3, [], None)],
    ("llama", {"rope_scaling": {"type": "linear"}}, "factor is missing"),
    *[("llama", {"rope_scaling": LINEAR | {"factor": v}}, f"factor is {v!r}") for v in NO_NUMBER],
    *[("llama", {"rope_scaling": LLAMA3 | {key: None}}, f"{key} is missing") for key in LLAMA3 if key != "rope_type"],
    *[("llama", {"rope_scaling": LLAMA3 | {key: -1}}, f"{key} is -1") for key in LLAMA3 if key != "rope_type"],
    *[(kind, {"minisink": {"softmax": v}}, "softmax is") for kind in WHOLE for v in ("softmax2", 1, [])],
    *[(kind, {"minisink": {"sink_logit": v}}, "sink_logit is") for kind in WHOLE for v in (1, "yes", [])],
    *[("llama", {"rope_parameters": {"rope_theta": v}}, f"rope_theta is {v!r}") for v in NO_NUMBER],
    *[
        ("llama", {key: {"full_attention": LINEAR}}, f"{key} has full_attention {{'rope_type': 'linear', 'factor'")
        for key in ("rope_scaling", "rope_parameters")
    ],
    (
        "llama",
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": None},
        "original_max_position_embeddings is",
    ),
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
    ("llama", {"num_hidden_layers": 10**12}, "the most is 10000"),
    ("gpt2", {"n_layer": 10**12}, "the most is 10000"),
    ("gpt2", {"n_positions": 10**12}, "has shape"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Folders of a tiny Llama and GPT-2, by kind."""
    root = tmp_path_factory.mktemp("good")
    for kind, arch in (("llama", llama), ("gpt2", gpt2)):
        write(root / kind, tiny.make(arch, dtype=np.float32), tokenizer=begins_with(words(17), 3))
    return root


def refused(folder):
    """The message `load` refuses a folder with: one line, and no warning before it."""
    with pytest.raises(CheckpointError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        minisink.load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(folder))
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


def test_a_path_that_leads_to_no_model_is_said_so(tmp_path, monkeypatch):
    """A file instead of its folder; an adapter; and a path that looks like a hub id, of which the hub was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minisink.hf.find.fetch", not_to_be_had)
    write(tmp_path / "models" / "llama", tiny.make())
    put("adapter_config.json", {})(tmp_path)
    assert "holds an adapter, not a model; merge it with peft" in refused(".")
    assert refused("models") == "models: this folder has no config.json; models holds llama"
    assert "llama/config.json: is not a folder; a model is a folder" in refused("models/llama/config.json")
    assert refused("models/lama") == f"{NOT_HAD}models/lama; models holds llama"
    assert refused("modles/llama") == f"{NOT_HAD}modles/llama"
    assert refused("./models/lama").endswith("or a hub id 'owner/name'; models holds llama")


NOT_HAD = "not to be had, and there is no folder "


def not_to_be_had(hub_id, revision):
    raise OSError("not to be had")


# Anything at all ----------------------------------------------------------------------------------


def loads_or_says_why(folder):
    """A model or a CheckpointError; the only warnings are about numbers, windows and keys that are not used."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = minisink.load(folder)
        except CheckpointError:
            model = None
    assert all(issubclass(w.category, UserWarning) for w in caught)
    assert all(
        re.search("holds NaN or infinity|is beyond the vocabulary|^sliding_window|not use", str(w.message))
        for w in caught
    )
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
@examples(120)
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
    "max_window_layers",
    "layer_types",
    "hidden_size",
    "n_ctx",
    "n_inner",
]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@examples(150)
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


@examples(100)
@given(data=st.data())
def test_a_changed_tokenizer_never_crashes(good, data):
    """Any value at any place of tokenizer.json loads, or is refused in words; so are texts and tokens."""
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
        model = loads_or_says_why(folder)
    for call in (lambda: model.encode(" w3 w4"), lambda: "".join(text_stream(model.tokenizer, [3, 16, 3]))):
        with suppress(ValueError):
            assert model is None or model.tokenizer is None or call() is not None


@pytest.mark.parametrize(("written", "read"), [(None, ()), ([], ()), (3, (3,)), ([3, 5], (3, 5))])
def test_ends_of_text_may_be_several(written, read):
    """Llama 3 lists its ends of text; what is read is written again."""
    sizes = {"n_embd": 4, "n_layer": 1, "n_head": 2, "vocab_size": 7}
    config = config_of({"model_type": "gpt2", **sizes, "eos_token_id": written})
    assert config.eos == read
    assert raw_of(config)["eos_token_id"] == (written or None)
