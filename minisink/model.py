"""`load` a checkpoint by name, folder or hub id; a `Model` is its config, weights, tokenizer and forward pass."""

import os
from pathlib import Path

import numpy as np

from . import checkpoint, gpt2, hub, llama
from .attention import Cached, Dense
from .cache import KVCache
from .checkpoint import CheckpointError
from .device import array_module, to_host
from .resources import shipped, shipped_names

ARCHITECTURES = {"llama": llama, "mistral": llama, "qwen2": llama, "gpt2": gpt2}
MOST_LAYERS = 10_000  # far beyond any model: the names alone of 10**12 layers would fill all memory


class Model:
    """One checkpoint, ready to run.

    Attributes
    ----------
    config : llama.Config or gpt2.Config
    weights : llama.Weights or gpt2.Weights
    tokenizer : tokenizers.Tokenizer or None
    name : str
        What was loaded.
    ignored : list of str
        Tensors of the files that a forward pass does not need.
    """

    def __init__(self, config, weights, tokenizer=None, *, name="", ignored=()):
        self.config = config
        self.weights = weights
        self.tokenizer = tokenizer
        self.name = name
        self.ignored = list(ignored)
        self.architecture = ARCHITECTURES[config.model_type]

    def forward(self, ids, cache=None, *, rows=None, trace=None):
        """Logits of the next token after each token.

        Parameters
        ----------
        ids : sequence or ndarray of shape (T,), ints
        cache : KVCache or another with ``positions`` and ``mix``, optional
            What the tokens may look at besides each other; it takes them in. Without one the text is
            dense and causal from token 0. Any chunking gives the same logits.
        rows : slice or ndarray of ints, optional
            Tokens whose logits are wanted (all by default).
        trace : dict, optional
            Pass ``{}`` to look inside; see `llama.forward` for what it receives.

        Returns
        -------
        ndarray of shape (T, V), or (len(rows), V)
            In the dtype of the weights, float32 unless loaded otherwise.

        Raises
        ------
        ValueError
            For ids that are empty, not whole numbers, or outside the vocabulary.

        Examples
        --------
        >>> model = load("novels")
        >>> model.forward(model.encode("It was a dark night")).shape[1]
        1024
        """
        ids = self.check_ids(ids)
        path = Dense() if cache is None else Cached(cache) if isinstance(cache, KVCache) else cache
        return self.architecture.forward(ids, self.weights, self.config, path=path, rows=rows, trace=trace)

    def check_ids(self, ids):
        """The ids as an int64 array of shape (T,), or a ValueError that names the first bad one."""
        ids = np.asarray(ids)
        if ids.ndim != 1 or ids.size == 0:
            raise ValueError(f"ids have shape {ids.shape}; a text is one axis of at least one token")
        if ids.dtype.kind not in "iu":
            raise ValueError(f"ids are {ids.dtype}; they must be whole numbers")
        outside = np.flatnonzero((ids < 0) | (ids >= self.config.vocab_size))
        if outside.size:
            at = outside[0]
            raise ValueError(f"id {ids[at]} at index {at} is outside the vocabulary of {self.config.vocab_size}")
        return ids.astype(np.int64)

    def encode(self, text, *, bos=True):
        """Text to token ids.

        Parameters
        ----------
        text : str
            The name of a special token inside it stays text.
        bos : bool
            Put the begin-of-text token first, where the model has one. For a model trained that way it is
            the attention sink.

        Returns
        -------
        ndarray of shape (T,), int64

        Raises
        ------
        ValueError
            When the checkpoint came without a tokenizer, or the text has half a surrogate pair in it: that is
            how Python passes on bytes that are not UTF-8.

        Examples
        --------
        >>> load("novels").encode("<s>").tolist()[0]
        0
        """
        tokenizer = self._need_tokenizer()
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"the text is not UTF-8 (character {text[error.start]!a} at {error.start})") from None
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        first = [self.config.bos] if bos and self.config.bos is not None else []
        return np.array(first + ids, dtype=np.int64)

    def decode(self, ids):
        """Token ids to text, special tokens left out.

        Parameters
        ----------
        ids : sequence of ints

        Returns
        -------
        str
        """
        return self._need_tokenizer().decode([int(i) for i in ids])

    def _need_tokenizer(self):
        if self.tokenizer is None:
            raise ValueError(f"{self.name}: has no tokenizer.json, so text cannot be turned into tokens")
        return self.tokenizer

    def save(self, folder):
        """Write a Hugging Face folder that `load` and transformers read; it loads again bit for bit.

        Parameters
        ----------
        folder : str or path

        Raises
        ------
        CheckpointError
            When the folder cannot be written.
        """
        tensors = {name: to_host(a) for name, a in self.architecture.to_tensors(self.config, self.weights).items()}
        dtype = str(next(iter(tensors.values())).dtype)
        raw = self.config.to_hf() | {"torch_dtype": dtype}
        checkpoint.write_folder(Path(folder), raw, tensors, self.tokenizer)

    @property
    def dtype(self):
        """numpy dtype of the weights."""
        return self.weights.embed.dtype

    @property
    def n_parameters(self):
        """Learned numbers; a tied output matrix counts once."""
        return sum(int(np.prod(shape)) for shape in self.architecture.tensor_shapes(self.config).values())


