"""Text files to one long row of token ids: train a tokenizer, encode, remember.

The tokenizer is a byte-level BPE (Sennrich et al., arXiv:1508.07909, over bytes as in GPT-2), so no text is
unknown to it. ``<s>`` is id 0 and never comes out of a text.
"""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..system.files import whole_file

BOS = "<s>"


def train_tokenizer(paths, vocab_size):
    """A byte-level BPE tokenizer learned from text files.

    Parameters
    ----------
    paths : sequence of path
    vocab_size : int
        V, ``<s>`` and the 256 bytes included.

    Returns
    -------
    tokenizers.Tokenizer

    Raises
    ------
    ValueError
        When the text has too few repeated pairs for so many tokens, or a file cannot be read.
    """
    if vocab_size < 257:
        raise ValueError(f"vocabulary of {vocab_size} is too small: {BOS} and the 256 bytes alone are 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((read_text(path) for path in paths), trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise ValueError(
            f"a vocabulary of {vocab_size} is larger than the text supports: "
            f"it has pairs for {tokenizer.get_vocab_size()} tokens only"
        )
    return tokenizer


def read_tokenizer(path):
    """A tokenizer from a ``tokenizer.json``, or a ValueError that says what is wrong with it."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path}: not a tokenizer ({error})") from error


def read_text(path):
    """A text file as str, or a ValueError that says why not."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error})") from error


def encode_files(tokenizer, paths, progress=iter):
    """All files, one after another.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    paths : sequence of path
    progress : callable
        Wraps the iteration, as tqdm does.

    Returns
    -------
    ndarray of shape (T,), uint16, or uint32 for a vocabulary beyond 65,536
    """
    tokenizer.encode_special_tokens = True  # a "<s>" in a book stays three letters, and the sink token stays a sink
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    ids = [np.array(tokenizer.encode(read_text(p), add_special_tokens=False).ids, dtype) for p in progress(paths)]
    return np.concatenate([np.empty(0, dtype), *ids])


def remembered(path, make):
    """The ids in a ``.npy`` file, or, when it is not there yet, those of ``make()``, kept there.

    Parameters
    ----------
    path : path or None
        None keeps nothing.
    make : callable

    Returns
    -------
    ndarray of shape (T,)

    Raises
    ------
    ValueError
        When the file cannot be read or written.
    """
    if path is None:
        return make()
    path = Path(path)
    if path.exists():
        try:
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: not a .npy file of token ids; without it the text is encoded anew") from error
        if ids.ndim != 1 or ids.dtype.kind != "u":
            raise ValueError(f"{path}: holds {ids.dtype} of shape {ids.shape}, not a row of token ids")
        return ids
    ids = make()
    try:
        with whole_file(path) as unfinished, open(unfinished, "wb") as file:
            np.save(file, ids)
    except OSError as error:
        raise ValueError(f"{path}: {error}") from error
    return ids
