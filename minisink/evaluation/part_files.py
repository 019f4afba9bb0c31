"""One part of a text in a file, measured by a job of its own (Slurm's arrays), and the files of all parts together."""

import hashlib
import os
import time

import numpy as np

from ..cache import check_whole
from ..snapshot import method_state
from ..system.files import blame, load_state, reading, save_state
from .run import changes, identity, update

PART, WHAT = "minisink_part", "what `minisink ppl --part` writes"


class PartFile:
    """The losses of the tokens that begin in part `number` of `of` equal parts of a text's bytes, in the file `path`.

    Each job reads and tokenizes the text up to the end of its part, so that all of them cut it at the same tokens
    with any tokenizer, and count the same.
    """

    def __init__(self, path, number, of):
        self.path, self.number, self.of = path, number, of
        self.blocks: list = []  # losses, and the ids that they predict

    def begin(self, run):
        """Hash the text; ValueError for one that cannot be read twice, or if the part has been written."""
        if run.n_bytes is None:
            raise ValueError(f"{run.path}: --part needs a file, for every part reads it")
        if os.path.lexists(self.path):
            raise ValueError(f"{self.path}: is there already; move it away to measure this part again")
        self.edges = [run.n_bytes * i // self.of for i in (self.number - 1, self.number)]
        with blame(run.path, "cannot be read"), open(run.path, "rb") as file:
            update(digest := hashlib.sha256(), file, run.n_bytes)
        self.about = {
            "run": identity(run) | {"digest of the text": digest.hexdigest()[:16], "parts": self.of},
            "part": self.number,
            "method": method_state(run.method),
            "model": run.model.name,
            "text": os.path.basename(run.path),
        }
        self.started = time.perf_counter()

    def within(self, pieces, past):
        """Yield the share of each of a text's `pieces` in this part, and a token more; `past` takes what is before."""
        n, bounds = 0, [None, None]  # tokens
        for start, n_bytes, ids in pieces:
            for i, edge in enumerate(self.edges):
                if bounds[i] is None and edge < start + n_bytes:
                    bounds[i] = past.in_chunks(n + max(0, -(-(edge - start) * len(ids) // n_bytes)))
            first, stop = (len(ids) if x is None else min(len(ids), max(0, x - n)) for x in bounds)
            past.take(ids[:first])
            yield start, n_bytes, ids[first : stop + 1]
            n += len(ids)
            if bounds[1] is not None and bounds[1] < n:
                return

    def write(self, run):
        """Write the file, whole or not at all."""
        empty = np.empty(0, run.model.dtype), np.empty(0, np.int64)
        nll, ids = map(np.concatenate, zip(empty, *self.blocks, strict=True))
        about = {"first": run.past.n_seen - len(nll), "seconds": time.perf_counter() - self.started}
        save_state(self.path, PART, self.about | about, {"nll": nll, "ids": ids})


def load_part(path):
    """Return the metadata in the file of a part, its losses, and the ids that they predict."""
    with reading(path, WHAT):
        about, arrays = load_state(path, PART, WHAT)
        nll, ids = arrays["nll"], arrays["ids"]
        check_whole("first", about["first"], 0)
        if nll.ndim != 1 or nll.shape != ids.shape or about["part"] not in range(1, about["run"]["parts"] + 1):
            raise ValueError(f"losses {nll.shape} of ids {ids.shape}, part {about['part']}")
        return about, nll, ids


def in_their_order(paths):
    """Return (path, metadata) of all parts of a text, in order.

    Raise ValueError for files of more than one run, and for a part that is missing or given twice.
    """
    loaded = ((path, *load_part(path)[:2]) for path in paths)
    parts = sorted(((path, about, len(nll)) for path, about, nll in loaded), key=lambda part: part[1]["part"])
    first_path, first, _ = parts[0]
    seen, n_parts, n_tokens = {}, first["run"]["parts"], 0
    for path, about, _ in parts:
        if changed := changes(first["run"], about["run"]):
            raise ValueError(f"{path}: a part of another run than {first_path}: {changed}")
        if (number := about["part"]) in seen:
            raise ValueError(f"{seen[number]} and {path}: both are part {number} of {n_parts}")
        seen[number] = path
    if missing := [f"{i}/{n_parts}" for i in range(1, n_parts + 1) if i not in seen]:
        raise ValueError(f"{', '.join(missing[:20])}{' ...' * (len(missing) > 20)}: missing among the parts")
    for path, about, n in parts:
        if n and about["first"] != n_tokens:
            raise ValueError(f"{path}: begins at token {about['first']}, and the parts before it end at {n_tokens}")
        n_tokens += n
    return [part[:2] for part in parts]
