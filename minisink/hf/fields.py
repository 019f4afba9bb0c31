"""Reading a ``config.json``, value by value, with an error that names the key, the value and the rule."""

import errno
import json
import os
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

from ..system.terminal import in_a_line

MOST_BYTES = 100_000_000  # in a JSON file; a tokenizer with 256,000 words takes a third of this
MOST_LAYERS = 10_000  # far beyond any model; the names of 10**12 layers alone would fill all memory
# Our names -> those that most families use in a config.json
SIZES = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
SIZES |= {"max_positions": "max_position_embeddings", "rope_scaling": "rope_scaling"}
LONGEST_LINE = 600  # letters in a message
GELU = ("gelu", "gelu_python")  # the exact one; below, the tanh approximation, whose forms differ in the last bits
GELU_NEW = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
FEW = 4  # how many items of a list a message shows
POINTER = b"version https://git-lfs.github.com/spec/"  # a small file in place of a large one


class CheckpointError(ValueError):
    """A problem with a file or tensor of a checkpoint, which the message names; a long line is cut in the middle."""

    def __init__(self, line):
        line = in_a_line(line)  # names of tensors and keys come from a file
        half = LONGEST_LINE // 2 - len(" [...] ")
        super().__init__(line if len(line) <= LONGEST_LINE else f"{line[:half]} [...] {line[-half:]}")


def brief(value):
    """Write a value for a message; cut a long list or object after its first items, and say how many more there are.

    >>> print(brief([3, 1, 4, 1, 5, 9]), brief({"a": 1}), brief("text"))
    [3, 1, 4, 1 and 2 more] {'a': 1} 'text'
    """
    if not isinstance(value, (dict, list, tuple)):
        return repr(value)
    first, more = list(value)[:FEW], len(value) - FEW
    text = repr({key: value[key] for key in first} if isinstance(value, dict) else type(value)(first))
    if len(text) > LONGEST_LINE // 4:
        text = f"{text[: LONGEST_LINE // 4]}...{text[-1]}"
    return f"{text[:-1]} and {more} more{text[-1]}" if more > 0 else text


@contextmanager
def loading(what):
    """Raise a CheckpointError that says what could not be read, or a MemoryError if memory ran out."""
    try:
        yield
    except (OSError, MemoryError) as error:
        no_memory = isinstance(error, MemoryError) or error.errno == errno.ENOMEM
        reason = getattr(error, "strerror", None) or error
        raise (MemoryError if no_memory else CheckpointError)(f"{what}: not readable ({reason})") from error


@contextmanager
def naming(path):
    """Turn an error into a CheckpointError that names the file."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def refusing(what, *kinds):
    """Turn errors of some kinds into a CheckpointError that says what is wrong, and why."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except kinds as error:
        raise CheckpointError(f"{what} ({error})") from error


def is_there(path):
    """Return whether a file exists; refuse a pipe, which could block, and the pointer that Git leaves without LFS."""
    if not os.path.isfile(path):
        if os.path.lexists(path):
            what = "a folder" if os.path.isdir(path) else "a pipe, a device or a broken link"
            raise CheckpointError(f"{path}: must be a file, but is {what}")
        return False
    with suppress(OSError), open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise CheckpointError(f"{path}: is a Git LFS pointer, not the file itself; git lfs pull fetches it")
    return True


def read_text(path):
    """Read the text of a JSON file of at most `MOST_BYTES`; errors as in `read_json`."""
    if not is_there(path):
        raise CheckpointError(f"{path}: no such file")
    n_bytes = os.path.getsize(path)
    if n_bytes > MOST_BYTES:
        raise CheckpointError(f"{path}: has {n_bytes:,} bytes; at most {MOST_BYTES:,} are read")
    with refusing(f"{path}: not readable as JSON", OSError, ValueError):
        return Path(path).read_text(encoding="utf-8")


def parse(text):
    """Parse a JSON text; raise ValueError for a repeated key."""
    return json.loads(text, object_pairs_hook=_unique_keys)


def _unique_keys(pairs):
    parsed = {}
    for key, value in pairs:
        if key in parsed:
            raise ValueError(f"{key!r} appears twice")
        parsed[key] = value
    return parsed


def read_json(path, missing=None):
    """Read a JSON object from a file: a CheckpointError if it is too large, invalid, or not an object.

    If there is no such file, return `missing`; without it, that is a CheckpointError too.
    """
    if missing is not None and not is_there(path):
        return missing
    text = read_text(path)
    with refusing(f"{path}: not readable as JSON", ValueError, RecursionError):
        value = parse(text)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(value).__name__}, not an object")
    return value


def positive_int(raw, key, default=None):
    """Read a whole number of 1 or more from a parsed ``config.json``; raise CheckpointError for any other value.

    The default applies if the key is absent or null; without a default the key is required.
    """
    return _checked(raw, key, default, lambda x: type(x) is int and x >= 1, "it must be a whole number of 1 or more")


