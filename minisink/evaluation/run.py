"""The perplexity of a text file of any size, in constant memory; a run can stop today and continue tomorrow.

The text comes in pieces (`pieces`), the model takes blocks of tokens (`stream.nll_stream`), and a `Tally` and the rows
of a CSV file keep the losses. Between two blocks a run is no more than a cache, a few numbers and a place in the text:
its state, which is saved every few seconds and on interrupt. A text in parts needs its last tokens instead of a cache.
"""

import hashlib
import json
import os
import stat
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..cache import check_whole
from ..loss import cache_of
from ..methods import Recompute
from ..snapshot import cache_from, cache_state, method_state
from ..system.files import blame, digest_of, load_state, reading, save_state
from ..system.interrupts import defer_interrupts
from .parts import Past, measured
from .pieces import CHUNK, TokenReader, cut_of, read_pieces
from .stream import nll_stream
from .tally import GrowingCsv, Tally

STATE, WHAT = "minisink_evaluation", "the state of a `minisink ppl` run"
SAVE_SECONDS = 10.0  # between saves


class Evaluation:
    """A model and a text file to measure it on, from the start or from where an earlier run stopped.

    `path` is a UTF-8 text; with `bos` it begins with the begin-of-text token, if the model has one. The file `csv` gets
    a row for every token, or a row of running perplexity per `every` tokens. The file `state` keeps the state; if it
    exists, the run continues from it. The method must have a limit, or the state would grow with the text, as it does
    with `Retrieval` without a `store`.

    With a `pool`, an executor, the text is measured there, in parts.

    Raise ValueError, before anything is written, for a text that cannot be read, for options that do not go together,
    and for the state of another run.
    """

    in_parts, hint = False, "; with --resume FILE a run can continue"

    def __init__(self, model, path, method, *, readable=False, bos=True, csv=None, every=None, state=None, pool=None):
        if every is not None and every < 1:
            raise ValueError(f"every is {every}; it must be 1 token or more")
        with blame(path, "cannot be read"):
            about = os.stat(path)
        self.n_bytes: Any = about.st_size if stat.S_ISREG(about.st_mode) else None  # a pipe has no size
        self.model, self.path, self.method, self.readable, self.bos = model, path, method, readable, bos
        self.state, self.pool = state, pool
        self.csv, self.tally, self.done = GrowingCsv(csv, every), Tally(every), False
        self.n_saved = 0  # tokens, in the state on disk
        self.start, self.skip = 0, 0  # the place of the first token to measure: see `TokenReader`
        self.n_read, self.digest = 0, hashlib.sha256()  # of the bytes that were read
        self.in_parts = bool(self.in_parts or pool or isinstance(method, Recompute))
        self.past: Any = Past(model, method, readable=readable) if self.in_parts else None
        self.cache: Any = None if self.in_parts else cache_of(model, method, readable=readable)
        if state is not None:
            self._resume()

    def run(self, on_progress=None):
        """Measure the rest of the text, and call ``on_progress(bytes of the text that are done)`` after each block.

        Raise ValueError if reading or writing fails, or the model refuses a token; the CSV file has the losses up to
        that point, and the message says how far that is. Ctrl-C raises KeyboardInterrupt between two blocks, with such
        a message; a second Ctrl-C does not wait for the end of a block, nor does the first when measuring in parts.
        """
        if self.done:
            return
        with nullcontext() if self.in_parts else defer_interrupts() as noted:  # in parts there is no pass to end
            try:
                with _open(self.path) as file:
                    if self.start:
                        file.seek(self.start)
                    self.reader = TokenReader(self._pieces(file), self.skip)
                    self._measure(noted, on_progress)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(*self._progress_note()) from None
            except (ValueError, OSError, OverflowError, MemoryError) as error:
                what = str(error) or type(error).__name__
                raise ValueError("; stopped ".join([what, *self._progress_note()])) from error
            finally:
                self.csv.close()

    def _measure(self, noted, on_progress):
        next_save = time.monotonic()
        for nll in self._losses():
            with defer_interrupts() if self.in_parts else nullcontext(noted) as noted:
                self._count(nll, self.reader.advance(len(nll)))
                if noted or self.in_parts or time.monotonic() >= next_save:
                    self._save()
                    next_save = time.monotonic() + SAVE_SECONDS
            if noted:
                raise KeyboardInterrupt
            if on_progress is not None:
                on_progress(self.reader.n_bytes)
        self.done = True
        self.csv.add(self.tally.last_row())
        self._save()

    def _losses(self):
        """Return an iterator of (T,) nats."""
        if not self.in_parts:
            return nll_stream(self.model, self.reader, cache=self.cache)
        length = min(self.past.longest, max(self.past.reach, (self.n_bytes or 1 << 40) // 16))  # several per short text
        length = self.past.in_chunks(max(1, length))
        return measured(self.model, self.reader, self.past, length, self.pool)

    def _count(self, nll, ids):
        self.csv.add(self.tally.add(nll, ids))

    def _pieces(self, file):
        """Yield (start, bytes, ids) of the pieces of the text, the begin-of-text token in the first."""
        cut = cut_of(self.model.tokenizer) if self.model.tokenizer else None
        try:
            for piece in read_pieces(file, self.path, cut, start=self.start, size=CHUNK):
                ids = self.model.encode(piece.text, bos=self.bos and piece.start == 0)
                self.n_read = piece.start + len(piece.raw)
                self.digest.update(piece.raw)
                yield piece.start, len(piece.raw), ids
        except ValueError:
            self._save()  # before the last tokens are measured as a shorter block than the whole text would make
            raise

    def _progress_note(self):
        """Return a list with how far this got and how to continue, empty if nothing was measured."""
        if not self.tally.n_tokens:
            return []
        text = f"after {self.tally.n_tokens:,} tokens, perplexity {self.tally.perplexity:.2f}"
        if self.n_saved:
            text += f"; the same command continues from token {self.n_saved:,}"
        elif self.state is None and self.method.capacity is not None:
            text += self.hint
        return [text]

    def _save(self):
        """Write the state, unless nothing has been measured since the last one."""
        n_tokens = self.tally.n_tokens
        if self.state is None or not n_tokens or (self.n_saved == n_tokens and not self.done):
            return
        numbers, sums = self.tally.state()
        cache, arrays = (None, self.past.state()) if self.in_parts else cache_state(self.cache)
        about = {
            "cache": cache,
            "run": self.identity,
            "place": self.reader.place,
            "read": [self.n_read, self.digest.hexdigest()],
            "tally": numbers,
            "csv": self.csv.mark() if self.csv.path else None,
            "done": self.done,
        }
        save_state(self.state, STATE, about, arrays | {"curve": sums})
        self.n_saved = n_tokens

    def _resume(self):
        """Restore the state if its file exists; ValueError for a run that cannot be resumed."""
        if self.method.capacity is None:
            why = f"{self.method.name} keeps every key, so its state would grow"
            raise ValueError(f"--resume goes with the methods window, recompute, streaming, retrieval: {why}")
        if self.n_bytes is None:
            raise ValueError(f"{self.path}: --resume needs a file that can be read again from the middle")
        self.identity = identity(self) | {"csv": self.csv.path is not None, "every": self.tally.every}
        self.identity |= {"in parts": True} if self.in_parts else {}
        if os.path.lexists(self.state):
            with reading(self.state, WHAT):
                mark = self._restore(*load_state(self.state, STATE, WHAT))
            if self.csv.path and not self.done:
                self.csv.resume(mark)
        elif self.csv.path and os.path.lexists(self.csv.path):
            there = f"{self.csv.path} exists, but {self.state}, needed to continue it, does not"
            raise ValueError(f"{there}; name another CSV file")

    def _restore(self, about, arrays):
        """Restore a state, and return the mark of its CSV file; ValueError if another run wrote it."""
        if changed := changes(about["run"], self.identity):
            hint = " (--jobs 2 or more, and --dask, measure in parts)" if "in parts" in changed else ""
            raise ValueError(f"{self.state}: the state of another run: {changed}{hint}")
        (start, skip), done, (n_read, digest) = about["place"], about["done"], about["read"]
        check_whole("start", start, 0)
        check_whole("bytes read", n_read, start)
        check_whole("skip", skip, 0)
        if type(done) is not bool or start >= self.n_bytes:
            raise ValueError(f"it continues at byte {start}, done: {done}")
        with _open(self.path) as file:
            update(self.digest, file, start)
            update(whole := self.digest.copy(), file, min(n_read, self.n_bytes) - start)
        if whole.hexdigest() != digest:
            raise ValueError(f"{self.state}: the state of another run: {self.path} begins with another text")
        self.tally.restore(about["tally"], arrays.pop("curve"))
        n_tokens = self.tally.n_tokens
        if self.in_parts:
            self.past.restore(n_tokens, arrays)
        else:
            cache = cache_from(about["cache"], arrays, self.model.weights.embed, self.model.config)
            if (type(cache), cache.policy, cache.n_seen) != (type(self.cache), self.method, n_tokens):
                raise ValueError(f"it has {cache!r} for {n_tokens} tokens under {self.method!r}")
            self.cache = cache
        self.start, self.skip, self.done, self.n_saved = start, skip, done, n_tokens
        if self.csv.path:
            size, _ = about["csv"]
            check_whole("size of the CSV file", size, 0)
        return about["csv"]


def identity(run):
    """Return what the losses of an `Evaluation` depend on, after a round trip through JSON."""
    tokenizer = run.model.tokenizer.to_str() if run.model.tokenizer else ""
    about = {
        "model": digest_of(repr(run.model.config) + tokenizer, run.model.arrays())[:16],
        "method": run.method.name,
        **{name: value for name, value in method_state(run.method).items() if name != "name"},
        "readable": run.readable,
        "begins with": run.model.encode("", bos=run.bos).tolist(),
        "bytes of text": run.n_bytes,
    }
    return json.loads(json.dumps(about))


def changes(old, new):
    """Describe how two results of `identity` differ; "" if they do not."""
    old, new = ({"in parts": False} | each for each in (old, new))
    pairs = [(key, old.get(key), new.get(key)) for key in new | old]
    return ", ".join(f"{key} was {before} and is {now}" for key, before, now in pairs if before != now)


def update(digest, file, n_bytes):
    """Feed the next bytes of a file to a digest."""
    for start in range(0, n_bytes, CHUNK):
        digest.update(file.read(min(CHUNK, n_bytes - start)))


def _open(path):
    with blame(path, "cannot be read"):
        return Path(path).open("rb")
