"""Chats as transformers has them: what a template calls the special tokens, and the ids of a whole conversation."""

import json
import re
import tempfile
from pathlib import Path

import chatty
import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import minisink
from minisink.chat.template import Template, TemplateError
from minisink.hf.tokenizer import read_special_tokens

transformers = pytest.importorskip("transformers", reason="needs the parity extra: transformers")
pytestmark = pytest.mark.slow

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


# What a whole conversation is -----------------------------------------------------------------------

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ["<s>", "</s>", "<|start|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def of_bytes(**swallow):
    """Every byte a token; special tokens that swallow blanks, for ``lstrip=True`` or ``rstrip=True``."""
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(LETTERS)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(token, special=True, normalized=False, **swallow) for token in SPECIAL])
    return made


def begun(tokenizer):
    """The same, with <s> in front of a text."""
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[bos])
    return tokenizer


def of_pieces(scheme=None):
    """SentencePiece's: a space is a letter; one is put in front of a text by a scheme, or for None by the old rule."""
    words = [
        "<unk>",
        *(f"<0x{i:02X}>" for i in range(256)),
        *"\u2581abcdefghijklmnopqrtuvwxyz",
        "\u2581a",
        "an",
        "\u2581an",
    ]
    merges = [("\u2581", "a"), ("a", "n"), ("\u2581a", "n")]
    made = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, merges, unk_token="<unk>", byte_fallback=True))
    if scheme is None:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made


TOKENIZERS = {
    "bytes": of_bytes,
    "bytes after <s>": lambda: begun(of_bytes()),
    "blanks after a marker": lambda: of_bytes(rstrip=True),
    "blanks on both sides": lambda: begun(of_bytes(lstrip=True, rstrip=True)),
    "a space in front of a text": lambda: begun(of_pieces("first")),
    "a space after each marker": lambda: of_pieces("always"),
    "no space": lambda: of_pieces("never"),
    "as Llama 2 had it": lambda: begun(of_pieces()),
}
LOOP = "{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}%s{%% endif %%}"
FAMILIES = {
    "ChatML": LOOP % ("<|start|>{{ m.role }}\n{{ SAID }}<|end|>\n", "<|start|>assistant\n"),
    "Llama 3": LOOP
    % (
        "{% set c = '<|start|>' + m['role'] + '<|end|>\n\n' ~ SAID ~ '</s>' %}{{ c }}",
        "{{ '<|start|>assistant<|end|>\n\n' }}",
    ),
    "Llama 2": LOOP
    % (
        "{% if m.role == 'system' %}<<SYS>>\n{{ SAID }}\n<</SYS>>\n\n{% elif m.role == 'user' %}"
        "[INST] {{ SAID }} [/INST]{% else %} {{ SAID }} {{ eos_token }}{% endif %}",
        "",
    ),
    "Mistral": LOOP
    % (
        "{% if m['role'] == 'assistant' %}{% generation %}{{ SAID }}{{ eos_token }}{% endgeneration %}{% else %}"
        "{{- '[INST] ' ~ SAID ~ ' [/INST]' -}}{% endif %}",
        "",
    ),
    "Gemma": LOOP
    % (
        "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
        "{{ '<|start|>' + role + '\n' ~ SAID ~ '<|end|>\n' }}",
        "{{ '<|start|>model\n' }}",
    ),
    "Zephyr": LOOP % ("{{ '<|' ~ m.role ~ '|>\n' ~ SAID ~ eos_token ~ '\n' }}", "{{ '<|assistant|>\n' }}"),
    "plain": LOOP % ("{{ m.role }}: {{ SAID }}\n\n", "assistant:"),
}
BEFORE = [
    "",
    "{{ bos_token }}",
    "{{- bos_token }}{% if messages[0]['role'] != 'system' %}{{ '<|start|>system\nBe kind.<|end|>\n' }}{% endif %}",
    "{{ bos_token }}{% if tools is not none or documents %}{{ tools | length }}{% endif %}{% if pad_token is defined %}"
    "{{ pad_token }}{% endif %}{{ strftime_now('%%') }}{{ {'b': 1, 'a': unk_token or ''} | tojson(sort_keys=True) }}\n",
]
KEEPS = ["m.content", "m['content'] | trim", "m.content.strip()", "m.content.lstrip()", "m['content'].rstrip()"]
KEEPS += ["(m.content if m.role != 'user' else m.content.split('</think>')[0])"]
CHANGES = [
    "m.content | e",
    "m.content | tojson",
    "m.content[:40]",
    "m.content | upper",
    "m.content | replace('a', 'b')",
]
CHANGES += [
    "(m.content if m.content | length < 30 else 'long')",
    "m.content.strip('!')",
]
NAMES = [
    {"bos_token": "<s>", "eos_token": "</s>"},
    {"bos_token": "<s>", "eos_token": "<|end|>", "pad_token": "</s>", "unk_token": "<|system|>"},
    {"bos_token": None, "eos_token": "</s>"},
]
WORDS = st.text(" \n\t\u2003\"'<>&\u00e9\u6f22\U0001f642anB1.{}%\\", min_size=1, max_size=12).filter(str.strip)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a tiny model that transformers reads too, by their tokenizers."""
    made = tiny.make(vocab_size=300, n_heads=2, n_kv_heads=1, head_dim=4, d_model=8, eos=(299,), dtype="float32")
    root = tmp_path_factory.mktemp("chats")
    for name, tokenizer in TOKENIZERS.items():
        minisink.Model(made.config, made.weights, tokenizer()).save(root / name)
    return root


@examples(150)
@given(
    tokenizer=st.sampled_from(sorted(TOKENIZERS)),
    template=st.tuples(*map(st.sampled_from, (BEFORE, sorted(FAMILIES), KEEPS + CHANGES))),
    names=st.sampled_from(NAMES),
    system=st.none() | WORDS,
    said=st.tuples(WORDS, WORDS.map(str.strip), WORDS),
)
@example(
    tokenizer="bytes", template=(BEFORE[1], "ChatML", CHANGES[0]), names=NAMES[0], system=None, said=("a", "b", "c")
)
@example(
    tokenizer="blanks on both sides",
    template=(BEFORE[3], "Zephyr", KEEPS[1]),
    names=NAMES[1],
    system=" n ",
    said=("\n a ", "b", " \tc "),
)
def test_a_conversation_has_the_ids_of_transformers(folders, tokenizer, template, names, system, said):
    """Token for token; or it is refused by name, but only where the words go through what may change them."""
    folder, (before, family, content) = folders / tokenizer, template
    (folder / "chat_template.jinja").write_text(before + FAMILIES[family].replace("SAID", content), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    user, reply, next_user = said
    messages = [{"role": "system", "content": system}] * (system is not None)
    messages += [
        {"role": role, "content": words} for role, words in zip(("user", "assistant", "user"), said, strict=True)
    ]

    def wanted(n):
        talk = messages[: len(messages) - 3 + n]
        return theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)

    try:
        ours = Template(minisink.load(folder), system)
        first = ours.first_ids(user)
        answer, turn = ours.reply_ids(reply, first[-1]), ours.turn_ids(next_user)
    except TemplateError as error:
        assert content in CHANGES and re.search("changes these words|should write the words|rewrites", str(error))
        return
    assert first == wanted(1)
    if "bytes" in tokenizer or "blanks" in tokenizer:  # of others, text joins what is before it
        assert first + answer + turn == wanted(3)
    marked = next((i for i, token in enumerate(turn) if theirs.convert_ids_to_tokens(token) in SPECIAL), len(turn))
    assert turn[marked:] == wanted(3)[len(wanted(3)) - len(turn) + marked :]
