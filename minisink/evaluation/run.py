"""The perplexity of a text file of any size, in constant memory, that can stop today and go on tomorrow.

The text comes in pieces (`pieces`), the model takes blocks of tokens (`loss.nll_stream`), and of the losses a
`Tally` and the rows of a CSV file are kept. Between two blocks all there is to go on from is a cache, a few numbers
and a place in the text: the state, which is written every few seconds and when the run is interrupted.
"""

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..loss import empty_cache, nll_blocks, nll_stream
from ..methods import policy_of
from ..snapshot import restored
from ..system.device import to_host
from ..system.files import load_state, save_state
from ..system.interrupts import interrupts_wait
from .pieces import CHUNK, cut_of, read_pieces
from .tally import GrowingCsv, Tally
from .tape import Place, Tape

STATE = "minisink_evaluation"
RESUMED = ("window", "streaming", "retrieval")  # methods
SAVE_SECONDS = 10.0  # from one state to the next
A_TOKEN = ("token_index", "id", "nll")  # header of a CSV file with a row a token
RUNNING = ("tokens", "mean_nll", "perplexity")  # of one with running perplexity


class Evaluation:
    """A model and a text file to measure it on, from the start or from where an earlier run stopped.

    What can be refused is refused here, before anything is written.

    Parameters
    ----------
    model : Model
    path : str or path
        A UTF-8 text.
    method, n_sinks, window, positions, lead, readable, retrieval
        As in `loss.token_nll`; n_blocks, block, select and store by name.
    bos : bool
        Begin with the begin-of-text token, where there is one.
    csv : str or path, optional
        Gets a row for every token, or with `every` one of running perplexity for every so many tokens.
    every : int, optional
    state : str or path, optional
        Where the state is kept; if there is one, the run goes on from it. For "window",
        "streaming" and "retrieval", whose state grows with the text unless `store` says otherwise.

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

    def __init__(
        self, model, path, *, method, n_sinks, window, positions, lead=(), readable=False, bos=True,
        csv=None, every=None, state=None, **retrieval,
    ):  # fmt: skip
        if every is not None and every < 1:
            raise ValueError(f"every is {every}; it must be 1 token or more")
        self.model, self.path, self.state, self.lead, self.retrieval = model, path, state, lead, retrieval
        self.options = {"method": method, "n_sinks": n_sinks, "window": window, "positions": positions} | retrieval
        self.readable, self.bos = readable, bos
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
            options = self.options | {"readable": self.readable} if self.cache is None else {"cache": self.cache}
            return nll_stream(self.model, tape, **options)
        ids, options = np.concatenate(list(tape)), self.options | {"readable": self.readable}
        return nll_blocks(self.model, ids, lead=self.lead, **options) if len(ids) else iter(())

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
                yield place, len(piece.raw), self.model.encode(piece.text, bos=self.bos and piece.start == 0)
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
        elif self.options["method"] in RESUMED:
            text += "; with --resume FILE a run can go on"
        return [text]

    # The state -----------------------------------------------------------------------------------

    def _prepare_state(self):
        """Refuse what cannot be gone on with; go on from the state if there is one."""
        method, window = self.options["method"], self.options["window"]
        if method not in RESUMED:
            why = "reads its text as a whole" if method == "recompute" else "keeps every key, so its state would grow"
            raise ValueError(f"--resume goes with the methods {', '.join(RESUMED)}: {method} {why}")
        if self.n_bytes is None:
            raise ValueError(f"{self.path}: --resume needs a file that can be read again from the middle")
        policy = policy_of(self.model, **self.options)
        self.cache = empty_cache(self.model, policy, readable=self.readable)
        self.identity = {
            "model": fingerprint(self.model),
            "method": method,
            "n_sinks": policy.n_sinks,
            "window": window,
            "positions": self.options["positions"],
            **(self.retrieval if method == "retrieval" else {}),
            "readable": self.readable,
            "begins with": self.model.encode("", bos=self.bos).tolist(),
            "csv": self.csv is not None,
            "every": self.tally.every,
            "bytes of text": self.n_bytes,
        }
        if os.path.lexists(self.state):
            self._restore(*load_state(self.state, STATE, "the state of a `minisink ppl` run"))
        elif self.csv and os.path.lexists(self.csv.path):
            raise ValueError(
                f"{self.csv.path}: is there, but {self.state}, to go on with it, is not; name another CSV file"
            )

    def _save(self):
        """Write the state, unless nothing has been measured since the last one."""
        if self.state is None or not self.tally.n_tokens or (self.saved == self.tally.n_tokens and not self.done):
            return
        numbers, sums = self.tally.state()
        arrays, cache = self.cache.state()
        arrays = {name: to_host(array) for name, array in arrays.items()} | {"curve": sums}
        about = {
            "cache": cache | {"kind": self.cache.kind},
            "run": self.identity,
            "place": self.tape.place,
            "tally": numbers,
            "csv": self.csv.mark() if self.csv else None,
            "done": self.done,
        }
        save_state(self.state, STATE, about, arrays)
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
        self.tally.restore(about["tally"], arrays.pop("curve"))
        self.saved = self.tally.n_tokens
        self.cache = restored(about["cache"], arrays, like=self.model.weights.embed)
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
    for name, array in model.arrays().items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


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
