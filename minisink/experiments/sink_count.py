"""Tables 2 and 3 of StreamingLLM in small: how many sinks a model needs, for caches of several sizes.

``python -m minisink.experiments.sink_count novels --text book.txt another.txt`` prints the perplexity of the beginnings
of the texts, together, with 0, 1, 2, 4 and 8 sinks in a cache of the same size, beside re-computation.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from ..errors import in_one_line
from ..methods import lead_of
from ..model import load
from ..perplexity import perplexity, token_nll
from ..resources import sample_text
from ..terminal import table

CACHES = (64, 128, 256)
SINKS = (0, 1, 2, 4, 8)


def run(model, texts, *, caches=CACHES, sinks=SINKS):
    """Perplexity of some texts for every cache and number of sinks.

    Parameters
    ----------
    model : Model
    texts : list of ndarray of shape (T,), ints
        Each is streamed by itself. Where one begins with the model's begin-of-text token, so does every window that is
        re-computed.
    caches : sequence of int
        Keys a query sees; sinks and window share them.
    sinks : sequence of int

    Yields
    ------
    dict
        A row a cache: ``"cache"``; ``"sinks"``, a perplexity for each number of sinks; ``"recompute"``. NaN where the
        model has not learned the position (GPT-2), or a cache has no room for a window.
    """
    for cache in caches:
        with_sinks = [_together(model, texts, cache, n_sinks=n, window=cache - n) for n in sinks]
        again = _together(model, texts, cache, method="recompute", window=cache)
        yield {"cache": cache, "sinks": with_sinks, "recompute": again}


def _together(model, texts, cache, *, window, **options):
    """Perplexity over all texts."""
    unlearned = model.config.model_type == "gpt2" and cache > model.config.max_positions
    if unlearned or window < 1:
        return float("nan")
    nll = []
    for ids in texts:
        nll.append(token_nll(model, ids, window=window, lead=lead_of(model, ids, window), **options))
    return perplexity(np.concatenate(nll))


def main(argv=None):
    """Print the table of one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a shipped name or a folder")
    parser.add_argument("--text", nargs="+", type=Path, default=[sample_text()], metavar="FILE")
    parser.add_argument("--tokens", type=int, default=3000, help="of each text, from its beginning (%(default)s)")
    parser.add_argument("--caches", nargs="+", type=int, default=CACHES, metavar="N")
    parser.add_argument("--sinks", nargs="+", type=int, default=SINKS, metavar="N")
    args = parser.parse_args(argv)
    model = load(args.model)
    texts = [model.encode(path.read_text(encoding="utf-8"))[: args.tokens] for path in args.text]
    n_tokens = sum(len(ids) - 1 for ids in texts)
    print(f"{args.model}: perplexity of {n_tokens:,} tokens of {', '.join(path.stem for path in args.text)}")
    rows = [
        [str(row["cache"]), *(f"{x:.2f}" if x == x else "-" for x in (*row["sinks"], row["recompute"]))]
        for row in run(model, texts, caches=args.caches, sinks=args.sinks)
    ]
    print(table(["cache", *(f"{n} sink{'s' * (n != 1)}" for n in args.sinks), "re-computed"], rows))


if __name__ == "__main__":
    sys.exit(in_one_line(main))
