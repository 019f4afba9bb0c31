"""minisink: StreamingLLM and attention sinks in plain NumPy.

>>> import minisink
>>> model = minisink.load("novels")
>>> ids = model.encode("The old man looked out to sea, and said nothing for a long while.")
>>> nll = minisink.token_nll(model, ids, method="streaming", n_sinks=1, window=15)
>>> nll.shape == (len(ids) - 1,)
True
"""

from .cache import KVCache, Policy, keep_all, keep_sinks, keep_window
from .checkpoint import CheckpointError
from .generate import generate
from .methods import METHODS, new_cache
from .model import Model, load
from .perplexity import nll_blocks, nll_stream, perplexity, token_nll
from .snapshot import load_cache, save_cache

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "CheckpointError",
    "KVCache",
    "Model",
    "Policy",
    "generate",
    "keep_all",
    "keep_sinks",
    "keep_window",
    "load",
    "load_cache",
    "new_cache",
    "nll_blocks",
    "nll_stream",
    "perplexity",
    "save_cache",
    "token_nll",
]
