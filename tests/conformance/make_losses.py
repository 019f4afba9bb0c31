"""Make the golden losses of the trained models, by the readable path in float64.

    python tests/conformance/make_losses.py FOLDER

writes a safetensors file for each of `TEXTS`. The text is the first 600 ids of weights/sample.txt, as the model encodes
it. The losses come out the same to 1e-11 nats or so wherever they are made: BLAS kernels differ in the last bits.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from safetensors.numpy import save

import minisink
from minisink import Dense, Recompute, Retrieval, Streaming, Window
from minisink.conformance.texts import TEXTS
from minisink.hf.shipped import sample_text
from minisink.snapshot import method_state

N_TOKENS = 600
CHUNKS = (1, 7, 64, 600)
SETTINGS = {
    "dense": Dense(),
    "0+16": Window(16),
    "1+15": Streaming(1, 15),
    "4+12": Streaming(4, 12),
    "0+64": Window(64),
    "1+63": Streaming(1, 63),
    "4+60": Streaming(4, 60),
    "4+252": Streaming(4, 252),
    "1+15.original": Streaming(1, 15, "original"),
    "4+12.original": Streaming(4, 12, "original"),
    "1+63.original": Streaming(1, 63, "original"),
    "4+60.original": Streaming(4, 60, "original"),
    "recompute.16": Recompute(16),
    "recompute.64": Recompute(64),
    "1+15.retrieval": Retrieval(1, 15, n_blocks=2, block=4),
}


def settings_of(model):
    """Return the settings of a model by name, and how many tokens each reads: a GPT-2 has no position beyond its last.

    Its places in the text end there too, so under it no tokens are numbered by them.
    """
    if model.config.model_type != "gpt2":
        return {name: (method, N_TOKENS) for name, method in SETTINGS.items()}
    positions = model.config.max_positions
    n_tokens = {"dense": positions + 1}  # the last of them is only predicted
    names = [name for name in SETTINGS if "original" not in name]
    return {name: (SETTINGS[name], n_tokens.get(name, N_TOKENS)) for name in names}


def build(name):
    """Return what a file says of itself, and its arrays."""
    model = minisink.load(name, dtype="float64")
    ids = model.encode(sample_text().read_text(encoding="utf-8"))[:N_TOKENS]
    settings = settings_of(model)
    about = {"model": name, "config": asdict(model.config), "rope_theta": getattr(model.config, "rope_theta", None)}
    about |= {"text": "the first 600 ids of weights/sample.txt, as the model encodes it", "chunks": CHUNKS}
    about["settings"] = {setting: method_state(method) for setting, (method, _) in settings.items()}
    arrays = {"ids": ids}
    for setting, (method, n) in settings.items():
        arrays[f"{setting}.losses"] = minisink.token_nll(model, ids[:n], method, readable=True)
    return about, arrays


def main(folder):
    """Write the files."""
    for name in TEXTS:
        about, arrays = build(name)
        content = save(arrays, {"about": json.dumps(about, ensure_ascii=False)})
        (Path(folder) / f"{name}.safetensors").write_bytes(content)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python tests/conformance/make_losses.py FOLDER, a folder that is there")
    main(sys.argv[1])
