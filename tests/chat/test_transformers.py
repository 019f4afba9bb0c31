"""Chats as transformers has them: what a template calls the special tokens, and the ids of a whole conversation."""

import json
import tempfile
from pathlib import Path

import chatty
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tokenizers import Tokenizer, models

from minisink.hf.tokenizer import read_special_tokens

transformers = pytest.importorskip("transformers", reason="needs the parity extra: transformers")

# What the names of special tokens are -------------------------------------------------------------

TOKEN = st.sampled_from(["<s>", "</s>", "<|im_end|>", "<other>"])
ADDED = TOKEN.map(lambda text: {"content": text, "lstrip": False, "normalized": False})
TYPED = ADDED.map(lambda token: token | {"__type": "AddedToken", "special": True})
KEYS = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token")
MAP = {key: st.none() | TOKEN | ADDED for key in (*KEYS, "eot_token")}
SETTINGS = {key: st.none() | TOKEN | TYPED for key in (*KEYS, "image_token")} | {
    "add_bos_token": st.booleans(),
    "extra_special_tokens": st.dictionaries(st.sampled_from(["image_token", "boi_token"]), TOKEN),
    "additional_special_tokens": st.lists(TOKEN, max_size=2) | st.dictionaries(st.just("boi_token"), TOKEN),
    "added_tokens_decoder": st.just({}),
    "tokenizer_class": st.sampled_from(
        ["PreTrainedTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "GPT2Tokenizer", "Qwen2TokenizerFast"]
    ),
}
BYTES = chatty.tokenizer()
PLAIN = Tokenizer(models.BPE({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}, [], unk_token="<unk>"))


@examples(300)
@given(
    settings=st.fixed_dictionaries({}, optional=SETTINGS),
    named=st.none() | st.fixed_dictionaries({}, optional=MAP),
    model_type=st.sampled_from(["llama", "mistral", "qwen2", "gpt2"]),
    tokenizer=st.sampled_from([BYTES, PLAIN]),
)
def test_special_tokens_have_their_names(settings, named, model_type, tokenizer):
    """Of both files, strings and objects, nulls, names of a model's own, and what a class names by itself."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"config.json": {"model_type": model_type}, "tokenizer_config.json": settings}
        for name, about in (files | ({} if named is None else {"special_tokens_map.json": named})).items():
            Path(folder, name).write_text(json.dumps(about), encoding="utf-8")
        tokenizer.save(f"{folder}/tokenizer.json")
        theirs = transformers.AutoTokenizer.from_pretrained(folder).special_tokens_map
        assert read_special_tokens(Path(folder), tokenizer, model_type) == theirs
