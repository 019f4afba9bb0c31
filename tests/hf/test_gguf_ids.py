"""Ids of hostile texts, as llama.cpp gave them (`golden/make_ids.py`): every tokenizer of GGUF files that is read."""

import contextlib
import itertools
import json
import random
import warnings
from pathlib import Path

import pytest
from gguf_files import byte_level, tokenized

import minisink
from minisink.hf import package
from minisink.hf.gguf_tokenizer import RULES

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ids.json").read_text(encoding="utf-8"))
TEXTS, TOKENIZERS = GOLDEN["texts"], GOLDEN["tokenizers"]


def same_ids(model, golden):
    """Every text, with and without what begins it."""
    wrong = {}
    for text, wanted in zip(TEXTS, golden["ids"], strict=True):
        ids = model.tokenizer.encode(text, add_special_tokens=False).ids
        begun = model.tokenizer.encode(text).ids
        if ids != wanted or begun != golden["first"] + wanted:
            wrong[text] = (ids, wanted)
    assert not wrong
    assert golden["first"] == ([] if model.config.bos is None else [model.config.bos])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_those_of_llama_cpp(name, tmp_path):
    """By each rule of byte-level BPE and by SentencePiece's words; and again from the folder it is saved as."""
    golden = TOKENIZERS[name]
    about = {key: value for key, value in (GOLDEN[golden["base"]] | golden["own"]).items() if value is not None}
    unnamed = name in ("default", "no rule")
    with pytest.warns(UserWarning, match="has no rule") if unnamed else contextlib.nullcontext():
        model = minisink.load(tokenized(tmp_path / "model.gguf", about))
    same_ids(model, golden)
    model.save(tmp_path / "folder")
    same_ids(minisink.load(tmp_path / "folder"), golden)


@pytest.mark.real
def test_ids_of_smollm2_are_those_of_llama_cpp():
    try:
        package.installed("smollm2")
    except minisink.CheckpointError as error:
        pytest.skip(str(error))
    same_ids(minisink.load("smollm2"), GOLDEN["smollm2"])


def test_other_names_of_a_rule_are_the_rule(tmp_path):
    """As llama.cpp has it: the same ids of every text, and the same beginning of one."""
    named = {name: rule for name, rule in RULES.items() if name != rule}
    assert named == GOLDEN["same"]
    assert {named[name] for name in ("deepseek-r1-qwen", "kormo", "megrez")} == {"qwen2"}
    assert {named[name] for name in ("llama3", "llama-v3", "falcon3", "pixtral")} == {"llama-bpe"}
    assert {named[name] for name in ("phi-2", "gigachat")} == {"gpt-2"}
    models = {
        name: minisink.load(tokenized(tmp_path / f"{name}.gguf", byte_level(**{"tokenizer.ggml.pre": name})))
        for name in RULES
        if name != "default"
    }
    for name, rule in named.items():
        ours, wanted = models[name], models[rule]
        assert ours.config == wanted.config and ours.tokenizer.to_str() == wanted.tokenizer.to_str(), name


@pytest.mark.slow
def test_runs_of_spaces_are_words_in_gpt_neox(tmp_path):
    """Its files have those of 2 to 24 spaces among a user's words: of a run the longest is first."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    runs, shared, draw = [" " * n for n in range(24, 1, -1)], GOLDEN["byte level"], random.Random(0)
    about = shared | {"tokenizer.ggml.pre": "olmo"}
    about["tokenizer.ggml.tokens"] = shared["tokenizer.ggml.tokens"] + runs
    about["tokenizer.ggml.token_type"] = shared["tokenizer.ggml.token_type"] + [4] * len(runs)
    model = minisink.load(path := tokenized(tmp_path / "model.gguf", about))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    bits = [*runs, " " * 60, "a", "\n", "\t", "the", "é"]
    for text in [*TEXTS, *("".join(draw.choices(bits, k=draw.randint(1, 9))) for _ in range(1000))]:
        assert engine.tokenize(text.encode(), add_bos=True, special=False) == model.encode(text).tolist(), text


def test_the_texts_tell_the_rules_apart():
    """Else equal ids would prove nothing: any two rules differ on some of them."""
    rules = [name for name in TOKENIZERS if name not in ("no rule", "begun")]
    for one, other in itertools.combinations(rules, 2):
        assert TOKENIZERS[one]["ids"] != TOKENIZERS[other]["ids"]


def test_a_special_token_is_never_joined(tmp_path):
    """llama.cpp does, where the bits of its name are words: there, and only there, the ids differ, for safety."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "<", "s", ">", "s>", "▁"]
    about = GOLDEN["sentencepiece"] | {
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(words))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 5,
    }
    model = minisink.load(tokenized(tmp_path / "model.gguf", about))
    assert [words[i] for i in model.encode("<s>", bos=False)] == ["▁", "<", "s>"]


def test_what_ends_a_text_is_none_of_its_words(tmp_path):
    """An older file has it among the words of a user; llama.cpp, too, leaves it text."""
    about = byte_level()
    about["tokenizer.ggml.token_type"] = [4, 4, 4, *about["tokenizer.ggml.token_type"][3:]]
    model = minisink.load(tokenized(tmp_path / "model.gguf", about))
    assert not {0, 2} & set(model.encode("a<|im_end|>b<|endoftext|>").tolist())
    assert model.encode("<|im_start|>").tolist() == [1]  # which is no end


def test_scores_that_are_alike_are_warned_about(tmp_path):
    """Of words that score alike the leftmost is joined first, which the library cannot; files have none in truth."""
    about = GOLDEN["sentencepiece"]
    scores = [0.0] * len(about["tokenizer.ggml.tokens"])
    with pytest.warns(UserWarning, match="tokenizer.ggml.scores are equal for '.*' and '.*': llama.cpp may split"):
        minisink.load(tokenized(tmp_path / "model.gguf", about | {"tokenizer.ggml.scores": scores}))