def load(name_or_path, *, dtype="float32", device="cpu", revision=None):
    """Load a checkpoint.

    Parameters
    ----------
    name_or_path : str or path
        The name of a model that ships ("novels"), a Hugging Face folder, or a hub id "owner/name". A folder
        with the name of a shipped model is meant by "./novels".
    dtype : {"float32", "float64", "float16"}
        Of the weights and of all arithmetic; float16 on a GPU only, since on the host it is many times
        slower than float32. Narrower checkpoints are widened exactly.
    device : str
        "cpu", "cuda" or "cuda:N".
    revision : str, optional
        Branch, tag or commit of a hub id.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        Naming the file, tensor or value that is wrong.
    MemoryError
        When the device has no room for the weights.

    Examples
    --------
    >>> model = load("novels")
    >>> model.config.n_layers, model.n_parameters
    (4, 1066112)
    """
    dtype = _check_dtype(dtype, device)
    xp = array_module(device)
    folder = _find(name_or_path, revision)
    raw = checkpoint.read_json(folder / "config.json")
    architecture = ARCHITECTURES.get(str(raw.get("model_type")))
    if architecture is None:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{folder / 'config.json'}: model_type {raw.get('model_type')!r} is not one of {known}")
    try:
        config = architecture.Config.from_hf(raw)
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    if config.n_layers > MOST_LAYERS:
        raise CheckpointError(f"{folder / 'config.json'}: asks for {config.n_layers} layers; {MOST_LAYERS} is the most")
    tokenizer = checkpoint.read_tokenizer(folder, config.vocab_size)
    tensors, ignored = checkpoint.read_tensors(
        folder,
        architecture.tensor_shapes(config),
        prefix=architecture.PREFIX,
        harmless=architecture.HARMLESS,
        dtype=dtype,
    )
    try:
        tensors = {name: xp.asarray(array) for name, array in tensors.items()}
    except MemoryError as error:
        raise MemoryError(f"{name_or_path}: no memory left on {device} ({error}); float16 takes half") from error
    weights = architecture.from_tensors(config, tensors)
    return Model(config, weights, tokenizer, name=str(name_or_path), ignored=ignored)


def _check_dtype(dtype, device):
    """The numpy dtype of that name, if arithmetic in it makes sense on the device."""
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted not in (np.float32, np.float64) and not (wanted == np.float16 and device != "cpu"):
        raise ValueError(f"dtype {dtype!r} on {device!r}: use 'float32' or 'float64' ('float16' on a GPU only)")
    return wanted


def _find(name_or_path, revision):
    """The folder that a name, path or hub id stands for."""
    name = str(name_or_path)
    if name in shipped_names():
        return shipped(name)
    folder = Path(name_or_path)
    if os.path.isdir(folder):  # unlike Path.is_dir, false for a name too long to be one
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: this folder has no config.json")
        return folder
    if not hub.HUB_ID.fullmatch(name):
        names = ", ".join(shipped_names())
        raise CheckpointError(f"{name}: no such folder, and not a shipped model ({names}) or a hub id 'owner/name'")
    try:
        return hub.fetch(name, revision)
    except OSError as error:
        raise CheckpointError(str(error)) from error
