"""`load` a checkpoint by name, folder or hub id; a `Model` is its config, weights, tokenizer and forward pass."""

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .cache import KVCache
from .hf import folder as hf_folder
from .hf import gguf_model
from .hf import tokenizer as hf_tokenizer
from .hf.arrays import ARCHITECTURES, from_arrays, shapes, to_arrays
from .hf.find import check_dtype, find
from .hf.layout import lay_out
from .paths import Cached, Uncached
from .paths import Path as AnyPath
from .system.device import array_module, to_host
from .system.threads import one_thread


@dataclass(repr=False, eq=False)
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
        Tensors in the files that a forward pass does not need.
    chat_template : str or None
        A Jinja template that formats conversations for this model; see `chat.template`.
    special_tokens : dict or None
        The template's names for special tokens: ``{"bos_token": "<s>", ...}``; None derives them from the config's
        ids. The tokens that begin and end a text are ``config.bos`` and ``config.eos``.
    """

    config: Any
    weights: Any
    tokenizer: Any = None
    _: KW_ONLY
    name: str = ""
    ignored: Sequence[str] = ()
    chat_template: str | None = None
    special_tokens: dict[str, str] | None = None

    @property
    def architecture(self) -> Any:
        """The module that computes it: `llama`, `gpt2` or one of `families`."""
        return ARCHITECTURES[self.config.model_type]

    def __repr__(self):
        config = self.config
        about = f"{config.model_type}, {config.n_layers} layers of width {config.d_model}"
        return f"<Model {self.name}: {about}, {self.n_parameters:,} parameters, {self.dtype}>"

    def forward(
        self,
        ids: Sequence[int] | np.ndarray,
        cache: KVCache | AnyPath | None = None,
        *,
        rows: slice | np.ndarray | None = None,
        trace: dict | None = None,
    ) -> np.ndarray:
        """Return the logits of the next token after each token.

        Parameters
        ----------
        ids : sequence or ndarray of shape (T,), ints
        cache : KVCache or path, optional
            What the tokens may look at besides each other; they are added to it. Without a cache, attention is dense
            and causal from token 0. The logits do not depend on how a text is cut into chunks. A path is any
            object with the methods of `paths.Path`.
        rows : slice or ndarray of ints, optional
            Tokens whose logits to return (all by default).
        trace : dict, optional
            Pass ``{}`` to look inside; see `llama.forward` for what it receives.

        Returns
        -------
        ndarray of shape (T, V), or (len(rows), V)
            In the dtype of the weights, float32 unless loaded otherwise.

        Raises
        ------
        ValueError
            For ids that are empty, not integers, or outside the vocabulary; if `cache` is not a cache, or does not fit
            this model.

        Examples
        --------
        >>> model = load("novels")
        >>> model.forward(model.encode("It was a dark night")).shape[1]
        1024
        """
        ids, path = self.check_ids(ids), self.path_of(cache)
        if trace is not None and not isinstance(trace, dict):
            raise ValueError(f"trace is {trace!r}; pass an empty dict to be filled")
        with one_thread(self.config.d_model):
            return self.architecture.forward(ids, self.weights, self.config, path=path, rows=rows, trace=trace)

    def path_of(self, cache: KVCache | AnyPath | None) -> AnyPath:
        """Return the path for `cache`; raise ValueError if it is not a cache, or does not fit this model."""
        if cache is None:
            return Uncached()
        if isinstance(cache, KVCache):
            config, keys = self.config, cache.layers[0].keys
            has, needs = (len(cache.layers), *keys.shape[1:]), (config.n_layers, config.n_kv_heads, config.head_dim)
            if has != needs:
                raise ValueError(f"this cache has (layers, heads, channels) {has}; {self.name} needs {needs}")
            return (cache.path or Cached)(cache)
        if not (hasattr(cache, "positions") and callable(getattr(cache, "mix", None))):
            raise ValueError(f"cache is {cache!r}; it must be a KVCache or a path with `positions` and `mix`")
        return cache

    def check_ids(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the ids as an int64 array of shape (T,); raise ValueError naming the first bad one."""
        if isinstance(ids, str):
            raise ValueError(f"ids are the text {ids[:20]!r}; encode it first: model.encode(text)")
        ids = np.asarray(ids)
        if ids.ndim != 1 or ids.size == 0:
            raise ValueError(f"ids have shape {ids.shape}; they must be one-dimensional, with at least one token")
        if ids.dtype.kind not in "iu":
            raise ValueError(f"ids are {ids.dtype}; they must be whole numbers")
        outside = np.flatnonzero((ids < 0) | (ids >= self.config.vocab_size))
        if outside.size:
            at = outside[0]
            raise ValueError(f"id {ids[at]} at index {at} is outside the vocabulary of {self.config.vocab_size}")
        return ids.astype(np.int64)

    def encode(self, text: str, *, bos: bool = True) -> np.ndarray:
        """Turn text into token ids.

        Parameters
        ----------
        text : str
            The name of a special token inside it is treated as plain text.
        bos : bool
            Put the begin-of-text token first, if there is one. In a model trained that way, it is the attention sink.

        Returns
        -------
        ndarray of shape (T,), int64

        Raises
        ------
        ValueError
            When the checkpoint has no tokenizer, or the text contains half a surrogate pair, which is
            how Python represents bytes that are not UTF-8.

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
        ids = hf_tokenizer.encode(tokenizer, text, name=self.name).ids
        first = [self.config.bos] if bos and self.config.bos is not None else []
        return np.array(first + ids, dtype=np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn token ids into text, leaving out special tokens.

        Parameters
        ----------
        ids : sequence of ints

        Returns
        -------
        str
        """
        return hf_tokenizer.decode(self._need_tokenizer(), [int(i) for i in ids], name=self.name)

    def _need_tokenizer(self):
        if self.tokenizer is None:
            remedy = "transformers turns a tokenizer.model or vocab.json into a tokenizer.json: load it there and save"
            raise ValueError(f"{self.name}: has no tokenizer, so text cannot be turned into tokens; {remedy} it")
        return self.tokenizer

    def save(self, folder: str | os.PathLike) -> None:
        """Write a Hugging Face folder for `load` and transformers; `load` returns the same model bit for bit.

        Parameters
        ----------
        folder : str or path

        Raises
        ------
        CheckpointError
            When the folder cannot be written.
        """
        chat = self.chat_template, self.special_tokens
        hf_folder.write(Path(folder), self.config, self.arrays(), self.tokenizer, *chat)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every learned array by name, on the host, a tied output matrix once: ``"embed"``, ``"0.wq"``, ..."""
        return {name: to_host(array) for name, array in to_arrays(self.config, self.weights).items()}

    @property
    def dtype(self) -> np.dtype:
        """numpy dtype of the weights."""
        return self.weights.embed.dtype

    @property
    def n_parameters(self) -> int:
        """Learned numbers; a tied output matrix counts once."""
        return sum(int(np.prod(shape)) for shape in shapes(self.config).values())


def load(
    name_or_path: str | os.PathLike, *, dtype: str = "float32", device: str = "cpu", revision: str | None = None
) -> Model:
    """Load a checkpoint.

    Parameters
    ----------
    name_or_path : str or path
        The name of a model that ships with minisink ("novels") or as a package ("smollm2"); a Hugging Face
        folder; a GGUF file; or a hub id "owner/name". If a folder has the name of a model, write "./novels".
    dtype : {"float32", "float64", "float16"}
        Dtype of the weights and all arithmetic; float16 only on a GPU, because on the host it is many times
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
        When something in the checkpoint is wrong; the message names the file, tensor or value.
    MemoryError
        When the device has no room for the weights.

    Examples
    --------
    >>> model = load("novels")
    >>> model.config.n_layers, model.n_parameters
    (4, 1066112)
    """
    wanted = check_dtype(dtype, device)
    xp = array_module(device)
    source = find(name_or_path, revision)
    form = gguf_model if source.is_file() else hf_folder
    try:
        config, arrays, tokenizer, ignored, (chat_template, special_tokens) = form.read(source, dtype=wanted)
        arrays = lay_out(config, arrays, xp.empty(0, wanted))
    except MemoryError as error:
        narrower = "float16" if device != "cpu" else "float32"
        less = f"; {narrower} takes less" if np.dtype(narrower).itemsize < wanted.itemsize else ""
        raise MemoryError(f"{name_or_path}: no memory left on {device} ({error}){less}") from error
    weights = from_arrays(config, arrays)
    chat = {"chat_template": chat_template, "special_tokens": special_tokens}
    return Model(config, weights, tokenizer, name=str(name_or_path), ignored=ignored, **chat)
