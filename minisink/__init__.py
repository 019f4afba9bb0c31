"""minisink: StreamingLLM and attention sinks in plain NumPy.

Where to start: `load` loads a model, `token_nll` measures its loss on a text under a method, `generate` writes with it,
and `new_cache` makes the cache that the paper is about. A method is a value: ``Streaming(n_sinks=4, window=252)``.
To read the code, begin with `minisink.by_the_book` and `minisink.cache`; the README lists the files in order.

>>> import minisink
>>> model = minisink.load("novels")
>>> ids = model.encode("The old man looked out to sea, and said nothing for a long while.")
>>> nll = minisink.token_nll(model, ids, minisink.Streaming(n_sinks=1, window=15))
>>> nll.shape == (len(ids) - 1,)
True
"""

__version__ = "1.0.0"

__all__ = [
    "ByLayer",
    "CheckpointError",
    "Dense",
    "KVCache",
    "Model",
    "Policy",
    "Recompute",
    "Retrieval",
    "Streaming",
    "Window",
    "generate",
    "load",
    "load_cache",
    "new_cache",
    "nll_blocks",
    "nll_parts",
    "nll_stream",
    "perplexity",
    "save_cache",
    "token_nll",
]

TYPE_CHECKING = False  # as in `typing`, whose import would delay the handling of Ctrl-C: see `__main__`

if TYPE_CHECKING:
    from .cache import KVCache, Policy
    from .evaluation.parts import nll_parts
    from .evaluation.stream import nll_stream
    from .generation import generate
    from .hf.fields import CheckpointError
    from .loss import nll_blocks, perplexity, token_nll
    from .methods import ByLayer, Dense, Recompute, Streaming, Window, new_cache
    from .model import Model, load
    from .retrieval import Retrieval
    from .snapshot import load_cache, save_cache
else:
    _SHELF = ("cache", "generation", "loss", "methods", "model", "snapshot")
    _FILES = (*_SHELF, "evaluation.stream", "evaluation.parts", "hf.fields", "retrieval")

    def __getattr__(name):
        """Import a name on first use; by then a command has set the number of threads, which numpy reads on import."""
        from importlib import import_module
        from importlib.util import find_spec

        if name in __all__:
            for file in _FILES:
                names = vars(import_module(f"{__name__}.{file}"))
                globals().update({public: names[public] for public in __all__ if public in names})
            return globals()[name]
        if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")  # so that minisink.cache needs no import of its own
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
