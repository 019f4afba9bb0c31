"""The tokenizer of a GGUF file, built from its words, merges and the *name* of its rule for splitting a text.

Two kinds are known: "gpt2", byte-level BPE, whose rule has one of several names; and "llama", SentencePiece's BPE, in
which a space is ``▁`` and a word's score decides when it is merged. The ids match llama.cpp's: a text is encoded
unchanged, and for Qwen2 not even normalised (NFC), as its published tokenizer would do.
"""

import json
import warnings
from itertools import pairwise

from .fields import flag, text_or_none, token_ids
from .tokenizer import begun_by, encode

TOKENS = "tokenizer.ggml.tokens"
WORD, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6  # types of tokens; 5 is for unused ones

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ENDINGS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
# The name of a rule -> llama.cpp's patterns, each splitting the pieces that the previous one left
SPLITS = {
    "llama-bpe": [ENDINGS + WORDS % "{1,3}"],
    "qwen2": [ENDINGS + WORDS % ""],
    "falcon": [r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9]{3}"],
    "default": [r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9]{3}"],
}
BYTE_LEVEL = ("smollm", "gpt-2", *SPLITS)
# Other names for these rules; llama.cpp gives the same ids for them (tests/golden)
SAME = {
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
    "qwen2": "deepseek-r1-qwen kormo megrez f2llmv2 stablelm2 hunyuan solar-open grok-2",
    "gpt-2": "phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b",
}
RULES = {name: rule for rule, names in SAME.items() for name in names.split()} | {rule: rule for rule in BYTE_LEVEL}
REMEDY = "load the Hugging Face folder that the file was made from"
# Keys that are read, or that do not change any ids; keys ending in _token_id do not either
KNOWN = "model pre tokens token_type token_type_count scores merges add_bos_token eos_token_ids".split()
# End-of-text tokens are never found in a text, though some files list them as user words: llama.cpp goes by the names
ENDS: tuple = ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|end|>", "<|eot_id|>", "<|eom_id|>")
ENDS += ("<end_of_turn>", "<end_of_utterance>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]")
# Used only by a chat template: its name for a token -> the metadata's (one is misspelt there)
NAMES = {"unk": "unknown", "sep": "seperator", "pad": "padding", "cls": "cls", "mask": "mask"}


def special_ids(about, vocab_size):
    """Return token ids by name; three of SentencePiece's have defaults if the metadata does not give them.

    >>> special_ids({"tokenizer.ggml.model": "llama", "tokenizer.ggml.eos_token_id": 7}, 10)
    {'unk': 0, 'bos': 1, 'eos': 7}
    """
    ids = {"unk": 0, "bos": 1, "eos": 2} if about.get("tokenizer.ggml.model") == "llama" else {}  # as in llama.cpp
    named = {name: about.get(f"tokenizer.ggml.{key}_token_id") for name, key in NAMES.items()}
    for name in ("bos", "eos"):
        named[name] = next(iter(token_ids(about, f"tokenizer.ggml.{name}_token_id", vocab_size)), None)
    ids |= {name: i for name, i in named.items() if type(i) is int}
    return {name: i for name, i in ids.items() if 0 <= i < vocab_size}


def special_tokens(about, ids):
    """Name the tokens of `special_ids` as a chat template does; a missing bos or eos is empty."""
    words = about.get(TOKENS) or []
    return {"bos_token": "", "eos_token": ""} | {f"{name}_token": words[i] for name, i in ids.items() if i < len(words)}


def rule_of(about):
    """Return the rule for splitting a text into byte-level words, under one of its names."""
    name = text_or_none(about, "tokenizer.ggml.pre") or "default"
    if name not in RULES:
        known = ", ".join(BYTE_LEVEL)
        raise ValueError(f"tokenizer.ggml.pre is {name!r}, an unknown rule (known: {known}); {REMEDY}")
    return RULES[name]


def begins_text(about):
    """Return whether a text begins with the begin-of-text token: as the file says, or by llama.cpp's default."""
    kind = about.get("tokenizer.ggml.model")
    begins = kind == "llama" or (kind == "gpt2" and rule_of(about) == "llama-bpe")
    return flag(about, "tokenizer.ggml.add_bos_token", begins)


