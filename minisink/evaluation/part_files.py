"""One part of a text, measured by its own job (as in a Slurm array) and saved to a file; and the files of all parts."""

import hashlib
import os
import time

import numpy as np

from ..snapshot import method_state
from ..system.files import blame, load_state, reading, save_state
from .run import Evaluation, changes, identity, update

PART, WHAT = "minisink_part", "what `minisink ppl --part` writes"


class PartRun(Evaluation):
    """The losses of tokens that begin in part `number` of `of` equal parts of a text's bytes, saved to the file `out`.

    Each job reads and tokenizes the text up to the end of its part, so with any tokenizer all of them cut it at the
    same tokens, and count the same ones.
    """

    in_parts, hint = True, ""

    def __init__(self, model, path, method, number, of, out, **options):
        super().__init__(model, path, method, **options)
        if self.n_bytes is None:
            raise ValueError(f"{path}: --part needs a file, because every part reads it")
        if os.path.lexists(out):
            raise ValueError(f"{out}: already exists; move it away to measure this part again")
        self.out, self.blocks, self.started = out, [], time.perf_counter()  # blocks: losses, and the ids they predict
        self.edges = [self.n_bytes * i // of for i in (number - 1, number)]
        with blame(path, "cannot be read"), open(path, "rb") as file:
            update(digest := hashlib.sha256(), file, self.n_bytes)
        self.about = {
            "run": identity(self) | {"digest of the text": digest.hexdigest()[:16], "parts": of},
            "part": number,
            "method": method_state(method),
            "model": model.name,
            "text": os.path.basename(path),
        }

    def _pieces(self, file):
        """Yield what this part has of each piece of the text, plus one token; `past` takes what comes before."""
        n, bounds = 0, [None, None]  # tokens
        for start, n_bytes, ids in super()._pieces(file):
            for i, edge in enumerate(self.edges):
                if bounds[i] is None and edge < start + n_bytes:
                    bounds[i] = self.past.in_chunks(n + max(0, -(-(edge - start) * len(ids) // n_bytes)))
            first, stop = (len(ids) if x is None else min(len(ids), max(0, x - n)) for x in bounds)
            self.past.take(ids[:first])
            yield start, n_bytes, ids[first : stop + 1]
            n += len(ids)
            if bounds[1] is not None and bounds[1] < n:
                return

    def _count(self, nll, ids):
        super()._count(nll, ids)
        self.blocks.append((nll, ids))

    def _save(self):
        if self.done:
            empty = np.empty(0, self.model.dtype), np.empty(0, np.int64)
            nll, ids = map(np.concatenate, zip(empty, *self.blocks, strict=True))
            about = {"first": self.past.n_seen - len(nll), "seconds": time.perf_counter() - self.started}
            save_state(self.out, PART, self.about | about, {"nll": nll, "ids": ids})


def load_part(path):
    """Return the metadata in a part's file, its losses, and the ids that they predict."""
    with reading(path, WHAT):
        about, arrays = load_state(path, PART, WHAT)
        return about, arrays["nll"], arrays["ids"]


def in_their_order(paths):
    """Return (path, metadata) of all parts of a text, in order.

    Raise ValueError for files of more than one run, and for a part that is missing or given twice.
    """
    parts = sorted(((path, load_part(path)[0]) for path in paths), key=lambda part: part[1]["part"])
    first_path, first = parts[0]
    seen, n_parts = {}, first["run"]["parts"]
    for path, about in parts:
        if changed := changes(first["run"], about["run"]):
            raise ValueError(f"{path}: a part of a different run from {first_path}: {changed}")
        if (number := about["part"]) in seen:
            raise ValueError(f"{seen[number]} and {path}: both are part {number} of {n_parts}")
        seen[number] = path
    if missing := [f"{i}/{n_parts}" for i in range(1, n_parts + 1) if i not in seen]:
        raise ValueError(f"{', '.join(missing[:20])}{' ...' * (len(missing) > 20)}: missing among the parts")
    return parts
