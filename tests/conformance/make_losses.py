"""Make the golden losses of the trained models, and the gated layer, by the readable path in float64.

    python tests/conformance/make_losses.py FOLDER

writes a safetensors file for each of `TEXTS`, and gate.safetensors. The text is the first 600 ids of
weights/sample.txt, as the model encodes it. The numbers come out the same to 1e-11 or so wherever they are made: BLAS
kernels differ in the last bits.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from safetensors.numpy import save

import minisink
from minisink import Dense, Recompute, Retrieval, Streaming, Window
from minisink.conformance.texts import TEXTS, with_sink_logits
from minisink.conformance.traces import drawn
from minisink.evaluation.policies import Blockwise, HalfAtOnce
from minisink.hf.shipped import sample_text
from minisink.methods import ByLayer
from minisink.training.trigger.toy import Toy

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
    "4+124": Streaming(4, 124),
    "4+252": Streaming(4, 252),
    "1+15.original": Streaming(1, 15, "original"),
    "4+12.original": Streaming(4, 12, "original"),
    "1+63.original": Streaming(1, 63, "original"),
    "4+60.original": Streaming(4, 60, "original"),
    "recompute.16": Recompute(16),
    "recompute.64": Recompute(64),
    "1+15.retrieval": Retrieval(1, 15, n_blocks=2, block=4),
    "1+31.half": HalfAtOnce(1, 31),
    "4+28.half": HalfAtOnce(4, 28),
    "1+31.blocks": Blockwise(1, 31, block=16),
    "4+28.blocks": Blockwise(4, 28, block=8),
    "1+31.first-dense": ByLayer([Dense(), *[Streaming(1, 31)] * 3]),
}
# Of novels-softmax1, layer by layer; make_sink_logits.py has trained them
SINK_LOGITS = [
    [0.96875, -0.125, 0.53125, 0.53125],
    [0.171875, -0.234375, 0.703125, -0.03125],
    [-0.078125, 1.046875, 1.15625, 0.78125],
    [0.578125, -0.1875, -1.1875, -0.75],
]


def settings_of(config):
    """Return the methods of a model by what the file calls them.

    A GPT-2 adds its positions before layer 0: its layers cannot number tokens differently, and what its newest token
    is embedded at when many leave at once no engine agrees on. Nor has it places beyond the last that it learned.
    """
    plain = [name for name in SETTINGS if not name.endswith(("original", "half", "blocks", "first-dense"))]
    return {name: SETTINGS[name] for name in (plain if config.model_type == "gpt2" else SETTINGS)}


def build(name):
    """Return what the file of a model says of itself, and its arrays."""
    about = {"model": name}
    if name == "novels-sink-logit":
        about = {"model": "novels-softmax1", "sink_logits": SINK_LOGITS}
        about["sink_logits_by"] = "tests/conformance/make_sink_logits.py: trained, all other weights frozen"
    model = minisink.load(about["model"], dtype="float64")
    if "sink_logits" in about:
        model = with_sink_logits(model, SINK_LOGITS, name)
    ids, settings = model.encode(sample_text().read_text(encoding="utf-8"))[:N_TOKENS], settings_of(model.config)
    about |= {"config": asdict(model.config), "rope_theta": getattr(model.config, "rope_theta", None)}
    about |= {"text": "the first 600 ids of weights/sample.txt, as the model encodes it"}
    about |= {"losses": "nats per token, from the second on", "chunks": CHUNKS}
    about["settings"] = {setting: state_of(method) for setting, method in settings.items()}
    arrays = {"ids": ids}
    for setting, method in settings.items():
        read = ids
        if setting == "dense" and model.config.model_type == "gpt2":
            read = ids[: model.config.max_positions + 1]  # the last of them is only predicted
        arrays[f"{setting}.losses"] = minisink.token_nll(model, read, method, readable=True)
    return about, arrays


def state_of(method):
    """Return a method as JSON has it; `texts.losses` makes it again."""
    if isinstance(method, ByLayer):
        return {"name": "ByLayer", "policies": [state_of(policy) for policy in method.policies]}
    return {"name": type(method).__name__} | {f.name: getattr(method, f.name) for f in fields(method) if f.init}


def build_gate():
    """Return a gated layer twice: a head that has learned the trigger task, and drawn numbers with evictions.

    What is learned reads one text of 16 tokens, densely: at the trigger, and there alone, its answer is not about zero.
    Its scores are not divided by sqrt(D); so its queries are multiplied by it.
    """
    toy = Toy("gate", dtype=np.float64)
    n_steps = toy.train(5000)
    x = toy.watched[0][:1]  # (1, T, C)
    out, saved = toy.forward(x)
    q, k, v, gate, out = (array[0, :, None] for array in (*map(saved.get, ("q", "k", "v", "gate")), out))  # one head
    arrays = {"q": q * np.sqrt(q.shape[-1]), "k": k, "v": v, "gate": np.log(gate / (1.0 - gate)), "out": out}
    arrays = {f"0+16.{name}": array for name, array in arrays.items()}
    trace = drawn(0, n_sinks=1, window=4, n_tokens=24, head_dim=16)
    gate = np.random.default_rng(1).normal(size=trace.q.shape)  # (T, L, H, D)
    arrays |= {f"1+4.{name}": getattr(trace, name)[:, 0] for name in "qkv"}
    arrays |= {"1+4.gate": gate[:, 0], "1+4.out": (trace.out / (1.0 + np.exp(-gate)))[:, 0]}
    about = {"out": "sigmoid(gate) * attention(q, k, v), channel by channel, before the output map (arXiv:2505.06708)"}
    about["shapes"] = "q, gate, out (T, H, D); k, v (T, K, D); un-rotated"
    about["rope_theta"] = {"0+16": None, "1+4": 10000.0}
    learned = f"minisink.training.trigger, kind gate, seed 0, {n_steps} steps, a text that it has not learned from"
    about["by"] = {"0+16": learned, "1+4": "conformance.drawn(0, n_sinks=1, window=4, n_tokens=24, head_dim=16)"}
    return about, arrays


def main(folder):
    """Write the files."""
    for name in (*TEXTS, "gate"):
        about, arrays = build_gate() if name == "gate" else build(name)
        arrays = {each: np.ascontiguousarray(array) for each, array in arrays.items()}
        content = save(arrays, {"about": json.dumps(about, ensure_ascii=False)})
        (Path(folder) / f"{name}.safetensors").write_bytes(content)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python tests/conformance/make_losses.py FOLDER, a folder that is there")
    main(sys.argv[1])
