"""The engine in JavaScript, asked from Python: `ask` runs node, `differ` compares two steps."""

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

import minisink
from minisink.methods import Streaming

LIVE = Path(minisink.__file__).parent / "live"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node, which runs the engine of minisink/live")
NATS, DIGITS = 1e-9, 2e-7  # of losses; of a step, whose numbers have seven digits after the point


@dataclass(frozen=True)
class Modulo(Streaming):
    """The ring of a shipped engine: window token t stands at ``s + (t - s) mod 2W``."""

    n_sinks: int = 1
    window: int = 6
    name = "streaming"

    def positions_of(self, token_index):
        ring = self.n_sinks + (token_index - self.n_sinks) % (2 * self.window)
        return np.where(token_index < self.n_sinks, token_index, ring)


def perplexity_from_13(model, ids, method):
    """Of the tokens after the first eviction of a cache of 12."""
    return float(np.exp(np.mean(minisink.token_nll(model, ids, method)[12:])))


def policy_of(method):
    """The method as a policy of the engine."""
    fields = {"method": method.name, **asdict(method)}
    return fields | ({"positions": "modulo"} if isinstance(method, Modulo) else {})


def ask(packed, folder=LIVE, **request):
    """What the scripts of a folder answer."""
    run = [NODE, str(Path(__file__).with_name("run.mjs")), str(folder)]
    asked = json.dumps({"packed": packed, **request})
    done = subprocess.run(run, input=asked, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differ(ours, theirs, tolerance, where="step"):
    """Where two values of JSON differ, in words, or None: numbers that are no whole ones by more than `tolerance`."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs = [(ours[key], theirs[key], f"{where}.{key}") for key in ours]
    elif isinstance(ours, list | tuple) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    elif isinstance(ours, float) and isinstance(theirs, float | int):
        return None if abs(ours - theirs) <= tolerance * max(1.0, abs(ours)) else f"{where}: {ours} {theirs}"
    else:
        return None if ours == theirs else f"{where}: {ours!r} {theirs!r}"
    return next((found for pair in pairs if (found := differ(pair[0], pair[1], tolerance, pair[2]))), None)
