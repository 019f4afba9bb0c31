"""The perplexity of a text file of any size, in constant memory, that can stop today and go on tomorrow.

The text comes in pieces (`texts`), the model takes blocks of tokens (`perplexity.nll_stream`), and of the losses a
`Tally` and the rows of a CSV file are kept. Between two blocks all there is to go on from is a cache, a few numbers
and a place in the text: the state, which is written every few seconds and when the run is interrupted.
"""

import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from .device import to_host
from .files import save_arrays
from .interrupts import interrupts_wait
from .methods import policy_of
from .perplexity import empty_cache, nll_blocks, nll_stream
from .tally import GrowingCsv, Tally
from .tape import Place, Tape
from .texts import CHUNK, cut_of, read_pieces

SAVE_SECONDS = 10.0  # from one state to the next
A_TOKEN = ("token_index", "id", "nll")  # header of a CSV file with a row a token
RUNNING = ("tokens", "mean_nll", "perplexity")  # of one with running perplexity
PARTS = ("sink_keys", "sink_values", "keys", "values")  # of a layer of `streaming.Banded`


class Evaluation:
    """A model and a text file to measure it on, from the start or from where an earlier run stopped.

    What can be refused is refused here, before anything is written.

    Parameters
    ----------
    model : Model
    path : str or path
        A UTF-8 text.
    method, n_sinks, window, positions, lead
        As in `perplexity.token_nll`.
    csv : str or path, optional
        Gets a row for every token, or with `every` one of running perplexity for every so many tokens.
    every : int, optional
    state : str or path, optional
        Where the state is kept; if there is one, the run goes on from it. For "window" and "streaming".

    Attributes
    ----------
    tally : Tally
        What is known so far.
    n_bytes : int or None
        Size of the text; None for what is no file on a disk.
    done : bool
        Whether the whole text has been measured.

    Raises
    ------
    ValueError
        For a text that cannot be read, options that do not go together, or the state of another run.
    """

    def __init__(self, model, path, *, method, n_sinks, window, positions, lead=(), csv=None, every=None, state=None):
        if every is not None and every < 1:
            raise ValueError(f"every is {every}; it must be 1 token or more")
        self.model, self.path, self.state, self.lead = model, path, state, lead
        self.options = {"method": method, "n_sinks": n_sinks, "window": window, "positions": positions}
        self.csv = GrowingCsv(csv, RUNNING if every else A_TOKEN) if csv else None
        self.tally, self.n_bytes, self.done = Tally(every), _size(path), False
        self.saved = 0  # tokens, in the state on the disk
        self.cache: Any = None  # what the method needs, made when it is needed
        self.place, self.digest = Place(0, 0, ""), hashlib.sha256()
        if state is not None:
            self._prepare_state()

    def run(self, on_progress=None):
        """Measure what has not been measured.

        Parameters
        ----------
        on_progress : callable, optional
            Called after every block with the bytes of the text that are done.

        Raises
        ------
        ValueError
            When the text or a file fails, or the model refuses a token; what was measured before is in the CSV file,
            and the message says how far that is.
        KeyboardInterrupt
            Between two blocks, with such a message; a second Ctrl-C does not wait for the end of a block.
        """
        if self.done:
            return
        with interrupts_wait() as noted:
            try:
                with _open(self.path) as file:
                    if self.place.start:
                        file.seek(self.place.start)
                    self._measure(Tape(self._encoded(file), self.place.skip), noted, on_progress)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(*self._so_far()) from None
            except (ValueError, OSError, OverflowError, MemoryError) as error:
                what = str(error) or type(error).__name__
                raise ValueError("; stopped ".join([what, *self._so_far()])) from error
            finally:
                if self.csv:
                    self.csv.close()

    def _measure(self, tape, noted, on_progress):
        next_save = time.monotonic()
        self.tape = tape
        for nll in self._losses(tape):
            self._count(nll, tape.take(len(nll)))
            if noted or time.monotonic() >= next_save:
                self._save()
                next_save = time.monotonic() + SAVE_SECONDS
            if noted:
                raise KeyboardInterrupt
            if on_progress is not None:
                on_progress(tape.n_bytes)
        self.done = True
        if self.csv:
            self.csv.add(self.tally.last_row())
        self._save()

    def _losses(self, tape):
        """Iterator of (T,) nats."""
        if self.options["method"] != "recompute":
            return nll_stream(self.model, tape, cache=self.cache, **self.options)
        ids = np.concatenate(list(tape))
        return nll_blocks(self.model, ids, lead=self.lead, **self.options) if len(ids) else iter(())

    def _count(self, nll, ids):
        """Add the losses of a block, which predict `ids`, to the tally and the CSV file."""
        first = self.tally.n_tokens + 1
        rows = self.tally.add(nll)
        if self.csv and not self.tally.every:
            rows = [(first + i, int(id_), float(loss)) for i, (id_, loss) in enumerate(zip(ids, nll, strict=True))]
        if self.csv:
            self.csv.add(rows)

    def _encoded(self, file):
        """Iterator of (Place, bytes, ids) of the pieces of the text, the begin-of-text token in the first."""
        start = self.place.start
        cut = cut_of(self.model.tokenizer) if self.model.tokenizer else None
        try:
            for piece in read_pieces(file, self.path, cut, start=start, size=CHUNK):
                place = Place(piece.start, 0, self.digest.hexdigest())
                yield place, len(piece.raw), self.model.encode(piece.text, bos=piece.start == 0)
                self.digest.update(piece.raw)
        except ValueError:
            self._save()  # before the last tokens are measured as a shorter block than the whole text would make
            raise

    def _so_far(self):
        """How far this came and how it goes on, in a list; an empty list for nowhere."""
        if not self.tally.n_tokens:
            return []
        text = f"after {self.tally.n_tokens:,} tokens, perplexity {self.tally.perplexity:.2f}"
        if self.saved:
            text += f"; the same command goes on from token {self.saved:,}"
        elif self.options["method"] in ("window", "streaming"):
            text += "; with --resume FILE a run can go on"
        return [text]

    # The state -----------------------------------------------------------------------------------

    def _prepare_state(self):
        """Refuse what cannot be gone on with; go on from the state if there is one."""
        method, window = self.options["method"], self.options["window"]
        if method not in ("window", "streaming"):
            why = "reads its text as a whole" if method == "recompute" else "keeps every key, so its state would grow"
            raise ValueError(f"--resume goes with the methods window and streaming: {method} {why}")
        if self.n_bytes is None:
            raise ValueError(f"{self.path}: --resume needs a file that can be read again from the middle")
        policy = policy_of(self.model, **self.options)
        self.cache = empty_cache(self.model, policy)
        self.identity = {
            "model": fingerprint(self.model),
            "method": method,
            "n_sinks": policy.n_sinks,
            "window": window,
            "positions": self.options["positions"],
            "csv": self.csv is not None,
            "every": self.tally.every,
            "bytes of text": self.n_bytes,
        }
        if os.path.lexists(self.state):
            self._restore(*_load(self.state))
        elif self.csv and os.path.lexists(self.csv.path):
            raise ValueError(
                f"{self.csv.path}: is there, but {self.state}, to go on with it, is not; name another CSV file"
            )

    def _save(self):
        """Write the state, unless nothing has been measured since the last one."""
        if self.state is None or not self.tally.n_tokens or (self.saved == self.tally.n_tokens and not self.done):
            return
        numbers, sums = self.tally.state()
        arrays = {"curve": sums}
        for i, layer in enumerate(self.cache.layers):
            arrays |= {f"{part}.{i}": np.ascontiguousarray(to_host(x)) for part, x in zip(PARTS, layer, strict=True)}
        about = {
            "run": self.identity,
            "place": self.tape.place,
            "tally": numbers,
            "csv": self.csv.mark() if self.csv else None,
            "done": self.done,
        }
        save_arrays(arrays, self.state, {"minisink_evaluation": json.dumps(about)})
        self.saved = self.tally.n_tokens

    def _restore(self, about, arrays):
        """Be where the run was that wrote this state."""
        now, then = self.identity, about["run"]
        changed = [f"{key} was {then.get(key)} and is {value}" for key, value in now.items() if then.get(key) != value]
        if changed:
            raise ValueError(f"{self.state}: the state of another run: {', '.join(changed)}")
        place = Place(*about["place"])
        with _open(self.path) as file:
            for start in range(0, place.start, CHUNK):
                self.digest.update(file.read(min(CHUNK, place.start - start)))
        if self.digest.hexdigest() != place.digest:
            raise ValueError(f"{self.state}: the state of another run: {self.path} begins with another text")
        self.place, self.done = place, about["done"]
        self.tally.restore(about["tally"], arrays["curve"])
        self.saved = n_tokens = self.tally.n_tokens
        like = self.model.weights.embed
        for i in range(len(self.cache.layers)):
            self.cache.layers[i] = tuple(np.asarray(arrays[f"{part}.{i}"], like=like) for part in PARTS)
            self.cache._n_seen[i] = n_tokens
        self.cache.n_seen = n_tokens
        if self.csv and not self.done:
            self.csv.go_on(about["csv"])


def fingerprint(model):
    """Some digits that another config, tokenizer or weight would change.

    Parameters
    ----------
    model : Model

    Returns
    -------
    str
    """
    digest = hashlib.sha256(repr(model.config).encode())
    digest.update(model.tokenizer.to_str().encode() if model.tokenizer else b"")
    for name, tensor in model.architecture.to_tensors(model.config, model.weights).items():
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(to_host(tensor)).data)
    return digest.hexdigest()[:16]


def _load(path):
    """(dict, dict of arrays): what `Evaluation._save` wrote."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["minisink_evaluation"])
            missing = {"run", "place", "tally", "csv", "done"} - set(about)
            if missing:
                raise KeyError(*sorted(missing))
            return about, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the state of a `minisink ppl` run ({error})") from error


def _open(path):
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def _size(path):
    try:
        about = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    return about.st_size if stat.S_ISREG(about.st_mode) else None
