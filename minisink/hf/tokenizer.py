"""A folder's ``tokenizer.json``, set to encode a text unchanged; what begins a text; its chat template's words.

`text_stream` turns tokens back into text as they arrive.
"""

import itertools
import json
import os
import warnings
from functools import partial

from .fields import CheckpointError, brief, is_there, naming, parse, read_json, read_text, refusing, text_or_none

TEMPLATE, SETTINGS, NAMES = "chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"
ADDED = "added_tokens.json"
FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")  # flags of an added word
END = "<|endoftext|>"
THREE = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
CLASSES = {  # transformers' classes, by their names
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "GPT2Tokenizer": THREE,
    "GPTNeoXTokenizer": THREE | {"pad_token": "<|padding|>"},
    "Qwen2Tokenizer": {"eos_token": END, "unk_token": END, "pad_token": END},
}
USUAL = {"gpt2": "GPT2Tokenizer", "gpt_neox": "GPTNeoXTokenizer", "mpt": "GPTNeoXTokenizer"}  # if a folder names none
ALWAYS = {"qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "mistral": "none"}  # whatever a folder names
HELD = 16  # the most tokens that are held back for the rest of a character


def no_panic(what):
    """Turn anything the library raises into CheckpointError: it has no error classes; a panic is not an Exception."""
    return refusing(what, BaseException)


def encode(tokenizer, text, *, name):
    """Return the library's encoding of a text (`ids`, `offsets`), with nothing in front; an error names the model."""
    with no_panic(f"{name}: its tokenizer cannot encode this text"):
        return tokenizer.encode(text, add_special_tokens=False)


def decode(tokenizer, ids, *, name):
    """Undo `encode`; special tokens are left out."""
    with no_panic(f"{name}: its tokenizer cannot decode these tokens"):
        return tokenizer.decode(ids)


def read_tokenizer(folder, vocab_size):
    """Read the tokenizer of a folder; return None if there is no file for it.

    The text of a special token inside a user's text stays text. Raise CheckpointError for a file that cannot be
    read, or that could give an id for which the model has no embedding.
    """
    if not is_there(path := folder / "tokenizer.json"):
        return None
    text = read_text(path)
    from tokenizers import Tokenizer  # imported here, so that minisink works without it

    with no_panic(f"{path}: not a tokenizer"):
        _refuse_double_ids(parse(text))
        tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()  # some files carry the settings of a training run
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None  # it drops merges at random
    # an added special token, such as [PAD] for training, is never found in a text
    added = [i for i, token in tokenizer.get_added_tokens_decoder().items() if not token.special]
    largest = max([*tokenizer.get_vocab(with_added_tokens=False).values(), *added], default=-1)
    if largest >= vocab_size:
        raise CheckpointError(f"{path}: has token id {largest}, but the model's vocab_size is {vocab_size}")
    return tokenizer


def read_chat_template(folder):
    """Read the chat template of a folder, or None: from its own file, or the settings' only one, or their "default"."""
    if is_there(folder / TEMPLATE):
        return read_text(folder / TEMPLATE)
    about = read_json(folder / SETTINGS, {})
    template = about.get("chat_template")
    if isinstance(template, list) and all(isinstance(entry, dict) for entry in template):
        named = {entry.get("name"): entry.get("template") for entry in template}
        about = {"chat_template": named.get("default")}
    with naming(folder / SETTINGS):
        return text_or_none(about, "chat_template")


def read_special_tokens(folder, tokenizer, model_type):
    """Read a chat template's names for special tokens, ``{"bos_token": "<s>", ...}``, as transformers 5 does.

    ``special_tokens_map.json`` overrides ``tokenizer_config.json``, unless the latter lists its tokens too. Return None
    for a folder with neither file. The token that begins a text is found by `begin_of_text`, not by name.
    """
    settings, named = (read_json(folder / name, {}) for name in (SETTINGS, NAMES))
    if tokenizer is None or not (is_there(folder / SETTINGS) or is_there(folder / NAMES)):
        return None
    about = settings if "added_tokens_decoder" in settings else settings | named
    tokens = {name: token for name, token in about.items() if name.endswith("_token")}
    for key in ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"):
        tokens |= about[key] if isinstance(about.get(key), dict) else {}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    names = _names_of_class(settings.get("tokenizer_class"), model_type, tokenizer) | texts
    return {name: text for name, text in names.items() if isinstance(text, str)}  # add_bos_token is true or false


def _names_of_class(tokenizer_class, model_type, tokenizer):
    """Return the names that transformers' tokenizer class has by default; most have none."""
    tokenizer_class = USUAL.get(model_type) if tokenizer_class is None else tokenizer_class
    name = ALWAYS.get(model_type, str(tokenizer_class).removesuffix("Fast"))
    of_bytes = "ByteLevel" in str(tokenizer.pre_tokenizer)  # Llama 3's, whose settings may still say LlamaTokenizer
    return {} if name == "LlamaTokenizer" and of_bytes else CLASSES.get(name, {})


def add_words(folder, tokenizer, names, vocab_size):
    """Add words from other files if the model has embeddings for them; make named ones special, like transformers."""
    from tokenizers import AddedToken

    settings, named, ids = (read_json(folder / name, {}) for name in (SETTINGS, NAMES, ADDED))
    added = tokenizer.get_added_tokens_decoder()
    known = {token.content: token for token in added.values()}
    with no_panic(f"{folder}: the words that its {SETTINGS}, {NAMES} and {ADDED} list cannot be added"):
        if "added_tokens_decoder" not in settings:  # in folders written before 2023
            settings = settings | named
        extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
        extra = [word["content"] if isinstance(word, dict) else word for word in extra if isinstance(extra, list)]
        if "added_tokens_decoder" in settings:
            listed = sorted(settings["added_tokens_decoder"].items(), key=lambda entry: int(entry[0]))
            listed = [{key: entry[key] for key in FLAGS if key in entry} for _, entry in listed]
        else:
            listed = [
                {"content": word, "special": word in extra} for word in sorted(ids, key=ids.get) if word not in known
            ]
        words = known | {token.content: token for token in (AddedToken(**entry) for entry in listed)}
        for word in (*names.values(), *extra):
            about = words[word].__getstate__() if word in words else {"content": word}
            if word not in words or (word in names.values() and not words[word].special):
                words[word] = AddedToken(**about | {"special": True})
        free = max([tokenizer.get_vocab_size(with_added_tokens=False), *(i + 1 for i in added)])
        new = [word for word in words if tokenizer.token_to_id(word) is None][max(vocab_size - free, 0) :]
        wanted = [word for word in words if word not in new and words[word] is not known.get(word)]
        tokenizer.add_tokens([words[word] for word in wanted])


def check_space(folder, tokenizer):
    """Warn if ``tokenizer_config.json`` is wrong about whether a space is put before a text."""
    said = read_json(folder / SETTINGS, {}).get("add_prefix_space")
    with no_panic(f"{folder / 'tokenizer.json'}: its tokenizer cannot encode a text"):
        text = tokenizer.normalizer.normalize_str("a") if tokenizer.normalizer else "a"
        first = tokenizer.pre_tokenizer.pre_tokenize_str(text)[:1] if tokenizer.pre_tokenizer else [(text,)]
    does = first[0][0].startswith((" ", "▁", "Ġ")) if first else False
    if isinstance(said, bool) and said != does:
        line = f"{folder / SETTINGS}: add_prefix_space is {said}, but tokenizer.json"
        warnings.warn(f"{line} puts {'a' if does else 'no'} space before a text, which is what counts", stacklevel=2)


def config_names(config, tokenizer):
    """Name the tokens of a config as a chat template does; a missing one is empty."""
    ids = {"bos_token": config.bos, "eos_token": next(iter(config.eos), None)}
    return {name: "" if i is None else tokenizer.id_to_token(i) or "" for name, i in ids.items()}


def _refuse_double_ids(about):
    """Refuse two words with the same id: the library would panic and print to stderr, even if the panic is caught."""
    model = about.get("model") if isinstance(about, dict) else None
    words = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(words, dict) and len(set(map(str, words.values()))) < len(words):
        raise ValueError("two words in its vocabulary share an id")


def begin_of_text(folder, tokenizer, config):
    """Find the token id that begins a text, or None: the one the tokenizer puts first, as in transformers.

    The ``bos_token_id`` of ``config.json``, here `config.bos`, counts only in a folder with neither a post-processor
    nor a ``tokenizer_config.json``. Raise CheckpointError for more than one token, or one without an embedding.
    """
    if tokenizer is None:
        return config.bos
    if tokenizer.post_processor is None:
        return None if os.path.lexists(folder / SETTINGS) else config.bos
    path = folder / "tokenizer.json"
    with naming(path):
        first = put_first(tokenizer)
    if len(first) > 1 or any(i >= config.vocab_size for i in first):
        most = f"at most one is supported, below {config.vocab_size}"
        raise CheckpointError(f"{path}: puts the token ids {brief(first)} in front of a text; {most}")
    return next(iter(first), None)


def put_first(tokenizer):
    """List the token ids that a tokenizer's post-processor puts in front of every text.

    >>> from tokenizers import Tokenizer, models, processors
    >>> tokenizer = Tokenizer(models.BPE())
    >>> put_first(tokenizer)
    []
    >>> tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 7)])
    >>> put_first(tokenizer)
    [7]
    """
    return _first_of(tokenizer.post_processor and json.loads(tokenizer.post_processor.__getstate__()))


def _first_of(about):
    """Do the work of `put_first` on a post-processor's JSON: the library itself panics on some that it has accepted."""
    kind, first = about["type"] if about else None, []
    if kind == "Sequence":
        first = [i for step in about["processors"] for i in _first_of(step)]  # only one; the others handle bytes
    elif kind in ("BertProcessing", "RobertaProcessing"):
        first = [about["cls"][1]]
    elif kind == "TemplateProcessing":
        for piece in itertools.takewhile(lambda piece: "SpecialToken" in piece, about["single"]):  # up to the text
            name = piece["SpecialToken"]["id"]
            if name not in about["special_tokens"]:
                raise ValueError(f"the template begins with {name!r}, which is not among its special_tokens")
            first += about["special_tokens"][name]["ids"]
    return first


def begun_by(tokenizer, bos):
    """Give a tokenizer a post-processor that begins a text with `bos`, or with nothing for None."""
    from tokenizers import Tokenizer, processors

    if put_first(tokenizer) == ([] if bos is None else [bos]):
        return tokenizer
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    first = [] if bos is None else ["<s>"]  # the template's name for it; the token has its own
    special = [{"id": "<s>", "ids": [bos], "tokens": [tokenizer.id_to_token(bos) or "<s>"]}] if first else []
    tokenizer.post_processor = processors.TemplateProcessing([*first, "$A"], [*first, "$A", "$B"], special)
    return tokenizer


def text_stream(tokenizer, ids, *, after=(), name="a model"):
    """Yield tokens as text, whole characters at a time.

    A character may take several tokens; it is yielded once its last byte has arrived, or as U+FFFD if the tokens
    end before that. The text of the latest tokens is the difference between decoding with and without them, because a
    token alone does not show whether its leading space counts. (`tokenizers.decoders.DecodeStream` raises on fallback
    bytes that form no character.) `after` are earlier tokens, whose text has already been yielded; `name` is the model.
    """
    text_of = partial(decode, tokenizer, name=name)
    recent = [int(i) for i in after]  # the latest tokens; the first n_out have been yielded
    n_out = len(recent)
    while n_out and text_of(recent[:n_out]).endswith("\ufffd") and len(recent) - n_out < HELD:
        n_out -= 1  # they end within a character
    for token in ids:
        recent.append(int(token))
        before, text = text_of(recent[:n_out]), text_of(recent)
        unfinished = len(text) <= len(before) or text.endswith("\ufffd")
        if unfinished and len(recent) - n_out < HELD:  # more bytes than any character has: not a character
            continue
        if len(text) > len(before):
            yield text[len(before) :]
        recent, n_out = recent[n_out:], len(recent) - n_out
    before, text = text_of(recent[:n_out]), text_of(recent)
    if len(text) > len(before):  # the stream ended within a character, or with one that is U+FFFD
        yield text[len(before) :]