def tokenizer_of(about, vocab_size, bos):
    """Build the tokenizer that the metadata of a GGUF file describes; None for a file without words.

    `bos` is the token id that begins a text, or None. The text of a special token inside a user's text stays text.
    """
    if about.get("tokenizer.ggml.model") in (None, "no_vocab", "none"):
        return None
    kind = text_or_none(about, "tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ValueError(f"tokenizer.ggml.model is {kind!r}; supported: gpt2, llama; {REMEDY}")
    _warn_of_rest(about, kind)
    words = [word or f"[EMPTY_{i}]" for i, word in enumerate(_list(about, TOKENS, str))]  # as in llama.cpp
    types = _list(about, "tokenizer.ggml.token_type", int, [WORD] * len(words))
    if len(words) > vocab_size or len(types) != len(words):
        raise ValueError(f"{TOKENS} has {len(words)} words and {len(types)} types for a vocabulary of {vocab_size}")
    vocab = {word: i for i, word in enumerate(words)}
    for i, word in enumerate(words):
        if vocab[word] != i:
            raise ValueError(f"{TOKENS} has {word!r} twice")
    from tokenizers import AddedToken  # imported here, so that minisink works without it

    type_of = {word: CONTROL if i == USER and word in ENDS else i for word, i in zip(words, types, strict=True)}
    tokenizer = _byte_level(about, vocab) if kind == "gpt2" else _sentencepiece(about, vocab, type_of)
    for added, special in (((UNKNOWN, CONTROL), True), ((USER,), False)):
        listed = [word for word in words if type_of[word] in added]
        tokenizer.add_tokens([AddedToken(word, special=special, normalized=False) for word in listed])
    tokenizer = begun_by(tokenizer, bos)
    tokenizer.encode_special_tokens = True
    for word, i in vocab.items():
        if type_of[word] == CONTROL and i in encode(tokenizer, word, name=TOKENS).ids:
            raise ValueError(f"the special token {word!r} could be found in a text")
    return tokenizer


def words_of(tokenizer, bos):
    """Return the calls to a `gguf.GGUFWriter` for a tokenizer that splits like GPT-2's; "none" for any other."""
    about: dict = {"pre_tokenizer": None} if tokenizer is None else json.loads(tokenizer.to_str())
    cut = about["pre_tokenizer"] or {}
    if (cut.get("type"), cut.get("use_regex")) != ("ByteLevel", True) or about["normalizer"]:
        return {"tokenizer_model": "none"}
    vocab, added = tokenizer.get_vocab(), {token["content"] for token in about["added_tokens"]}
    words = sorted(vocab, key=vocab.__getitem__)
    found: dict = {"tokenizer_model": "gpt2", "tokenizer_pre": "gpt-2", "token_list": words}
    found["token_types"] = [CONTROL if word in added else WORD for word in words]
    found["token_merges"] = [" ".join(pair) for pair in about["model"]["merges"]]
    return found | {"add_bos_token": bos is not None} | ({} if bos is None else {"bos_token_id": bos})


def _warn_of_rest(about, kind):
    """Warn of keys that are not read, unless they change nothing; the ids are those of llama.cpp."""
    read = [*KNOWN, "add_space_prefix"] if kind == "llama" else KNOWN
    for key, value in about.items():
        name = key.removeprefix("tokenizer.ggml.")
        so_anyway = kind == "llama" if name == "escape_whitespaces" else False
        if name != key and (value or False) != so_anyway and name not in read and not name.endswith("_token_id"):
            warnings.warn(f"{key} is not read: a text has the same ids without it", stacklevel=2)


def _list(about, key, kind, default=None):
    value = about.get(key, default)
    if not isinstance(value, list) or not all(type(x) is kind for x in value):
        raise ValueError(f"{key} is missing" if value is None else f"{key} is not a list of {kind.__name__}")
    return value


def _byte_level(about, vocab):
    """Build BPE over bytes written as letters: GPT-2's, and any that differs from it only in how a text is split."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    rule = rule_of(about)
    if rule == "default":
        warnings.warn("tokenizer.ggml.pre has no rule for splitting a text: llama.cpp's default is used", stacklevel=2)
    merges = [tuple(pair.split(" ")) for pair in _list(about, "tokenizer.ggml.merges", str)]
    for pair in merges:
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocab.keys():
            raise ValueError(f"tokenizer.ggml.merges has {' '.join(pair)!r}, which does not join two words into one")
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=rule == "llama-bpe"))
    cuts: list = [pre_tokenizers.Digits(individual_digits=True)] if rule == "smollm" else []
    cuts += [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS.get(rule, [])]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule not in SPLITS)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, byte_level]) if cuts else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(about, vocab, type_of):
    """Build BPE with ``▁`` for a space and bytes for unknown characters: the highest-scoring pair is joined first."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = _list(about, "tokenizer.ggml.scores", float)
    if len(scores) != len(vocab):
        raise ValueError(f"tokenizer.ggml.scores has {len(scores)} numbers for {len(vocab)} words")
    plain = {word: scores[i] for word, i in vocab.items() if type_of[word] not in (UNKNOWN, CONTROL, BYTE)}
    merges = []
    for word, score in plain.items():
        pairs = [(word[:i], word[i:]) for i in reversed(range(1, len(word)))]  # ties: the leftmost is joined
        merges += [(score, left, right) for left, right in pairs if left in plain and right in plain]
    merges.sort(key=lambda merge: -merge[0])
    for (score, *first), (same, *second) in pairwise(merges):
        if score == same and "".join(first) != "".join(second):
            alike = f"{''.join(first)!r} and {''.join(second)!r}"
            warnings.warn(f"tokenizer.ggml.scores are equal for {alike}: llama.cpp may split differently", stacklevel=2)
            break
    unknown = next((word for word, type_ in type_of.items() if type_ == UNKNOWN), None)
    pairs = [(left, right) for _, left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocab, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    written: list = [normalizers.Replace(" ", "▁")]
    read: list = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if flag(about, "tokenizer.ggml.add_space_prefix", True):
        written, read = [normalizers.Prepend("▁"), *written], [*read, decoders.Strip(" ", 1, 0)]
    tokenizer.normalizer, tokenizer.decoder = normalizers.Sequence(written), decoders.Sequence(read)
    return tokenizer
