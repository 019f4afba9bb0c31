"""From text files to one long row of token ids: train a tokenizer, encode, remember.

The tokenizer is a byte-level BPE (Sennrich et al., arXiv:1508.07909, over bytes as in GPT-2), so it can encode
any text. ``<s>`` is id 0, and no text is ever encoded to it.
"""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..hf.tokenizer import encode, no_panic
from ..system.files import atomic_write, check_file, read_text

BOS = "<s>"


def train_tokenizer(paths, vocab_size):
    """Learn a byte-level BPE tokenizer from text files; its vocabulary includes ``<s>`` and the 256 bytes."""
    if vocab_size < 257:
        raise ValueError(f"vocabulary of {vocab_size} is too small: {BOS} and the 256 bytes alone are 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin: dict = {"special_tokens": [BOS], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **begin)
    tokenizer.train_from_iterator(map(read_text, paths), trainer)
    if (n_found := tokenizer.get_vocab_size()) < vocab_size:
        why = f"it has pairs for only {n_found} tokens"
        raise ValueError(f"a vocabulary of {vocab_size} is larger than the text supports: {why}")
    return tokenizer


def read_tokenizer(path):
    """Read a ``tokenizer.json``, or raise a ValueError that says what is wrong with it."""
    with no_panic(f"{path}: not a tokenizer"):
        return Tokenizer.from_file(str(path))


def encode_files(tokenizer, paths):
    """Encode all files, one after another, to (T,) uint16, or uint32 for a vocabulary of more than 65,536 tokens."""
    tokenizer.encode_special_tokens = True  # a "<s>" in a book stays three letters, and the sink token stays a sink
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    ids = [np.array(encode(tokenizer, read_text(p), name=p).ids, dtype) for p in paths]
    return np.concatenate([np.empty(0, dtype), *ids])


def remembered(path, make):
    """Return the ids in a ``.npy`` file, or make them with ``make()`` and write it; None means there is no file."""
    if path is None:
        return make()
    path = Path(path)
    check_file(path)
    if not path.exists():
        ids = make()
        with atomic_write(path) as unfinished, open(unfinished, "wb") as file:
            np.save(file, ids)
        return ids
    why = "without it the text is encoded again"
    try:
        ids = np.lib.format.open_memmap(path, mode="r")
        if ids.ndim != 1 or ids.dtype.kind != "u":
            raise ValueError("not a row of unsigned whole numbers")
    except Exception as error:  # NumPy hands the header to Python's parser, which can be made to fail in many ways
        raise ValueError(f"{path}: not a .npy file of token ids ({error}); {why}") from error
    if not len(ids):
        raise ValueError(f"{path}: holds no token ids; {why}")
    return ids
