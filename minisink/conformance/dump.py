"""Golden vectors for any language: write them to files, and check the answers in files like them.

docs/check-your-cache.md describes them. `replay` makes a cache that gives the recorded answers, so `check` can treat it
as the cache that wrote the file, and name its wrong turn.
"""

import filecmp
import json
import os
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from safetensors import safe_open

from ..hf import gguf_model
from ..hf.checkpoint import write_tensors
from ..hf.fields import naming, refusing
from ..loss import token_nll
from ..system.files import blame, check_file, reading, unfinished_folder
from . import texts
from .checking import check, check_losses
from .golden import FOLDER, NAMES, load, model
from .golden import read as read_traces
from .policies import named
from .report import Report
from .run import numbers_of
from .traces import Trace, answered, under

AXES = {"out": ["TLHD"], "token_index": ["TS", "TLS"], "positions": ["TS", "TLS"], "scores": ["TLHS"], "losses": ["N"]}
GIVEN = ("q", "k", "v")
NEEDS = {"token_index": "out", "positions": "token_index", "scores": "token_index"}  # to know which slots are empty


@dataclass(frozen=True)
class Verdict:
    """The result of `check_dump`; true if everything in the dump is right."""

    report: Report | None  # on outputs; None if the dump only has losses
    losses: dict[str, str]  # by cache size: the first wrong loss, or "" if all are right
    missing: tuple[str, ...]  # what the dump lacks, so it was not checked

    def __bool__(self):
        return not any(self.losses.values()) and (self.report is None or bool(self.report))

    def __str__(self):
        right = ", ".join(size for size, wrong in self.losses.items() if not wrong)
        lines = ["" if self.report is None else str(self.report), right and f"losses are right: {right}"]
        lines += [*self.losses.values(), f"not checked: {', '.join(self.missing)}" if self.missing else ""]
        return "\n".join(filter(None, lines))


def check_dump(path, *, of: str | None = None, policy: Any = None, tolerance: float | None = None) -> Verdict:
    """Check a ``.npz`` or ``.safetensors`` file against the vectors of its model, `of`, by default the file's name.

    The first tokens of a text and some of the cache sizes are enough; "chunks" holds the chunk sizes. The rest is as in
    `check`. If a dump cannot be checked, a ValueError names the file and the array.
    """
    path, name = Path(path), Path(path).stem if of is None else of
    with naming(path):
        expected = vectors(name, policy)
    with reading(path, f"a dump of {name}"):
        dump = _read(path, expected)
        chunks = dump.pop("").get("chunks")
        for size, arrays in dump.items():
            _check(size, arrays, expected[size])
        if not any(dump.values()):
            raise ValueError(f"it holds neither out nor losses for any of {', '.join(expected)}")
    cut = {size: _cut(expected[size], arrays) for size, arrays in dump.items()}
    traces = [cut[size] for size in dump if "out" in dump[size]]
    with naming(path):
        sizes = None if chunks is None else chunks.ravel().tolist()
        report = check(replay(dump), traces, chunks=sizes, shared=True, tolerance=tolerance) if traces else None
    losses = {size: _wrong(dump[size]["losses"], cut[size], tolerance) for size in dump if "losses" in dump[size]}
    return Verdict(report, losses, tuple(_missing(dump, expected)))


def replay(dump):
    """Return a step that gives the recorded answers, for ``check(..., shared=True)``.

    `dump` holds arrays by cache size and by name: ``dump["1+4"]["out"]`` (T, L, H, D); "token_index" and "positions"
    (T, S), or (T, L, S) if layers hold different tokens; "scores" (T, L, H, S).
    """

    def step(state, q, k, v, *, n_sinks, window, theta, layer):
        arrays, n_seen = dump[f"{n_sinks}+{window}"], dict(state or {})  # by layer
        start = n_seen.get(layer, 0)
        n_seen[layer] = stop = start + (len(q) if q.ndim == 3 else 1)
        out = arrays["out"][start:stop, layer]
        last = {name: arrays[name][stop - 1] for name in arrays if name in NEEDS}
        shown = {name: array[layer] if array.ndim > 1 else array for name, array in last.items()}
        return out if q.ndim == 3 else out[0], n_seen, shown

    return step


def vectors(name: str, policy: Any = None) -> dict[str, Any]:
    """Return what is recorded for a model, by cache size or setting; under a policy, it is recomputed."""
    if name in texts.TEXTS and policy is None:
        return {each.setting: each for each in texts.losses(name)}
    if name not in NAMES:
        known = ", ".join(NAMES if policy else NAMES + texts.TEXTS)
        raise ValueError(f"no vectors of {name!r}{' under a policy' if policy else ''}; --of takes {known}")
    traces = [answered(under(trace, policy)) for trace in load(name)]
    traces = [trace if trace.losses is not None else replace(trace, losses=_losses_of(trace)) for trace in traces]
    return {f"{trace.n_sinks}+{trace.window}": trace for trace in traces}


def _losses_of(trace):
    """Return a model's losses under the policy of a trace; none for a GPT-2 whose layers would number a token twice."""
    try:
        return token_nll(model(trace.name), trace.ids, trace.policy, readable=True)
    except ValueError:
        return np.array([])