def number(raw, key, default=None):
    """Read a positive number, like `positive_int`; one too small or too large to compute with is refused."""
    rule = "it must be a number above 0, from 1e-30 to 1e30"
    return float(_checked(raw, key, default, lambda x: type(x) in (int, float) and 1e-30 <= x <= 1e30, rule))


def flag(raw, key, default):
    """Read true or false, like `positive_int`."""
    return _checked(raw, key, default, lambda x: type(x) is bool, "it must be true or false")


def one_of(raw, key, known, default=None):
    """Read one of the supported values, like `positive_int`."""
    rule = f"which is not supported; supported: {', '.join(known)}"
    return _checked(raw, key, default, lambda x: isinstance(x, str) and x in known, rule, between=", ")


def gelu(raw, key):
    """Read which GELU is used, as our name: "gelu" (exact, the default) or "gelu_new" (the tanh approximation)."""
    name = one_of(raw, key, (*GELU, *GELU_NEW), "gelu")
    return "gelu" if name in GELU else "gelu_new"


def text_or_none(raw, key):
    """Read a string; None if it is absent or null."""
    return None if raw.get(key) is None else _checked(raw, key, None, lambda x: isinstance(x, str), "it must be text")


def section(raw, key):
    """Read an object within the config; an empty one if it is absent or null."""
    return _checked(raw, key, {}, lambda x: isinstance(x, dict), "it must be an object")


def token_ids(raw, key, vocab_size):
    """Read a tuple of token ids, from a list, a single id, or nothing (absent or null).

    An id beyond the vocabulary, such as GPT-2's own in a small model, can never occur: warn, and leave it out.
    """
    value = raw.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for i in ids:
        if type(i) is not int or i < 0:
            raise CheckpointError(f"{key} is {brief(value)}; it must be a token id from 0 to {vocab_size - 1}")
        if i >= vocab_size:
            warnings.warn(f"{key} {i} is beyond the vocabulary of {vocab_size}: there is no such token", stacklevel=2)
    return tuple(i for i in ids if i < vocab_size)


def common(raw, keys, *, tied, mlp_widths=None, max_positions=None, norm_eps=1e-5):
    """Read the fields of a `Config` that every architecture has, and Llama's heads; `keys` maps our names to a file's.

    The other arguments are defaults; the MLP's default width is `mlp_widths` times the model's.
    """
    C, H, L, V = (positive_int(raw, key) for key in (keys["d_model"], keys["n_heads"], keys["n_layers"], "vocab_size"))
    if L > MOST_LAYERS:
        raise CheckpointError(f"{keys['n_layers']} is {L}; the most is {MOST_LAYERS}")
    if raw.get(keys.get("head_dim")) is None:
        divides(H, C, (keys["n_heads"], keys["d_model"]))
    refuse(raw, quantization_config=None)
    own_section, heads = section(raw, "minisink"), {}
    if "head_dim" in keys:  # Llama's
        K, D = positive_int(raw, keys["n_kv_heads"], H), positive_int(raw, keys["head_dim"], C // H or None)
        divides(K, H, (keys["n_kv_heads"], keys["n_heads"]))
        if D % 2:
            raise CheckpointError(f"{keys['head_dim']} is {D}; rotary positions need an even number")
        heads = {"n_kv_heads": K, "head_dim": D}
    return heads | {
        "d_model": C,
        "n_layers": L,
        "n_heads": H,
        "d_ff": positive_int(raw, keys.get("d_ff"), mlp_widths and mlp_widths * C),
        "vocab_size": V,
        "max_positions": positive_int(raw, keys["max_positions"], max_positions),
        "norm_eps": number(raw, keys["norm_eps"], norm_eps),
        "tied": flag(raw, "tie_word_embeddings", tied),
        "bos": next(iter(token_ids(raw, "bos_token_id", V)), None),
        "eos": token_ids(raw, "eos_token_id", V),
        "softmax": one_of(own_section, "softmax", ("softmax", "softmax1"), "softmax"),
        "sink_logit": flag(own_section, "sink_logit", False),
    }


def renamed(raw, names):
    """Rename some keys (old to new); refuse an object that has both with different values."""
    raw = dict(raw)
    for old, new in names.items():
        if old in raw and raw.setdefault(new, raw[old]) != raw[old]:
            raise CheckpointError(f"{new} is {brief(raw[new])}, but {old}, its other name, is {brief(raw[old])}")
    return raw


def divides(part, total, names):
    """Refuse sizes that do not divide evenly; `names` are the two keys."""
    if total % part:
        raise CheckpointError(f"{names[1]} is {total}, which {names[0]} {part} does not divide")


def refuse(raw, **unsupported):
    """Refuse each key whose value is not the given one, unless it is absent or null."""
    for key, harmless in unsupported.items():
        if raw.get(key) not in (None, harmless):
            raise CheckpointError(f"{key} is {brief(raw[key])}, which is not supported")


def _checked(raw, key, default, is_right, rule, between="; "):
    value = default if raw.get(key) is None else raw[key]
    if value is None:
        raise CheckpointError(f"{key} is missing")
    if not is_right(value):
        raise CheckpointError(f"{key} is {brief(value)}{between}{rule}")
    return value