def _read(path, sizes):
    """Return arrays by size and name, with "chunks" under the size ""; ignore any others."""
    check_file(path)
    is_npz, dump = path.suffix == ".npz", {size: {} for size in ("", *sizes)}
    with refusing(f"{path}: not a sound {'.npz' if is_npz else '.safetensors'} file", Exception):
        with open(path, "rb") as raw, NpzFile(raw) if is_npz else safe_open(path, "numpy") as file:
            for name in file.keys():
                size, _, what = name.rpartition(".")
                if name == "chunks" or (size in sizes and what not in GIVEN):
                    with refusing(name, Exception):
                        dump[size][what] = file[name] if isinstance(file, NpzFile) else file.get_tensor(name)
                        numbers_of(dump[size][what], "it")
    return dump


def _check(size, found, expected):
    """Raise ValueError if an array of one size does not fit."""
    axes, known = {"N": len(expected.losses)}, ["losses"] if len(expected.losses) else []
    if isinstance(expected, Trace):
        axes, known = axes | dict(zip("TLHD", expected.q.shape, strict=True)), ["out", *NEEDS, *known]
    for name in found:
        if name not in known:
            raise ValueError(f"{size}.{name} is unknown; known are {', '.join(known)}")
        if NEEDS.get(name, name) not in found:
            raise ValueError(f"{size}.{NEEDS[name]} is missing, though {size}.{name} is there")
    for axis, name in (("T", "out"), ("N", "losses")):  # a dump may end before its text does
        if name in found and found[name].ndim:
            axes[axis] = min(axes[axis], max(1, len(found[name])))
    for name, array in found.items():
        given = axes | {"S": array.shape[-1] if array.ndim else 0}
        if array.shape not in [tuple(given[axis] for axis in each) for each in AXES[name]]:
            must = " or ".join(f"({', '.join(each)})" for each in AXES[name])
            must += f" with {', '.join(f'{axis}={n}' for axis, n in axes.items() if axis in must)}"
            raise ValueError(f"{size}.{name} has shape {array.shape}; it must be {must}")


def _cut(expected, arrays):
    """Return what is expected for the tokens that a dump holds."""
    ends = {"losses": len(arrays.get("losses", expected.losses))}
    if "out" in arrays:
        ends |= dict.fromkeys((*GIVEN, "token_index", "positions", "out"), len(arrays["out"]))
    return replace(expected, **{name: getattr(expected, name)[:end] for name, end in ends.items()})


def _wrong(losses, expected, tolerance):
    """Describe the first wrong loss, or return ""."""
    token = check_losses(losses, expected, tolerance=tolerance)
    if token is None:
        return ""
    return f"{expected}: token {token}: its loss is {losses[token - 1]:.6g}; expected {expected.losses[token - 1]:.6g}"


def _missing(dump, expected):
    """Name what is missing from the dump, for each kind of array that it contains."""
    for kind in ("out", "losses"):
        n_held = {size: len(arrays.get(kind, ())) for size, arrays in dump.items()}
        for size, n in n_held.items() if any(n_held.values()) else ():
            if n < len(getattr(expected[size], kind)):
                yield f"{size}.{kind}" + (f" from token {n + (kind == 'losses')} on" if n else "")


# Files for other programs ---------------------------------------------------------------------------


def write_vectors(folder, *, policy: Any = None, on_model=lambda: None):
    """Write traces, losses and models to a folder; ValueError if a file there has different contents.

    Under a policy there are no losses of trained models, because those come with their own methods.
    """
    folder, _ = Path(folder), named(policy)  # an unknown policy raises before anything is written
    with blame(folder, "cannot be written"):
        folder.mkdir(exist_ok=True)
        with unfinished_folder(folder) as half:
            for name in NAMES if policy else NAMES + texts.TEXTS:
                made = _write_traces(half, name, policy) if name in NAMES else _write_losses(half, name)
                made.save(half / "models" / name)
                if find_spec("gguf") and (made.config.softmax, made.config.sink_logit) == ("softmax", False):
                    gguf_model.write(half / "models" / f"{name}.gguf", made.config, made.arrays(), made.tokenizer)
                on_model()
            files = {path: folder / path.relative_to(half) for path in half.rglob("*") if path.is_file()}
            for path, there in files.items():
                there.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(there) and not (there.is_file() and filecmp.cmp(path, there, shallow=False)):
                    raise ValueError(f"{there}: already exists, and is not overwritten; give another folder")
            for path, there in files.items():
                os.replace(path, there)


def _write_traces(folder, name, policy):
    """Write what is recorded, or what a policy derives from it, except the scores."""
    arrays = read_traces(name)
    about = json.loads(str(arrays["about"]))
    about |= {"theta": about["config"].get("rope_theta"), "policy": policy or "streaming"}
    if policy:
        arrays["about"] = np.array(json.dumps(about))
        for size, trace in vectors(name, policy).items():
            del arrays[f"{size}.scores"]
            arrays |= {f"{size}.{what}": getattr(trace, what) for what in ("token_index", "positions", "out", "losses")}
        arrays = {each: array for each, array in arrays.items() if array.size}  # where there are no losses
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    del arrays["about"]
    stated = {"about": json.dumps(about), "theta": json.dumps(about["theta"])}  # again, for those without a JSON parser
    write_tensors(folder / f"{name}.safetensors", arrays, **stated)
    return model(name)


def _write_losses(folder, name):
    for each in (name, "gate"):
        shutil.copyfile(FOLDER / f"{each}.safetensors", folder / f"{each}.safetensors")
        about, arrays = texts.read(each)
        lists = {what: array.tolist() for what, array in arrays.items()}
        (folder / f"{each}.json").write_text(json.dumps({"about": about} | lists), encoding="utf-8")
    return texts.model(name, "float32")
